"""One canonical encoding for everything that is signed, hashed, stored as evidence or sent.

MessagePack of frozen, array-like, tagged msgspec structs. Bytes that do not re-encode to
themselves are refused: one value has exactly one encoding. Types with more than one encoding, or
one that depends on the interpreter, never appear: no dict, set, float, ``Raw`` or ``Any``
(msgspec's re-encoding accepts both orders of a dict, two NaN payloads and non-minimal ``Raw``).

Scalars and points travel as fixed-length bytes, text as valid UTF-8. A ``memoryview`` is bytes that are not copied.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import inspect as shape

from wire.errors import DecodeError

LARGEST = 64 * 1024 * 1024
"""Longest input that is decoded at all, in bytes."""


class Wire(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Base of every struct that travels. A subclass names its tag: ``class X(Wire, frozen=True, tag="part.x")``.

    Frozen structs of plain values hold no cycles, so the collector need not walk them: a ledger keeps very many.
    """


T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder(order="deterministic")

_PLAIN = (
    shape.IntType,
    shape.StrType,
    shape.BytesType,
    shape.MemoryViewType,
    shape.BoolType,
    shape.NoneType,
    shape.LiteralType,
)


def check_type(kind: Any) -> None:
    """Walk `kind` and raise ``ValueError`` if any part of it has no single encoding."""
    _walk(shape.type_info(kind), set())


def _walk(node: shape.Type, seen: set[type]) -> None:
    if isinstance(node, shape.Metadata):
        _walk(node.type, seen)
    elif isinstance(node, shape.StructType):
        if node.cls in seen:
            return
        seen.add(node.cls)
        config = node.cls.__struct_config__
        if not (config.frozen and config.array_like and config.forbid_unknown_fields and isinstance(config.tag, str)):
            raise ValueError(f"{node.cls.__name__} must derive from wire.canonical.Wire and name its tag")
        for field in node.fields:
            _walk(field.type, seen)
    elif isinstance(node, (shape.VarTupleType,)):
        _walk(node.item_type, seen)
    elif isinstance(node, shape.TupleType):
        for item in node.item_types:
            _walk(item, seen)
    elif isinstance(node, shape.UnionType):
        for item in node.types:
            _walk(item, seen)
    elif not isinstance(node, _PLAIN):
        raise ValueError(
            f"{type(node).__name__} has no canonical encoding; use int, str, bytes, bool, tuple or a Wire struct"
        )


@cache
def _decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    check_type(kind)
    return msgspec.msgpack.Decoder(kind)


@cache
def _checked(kind: type) -> bool:
    check_type(kind)
    return True


def encode(struct: Wire) -> bytes:
    """The canonical bytes of `struct`."""
    _checked(type(struct))
    return _encoder.encode(struct)


def decode(kind: type[T], data: bytes) -> T:
    """The struct of type `kind` (a Wire struct or a union of them) that `data` encodes.

    Raises DecodeError unless `data` is exactly what `encode` would write.
    """
    shape_of_kind: Any = kind
    name = getattr(kind, "__name__", str(kind))
    if len(data) > LARGEST:
        raise DecodeError("wire.too_long", kind=name, length=len(data), limit=LARGEST)
    try:
        value: T = _decoder(shape_of_kind).decode(data)
        again = _encoder.encode(value)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError):
        raise DecodeError("wire.not_canonical", kind=name) from None
    if again != data:
        raise DecodeError("wire.not_canonical", kind=name)
    return value
