"""zkp.attributes: one integer a value, two values never the same one, nothing that reduction would change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import canonical
from wire.dates import NO_END
from wire.errors import DecodeError
from zkp.attributes import Attribute, Credential, Schema, Value, build, credential
from zkp.groups import R, encode_scalar

SCHEMA = build(
    "test.things",
    1,
    [("code", "text"), ("payer", "name"), ("day", "day"), ("total", "number", 40), ("bill", "handle")],
)
KINDS = ["code", "payer", "day", "total", "bill", "secret"]
LONG = "a" * 32

values: dict[str, st.SearchStrategy[Value]] = {
    "code": st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=31),
    "payer": st.from_regex(r"[a-z][a-z0-9]{0,40}", fullmatch=True),
    "day": st.integers(0, NO_END),
    "total": st.integers(0, 2**40 - 1),
    "bill": st.binary(min_size=16, max_size=16),
    "secret": st.integers(0, R - 1).map(encode_scalar),
}


@pytest.mark.parametrize("name", KINDS)
@given(data=st.data())
def test_injective_and_read_back(name: str, data: st.DataObject) -> None:
    one, two = data.draw(values[name]), data.draw(values[name])
    scalars = SCHEMA.scalar(name, one), SCHEMA.scalar(name, two)
    assert (scalars[0] == scalars[1]) == (one == two)
    assert all(0 <= scalar < R for scalar in scalars)
    if not (isinstance(one, str) and len(one) > 31):
        assert SCHEMA.value(name, scalars[0]) == one


@pytest.mark.parametrize(
    "name, value, scalar",
    [
        ("code", "", 0),
        ("code", "0", 0x30),
        ("code", "I10.x00x002", int.from_bytes(b"I10.x00x002", "big")),
        ("day", NO_END, 65535),
        ("total", 2**40 - 1, 2**40 - 1),
        ("bill", bytes(15) + b"\1", 1),
        ("secret", encode_scalar(7), 7),
    ],
)
def test_as_written_down(name: str, value: Value, scalar: int) -> None:
    assert SCHEMA.scalar(name, value) == scalar


def test_long_names_lie_apart_from_short_ones() -> None:
    longest, first_hashed = SCHEMA.scalar("payer", "z" * 31), SCHEMA.scalar("payer", LONG)
    assert longest < 2**248 <= first_hashed < 2**249
    assert len({SCHEMA.scalar("payer", LONG + end) for end in ("", "a", "b")}) == 3
    with pytest.raises(DecodeError):
        SCHEMA.value("payer", first_hashed)


@pytest.mark.parametrize(
    "name, value",
    [
        ("code", "x" * 32),
        ("code", "\0"),
        ("code", "é"),
        ("code", 5),
        ("payer", ""),
        ("payer", "Insurer"),
        ("payer", "a" * 65),
        ("payer", 5),
        ("day", -1),
        ("day", 65536),
        ("day", True),
        ("day", "1"),
        ("total", 2**40),
        ("total", -1),
        ("bill", bytes(15)),
        ("bill", 5),
        ("secret", R.to_bytes(32, "big")),
        ("secret", (R + 7).to_bytes(32, "big")),
        ("secret", bytes(31)),
        ("secret", 7),
    ],
)
def test_outside_its_type(name: str, value: Value) -> None:
    with pytest.raises(DecodeError) as caught:
        SCHEMA.scalar(name, value)
    assert caught.value.code == "credentials.bad_value"


@pytest.mark.parametrize(
    "name, scalar", [("day", 65536), ("total", 2**40), ("bill", 2**128), ("code", 7), ("code", 2**248), ("payer", 0x41)]
)
def test_integers_that_stand_for_nothing(name: str, scalar: int) -> None:
    with pytest.raises(DecodeError):
        SCHEMA.value(name, scalar)


def test_a_schema_is_its_bytes() -> None:
    assert canonical.decode(Schema, SCHEMA.header) == SCHEMA
    other = Schema(SCHEMA.name, 2, SCHEMA.attributes)
    renamed = Schema(SCHEMA.name, 1, (*SCHEMA.attributes[:-2], Attribute("owner", "handle"), SCHEMA.attributes[-1]))
    assert len({SCHEMA.id, other.id, renamed.id}) == 3


@pytest.mark.parametrize(
    "attributes",
    [
        (),
        (Attribute("secret", "scalar"),),
        (Attribute("a", "day"), Attribute("blind", "scalar")),
        (Attribute("secret", "scalar"), Attribute("a", "day")),
        (Attribute("secret", "scalar"), Attribute("a", "number"), Attribute("blind", "scalar")),
        (Attribute("secret", "scalar"), Attribute("a", "day", 16), Attribute("blind", "scalar")),
        (Attribute("secret", "scalar"), Attribute("a", "day"), Attribute("a", "day"), Attribute("blind", "scalar")),
        (Attribute("secret", "text"), Attribute("blind", "scalar")),
    ],
)
def test_no_schema(attributes: tuple[Attribute, ...]) -> None:
    with pytest.raises(ValueError):
        Schema("x", 1, attributes)


def test_a_credential_shows_nothing_of_itself() -> None:
    values: dict[str, Value] = {"code": "A01", "payer": "payer", "day": 3, "total": 4, "bill": bytes(16)}
    values |= {"secret": encode_scalar(1), "blind": encode_scalar(2)}
    held = credential(SCHEMA, bytes(96), values, bytes(80))
    assert held.named(SCHEMA) == values
    assert repr(held) == "Credential(...)" and list(held.__rich_repr__()) == []
    assert canonical.decode(Credential, canonical.encode(held)) == held
    assert held.get(SCHEMA, "code") == "A01"
    assert held.scalars(SCHEMA)[3:5] == [3, 4]
    with pytest.raises(DecodeError):
        held.get(Schema(SCHEMA.name, 2, SCHEMA.attributes), "code")
    with pytest.raises(ValueError):
        SCHEMA.scalars({"code": "A01"})
