"""A backup of a vault, and the way back: one state of its database, and the blobs that this state names.

    vault.sqlite    the tables, always as SQLite's file: of PostgreSQL one transaction's view, written into one
    blobs/          the sealed text of large documents

It holds what the vault holds, encrypted as there, and no key of an epoch: without the key provider nobody reads it,
and once the epochs that it is wrapped under are destroyed nobody ever does. Nor does it bring back what was erased
since: whoever opens the vault that comes of it removes what the register of erasures names, and the register lies
beside the key provider, not in here.

The copy is consistent while the vault is used. Documents that are removed meanwhile keep their blobs until it is done.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from pyarrow.fs import FileSystem

from privacy.keys import KeyProvider
from privacy.store import Database, bulk, sqlite_file
from privacy.vault import tables
from privacy.vault.blobs import NAME_BYTES, Blobs, BlobSource
from privacy.vault.opened import Opened
from privacy.vault.places import VaultHeader
from privacy.vault.sealed_stream import CHUNK
from privacy.vault.streams import Streams
from wire.canonical import decode
from wire.durable import flush, put_in_place
from wire.errors import DecodeError, Refused, Unavailable, VerificationError

FILE = "vault.sqlite"
BLOBS = "blobs"

_ATTEMPTS = 20
_MARK_AT, _HEAD = 68, 72
"""Where SQLite's header has the application's number, and where that ends."""
_TABLES = tables.SCHEMA.tables.sorted_tables
_WRAPPED = {table.name for table in _TABLES if "epoch" in table.c} | {"records"}  # that one in files of version 1


class Copied(NamedTuple):
    """What a backup holds. length: of its blobs, in bytes."""

    epochs: tuple[int, ...]
    blobs: int
    length: int


def back_up(opened: Opened, streams: Streams, blobs: Blobs, folder: Path) -> Copied:
    """Write a backup to `folder`, which must not be there: whole or not at all, for its owner alone.

    Raises Refused (there is something), Unavailable (disk; rotations without end), DecodeError (damaged).
    """
    if folder.exists():
        raise Refused("privacy.store_exists", path=str(folder))
    part = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(mode=0o700, parents=True)
        with streams.kept():
            for _ in range(_ATTEMPTS):
                before = opened.provider.epochs()
                _copy_tables(opened, part / FILE)
                if opened.provider.epochs() == before:
                    break
                (part / FILE).unlink()
            else:
                raise Unavailable("privacy.backup_rotating", retry_after=60)
            opened.fault("backup:tables")
            count, length = _copy_blobs(_named(part / FILE), blobs, Blobs(part / BLOBS))
        epochs = _epochs(part / FILE)
        opened.fault("backup:blobs")
        flush(part)
        put_in_place(part, folder)
    except OSError as error:
        raise Unavailable("privacy.store_failed", path=str(folder), reason=error.strerror or "I/O") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Copied(epochs, count, length)


def check_backup(folder: Path, provider: KeyProvider) -> None:
    """Check that a backup is one, of a version that is known here, and that its epochs are there.

    Raises DecodeError (none, or damaged), Refused (newer; an epoch was destroyed since: what was erased stays erased).
    """
    version = _version(folder / FILE)
    if version > tables.VERSION:
        raise Refused("privacy.store_newer", path=str(folder / FILE), version=version, known=tables.VERSION)
    gone = sorted(set(_epochs(folder / FILE)) - set(provider.epochs()))
    if gone:
        raise Refused("privacy.backup_epoch_gone", path=str(folder), epoch=gone[0])


def put_back(
    backup: Path, path: Path, provider: KeyProvider, *, database: str = "", blobs: FileSystem | None = None
) -> bool:
    """Make the vault in folder `path` of a backup; open it with `Vault.open`, which applies the register of erasures.

    database, blobs: as in `Vault.create`, whatever the backed-up vault had. Returns whether the store of blobs was
    nobody's before. Raises as `check_backup`, and Refused where there is a vault already.
    """
    check_backup(backup, provider)
    if database and _version(backup / FILE) < tables.VERSION:
        version = _version(backup / FILE)
        raise Refused("privacy.backup_older", path=str(backup / FILE), version=version, known=tables.VERSION)
    if not database and (path / FILE).exists():
        raise Refused("privacy.store_exists", path=str(path / FILE))
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    there = Blobs(path / BLOBS, blobs)
    claimed = there.claim(_vault_id(backup / FILE))
    try:
        _copy_blobs(_named(backup / FILE), Blobs(backup / BLOBS), there)
        if not database:
            sqlite_file.copy(backup / FILE, path / FILE, tables.FILE)
        else:
            _put_tables(backup / FILE, database)
    except BaseException:
        if claimed:
            with suppress(Unavailable):
                there.let_go()
        raise
    return claimed


def _put_tables(copy_file: Path, database: str) -> None:
    """A copy's tables into an empty database on a server, in one transaction."""
    target = Database.at(database, tables.SCHEMA, alone=True)
    try:
        with _reading(copy_file) as copy, target.transaction() as connection:
            if connection.execute(sa.select(tables.vault.c.one)).first():
                raise Refused("privacy.store_exists", path=target.place)
            if target.path is None:
                connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
            for table in _TABLES:
                columns = ", ".join(f'"{column.name}"' for column in table.c)
                bulk.insert(connection, table, copy.execute(f"SELECT {columns} FROM {table.name}"))
    finally:
        target.close()


def take_away(database: str, blobs: FileSystem | None = None) -> None:
    """Empty the tables on PostgreSQL of a vault that was made or put back by a call that could not finish.

    database: its URL (secret); "" for SQLite, whose folder goes as a whole. Raises as `Database.at`.
    """
    if blobs is not None:
        Blobs(Path(), blobs).let_go()
    if database:
        store = Database.at(database, tables.SCHEMA, alone=True)
        try:
            with store.transaction() as connection:
                for table in _TABLES:
                    connection.execute(table.delete())
        finally:
            store.close()


def copy_holds(path: Path, keys: Sequence[bytes], epochs: Sequence[int]) -> bool:
    """Whether a file is a copy of a vault's tables that has one of these data keys, under one of these epochs; one of
    version 1, whose keys had other names, where it has any key under them. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head[:16] != b"SQLite format 3\0" or head[_MARK_AT:] != tables.FILE.to_bytes(4, "big"):
        return False
    alive = ",".join(str(int(epoch)) for epoch in epochs)
    try:
        with _reading(path) as copy:
            found = _tables_of(copy)
            if "records" in found:
                return bool(copy.execute(f"SELECT 1 FROM records WHERE epoch IN ({alive}) LIMIT 1").fetchone())
            for name in sorted(found & {"keys", "streams"}):
                statement = f"SELECT 1 FROM {name} WHERE key = ? AND epoch IN ({alive})"
                if any(copy.execute(statement, (key,)).fetchone() for key in keys):
                    return True
            return False
    except DecodeError:
        return True  # damaged: what is in it is not known


def _copy_tables(opened: Opened, path: Path) -> None:
    if opened.database.path is not None:
        opened.database.backup(path)
        return
    scratch = path.with_name(path.name + ".scratch")
    copy = Database.at(f"sqlite:///{scratch.absolute()}", tables.SCHEMA)
    try:
        with opened.database.reading() as old, copy.transaction() as new:
            for table in _TABLES:
                for some in bulk.stream(old, sa.select(table)):
                    bulk.insert(new, table, some)
        copy.backup(path)
    finally:
        copy.close()
        for ending in ("", "-wal", "-shm"):
            scratch.with_name(scratch.name + ending).unlink(missing_ok=True)


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A copy's file, which nobody writes: not even its journal. Raises DecodeError."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as copy:
            yield copy
    except (sqlite3.Error, TypeError, ValueError, AttributeError, OverflowError):  # cells of other kinds
        raise DecodeError("privacy.store_damaged", path=str(path)) from None


def _version(path: Path) -> int:
    """The version of a copy's tables, in whichever of the two places that say it is newer."""
    with _reading(path) as copy:
        (application,) = copy.execute("PRAGMA application_id").fetchone()
        if application != tables.FILE or copy.execute("PRAGMA quick_check").fetchall() != [("ok",)]:
            raise DecodeError("privacy.store_damaged", path=str(path))
        (version,) = copy.execute("PRAGMA user_version").fetchone()
        if _tables_of(copy) >= {"medveil_data"}:
            version = max(version, *copy.execute("SELECT version FROM medveil_data").fetchone())
        return int(version)


def _tables_of(copy: sqlite3.Connection) -> set[str]:
    return {name for (name,) in copy.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}


def _named(path: Path) -> list[bytes]:
    """The blobs that a copy names."""
    with _reading(path) as copy:
        if "streams" not in _tables_of(copy):  # of version 1
            return []
        found = [blob for (blob,) in copy.execute("SELECT blob FROM streams")]
        if any(not isinstance(blob, bytes) or len(blob) != NAME_BYTES for blob in found):
            raise TypeError
        return found


def _vault_id(path: Path) -> bytes:
    """Which vault a copy is of. Raises DecodeError."""
    with _reading(path) as copy:
        found = copy.execute("SELECT header FROM vault").fetchall()
    if len(found) != 1 or not isinstance(found[0][0], bytes):
        raise DecodeError("privacy.store_damaged", path=str(path))
    return decode(VaultHeader, found[0][0]).vault


def _epochs(path: Path) -> tuple[int, ...]:
    """The epochs that a copy is wrapped under."""
    found: set[int] = set()
    with _reading(path) as copy:
        for name in _tables_of(copy) & _WRAPPED:
            found |= {epoch.__index__() for (epoch,) in copy.execute(f"SELECT DISTINCT epoch FROM {name}")}
    return tuple(sorted(found))


def _copy_blobs(names: list[bytes], source: Blobs, target: Blobs) -> tuple[int, int]:
    length = 0
    for blob in names:
        file = source.read(blob)
        if file is None:
            raise VerificationError("privacy.vault_document", kind="-")
        with file:
            length += target.write(blob, _pieces(file)) if not _is_there(blob, source, target) else _length(file)
    return len(names), length


def _is_there(blob: bytes, source: Blobs, target: Blobs) -> bool:
    """Whether the target has this blob already, whole: then it may be in use there, and is neither written over nor
    removed where the call fails."""
    mine, other = source.read(blob), target.read(blob)
    if mine is None or other is None:
        return False
    with mine, other:
        return _digest(mine) == _digest(other)


def _digest(file: BlobSource) -> bytes:
    found = sha256()
    for piece in _pieces(file):
        found.update(piece)
    return found.digest()


def _length(file: BlobSource) -> int:
    return sum(map(len, _pieces(file)))


def _pieces(file: Any) -> Iterator[bytes]:
    while piece := file.read(16 * CHUNK):
        yield piece
