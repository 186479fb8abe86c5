"""How a table's rows become bytes to encrypt, and back: all types exact, all lengths alike.

A row is MessagePack of (record id or nil, cell, cell, ...). It is padded to the longest row of its
table (rows beyond 4 KiB to whole multiples of 4 KiB): a category's name would otherwise show through
the length of its ciphertext.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa

from wire.canonical import Wire

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


class StoredColumn(Wire, frozen=True, tag="privacy.stored_column"):
    """A column and the name of its Arrow type."""

    name: str
    kind: str


def pad(plaintext: bytes, step: int, length: int = 0) -> bytes:
    """ISO/IEC 7816-4 padding: one 0x80, then zeros, up to `length` or the next multiple of `step`."""
    longest = max(length, len(plaintext) + 1)
    return (plaintext + b"\x80").ljust(-(-longest // step) * step, b"\x00")


def unpad(padded: bytes) -> bytes:
    """What `pad` got."""
    return padded.rstrip(b"\x00")[:-1]


def encode_rows(table: pa.Table, record_ids: Sequence[str] | None) -> list[bytes]:
    """Each row of `table` (secret), encoded and padded. record_ids: one per row, or None."""
    cells = [_plain(column).to_pylist() for column in table.columns]
    names: Sequence[str | None] = [None] * table.num_rows if record_ids is None else record_ids
    encoder = msgspec.msgpack.Encoder()
    rows = [encoder.encode(row) for row in zip(names, *cells, strict=True)]
    longest = min(max(map(len, rows), default=0) + 1, _PAD_ALL)
    return [pad(row, _PAD_STEP, longest) if len(row) < _PAD_ALL else pad(row, _PAD_ALL) for row in rows]


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.int32()) if pa.types.is_date32(column.type) else column


def decode_rows(columns: Sequence[StoredColumn], plaintexts: list[bytes], record_id_column: str | None) -> pa.Table:
    """The table that `encode_rows` got; with `record_id_column`, the record ids appended under that name."""
    decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder()
    rows = [decoder.decode(plaintext) for plaintext in plaintexts]
    cells = list(zip(*rows, strict=True)) if rows else [()] * (len(columns) + 1)
    names = [column.name for column in columns]
    arrays = []
    for column, values in zip(columns, cells[1:], strict=True):
        kind = TYPES[column.kind]
        if pa.types.is_date32(kind):
            arrays.append(pa.array(values, pa.int32()).cast(kind))
        else:
            arrays.append(pa.array(values, kind))
    if record_id_column is not None:
        if record_id_column in names:
            raise ValueError("the table has a column of that name")
        names.append(record_id_column)
        arrays.append(pa.array(cells[0], pa.string()))
    return pa.table(arrays, names=names)
