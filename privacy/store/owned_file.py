"""One SQLite file that one process owns: opened locked, durable, with a version, errors in words.

Every commit is on disk when it returns (WAL, synchronous=FULL). Deleted content is overwritten in
the file (secure_delete) and the write-ahead log is cut on close; copies that the disk or a backup
keeps are out of reach. A second process gets a clear Unavailable, by whichever link it comes. Data of a newer medveil
is refused, and a file whose tables are not as they were made: a trigger or a constraint that somebody put there would
lose what is written, or alter it, for as long as the file is used. Nothing is taken for written once the file, or the
log beside it, is not where the next process will look for it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import Any

from filelock import FileLock, Timeout

from privacy.store.file_place import FilePlace
from wire.durable import flush, put_in_place
from wire.errors import DecodeError, Refused, Unavailable

Upgrade = Callable[[sqlite3.Connection], None]
"""Within a transaction: what makes of a file of one version one of the next."""

_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_NOLFS,
}

_STATISTICS = {"sqlite_stat1", "sqlite_stat4"}
COPY = ".as-it-was"
"""What the name ends in of the copy that is made of a file which is not in its place any more."""


class Store:
    """An open, locked SQLite file.

    application: 4 bytes that say what the file is. schema: statements that make an empty file.
    version: of the schema. create: whether the file must be new (True), must exist (False), or may
    be either (None). upgrades: by the version that a file has, what brings it to the next one; a copy
    of the older file stays beside it, as `<name>.v<version>`. Raises Unavailable (in use, not there,
    disk full or read-only), Refused (there already, or written by a newer medveil), DecodeError
    (damaged, or something else).
    """

    def __init__(
        self,
        path: Path,
        application: bytes,
        schema: str,
        version: int,
        create: bool | None,
        upgrades: Mapping[int, Upgrade] | None = None,
    ) -> None:
        self.path = path
        self._guard = RLock()
        self._place = FilePlace(path)
        self._rescued = False
        exists = path.is_file() and path.stat().st_size > 0
        # Behind a link that leads nowhere, such as to a disk that is not there, no new file is begun.
        if not exists and (create is False or (path.is_symlink() and not path.exists())):
            raise Unavailable("privacy.store_missing", path=str(path))
        if create is True and exists:
            raise Refused("privacy.store_exists", path=str(path))
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Not of a thread: whichever opened the store, another may close it.
            self._lock = FileLock(f"{os.path.realpath(path)}.lock", mode=0o600, thread_local=False)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise Unavailable("privacy.store_in_use", path=str(path), retry_after=5) from None
        except (OSError, NotImplementedError) as error:
            raise Unavailable("privacy.store_failed", path=str(path), reason=_reason(error)) from None
        try:
            if not exists:
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            with self.errors():
                # The statements below hold their own transactions.
                self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
                self._prepare(int.from_bytes(application, "big"), schema, version, upgrades or {})
                self._check_place()
        except OSError as error:
            self._release()
            raise Unavailable("privacy.store_failed", path=str(path), reason=_reason(error)) from None
        except BaseException:
            self._release()
            raise

    def _prepare(self, application: int, schema: str, version: int, upgrades: Mapping[int, Upgrade]) -> None:
        run = self._database.execute
        run("PRAGMA trusted_schema = OFF")
        run("PRAGMA secure_delete = ON")
        run("PRAGMA synchronous = FULL")
        run("PRAGMA fullfsync = ON")
        found, written = run("PRAGMA application_id").fetchone()[0], run("PRAGMA user_version").fetchone()[0]
        if found == 0 and written == 0 and not run("SELECT 1 FROM sqlite_schema").fetchone():
            run("PRAGMA journal_mode = WAL")
            with self.transaction():
                for statement in schema.split(";"):
                    run(statement)
                run(f"PRAGMA application_id = {application}")
                run(f"PRAGMA user_version = {version}")
        elif found != application:
            raise DecodeError("privacy.store_damaged", path=str(self.path))
        elif written > version:
            raise Refused("privacy.store_newer", path=str(self.path), version=written, known=version)
        elif run("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise DecodeError("privacy.store_damaged", path=str(self.path))
        else:
            self._check_idle()
            if written != version:
                self._upgrade(written, version, schema, upgrades)
            else:
                self._check_made(schema)

    def _check_idle(self) -> None:
        """Nothing in the file does something of its own when something is written. Raises DecodeError."""
        if any(kind in ("trigger", "view") for kind, _ in _made(self._database)):
            raise DecodeError("privacy.store_damaged", path=str(self.path))

    def _check_made(self, schema: str) -> None:
        """Tables and indexes are as the schema makes them. Raises DecodeError."""
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as new:
            for statement in schema.split(";"):
                new.execute(statement)
            if _made(self._database) != _made(new):
                raise DecodeError("privacy.store_damaged", path=str(self.path))

    def _upgrade(self, written: int, version: int, schema: str, upgrades: Mapping[int, Upgrade]) -> None:
        """Bring an older file to `version`, all of it or nothing, with a copy of what it was beside it."""
        if any(step not in upgrades for step in range(written, version)):
            raise DecodeError("privacy.store_damaged", path=str(self.path))
        part = self.path.with_name(f".{self.path.name}.partial")
        part.unlink(missing_ok=True)
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        with closing(sqlite3.connect(part)) as copy:
            self._database.backup(copy)
        flush(part)
        put_in_place(part, self.path.with_name(f"{self.path.name}.v{written}"))
        with self.transaction() as database:
            for step in range(written, version):
                upgrades[step](database)
            self._check_made(schema)
            database.execute(f"PRAGMA user_version = {version}")

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what SQLite raises into words; one thread at a time."""
        with self._guard:
            try:
                yield
            except sqlite3.ProgrammingError:
                raise ValueError(f"{self.path.name} is closed") from None
            except sqlite3.Error as error:
                code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
                if code in _PASSING:
                    name = getattr(error, "sqlite_errorname", "SQLITE")
                    raise Unavailable("privacy.store_failed", path=str(self.path), reason=name) from None
                raise DecodeError("privacy.store_damaged", path=str(self.path)) from None
            except (UnicodeError, OverflowError):  # a damaged cell
                raise DecodeError("privacy.store_damaged", path=str(self.path)) from None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; on disk when the block is left, in the file that the next process will open."""
        with self.errors():
            self._check_place()
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
            self._check_place()

    def _check_place(self) -> None:
        """Raises Unavailable where the file was moved, replaced or cut short; then a copy of it, as it was, is made
        beside its place, once."""
        if self._place.holds():
            return
        copy = self.path.with_name(self.path.name + COPY)
        if not self._rescued:
            self._rescued = True
            with suppress(OSError):
                os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
                try:
                    with closing(sqlite3.connect(copy)) as database:
                        self._database.backup(database)
                except sqlite3.Error:  # what it held is not there any more
                    copy.unlink()
        raise Unavailable("privacy.store_moved", path=str(self.path), copy=str(copy))

    def rows(self, statement: str, *parameters: Any) -> list[Any]:
        """All rows of a SELECT."""
        with self.errors():
            return self._database.execute(statement, parameters).fetchall()

    def cut_log(self) -> None:
        """Move the write-ahead log into the file and cut it, so that it keeps no deleted content."""
        with self.errors():
            self._check_place()
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._place.log_was_cut()

    def close(self) -> None:
        """Close and unlock. Closing twice is harmless."""
        try:
            with self.errors():
                self.cut_log()
        except (ValueError, DecodeError, Unavailable):
            pass  # closed before, or the file cannot be written: what was committed stays in the log
        finally:
            self._release()

    def _release(self) -> None:
        database = getattr(self, "_database", None)
        if database is not None:
            database.close()
        self._lock.release()


def _made(database: sqlite3.Connection) -> set[tuple[str, str]]:
    """Kind and text of all that was made in a file, but for what SQLite keeps for itself: indexes of keys, which have
    no text, and the tables of ANALYZE. A name says nothing: whoever writes the schema by hand may begin it so, too."""
    found = database.execute("SELECT type, name, sql FROM sqlite_schema").fetchall()
    return {
        (kind, "".join((text or "").split()))
        for kind, name, text in found
        if not (kind == "index" and text is None) and not (kind == "table" and name in _STATISTICS)
    }


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
