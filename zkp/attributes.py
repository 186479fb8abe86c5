"""What a credential says: named attributes, their types, and the one integer each value stands for.

A schema is public. Its canonical bytes are the header under which `zkp.bbs` signs, so that a signature
under one schema is none under another, and every value is signed as the integer that `Schema.scalar`
gives, unhashed: ranges and sums can be proved on it. Within a type the encoding is injective:

    text     printable ASCII, 0..31 characters          the bytes as a big-endian integer, below 2^248
    name     an organisation's id, 1..64 characters     as text; above 31 characters 2^248 + 31 bytes of its hash
    day      civil day of wire.dates, 0..65535          itself, 16 bits
    number   0..2^bits - 1 (amounts: minor units)       itself
    handle   16 bytes                                   big-endian, below 2^128
    scalar   32 bytes, canonical                        itself, below R (secret, blind, serial)

(Of two long names the integers differ unless SHA-256 cut to 248 bits collides.) `secret` and `blind` are
in every schema of a person's credential and never shown: the holder's secret is what ties her credentials
together, `blind` is random and makes a commitment to the others hiding. Rows of a signed set (`zkp.membership`)
have neither. Values are secret unless a proof discloses them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Final, Literal

import msgspec

from wire import canonical
from wire.canonical import Wire
from wire.domains import ATTRIBUTE_NAME, CREDENTIAL_SCHEMA, digest
from wire.errors import DecodeError
from wire.identifiers import Name, check_name
from zkp.groups import SCALAR_BYTES, R, decode_scalar, encode_scalar

SECRET: Final = "secret"
BLIND: Final = "blind"

Value = int | str | bytes
"""A value as people and files have it: number and day as int, text and name as str, handle and scalar as bytes."""

TEXT_BYTES: Final = 31
HANDLE_BYTES: Final = 16
MOST_ATTRIBUTES: Final = 64
_MOST_BITS = 64


class Attribute(Wire, frozen=True, tag="zkp.attribute"):
    """One attribute: its name, its type, and for a number its width in bits (1..64; 0 for other types)."""

    name: Name
    kind: Literal["text", "name", "day", "number", "handle", "scalar"]
    bits: Annotated[int, msgspec.Meta(ge=0, le=_MOST_BITS)] = 0


class Schema(Wire, frozen=True, tag="zkp.schema", cache_hash=True):
    """The attributes of a kind of credential, in the order in which they are signed. Public."""

    name: Name
    version: Annotated[int, msgspec.Meta(ge=1, le=255)]
    attributes: tuple[Attribute, ...]

    def __post_init__(self) -> None:
        names = self.names
        if len(set(names)) != len(names) or not 1 <= len(names) <= MOST_ATTRIBUTES:
            raise ValueError(f"a schema has 1..{MOST_ATTRIBUTES} attributes, each once")
        if {SECRET, BLIND} & set(names) and (names[0], names[-1]) != (SECRET, BLIND):
            raise ValueError("a person's credential begins with the secret and ends with the blind")
        for attribute in self.attributes:
            if (attribute.kind == "number") != (attribute.bits > 0):
                raise ValueError("a number has its width in bits, and nothing else has one")
            if attribute.name in (SECRET, BLIND) and attribute.kind != "scalar":
                raise ValueError("secret and blind are scalars")

    @property
    def names(self) -> tuple[str, ...]:
        """The attributes' names, in order."""
        return _names(self)

    @property
    def header(self) -> bytes:
        """The BBS header of all signatures under this schema: its canonical bytes."""
        return _header(self)

    @property
    def id(self) -> bytes:
        """32 bytes by which credentials and requests name this schema."""
        return digest(CREDENTIAL_SCHEMA, self.header)

    def index(self, name: str) -> int:
        """The place of attribute `name`, from 0. ValueError if there is none."""
        return self.names.index(name)

    def scalar(self, name: str, value: Value) -> int:
        """The integer 0..R-1 that stands for `value` of attribute `name`.

        Raises DecodeError for a value that is not of the attribute's type or outside its range.
        """
        attribute = self.attributes[self.index(name)]
        try:
            return _ENCODE[attribute.kind](attribute, value)
        except _NotThatKind:
            raise DecodeError("credentials.bad_value", attribute=name, kind=attribute.kind) from None

    def scalars(self, values: Mapping[str, Value]) -> list[int]:
        """The integers of all attributes in order. DecodeError as `scalar`; ValueError unless each is given once."""
        if set(values) != set(self.names):
            raise ValueError(f"values for {', '.join(self.names)}, and no others")
        return [self.scalar(name, values[name]) for name in self.names]

    def value(self, name: str, scalar: int) -> Value:
        """The value that `scalar` stands for. Raises DecodeError if none does, and for names too long to be read."""
        attribute = self.attributes[self.index(name)]
        value = _DECODE[attribute.kind](scalar)
        if value is None or self.scalar(name, value) != scalar:
            raise DecodeError("credentials.bad_value", attribute=name, kind=attribute.kind)
        return value


@cache
def _names(schema: Schema) -> tuple[str, ...]:
    return tuple(attribute.name for attribute in schema.attributes)


@cache
def _header(schema: Schema) -> bytes:
    return canonical.encode(schema)


class _NotThatKind(Exception):
    pass


def _text(_: Attribute, value: Value) -> int:
    if not isinstance(value, str) or len(value) > TEXT_BYTES or not (value.isascii() and value.isprintable()):
        raise _NotThatKind
    return int.from_bytes(value.encode("ascii"), "big")  # printable: no leading zero byte, so that lengths differ too


def _name(_: Attribute, value: Value) -> int:
    if not isinstance(value, str):
        raise _NotThatKind
    try:
        data = check_name(value).encode("ascii")
    except DecodeError:
        raise _NotThatKind from None
    if len(data) <= TEXT_BYTES:
        return int.from_bytes(data, "big")
    return (1 << 8 * TEXT_BYTES) + int.from_bytes(digest(ATTRIBUTE_NAME, data)[:TEXT_BYTES], "big")


def _number(attribute: Attribute, value: Value) -> int:
    bits = attribute.bits or 16  # a day
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << bits:
        raise _NotThatKind
    return value


def _handle(_: Attribute, value: Value) -> int:
    if not isinstance(value, bytes) or len(value) != HANDLE_BYTES:
        raise _NotThatKind
    return int.from_bytes(value, "big")


def _scalar(_: Attribute, value: Value) -> int:
    if not isinstance(value, bytes) or len(value) != SCALAR_BYTES:
        raise _NotThatKind
    try:
        return decode_scalar(value)
    except DecodeError:
        raise _NotThatKind from None


def _as_text(scalar: int) -> str | None:
    try:
        text = scalar.to_bytes(-(-scalar.bit_length() // 8), "big").decode("ascii")
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() and len(text) <= TEXT_BYTES else None


_ENCODE: Final[Mapping[str, Callable[[Attribute, Value], int]]] = {
    "text": _text,
    "name": _name,
    "day": _number,
    "number": _number,
    "handle": _handle,
    "scalar": _scalar,
}

_DECODE: Final[Mapping[str, Callable[[int], Value | None]]] = {
    "text": _as_text,
    "name": _as_text,
    "day": lambda scalar: scalar,
    "number": lambda scalar: scalar,
    "handle": lambda scalar: scalar.to_bytes(HANDLE_BYTES, "big") if scalar < 1 << 8 * HANDLE_BYTES else None,
    "scalar": lambda scalar: encode_scalar(scalar) if scalar < R else None,
}


class Credential(Wire, frozen=True, tag="zkp.credential"):
    """A signed credential as its holder keeps it. Secret whole.

    schema: the id of its `Schema`; issuer: the 96-byte public key; values in the schema's order, text and names
    as bytes (`named` gives them back as text); signature: 80 bytes of BBS under `zkp.bbs.CREDENTIALS`, header
    the schema's.
    """

    schema: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    issuer: Annotated[bytes, msgspec.Meta(min_length=96, max_length=96)]
    values: tuple[int | bytes, ...]
    signature: Annotated[bytes, msgspec.Meta(min_length=80, max_length=80)]

    def __repr__(self) -> str:
        return "Credential(...)"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return []

    def get(self, schema: Schema, name: str) -> Value:
        """The value of one attribute. Secret. Raises DecodeError if this credential is not of `schema`."""
        return self.named(schema)[name]

    def named(self, schema: Schema) -> dict[str, Value]:
        """All values by name. Secret. Raises DecodeError if this credential is not of `schema`."""
        if self.schema != schema.id or len(self.values) != len(schema.attributes):
            raise DecodeError("credentials.other_schema", expected=schema.name)
        return {
            attribute.name: value.decode("ascii", "replace")
            if isinstance(value, bytes) and attribute.kind in ("text", "name")
            else value
            for attribute, value in zip(schema.attributes, self.values, strict=True)
        }

    def scalars(self, schema: Schema) -> list[int]:
        """All integers in order. Secret. Raises DecodeError if this credential is not of `schema`."""
        return schema.scalars(self.named(schema))


def credential(schema: Schema, issuer: bytes, values: Mapping[str, Value], signature: bytes) -> Credential:
    """The credential of `schema` over `values` (secret, all attributes). The signature is not checked here.

    Raises DecodeError for a value outside its type.
    """
    schema.scalars(values)
    stored = (values[name] for name in schema.names)
    in_bytes = tuple(value.encode("ascii") if isinstance(value, str) else value for value in stored)
    return Credential(schema.id, issuer, in_bytes, signature)


def build(name: str, version: int, attributes: Sequence[tuple[str, str] | tuple[str, str, int]]) -> Schema:
    """A schema from (name, kind) or (name, "number", bits), with `secret` put before and `blind` behind."""
    middle = (Attribute(part[0], part[1], *part[2:]) for part in attributes)  # type: ignore[arg-type]
    return Schema(name, version, (Attribute(SECRET, "scalar"), *middle, Attribute(BLIND, "scalar")))
