"""What a running gateway does by itself for erasures: it ends what was begun, rotates the key epoch by its date, and
says how much may be erased by now.

An erasure that was cut short (a key provider that did not answer, a process that was killed) is gone on with; a plan
that nobody applied stays one. The epoch is rotated a day before the date that receipts state, at the earliest; where
that fails it is tried again at every look, and from the date on the gateway says that it is not ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from medveil.gateway import erasing
from medveil.gateway.organisation import Clock, Organisation
from medveil.gateway.wallets import Wallets
from medveil.service.logs import Log, about
from privacy.copies.snapshots import Snapshots
from privacy.erasure import steps
from privacy.erasure.steps import DAY_MS, Erasure
from wire.errors import MedveilError

LOOK_SECONDS = 600.0
AHEAD_MS = DAY_MS
"""How long before its date, in ms, the epoch is rotated."""


class DueErasures:
    """The looks of one process. snapshots, wallets: those that its flows use. waiting: whether to leave all as it is
    for now (a home that came back from a backup and has not caught up)."""

    def __init__(
        self,
        organisation: Organisation,
        snapshots: Snapshots,
        wallets: Wallets,
        *,
        log: Log,
        clock: Clock,
        waiting: Callable[[], bool] = lambda: False,
    ) -> None:
        self._organisation, self._snapshots, self._wallets = organisation, snapshots, wallets
        self._log, self._clock, self._waiting = log, clock, waiting
        self._offered = 0
        self._overdue = False

    async def run(self) -> None:
        """A look at once, and then one every ten minutes, until it is cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Do what is due. What cannot be done now is logged, and done at a later look."""
        if self._waiting():
            return
        for one in await self._begun():
            await self._go_on(one)
        for work in (self._rotate, self._offer, self._compare):
            try:
                await work()
            except MedveilError as error:
                self._log.error("part.failed", part="erasures", **about(error))

    async def punctual(self) -> bool:
        """A check of readiness: no rotation of the key epoch is overdue."""
        return not self._overdue

    async def _begun(self) -> Sequence[Erasure]:
        try:
            return await asyncio.to_thread(steps.unfinished, self._organisation.vault, self._organisation.audit)
        except MedveilError as error:
            self._log.error("part.failed", part="erasures", **about(error))
            return ()

    async def _go_on(self, one: Erasure) -> None:
        try:
            await erasing.carry_out(self._organisation, one.name, self._clock, self._snapshots, self._wallets)
        except MedveilError as error:  # others do not wait for it
            self._log.error("part.failed", part="erasures", **about(error))
        else:
            self._log.info("erasure.done", part="erasures")

    async def _rotate(self) -> None:
        due = await asyncio.to_thread(erasing.rotation_due, self._organisation)
        if due and self._clock() >= due - AHEAD_MS:
            await erasing.rotate_beside(self._organisation, self._clock)
            self._log.info("keys.rotated", part="erasures")

    async def _offer(self) -> None:
        found = len(await asyncio.to_thread(erasing.due, self._organisation, self._clock()))
        if found and found != self._offered:
            self._log.info("erasure.due", part="erasures", count=found)
        self._offered = found

    async def _compare(self) -> None:
        due = await asyncio.to_thread(erasing.rotation_due, self._organisation)
        self._overdue = 0 < due <= self._clock()
        if self._overdue:
            self._log.error("keys.overdue", part="erasures")
