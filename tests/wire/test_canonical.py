"""One value, one encoding: what is refused, and that nothing else slips through."""

from __future__ import annotations

import enum
import subprocess
import sys
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import canonical
from wire.canonical import Wire, check_type, decode, encode
from wire.errors import DecodeError


class Leaf(Wire, frozen=True, tag="test.leaf"):
    name: str
    data: bytes


class Other(Wire, frozen=True, tag="test.other"):
    name: str
    data: bytes


class Tree(Wire, frozen=True, tag="test.tree"):
    number: int
    small: Annotated[int, msgspec.Meta(ge=0, le=255)]
    flag: bool
    word: Literal["red", "blue"]
    leaves: tuple[Leaf | Other, ...]
    pair: tuple[int, bytes]
    last: str | None = None


class Nested(Wire, frozen=True, tag="test.nested"):
    inner: tuple[Nested, ...]


integers = st.integers(-(2**63), 2**64 - 1)
leaves = st.one_of(st.builds(Leaf, st.text(), st.binary()), st.builds(Other, st.text(), st.binary()))
trees = st.builds(
    Tree,
    integers,
    st.integers(0, 255),
    st.booleans(),
    st.sampled_from(["red", "blue"]),
    st.lists(leaves, max_size=4).map(tuple),
    st.tuples(integers, st.binary(max_size=300)),
    st.none() | st.text(max_size=300),
)
EXAMPLE = Tree(-5, 7, True, "red", (Leaf("a", b"\x00"), Other("b", b"")), (300, b"xyz"), None)


@given(trees)
def test_round_trip(tree: Tree) -> None:
    assert decode(Tree, encode(tree)) == tree


@given(trees, trees)
def test_different_values_have_different_bytes(one: Tree, two: Tree) -> None:
    assert (one == two) == (encode(one) == encode(two))


@given(st.binary(max_size=60))
def test_whatever_decodes_is_canonical(data: bytes) -> None:
    try:
        value = decode(Leaf, data)
    except DecodeError:
        return
    assert encode(value) == data


def test_every_changed_byte_is_refused_or_another_value() -> None:
    data = encode(EXAMPLE)
    for position in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            changed = data[:position] + bytes([data[position] ^ flip]) + data[position + 1 :]
            try:
                value = decode(Tree, changed)
            except DecodeError:
                continue
            assert value != EXAMPLE
            assert encode(value) == changed


def test_every_truncation_and_extension_is_refused() -> None:
    data = encode(EXAMPLE)
    for length in range(len(data)):
        with pytest.raises(DecodeError):
            decode(Tree, data[:length])
    with pytest.raises(DecodeError):
        decode(Tree, data + b"\x00")


def test_negative_encodings() -> None:
    """Other MessagePack spellings of one and the same value."""
    good = encode(Leaf("a", b"\x01"))
    assert good == b"\x93\xa9test.leaf\xa1a\xc4\x01\x01"
    for name, bad in {
        "long array header": b"\xdc\x00\x03" + good[1:],
        "long text header": b"\x93\xd9\x09test.leaf\xa1a\xc4\x01\x01",
        "long bytes header": b"\x93\xa9test.leaf\xa1a\xc5\x00\x01\x01",
        "text where bytes belong": b"\x93\xa9test.leaf\xa1a\xa1\x01",
        "an extra field": b"\x94\xa9test.leaf\xa1a\xc4\x01\x01\xc0",
        "a missing field": b"\x92\xa9test.leaf\xa1a",
        "a map": b"\x82\xa4name\xa1a\xa4data\xc4\x01\x01",
        "an unknown tag": b"\x93\xa9test.leav\xa1a\xc4\x01\x01",
        "text that is not UTF-8": b"\x93\xa9test.leaf\xa1\xff\xc4\x01\x01",
        "an encoded surrogate": b"\x93\xa9test.leaf\xa3\xed\xa0\x80\xc4\x01\x01",
        "nothing": b"",
        "a never-used byte": b"\xc1",
        "nesting without end": b"\x91" * 100_000,
        "a length beyond the input": b"\xdd\xff\xff\xff\xff",
    }.items():
        try:
            decode(Leaf, bad)
        except DecodeError as error:
            assert error.code == "wire.not_canonical"
            continue
        pytest.fail(f"{name} was accepted")


def test_integers_have_one_width() -> None:
    class Number(Wire, frozen=True, tag="test.number"):
        n: int

    head = b"\x92\xabtest.number"
    assert decode(Number, head + b"\x05") == Number(5)
    for wide in (b"\xcc\x05", b"\xcd\x00\x05", b"\xce\x00\x00\x00\x05", b"\xcf" + bytes(7) + b"\x05", b"\xd0\x05"):
        with pytest.raises(DecodeError):
            decode(Number, head + wide)
    for not_int in (b"\xcb\x40\x14" + bytes(6), b"\xca\x40\xa0\x00\x00", b"\xc3", b"\xa15"):
        with pytest.raises(DecodeError):
            decode(Number, head + not_int)


def test_a_default_is_always_written() -> None:
    class Late(Wire, frozen=True, tag="test.late"):
        first: int
        second: int = 0

    short = b"\x92\xa9test.late\x01"
    assert encode(Late(1)) == b"\x93\xa9test.late\x01\x00"
    with pytest.raises(DecodeError):
        decode(Late, short)


def test_bounds_hold_on_decoding() -> None:
    data = encode(EXAMPLE)
    beyond = encode(msgspec.structs.replace(EXAMPLE, small=256))
    assert len(beyond) > len(data)
    with pytest.raises(DecodeError):
        decode(Tree, beyond)


def test_too_long_input_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canonical, "LARGEST", 10)
    with pytest.raises(DecodeError, match="at most 10"):
        decode(Leaf, encode(Leaf("a" * 20, b"")))


class _Colour(enum.Enum):
    RED = "red"


def _one_field(kind: Any, **config: Any) -> type:
    settings: dict[str, Any] = {"frozen": True, "tag": "test.made"} | config
    return msgspec.defstruct("Made", [("field", kind)], bases=(Wire,), **settings)


@pytest.mark.parametrize(
    "kind",
    [
        float,
        dict[str, int],
        set[int],
        frozenset[int],
        list[int],
        Any,
        msgspec.Raw,
        object,
        datetime,
        _Colour,
        bytearray,
    ],
    ids=str,
)
def test_types_without_one_encoding_are_refused(kind: Any) -> None:
    for nested in (kind, tuple[kind, ...], tuple[int, kind], kind | None if kind is not Any else Any):
        with pytest.raises(ValueError):
            check_type(_one_field(nested))


def test_structs_outside_the_rules_are_refused() -> None:
    class Plain(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
        field: int

    class Tagless(Wire, frozen=True):
        field: int

    for kind in (Plain, Tagless, _one_field(Plain), _one_field(tuple[Tagless, ...]), _one_field(int, tag=7)):
        with pytest.raises(ValueError, match="tag"):
            check_type(kind)
    with pytest.raises(ValueError):
        encode(Tagless(1))
    with pytest.raises(ValueError):
        decode(Tagless, b"\x91\x01")


def test_a_type_may_hold_itself() -> None:
    chain = Nested((Nested(()), Nested((Nested(()),))))
    assert decode(Nested, encode(chain)) == chain


def test_bytes_do_not_depend_on_the_interpreter() -> None:
    program = (
        "from wire.canonical import Wire, encode\n"
        "class T(Wire, frozen=True, tag='t.t'):\n    names: tuple[str, ...]\n    n: int\n"
        "print(encode(T(tuple(sorted({'a', 'b', '姓名', 'I'})), 1)).hex())\n"
    )
    answers = set()
    for seed, zone, locale in (("0", "UTC", "C"), ("1", "Asia/Shanghai", "C.UTF-8"), ("4711", "America/Lima", "tr_TR")):
        environment = {"PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": locale, "PATH": ""}
        answer = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        answers.add(answer.stdout)
    assert len(answers) == 1
