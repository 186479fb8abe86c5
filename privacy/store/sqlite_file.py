"""A SQLite file of one application: its mark, its permissions, a checked copy of it, and the way back.

application: the number in the file's header that says whose file it is. The file and its copies can be read by their
owner alone. SQLite gives its journal files the permissions of the file itself.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

import sqlalchemy as sa

from wire.durable import flush
from wire.errors import DecodeError, Refused, Unavailable

BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
FULL = sqlite3.SQLITE_FULL
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_TOOBIG)
"""The last one: a cell whose length was altered; nothing that long is ever written."""

_JOURNALS = ("-wal", "-shm")


def prepare(path: Path, application: int) -> None:
    """Make an empty file for its owner alone, if there is none; refuse another's before anything in it changes.

    Raises DecodeError (another application's, damaged), Unavailable.
    """
    with _guarded(path):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        with contextlib.closing(_only_reads(path)) as db:
            try:
                (found,) = db.execute("PRAGMA application_id").fetchone()
                (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            except sqlite3.DatabaseError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_NOTADB:
                    raise DecodeError("database.other_application", place=str(path)) from None
                raise
    if found != application and (found, tables) != (0, 0):
        raise DecodeError("database.other_application", place=str(path))


def is_unmarked(connection: sa.Connection) -> bool:
    """Whether no application has claimed the file yet."""
    return _pragma(connection, "application_id") == 0 and _pragma(connection, "user_version") == 0


def is_signed(connection: sa.Connection, application: int) -> bool:
    """Whether the file is the application's."""
    return _pragma(connection, "application_id") == application


def is_as_made(connection: sa.Connection, tables: Iterable[sa.Table]) -> bool:
    """Whether nobody changed what the file makes of what is written, where `tables` were made strict.

    They still are, so that every cell is of its column's kind, and there are neither triggers, which do something of
    their own, nor views.
    """
    wanted = {table.name for table in tables if table.dialect_options["sqlite"]["strict"]}
    if not wanted:
        return True
    found = connection.exec_driver_sql("SELECT type, name FROM sqlite_schema").all()
    if any(kind in ("trigger", "view") for kind, _ in found):
        return False
    listed = connection.exec_driver_sql("PRAGMA table_list").mappings().all()
    strict = {row["name"] for row in listed if row["strict"] and row["schema"] == "main"}
    there = {name for kind, name in found if kind == "table"}
    return wanted & there <= strict


def sign(connection: sa.Connection, application: int, version: int) -> None:
    """Claim the file, in the transaction that is open."""
    connection.exec_driver_sql(f"PRAGMA application_id={application}")
    connection.exec_driver_sql(f"PRAGMA user_version={version}")


def _pragma(connection: sa.Connection, name: str) -> int:
    return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())


def copy(source: Path, target: Path, application: int, *, replace: bool = False) -> None:
    """A copy of `source` at `target`, consistent while others write, checked, durable before it has its name.

    Raises Refused where `target` exists and is not to be replaced, DecodeError (damaged), Unavailable.
    """
    if target.exists() and not replace:
        raise Refused("database.exists", place=str(target))
    part = target.with_name(target.name + ".part")
    with _guarded(source):
        part.unlink(missing_ok=True)
        os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with contextlib.closing(_only_reads(source)) as old, contextlib.closing(sqlite3.connect(part)) as new:
            old.backup(new)
            new.execute("PRAGMA journal_mode=DELETE")
            _check(new, source, application)
        flush(part)
        part.replace(target)
        flush(target.parent)


def version_of(path: Path, application: int) -> int:
    """The version of the data at `path`. Raises DecodeError where it is damaged or not ours, Unavailable."""
    with _guarded(path), contextlib.closing(_only_reads(path)) as db:
        _check(db, path, application)
        (version,) = db.execute("SELECT version FROM medveil_data").fetchone()
        return int(version)


def put_back(backup: Path, target: Path, application: int, *, replace: bool) -> None:
    """A checked copy of `backup` in the place of `target`; what stood there is kept as ``NAME.before-restore``.

    The old journal goes aside with its file: beside the new one it would be replayed into it.
    """
    if target.exists() and not replace:
        raise Refused("database.exists", place=str(target))
    fresh = target.with_name(target.name + ".restored")
    copy(backup, fresh, application, replace=True)
    with _guarded(target):
        if target.exists():
            _leave_journal(target)
        aside = target.with_name(target.name + ".before-restore")
        for ending in ("", *_JOURNALS):
            old = target.with_name(target.name + ending)
            if old.exists():
                old.replace(aside.with_name(aside.name + ending))
        fresh.replace(target)
        flush(target.parent)


def _leave_journal(path: Path) -> None:
    """Take the file out of WAL mode, which SQLite does only where nobody else has it open."""
    with contextlib.closing(sqlite3.connect(path, timeout=1)) as db:
        try:
            db.execute("PRAGMA journal_mode=DELETE").fetchone()
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in BUSY:
                raise Unavailable("database.busy", place=str(path), retry_after=1) from None
            # A damaged file is put aside as it is: that is what a restore is for.


def _only_reads(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise DecodeError("database.other_application", place=str(path))
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=5)


def _check(db: sqlite3.Connection, path: Path, application: int) -> None:
    (found,) = db.execute("PRAGMA application_id").fetchone()
    if found != application:
        raise DecodeError("database.other_application", place=str(path))
    sound = db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    if not sound or db.execute("PRAGMA foreign_key_check").fetchall():
        raise DecodeError("database.damaged", place=str(path))


@contextlib.contextmanager
def _guarded(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        number = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if number in BUSY:
            raise Unavailable("database.busy", place=str(path), retry_after=1) from None
        if number == FULL:
            raise Unavailable("database.full", place=str(path), retry_after=60) from None
        if isinstance(error, sqlite3.OperationalError) and number not in DAMAGED:
            raise Unavailable("database.unreachable", place=str(path), retry_after=5) from None
        raise DecodeError("database.damaged", place=str(path)) from None
    except UnicodeDecodeError:  # what the driver took for text
        raise DecodeError("database.damaged", place=str(path)) from None
    except OSError:
        raise Unavailable("database.unreachable", place=str(path), retry_after=5) from None
