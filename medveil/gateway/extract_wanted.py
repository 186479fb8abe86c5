"""Extracts that are wanted: a recipient asks, the holder's data officer answers.

    recipient -> holder   ExtractRequest    columns, filter, purpose; kept as wanted until the officer answers
    holder -> recipient   ExtractDeclined   no: a code, and nothing that was seen in the rows
    holder -> recipient   ExtractOffer      yes: `medveil.gateway.extract_delivery`

To ask decides nothing and writes no entry: the decision comes when the extract is made. Both sides keep what was asked
in their vaults. Every flow here may be cut short and taken up again.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from medveil.gateway.organisation import Clock, Organisation
from medveil.gateway.steps import Steps
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
AskState = Literal["waiting", "making", "declined", "delivered"]


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

    Raises Refused or DecodeError for what cannot be asked, Refused for a holder that is no member.
    """
    check_request(request)
    if request.recipient != recipient.name:
        raise Refused("gateway.extract_request", dataset=request.dataset)
    if recipient.trust.latest.find(request.holder) is None:
        raise Refused("organisations.unknown", organisation=request.holder)

    async def drawing() -> ExtractAsk:
        return ExtractAsk(recipient.rand(16), request, clock())

    one = await steps.once("ask", ExtractAsk, drawing)
    if one.ask.hex() not in recipient.vault.documents(_ASKED):  # an answer may have come before this is done again
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
    one = _find(recipient, _ASKED, declined.ask)
    if one is None or one.request.holder != holder:
        raise ProtocolAbort("gateway.extract_not_asked", round="answer", parties=(holder,))
    if one.state == "delivered":
        raise Refused("gateway.extract_answered", ask=one.ask.hex())
    _keep(recipient, _ASKED, msgspec.structs.replace(one, state="declined", code=declined.code))


def note_delivered(recipient: Organisation, holder: str, ask: bytes, extract: bytes) -> None:
    """Recipient: note which extract came of a request, if it was one of its own to that holder."""
    one = _find(recipient, _ASKED, ask)
    if one is not None and one.request.holder == holder:
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
    if _find(holder, _WANTED, asking.ask) is None:
        waiting = [one for one in wanted(holder) if one.state == "waiting" and one.request.recipient == recipient]
        if len(waiting) < MOST_WAITING:
            _keep(holder, _WANTED, ExtractAsk(asking.ask, request, clock()))
        else:
            answer = holder.rand(16)
            await holder.send(recipient, answer, ExtractDeclined(asking.ask, "gateway.extracts_waiting"))
            await holder.forget(answer, recipient)
    await holder.forget(session, recipient)


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


async def decline(holder: Organisation, ask: bytes, steps: Steps) -> ExtractAsk:
    """Data officer: say no to a request. Again, it is said again. Raises Refused: no such request, answered already."""
    one = wanted_of(holder, ask)
    if one.state not in ("waiting", "declined"):
        raise Refused("gateway.extract_answered", ask=ask.hex())
    one = msgspec.structs.replace(one, state="declined", code="gateway.extract_declined")
    _keep(holder, _WANTED, one)

    async def answering() -> _Sent:
        return _Sent(holder.rand(16))

    session = (await steps.once("answer", _Sent, answering)).session
    await holder.send(one.request.recipient, session, ExtractDeclined(ask, one.code))
    await holder.forget(session, one.request.recipient)
    return one


# --- both ---------------------------------------------------------------------------------------


def _find(organisation: Organisation, kind: str, ask: bytes) -> ExtractAsk | None:
    if ask.hex() not in organisation.vault.documents(kind):
        return None
    return decode(ExtractAsk, organisation.vault.document(kind, ask.hex()))


def _all(organisation: Organisation, kind: str) -> tuple[ExtractAsk, ...]:
    found = (decode(ExtractAsk, organisation.vault.document(kind, name)) for name in organisation.vault.documents(kind))
    return tuple(sorted(found, key=lambda one: (one.at, one.ask)))


def _keep(organisation: Organisation, kind: str, one: ExtractAsk) -> None:
    organisation.vault.put_document(kind, one.ask.hex(), encode(one))
