"""From version 1 of the vault's file to the present one.

Version 1 had one key for each record id and no person apart from it; its rows were bound to their place in another way.
Rows are decrypted and encrypted again under the same data keys, so that the salts of what was committed to stay what
they are; documents are taken over as they stand. The new file is made beside the old one and takes its place whole. A
copy of the old one stays as ``vault.sqlite.version-1``, until a rotation makes it unreadable, or an erasure
must not leave it: both remove it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from filelock import FileLock, Timeout

from privacy.keys import KeyProvider
from privacy.store import Database, bulk, sqlite_file
from privacy.suites import AES_256_GCM, unseal
from privacy.vault import tables
from privacy.vault.data_keys import Loads
from privacy.vault.descriptions import DatasetInfo, Descriptions
from privacy.vault.opened import Opened, blob, number
from privacy.vault.parts import Owners, seal_part
from privacy.vault.places import Place, VaultHeader
from privacy.vault.rows import TYPES, StoredColumn, unpad
from wire.canonical import Wire, decode, encode
from wire.domains import DATA_KEY, SCHEMA, digest, keyed
from wire.durable import flush, put_in_place
from wire.errors import DecodeError, MedveilError, Refused, Unavailable, VerificationError

_COPY = ".version-1"
_PIECE = 1 << 20


class _Column(Wire, frozen=True, tag="privacy.stored_column"):
    name: str
    kind: str


class _Info(Wire, frozen=True, tag="privacy.dataset_info"):
    name: str
    version: int
    rows: int
    columns: tuple[_Column, ...]
    schema_hash: bytes
    has_record_ids: bool


def migrate(path: Path, provider: KeyProvider, organisation: str, rand: Callable[[int], bytes]) -> None:
    """Bring the vault's file to the present version, if it has version 1; whole or not at all.

    Raises as `Vault.open`; VerificationError where a row cannot be decrypted, and then nothing was changed.
    """
    if _version(path) != 1:
        return
    held = FileLock(f"{path}.held", mode=0o600, thread_local=False)
    try:
        held.acquire(timeout=0)
    except Timeout:
        raise Unavailable("database.in_use", place=str(path), retry_after=5) from None
    try:
        if _version(path) == 1:
            _migrate(path, provider, organisation, rand)
    except (sqlite3.Error, UnicodeDecodeError, TypeError, ValueError, OverflowError):  # cells of other kinds
        raise DecodeError("database.damaged", place=str(path)) from None
    finally:
        held.release()


def remove_copy(path: Path) -> None:
    """Overwrite and delete the copy that `migrate` kept. Raises Unavailable."""
    copy = path.with_name(path.name + _COPY)
    try:
        with copy.open("r+b") as file:
            left = file.seek(0, os.SEEK_END)
            file.seek(0)
            while left > 0:
                left -= file.write(bytes(min(left, _PIECE)))
            file.flush()
            os.fsync(file.fileno())
        copy.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise Unavailable("privacy.store_failed", path=str(copy), reason=error.strerror or "I/O") from None


def _version(path: Path) -> int:
    """Of a vault's file; 0 where it is something else."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            (application,) = db.execute("PRAGMA application_id").fetchone()
            (version,) = db.execute("PRAGMA user_version").fetchone()
    except (sqlite3.Error, UnicodeDecodeError):
        return 0  # whoever opens it says what is wrong
    return int(version) if application == tables.FILE else 0


def _migrate(path: Path, provider: KeyProvider, organisation: str, rand: Callable[[int], bytes]) -> None:
    new = path.with_name(path.name + ".migrating")
    for ending in ("", "-wal", "-shm", ".held"):
        new.with_name(new.name + ending).unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as old:
        database = Database.at(f"sqlite:///{new.absolute()}", tables.SCHEMA)
        try:
            _Older(old, path, provider, organisation).write(database, rand)
        finally:
            database.close()
    sqlite_file.copy(path, path.with_name(path.name + _COPY), tables.FILE, replace=True)
    with contextlib.closing(sqlite3.connect(path, timeout=1)) as old:
        old.execute("PRAGMA journal_mode=DELETE")  # its journal must not be left beside the new file
    flush(new)
    put_in_place(new, path)


class _Older:
    """A file of version 1."""

    def __init__(self, db: sqlite3.Connection, path: Path, provider: KeyProvider, organisation: str) -> None:
        self._db, self._provider = db, provider
        found = db.execute("SELECT header, epoch, wrapped FROM vault").fetchall()
        if len(found) != 1:
            raise DecodeError("privacy.store_damaged", path=str(path))
        header, self._epoch, self._wrapped = found[0]
        self._header = decode(VaultHeader, blob(header))
        if self._header.organisation != organisation:
            raise VerificationError("privacy.vault_of_other", path=str(path), organisation=organisation)
        try:
            place = self._place("index key", "")
            self._index_key = provider.unwrap(number(self._epoch), blob(self._wrapped), encode(place))
        except (VerificationError, Refused):
            raise VerificationError("privacy.vault_keys", path=str(path)) from None

    def write(self, database: Database, rand: Callable[[int], bytes]) -> None:
        """All of it into an empty file of the present version."""
        header = VaultHeader(tables.VERSION, self._header.vault, self._header.organisation)
        opened = Opened(database, self._provider, header, self._index_key, rand, lambda: 0, lambda _place: None)
        with database.transaction() as connection:
            bulk.insert(connection, tables.vault, [(1, encode(header), self._epoch, self._wrapped)])
            documents = self._db.execute("SELECT kind, document, version, epoch, wrapped, sealed FROM documents")
            bulk.insert(connection, tables.documents, documents)
        names = [name for (name,) in self._db.execute("SELECT name FROM datasets ORDER BY name")]
        for at, name in enumerate(names, start=1):
            with self._provider.batch(f"migrate {name}", 1 + self._count(name)):
                self._dataset(opened, name, at)

    def _count(self, dataset: str) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM records WHERE dataset = ?", (dataset,)).fetchone()
        return int(count)

    def _dataset(self, opened: Opened, dataset: str, at: int) -> None:
        before = self._info(dataset)
        columns = tuple(StoredColumn(column.name, column.kind) for column in before.columns)
        first = tables.numbered(at)[0]
        info = DatasetInfo(dataset, before.version, 0, columns, before.schema_hash, before.has_record_ids)
        info = msgspec.structs.replace(info, number=at, next_row=first)
        names, rows, masters = self._rows(before)
        cells = list(zip(*rows, strict=True)) or [()] * len(columns)
        arrays = [_array(column.kind, values) for column, values in zip(columns, cells, strict=True)]
        keys: list[Any] = []
        if rows:
            batch = pa.RecordBatch.from_arrays(arrays, names=[column.name for column in columns])
            place = Loads(opened, info).of(info.version)
            owners = Owners(record_ids=names if before.has_record_ids else None)
            keys, sealed, _ = seal_part(opened, info, place, batch, owners, (first, 0), 0, masters)
        count = len(rows)
        info = msgspec.structs.replace(info, rows=count, keys=len(keys), next_row=first + count, positions=count)
        with opened.database.transaction() as connection:
            if rows:
                bulk.insert(connection, tables.keys, keys)
                bulk.insert(connection, tables.rows, sealed)
            Descriptions(opened).put(connection, info)
            bulk.insert(connection, tables.numbers, [(at, tables.IN_USE)])

    def _info(self, dataset: str) -> _Info:
        select = "SELECT version, epoch, wrapped, sealed FROM datasets WHERE name = ?"
        version, epoch, wrapped, sealed = self._db.execute(select, (dataset,)).fetchone()
        try:
            place = encode(self._place("dataset key", dataset))
            key = keyed(self._provider.unwrap(number(epoch), blob(wrapped), place), DATA_KEY)
            place = encode(self._place("dataset", dataset, version=number(version)))
            return decode(_Info, unseal(AESGCM(key), blob(sealed), place))
        except (InvalidTag, MedveilError):
            raise VerificationError("privacy.vault_dataset", dataset=dataset) from None

    def _rows(self, info: _Info) -> tuple[list[str], list[list[Any]], list[bytes]]:
        """Record ids, cells and data keys (secret) of all rows in order."""
        texts = (text.encode() for column in info.columns for text in (column.name, column.kind))
        bound = digest(SCHEMA, digest(SCHEMA, *texts), info.schema_hash)
        select = """SELECT position, rows.record, sealed, records.rows, epoch, wrapped FROM rows LEFT JOIN records
            ON records.dataset = rows.dataset AND records.record = rows.record WHERE rows.dataset = ?
            ORDER BY position"""
        names, rows, masters = [], [], []
        known: dict[bytes, bytes] = {}
        position = 0
        for expected, (position, record, sealed, count, epoch, wrapped) in enumerate(
            self._db.execute(select, (info.name,))
        ):
            try:
                if position != expected:
                    raise InvalidTag
                master = known.get(record)
                if master is None:
                    place = self._place("record key", info.name, item=blob(record), position=number(count))
                    master = self._provider.unwrap(number(epoch), blob(wrapped), encode(place))
                    known[record] = master
                place = self._place("row", info.name, bound, info.version, record, position)
                plain = unseal(AESGCM(keyed(master, DATA_KEY)), blob(sealed), encode(place))
                name, *cells = msgspec.msgpack.decode(unpad(plain), type=list[Any])
            except (InvalidTag, MedveilError, msgspec.MsgspecError):
                raise VerificationError("privacy.vault_row", dataset=info.name, position=expected) from None
            names.append(name)
            rows.append(cells)
            masters.append(master)
        if len(rows) != info.rows:
            raise VerificationError("privacy.vault_row", dataset=info.name, position=len(rows))
        return names, rows, masters

    def _place(
        self, what: str, name: str, bound: bytes = b"", version: int = 0, item: bytes = b"", position: int = 0
    ) -> Place:
        header = self._header
        return Place(AES_256_GCM, header.vault, header.organisation, what, name, bound, version, item, position)


def _array(kind: str, values: Any) -> pa.Array:
    arrow = TYPES[kind]
    return pa.array(values, pa.int32()).cast(arrow) if pa.types.is_date32(arrow) else pa.array(values, arrow)
