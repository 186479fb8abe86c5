"""A running gateway's rounds of recalls: extracts that have to be deleted elsewhere, or were deleted here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from medveil.gateway.organisation import Clock, Organisation
from medveil.gateway.recalled_extracts import ExtractsHere
from medveil.gateway.recalling import keep_up
from medveil.service.logs import Log, about
from wire.errors import MedveilError

EVERY_SECONDS = 60.0


class RecallRounds:
    """The rounds of one process.

    waiting: whether to leave all as it is for now (a home that came back from a backup and has not caught up).
    making: whether there are jobs that make extracts and have not ended; what such a job left is its own to end.
    """

    def __init__(
        self,
        organisation: Organisation,
        *,
        log: Log,
        clock: Clock,
        every: float = EVERY_SECONDS,
        waiting: Callable[[], bool] = lambda: False,
        making: Callable[[], bool] = lambda: False,
    ) -> None:
        self._organisation, self._extracts = organisation, ExtractsHere(organisation, clock, making)
        self._log, self._clock, self._every, self._waiting = log, clock, every, waiting

    async def run(self) -> None:
        """A round at once, and one every minute, until it is cancelled."""
        while True:
            await self.round()
            await asyncio.sleep(self._every)

    async def round(self) -> None:
        """What cannot be done now is logged, and done in a later round."""
        if self._waiting():
            return
        try:
            await keep_up(self._organisation, self._extracts, self._clock)
        except MedveilError as error:
            self._log.warning("part.failed", part="recalls", **about(error))
