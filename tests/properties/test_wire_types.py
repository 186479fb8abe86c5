"""Every struct that travels, of every part: one encoding, one tag, bounds that hold, no byte that does not count.

The types are found, not listed: a part that adds a struct is tested from that day on. Values are
drawn from the declared types and bounds.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from msgspec import inspect as shape

from wire.canonical import Wire, check_type, decode, encode
from wire.errors import DecodeError
from wire.identifiers import NAME_PATTERN

PACKAGES = ("medveil", "ledger", "mpc", "connectors", "zkp", "privacy", "wire")
DEEPEST = 4


def _import_everything() -> None:
    for package in PACKAGES:
        room = importlib.import_module(package)
        for module in pkgutil.walk_packages(room.__path__, f"{package}."):
            importlib.import_module(module.name)


def _below(kind: type) -> set[type]:
    return {kind}.union(*(_below(child) for child in kind.__subclasses__()))


def _ours(root: type) -> list[type]:
    found = {kind for kind in _below(root) if kind.__module__.split(".")[0] in PACKAGES and kind is not Wire}
    return sorted(found, key=lambda kind: (kind.__module__, kind.__qualname__))


_import_everything()
TRAVELLING = _ours(Wire)
STRUCTS = _ours(msgspec.Struct)


_shape_of = cache(shape.type_info)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


@cache
def _matching(pattern: str, longest: int) -> st.SearchStrategy[str]:
    return st.from_regex(pattern).filter(lambda text: len(text) <= longest)


@st.composite
def _values(draw: st.DrawFn, node: shape.Type, depth: int = 0) -> Any:
    """A value of the declared type, within its bounds."""
    if isinstance(node, shape.Metadata):
        return draw(_values(node.type, depth))
    if isinstance(node, shape.IntType):
        low = node.ge if node.ge is not None else node.gt + 1 if node.gt is not None else -(2**63)
        high = node.le if node.le is not None else node.lt - 1 if node.lt is not None else 2**63 - 1
        return draw(st.integers(low, high))
    if isinstance(node, shape.StrType):
        if node.pattern == NAME_PATTERN:
            return draw(st.sampled_from(["a", "hospital-1", "x.y_z-9", "a" * 64]))
        if node.pattern:
            return draw(_matching(node.pattern, node.max_length or 10**6))
        return draw(st.text(min_size=node.min_length or 0, max_size=min(node.max_length or 20, 20)))
    if isinstance(node, (shape.BytesType, shape.MemoryViewType)):
        low = node.min_length or 0
        return draw(st.binary(min_size=low, max_size=max(low, min(node.max_length or 40, 40))))
    if isinstance(node, shape.BoolType):
        return draw(st.booleans())
    if isinstance(node, shape.NoneType):
        return None
    if isinstance(node, shape.LiteralType):
        return draw(st.sampled_from(node.values))
    if isinstance(node, shape.TupleType):
        return tuple(draw(_values(item, depth)) for item in node.item_types)
    if isinstance(node, shape.VarTupleType):
        low = node.min_length or 0
        most = 3 if depth < 2 else 1  # what stands below is tested as a type of its own
        high = low if depth >= DEEPEST else max(low, min(node.max_length or most, most))
        return tuple(draw(_values(node.item_type, depth + 1)) for _ in range(draw(st.integers(low, high))))
    if isinstance(node, shape.UnionType):
        choices = [item for item in node.types if depth < DEEPEST or not isinstance(item, shape.StructType)]
        return draw(_values(draw(st.sampled_from(choices or [node.types[0]])), depth))
    if isinstance(node, shape.StructType):
        fields = [draw(_values(field.type, depth + 1)) for field in node.fields]
        try:
            return node.cls(*fields)
        except ValueError:
            assume(False)
    raise AssertionError(f"no values for {node}")


def test_the_parts_were_found() -> None:
    assert {kind.__module__.split(".")[0] for kind in TRAVELLING} >= {"wire", "ledger", "privacy", "zkp", "mpc"}


@pytest.mark.parametrize("kind", TRAVELLING, ids=_name)
def test_a_type_that_travels_has_one_encoding(kind: type) -> None:
    check_type(kind)
    config = kind.__struct_config__  # type: ignore[attr-defined]
    assert re.fullmatch(r"[a-z]+(\.[a-z0-9_]+)+", config.tag), config.tag
    assert config.frozen and config.array_like and config.forbid_unknown_fields and not config.omit_defaults


def test_no_two_types_share_a_tag() -> None:
    tags: dict[str, type] = {}
    for kind in TRAVELLING:
        tag = kind.__struct_config__.tag  # type: ignore[attr-defined]
        assert tag not in tags, f"{_name(kind)} and {_name(tags[tag])}"
        tags[tag] = kind


@pytest.mark.parametrize("kind", STRUCTS, ids=_name)
def test_no_pattern_lets_a_final_newline_pass(kind: type) -> None:
    """``$`` matches before a newline at the end: ``hospital-1`` and ``hospital-1\\n`` would be two members."""
    for field in shape.type_info(kind).fields:  # type: ignore[attr-defined]
        for node in _nodes(field.type, set()):
            if isinstance(node, shape.StrType) and node.pattern:
                assert node.pattern.endswith(r"\Z"), f"{field.name}: {node.pattern}"
                assert node.pattern.startswith("^"), f"{field.name}: {node.pattern}"


def _nodes(node: shape.Type, seen: set[int]) -> list[shape.Type]:
    if id(node) in seen or isinstance(node, shape.StructType):
        return []
    seen.add(id(node))
    inner = [getattr(node, name, None) for name in ("type", "item_type", "key_type", "value_type")]
    inner += [*getattr(node, "item_types", ()), *getattr(node, "types", ())]
    return [node, *(found for item in inner if isinstance(item, shape.Type) for found in _nodes(item, seen))]


@pytest.mark.parametrize("kind", TRAVELLING, ids=_name)
@settings(max_examples=12, suppress_health_check=[HealthCheck.filter_too_much])  # some types have rules of their own
@given(data=st.data())
def test_values_survive_and_no_byte_is_idle(kind: type, data: st.DataObject) -> None:
    value = data.draw(_values(_shape_of(kind)))
    encoded = encode(value)
    try:
        assert decode(kind, encoded) == value
    except DecodeError:
        assume(False)  # a rule beyond types and bounds, which the part's own tests hold
    position = data.draw(st.integers(0, len(encoded) - 1))
    flip = data.draw(st.integers(1, 255))
    changed = encoded[:position] + bytes([encoded[position] ^ flip]) + encoded[position + 1 :]
    try:
        other = decode(kind, changed)
    except DecodeError:
        pass
    else:
        assert other != value
        assert encode(other) == changed
    for cut in (encoded[:position], encoded + b"\x00"):
        with pytest.raises(DecodeError):
            decode(kind, cut)
