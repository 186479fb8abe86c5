"""What one gateway answers another: a struct in canonical bytes, or why not.

Every answer of a gateway to a gateway is HTTP 200 with one canonical struct; a refusal is one too (`Told`), with the
error's kind, code and facts, so that the asking side raises the very error and its reader gets it in their own
language. Any other HTTP status is trouble of transport. What is told is checked: unknown kinds and codes, which a newer
or a hostile gateway may send, become `Unavailable`.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec

from wire import messages
from wire.canonical import Wire, decode, encode
from wire.errors import (
    MOST_CHARACTERS,
    BudgetExhausted,
    ConsentDenied,
    DecodeError,
    MedveilError,
    ProtocolAbort,
    QuorumNotMet,
    Refused,
    Unavailable,
    VerificationError,
)

W = TypeVar("W", bound=Wire)

_KINDS: dict[str, type[MedveilError]] = {
    kind.__name__: kind
    for kind in (DecodeError, VerificationError, Refused, ConsentDenied, BudgetExhausted, QuorumNotMet, ProtocolAbort)
}
_LONGEST_RETRY = 3600
_OF_THIS_MACHINE = frozenset({"path", "file", "folder"})
_OF_ITS_DATABASE = "database."
"""What codes begin with whose `place` is a file, or the host and name of a PostgreSQL database."""


class ToldFact(Wire, frozen=True, tag="network.fact"):
    """A fact of an error: text, or an integer in decimal."""

    name: Annotated[str, msgspec.Meta(max_length=64)]
    text: Annotated[str, msgspec.Meta(max_length=MOST_CHARACTERS)]
    number: bool


class Told(Wire, frozen=True, tag="network.told"):
    """Why there is no answer. retry_after: seconds."""

    kind: Annotated[str, msgspec.Meta(max_length=64)]
    code: Annotated[str, msgspec.Meta(max_length=128)]
    facts: Annotated[tuple[ToldFact, ...], msgspec.Meta(max_length=32)]
    retry_after: Annotated[int, msgspec.Meta(ge=0, le=_LONGEST_RETRY)]


def tell(error: MedveilError) -> Told:
    """What another gateway is told of `error`: all of it, unless it names a place on this machine."""
    if _OF_THIS_MACHINE & error.facts.keys() or error.code.startswith(_OF_ITS_DATABASE):
        error = Unavailable("network.trouble", retry_after=5)
    facts = tuple(ToldFact(name, str(fact), isinstance(fact, int)) for name, fact in error.facts.items())
    retry_after = min(error.retry_after, _LONGEST_RETRY) if isinstance(error, Unavailable) else 0
    return Told(type(error).__name__, error.code, facts, retry_after)


def told(said: Told, organisation: str) -> MedveilError:
    """The error that another gateway told. organisation: who told it."""
    facts: dict[str, Any] = {}
    try:
        for fact in said.facts:
            facts[fact.name] = int(fact.text) if fact.number else fact.text
        if said.code not in messages.catalogue("en"):
            raise ValueError
        if said.kind == "Unavailable":
            return Unavailable(said.code, retry_after=said.retry_after, **facts)
        kind = _KINDS[said.kind]
        if kind is ProtocolAbort:
            parties = tuple(part for part in str(facts.pop("parties", "")).split(", ") if part not in ("", "-"))
            return ProtocolAbort(said.code, round=str(facts.pop("round", "-")), parties=parties, **facts)
        error = kind(said.code, **facts)
        if "{" in error.text():  # a fact of its sentence is missing
            raise ValueError
    except (ValueError, KeyError, TypeError):
        return Unavailable("network.bad_answer", organisation=organisation)
    return error


def read_answer(data: bytes, kind: type[W], organisation: str) -> W:
    """The answer of `organisation`, which must be a `kind`. Raises the error that it told.

    Unavailable if the bytes are neither.
    """
    either: Any = kind | Told
    try:
        answer: W | Told = decode(either, data)
    except DecodeError:
        raise Unavailable("network.bad_answer", organisation=organisation) from None
    if isinstance(answer, Told):
        raise told(answer, organisation)
    return answer


def write_answer(answer: Wire | MedveilError) -> bytes:
    """The bytes of an answer, or of an error."""
    return encode(tell(answer) if isinstance(answer, MedveilError) else answer)
