"""How a table's rows become bytes to encrypt, and back: all types exact, all lengths alike.

A row is MessagePack of (record id or nil, cell, cell, ...); cells under another suite than the table's are a second
such row. It is padded to the longest one that was loaded so far (rows beyond 4 KiB to whole multiples of 4 KiB): a
category's name would otherwise show through the length of its ciphertext.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any

import msgspec
import pyarrow as pa

from privacy.suites import AES_256_GCM
from wire.canonical import Wire
from wire.errors import VerificationError

TYPES = {
    str(kind): kind
    for kind in (
        *(pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32()),
        *(pa.uint64(), pa.float32(), pa.float64(), pa.string(), pa.large_string(), pa.date32()),
    )
}
"""Column types that are kept, by Arrow's name."""

_PAD_ALL = 4096
_PAD_STEP = 16


class StoredColumn(Wire, frozen=True, tag="privacy.vault_column"):
    """A column, the name of its Arrow type, and the suite that its cells are encrypted under."""

    name: str
    kind: str
    suite: int = AES_256_GCM


def pad(plaintext: bytes, step: int, length: int = 0) -> bytes:
    """ISO/IEC 7816-4 padding: one 0x80, then zeros, up to `length` or the next multiple of `step`."""
    longest = max(length, len(plaintext) + 1)
    return (plaintext + b"\x80").ljust(-(-longest // step) * step, b"\x00")


def unpad(padded: bytes) -> bytes:
    """What `pad` got."""
    return padded.rstrip(b"\x00")[:-1]


def encode_rows(
    columns: Sequence[pa.ChunkedArray | pa.Array], count: int, record_ids: Sequence[str] | None, length: int = 0
) -> list[bytes]:
    """Each of the `count` rows of `columns` (secret), encoded and padded to the longest, at least to `length`.

    record_ids: one per row, or None.
    """
    cells = [_plain(column).to_pylist() for column in columns]
    names: Iterable[str | None] = repeat(None, count) if record_ids is None else record_ids
    encode = msgspec.msgpack.Encoder().encode
    encoded = [encode(row) for row in zip(names, *cells, strict=True)]
    longest = min(max(max(map(len, encoded), default=0) + 1, length), _PAD_ALL)
    longest = -(-longest // _PAD_STEP) * _PAD_STEP
    return [(row + b"\x80").ljust(longest, b"\x00") if len(row) < longest else pad(row, _PAD_ALL) for row in encoded]


def _plain(column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    return column.cast(pa.int32()) if pa.types.is_date32(column.type) else column


class RowDecoder:
    """Rows that `encode_rows` got, back to columns; some at a time, so that cells of Python are few."""

    def __init__(self, columns: Sequence[StoredColumn], suite: int) -> None:
        """columns: of the table; suite: of the main part of a row."""
        self._columns = columns
        self._main = [index for index, column in enumerate(columns) if column.suite == suite]
        self._apart = [index for index, column in enumerate(columns) if column.suite != suite]
        self._arrays: list[list[pa.Array]] = [[] for _ in columns]
        self._names: list[pa.Array] = []
        self._decode = msgspec.msgpack.Decoder(list).decode

    def take(self, main: Sequence[bytes], apart: Sequence[bytes]) -> None:
        """More rows: their padded parts (secret). apart: empty if all cells are under one suite.

        Raises VerificationError for what does not decode to a row of the table.
        """
        self._names.append(self._cells(main, self._main))
        if self._apart:
            self._cells(apart, self._apart)

    def _cells(self, parts: Sequence[bytes], at: Sequence[int]) -> pa.Array:
        decode = self._decode
        try:
            # The last 0x80 is where the padding begins: nothing but zeros follows it.
            rows = [decode(part[: part.rindex(b"\x80")]) for part in parts]
            found = list(zip(*rows, strict=True)) or [()] * (len(at) + 1)
            for index, values in zip(at, found[1:], strict=True):
                self._arrays[index].append(_column(self._columns[index].kind, values))
            return pa.array(found[0], pa.string())
        except (msgspec.MsgspecError, ValueError, pa.ArrowException):
            raise VerificationError("privacy.vault_cell") from None

    def table(self, record_id_column: str | None) -> pa.Table:
        """All rows that were taken; with `record_id_column`, their record ids appended under that name."""
        names = [column.name for column in self._columns]
        kinds = [TYPES[column.kind] for column in self._columns]
        columns = [pa.chunked_array(found, kind) for found, kind in zip(self._arrays, kinds, strict=True)]
        if record_id_column is not None:
            if record_id_column in names:
                raise ValueError("the table has a column of that name")
            names.append(record_id_column)
            columns.append(pa.chunked_array(self._names, pa.string()))
        return pa.table(columns, names=names)


def _column(kind: str, values: Sequence[Any]) -> pa.Array:
    arrow = TYPES[kind]
    return pa.array(values, pa.int32()).cast(arrow) if pa.types.is_date32(arrow) else pa.array(values, arrow)
