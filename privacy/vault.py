"""The vault: an organisation's records and private documents, encrypted at home.

A folder with one SQLite file. Every record id has a key of its own (rows of one person share it,
so that erasing one key erases the person), wrapped under the provider's current epoch:

    K_record      random, wrapped by the provider
    row           AES-256-GCM(KDF(K_record, "data"), padded msgpack of the cells; place)
    salt key      KDF(K_record, "salt"): for commitments; dies with the record's key
    record key id HMAC(index key, dataset, record id)[:16]: the file shows no record id

The place (associated data) binds suite, vault, organisation, dataset, schema hash, dataset version,
keyed record id and row position: a row that was changed, moved, copied from elsewhere or left out
raises VerificationError; it never reads as another value. Rows are padded to the longest of their
dataset (up to 4 KiB), so that lengths tell nothing about values. What a thief of the file sees:
names of datasets, counts, which rows share a person, sizes of documents rounded up to 256 bytes.

Not caught: an older copy put in place, of the whole folder, or of all rows of one dataset, or of one
document: it is consistent in itself. Nor a dataset or document that was removed whole: it is not there.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import msgspec
import pyarrow as pa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from privacy.keys import NONCE_BYTES, KeyProvider
from privacy.rows import TYPES, StoredColumn, decode_rows, encode_rows, pad, unpad
from privacy.store import Store
from wire.canonical import Wire, decode, encode
from wire.domains import DATA_KEY, SALT, SCHEMA, VAULT_INDEX, digest, keyed
from wire.errors import DecodeError, Refused, VerificationError
from wire.identifiers import Name, check_name

AES_256_GCM = 1
"""Suite of everything in the vault. 2 is reserved for SM4-GCM."""

APPLICATION = b"mvlt"
VERSION = 1

_SCHEMA = """
CREATE TABLE vault (one INTEGER PRIMARY KEY CHECK (one = 1), header BLOB, epoch INTEGER, wrapped BLOB) STRICT;
CREATE TABLE datasets (name TEXT PRIMARY KEY, version INTEGER, epoch INTEGER, wrapped BLOB, sealed BLOB) STRICT;
CREATE TABLE records (dataset TEXT, record BLOB, rows INTEGER, epoch INTEGER, wrapped BLOB,
    PRIMARY KEY (dataset, record)) STRICT, WITHOUT ROWID;
CREATE TABLE rows (dataset TEXT, position INTEGER, record BLOB, sealed BLOB,
    PRIMARY KEY (dataset, position)) STRICT, WITHOUT ROWID;
CREATE INDEX rows_by_record ON rows (dataset, record);
CREATE TABLE documents (kind TEXT, document BLOB, version INTEGER, epoch INTEGER, wrapped BLOB, sealed BLOB,
    PRIMARY KEY (kind, document)) STRICT, WITHOUT ROWID
"""

# A row whose key is missing comes out with nulls: altered, not absent.
_SELECT_ROWS = """
SELECT position, rows.record, sealed, records.rows, epoch, wrapped FROM rows LEFT JOIN records
    ON records.dataset = rows.dataset AND records.record = rows.record"""

_RECORD_BYTES = 16
_DOCUMENT_STEP = 256


class VaultHeader(Wire, frozen=True, tag="privacy.vault_header"):
    """Whose vault this is. vault: its random 16-byte id."""

    version: int
    vault: bytes
    organisation: Name


class Place(Wire, frozen=True, tag="privacy.place"):
    """Associated data of everything encrypted here: what it is and where it belongs."""

    suite: int
    vault: bytes
    organisation: str
    what: str
    name: str
    schema_hash: bytes
    version: int
    record: bytes
    position: int


class DatasetInfo(Wire, frozen=True, tag="privacy.dataset_info"):
    """A dataset in the vault. rows: exact, private; version: how often it was loaded."""

    name: Name
    version: Annotated[int, msgspec.Meta(ge=1)]
    rows: Annotated[int, msgspec.Meta(ge=0)]
    columns: tuple[StoredColumn, ...]
    schema_hash: bytes
    has_record_ids: bool


class Vault:
    """An open vault. Make it with `create` or `open`; close it, or use it as a context manager.

    One process at a time (Unavailable otherwise); its threads may share it.
    """

    def __init__(self, path: Path, provider: KeyProvider, organisation: str, rand: Callable[[int], bytes]) -> None:
        self.path = path
        self.organisation = check_name(organisation, "organisation")
        self._provider = provider
        self._rand = rand
        self._store: Store
        self._header: VaultHeader
        self._index_key: bytes
        self._revisions: Counter[str] = Counter()

    @classmethod
    def create(
        cls,
        path: Path,
        provider: KeyProvider,
        organisation: str,
        *,
        rand: Callable[[int], bytes] = secrets.token_bytes,
    ) -> Vault:
        """Make the vault in folder `path`. Raises Refused where there is one already."""
        vault = cls(path, provider, organisation, rand)
        vault._store = Store(path / "vault.sqlite", APPLICATION, _SCHEMA, VERSION, create=None)
        try:
            if vault._store.rows("SELECT 1 FROM vault"):  # a file without it is an interrupted creation
                raise Refused("privacy.store_exists", path=str(vault._store.path))
            vault._header = VaultHeader(VERSION, rand(16), organisation)
            vault._index_key = rand(32)
            epoch = provider.epochs()[-1]
            wrapped = provider.wrap(epoch, vault._index_key, vault._index_place())
            with vault._store.transaction() as database:
                database.execute("INSERT INTO vault VALUES (1, ?, ?, ?)", (encode(vault._header), epoch, wrapped))
        except BaseException:
            vault.close()
            raise
        return vault

    @classmethod
    def open(
        cls,
        path: Path,
        provider: KeyProvider,
        organisation: str,
        *,
        rand: Callable[[int], bytes] = secrets.token_bytes,
    ) -> Vault:
        """Open the vault in folder `path`.

        Raises Unavailable (not there, in use), VerificationError (another organisation's, or another
        provider's keys), DecodeError (damaged), Refused (of a newer medveil).
        """
        vault = cls(path, provider, organisation, rand)
        vault._store = Store(path / "vault.sqlite", APPLICATION, _SCHEMA, VERSION, create=False)
        try:
            found = vault._store.rows("SELECT header, epoch, wrapped FROM vault")
            if len(found) != 1:
                raise DecodeError("privacy.store_damaged", path=str(vault._store.path))
            header, epoch, wrapped = found[0]
            vault._header = decode(VaultHeader, _blob(header))
            if vault._header.organisation != organisation:
                raise VerificationError("privacy.vault_of_other", path=str(path), organisation=organisation)
            try:
                vault._index_key = provider.unwrap(_number(epoch), _blob(wrapped), vault._index_place())
            except (VerificationError, Refused):
                raise VerificationError("privacy.vault_keys", path=str(path)) from None
        except BaseException:
            vault.close()
            raise
        return vault

    def close(self) -> None:
        """Close the file and let others open it."""
        self._store.close()

    def __enter__(self) -> Vault:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- datasets

    def ingest(
        self,
        dataset: str,
        table: pa.Table,
        record_ids: Sequence[str] | None = None,
        *,
        schema_hash: bytes = b"",
        replace: bool = False,
    ) -> DatasetInfo:
        """Encrypt `table` (secret) into the vault, all of it or nothing.

        record_ids: one text per row, naming the person or item; equal ids share a key. None: each row
        is its own record. schema_hash: of the declaration the table was checked against, bound to
        every row. replace: load over an existing dataset of that name (its rows and keys are
        overwritten); otherwise Refused. Raises Refused for a column type that the vault does not keep.
        """
        check_name(dataset, "dataset")
        if record_ids is not None and len(record_ids) != table.num_rows:
            raise ValueError("one record id per row")
        columns = tuple(StoredColumn(field.name, str(field.type)) for field in table.schema)
        if len({column.name for column in columns}) != len(columns):
            raise Refused("privacy.column_twice", dataset=dataset)
        for column in columns:
            if column.kind not in TYPES:
                raise Refused("privacy.column_type", dataset=dataset, column=column.name, kind=column.kind)
        bound = digest(SCHEMA, *(text.encode() for column in columns for text in (column.name, column.kind)))
        bound = digest(SCHEMA, bound, schema_hash)
        plaintexts = encode_rows(table, record_ids)
        with self._store.transaction() as database:
            before = database.execute("SELECT version FROM datasets WHERE name = ?", (dataset,)).fetchone()
            if before is not None and not replace:
                raise Refused("privacy.dataset_exists", dataset=dataset)
            version = 1 if before is None else _number(before[0]) + 1
            for stale in ("rows", "records"):
                database.execute(f"DELETE FROM {stale} WHERE dataset = ?", (dataset,))
            info = DatasetInfo(dataset, version, table.num_rows, columns, schema_hash, record_ids is not None)
            epoch = self._provider.epochs()[-1]
            master, wrapped = self._new_key(epoch, "dataset key", dataset, b"")
            sealed = self._seal(master, encode(info), self._place("dataset", dataset, b"", version))
            database.execute(
                "INSERT OR REPLACE INTO datasets VALUES (?, ?, ?, ?, ?)", (dataset, version, epoch, wrapped, sealed)
            )
            keys: dict[bytes, AESGCM] = {}
            shared = Counter(record_ids or ())
            names: Iterable[str | None] = repeat(None) if record_ids is None else record_ids
            rows = []
            wraps = []
            for position, (name, plaintext) in enumerate(zip(names, plaintexts, strict=False)):
                record = self._rand(_RECORD_BYTES) if name is None else self._keyed_id(dataset, name)
                key = keys.get(record)
                if key is None:
                    number = 1 if name is None else shared[name]
                    master, wrapped = self._new_key(epoch, "record key", dataset, record, number)
                    key = AESGCM(keyed(master, DATA_KEY))
                    wraps.append((dataset, record, number, epoch, wrapped))
                    if name is not None:
                        keys[record] = key
                nonce = self._rand(NONCE_BYTES)
                place = encode(self._place("row", dataset, bound, version, record, position))
                rows.append((dataset, position, record, nonce + key.encrypt(nonce, plaintext, place)))
            database.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?)", wraps)
            database.executemany("INSERT INTO rows VALUES (?, ?, ?, ?)", rows)
        self._store.cut_log()
        return info

    def datasets(self) -> tuple[DatasetInfo, ...]:
        """What is in the vault, by name."""
        names = self._store.rows("SELECT name FROM datasets ORDER BY name")
        return tuple(self.info(name) for (name,) in names)

    def info(self, dataset: str) -> DatasetInfo:
        """One dataset's description. Raises Refused (no such dataset), VerificationError (altered)."""
        found = self._store.rows("SELECT version, epoch, wrapped, sealed FROM datasets WHERE name = ?", dataset)
        if not found:
            raise Refused("privacy.no_dataset", dataset=dataset)
        version, epoch, wrapped, sealed = found[0]
        try:
            master = self._provider.unwrap(
                _number(epoch), _blob(wrapped), encode(self._place("dataset key", dataset, b"", 0))
            )
            plaintext = self._unseal(master, _blob(sealed), self._place("dataset", dataset, b"", _number(version)))
        except (InvalidTag, VerificationError):
            raise VerificationError("privacy.vault_dataset", dataset=dataset) from None
        return decode(DatasetInfo, plaintext)

    def count(self, dataset: str) -> int:
        """Exact number of rows: private."""
        return self.info(dataset).rows

    def read(self, dataset: str, record_id_column: str | None = None) -> pa.Table:
        """The table (secret), decrypted in memory, rows in their order, columns and types as loaded.

        record_id_column: append the record ids under this name (null where none were given). Raises
        VerificationError naming the dataset and position of the first row that was altered or is missing.
        """
        info = self.info(dataset)
        found = self._store.rows(
            _SELECT_ROWS + " WHERE rows.dataset = ? ORDER BY position",
            dataset,
        )
        for expected, row in enumerate(found):
            if row[0] != expected:
                raise VerificationError("privacy.vault_row", dataset=dataset, position=expected)
        if len(found) != info.rows:
            raise VerificationError("privacy.vault_row", dataset=dataset, position=min(len(found), info.rows))
        return decode_rows(info.columns, list(self._decrypt_rows(info, found)), record_id_column)

    def record(self, dataset: str, record_id: str) -> pa.Table:
        """The rows (secret) of one record id, in order. Raises Refused where there is none."""
        info = self.info(dataset)
        found = self._store.rows(
            _SELECT_ROWS + " WHERE rows.dataset = ? AND rows.record = ? ORDER BY position",
            dataset,
            self._keyed_id(dataset, record_id),
        )
        if not found:
            raise Refused("privacy.no_record", dataset=dataset)
        if len(found) != found[0][3]:  # the number of rows is bound to the record's key
            raise VerificationError("privacy.vault_row", dataset=dataset, position=found[0][0])
        return decode_rows(info.columns, list(self._decrypt_rows(info, found)), None)

    def salt_key(self, dataset: str, record_id: str) -> bytes:
        """The 32-byte salt key (secret) of a record, for `wire.commitment.salt`."""
        record = self._keyed_id(dataset, record_id)
        found = self._store.rows(
            "SELECT epoch, wrapped, rows FROM records WHERE dataset = ? AND record = ?", dataset, record
        )
        if not found:
            raise Refused("privacy.no_record", dataset=dataset)
        try:
            master = self._unwrap(found[0], "record key", dataset, record)
        except VerificationError:
            raise VerificationError("privacy.vault_dataset", dataset=dataset) from None
        return keyed(master, SALT)

    # ---- documents

    def put_document(self, kind: str, name: str, content: bytes) -> None:
        """Keep a small private file (secret), such as grant terms or a wallet. Replaces an older one.

        The document keeps its key, and so its salt key, when it is replaced.
        """
        check_name(kind, "document kind")
        document = self._keyed_id("document." + kind, name)
        with self._store.transaction() as database:
            found = database.execute(
                "SELECT version, epoch, wrapped FROM documents WHERE kind = ? AND document = ?", (kind, document)
            ).fetchone()
            if found is None:
                version, epoch = 1, self._provider.epochs()[-1]
                master, wrapped = self._new_key(epoch, "document key", kind, document)
            else:
                version, epoch, wrapped = _number(found[0]) + 1, found[1], found[2]
                master = self._document_key(kind, document, epoch, wrapped)
            plaintext = pad(msgspec.msgpack.encode((name, content)), _DOCUMENT_STEP)
            sealed = self._seal(master, plaintext, self._place("document", kind, b"", version, document))
            database.execute(
                "INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?, ?)",
                (kind, document, version, epoch, wrapped, sealed),
            )
        self._revisions[kind] += 1

    def document(self, kind: str, name: str) -> bytes:
        """The document's content (secret). Raises Refused where there is none."""
        document = self._keyed_id("document." + kind, name)
        found = self._store.rows(
            "SELECT document, version, epoch, wrapped, sealed FROM documents WHERE kind = ? AND document = ?",
            kind,
            document,
        )
        if not found:
            raise Refused("privacy.no_document", kind=kind)
        return self._open_document(kind, found[0])[1]

    def documents(self, kind: str) -> tuple[str, ...]:
        """Names of the documents of one kind, sorted."""
        found = self._store.rows("SELECT document, version, epoch, wrapped, sealed FROM documents WHERE kind = ?", kind)
        return tuple(sorted(self._open_document(kind, row)[0] for row in found))

    def revision(self, kind: str) -> int:
        """How often a document of one kind was put here since the vault was opened: the same number, the same
        documents, for nobody else has the file open."""
        return self._revisions[kind]

    def document_salt_key(self, kind: str, name: str) -> bytes:
        """The 32-byte salt key (secret) of a document, for `wire.commitment.salt`."""
        document = self._keyed_id("document." + kind, name)
        found = self._store.rows("SELECT epoch, wrapped FROM documents WHERE kind = ? AND document = ?", kind, document)
        if not found:
            raise Refused("privacy.no_document", kind=kind)
        return keyed(self._document_key(kind, document, *found[0]), SALT)

    # ---- key epochs

    def rotate(self) -> int:
        """Wrap every key under a new epoch and destroy the older ones; returns the new epoch.

        Interrupted, it leaves a readable vault; rotate again to destroy what is left.
        """
        epoch = self._provider.new_epoch()
        with self._store.transaction() as database:
            (before, wrapped) = database.execute("SELECT epoch, wrapped FROM vault").fetchone()
            index_key = self._provider.unwrap(_number(before), _blob(wrapped), self._index_place())
            again = self._provider.wrap(epoch, index_key, self._index_place())
            database.execute("UPDATE vault SET epoch = ?, wrapped = ?", (epoch, again))
            for table, what, name, record, rows in (
                ("datasets", "dataset key", "name", "x''", "0"),
                ("records", "record key", "dataset", "record", "rows"),
                ("documents", "document key", "kind", "document", "0"),
            ):
                found = database.execute(f"SELECT {name}, {record}, {rows}, epoch, wrapped FROM {table}").fetchall()
                again_all = []
                for owner, item, number, *old in found:
                    key = self._unwrap((*old, number), what, owner, item)
                    place = encode(self._place(what, owner, b"", 0, item, number))
                    again_all.append((epoch, self._provider.wrap(epoch, key, place), owner, item))
                where = f"{name} = ? AND {record} = ?"
                database.executemany(f"UPDATE {table} SET epoch = ?, wrapped = ? WHERE {where}", again_all)
        self._store.cut_log()
        for old_epoch in self._provider.epochs():
            if old_epoch != epoch:
                self._provider.destroy(old_epoch)
        return epoch

    # ---- inside

    def _place(
        self, what: str, name: str, schema_hash: bytes, version: int, record: bytes = b"", position: int = 0
    ) -> Place:
        header = self._header
        return Place(AES_256_GCM, header.vault, header.organisation, what, name, schema_hash, version, record, position)

    def _index_place(self) -> bytes:
        return encode(self._place("index key", "", b"", 0))

    def _keyed_id(self, dataset: str, record_id: str) -> bytes:
        return keyed(self._index_key, VAULT_INDEX, dataset.encode(), record_id.encode())[:_RECORD_BYTES]

    def _new_key(self, epoch: int, what: str, name: str, record: bytes, rows: int = 0) -> tuple[bytes, bytes]:
        master = self._rand(32)
        return master, self._provider.wrap(epoch, master, encode(self._place(what, name, b"", 0, record, rows)))

    def _unwrap(self, found: Sequence[Any], what: str, name: str, record: bytes) -> bytes:
        epoch, wrapped, rows = found
        place = self._place(what, name, b"", 0, _blob(record), _number(rows))
        return self._provider.unwrap(_number(epoch), _blob(wrapped), encode(place))

    def _document_key(self, kind: str, document: bytes, epoch: Any, wrapped: Any) -> bytes:
        try:
            return self._unwrap((epoch, wrapped, 0), "document key", kind, document)
        except VerificationError:
            raise VerificationError("privacy.vault_document", kind=kind) from None

    def _open_document(self, kind: str, row: Sequence[Any]) -> tuple[str, bytes]:
        document, version, epoch, wrapped, sealed = row
        master = self._document_key(kind, _blob(document), epoch, wrapped)
        place = self._place("document", kind, b"", _number(version), _blob(document))
        try:
            plaintext = self._unseal(master, _blob(sealed), place)
        except InvalidTag:
            raise VerificationError("privacy.vault_document", kind=kind) from None
        name, content = msgspec.msgpack.decode(unpad(plaintext), type=tuple[str, bytes])
        return name, content

    def _seal(self, master: bytes, plaintext: bytes, place: Place) -> bytes:
        nonce = self._rand(NONCE_BYTES)
        return nonce + AESGCM(keyed(master, DATA_KEY)).encrypt(nonce, plaintext, encode(place))

    def _unseal(self, master: bytes, sealed: bytes, place: Place) -> bytes:
        return _decrypt(AESGCM(keyed(master, DATA_KEY)), sealed, encode(place))

    def _decrypt_rows(self, info: DatasetInfo, found: list[Any]) -> Iterator[bytes]:
        bound = digest(SCHEMA, *(text.encode() for column in info.columns for text in (column.name, column.kind)))
        bound = digest(SCHEMA, bound, info.schema_hash)
        keys: dict[bytes, AESGCM] = {}
        for position, record, sealed, rows, epoch, wrapped in found:
            try:
                key = keys.get(record) if info.has_record_ids else None
                if key is None:
                    master = self._unwrap((epoch, wrapped, rows), "record key", info.name, record)
                    key = AESGCM(keyed(master, DATA_KEY))
                    if info.has_record_ids:
                        keys[record] = key
                place = encode(self._place("row", info.name, bound, info.version, record, position))
                yield unpad(_decrypt(key, _blob(sealed), place))
            except (InvalidTag, VerificationError, DecodeError):
                raise VerificationError("privacy.vault_row", dataset=info.name, position=position) from None


def _decrypt(key: AESGCM, sealed: bytes, place: bytes) -> bytes:
    if len(sealed) < NONCE_BYTES + 16:
        raise InvalidTag
    return key.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place)


def _blob(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise VerificationError("privacy.vault_cell")
    return value


def _number(value: Any) -> int:
    if not isinstance(value, int):
        raise VerificationError("privacy.vault_cell")
    return value
