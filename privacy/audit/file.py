"""The SQLite file of one audit trail: entries and batches, an index over them, whom they touched, what was pruned.

entries   the chain: canonical entries with the head after each
batches   which entries were anchored, or are on their way to the ledger
uses      of each intent: recipient, dataset, grant, its own nonce. An index: it can be made again from the entries
touched   (keyed person, intent): whose record a use looked at, where it was one person's. Not in the chain,
          since entries are shown to outsiders; the keyed id is the vault's, which only its index key makes
pruned    how far the chain was cut off at its old end, with the head there
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from privacy.audit.entries import LARGEST_BATCH, START, Entry, verify_chain
from privacy.store import Store
from wire.canonical import decode, encode
from wire.errors import DecodeError, VerificationError

APPLICATION = b"mvau"
VERSION = 3
PERSON_BYTES = 16

_FIRST = """
CREATE TABLE entries (sequence INTEGER PRIMARY KEY, intent INTEGER, entry BLOB, head BLOB) STRICT;
CREATE INDEX entries_by_intent ON entries (intent);
CREATE TABLE batches (first INTEGER PRIMARY KEY, last INTEGER, anchored INTEGER) STRICT
"""
_SECOND = """
CREATE TABLE uses (sequence INTEGER PRIMARY KEY, recipient TEXT, dataset TEXT, grant_id TEXT) STRICT;
CREATE INDEX uses_by_recipient ON uses (recipient);
CREATE INDEX uses_by_dataset ON uses (dataset);
CREATE INDEX uses_by_grant ON uses (grant_id);
CREATE TABLE touched (person BLOB, sequence INTEGER, PRIMARY KEY (person, sequence)) STRICT, WITHOUT ROWID;
CREATE INDEX touched_by_sequence ON touched (sequence);
CREATE TABLE pruned (one INTEGER PRIMARY KEY CHECK (one = 1), first INTEGER, last INTEGER, head BLOB, time INTEGER)
    STRICT
"""
_THIRD = """
ALTER TABLE uses ADD COLUMN nonce BLOB;
CREATE INDEX uses_by_nonce ON uses (nonce)
"""

_PIECE = 2000
"""Entries decoded at a time."""
_LOWEST = -(2**63)


class Pruned(NamedTuple):
    """Where the chain was cut off. first, last: of the last batch that is gone; head: after it; time: of pruning."""

    first: int
    last: int
    head: bytes
    time: int


UNCUT = Pruned(0, 0, START, 0)


class TrailFile(Store):
    """The file, opened and locked. organisation: whose trail it must be. Raises as `Store`."""

    def __init__(self, path: Path, organisation: str) -> None:
        self.organisation = organisation
        super().__init__(
            path, APPLICATION, f"{_FIRST};{_SECOND};{_THIRD}", VERSION, None, {1: _add_index, 2: _add_nonces}
        )

    # ---- entries

    def insert(self, database: sqlite3.Connection, entry: Entry, persons: Sequence[bytes] = ()) -> None:
        """Within a transaction: the next entry. persons: keyed ids of whom an intent touches."""
        data = encode(entry)
        decode(Entry, data)  # an entry that could not be read back is never written
        database.execute("INSERT INTO entries VALUES (?, ?, ?, ?)", (entry.sequence, entry.intent, data, entry.head()))
        _index(database, entry)
        database.executemany(
            "INSERT OR IGNORE INTO touched VALUES (?, ?)", ((person, entry.sequence) for person in persons)
        )

    def entries(self, first: int, last: int) -> tuple[Entry, ...]:
        """Entries `first` .. `last`, in order, those that are there."""
        rows = self.rows("SELECT entry FROM entries WHERE sequence BETWEEN ? AND ? ORDER BY sequence", first, last)
        return tuple(decode(Entry, blob(entry)) for (entry,) in rows)

    def last(self) -> Entry | None:
        """The last entry; None for an empty trail."""
        rows = self.rows("SELECT entry FROM entries ORDER BY sequence DESC LIMIT 1")
        return decode(Entry, blob(rows[0][0])) if rows else None

    def ending(self, intent: int) -> Entry | None:
        """The outcome of an intent; None where there is none."""
        rows = self.rows("SELECT entry FROM entries WHERE intent = ?", intent) if intent else []
        return decode(Entry, blob(rows[0][0])) if rows else None

    def unfinished(self) -> dict[int, Entry]:
        """Intents that no outcome ends."""
        rows = self.rows(
            "SELECT entry FROM entries WHERE intent = 0"
            " AND sequence NOT IN (SELECT intent FROM entries WHERE intent > 0) ORDER BY sequence"
        )
        entries = [decode(Entry, blob(entry)) for (entry,) in rows]
        return {entry.sequence: entry for entry in entries if entry.intent == 0}

    # ---- checks

    def check_batches(self) -> None:
        """Every batch follows the one before it, the first one what was pruned, and their entries are there."""
        expected = begin = self.pruned().last + 1
        for first, last, anchored in self.rows("SELECT first, last, anchored FROM batches ORDER BY first"):
            if first != expected or last is None or anchored not in (0, 1):
                raise self.broken(expected)
            if not first <= last < first + LARGEST_BATCH:
                raise self.broken(expected)
            expected = last + 1
        count = self.rows("SELECT COUNT(*) FROM entries WHERE sequence < ?", expected)[0][0]
        if count != expected - begin:
            raise self.broken(max(expected - 1, 1))

    def check_from(self, first: int) -> tuple[Entry | None, bytes]:
        """Entries from `first` on are chained, equal to the heads stored beside them and to what the index says.

        Returns the last one and the head. Raises VerificationError naming the first that does not fit.
        """
        cut = self.pruned()
        if first <= cut.last + 1:
            first, head = cut.last + 1, cut.head
        else:
            before = self.rows("SELECT head FROM entries WHERE sequence = ?", first - 1)
            head = blob(before[0][0]) if before else START
        last: list[Entry] = []

        def checked() -> Iterator[Entry]:
            for expected, (sequence, data, intent, stored, indexed) in enumerate(
                self._checked_rows(first), start=first
            ):
                try:
                    entry = decode(Entry, blob(data))
                except DecodeError:
                    raise self.broken(expected) from None
                mine = (entry.organisation, entry.intent) == (self.organisation, intent) and sequence == expected
                if not mine or entry.head() != stored or indexed != _indexed(entry):
                    raise self.broken(expected)
                last[:] = [entry]
                yield entry

        head = verify_chain(checked(), head, first)
        return last[0] if last else None, head

    def _checked_rows(self, first: int) -> Iterator[tuple[int, Any, int, Any, tuple[Any, ...] | None]]:
        statement = (
            "SELECT e.sequence, e.entry, e.intent, e.head, u.recipient, u.dataset, u.grant_id, u.nonce FROM entries e"
            " LEFT JOIN uses u ON u.sequence = e.sequence WHERE e.sequence >= ? ORDER BY e.sequence LIMIT ?"
        )
        while rows := self.rows(statement, first, _PIECE):
            for sequence, data, intent, head, *indexed in rows:
                yield sequence, data, intent, head, None if indexed[0] is None else tuple(indexed)
            first = rows[-1][0] + 1

    def broken(self, sequence: int) -> VerificationError:
        """The error that the chain does not hold at an entry."""
        return VerificationError("privacy.audit_chain", sequence=sequence, organisation=self.organisation)

    # ---- batches

    def anchored(self) -> int:
        """Number of the last entry that the ledger holds; 0 for none."""
        rows = self.rows("SELECT MAX(last) FROM batches WHERE anchored = 1")
        return rows[0][0] or self.pruned().last

    def batches(self) -> list[tuple[int, int]]:
        """First and last entry of every anchored batch that is there, in order."""
        return self.rows("SELECT first, last FROM batches WHERE anchored = 1 ORDER BY first")

    # ---- the old end

    def pruned(self) -> Pruned:
        """How far the chain was cut off; `UNCUT` where it was not."""
        rows = self.rows("SELECT first, last, head, time FROM pruned")
        if rows and None in rows[0]:
            raise self.broken(1)
        return Pruned(*rows[0]) if rows else UNCUT

    def cut(self, database: sqlite3.Connection, pruned: Pruned) -> int:
        """Within a transaction: drop everything up to `pruned.last`; returns how many entries."""
        gone = database.execute("DELETE FROM entries WHERE sequence <= ?", (pruned.last,)).rowcount
        database.execute("DELETE FROM uses WHERE sequence <= ?", (pruned.last,))
        database.execute("DELETE FROM touched WHERE sequence <= ?", (pruned.last,))
        database.execute("DELETE FROM batches WHERE last <= ?", (pruned.last,))
        database.execute("INSERT OR REPLACE INTO pruned VALUES (1, ?, ?, ?, ?)", pruned)
        return gone

    # ---- views

    def intents(self, column: str, value: str | bytes, first: int, limit: int) -> tuple[Entry, ...]:
        """Up to `limit` intents from number `first` on: of a recipient, dataset, grant_id, nonce or (keyed) person."""
        if column == "person":
            statement = "SELECT sequence FROM touched WHERE person = ?"
        elif column in ("recipient", "dataset", "grant_id", "nonce"):
            statement = f"SELECT sequence FROM uses WHERE {column} = ?"
        else:
            raise ValueError(f"the trail has no index by {column!r}")
        rows = self.rows(
            f"SELECT entry FROM entries WHERE sequence IN ({statement} AND sequence >= ?) ORDER BY sequence LIMIT ?",
            value,
            first,
            limit,
        )
        return tuple(decode(Entry, blob(entry)) for (entry,) in rows)


def _indexed(entry: Entry) -> tuple[str, str, str, bytes] | None:
    use = entry.use
    return (use.recipient, use.dataset, use.grant, entry.nonce) if entry.intent == 0 else None


def _index(database: sqlite3.Connection, entry: Entry) -> None:
    indexed = _indexed(entry)
    if indexed is not None:
        database.execute("INSERT INTO uses VALUES (?, ?, ?, ?, ?)", (entry.sequence, *indexed))


def _add_index(database: sqlite3.Connection) -> None:
    """From version 1: the tables that it did not have; the index is filled with the nonces."""
    for statement in _SECOND.split(";"):
        database.execute(statement)


def _add_nonces(database: sqlite3.Connection) -> None:
    """From version 2: the same entries, their index made again."""
    for statement in _THIRD.split(";"):
        database.execute(statement)
    database.execute("DELETE FROM uses")
    some, after = "SELECT sequence, entry FROM entries WHERE sequence > ? ORDER BY sequence LIMIT ?", _LOWEST
    while rows := database.execute(some, (after, _PIECE)).fetchall():
        for _, data in rows:
            _index(database, decode(Entry, blob(data)))
        after = rows[-1][0]


def blob(value: Any) -> bytes:
    """A cell that must hold bytes. Raises DecodeError."""
    if not isinstance(value, bytes):
        raise DecodeError("wire.not_canonical", kind="Entry")
    return value
