"""Extracts that are wanted: a recipient asks, the holder's data officer answers.

    recipient -> holder   ExtractRequest    columns, filter, purpose; kept as wanted until the officer answers
    holder -> recipient   ExtractDeclined   no: a code, and nothing that was seen in the rows
    holder -> recipient   ExtractOffer      yes: `medveil.gateway.extract_delivery`

To ask decides nothing and writes no entry: the decision comes when the extract is made. Both sides keep what was asked
in their vaults. Every flow here may be cut short and taken up again.
"""

from __future__ import annotations

import asyncio
from threading import Lock
from typing import Annotated, Literal, NamedTuple
from weakref import WeakKeyDictionary

import msgspec

from medveil.gateway.made_extracts import settling
from medveil.gateway.organisation import Clock, Organisation
from medveil.gateway.steps import Steps
from privacy.grants.purposes import purpose
from privacy.predicate import check
from privacy.uses import NOBODY, UseRequest
from wire.canonical import Wire, decode, encode
from wire.dates import Instant
from wire.errors import ProtocolAbort, Refused
from wire.identifiers import Handle, check_name

MOST_WAITING = 32
"""Requests of one recipient that wait for an answer."""
LARGEST_REQUEST = 64 * 1024
"""Bytes of a request's canonical form."""

_ASKED = "extract-asked"
_WANTED = "extract-wanted"

ErrorCode = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]*\.[a-z0-9_]+\Z", max_length=100)]
AskState = Literal["waiting", "making", "released", "declined", "delivered"]
"""Of a request: nobody answers it yet; an extract is being made; one is made, and is to come; no; one has come."""


class ExtractRequest(Wire, frozen=True, tag="medveil.extract_request"):
    """Recipient to holder. ask: what it is called by both, drawn by the recipient."""

    ask: Handle
    request: UseRequest


class ExtractDeclined(Wire, frozen=True, tag="medveil.extract_declined"):
    """Holder to recipient: no."""

    ask: Handle
    code: ErrorCode


class ExtractAsk(Wire, frozen=True, tag="medveil.extract_ask"):
    """A request as it is kept, at either side. at: when it came to be here.

    code: why it was declined, or "". extract: id of what came of it, or b"".
    """

    ask: Handle
    request: UseRequest
    at: Instant
    state: AskState = "waiting"
    code: Annotated[str, msgspec.Meta(max_length=100)] = ""
    extract: Annotated[bytes, msgspec.Meta(max_length=16)] = b""


class _Sent(Wire, frozen=True, tag="medveil.extract_declined_sent"):
    """In which session the answer goes."""

    session: Handle


def check_request(request: UseRequest) -> None:
    """Check that this can be asked for as an extract at all. Raises Refused, DecodeError."""
    for name in (request.holder, request.recipient, request.dataset):
        check_name(name, "organisation or dataset")
    whole = request.kind == "extract" and request.person == NOBODY and request.holder != request.recipient
    once = 0 < len(request.fields) == len(set(request.fields))
    if not whole or not once or len(encode(request)) > LARGEST_REQUEST:
        raise Refused("gateway.extract_request", dataset=request.dataset)
    try:
        msgspec.convert(msgspec.to_builtins(request), UseRequest)  # what was built in memory passed no decoder
    except msgspec.ValidationError:
        raise Refused("gateway.extract_request", dataset=request.dataset) from None
    if request.predicate is not None:
        check(request.predicate)


# --- the recipient ------------------------------------------------------------------------------


async def ask_extract(recipient: Organisation, request: UseRequest, steps: Steps, clock: Clock) -> ExtractAsk:
    """Recipient: ask a holder for an extract; returns what is kept of that. Whether it comes is the officer's to say.

    Raises Refused or DecodeError for what cannot be asked, Refused for a purpose that nobody knows and for a holder
    that is no member.
    """
    check_request(request)
    purpose(request.purpose)
    if request.recipient != recipient.name:
        raise Refused("gateway.extract_request", dataset=request.dataset)
    if recipient.trust.latest.find(request.holder) is None:
        raise Refused("organisations.unknown", organisation=request.holder)

    async def drawing() -> ExtractAsk:
        return ExtractAsk(recipient.rand(16), request, clock())

    one = await steps.once("ask", ExtractAsk, drawing)
    if _find(recipient, _ASKED, one.ask) is None:  # an answer may have come before this is done again
        _keep(recipient, _ASKED, one)
    await recipient.send(request.holder, one.ask, ExtractRequest(one.ask, request))
    await recipient.forget(one.ask, request.holder)
    return one


def asked(recipient: Organisation) -> tuple[ExtractAsk, ...]:
    """What this organisation asked others for, the oldest first."""
    return _all(recipient, _ASKED)


def asked_of(recipient: Organisation, ask: bytes) -> ExtractAsk:
    """One of them. Raises Refused where there is none."""
    one = _find(recipient, _ASKED, ask)
    if one is None:
        raise Refused("extracts.unknown", extract=ask.hex())
    return one


async def take_declined(recipient: Organisation, holder: str, declined: ExtractDeclined) -> None:
    """Recipient: note a no. Raises ProtocolAbort for what was never asked of that holder; Refused if it has come."""
    await asyncio.to_thread(_note_no, recipient, holder, declined)


def _note_no(recipient: Organisation, holder: str, declined: ExtractDeclined) -> None:
    with settling:  # it may come in this moment
        one = _find(recipient, _ASKED, declined.ask)
        if one is None or one.request.holder != holder:
            raise ProtocolAbort("gateway.extract_not_asked", round="answer", parties=(holder,))
        if one.state == "delivered":
            raise Refused("gateway.extract_answered", ask=one.ask.hex())
        _keep(recipient, _ASKED, msgspec.structs.replace(one, state="declined", code=declined.code))


def answers(one: ExtractAsk, holder: str, dataset: str, extract: bytes) -> bool:
    """Recipient: whether an extract of that holder's dataset answers a request, which nothing else has answered."""
    asked_for = (one.request.holder, one.request.dataset) == (holder, dataset)
    return asked_for and (one.state == "waiting" or (one.state == "delivered" and one.extract == extract))


def note_delivered(recipient: Organisation, holder: str, ask: bytes, dataset: str, extract: bytes) -> None:
    """Recipient: note which extract came of a request, if it answers one of its own; what was declined stays so."""
    with settling:
        one = _find(recipient, _ASKED, ask)
        if one is not None and answers(one, holder, dataset, extract):
            _keep(recipient, _ASKED, msgspec.structs.replace(one, state="delivered", code="", extract=extract))


# --- the holder ---------------------------------------------------------------------------------


async def take_request(
    holder: Organisation, recipient: str, session: bytes, asking: ExtractRequest, clock: Clock
) -> None:
    """Holder: keep a request for its data officer. Again with the same it changes nothing.

    One too many is declined at once. Raises Refused, DecodeError, ProtocolAbort for what is no request of `recipient`
    to this organisation.
    """
    request = asking.request
    check_request(request)
    if (request.holder, request.recipient) != (holder.name, recipient):
        raise ProtocolAbort("gateway.misdirected_request", round="request", parties=(recipient,))
    if not await asyncio.to_thread(_taken, holder, recipient, asking, clock()):
        answer = holder.rand(16)
        await holder.send(recipient, answer, ExtractDeclined(asking.ask, "gateway.extracts_waiting"))
        await holder.forget(answer, recipient)
    await holder.forget(session, recipient)


def _taken(holder: Organisation, recipient: str, asking: ExtractRequest, at: Instant) -> bool:
    """Keep a request unless its recipient has too many waiting; whether it is kept."""
    if _find(holder, _WANTED, asking.ask) is not None:
        return True
    waiting = [one for one in wanted(holder) if one.state == "waiting" and one.request.recipient == recipient]
    if len(waiting) >= MOST_WAITING:
        return False
    _keep(holder, _WANTED, ExtractAsk(asking.ask, asking.request, at))
    return True


def wanted(holder: Organisation) -> tuple[ExtractAsk, ...]:
    """What others want of this organisation, the oldest first, with what came of it."""
    return _all(holder, _WANTED)


def wanted_of(holder: Organisation, ask: bytes) -> ExtractAsk:
    """One of them. Raises Refused where there is none."""
    one = _find(holder, _WANTED, ask)
    if one is None:
        raise Refused("extracts.unknown", extract=ask.hex())
    return one


def note_wanted(holder: Organisation, ask: bytes, state: AskState, extract: bytes = b"") -> None:
    """Holder: how a request stands; of b"", which nobody asked, nothing is noted."""
    if ask:
        _keep(holder, _WANTED, msgspec.structs.replace(wanted_of(holder, ask), state=state, extract=extract))


def settle_wanted(holder: Organisation, ask: bytes, extract: bytes, state: AskState) -> None:
    """Holder: note how a request stands by the extract that was begun for it, unless another one answers it by now."""
    one = _find(holder, _WANTED, ask) if ask else None
    if one is not None and one.extract == extract and one.state != state:
        note_wanted(holder, ask, state, b"" if state == "waiting" else extract)


async def decline(holder: Organisation, ask: bytes, steps: Steps) -> ExtractAsk:
    """Data officer: say no to a request. Again, it is said again. Raises Refused: no such request, answered already."""
    one = await asyncio.to_thread(_said_no, holder, ask)

    async def answering() -> _Sent:
        return _Sent(holder.rand(16))

    session = (await steps.once("answer", _Sent, answering)).session
    await holder.send(one.request.recipient, session, ExtractDeclined(ask, one.code))
    await holder.forget(session, one.request.recipient)
    return one


def _said_no(holder: Organisation, ask: bytes) -> ExtractAsk:
    """Note a no, unless an extract is being made for it in this moment."""
    with settling:
        one = wanted_of(holder, ask)
        if one.state not in ("waiting", "declined"):
            raise Refused("gateway.extract_answered", ask=ask.hex())
        one = msgspec.structs.replace(one, state="declined", code="gateway.extract_declined")
        _keep(holder, _WANTED, one)
        return one


# --- both ---------------------------------------------------------------------------------------


def _find(organisation: Organisation, kind: str, ask: bytes) -> ExtractAsk | None:
    found = organisation.vault.find_document(kind, ask.hex())
    return None if found is None else decode(ExtractAsk, found)


class _Shelf(NamedTuple):
    """The requests of one kind as they were read. revision: of the vault's documents of that kind."""

    revision: int
    asks: dict[bytes, ExtractAsk]


_shelves: WeakKeyDictionary[Organisation, dict[str, _Shelf]] = WeakKeyDictionary()
_shelving = Lock()


def _all(organisation: Organisation, kind: str) -> tuple[ExtractAsk, ...]:
    with _shelving:
        found = _shelf(organisation, kind).asks.values()
        return tuple(sorted(found, key=lambda one: (one.at, one.ask)))


def _shelf(organisation: Organisation, kind: str) -> _Shelf:
    """Read anew when others wrote: whoever sends requests does not have all of them unsealed for each."""
    vault, shelves = organisation.vault, _shelves.setdefault(organisation, {})
    revision = vault.revision(kind)
    if kind not in shelves or shelves[kind].revision != revision:
        found = (decode(ExtractAsk, vault.document(kind, name)) for name in vault.documents(kind))
        shelves[kind] = _Shelf(revision, {one.ask: one for one in found})
    return shelves[kind]


def _keep(organisation: Organisation, kind: str, one: ExtractAsk) -> None:
    with _shelving:
        asks = _shelf(organisation, kind).asks
        organisation.vault.put_document(kind, one.ask.hex(), encode(one))
        asks[one.ask] = one
        _shelves[organisation][kind] = _Shelf(organisation.vault.revision(kind), asks)
