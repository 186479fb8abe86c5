"""The embedded engine's data: one SQLite file in WAL mode with synchronous=FULL.

A block, its results, the ids of its envelopes and the signed head over it are written in one
transaction: either all of it is there after a crash or nothing. The file names its data version: an
older one is backed up and migrated, a newer one is refused, and so is another consortium's.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ledger.engines.migration import DATA_VERSION, activity, create, index, migrate
from ledger.faults import Fault, no_fault
from ledger.machine import Block, Machine, Result
from ledger.pieces import LedgerState, join, split
from ledger.reading import Selection
from ledger.receipts import ProvenValue
from ledger.snapshots import LedgerSnapshot
from wire.canonical import LARGEST, Wire, decode, encode
from wire.checkpoint import Note, parse_note
from wire.errors import DecodeError, MedveilError, Refused, Unavailable, VerificationError
from wire.keyset import Founding

R = TypeVar("R")

_INTEGERS = 2**63
"""SQLite's integers: from minus this on, below it."""

APPLICATION_ID = 0x6D76_6C31  # "mvl1"


class Results(Wire, frozen=True, tag="ledger.results"):
    """The results of a block, in order."""

    results: tuple[Result, ...]


class Store:
    """The file, opened for one writer and one reader of this process. Raises Unavailable and DecodeError."""

    def __init__(
        self, path: Path, founding: Founding, fault: Fault = no_fault, origin: LedgerSnapshot | None = None
    ) -> None:
        """origin: what a new file starts from. Raises Refused if a file that exists did not start from it."""
        self._path = path
        self._fault = fault
        self._turn = threading.Lock()  # writes come from a thread; closing waits for them
        with self._guarded():
            self._writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
        try:
            with self._guarded():
                self._open(founding, origin)
                self._reader = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
        except BaseException:
            self._writer.close()
            raise

    def _open(self, founding: Founding, origin: LedgerSnapshot | None) -> None:
        db = self._writer
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        fresh = (version, application, tables) == (0, 0, 0)
        if not fresh and application != APPLICATION_ID:
            raise DecodeError("ledger.damaged", path=str(self._path))
        if not fresh and not 1 <= version <= DATA_VERSION:
            raise DecodeError("ledger.data_version", path=str(self._path), version=version, known=DATA_VERSION)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        if fresh:
            self._fault("create:opened")
            db.execute("BEGIN IMMEDIATE")
            create(db)
            db.execute("INSERT INTO genesis VALUES (?)", (encode(founding),))
            if origin is not None:
                main, pieces = split(origin)
                db.execute("INSERT INTO origin VALUES (1, ?)", (encode(main),))
                db.executemany(
                    "INSERT INTO origin_pieces VALUES (?, ?)", [(piece.number, encode(piece)) for piece in pieces]
                )
                db.execute("INSERT INTO final VALUES (1, ?)", (origin.note,))
            db.execute(f"PRAGMA application_id={APPLICATION_ID}")
            db.execute(f"PRAGMA user_version={DATA_VERSION}")
            self._fault("create:written")
            db.execute("COMMIT")
            self._fault("create:committed")
        elif db.execute("SELECT founding FROM genesis").fetchall() != [(encode(founding),)]:
            if version < DATA_VERSION and not _has_genesis(db):
                raise DecodeError("ledger.old_data", path=str(self._path), version=version)
            raise DecodeError("ledger.other_data", path=str(self._path), chain=founding.chain)
        elif version < DATA_VERSION:
            try:
                if version == 1:
                    _check_replays(db, founding)
                migrate(db, self._path, version, self._fault)
            except (DecodeError, VerificationError, TypeError, AttributeError):
                raise DecodeError("ledger.old_data", path=str(self._path), version=version) from None
        if origin is not None and _origin(db) != origin:
            raise Refused("ledger.not_new", path=str(self._path))

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turn SQLite's errors into ours."""
        try:
            yield
        except (sqlite3.Error, sqlite3.Warning, OSError) as error:
            # An OperationalError is the disk's, except where a table or a column is missing.
            missing = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
            if isinstance(error, sqlite3.OperationalError | OSError) and not missing:
                raise Unavailable("ledger.storage", path=str(self._path)) from None
            raise DecodeError("ledger.damaged", path=str(self._path)) from None

    def append(self, block: Block, results: Sequence[Result], note: Note, final: Note | None) -> None:
        """Write a block durably, with the head over it and the last final head so far. Raises Unavailable.

        Refused if it could not be read again: a row is longer than anything that `decode` takes.
        """
        height = block.header.height
        row = (height, encode(block), encode(Results(tuple(results))), note.format())
        length = max(map(len, row[1:]))
        if length > LARGEST:
            raise Refused("ledger.block_too_large", height=height, length=length, limit=LARGEST)
        with self._turn, self._guarded():
            db = self._writer
            db.execute("BEGIN IMMEDIATE")
            try:
                self._fault("block:begun")
                db.execute("INSERT INTO blocks VALUES (?, ?, ?, ?)", row)
                self._fault("block:block")
                db.executemany(
                    "INSERT INTO envelopes VALUES (?, ?, ?)",
                    [(result.envelope, height, result.entry) for result in results],
                )
                index(db, block)
                self._fault("block:envelopes")
                self._put_final(final)
                self._fault("block:final")
                db.execute("COMMIT")
                self._fault("block:committed")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def _put_final(self, final: Note | None) -> None:
        if final is not None:
            self._writer.execute("INSERT OR REPLACE INTO final VALUES (1, ?)", (final.format(),))

    def put_final(self, final: Note | None) -> None:
        """Write the last final head, durably. Raises Unavailable."""
        with self._turn, self._guarded():
            self._put_final(final)
            self._fault("final:committed")

    def put_handover(self, height: int, handover: ProvenValue) -> None:
        """Write the evidence of what changes with block `height`, durably. Raises Unavailable."""
        with self._turn, self._guarded():
            self._fault("handover:begun")
            self._writer.execute("INSERT OR REPLACE INTO handovers VALUES (?, ?)", (height, encode(handover)))
            self._fault("handover:committed")

    def handovers(self) -> tuple[ProvenValue, ...]:
        """All evidence of changes of members, in order, not verified."""
        with self._guarded():
            rows = self._reader.execute("SELECT evidence FROM handovers ORDER BY height").fetchall()
        return self._decoded(lambda: tuple(decode(ProvenValue, data) for (data,) in rows))

    def origin(self) -> LedgerSnapshot | None:
        """The snapshot that the file started from, not verified."""
        with self._guarded():
            return self._decoded(lambda: _origin(self._reader))

    def final(self) -> Note | None:
        """The last final head that was written."""
        with self._guarded():
            row = self._reader.execute("SELECT note FROM final").fetchone()
        return None if row is None else self._decoded(lambda: parse_note(row[0]))

    def block(self, height: int) -> tuple[Block, Note]:
        """The block at `height` (must exist) and the head over it as the sequencer signed it."""
        with self._guarded():
            row = self._reader.execute("SELECT block, note FROM blocks WHERE height = ?", (height,)).fetchone()
        if row is None:
            raise DecodeError("ledger.damaged", path=str(self._path))
        return self._decoded(lambda: (decode(Block, row[0]), parse_note(row[1])))

    def results(self, height: int) -> tuple[Result, ...]:
        """The results of the block at `height` (must exist)."""
        with self._guarded():
            row = self._reader.execute("SELECT results FROM blocks WHERE height = ?", (height,)).fetchone()
        if row is None:
            raise DecodeError("ledger.damaged", path=str(self._path))
        return self._decoded(lambda: decode(Results, row[0]).results)

    def height(self) -> int:
        """Height of the last stored block; 0 for none."""
        with self._guarded():
            (height,) = self._reader.execute("SELECT coalesce(max(height), 0) FROM blocks").fetchone()
        if not isinstance(height, int):
            raise DecodeError("ledger.damaged", path=str(self._path))
        return height

    def heights(self, selection: Selection, first: int, last: int, most: int) -> list[int]:
        """Heights in first..last, in order, of at most `most` blocks that may hold what `selection` asks for."""
        words = [f"sender/{selection.organisation}"] if selection.organisation else []
        words += [f"kind/{selection.kind}"] if selection.kind else []
        if not all(map(_is_text, words)):
            return []
        first, last = _integer(first), _integer(last)
        with self._guarded():
            one = self._reader.execute
            if selection.since is not None:  # the time of blocks never goes back
                (low,) = one("SELECT min(height) FROM times WHERE time >= ?", (_integer(selection.since),)).fetchone()
                first = max(first, last + 1 if low is None else low)
            if selection.until is not None:
                (high,) = one("SELECT max(height) FROM times WHERE time < ?", (_integer(selection.until),)).fetchone()
                last = min(last, 0 if high is None else high)
            tables = ["activity"] * len(words) or ["blocks"]
            source = " JOIN ".join(f"{table} AS t{n}" for n, table in enumerate(tables))
            same = "".join(f" AND t{n}.what = ? AND t{n}.height = t0.height" for n in range(len(words)))
            where = f"FROM {source} WHERE t0.height BETWEEN ? AND ?{same}"
            rows = one(f"SELECT t0.height {where} ORDER BY t0.height LIMIT ?", (first, last, *words, most)).fetchall()
        return [height for (height,) in rows]

    def place(self, identity: bytes) -> tuple[int, int] | None:
        """Height and entry of an envelope, or None."""
        with self._guarded():
            row = self._reader.execute("SELECT height, entry FROM envelopes WHERE id = ?", (identity,)).fetchone()
        return None if row is None else (row[0], row[1])

    def check_index(self, blocks: Iterable[Block]) -> None:
        """Check that the indexes hold exactly `blocks`, which are all that are stored. Raises DecodeError."""
        times, words = set[tuple[int, int]](), set[tuple[str, int]]()
        for block in blocks:
            times.add((block.header.time, block.header.height))
            words.update((what, block.header.height) for what in activity(block))
        with self._guarded():
            same = set(self._reader.execute("SELECT time, height FROM times")) == times
            same = same and set(self._reader.execute("SELECT what, height FROM activity")) == words
        if not same:
            raise DecodeError("ledger.damaged", path=str(self._path))

    def _decoded(self, decoded: Callable[[], R]) -> R:
        try:
            return decoded()
        except (MedveilError, TypeError, AttributeError):  # garbage, or a value of another type
            raise DecodeError("ledger.damaged", path=str(self._path)) from None

    def close(self) -> None:
        """Let go of the file."""
        with self._turn, self._guarded():
            self._reader.close()
            self._writer.close()


def _integer(value: int) -> int:
    """The integer of SQLite that is nearest to `value`."""
    return max(-_INTEGERS, min(value, _INTEGERS - 1))


def _is_text(word: str) -> bool:
    """Whether `word` has an encoding: not if it holds half a pair of surrogates."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _has_genesis(db: sqlite3.Connection) -> bool:
    """Whether the file holds anybody's genesis as this program writes it."""
    try:
        decode(Founding, *db.execute("SELECT founding FROM genesis").fetchone())
    except (DecodeError, TypeError):
        return False
    return True


def _check_replays(db: sqlite3.Connection, founding: Founding) -> None:
    """Check that data of version 1 is what this program would have written, before anything is changed.

    Raises DecodeError or VerificationError; TypeError or AttributeError for values of another type.
    """
    machine = Machine(founding)
    for block, results, note in db.execute("SELECT block, results, note FROM blocks ORDER BY height"):
        outcome = machine.replay(decode(Block, block))
        head = parse_note(note).checkpoint
        same = (head.size, head.root) == (outcome.size, outcome.log_root)
        if not same or decode(Results, results).results != outcome.results:
            raise VerificationError("ledger.block_differs", height=outcome.header.height)


def _origin(db: sqlite3.Connection) -> LedgerSnapshot | None:
    """The snapshot that the file started from. Raises MedveilError, TypeError for one that cannot be read."""
    row = db.execute("SELECT snapshot FROM origin").fetchone()
    if row is None:
        return None
    pieces = db.execute("SELECT piece FROM origin_pieces ORDER BY number")
    whole = join(decode(LedgerSnapshot, row[0]), (decode(LedgerState, data) for (data,) in pieces))
    assert isinstance(whole, LedgerSnapshot)
    return whole
