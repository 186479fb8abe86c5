"""An extract on its way from its holder to its recipient, and what a recipient does with those it holds.

    holder -> recipient   ExtractOffer     which extract, how long, its hash
    recipient -> holder   ExtractNext      the number of the next window that is wanted
    holder -> recipient   ExtractPiece*    the bytes of that window, in a session of its own
    recipient             checks cover, seal, signature, the body's hash, the grant, the anchored entry; keeps the file
    recipient -> holder   ExtractTaken     the holder removes its copy

The key of an extract is in its end, the last bytes of the file: until they have come, the recipient has noise. The
grant is looked at again before each window. Either side may be cut short and taken up again: a window that has come
does not come again.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Annotated, Any

import msgspec

from medveil.gateway.extract_bytes import appear, check_room, flush, hashed, read_bytes, remove, write
from medveil.gateway.extract_wanted import note_delivered, note_wanted
from medveil.gateway.extracting import Fault, MadeExtract, keep_made, made_of, made_path, no_fault, still_allowed
from medveil.gateway.granting import end_use
from medveil.gateway.held_extracts import HeldExtract, check_held, held_path, keep_held, known
from medveil.gateway.organisation import Clock, Organisation, Refusal, refusal
from medveil.gateway.recalling import is_recalled
from medveil.gateway.steps import FlowCancelled, Steps
from medveil.gateway.waiting import answer_of
from wire.canonical import Wire
from wire.domains import EXTRACT_PLACE, digest
from wire.errors import ConsentDenied, MedveilError, ProtocolAbort, Refused, VerificationError
from wire.identifiers import Handle, Hash, Name

PIECE = 4 * 1024 * 1024
"""Bytes of one message."""
WINDOW = 16 * PIECE
"""Bytes that are under way at a time: well within what a post keeps of one sender."""
LARGEST = 64 * 1024**3
"""Bytes of the longest extract that is taken."""

_ENDED = "ended"


class ExtractOffer(Wire, frozen=True, tag="medveil.extract_offer"):
    """Holder to recipient. ask: the request that it answers, or b"". digest: SHA-256 of the whole file."""

    extract: Handle
    ask: Annotated[bytes, msgspec.Meta(max_length=16)]
    grant: Name
    dataset: Name
    length: Annotated[int, msgspec.Meta(ge=1, le=LARGEST)]
    digest: Hash


class ExtractNext(Wire, frozen=True, tag="medveil.extract_next"):
    """Recipient to holder: send this window. window: counts from 0."""

    window: Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class ExtractPiece(Wire, frozen=True, tag="medveil.extract_piece"):
    """Holder to recipient: some bytes of the file. offset: of the first."""

    offset: Annotated[int, msgspec.Meta(ge=0, lt=LARGEST)]
    data: Annotated[bytes, msgspec.Meta(min_length=1, max_length=PIECE)]


class ExtractTaken(Wire, frozen=True, tag="medveil.extract_taken"):
    """Recipient to holder: it is checked and kept."""

    extract: Handle


class _Session(Wire, frozen=True, tag="medveil.extract_session"):
    """In which session an extract is delivered."""

    session: Handle


class _Needed(Wire, frozen=True, tag="medveil.extract_needed"):
    """Whether the recipient has to have the bytes: it may hold them already."""

    needed: bool


class _Window(Wire, frozen=True, tag="medveil.extract_window"):
    """A window was sent, or has come and is on disk."""


class _Ended(Wire, frozen=True, tag="medveil.extract_delivery_ended"):
    """How a delivery ended: None for well."""

    why: Refusal | None


def window_session(session: bytes, window: int) -> bytes:
    """The session of one window: its bytes are forgotten apart from the others."""
    return digest(EXTRACT_PLACE, session, window.to_bytes(4, "big"))[:16]


# --- the holder ---------------------------------------------------------------------------------


async def deliver(
    holder: Organisation, extract: bytes, steps: Steps, clock: Clock, fault: Fault = no_fault
) -> MadeExtract:
    """Holder: bring a released extract to its recipient; returns how it stands then. Delivered already: nothing more.

    Raises ConsentDenied (the grant is gone: the file is removed, and never leaves), Refused (the recipient's no),
    Unavailable (the recipient does not answer: deliver it again later).
    """
    one = made_of(holder, extract)
    if one.state == "withdrawn":
        raise Refused("gateway.extract_withdrawn", extract=extract.hex())
    if one.state == "delivered":
        return one
    if one.state == "staged" and made_path(holder, extract).exists():  # its maker was cut short before saying so
        await end_use(holder, one.facts.audit, "released")  # no log, no release
        one = msgspec.structs.replace(one, state="released", at=clock())
        keep_made(holder, one)
    recipient = one.facts.cover.recipient

    async def drawing() -> _Session:
        return _Session(holder.rand(16))

    async def ended() -> _Ended:
        return _Ended(why)

    session = (await steps.once("delivery", _Session, drawing)).session
    if not await steps.kept(_ENDED):
        if not made_path(holder, extract).exists():  # a home that came back from a backup
            withdraw(holder, extract, "gateway.extract_deleted", clock)
            raise Refused("gateway.extract_withdrawn", extract=extract.hex())
        why = None
        try:
            await _Sending(holder, one, session, steps, clock, fault).run()
        except _Declined as declined:
            why = declined.why
    why = (await steps.once(_ENDED, _Ended, ended)).why
    await holder.forget(session, recipient)
    if why is not None:
        raise Refused("gateway.extract_refused", organisation=recipient, **why.told())
    fault("taken")
    await asyncio.to_thread(remove, made_path(holder, extract))
    fault("removed")
    note_wanted(holder, one.ask, "delivered", extract)
    one = msgspec.structs.replace(one, state="delivered", at=clock())
    keep_made(holder, one)
    return one


def withdraw(holder: Organisation, extract: bytes, code: str, clock: Clock) -> MadeExtract:
    """Holder: remove a released extract that was not delivered. Raises Refused where there is none, or it has left."""
    one = made_of(holder, extract)
    if one.state not in ("released", "withdrawn"):
        raise Refused("gateway.extract_answered", ask=extract.hex())
    remove(made_path(holder, extract))
    one = msgspec.structs.replace(one, state="withdrawn", at=clock(), code=code)
    keep_made(holder, one)
    if one.ask:
        note_wanted(holder, one.ask, "waiting")
    return one


class _Declined(Exception):
    """The recipient says no."""

    def __init__(self, why: Refusal) -> None:
        super().__init__(why.code)
        self.why = why


class _Sending:
    """One delivery, at the holder."""

    def __init__(
        self, holder: Organisation, one: MadeExtract, session: bytes, steps: Steps, clock: Clock, fault: Fault
    ) -> None:
        self._holder, self._one, self._session, self._steps = holder, one, session, steps
        self._clock, self._fault = clock, fault
        self._recipient = one.facts.cover.recipient
        self._path = made_path(holder, one.extract)
        self._windows: list[bytes] = []

    async def run(self) -> None:
        try:
            await self._send()
        except (MedveilError, FlowCancelled) as error:
            for session in (self._session, *self._windows[-1:]):
                with contextlib.suppress(MedveilError):
                    await self._holder.send(self._recipient, session, refusal(self._holder.name, error))
            if isinstance(error, ConsentDenied):
                withdraw(self._holder, self._one.extract, error.code, self._clock)
            raise
        for session in self._windows:
            await self._holder.forget(session, self._recipient)

    async def _send(self) -> None:
        async def offering() -> ExtractOffer:
            return await asyncio.to_thread(self._offer)

        offer = await self._steps.once("offer", ExtractOffer, offering)
        await self._check()
        self._fault("offered")
        await self._holder.send(self._recipient, self._session, offer)
        number = 0
        while True:
            reply = await self._reply()
            if isinstance(reply, ExtractTaken):
                if reply.extract != offer.extract:
                    raise self._strange()
                return
            if reply.window != number or number * WINDOW >= offer.length:
                raise self._strange()
            await self._window(number, offer)
            number += 1

    def _strange(self) -> ProtocolAbort:
        return ProtocolAbort("gateway.extract_out_of_turn", round="delivery", parties=(self._recipient,))

    async def _check(self) -> None:
        """Raises ConsentDenied where nothing may leave any more, Unavailable while the ledger of today is not known."""
        facts = self._one.facts
        await self._holder.account.present()  # a process that has just begun knows neither grants nor revocations
        if not still_allowed(self._holder, facts, self._clock):
            raise ConsentDenied("gateway.grant_gone", grant=facts.grant, dataset=facts.dataset)

    def _offer(self) -> ExtractOffer:
        facts = self._one.facts
        length, found = hashed(self._path)
        return ExtractOffer(self._one.extract, self._one.ask, facts.grant, facts.dataset, length, found)

    async def _reply(self) -> ExtractNext | ExtractTaken:
        kinds: Any = ExtractNext | ExtractTaken
        patience = self._holder.last_patience
        reply = await answer_of(self._holder, kinds, self._session, self._recipient, self._steps, patience)
        if isinstance(reply, Refusal):
            raise _Declined(reply)
        found: ExtractNext | ExtractTaken = reply
        return found

    async def _window(self, number: int, offer: ExtractOffer) -> None:
        step = f"window-{number}"
        if await self._steps.kept(step):
            return
        session = window_session(self._session, number)
        self._windows.append(session)
        first, last = number * WINDOW, min((number + 1) * WINDOW, offer.length)
        await self._check()

        async def sending() -> _Window:
            for offset in range(first, last, PIECE):
                data = await asyncio.to_thread(read_bytes, self._path, offset, min(PIECE, last - offset))
                await self._holder.send(self._recipient, session, ExtractPiece(offset, data))
                self._fault("piece")
            return _Window()

        await self._steps.once(step, _Window, sending)


# --- the recipient ------------------------------------------------------------------------------


async def take_extract(
    recipient: Organisation, holder: str, session: bytes, steps: Steps, clock: Clock, fault: Fault = no_fault
) -> HeldExtract | None:
    """Recipient: take the extract that is offered in `session`, check it, keep it; None where it was declined.

    Raises Refused, VerificationError, DecodeError or ConsentDenied after the holder was told why it is not taken.
    """
    taking = _Taking(recipient, holder, session, steps, clock, fault)

    async def ended() -> _Ended:
        return _Ended(None)

    if not await steps.kept(_ENDED):
        _, offer = await recipient.receive(ExtractOffer, session, (holder,))
        try:
            await taking.run(offer)
        except (Exception, FlowCancelled) as error:
            await taking.let_go()
            with contextlib.suppress(MedveilError):
                await recipient.send(holder, session, refusal(recipient.name, error))
            raise
        await recipient.send(holder, session, ExtractTaken(offer.extract))
        await steps.once(_ENDED, _Ended, ended)
        found = known(recipient, offer.extract)
    else:
        found = None
    await taking.forget()
    return found


class _Taking:
    """One delivery, at the recipient."""

    def __init__(
        self, recipient: Organisation, holder: str, session: bytes, steps: Steps, clock: Clock, fault: Fault
    ) -> None:
        self._recipient, self._holder, self._session = recipient, holder, session
        self._steps, self._clock, self._fault = steps, clock, fault
        self._windows: list[bytes] = []
        self._part: Path | None = None

    async def run(self, offer: ExtractOffer) -> None:
        """Returns once the extract is held."""
        path = held_path(self._recipient, offer.extract)

        async def looking() -> _Needed:
            one = known(self._recipient, offer.extract)
            if one is not None and (one.deleted or one.issuer != self._holder):  # what was deleted does not come again
                raise Refused("gateway.extract_deleted", extract=offer.extract.hex())
            if is_recalled(self._recipient, self._holder, offer.extract):
                raise Refused("gateway.extract_recalled", extract=offer.extract.hex())
            return _Needed(one is None or not path.exists())

        if not (await self._steps.once("needed", _Needed, looking)).needed:
            return
        await asyncio.to_thread(check_room, path.parent, offer.length)
        await self._recipient.account.caught_up()
        grant = check_held(self._recipient, self._holder, offer.grant, offer.dataset, self._clock())
        self._part = part = path.with_name(f".{path.name}.{self._session.hex()}.part")
        for number in range(-(-offer.length // WINDOW)):  # those that have come are asked for again: see `steps`
            await self._window(number, offer, part)
        there = path if path.exists() else part  # it was killed before it was noted
        await asyncio.to_thread(self._whole, offer, there)
        facts = await asyncio.to_thread(grant.check, there, offer.extract)
        self._fault("checked")
        await asyncio.to_thread(appear, part, path)
        self._fault("appeared")
        keep_held(self._recipient, HeldExtract(facts, self._clock()))
        self._fault("kept")
        note_delivered(self._recipient, self._holder, offer.ask, offer.extract)

    async def let_go(self) -> None:
        """Nothing stays of what was not taken."""
        if self._part is not None:
            await asyncio.to_thread(remove, self._part)

    async def forget(self) -> None:
        """Nothing stays of the messages."""
        for session in (*self._windows, self._session):
            await self._recipient.forget(session, self._holder)

    def _whole(self, offer: ExtractOffer, part: Path) -> None:
        if hashed(part) != (offer.length, offer.digest):
            raise VerificationError("parquet.altered", file=f"{offer.extract.hex()}.extract")

    async def _window(self, number: int, offer: ExtractOffer, part: Path) -> None:
        step, session = f"window-{number}", window_session(self._session, number)
        self._windows.append(session)
        first, last = number * WINDOW, min((number + 1) * WINDOW, offer.length)

        async def receiving() -> _Window:
            offset = first
            while offset < last:
                kinds: Any = ExtractPiece
                patience = self._recipient.last_patience
                piece = await answer_of(self._recipient, kinds, session, self._holder, self._steps, patience)
                if isinstance(piece, Refusal):
                    raise Refused("gateway.extract_refused", organisation=self._holder, **piece.told())
                if piece.offset != offset or offset + len(piece.data) > last:
                    raise ProtocolAbort("gateway.extract_out_of_turn", round="delivery", parties=(self._holder,))
                await asyncio.to_thread(write, part, offset, piece.data)
                offset += len(piece.data)
                self._fault("piece")
            await asyncio.to_thread(flush, part)
            return _Window()

        await self._recipient.send(self._holder, self._session, ExtractNext(number))
        await self._steps.once(step, _Window, receiving)
        await self._recipient.forget(session, self._holder)
