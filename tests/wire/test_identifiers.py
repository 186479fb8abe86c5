"""Names sort and print the same everywhere; handles are random."""

from __future__ import annotations

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.canonical import Wire, decode, encode
from wire.errors import DecodeError
from wire.identifiers import NAME_PATTERN, ROLES, Handle, Hash, Name, check_name, new_handle


class Labelled(Wire, frozen=True, tag="test.labelled"):
    name: Name


class Sized(Wire, frozen=True, tag="test.sized"):
    handle: Handle
    hash: Hash


GOOD = ["a", "hospital-1", "rand-hie", "mdvis", "a.b_c-d", "x1", "a" * 64]
BAD = [
    "",
    "1a",
    "A",
    "a-",
    "-a",
    "a--b",
    "a..b",
    "a b",
    "a/b",
    "a\n",
    "a\x00",
    "é",
    "ａ",
    "a" * 65,
    "a\n\n",
    "_a",
    "医院",
    "ı",
]


@pytest.mark.parametrize("name", GOOD)
def test_good(name: str) -> None:
    assert check_name(name) == name
    assert decode(Labelled, encode(Labelled(name))).name == name


@pytest.mark.parametrize("name", BAD, ids=repr)
def test_bad(name: str) -> None:
    with pytest.raises(DecodeError) as caught:
        check_name(name, "organisation")
    assert caught.value.facts == {"what": "organisation"}
    with pytest.raises(DecodeError):
        decode(Labelled, encode(Labelled(name)))


@given(st.text(max_size=70) | st.from_regex(NAME_PATTERN) | st.from_regex(NAME_PATTERN).map(lambda name: name + "\n"))
def test_the_type_and_the_function_agree(name: str) -> None:
    def accepted(judge: object) -> bool:
        try:
            judge()  # type: ignore[operator]
        except DecodeError:
            return False
        return True

    by_type = accepted(lambda: decode(Labelled, encode(Labelled(name))))
    assert by_type == accepted(lambda: check_name(name))


def test_sizes() -> None:
    good = Sized(bytes(16), bytes(32))
    assert decode(Sized, encode(good)) == good
    for bad in (Sized(bytes(15), bytes(32)), Sized(bytes(17), bytes(32)), Sized(bytes(16), bytes(31)), Sized(b"", b"")):
        with pytest.raises(DecodeError):
            decode(Sized, encode(bad))


def test_handles_come_from_the_randomness_given() -> None:
    assert new_handle(lambda length: bytes(range(length))) == bytes(range(16))
    assert len({new_handle(secrets.token_bytes) for _ in range(100)}) == 100


def test_roles_are_names() -> None:
    assert len(set(ROLES)) == len(ROLES) == 11
    for role in ROLES:
        check_name(role)
