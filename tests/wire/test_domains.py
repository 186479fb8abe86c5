"""Domain separation: no two domains, and no two lists of parts, give the same bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.domains import COMMITMENT, ENVELOPE, SALT, digest, framed, keyed, registered

domains = st.sampled_from(sorted(registered().values()))
parts = st.lists(st.binary(max_size=12), max_size=4)


def test_the_registry_has_no_double_and_one_form() -> None:
    values = list(registered().values())
    assert len(values) == len(set(values)) > 20
    for value in values:
        assert value.startswith(b"medveil/v1/")
        assert len(value) < 256
        assert value.decode("ascii") == value.decode("ascii").lower()


@given(domains, st.binary(max_size=40), domains, st.binary(max_size=40))
def test_framing_is_injective(one: bytes, first: bytes, two: bytes, second: bytes) -> None:
    assert (framed(one, first) == framed(two, second)) == ((one, first) == (two, second))


@given(domains, parts, domains, parts)
def test_digests_separate_domains_and_parts(one: bytes, first: list[bytes], two: bytes, second: list[bytes]) -> None:
    same = (one, first) == (two, second)
    assert (digest(one, *first) == digest(two, *second)) == same
    key = bytes(16)
    assert (keyed(key, one, *first) == keyed(key, two, *second)) == same


def test_parts_do_not_run_together() -> None:
    assert digest(COMMITMENT, b"ab", b"c") != digest(COMMITMENT, b"a", b"bc")
    assert digest(COMMITMENT, b"abc") != digest(COMMITMENT, b"abc", b"")
    assert framed(ENVELOPE, b"x") != framed(ENVELOPE[:-1], ENVELOPE[-1:] + b"x")


def test_a_short_key_is_a_bug() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        keyed(bytes(15), SALT, b"x")
    assert keyed(bytes(16), SALT, b"x") != keyed(bytes([1]) * 16, SALT, b"x")


def test_digest_is_the_one_described() -> None:
    """Against the description, spelled out a second time."""
    import hashlib
    import hmac

    expected = bytes([len(SALT)]) + SALT + (2).to_bytes(8, "big") + b"ab" + (0).to_bytes(8, "big")
    assert digest(SALT, b"ab", b"") == hashlib.sha256(expected).digest()
    assert keyed(b"k" * 32, SALT, b"ab", b"") == hmac.new(b"k" * 32, expected, "sha256").digest()
