"""One process to a database: the lock that whoever uses it holds for as long as it runs.

On PostgreSQL it is an advisory lock of a connection that does nothing else, so that the server lets go of it when the
process is gone, however it ended; for a file a lock beside it. A connection can break while the process goes on. Then
nothing is written until the lock is had again (`Holding.keep`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from filelock import FileLock, Timeout
from sqlalchemy import exc

from wire.errors import Unavailable

_PATIENCE = 2.0
"""Seconds."""


class Holding:
    """The lock on a database. Make it with `take`; threads may share it. lost: the connection broke; see `keep`."""

    def __init__(self, connect: Callable[[], sa.Connection] | None, path: Path | None, place: str, lock: int) -> None:
        self._connect, self._place, self._lock = connect, place, lock
        self._file = None if path is None else FileLock(f"{path}.held", mode=0o600, thread_local=False)
        self._connection: sa.Connection | None = None
        self._turn = threading.Lock()
        self.lost = False

    @classmethod
    def take(cls, connect: Callable[[], sa.Connection] | None, path: Path | None, place: str, lock: int) -> Holding:
        """Hold the database. connect: to PostgreSQL, committing by itself; path: of a file instead. lock: the number
        of PostgreSQL's advisory lock.

        Raises Unavailable: another process holds it, it cannot be reached.
        """
        held = cls(connect, path, place, lock)
        try:
            held._take()
        except BaseException:
            held.close()
            raise
        return held

    def keep(self) -> None:
        """See that the lock is still held, and take it again where the connection broke. Raises as `take`."""
        if self._file is not None:
            return
        with self._turn:
            try:
                if self._connection is not None:
                    self._connection.execute(sa.select(1))
                    return
            except exc.SQLAlchemyError:
                self.lost = True
                self._let_go()
            self._take()
            self.lost = False

    def check(self) -> None:
        """Raises Unavailable while the lock is lost."""
        if self.lost:
            raise Unavailable("database.in_use", place=self._place, retry_after=5)

    def close(self) -> None:
        """Let go."""
        if self._file is not None:
            self._file.release()
        self._let_go()

    def _take(self) -> None:
        if self._file is not None:
            try:
                self._file.acquire(timeout=0)
            except Timeout:
                raise Unavailable("database.in_use", place=self._place, retry_after=5) from None
            except OSError:
                raise Unavailable("database.unreachable", place=self._place, retry_after=5) from None
        if self._connect is None:
            return
        try:
            self._connection = self._connect()
            had, until = False, time.monotonic() + _PATIENCE
            while not had and time.monotonic() < until:  # who stopped just now still has it for some milliseconds
                had = self._connection.execute(sa.select(sa.func.pg_try_advisory_lock(self._lock))).scalar_one()
                time.sleep(0 if had else 0.05)
        except exc.SQLAlchemyError:
            self._let_go()
            raise Unavailable("database.unreachable", place=self._place, retry_after=5) from None
        if not had:
            self._let_go()
            raise Unavailable("database.in_use", place=self._place, retry_after=5)

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.invalidate()  # the lock ends with the connection itself: it must not go back to a pool
            self._connection.close()
            self._connection = None
