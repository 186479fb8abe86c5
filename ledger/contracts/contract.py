"""What a contract is: typed ops, and a pure transition of the state for each.

A transition reads and writes state keys through a `View`, returns events, and raises `Refused` to
say no; then nothing it wrote remains. It sees the block's height and time and nothing else of the
world: integers only, no clock, no randomness, no floats, nothing that depends on the interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypeVar

import msgspec

from wire.canonical import Wire
from wire.dates import Instant
from wire.identifiers import Name
from wire.keyset import Height

T = TypeVar("T", bound=Wire)

Point = Annotated[bytes, msgspec.Meta(min_length=48, max_length=48)]
"""A compressed point of G1. Contracts compare and store it; whoever computes with it decodes it strictly."""

Nano = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
"""Privacy budget in units of 10^-9 rho (zero-concentrated differential privacy), as much as a release can state."""

Ids = Annotated[tuple[Name, ...], msgspec.Meta(max_length=1000)]


class View(Protocol):
    """The state as a transition sees it. Keys come from `state_key`; values are canonical structs."""

    def get(self, key: bytes, kind: type[T]) -> T | None:
        """The value under `key`, which is a `kind`, or None."""

    def put(self, key: bytes, value: Wire) -> None:
        """Set the value under `key`."""

    def delete(self, key: bytes) -> None:
        """Remove `key`."""


@dataclass(frozen=True)
class Context:
    """What a transition knows of the world. genesis: 32-byte hash; time: of the block, ms UTC."""

    genesis: bytes
    height: Height
    time: Instant


class Event(Wire, frozen=True, tag="ledger.event"):
    """Something that happened: ``contract.what``, the id it happened to, numbers of it. Part of the proven result."""

    name: str
    subject: str
    values: tuple[int, ...] = ()


Transition = Callable[[Any, str, Context, View], tuple[Event, ...]]


@dataclass(frozen=True)
class Contract:
    """A contract in one version of its behaviour. transitions: op type -> transition."""

    name: str
    version: int
    transitions: Mapping[type[Wire], Transition]

    @property
    def ops(self) -> tuple[type[Wire], ...]:
        """The types of its ops."""
        return tuple(self.transitions)

    def apply(self, op: Wire, sender: str, context: Context, view: View) -> tuple[Event, ...]:
        """Run `op` of the authenticated `sender`. Returns events or raises Refused."""
        return self.transitions[type(op)](op, sender, context, view)


def state_key(contract: str, *parts: str | bytes | int) -> bytes:
    """The state key ``contract/part/...``: names as they are, bytes in hex, integers in decimal.

    Names hold no slash, and each position of a key holds one kind of part, so keys never collide.
    """
    texts = (part.hex() if isinstance(part, bytes) else str(part) for part in parts)
    return "/".join((contract, *texts)).encode("ascii")
