"""The security log: who did, or was refused, what at this service. Append-only and hash-chained.

Each entry's hash covers the one before it, so that a changed, removed or reordered entry breaks the chain; the
database refuses to change or delete a row besides. Who can write the database file can still cut off its end or
write the whole chain anew: only a `head` kept elsewhere (an auditor's, the access log's anchor) shows that.

An entry names staff, programs and organisations, routes and codes. Nothing of a patient, no secret, no text that
an outsider typed: an unknown name is written as such.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy import event

from medveil.service.database import metadata
from wire.canonical import Wire, encode
from wire.domains import SECURITY_LOG, digest
from wire.errors import VerificationError

_START = bytes(32)

Head = tuple[int, bytes]
"""Number and hash of the last entry."""
Row = tuple[int, int, str, str, str, str, bytes]

entries = sa.Table(
    "security_log",
    metadata,
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", sa.BigInteger, nullable=False, index=True),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
)

COLUMNS = tuple(column.name for column in entries.c)

_REFUSALS = {
    "sqlite": [
        f"CREATE TRIGGER security_log_no_{change.lower()} BEFORE {change} ON security_log "
        "BEGIN SELECT RAISE(ABORT, 'append-only'); END"
        for change in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        (
            "CREATE FUNCTION security_log_refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN RAISE EXCEPTION ''append-only'' USING ERRCODE = ''integrity_constraint_violation''; END'"
        ),
        (
            "CREATE TRIGGER security_log_keeps BEFORE UPDATE OR DELETE OR TRUNCATE ON security_log "
            "FOR EACH STATEMENT EXECUTE FUNCTION security_log_refuse()"
        ),
    ],
}


@event.listens_for(entries, "after_create")
def _refuse_changes(_table: sa.Table, connection: sa.Connection, **_: object) -> None:
    for statement in _REFUSALS[connection.dialect.name]:
        connection.exec_driver_sql(statement)


class Noted(NamedTuple):
    """What an entry will say: the fields of `SecurityEntry` but its number."""

    at: int
    actor: str
    event: str
    subject: str = ""
    reason: str = ""


class SecurityEntry(Wire, frozen=True, tag="medveil.security_entry"):
    """One entry. at: ms UTC. actor: ``person:NAME``, ``program:ID``, ``organisation:NAME`` or ``-``.

    event: what was done or refused (``people.added``, ``denied``); subject: to whom or at which route; reason: a
    right, a role or an error code, or empty.
    """

    sequence: Annotated[int, msgspec.Meta(ge=1)]
    at: int
    actor: str
    event: str
    subject: str
    reason: str


def append(connection: sa.Connection, at: int, actor: str, what: str, subject: str = "", reason: str = "") -> None:
    """Write one entry in the caller's writing transaction: it stands if, and only if, what it tells of does."""
    append_all(connection, [Noted(at, actor, what, subject, reason)])


def append_all(connection: sa.Connection, noted: Sequence[Noted]) -> tuple[int, bytes]:
    """Write entries, in this order, in the caller's writing transaction; returns the new head, as `head` would."""
    rows, after = chained(head(connection), noted)
    if rows:
        connection.execute(entries.insert(), [dict(zip(COLUMNS, row, strict=True)) for row in rows])
    return after


def chained(after: Head, noted: Iterable[Noted]) -> tuple[list[Row], Head]:
    """The rows, in the order of `COLUMNS`, that continue the chain after a head; and the new head."""
    (sequence, previous), rows = after, []
    for one in noted:
        sequence += 1
        fields = (sequence, one.at, one.actor[:300], one.event[:300], one.subject[:300], one.reason[:300])
        previous = digest(SECURITY_LOG, previous, encode(SecurityEntry(*fields)))
        rows.append((*fields, previous))
    return rows, (sequence, previous)


def read(connection: sa.Connection, *, before: int | None = None, limit: int = 100) -> list[SecurityEntry]:
    """The newest entries first, at most `limit` (1..1000); before: only those with a smaller sequence."""
    query = sa.select(entries).order_by(entries.c.sequence.desc()).limit(min(max(limit, 1), 1000))
    if before is not None:
        query = query.where(entries.c.sequence < before)
    return [_entry(row) for row in connection.execute(query)]


def head(connection: sa.Connection) -> Head:
    """How many entries there are, and the hash of the last (32 zero bytes where there is none)."""
    last = sa.select(entries.c.sequence, entries.c.hash).order_by(entries.c.sequence.desc()).limit(1)
    row = connection.execute(last).one_or_none()
    return (int(row.sequence), bytes(row.hash)) if row else (0, _START)


def verify(connection: sa.Connection, kept: Head | None = None) -> int:
    """Check the whole chain, and that it passes through the `kept` head; returns the number of entries.

    Raises VerificationError naming the first entry that does not fit.
    """
    previous, count = _START, 0
    for entry, stored in _walk(connection):
        if entry.sequence != count + 1 or stored != digest(SECURITY_LOG, previous, encode(entry)):
            raise VerificationError("security_log.broken", entry=count + 1)
        previous, count = stored, count + 1
        if kept is not None and kept[0] == count and kept[1] != previous:
            raise VerificationError("security_log.broken", entry=count)
    if kept is not None and kept[0] > count:
        raise VerificationError("security_log.broken", entry=count + 1)
    return count


def _walk(connection: sa.Connection) -> Iterator[tuple[SecurityEntry, bytes]]:
    for row in connection.execute(sa.select(entries).order_by(entries.c.sequence)):
        yield _entry(row), bytes(row.hash)


def _entry(row: sa.Row[tuple[object, ...]]) -> SecurityEntry:
    return SecurityEntry(row.sequence, row.at, row.actor, row.event, row.subject, row.reason)
