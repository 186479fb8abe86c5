"""A member's own copy of the blocks: what its replica followed, kept so that a restart replays from home.

Nothing in it is believed: it is replayed like what comes over the network, and can be thrown away. One SQLite file in
WAL mode; a block is appended after the replica took it, so that one which was refused is asked for again.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ledger.machine import Block
from wire.canonical import decode, encode
from wire.checkpoint import Note, parse_note
from wire.errors import DecodeError, MedveilError, Unavailable
from wire.keyset import Founding

APPLICATION_ID = 0x6D76_6C62  # "mvlb"
DATA_VERSION = 1


class BlockCopy:
    """The file at `path`, of the chain of `founding`. Raises Unavailable (disk), DecodeError (damaged, another's)."""

    def __init__(self, path: Path, founding: Founding) -> None:
        self._path = path
        self._turn = threading.Lock()
        with self._guarded():
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
        try:
            with self._guarded():
                self._open(founding)
        except BaseException:
            self._db.close()
            raise

    def _open(self, founding: Founding) -> None:
        db = self._db
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        fresh = (version, application, tables) == (0, 0, 0)
        if not fresh and application != APPLICATION_ID:
            raise DecodeError("ledger.damaged", path=str(self._path))
        if not fresh and version != DATA_VERSION:
            raise DecodeError("ledger.data_version", path=str(self._path), version=version, known=DATA_VERSION)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")  # what a loss of power takes is asked for again
        if fresh:
            db.execute("BEGIN IMMEDIATE")
            db.execute("CREATE TABLE genesis (founding BLOB NOT NULL)")
            db.execute("CREATE TABLE blocks (height INTEGER PRIMARY KEY, block BLOB NOT NULL, note BLOB NOT NULL)")
            db.execute("INSERT INTO genesis VALUES (?)", (encode(founding),))
            db.execute(f"PRAGMA application_id={APPLICATION_ID}")
            db.execute(f"PRAGMA user_version={DATA_VERSION}")
            db.execute("COMMIT")
        elif db.execute("SELECT founding FROM genesis").fetchall() != [(encode(founding),)]:
            raise DecodeError("ledger.other_data", path=str(self._path), chain=founding.chain)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, OSError):
            raise Unavailable("ledger.storage", path=str(self._path)) from None
        except (sqlite3.Error, sqlite3.Warning):
            raise DecodeError("ledger.damaged", path=str(self._path)) from None

    @property
    def height(self) -> int:
        """Height of its last block; 0 for none."""
        with self._turn, self._guarded():
            (height,) = self._db.execute("SELECT coalesce(max(height), 0) FROM blocks").fetchone()
        return int(height)

    def block(self, height: int) -> tuple[Block, Note]:
        """The block at `height`, and the head over it as the sequencer signed it. DecodeError where it is missing."""
        with self._turn, self._guarded():
            row = self._db.execute("SELECT block, note FROM blocks WHERE height = ?", (height,)).fetchone()
        try:
            return decode(Block, row[0]), parse_note(row[1])
        except (MedveilError, TypeError, AttributeError):
            raise DecodeError("ledger.damaged", path=str(self._path)) from None

    def append(self, block: Block, note: Note) -> None:
        """Keep a block that the replica took; one that is there stays. ValueError if it does not follow the last."""
        height = block.header.height
        if height <= self.height:
            return
        if height != self.height + 1:
            raise ValueError("the block does not follow")
        with self._turn, self._guarded():
            self._db.execute("INSERT INTO blocks VALUES (?, ?, ?)", (height, encode(block), note.format()))

    def close(self) -> None:
        """Let go of the file."""
        with self._turn, self._guarded():
            self._db.close()
