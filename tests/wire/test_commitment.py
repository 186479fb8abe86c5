"""Salted commitments: binding, hiding behind the salt, never the same in two places."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.commitment import BYTES, Place, check, commit, contribution_digest, salt
from wire.errors import VerificationError

KEY = bytes(range(32))
PLACE = Place("grants", "anchor", "researcher", "grant-1", "terms", 1)


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=80))
def test_an_opening_opens(blinding: bytes, value: bytes) -> None:
    check(commit(blinding, value), blinding, value)


def test_every_changed_byte_is_caught() -> None:
    blinding, value = salt(KEY, PLACE), b"terms of grant 1"
    commitment = commit(blinding, value)
    assert len(blinding) == len(commitment) == BYTES
    parts = [commitment, blinding, value]
    for which, part in enumerate(parts):
        for position in range(len(part)):
            changed = list(parts)
            changed[which] = part[:position] + bytes([part[position] ^ 1]) + part[position + 1 :]
            with pytest.raises(VerificationError):
                check(*changed)
        for other in (part[:-1], part + b"\x00", b""):
            changed = list(parts)
            changed[which] = other
            with pytest.raises(VerificationError):
                check(*changed)


@pytest.mark.parametrize(
    "change",
    [
        {"contract": "access"},
        {"op": "revoke"},
        {"recipient": "insurer"},
        {"record": "grant-2"},
        {"field": "status"},
        {"version": 2},
        {"recipient": "", "record": "researchergrant-1"},
    ],
    ids=str,
)
def test_every_part_of_the_place_separates_salts(change: dict[str, object]) -> None:
    assert salt(KEY, PLACE) == salt(KEY, PLACE)
    assert salt(KEY, msgspec.structs.replace(PLACE, **change)) != salt(KEY, PLACE)
    assert salt(KEY[::-1], PLACE) != salt(KEY, PLACE)


def test_salt_and_value_do_not_run_together() -> None:
    assert commit(bytes(31) + b"a", b"b") != commit(bytes(32), b"ab")
    for wrong in (b"", bytes(31), bytes(33)):
        with pytest.raises(ValueError):
            commit(wrong, b"x")


def test_a_weak_salt_key_is_a_bug() -> None:
    with pytest.raises(ValueError):
        salt(b"short", PLACE)


def test_an_announcement_binds_query_phase_site_point_and_salt() -> None:
    parts = (b"q" * 16, 1, "hospital-1", b"p" * 48, b"s" * 32)
    digest = contribution_digest(*parts)
    assert digest == contribution_digest(*parts)
    for which, other in enumerate((b"r" * 16, 2, "hospital-2", b"o" * 48, b"t" * 32)):
        changed = (*parts[:which], other, *parts[which + 1 :])
        assert contribution_digest(*changed) != digest  # type: ignore[arg-type]
    assert contribution_digest(b"q" * 16, 1, "ab", b"c" * 48, b"s" * 32) != contribution_digest(
        b"q" * 16, 1, "a", b"bc" * 24, b"s" * 32
    )
