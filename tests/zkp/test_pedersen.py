"""zkp.pedersen: openings, homomorphism, generators that nobody relates."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.domains import PEDERSEN_GENERATOR
from wire.errors import VerificationError
from zkp.groups import BACKENDS, Backend, R, backend
from zkp.pedersen import check_opening, commit, generator_g, generator_h

scalars = st.integers(0, R - 1) | st.sampled_from([0, 1, R - 1])


@settings(max_examples=25, deadline=None)
@given(scalars, scalars, scalars, scalars)
def test_homomorphic(v: int, b: int, w: int, c: int) -> None:
    group = backend()
    total = group.add(commit(v, b), commit(w, c))
    check_opening(total, (v + w) % R, (b + c) % R)


@settings(max_examples=25, deadline=None)
@given(scalars, scalars, st.integers(1, R - 1))
def test_other_openings_are_refused(v: int, b: int, off: int) -> None:
    commitment = commit(v, b)
    for value, blinding in [((v + off) % R, b), (v, (b + off) % R)]:
        with pytest.raises(VerificationError) as caught:
            check_opening(commitment, value, blinding)
        assert caught.value.code == "zkp.wrong_opening"


@pytest.mark.parametrize("value, blinding", [(-1, 1), (R, 1), (1, -1), (1, R), (R + 5, 7)])
def test_unreduced_values(value: int, blinding: int) -> None:
    """x + R would commit to x: the caller must not be able to mean another integer than it says."""
    with pytest.raises(ValueError, match=r"0\.\.R-1"):
        commit(value, blinding)
    with pytest.raises(VerificationError):
        check_opening(commit(value % R, blinding % R), value, blinding)


def test_generators(either: Backend) -> None:
    g, h = generator_g(either), generator_h(either)
    assert g == either.generator()
    assert h == either.hash_to_point(PEDERSEN_GENERATOR, b"H")
    assert g != h and not either.is_identity(h)


def test_backends_commit_alike() -> None:
    assert len({backend(name).encode(commit(12345, R - 2, backend(name))) for name in BACKENDS}) == 1
