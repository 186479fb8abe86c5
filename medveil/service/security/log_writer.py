"""The security log's quick way to the disk: many entries as one statement, for what every call leaves behind.

On a quick disk (a flush in some tenths of a millisecond) the event loop writes by itself: to change to another thread
and back costs more, most of all where processors are scarce. Whenever that would hold up the loop, for another writer
or by a disk whose last flushes were all slow, the entries are a thread's.

The writer knows the chain's head from its last statement and writes on from there. Whoever else appended meanwhile
(another part's transaction, another process) took the next number, so that the statement breaks the table's primary
key, whole; then the entries go the slow way, in a transaction that reads the head first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import cache
from itertools import chain
from time import perf_counter

from medveil.service.database import WRITER, Database
from medveil.service.security import security_log
from medveil.service.security.security_log import COLUMNS, Head, Noted, Row

_SLOW_SECONDS = 0.003
_LAST = 4
_TIDIED_AFTER = 256


class LogWriter:
    """Used in one thread at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._head: Head | None = None
        self._took: deque[float] = deque(maxlen=_LAST)  # seconds of the last statements
        self._untidied = 0

    def write_at_once(self, together: Sequence[Sequence[Noted]]) -> bool:
        """As `write`, in an event loop: False, and nothing is written, where that would hold it up."""
        if self._head is None or not self._took or min(self._took) > _SLOW_SECONDS or self._untidied >= _TIDIED_AFTER:
            return False
        began = perf_counter()
        (rows, head), self._head = security_log.chained(self._head, chain.from_iterable(together)), None
        try:
            written = self._database.statement_at_once(_insertion("sqlite", len(rows)), _values(rows))
        except ValueError:  # somebody appended
            return False
        if written:
            self._head = head
            self._untidied += 1
            self._took.append(perf_counter() - began)
        return written

    def write(self, together: Sequence[Sequence[Noted]]) -> None:
        """Write all entries in this order; durable on return. Raises as `Database.transaction`."""
        noted = list(chain.from_iterable(together))
        began = perf_counter()
        after, self._head = self._head, None  # unknown until it is known to be written
        head = None if after is None else self._continued(after, noted)
        if head is None:
            with self._database.transaction() as connection:
                head = security_log.append_all(connection, noted)
        self._head = head
        self._untidied = 0
        self._took.append(perf_counter() - began)

    def _continued(self, after: Head, noted: Sequence[Noted]) -> Head | None:
        """The new head, if the entries could be written after this one."""
        rows, head = security_log.chained(after, noted)
        try:
            self._database.statement(_insertion(self._database.engine_name, len(rows)), _values(rows))
        except ValueError:  # somebody appended
            return None
        return head


def _values(rows: Sequence[Row]) -> tuple[object, ...]:
    return tuple(chain.from_iterable(rows))


@cache
def _insertion(engine: str, rows: int) -> str:
    """The statement for so many rows. PostgreSQL's takes the writers' lock before the first row is written."""
    columns = ", ".join(COLUMNS)
    if engine == "sqlite":
        values = ", ".join(["(" + ", ".join("?" * len(COLUMNS)) + ")"] * rows)
        return f"INSERT INTO security_log ({columns}) VALUES {values}"
    values = ", ".join(["(" + ", ".join(["%s"] * len(COLUMNS)) + ")"] * rows)
    return (
        f"WITH mine AS MATERIALIZED (SELECT pg_advisory_xact_lock({WRITER}))"
        f"INSERT INTO security_log ({columns}) SELECT written.* FROM mine, (VALUES {values}) AS written"
    )
