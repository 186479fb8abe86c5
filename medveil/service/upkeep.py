"""What a running gateway does now and then: forget jobs that ended long ago and messages that nobody asked for, delete
extracts whose day has come, and say how many callers were turned away.

A failed TLS handshake is counted where it happens (`network.certificates.ServerContext`) and never reaches a route.
Here the log gets one line a minute at most for each listener, so that nobody fills the disk with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from medveil.gateway.held_extracts import Tidied
from medveil.service.logs import Log, about
from medveil.service.work.jobs import Jobs
from wire.errors import MedveilError

KEPT_MS = 30 * 86_400_000
"""How long a job is kept that has ended, in ms. After that its idempotency key is free again."""
LOOK_SECONDS = 60.0
_FORGET_MS = 3600 * 1000


class Upkeep:
    """The round of one process. refusals: failed handshakes by listener, by reason, counted since the start.

    prune: throws away messages that are too old. due: deletes the extracts whose day has come. clock: ms UTC.
    kept: ms for which a job is kept that has ended.
    tidy: frees, once an hour, what interrupted calls and deleted rows have left in the vault; called in a thread.
    """

    def __init__(
        self,
        jobs: Jobs,
        refusals: Callable[[], Mapping[str, Mapping[str, int]]],
        prune: Callable[[], Awaitable[None]] | None = None,
        due: Callable[[], Tidied] = Tidied,
        *,
        log: Log,
        clock: Callable[[], int],
        kept: int = KEPT_MS,
        tidy: Callable[[], object] = lambda: None,
    ) -> None:
        self._jobs = jobs
        self._refusals = refusals
        self._prune = prune
        self._due = due
        self._log = log
        self._clock = clock
        self._kept = kept
        self._tidy = tidy
        self._said: dict[str, int] = {}
        self._forgot = 0

    async def run(self) -> None:
        """A round at once, and one every minute, until it is cancelled."""
        while True:
            await self.round()
            await asyncio.sleep(LOOK_SECONDS)

    async def round(self) -> None:
        """Say what was refused since the last round, delete what is due; once an hour, forget old jobs and messages."""
        for listener, reasons in self._refusals().items():
            count = sum(reasons.values())
            if count > self._said.get(listener, 0):
                self._log.warning("tls.refused", part=listener, count=count - self._said.get(listener, 0))
                self._said[listener] = count
        tidied = await asyncio.to_thread(self._due)
        if tidied.trouble is not None:  # the disk may be back at the next round
            self._log.warning("part.failed", part="upkeep", **about(tidied.trouble))
        if tidied.gone:
            self._log.info("extracts.deleted", count=len(tidied.gone))
        if tidied.listed:
            self._log.info("extracts.listed", count=tidied.listed)
        now = self._clock()
        if now - self._forgot < _FORGET_MS:
            return
        try:
            count = await asyncio.to_thread(self._jobs.store.forget, now - self._kept)
            if self._prune is not None:
                await self._prune()
            await asyncio.to_thread(self._tidy)
        except MedveilError as error:  # the store may be back at the next round
            self._log.warning("part.failed", part="upkeep", **about(error))
            return
        self._forgot = now
        if count:
            self._log.info("jobs.forgotten", count=count)
