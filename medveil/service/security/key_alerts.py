"""What the limit on unwraps tells, in the log and, where it looks like trouble, in the security log.

The guard speaks from whatever thread unwraps; the security log is written in the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Protocol

from medveil.service.logs import Log
from privacy.keys import KeyEvent
from wire.errors import MedveilError

_TROUBLE = {"exceeded", "refused", "altered", "unavailable"}


class Note(Protocol):
    """`SecurityTrail.note`."""

    def __call__(self, actor: str, what: str, subject: str = "", reason: str = "") -> Awaitable[None]: ...


class KeyAlerts:
    """The `alert` of a running gateway's `Guarded`. Made in the event loop that `note` is called in."""

    def __init__(self, note: Note, log: Log) -> None:
        self._note = note
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, event: KeyEvent) -> None:
        """Log the event; note it as well where it is no declared job's beginning or end."""
        say: Callable[..., None] = self._log.warning if event.kind in _TROUBLE else self._log.info
        say(f"keys.{event.kind}", count=event.count)
        if event.kind in _TROUBLE:
            with contextlib.suppress(RuntimeError):  # the loop has ended: the process does
                self._loop.call_soon_threadsafe(self._begin, event)

    def _begin(self, event: KeyEvent) -> None:
        task = self._loop.create_task(self._write(event), name="notes what the keys' guard tells")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self, event: KeyEvent) -> None:
        try:
            await self._note(event.who or "-", f"keys.{event.kind}", event.reason, str(event.count))
        except MedveilError:
            self._log.warning("denial_not_kept")
