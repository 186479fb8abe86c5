"""The vault: an organisation's records and private documents, encrypted at home.

On SQLite in a folder, or on PostgreSQL. The rows of one person that came in one load and are kept equally long share a
data key; destroying a person's keys erases the person (`privacy.vault.data_keys`):

    K             random, wrapped by the provider under the current epoch
    row           AES-256-GCM(BLAKE2b(K, "data"), padded msgpack of the cells; place)     or SM4-GCM, for some columns
    salt key      HMAC(K, "salt"): for commitments; dies with K
    person        BLAKE2b(index key, the one spelling of the identifier): 16 bytes, the same in all datasets of this
                  vault, and in no other

The place (`privacy.vault.places`) binds suite, vault, organisation, dataset, columns and schema hash, load, person,
record and position: a row that was changed, moved, copied from elsewhere or left out raises VerificationError; it never
reads as another value. Rows are padded to the longest of their dataset (up to 4 KiB): lengths tell nothing of values.
What a thief of the database sees: names of datasets, counts, which rows share a person, in all datasets; until
when they must be kept; sizes of documents rounded up to 256 bytes.

Not caught: an older copy put in place, of the whole database, or of all of one dataset, or of one document: it is
consistent in itself. Nor a dataset or document that was removed whole: it is not there.
"""

from __future__ import annotations

import io
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import pyarrow as pa
import sqlalchemy as sa
from pyarrow.fs import FileSystem

from privacy.keys import KEY_BYTES, KeyProvider
from privacy.legal_holds import all_holds
from privacy.store import Database
from privacy.suites import AES_256_GCM
from privacy.vault import backup, migration, rotation, tables
from privacy.vault.awaited import Awaited
from privacy.vault.backup import BLOBS, FILE
from privacy.vault.blobs import Blobs
from privacy.vault.data_keys import DataKey, DataKeys
from privacy.vault.descriptions import DatasetInfo, Descriptions
from privacy.vault.documents import Documents
from privacy.vault.loading import Loading, Source
from privacy.vault.opened import Opened, blob, current_epoch, number
from privacy.vault.parts import Owners
from privacy.vault.person_notes import PersonNotes
from privacy.vault.places import ID_BYTES, ONE_NAME, VaultHeader
from privacy.vault.reading import Reading
from privacy.vault.register import Erasure, Register
from privacy.vault.respelling import Respelling, look_again, rename_holds
from privacy.vault.safeguards import Safeguards
from privacy.vault.sealed_stream import Readable
from privacy.vault.streams import StreamInfo, Streams
from wire.canonical import decode, encode
from wire.errors import DecodeError, Refused, Unavailable, VerificationError
from wire.identifiers import check_name

REGISTER = "erased"
"""The register's file, beside the vault's folder, unless another is named; the log of safeguards lies beside it."""

_READER_PATIENCE = 5.0
"""Seconds that a reader waits for the writer to finish an erasure that the register names."""


def _now() -> int:
    return time.time_ns() // 1_000_000


def _no_fault(_place: str) -> None: ...


class Vault:
    """An open vault. Make it with `create`, `open` or `reader`; close it, or use it as a context manager.

    One process at a time writes (Unavailable otherwise), others may read meanwhile; threads may share it.
    """

    def __init__(self, path: Path, opened: Opened, register: Register, blobs: FileSystem | None) -> None:
        self.path = path
        self.organisation = opened.header.organisation
        self.register = register
        self._opened = opened
        self._descriptions = Descriptions(opened)
        self._documents = Documents(opened)
        self._blobs = Blobs(path / BLOBS, blobs)
        self._streams = Streams(opened, self._blobs)
        self._keys = DataKeys(opened, self._descriptions, register, self._streams)
        self._awaited = Awaited(opened, self._documents, lambda: rename_holds(self, opened.renamed))
        self._loading = Loading(opened, self._descriptions, lambda: all_holds(self), self._awaited.hear)
        self._reading = Reading(opened, self._descriptions)
        self._notes = PersonNotes(opened)
        beside = register.path.parent
        self._safeguards = Safeguards(opened, beside, self._documents, self._notes, self._keys, self._awaited)

    @classmethod
    def create(
        cls,
        path: Path,
        provider: KeyProvider,
        organisation: str,
        *,
        rand: Callable[[int], bytes] = secrets.token_bytes,
        clock: Callable[[], int] = _now,
        database: str = "",
        register: Path | None = None,
        blobs: FileSystem | None = None,
        fault: Callable[[str], None] = _no_fault,
    ) -> Vault:
        """Make the vault in folder `path`.

        database: URL of PostgreSQL (secret: it may hold a password), or "" for SQLite in the folder. register: where
        erasures are noted; it must not be in a backup of the vault. Raises Refused where there is one already,
        Unavailable, and as `privacy.store.Database.at`.
        """
        check_name(organisation, "organisation")
        store = _database(path, database, organisation, fault)
        there, claimed = Blobs(path / BLOBS, blobs), False
        try:
            header = VaultHeader(ONE_NAME, rand(16), organisation)
            claimed = there.claim(header.vault)
            opened = Opened(store, provider, header, rand(KEY_BYTES), rand, clock, fault)
            with store.transaction() as connection:
                if connection.execute(sa.select(tables.vault.c.one)).first():  # without it: an interrupted creation
                    raise Refused("privacy.store_exists", path=store.place)
                epoch = current_epoch(provider)
                wrapped = provider.wrap(epoch, opened.index_key, encode(opened.index_place()))
                row = {"one": 1, "header": encode(header), "epoch": epoch, "wrapped": wrapped}
                connection.execute(tables.vault.insert().values(**row))
            vault = cls(path, opened, Register(register or path.parent / REGISTER, opened.index_key), blobs)
            vault._safeguards.settle()
            return vault
        except BaseException:
            store.close()
            if claimed:
                with suppress(Unavailable):
                    there.let_go()
            raise

    @classmethod
    def open(
        cls,
        path: Path,
        provider: KeyProvider,
        organisation: str,
        *,
        rand: Callable[[int], bytes] = secrets.token_bytes,
        clock: Callable[[], int] = _now,
        database: str = "",
        register: Path | None = None,
        blobs: FileSystem | None = None,
        fault: Callable[[str], None] = _no_fault,
    ) -> Vault:
        """Open the vault that `create` made, to write: what interrupted calls left is put right first, what the
        register of erasures names is gone, and what the log of safeguards has is there.

        A file of version 1 is brought to the present one; a copy stays beside it until the next rotation or erasure.
        Where each spelling of an identifier was a person of its own, they are brought together, once.
        Raises Unavailable (not there, in use, another provider's), VerificationError (another organisation's, altered),
        DecodeError (damaged, of a newer medveil).
        """
        _check_there(path, database)
        if not database:
            migration.migrate(path / FILE, provider, organisation, rand)
        store = _database(path, database, organisation, fault)
        try:
            vault = cls._of(path, store, provider, organisation, rand, clock, register, blobs, fault)
            vault._name_persons()
            if vault._keys.settle():
                migration.remove_copy(path / FILE)
            vault._safeguards.settle()
            with suppress(Unavailable):  # a disk that is full: it is nobody's, and goes before the next load
                vault._loading.clean_up()
        except BaseException:
            store.close()
            raise
        return vault

    @classmethod
    def reader(
        cls,
        path: Path,
        provider: KeyProvider,
        organisation: str,
        *,
        database: str = "",
        register: Path | None = None,
        blobs: FileSystem | None = None,
    ) -> Vault:
        """Open the vault to read, beside a process that writes or none. Raises as `open`; writing raises ValueError."""
        _check_there(path, database)
        store = _database(path, database, organisation, _no_fault, alone=False)
        try:
            rand, until = secrets.token_bytes, time.monotonic() + _READER_PATIENCE
            vault = cls._of(path, store, provider, organisation, rand, _now, register, blobs, _no_fault)
            vault._opened.reads_only = True
            if vault._opened.header.version >= ONE_NAME:  # else they may be noted, and rows not brought together yet
                vault._opened.renamed = vault._awaited.known()
            while vault._keys.pending():
                if time.monotonic() > until:
                    raise Unavailable("privacy.erasure_pending", path=store.place, retry_after=60)
                time.sleep(0.05)
        except BaseException:
            store.close()
            raise
        return vault

    @classmethod
    def _of(
        cls,
        path: Path,
        store: Database,
        provider: KeyProvider,
        organisation: str,
        rand: Callable[[int], bytes],
        clock: Callable[[], int],
        register: Path | None,
        blobs: FileSystem | None,
        fault: Callable[[str], None],
    ) -> Vault:
        with store.reading() as connection:
            found: Any = connection.execute(sa.select(tables.vault)).one_or_none()
        if found is None:
            raise DecodeError("privacy.store_damaged", path=store.place)
        header = decode(VaultHeader, blob(found.header))
        if header.organisation != organisation:
            raise VerificationError("privacy.vault_of_other", path=store.place, organisation=organisation)
        if header.version > ONE_NAME:
            raise DecodeError("database.newer", place=store.place, version=header.version, known=ONE_NAME)
        opened = Opened(store, provider, header, b"", rand, clock, fault)
        try:
            place = encode(opened.index_place())
            opened.index_key = provider.unwrap(number(found.epoch), blob(found.wrapped), place)
        except (VerificationError, Refused):
            if rotation.is_own(opened):
                raise VerificationError("privacy.vault_keys", path=store.place) from None
            raise Unavailable("privacy.provider_other", path=store.place, retry_after=60) from None
        return cls(path, opened, Register(register or path.parent / REGISTER, opened.index_key), blobs)

    def keep_held(self) -> None:
        """See that no other process can write, and hold the tables again where the connection to their server broke.

        To be called every few seconds. Synchronous. Raises Unavailable (``database.in_use``: another process writes).
        """
        self._opened.database.keep_held()

    def close(self) -> None:
        """Close the database and let others open it. Closing twice is harmless."""
        self._opened.database.close()

    def __enter__(self) -> Vault:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def place(self) -> str:
        """Where its tables are: a file, or host, port and name of a database."""
        return self._opened.database.place

    # ---- datasets

    def ingest(
        self,
        dataset: str,
        table: Source,
        record_ids: Sequence[str] | None = None,
        *,
        persons: Sequence[str] | None = None,
        retain_until: Sequence[int | None] | int | None = None,
        schema_hash: bytes = b"",
        suites: Mapping[str, int] | None = None,
        suite: int = AES_256_GCM,
        replace: bool = False,
        append: bool = False,
    ) -> DatasetInfo:
        """Encrypt `table` (secret; a reader of batches for what does not fit into memory) into the vault, all of it or
        nothing.

        record_ids, persons: one text per row. Without `persons` the record ids name the persons; without both each row
        is its own person. retain_until: civil day until which rows must be kept, for all or one per row; None without
        such a duty. schema_hash: of the declaration the table was checked against, bound to every row. suite: of rows;
        suites: of single columns instead (`privacy.suites`). replace: load over an existing dataset of that name: its
        rows and keys are destroyed, and it is refused while a duty or a legal hold keeps any of them. append: add to
        it; columns, suites and schema hash must be the same. Otherwise Refused. Raises Refused for a column type that
        the vault does not keep, and for an unknown suite.
        """
        return self._loading.load(
            dataset,
            table,
            Owners(record_ids, persons, retain_until),
            schema_hash=schema_hash,
            suites=suites or {},
            suite=suite,
            replace=replace,
            append=append,
        )

    def datasets(self) -> tuple[DatasetInfo, ...]:
        """What is in the vault, by name."""
        return self._opened.reading(self._descriptions.all)

    def info(self, dataset: str) -> DatasetInfo:
        """One dataset's description. Raises Refused (no such dataset), VerificationError (altered)."""
        return self._opened.reading(lambda connection: self._descriptions.of(connection, dataset))

    def count(self, dataset: str) -> int:
        """Exact number of rows that may be used: private."""
        return self.info(dataset).active

    def read(
        self,
        dataset: str,
        record_id_column: str | None = None,
        *,
        person_column: str | None = None,
        key_column: str | None = None,
        position_column: str | None = None,
        since: int = 0,
    ) -> pa.Table:
        """The table (secret), decrypted in memory, rows in their order, columns and types as loaded.

        Rows under restricted keys are left out. record_id_column: append the record ids under this name (null where
        none were given); person_column: the keyed person ids, 16 bytes (the data key's id where a row is its own
        person); key_column: the ids of the data keys; position_column: each row's place in the dataset, counted from 0
        over all loads, which no other row of it ever has. since: only loads after this version of the dataset. Raises
        VerificationError naming the dataset and the first row that was altered or is missing.
        """
        return self._reading.table(dataset, (record_id_column, person_column, key_column, position_column), since)

    def record(self, dataset: str, record_id: str) -> pa.Table:
        """The rows (secret) of one record id, in order. Raises Refused where there is none that may be used."""
        return self._reading.record(dataset, record_id)

    def person(self, dataset: str, person: str | bytes) -> pa.Table:
        """The rows (secret) of one person, by name or keyed id, in order. Raises as `record`."""
        return self._reading.person(dataset, self._keyed(person))

    def salt_key(self, dataset: str, record_id: str) -> bytes:
        """The 32-byte salt key (secret) of a record, for `wire.commitment.salt`."""
        return self._reading.salt_key(dataset, record_id)

    # ---- data keys

    def person_id(self, person: str | bytes) -> bytes:
        """The keyed id (16 bytes) of a person, the same in all datasets of this vault.

        person: in any spelling (`privacy.vault.person_names`); or a keyed id, also one that the person had before
        (`privacy.vault.respelling`).
        """
        return self._keyed(person)

    def spelling_id(self, spelling: str) -> bytes:
        """The keyed id that a vault of before made of one spelling of an identifier (secret)."""
        return self._opened.spelling_id(spelling)

    def earlier_ids(self, person: bytes) -> tuple[bytes, ...]:
        """Keyed ids that a person (keyed id) had before: what was written of it elsewhere may have them."""
        return tuple(old for old, now in self._opened.renamed.items() if now == person)

    def keys_of(self, person: str | bytes) -> tuple[DataKey, ...]:
        """The data keys of a person, by name or keyed id, over all datasets; none where nothing is kept."""
        return self._keys.of_person(self._keyed(person))

    def data_keys(self, dataset: str = "") -> Iterator[DataKey]:
        """Every data key, or those of one dataset: one state of the vault, however long it is read."""
        return self._keys.every(dataset)

    def restrict(self, keys: Sequence[bytes]) -> int:
        """Keep the rows of these data keys, but out of every use; returns how many keys changed.

        Raises Refused for a key that is not there.
        """
        return self._safeguards.restrict(keys, True)

    def unrestrict(self, keys: Sequence[bytes]) -> int:
        """Undo `restrict`."""
        return self._safeguards.restrict(keys, False)

    def destroy(self, keys: Sequence[bytes], receipt: bytes) -> int:
        """Destroy data keys with their rows and the salts of their commitments; returns how many were there.

        receipt: 32 bytes that name the receipt. On disk when this returns: the register first, then keys, rows,
        tombstones and totals in one transaction. Unknown keys and those destroyed before are passed by. Raises
        Unavailable; once the register holds the keys, the next opening removes them.
        """
        count = self._keys.destroy(keys, receipt)
        migration.remove_copy(self.path / FILE)
        return count

    def registered(self, keys: Sequence[bytes]) -> frozenset[bytes]:
        """Those of these data keys that the register of erasures names: gone, or gone when the vault is next opened."""
        return frozenset(keys) & {erasure.key for erasure in self.register.entries()}

    def copy_holds(self, path: Path, keys: Sequence[bytes]) -> bool:
        """Whether a file is an older copy of this vault's tables that may have one of these data keys, under an epoch
        that is still there. Raises OSError."""
        live = self.path / FILE
        if live.exists() and path.samefile(live):
            return False
        return backup.copy_holds(path, keys, self._opened.provider.epochs())

    def copy_of_keys(self, path: Path) -> bool:
        """Whether a file is an older copy of the provider's, with epochs that were destroyed. Raises OSError."""
        return self._opened.provider.is_older(path)

    @property
    def engine(self) -> Literal["sqlite", "postgresql"]:
        """What keeps the tables."""
        return self._opened.database.engine_name

    def marks(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """By data key, of those that are there: the first 16 bytes of its wrap, which are random. Where they are found
        in a file after the key was destroyed, a wrap has survived there."""
        return self._keys.marks(keys)

    def erasures(self, since: int = 0) -> tuple[Erasure, ...]:
        """Tombstones of the keys that were destroyed at `since` (ms UTC) or later."""
        return self._keys.erasures(since)

    def tidy(self) -> bool:
        """Free what deleted rows leave in journal and pages; False where a reader is in the way: call again later."""
        return self._opened.database.cut_log()

    # ---- large documents

    def put_stream(
        self,
        kind: str,
        name: str,
        source: Readable,
        *,
        person: str | bytes | None = None,
        retain_until: int | None = None,
        suite: int = AES_256_GCM,
    ) -> StreamInfo:
        """Keep a document (secret) of any length, read from `source` in pieces. Replaces an older one of that name.

        person: whom it is about, by name or keyed id: its key is then among `keys_of` the person, restricted and
        destroyed as they are. retain_until: as in `ingest`. Nothing is there of a call that raises what `source`
        raises, or Unavailable. Of a call that was killed a blob without a key may stay; `tidy_blobs` removes it.
        """
        keyed = None if person is None else self._keyed(person)
        return self._streams.put(kind, name, source, person=keyed, retain_until=retain_until, suite=suite)

    def open_stream(self, kind: str, name: str) -> io.BufferedReader:
        """The document's text (secret), to be read in order and closed.

        Raises Refused (none of that name, or restricted), VerificationError (altered, cut short, lengthened; also while
        it is read: what was read before was right), Unavailable.
        """
        return self._streams.open(kind, name)

    def stream(self, kind: str, name: str) -> StreamInfo:
        """A large document's description. Raises as `open_stream`."""
        return self._streams.info(kind, name)

    def streams(self, kind: str) -> tuple[str, ...]:
        """Names of the large documents of one kind, sorted."""
        return self._streams.names(kind)

    def streams_of(self, kind: str, person: str | bytes) -> tuple[StreamInfo, ...]:
        """The large documents of one kind about one person, by name or keyed id, that may be used, by name.

        Raises VerificationError (altered).
        """
        return self._streams.usable(kind, self._keyed(person))

    def streams_there(self, kind: str, names: Iterable[str]) -> dict[str, bool]:
        """Those of these large documents that are there, and whether they may be used; nothing is decrypted."""
        return self._streams.there(kind, names)

    def remove_stream(self, kind: str, name: str) -> None:
        """Remove a large document and its key. It is not noted in the register: a backup brings it back; `destroy` its
        key where that must not be. Raises Refused where there is none."""
        self._streams.remove(kind, name)

    def check_blobs(self) -> None:
        """Check that the store of large documents is there. Raises Unavailable, Refused where it is another vault's."""
        self._blobs.check(self._opened.header.vault)

    def tidy_blobs(self) -> int:
        """Remove what interrupted calls left in the blobs' store; returns how many.

        Raises Unavailable, Refused where the store is another vault's.
        """
        self._blobs.check(self._opened.header.vault)
        return self._streams.remove_orphans()

    def back_up(self, folder: Path) -> backup.Copied:
        """Write a backup of the vault to `folder`, while it is used: see `privacy.vault.backup`."""
        return backup.back_up(self._opened, self._streams, self._blobs, folder)

    # ---- notes about persons

    def put_person_note(self, kind: str, person: str | bytes, content: bytes) -> None:
        """Keep a note (secret) about a person beside the records. Replaces an older one of that kind."""
        self._safeguards.put_note(kind, self._keyed(person), content)

    def person_notes(self, kind: str) -> Iterator[tuple[bytes, bytes]]:
        """(keyed person id, content) of every note of one kind."""
        return self._awaited.named(self._notes.all(kind))

    def remove_person_note(self, kind: str, person: str | bytes) -> bool:
        """Delete a note; whether there was one."""
        return self._safeguards.remove_note(kind, self._keyed(person))

    # ---- documents

    def put_document(self, kind: str, name: str, content: bytes) -> None:
        """Keep a small private file (secret), such as grant terms, in place of an older one, whose keys it keeps."""
        self._safeguards.put_document(kind, name, content)

    def document(self, kind: str, name: str) -> bytes:
        """The document's content (secret). Raises Refused where there is none."""
        return self._documents.get(kind, name)

    def find_document(self, kind: str, name: str) -> bytes | None:
        """The document's content (secret); None where there is none."""
        return self._documents.find(kind, name)

    def documents(self, kind: str) -> tuple[str, ...]:
        """Names of the documents of one kind, sorted."""
        return self._documents.names(kind)

    def remove_document(self, kind: str, name: str) -> bool:
        """Delete a document with its key; whether there was one."""
        return self._safeguards.remove_document(kind, name)

    def revision(self, kind: str) -> int:
        """How often documents or notes of one kind changed here since the vault was opened: the same number, the same
        content, for nobody else writes."""
        return self._documents.revision(kind) + self._notes.revision(kind)

    def document_salt_key(self, kind: str, name: str) -> bytes:
        """The 32-byte salt key (secret) of a document, for `wire.commitment.salt`."""
        return self._documents.salt_key(kind, name)

    # ---- key epochs

    def rotate(self) -> int:
        """Wrap every key under a new epoch and destroy the older ones; returns the new epoch.

        Readers go on meanwhile. Interrupted, it leaves a readable vault; rotate again to destroy what is left. Raises
        Unavailable, VerificationError (a key was altered); then no epoch was destroyed.
        """
        with self._loading.alone:
            self._loading.clean_up()  # what a load left that could not undo itself is nobody's, and is not wrapped
            epoch = rotation.Rotation(self._opened, self._descriptions).run()
        self._safeguards.rotated(epoch)
        migration.remove_copy(self.path / FILE)
        return epoch

    # ---- after a restore

    def take_over(self, log: Path) -> int:
        """Take over what another log of safeguards of this vault has, and this one does not: holds, opt-outs,
        restrictions, erasures, recalls. Returns how many. Raises DecodeError (damaged, another vault's), Unavailable.
        """
        return self._safeguards.take_over(log)

    def epochs_are_back(self) -> bool:
        """Whether the provider has key epochs again that a rotation destroyed: it is older than the safeguards."""
        return self._safeguards.epochs_are_back()

    def _keyed(self, person: str | bytes) -> bytes:
        if isinstance(person, str):
            if self._opened.header.version < ONE_NAME and not look_again(self._opened, self._awaited):
                raise Unavailable("privacy.vault_spellings", path=self.place, retry_after=60)
            if not self._opened.reads_only:
                self._awaited.hear([person])
            return self._opened.person_id(person)
        if len(person) != ID_BYTES:
            raise ValueError("a keyed person id has 16 bytes")
        return self._awaited.present(person)

    def _name_persons(self) -> None:
        """Bring a vault of before to one id for each person, and legal holds with it."""
        if self._opened.header.version < ONE_NAME:
            Respelling(self._opened, self._descriptions, self._documents, self._streams, self._awaited).run()
        self._awaited.take_up()


def _check_there(path: Path, database: str) -> None:
    if not database and not (path / FILE).is_file():
        raise Unavailable("privacy.store_missing", path=str(path / FILE))


def _database(path: Path, url: str, organisation: str, fault: Callable[[str], None], *, alone: bool = True) -> Database:
    if not url:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        url = f"sqlite:///{path.absolute() / FILE}"
    return Database.at(url, tables.SCHEMA, owner="", alone=alone, fault=fault)
