"""One home to a database: what keeps a restored home, its original or any other from using one database together.

A database outside of the home (PostgreSQL, or a file of its own) outlives it: a home that came back from a backup names
the same one as its original. Two things keep them apart:

* a process holds a lock as long as it uses the database: on PostgreSQL an advisory lock of a connection that does
  nothing else, so that the server lets go of it when the process is gone, however it ended; for a file a lock beside;
* the database remembers which home it is of (`belong`). A home that came back takes it over at its first start; from
  then on its original is refused, also while nothing runs.

A connection can break while the process goes on. Then nothing is written until the lock is had again (`Holding.keep`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from filelock import FileLock, Timeout
from sqlalchemy import exc

from wire.errors import Refused, Unavailable

HOLDER = 0x6D76_6732
"""The advisory lock of PostgreSQL that the one process holds: "mvg2"."""
ID_BYTES = 16
_PATIENCE = 2.0
"""Seconds."""

_tables = sa.MetaData()
# Not one of the service's own tables, which come and go with its version: it must be there before those are looked at.
_home = sa.Table(
    "medveil_home",
    _tables,
    sa.Column("one", sa.Integer, sa.CheckConstraint("one = 1"), primary_key=True),
    sa.Column("home", sa.LargeBinary, nullable=False),
)


class Holding:
    """The lock on a database. Make it with `take`; threads may share it. lost: the connection broke; see `keep`."""

    def __init__(self, connect: Callable[[], sa.Connection] | None, path: Path | None, place: str) -> None:
        self._connect, self._place = connect, place
        self._file = None if path is None else FileLock(f"{path}.held")
        self._connection: sa.Connection | None = None
        self._turn = threading.Lock()
        self.lost = False

    @classmethod
    def take(cls, connect: Callable[[], sa.Connection] | None, path: Path | None, place: str) -> Holding:
        """Hold the database. connect: to PostgreSQL, committing by itself; path: of a file instead.

        Raises Unavailable: another process holds it, it cannot be reached.
        """
        held = cls(connect, path, place)
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
                had = self._connection.execute(sa.select(sa.func.pg_try_advisory_lock(HOLDER))).scalar_one()
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


def belong(connection: sa.Connection, home: bytes, *, taking_over: bool, place: str) -> None:
    """In a writing transaction: the database is of this home from here on.

    home: its 16 bytes. taking_over: it came back from a backup, and is the one from now on. Raises Refused where the
    database is another home's.
    """
    _tables.create_all(connection)
    row = connection.execute(sa.select(_home.c.home)).one_or_none()
    if row is None:
        connection.execute(_home.insert().values(one=1, home=home))
    elif taking_over:
        connection.execute(_home.update().values(home=home))
    elif bytes(row.home) != home:
        raise Refused("database.other_home", place=place)
