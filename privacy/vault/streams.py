"""Large private documents: streamed into sealed blobs, each under a key of its own that the vault's index keeps.

The index row of a document is written after its blob is whole and durable, in one transaction: a crash leaves either
the document as it was, or the new one; never a name without its blob. What it may leave is a blob that nothing names,
whose key was never kept: nobody can read it, and `remove_orphans` removes it.

A document that is put for a person is erased with the person: its key stands among the person's data keys.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Annotated, Any, NamedTuple

import msgspec
import sqlalchemy as sa
from cryptography.exceptions import InvalidTag

from privacy.suites import AES_256_GCM, Aead, check_suite, data_cipher
from privacy.vault.blobs import NAME_BYTES, Blobs
from privacy.vault.opened import Opened, blob, current_epoch, number
from privacy.vault.places import ID_BYTES
from privacy.vault.rows import pad, unpad
from privacy.vault.sealed_stream import CHUNK, PREFIX_BYTES, Readable, SealedReader, sealed_chunks
from privacy.vault.tables import ACTIVE, streams
from wire.canonical import Wire, decode, encode
from wire.domains import DATA_KEY, keyed
from wire.errors import DecodeError, Refused, Unavailable, VerificationError
from wire.identifiers import check_name

KEY = "stream key"
_DOCUMENT, _CHUNK = "stream", "stream chunk"
_STEP = 256
_ASKED = 500
"""Keys that one statement asks for."""

Bytes16 = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]


class StreamInfo(Wire, frozen=True, tag="privacy.stream_info"):
    """What the index says of a large document. length: of its text, in bytes; key: its data key's id; blob: where the
    sealed text lies; sealed_length: of that; person: keyed id, or empty."""

    name: str
    length: Annotated[int, msgspec.Meta(ge=0)]
    suite: int
    key: Bytes16
    blob: Bytes16
    sealed_length: Annotated[int, msgspec.Meta(ge=0)]
    person: bytes


class StreamRow(NamedTuple):
    """A row of the index, as far as erasure needs it."""

    kind: str
    document: bytes
    version: int
    key: bytes
    person: bytes | None
    retain_until: int | None
    state: int
    blob: bytes
    wrapped: bytes


_ROW = tuple(streams.c[name] for name in StreamRow._fields)


class _Counted:
    """A source, and how much was read of it."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self.length = 0

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self.length += len(data)
        return data


class Streams:
    """The large documents of an open vault. blobs: where their sealed text lies."""

    def __init__(self, opened: Opened, blobs: Blobs) -> None:
        self._opened = opened
        self._blobs = blobs
        self._under_way: set[bytes] = set()
        self._guard = threading.Lock()
        self._keepers = 0
        self._unkept: list[bytes] = []

    def put(
        self,
        kind: str,
        name: str,
        source: Readable,
        *,
        person: bytes | None = None,
        retain_until: int | None = None,
        suite: int = AES_256_GCM,
    ) -> StreamInfo:
        """See `Vault.put_stream`."""
        opened = self._opened
        opened.check_writes()
        check_name(f"document.{kind}", "document kind")  # as which erasure names it
        item = opened.document_id(kind, name)
        if person is not None and len(person) != ID_BYTES:
            raise ValueError("a keyed person id has 16 bytes")
        self._blobs.check(opened.header.vault)
        master, key_id, lies = opened.rand(32), opened.rand(ID_BYTES), opened.rand(NAME_BYTES)
        with self._guard:
            self._under_way.add(lies)
        try:
            counted = _Counted(source)
            cipher = _cipher(check_suite(suite), master, lies)
            sealed_length = self._blobs.write(
                lies, sealed_chunks(cipher, lies[:PREFIX_BYTES], self._place(kind, item, suite, lies), counted)
            )
            opened.fault("stream:blob")
            info = StreamInfo(name, counted.length, suite, key_id, lies, sealed_length, person or b"")
            replaced = self._index(kind, item, info, master, retain_until)
        except BaseException:
            with suppress(Unavailable):
                self._blobs.remove(lies)
            raise
        finally:
            with self._guard:
                self._under_way.discard(lies)
        opened.fault("stream:committed")
        if replaced is not None:
            self.forget([replaced])
        return info

    def _index(self, kind: str, item: bytes, info: StreamInfo, master: bytes, retain_until: int | None) -> bytes | None:
        """Write the row; returns the blob of the one that it replaces."""
        opened = self._opened
        with opened.database.transaction() as connection:
            # Wrapped here, as a writer: a rotation that ran while the text was read has ended, or has not begun.
            epoch = current_epoch(opened.provider)
            wrapped = opened.provider.wrap(epoch, master, encode(opened.place(KEY, kind, item=item)))
            found = connection.execute(
                sa.select(streams.c.version, streams.c.blob).where(_mine(kind, item))
            ).one_or_none()
            version = 1 if found is None else number(found.version) + 1
            plaintext = pad(encode(info), _STEP)
            row = {
                "kind": kind,
                "document": item,
                "version": version,
                "key": info.key,
                "person": info.person or None,
                "retain_until": retain_until,
                "state": ACTIVE,
                "blob": info.blob,
                "epoch": epoch,
                "wrapped": wrapped,
                "sealed": opened.seal(master, plaintext, self._row_place(kind, item, version, retain_until, ACTIVE)),
            }
            connection.execute(streams.delete().where(_mine(kind, item)))
            connection.execute(streams.insert().values(**row))
            opened.fault("stream:written")
        if found is not None and opened.database.path is not None:
            opened.database.cut_log()  # the key that was replaced is in the log, until it is cut
        return None if found is None else blob(found.blob)

    def open(self, kind: str, name: str) -> io.BufferedReader:
        """See `Vault.open_stream`."""

        def read(connection: sa.Connection) -> tuple[Any, bytes, StreamInfo]:
            row = connection.execute(sa.select(streams).where(_mine(kind, self._item(kind, name)))).one_or_none()
            if row is None:
                raise Refused("privacy.no_document", kind=kind)
            if row.state != ACTIVE:
                raise Refused("privacy.document_restricted", kind=kind)
            return row, *self._info(row)

        row, master, info = self._opened.reading(read)
        source = self._blobs.read(info.blob)
        if source is None:
            self._blobs.check(self._opened.header.vault)
            raise _altered(kind)
        place = self._place(kind, blob(row.document), info.suite, info.blob)
        cipher = _cipher(info.suite, master, info.blob)
        try:
            reader = SealedReader(cipher, info.blob[:PREFIX_BYTES], place, source, lambda: _altered(kind))
        except BaseException:
            source.close()
            raise
        return io.BufferedReader(reader, CHUNK)

    def info(self, kind: str, name: str) -> StreamInfo:
        """See `Vault.stream`."""

        def read(connection: sa.Connection) -> StreamInfo:
            row = connection.execute(sa.select(streams).where(_mine(kind, self._item(kind, name)))).one_or_none()
            if row is None:
                raise Refused("privacy.no_document", kind=kind)
            return self._info(row)[1]

        return self._opened.reading(read)

    def names(self, kind: str) -> tuple[str, ...]:
        """See `Vault.streams`."""

        def read(connection: sa.Connection) -> tuple[str, ...]:
            found = connection.execute(sa.select(streams).where(streams.c.kind == kind)).all()
            with self._opened.provider.batch(f"list {kind}", len(found)):
                return tuple(sorted(self._info(row)[1].name for row in found))

        return self._opened.reading(read)

    def usable(self, kind: str, person: bytes) -> tuple[StreamInfo, ...]:
        """See `Vault.streams_of`."""

        def read(connection: sa.Connection) -> tuple[StreamInfo, ...]:
            mine = (streams.c.kind == kind) & (streams.c.person == person) & (streams.c.state == ACTIVE)
            found = connection.execute(sa.select(streams).where(mine)).all()
            return tuple(sorted((self._info(row)[1] for row in found), key=lambda info: info.name))

        return self._opened.reading(read)

    def there(self, kind: str, names: Iterable[str]) -> dict[str, bool]:
        """See `Vault.streams_there`."""
        asked = {self._item(kind, name): name for name in names}
        statement = sa.select(streams.c.document, streams.c.state).where(streams.c.kind == kind)
        with self._opened.database.reading() as connection:
            found = connection.execute(statement).all()
        return {asked[item]: state == ACTIVE for item, state in found if item in asked}

    def remove(self, kind: str, name: str) -> None:
        """See `Vault.remove_stream`."""
        self._opened.check_writes()
        mine = _mine(kind, self._item(kind, name))
        with self._opened.database.transaction() as connection:
            found = connection.execute(sa.select(streams.c.blob).where(mine)).one_or_none()
            if found is None:
                raise Refused("privacy.no_document", kind=kind)
            connection.execute(streams.delete().where(mine))
        if self._opened.database.path is not None:
            self._opened.database.cut_log()
        self.forget([blob(found.blob)])

    # ---- persons: what `Vault.keys_of`, `restrict` and `destroy` do with large documents

    def of_person(self, connection: sa.Connection, person: bytes) -> list[StreamRow]:
        """The documents of a person (keyed id)."""
        statement = sa.select(*_ROW).where(streams.c.person == person).order_by(streams.c.kind, streams.c.document)
        return [StreamRow(*row) for row in connection.execute(statement)]

    def check(self, connection: sa.Connection, rows: Sequence[StreamRow]) -> None:
        """Hold documents against what is sealed of them: whose they are, how long kept, in which state.

        Raises VerificationError.
        """
        for row in rows:
            self._info(connection.execute(sa.select(streams).where(_mine(row.kind, row.document))).one())

    def every(self, connection: sa.Connection) -> Iterator[StreamRow]:
        """All documents."""
        for row in connection.execute(sa.select(*_ROW).order_by(streams.c.kind, streams.c.document)).all():
            yield StreamRow(*row)

    def found(self, connection: sa.Connection, ids: Iterable[bytes]) -> list[StreamRow]:
        """The documents whose data keys have these ids."""
        asked, rows = sorted(set(ids)), []
        for start in range(0, len(asked), _ASKED):
            some = connection.execute(sa.select(*_ROW).where(streams.c.key.in_(asked[start : start + _ASKED])))
            rows += [StreamRow(*row) for row in some]
        return rows

    def turn(self, connection: sa.Connection, rows: Sequence[StreamRow], before: int, after: int) -> int:
        """Bring documents from one state to the other, in the caller's transaction; returns how many were in it."""
        turning = [row for row in rows if row.state == before]
        for short in turning:
            row: Any = connection.execute(sa.select(streams).where(_mine(short.kind, short.document))).one()
            master, info = self._info(row)
            place = self._row_place(short.kind, short.document, short.version, short.retain_until, after)
            sealed = self._opened.seal(master, pad(encode(info), _STEP), place)
            change = streams.update().where(_mine(short.kind, short.document))
            connection.execute(change.values(state=after, sealed=sealed))
        return len(turning)

    def rename(self, connection: sa.Connection, renamed: Mapping[bytes, bytes]) -> None:
        """Bring documents to other persons' ids (`privacy.vault.respelling`), in the caller's transaction."""
        for short in self.every(connection):
            if short.person is not None and short.person in renamed:
                row: Any = connection.execute(sa.select(streams).where(_mine(short.kind, short.document))).one()
                try:
                    master, info = self._info(row)
                except VerificationError:  # whoever reads it is told
                    continue
                person = renamed[short.person]
                place = self._row_place(short.kind, short.document, short.version, short.retain_until, short.state)
                plaintext = pad(encode(msgspec.structs.replace(info, person=person)), _STEP)
                change = streams.update().where(_mine(short.kind, short.document))
                connection.execute(change.values(person=person, sealed=self._opened.seal(master, plaintext, place)))

    def delete(self, connection: sa.Connection, rows: Sequence[StreamRow]) -> None:
        """Delete documents from the index, keys and all, in the caller's transaction; then `forget` their blobs."""
        for row in rows:
            connection.execute(streams.delete().where(_mine(row.kind, row.document)))

    def forget(self, blobs: Iterable[bytes]) -> None:
        """Remove the blobs of documents that are gone for good; one that stays is an orphan."""
        with self._guard:
            if self._keepers:
                self._unkept += blobs
                return
        for lies in blobs:
            with suppress(Unavailable):
                self._blobs.remove(lies)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """While this lasts no blob is removed: a copy of an earlier state may name it."""
        with self._guard:
            self._keepers += 1
        try:
            yield
        finally:
            with self._guard:
                self._keepers -= 1
                waiting: list[bytes] = []
                if not self._keepers:
                    waiting, self._unkept = self._unkept, []
            self.forget(waiting)

    def remove_orphans(self) -> int:
        """Remove the blobs that nothing names; returns how many. Raises Unavailable (also while a copy is made)."""
        self._opened.check_writes()
        with self._guard:
            if self._keepers:
                raise Unavailable("privacy.backup_running", retry_after=60)
        there = list(self._blobs.names())
        with self._guard:
            kept = set(self._under_way)  # before the index is read: what was under way until now stands there
        with self._opened.database.reading() as connection:
            kept |= {blob(row.blob) for row in connection.execute(sa.select(streams.c.blob))}
        orphans = [lies for lies in there if lies not in kept]
        for lies in orphans:
            self._blobs.remove(lies)
        return len(orphans)

    # ---- inside

    def _item(self, kind: str, name: str) -> bytes:
        return self._opened.document_id(kind, name)

    def _place(self, kind: str, item: bytes, suite: int, lies: bytes) -> bytes:
        return encode(msgspec.structs.replace(self._opened.place(_CHUNK, kind, item=item + lies), suite=suite))

    def _row_place(self, kind: str, item: bytes, version: int, retain_until: int | None, state: int) -> Any:
        duty = b"" if retain_until is None else retain_until.to_bytes(4, "big")
        return self._opened.place(_DOCUMENT, kind, version=version, item=item + bytes([state]) + duty)

    def _info(self, row: Any) -> tuple[bytes, StreamInfo]:
        """The key (secret) and description of a row. Raises VerificationError where anything in it was altered."""
        kind, item = str(row.kind), blob(row.document)
        try:
            master = self._opened.own_key(row.epoch, row.wrapped, KEY, kind, item)
            place = self._row_place(kind, item, number(row.version), row.retain_until, number(row.state))
            info = decode(StreamInfo, unpad(self._opened.unseal(master, row.sealed, place)))
        except (InvalidTag, VerificationError, DecodeError, OverflowError, ValueError):
            raise _altered(kind) from None
        if (info.key, info.blob, info.person) != (row.key, row.blob, row.person or b""):
            raise _altered(kind)
        return master, info


def _mine(kind: str, item: bytes) -> sa.ColumnElement[bool]:
    return (streams.c.kind == kind) & (streams.c.document == item)


def _cipher(suite: int, master: bytes, lies: bytes) -> Aead:
    return data_cipher(suite, keyed(master, DATA_KEY, b"stream", lies))


def _altered(kind: str) -> VerificationError:
    return VerificationError("privacy.vault_document", kind=kind)
