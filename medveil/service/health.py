"""Is the service alive, and is it ready: named checks, and no more said than pass or fail.

Live: the event loop turns. Ready: the ledger is followed, the database takes a write, the disk has room, and
the service is not stopping. An answer names the checks that failed and never why: the log says why.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, text

from medveil.service.logs import Log, about

Check = Callable[[], Awaitable[bool]]

FLOOR = 256 * 1024 * 1024
"""Free bytes below which the disk counts as full: the ledger and the audit trail must still be written."""
PATIENCE = 2.0
"""Seconds that one check may take."""
FRESH = 1.0
"""Seconds for which an answer stands, so that asking often costs nothing."""


class Transactions(Protocol):
    """The database, as far as this file needs it."""

    def transaction(self) -> AbstractContextManager[Connection]:
        """One durable transaction."""
        ...


class Health:
    """The checks of one process, by name."""

    def __init__(self, log: Log) -> None:
        self._checks: dict[str, Check] = {}
        self._log = log
        self._answer: tuple[float, dict[str, bool]] | None = None
        self._asking = asyncio.Lock()
        self.stopping = False

    def add(self, name: str, check: Check) -> None:
        """Ready only if `check` is true; one that raises, or takes longer than PATIENCE, is not."""
        self._checks[name] = check

    async def ready(self) -> dict[str, bool]:
        """Each check by name. All are asked at once, at most once in FRESH seconds."""
        now = asyncio.get_running_loop().time()
        async with self._asking:
            if self._answer is None or now - self._answer[0] > FRESH:
                found = await asyncio.gather(*(self._ask(check) for check in self._checks.values()))
                self._answer = (asyncio.get_running_loop().time(), dict(zip(self._checks, found, strict=True)))
        return {**self._answer[1], "serving": not self.stopping}

    async def _ask(self, check: Check) -> bool:
        try:
            async with asyncio.timeout(PATIENCE):
                return await check()
        except Exception as error:
            self._log.warning("part.failed", **about(error))
            return False


def database_writable(database: Transactions) -> Check:
    """The database begins and commits a transaction (a full or read-only disk refuses)."""

    def write() -> bool:
        with database.transaction() as connection:
            return bool(connection.execute(text("SELECT 1")).scalar_one() == 1)

    return lambda: asyncio.to_thread(write)


def disk_above_floor(folder: Path, floor: int = FLOOR) -> Check:
    """The disk of `folder` has at least `floor` free bytes."""

    async def enough() -> bool:
        return (await asyncio.to_thread(shutil.disk_usage, folder)).free >= floor

    return enough


def task_running(task: Callable[[], asyncio.Task[None] | None]) -> Check:
    """A task that must never end (following the ledger) has not."""

    async def runs() -> bool:
        found = task()
        return found is not None and not found.done()

    return runs
