"""One encrypted Parquet file: every page, the schema and the footer under one fresh key, nothing in the clear.

    file = Parquet modular encryption, AES_GCM_V1, uniform: one 256-bit key for the footer and all columns
    AAD  = place || file's own random id || module, row group, column, page       (place is not stored)

Uniform on purpose: with a key for each column, reading part of the columns, or a filter or statistics on a
denied one, aborts the process in today's Arrow. Keys are given directly: Arrow's `CryptoFactory` keeps those it
unwrapped in a cache, also after they were destroyed. DuckDB does not read these files reliably: decrypt in
Arrow, query afterwards.

The bytes are hashed beside the writing and checked before a parser sees them: Parquet's own headers
(lengths, offsets) stand outside its encryption, and Arrow is no parser for bytes of an adversary's.

    whole      SHA-256(file)                                                       snapshots' parts
    in pieces  SHA-256(PARQUET_PIECES, length, SHA-256(piece 1), ..)  of 8 MiB     extracts; read by two threads

What a holder of the file without the key sees: its length, number and lengths of pages, so about how many rows.

Spec: Parquet modular encryption (parquet-format, Encryption.md). Not constant-time in lengths.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.parquet import encryption

from privacy.vault.rows import TYPES, StoredColumn
from wire.domains import PARQUET_PIECES, digest
from wire.errors import Refused, Unavailable, VerificationError

KEY_BYTES = 32
KINDS = {**TYPES, "fixed_size_binary[16]": pa.binary(16)}
"""Types of columns that are written: those of the vault, and its keyed ids."""
ROW_GROUP = 2**20
"""Rows of a row group: what is in memory at once while a file is written. Smaller ones take longer."""

PIECE = 2**23
"""Bytes of a piece; the last one is shorter."""
_READ_BYTES = 2**22
_THREADS = 2
_WRITTEN = 2**20
"""Bytes that are written at a time. Parquet writes many short things, each of which would wait for the interpreter."""
_WAITING = 2**26
"""Bytes that are written and wait to be hashed, at most."""


class Written(msgspec.Struct, frozen=True):
    """What was written. length in bytes; digest: SHA-256 of all of it, or of its pieces; rows: private."""

    rows: int
    length: int
    digest: bytes


def stored_columns(schema: pa.Schema, dataset: str) -> tuple[StoredColumn, ...]:
    """The columns of a table, by name and Arrow type. Raises Refused for one that stands twice or is not kept."""
    columns = tuple(StoredColumn(field.name, str(field.type)) for field in schema)
    if len({column.name for column in columns}) != len(columns):
        raise Refused("privacy.column_twice", dataset=dataset)
    for column in columns:
        if column.kind not in TYPES:
            raise Refused("privacy.column_type", dataset=dataset, column=column.name, kind=column.kind)
    return columns


def _schema(columns: Sequence[StoredColumn]) -> pa.Schema:
    # Built anew: a table's own schema can carry text of its source (pandas' metadata).
    return pa.schema([pa.field(column.name, KINDS[column.kind]) for column in columns])


def in_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of `ROW_GROUP` rows, the last one shorter."""
    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        at = 0
        while rows + table.num_rows - at >= ROW_GROUP:
            take = ROW_GROUP - rows
            yield pa.concat_tables([*waiting, table.slice(at, take)])
            waiting, rows, at = [], 0, at + take
        if at < table.num_rows:
            waiting.append(table.slice(at))
            rows += table.num_rows - at
    if waiting:
        yield pa.concat_tables(waiting)


def write_parquet(
    file: BinaryIO,
    columns: Sequence[StoredColumn],
    tables: Iterable[pa.Table],
    key: bytes,
    place: bytes,
    *,
    pieces: bool = False,
) -> Written:
    """Write `tables` (secret, of these columns) to `file`, encrypted; each is let go once it is written.

    key: 32 secret bytes of this file alone. place: what the file is and where it belongs, to be given again on
    reading. pieces: how it is hashed. Raises what writing to `file` raises.
    """
    schema = _schema(columns)
    properties = encryption.create_encryption_properties(key, aad_prefix=place, store_aad_prefix=False)
    rows = 0
    with _Hashing(pieces, 1) as hashing:  # Parquet's own threads need the other cores
        with (
            pa.output_stream(_Sink(file, hashing), buffer_size=_WRITTEN) as sink,
            pq.ParquetWriter(sink, schema, encryption_properties=properties) as writer,
        ):
            for table in in_groups(tables):
                writer.write_table(table.replace_schema_metadata(None).cast(schema), ROW_GROUP)
                rows += table.num_rows
        return Written(rows, hashing.length, hashing.digest())


class _Hashing:
    """Hashes what it is given in other threads. in_pieces: each piece in one of `threads`, else all in one."""

    def __init__(self, in_pieces: bool, threads: int = _THREADS) -> None:
        self._in_pieces = in_pieces
        self._threads: tuple[Executor, ...] = tuple(ThreadPoolExecutor(1) for _ in range(threads if in_pieces else 1))
        self._hashes: list[Any] = []
        self._under_way: deque[tuple[int, Future[None]]] = deque()
        self._waiting = 0
        self.length = 0

    def __enter__(self) -> _Hashing:
        return self

    def __exit__(self, *error: object) -> None:
        for thread in self._threads:
            thread.shutdown()

    def update(self, data: bytes | memoryview) -> None:
        """More of the file, in order; it must not change before `digest`, or before much more has come."""
        while len(data):
            at = self.length % PIECE if self._in_pieces else self.length
            some = data[: PIECE - at] if self._in_pieces else data
            if at == 0:
                self._hashes.append(hashlib.sha256())
            thread = self._threads[len(self._hashes) % len(self._threads)]
            self._under_way.append((len(some), thread.submit(self._hashes[-1].update, some)))
            self._waiting += len(some)
            self.length += len(some)
            data = data[len(some) :]

    def wait(self, most: int = 0) -> None:
        """Until at most so many bytes wait to be hashed."""
        while self._waiting > most:
            length, hashed = self._under_way.popleft()
            hashed.result()
            self._waiting -= length

    def digest(self) -> bytes:
        """Of all that was given."""
        self.wait()
        if not self._in_pieces:
            return bytes(self._hashes[0].digest()) if self._hashes else hashlib.sha256().digest()
        return digest(PARQUET_PIECES, self.length.to_bytes(8, "big"), *(one.digest() for one in self._hashes))


class _Sink(io.RawIOBase):
    """Writes through, and has what it writes hashed beside the writing."""

    def __init__(self, file: BinaryIO, hashing: _Hashing) -> None:
        super().__init__()
        self._file, self._hashing = file, hashing

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._file.write(data)
        kept = data if isinstance(data, bytes) else bytes(data)  # what is a view may be written over
        self._hashing.update(kept)
        self._hashing.wait(_WAITING)
        return len(kept)


def read_checked(path: Path, length: int, expected: bytes, *, pieces: bool = False) -> pa.Buffer:
    """The first `length` bytes of a file, in memory, once their hash, of the whole or in pieces, is `expected`.

    Raises VerificationError (altered, cut), Unavailable (cannot be read).
    """
    try:
        with path.open("rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size < length:
                raise VerificationError("parquet.altered", file=path.name)
            data = pa.allocate_buffer(length)
            view = memoryview(data).cast("B")
            with _Hashing(pieces) as hashing:  # some is hashed while more is read
                while hashing.length < length:
                    count = file.readinto(view[hashing.length : hashing.length + _READ_BYTES])
                    if not count:
                        raise VerificationError("parquet.altered", file=path.name)
                    hashing.update(view[hashing.length : hashing.length + count])
                found = hashing.digest()
    except MemoryError:
        raise Unavailable("parquet.too_large", file=path.name, bytes=length) from None
    except OSError as error:
        raise Unavailable("privacy.store_failed", path=str(path), reason=error.strerror or "I/O") from None
    if found != expected:
        raise VerificationError("parquet.altered", file=path.name)
    return data


def check_file(path: Path, length: int, expected: bytes) -> None:
    """What `read_checked` checks of a file in pieces, without keeping it in memory. Raises as that."""
    try:
        with path.open("rb", buffering=0) as file, _Hashing(True) as hashing:
            while hashing.length < length and (data := file.read(min(_READ_BYTES, length - hashing.length))):
                hashing.update(data)
                hashing.wait(_WAITING)
            found = hashing.digest()
    except OSError as error:
        raise Unavailable("privacy.store_failed", path=str(path), reason=error.strerror or "I/O") from None
    if found != expected:
        raise VerificationError("parquet.altered", file=path.name)


def parse_parquet(
    data: pa.Buffer,
    columns: Sequence[StoredColumn],
    rows: int,
    key: bytes,
    place: bytes,
    name: str,
    only: Sequence[str] | None = None,
) -> pa.Table:
    """The table (secret) that `write_parquet` got, decrypted in memory. data: from `read_checked`.

    only: names of the columns that are wanted, in the file's order; None for all. name: of the file, for errors.
    Raises VerificationError where key, place, columns or the number of rows are others.
    """
    if any(column.kind not in KINDS for column in columns):
        raise VerificationError("parquet.altered", file=name)
    try:
        properties = encryption.create_decryption_properties(key, aad_prefix=place)
        with pq.ParquetFile(pa.BufferReader(data), decryption_properties=properties) as file:
            schema = file.schema_arrow.remove_metadata()
            table = file.read(None if only is None else list(only))
    except (OSError, pa.ArrowException):
        raise VerificationError("parquet.altered", file=name) from None
    if table.num_rows != rows or schema != _schema(columns):
        raise VerificationError("parquet.altered", file=name)
    return table.replace_schema_metadata(None)
