"""Taking an extract that is offered: fetched window by window, checked, and kept (`medveil.gateway.held_extracts`).

The messages and their order: `medveil.gateway.extract_delivery`. Whoever is cut short goes on: a window that has come
does not come again.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from medveil.gateway import extract_delivery
from medveil.gateway.extract_bytes import appear, flush, hashed, prepare, remove, write
from medveil.gateway.extract_delivery import (
    ENDED,
    Ended,
    ExtractNext,
    ExtractOffer,
    ExtractPiece,
    ExtractTaken,
    WindowDone,
    window_session,
)
from medveil.gateway.extract_room import room_of
from medveil.gateway.extract_wanted import note_delivered
from medveil.gateway.extracting import Fault, no_fault
from medveil.gateway.held_extracts import HeldExtract, HeldGrant, check_held, held_path, keep_held, known
from medveil.gateway.organisation import Clock, Organisation, Refusal, refusal
from medveil.gateway.recalling import arriving, is_recalled
from medveil.gateway.steps import FlowCancelled, Steps
from medveil.gateway.waiting import answer_of
from privacy.copies.extract_file import ExtractFacts
from wire.canonical import Wire
from wire.errors import MedveilError, ProtocolAbort, Refused, VerificationError


class _Needed(Wire, frozen=True, tag="medveil.extract_needed"):
    """Whether the recipient has to have the bytes: it may hold them already."""

    needed: bool


async def take_extract(
    recipient: Organisation, holder: str, session: bytes, steps: Steps, clock: Clock, fault: Fault = no_fault
) -> HeldExtract | None:
    """Recipient: take the extract that is offered in `session`, check it, keep it; None where it was declined.

    Raises Refused, VerificationError, DecodeError or ConsentDenied after the holder was told why it is not taken.
    """
    taking = _Taking(recipient, holder, session, steps, clock, fault)

    async def ended() -> Ended:
        return Ended(None)

    if not await steps.kept(ENDED):
        _, offer = await recipient.receive(ExtractOffer, session, (holder,))
        try:
            await taking.run(offer)
        except (Exception, FlowCancelled) as error:
            await taking.let_go()
            with contextlib.suppress(MedveilError):
                await recipient.send(holder, session, refusal(recipient.name, error))
            with contextlib.suppress(MedveilError):
                await taking.end()
            raise
        await recipient.send(holder, session, ExtractTaken(offer.extract))
        await steps.once(ENDED, Ended, ended)
        found = await asyncio.to_thread(known, recipient, offer.extract)
    else:
        found = None
    await taking.end()
    return found


class _Taking:
    """One delivery, at the recipient."""

    def __init__(
        self, recipient: Organisation, holder: str, session: bytes, steps: Steps, clock: Clock, fault: Fault
    ) -> None:
        self._recipient, self._holder, self._session = recipient, holder, session
        self._steps, self._clock, self._fault = steps, clock, fault
        self._part: Path | None = None

    async def run(self, offer: ExtractOffer) -> None:
        """Returns once the extract is held."""
        path = held_path(self._recipient, offer.extract)

        async def looking() -> _Needed:
            return _Needed(await asyncio.to_thread(self._lacks, offer, path))

        needed = (await self._steps.once("needed", _Needed, looking)).needed
        if not needed and not await asyncio.to_thread(self._lacks, offer, path):  # it may be deleted since it was held
            return
        await self._recipient.account.caught_up()
        grant = await asyncio.to_thread(
            check_held, self._recipient, self._holder, offer.grant, offer.dataset, self._clock()
        )
        part, room = path.with_name(f".{path.name}.{self._session.hex()}.part"), room_of(self._recipient)
        self._part = part  # something of it may have come before this process began
        try:
            await asyncio.to_thread(room.promise, self._recipient, self._holder, self._session, offer, part)
            await self._take(offer, grant, path, part)
        finally:
            room.let_go(self._holder, self._session)

    async def _take(self, offer: ExtractOffer, grant: HeldGrant, path: Path, part: Path) -> None:
        if not path.exists():
            await asyncio.to_thread(prepare, part, offer.length)
        # Those that have come are asked for again: see `steps`.
        for number in range(-(-offer.length // extract_delivery.WINDOW)):
            await self._window(number, offer, part)
        there = path if path.exists() else part  # it was killed before it was noted
        await asyncio.to_thread(self._whole, offer, there)
        facts = await asyncio.to_thread(grant.check, there, offer.extract)
        self._fault("checked")
        await asyncio.to_thread(self._list, offer, facts, part, path)
        self._fault("kept")
        answered = offer.ask, offer.dataset, offer.extract
        await asyncio.to_thread(note_delivered, self._recipient, self._holder, *answered)

    def _lacks(self, offer: ExtractOffer, path: Path) -> bool:
        """Whether it is not held. Raises as `_check_welcome`."""
        return self._check_welcome(offer) is None or not path.exists()

    def _check_welcome(self, offer: ExtractOffer) -> HeldExtract | None:
        """What is known of the extract here. Raises Refused where it was deleted, or its issuer has it deleted."""
        one = known(self._recipient, offer.extract)
        if one is not None and (one.deleted or one.issuer != self._holder):  # what was deleted does not come again
            raise Refused("gateway.extract_deleted", extract=offer.extract.hex())
        if is_recalled(self._recipient, self._holder, offer.extract):
            raise Refused("gateway.extract_recalled", extract=offer.extract.hex())
        return one

    def _list(self, offer: ExtractOffer, facts: ExtractFacts, part: Path, path: Path) -> None:
        """Give the file its name and note it. A notice comes before, and it is not taken, or after, and finds it."""
        with arriving:
            self._check_welcome(offer)
            appear(part, path)
            self._fault("appeared")
            try:
                keep_held(self._recipient, HeldExtract(facts, self._clock()))
            except MedveilError:
                remove(path)  # what is not listed, no notice and no day of deletion would find
                raise

    async def let_go(self) -> None:
        """Nothing stays of what was not taken."""
        if self._part is not None:
            await asyncio.to_thread(remove, self._part)

    async def end(self) -> None:
        """Nothing stays of the messages, nor of those that are still on their way: the pieces of a window that came by
        half would take the room of others for a week."""
        windows = 0
        while await self._steps.kept(_window(windows)):
            windows += 1
        for number in (windows - 1, windows) if windows else (0,):  # those before ended with their last piece
            await self._recipient.end(window_session(self._session, number), self._holder)
        await self._recipient.end(self._session, self._holder)

    def _whole(self, offer: ExtractOffer, part: Path) -> None:
        if hashed(part) != (offer.length, offer.digest):
            raise VerificationError("parquet.altered", file=f"{offer.extract.hex()}.extract")

    async def _window(self, number: int, offer: ExtractOffer, part: Path) -> None:
        step, session = _window(number), window_session(self._session, number)
        first, last = number * extract_delivery.WINDOW, min((number + 1) * extract_delivery.WINDOW, offer.length)

        async def receiving() -> WindowDone:
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
            return WindowDone()

        await self._recipient.send(self._holder, self._session, ExtractNext(number))
        await self._steps.once(step, WindowDone, receiving)
        await self._recipient.end(session, self._holder)


def _window(number: int) -> str:
    """The step of a window."""
    return f"window-{number}"
