"""Data versions of the embedded engine's file, and the way from each to the next.

Version 1: genesis, blocks, envelopes (id -> place), final.
Version 2: also `activity` (which blocks hold something of a sender, or of a kind of op) and `times`
(block time -> height), for reading by organisation, kind and time; `origin`: the snapshot that the ledger
was started from, if it was; its blocks then follow that.
Version 3: also `handovers`: the evidence for each height at which members or keys changed; `origin_pieces`: the
rest of a snapshot that one row cannot hold.

Before anything changes, the whole file is copied beside it as ``NAME.version-N``, durably, and the copy
is checked. Each step is one transaction that also raises the version: a crash leaves the old version or
the new one, and a second attempt makes the copy anew, of the same data.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from ledger.envelope import open_envelope
from ledger.faults import Fault
from ledger.machine import Block
from ledger.reading import kinds_of
from wire.canonical import decode
from wire.durable import flush, put_in_place

DATA_VERSION = 3

VERSION_1 = """
CREATE TABLE genesis (founding BLOB NOT NULL);
CREATE TABLE blocks (height INTEGER PRIMARY KEY, block BLOB NOT NULL, results BLOB NOT NULL, note BLOB NOT NULL);
CREATE TABLE envelopes (id BLOB PRIMARY KEY, height INTEGER NOT NULL, entry INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE final (one INTEGER PRIMARY KEY CHECK (one = 1), note BLOB NOT NULL);
"""

_VERSION_2 = """
CREATE TABLE activity (what TEXT NOT NULL, height INTEGER NOT NULL, PRIMARY KEY (what, height)) WITHOUT ROWID;
CREATE TABLE times (time INTEGER NOT NULL, height INTEGER NOT NULL, PRIMARY KEY (time, height)) WITHOUT ROWID;
CREATE TABLE origin (one INTEGER PRIMARY KEY CHECK (one = 1), snapshot BLOB NOT NULL);
"""

_VERSION_3 = """
CREATE TABLE handovers (height INTEGER PRIMARY KEY, evidence BLOB NOT NULL);
CREATE TABLE origin_pieces (number INTEGER PRIMARY KEY, piece BLOB NOT NULL);
"""


def create(db: sqlite3.Connection) -> None:
    """The tables of the present version, in the transaction that is open."""
    for statement in _statements(VERSION_1 + _VERSION_2 + _VERSION_3):
        db.execute(statement)


def activity(block: Block) -> frozenset[str]:
    """Under which words a block is found: ``sender/NAME``, ``kind/TAG`` and ``kind/CONTRACT``."""
    senders = {open_envelope(data).envelope.sender for data in block.envelopes}
    tags = {tag for data in block.envelopes for tag in kinds_of(data)}
    kinds = tags | {tag.partition(".")[0] for tag in tags}
    return frozenset({f"sender/{name}" for name in senders} | {f"kind/{kind}" for kind in kinds})


def index(db: sqlite3.Connection, block: Block) -> None:
    """Enter a block into the indexes of version 2."""
    height = block.header.height
    db.execute("INSERT INTO times VALUES (?, ?)", (block.header.time, height))
    db.executemany("INSERT INTO activity VALUES (?, ?)", [(what, height) for what in sorted(activity(block))])


def migrate(db: sqlite3.Connection, path: Path, version: int, fault: Fault) -> None:
    """Bring the file at `path`, of an older `version`, to the present one. `db`: its only writer, no transaction open.

    Raises DecodeError for a damaged block; sqlite3.Error and OSError, for the caller to translate.
    """
    _back_up(db, path, path.with_name(f"{path.name}.version-{version}"), fault)
    while version < DATA_VERSION:
        db.execute("BEGIN IMMEDIATE")
        try:
            fault("migrate:begun")
            _STEPS[version](db)
            version += 1
            db.execute(f"PRAGMA user_version={version}")
            fault("migrate:written")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        fault("migrate:committed")


def _back_up(db: sqlite3.Connection, path: Path, backup: Path, fault: Fault) -> None:
    part = backup.with_name(backup.name + ".part")
    part.unlink(missing_ok=True)
    fault("backup:begun")
    with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as copy:
        db.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")
        if copy.execute("PRAGMA quick_check").fetchall() != [("ok",)]:
            raise sqlite3.DatabaseError("the copy is not sound")
    flush(part)
    fault("backup:copied")
    put_in_place(part, backup)
    fault("backup:named")


def _from_1(db: sqlite3.Connection) -> None:
    for statement in _statements(_VERSION_2):
        db.execute(statement)
    for (data,) in db.execute("SELECT block FROM blocks ORDER BY height"):
        index(db, decode(Block, data))


def _from_2(db: sqlite3.Connection) -> None:
    for statement in _statements(_VERSION_3):
        db.execute(statement)


_STEPS: dict[int, Callable[[sqlite3.Connection], None]] = {1: _from_1, 2: _from_2}


def _statements(script: str) -> Iterator[str]:
    return (statement for statement in script.split(";") if statement.strip())
