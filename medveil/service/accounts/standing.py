"""Who may do what, remembered for as long as it cannot have changed.

A caller is looked up once, with the `stamp` that the store had then; every change of people, roles, sessions or
tokens counts the stamp up, by triggers of the database, in the transaction of the change: whoever makes it, this
process, another one or an operator's hand. A call reads the stamp, and believes what is remembered only under the
same one. So a change holds from the very next call on, as if each call looked everything up.

Not counted: when a session or token was last used. Who is remembered is looked up once a minute, which notes that.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy import event

from medveil.service.database import Database, metadata
from medveil.service.security.gathered import Gathered

T = TypeVar("T")

_MOST = 10_000
_SAID_BY = ("people", "people_roles", "sessions", "tokens")
_USE = frozenset({"seen", "used"})
_STAMP = "SELECT changes FROM standing"

standing = sa.Table(
    "standing",
    metadata,
    sa.Column("one", sa.Integer, sa.CheckConstraint("one = 1"), primary_key=True),
    sa.Column("changes", sa.BigInteger, nullable=False),
)


@event.listens_for(metadata, "after_create")
def _count_changes(made: sa.MetaData, connection: sa.Connection, tables: Collection[sa.Table], **_: object) -> None:
    if standing not in tables:  # the store had it already
        return
    connection.execute(standing.insert().values(one=1, changes=0))
    count = "UPDATE standing SET changes = changes + 1"
    run = connection.exec_driver_sql
    if connection.dialect.name == "postgresql":
        run(f"CREATE FUNCTION standing_moves() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {count}; RETURN NULL; END'")
    for name in _SAID_BY:
        columns = ", ".join(column.name for column in made.tables[name].c if column.name not in _USE)
        changes = ["INSERT", f"UPDATE OF {columns}", "DELETE"]
        if connection.dialect.name == "postgresql":
            happened = " OR ".join([*changes, "TRUNCATE"])
            does = "FOR EACH STATEMENT EXECUTE FUNCTION standing_moves()"
            run(f"CREATE TRIGGER standing_by_{name} AFTER {happened} ON {name} {does}")
            continue
        for change in changes:
            verb = change.partition(" ")[0].lower()
            run(f"CREATE TRIGGER standing_by_{verb}_{name} AFTER {change} ON {name} BEGIN {count}; END")


class Standing:
    """The present stamp of a store."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asked: Gathered[None, int] = Gathered(self._read, "reads the standing")

    async def now(self) -> int | None:
        """The stamp of a state not older than this call; None where it cannot be had at once. Raises as `reading`."""
        if self._database.engine_name == "sqlite":
            row = self._database.glance(_STAMP)
            return None if row is None else int(row[0])
        return await self._asked.ask(None)

    def close(self) -> None:
        """End its thread. Waits."""
        self._asked.close()

    def _read(self, _together: list[None]) -> int:
        return int(self._database.statement(_STAMP)[0][0])


def stamp_of(connection: sa.Connection) -> int:
    """The stamp in the view of a transaction."""
    return int(connection.execute(sa.select(standing.c.changes)).scalar_one())


class Remembered(Generic[T]):
    """Answers by the digest of a secret. May be used from threads."""

    def __init__(self) -> None:
        self._answers: dict[bytes, tuple[int, int, T]] = {}

    def get(self, secret: bytes, now: int, stamp: int) -> T | None:
        """The answer, if it is still true. now: ms UTC. stamp: `Standing.now` of this call."""
        found = self._answers.get(secret)
        if found is None or found[0] != stamp or found[1] <= now:
            return None
        return found[2]

    def put(self, secret: bytes, answer: T, *, stamp: int, until: int) -> None:
        """Keep an answer. stamp: of the transaction that found it; until: ms UTC."""
        if len(self._answers) >= _MOST:
            self._answers.clear()
        self._answers[secret] = (stamp, until, answer)
