"""An extract on its way from its holder to its recipient; what the recipient does: `medveil.gateway.extract_taking`.

    holder -> recipient   ExtractOffer     which extract, how long, its hash
    recipient -> holder   ExtractNext      the number of the next window that is wanted
    holder -> recipient   ExtractPiece*    the bytes of that window, in a session of its own
    recipient             checks cover, seal, signature, the body's hash, the grant, the anchored entry; keeps the file
    recipient -> holder   ExtractTaken     the holder removes its copy

The key of an extract is in its end, the last bytes of the file: until they have come, the recipient has noise. Before
the offer and each window it is judged whether they may still leave (`medveil.gateway.extract_leaving`); before the last
one the outcome "released" is anchored on the ledger, and it is noted, on disk, that the extract may have left. Either
side may be cut short and taken up again: a window that has come does not come again.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import Annotated, Any

import msgspec

from medveil.gateway.accounting import anchor_within_patience
from medveil.gateway.extract_bytes import hashed, read_bytes
from medveil.gateway.extract_leaving import CHANGED, goes_on, gone, let_leave, note_delivered, note_released, withdraw
from medveil.gateway.extracting import Fault, no_fault
from medveil.gateway.made_extracts import MadeExtract, made_of, made_path
from medveil.gateway.organisation import Clock, Organisation, Refusal, refusal
from medveil.gateway.steps import FlowCancelled, Steps
from medveil.gateway.waiting import answer_of
from wire.canonical import Wire
from wire.domains import EXTRACT_PLACE, digest
from wire.errors import MedveilError, ProtocolAbort, Refused
from wire.identifiers import Handle, Hash, Name

LARGEST_PIECE = 4 * 1024 * 1024
"""Bytes of the longest message that is taken."""
PIECE = LARGEST_PIECE
"""Bytes of one message that is sent."""
WINDOW = 16 * PIECE
"""Bytes that are under way at a time: well within what a post keeps of one sender."""
LARGEST = 64 * 1024**3
"""Bytes of the longest extract that is taken."""

ENDED = "ended"
"""The step of a flow that says how a delivery ended."""


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
    data: Annotated[bytes, msgspec.Meta(min_length=1, max_length=LARGEST_PIECE)]


class ExtractTaken(Wire, frozen=True, tag="medveil.extract_taken"):
    """Recipient to holder: it is checked and kept."""

    extract: Handle


class _Session(Wire, frozen=True, tag="medveil.extract_session"):
    """In which session an extract is delivered."""

    session: Handle


class WindowDone(Wire, frozen=True, tag="medveil.extract_window"):
    """A window was sent, or has come and is on disk."""


class Ended(Wire, frozen=True, tag="medveil.extract_delivery_ended"):
    """How a delivery ended: None for well."""

    why: Refusal | None


def window_session(session: bytes, window: int) -> bytes:
    """The session of one window: its bytes are forgotten apart from the others."""
    return digest(EXTRACT_PLACE, session, window.to_bytes(4, "big"))[:16]


async def deliver(
    holder: Organisation, extract: bytes, steps: Steps, clock: Clock, fault: Fault = no_fault
) -> MadeExtract:
    """Holder: bring a released extract to its recipient; returns how it stands then. Delivered already: nothing more.

    Raises ConsentDenied or Refused (the grant is gone, or somebody was erased, restricted or objects: it is taken
    back), Refused (the recipient's no), Unavailable (recipient or ledger do not answer: deliver it again later).
    """
    one = await asyncio.to_thread(made_of, holder, extract)
    path = made_path(holder, extract)
    if one.state == "staged" and path.exists():  # its maker was cut short before saying so: no log, no release
        one = await asyncio.to_thread(note_released, holder, extract, clock)
    if one.state == "delivered":
        return await asyncio.to_thread(note_delivered, holder, extract, clock)
    if not one.undelivered:
        raise gone(one)
    recipient = one.facts.cover.recipient

    async def drawing() -> _Session:
        return _Session(holder.rand(16))

    async def ended() -> Ended:
        return Ended(why)

    session = (await steps.once("delivery", _Session, drawing)).session
    if not await steps.kept(ENDED):
        if not path.exists():  # a home that came back from a backup
            raise gone(await asyncio.to_thread(withdraw, holder, extract, "gateway.extract_deleted", clock))
        why = None
        try:
            await _Sending(holder, one, session, steps, clock, fault).run()
        except _Declined as declined:
            why = declined.why
    why = (await steps.once(ENDED, Ended, ended)).why
    await holder.end(session, recipient)
    if why is not None:
        raise Refused("gateway.extract_refused", organisation=recipient, **why.told())
    fault("taken")
    one = await asyncio.to_thread(note_delivered, holder, extract, clock)
    fault("removed")
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
                    await self._holder.send(self._recipient, session, refusal(self._holder.name, self._told(error)))
            raise
        for session in self._windows:
            await self._holder.forget(session, self._recipient)

    def _told(self, error: BaseException) -> BaseException:
        """What the recipient hears: not that somebody in it objects."""
        if isinstance(error, Refused) and error.code == CHANGED:
            return Refused("gateway.extract_withdrawn", extract=self._one.extract.hex())
        return error

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
                if reply.extract != offer.extract or not await self._may_have_it():
                    raise self._strange()
                return
            if reply.window != number or number * WINDOW >= offer.length:
                raise self._strange()
            await self._window(number, offer)
            number += 1

    def _strange(self) -> ProtocolAbort:
        return ProtocolAbort("gateway.extract_out_of_turn", round="delivery", parties=(self._recipient,))

    async def _check(self, last: bool = False) -> None:
        """Raises what `let_leave` does, Unavailable while the ledger of today is not known.

        last: the ledger has the outcome of the extract then. Whoever restores home and trail of before finds that
        entries are missing, and begins no use; else the extract would count as one that never left.
        """
        if last:
            await anchor_within_patience(self._holder, self._steps)
        await self._holder.account.present()  # a process that has just begun knows neither grants nor revocations
        await asyncio.to_thread(partial(let_leave, self._holder, self._one.extract, self._clock, last=last))

    async def _may_have_it(self) -> bool:
        """Whether the last bytes were sent, in this delivery or an earlier one: else nobody can have taken it."""
        return (await asyncio.to_thread(made_of, self._holder, self._one.extract)).may_have_left

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
        await self._check(last == offer.length)

        async def sending() -> WindowDone:
            for offset in range(first, last, PIECE):
                await asyncio.to_thread(goes_on, self._holder, self._one.extract)
                data = await asyncio.to_thread(read_bytes, self._path, offset, min(PIECE, last - offset))
                await self._holder.send(self._recipient, session, ExtractPiece(offset, data))
                self._fault("piece")
            return WindowDone()

        await self._steps.once(step, WindowDone, sending)
