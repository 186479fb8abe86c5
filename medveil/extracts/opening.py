"""Open an extract on the recipient's machine: with whose keys, by which issuer, and where the rows go."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec
import pyarrow as pa

from privacy.copies.extract_file import ExtractCover, ExtractFacts, check_cover, read_end
from privacy.copies.extracts import inspect_extract, open_extract
from wire.checkpoint import TrustFile
from wire.durable import put_as_new
from wire.errors import Refused, Unavailable, VerificationError
from wire.sealing import OpenKey
from wire.signing import VerifyKey


class Recipient(msgspec.Struct, frozen=True):
    """Whoever opens: the organisation, its secret keys, the trust file that it pinned."""

    organisation: str
    keys: Sequence[OpenKey]
    trust: TrustFile

    def issuer_keys(self, issuer: str) -> tuple[VerifyKey, ...]:
        """Every envelope key that the issuer has had, the newest first. Raises VerificationError for no member."""
        found = [member.keys.envelope.key for epoch in self.trust.epochs if (member := epoch.find(issuer)) is not None]
        if not found:
            raise VerificationError("checkpoint.not_member", organisation=issuer)
        return tuple(dict.fromkeys(reversed(found)))

    def inspect(self, path: Path) -> ExtractFacts:
        """What the issuer signed, without the rows. Raises as `privacy.copies.extracts.inspect_extract`."""
        issuer = read_end(path).cover.issuer
        return inspect_extract(path, self.keys, self.issuer_keys(issuer), self.organisation).facts

    def open(self, path: Path, at: int) -> tuple[ExtractFacts, pa.Table]:
        """What the issuer signed, and the rows (secret), in memory. Raises as `open_extract`."""
        issuer = read_end(path).cover.issuer
        return open_extract(path, self.keys, self.issuer_keys(issuer), self.organisation, at)

    def __repr__(self) -> str:
        return f"Recipient({self.organisation!r})"


def read_cover(path: Path) -> ExtractCover:
    """What anybody may read of an extract; nothing of it is proved. Raises as `read_end`."""
    cover = read_end(path).cover
    check_cover(cover)
    return cover


_FORMULA = r"(?s)^\s*[=+\-@\x{FF1D}\x{FF0B}\x{FF0D}\x{FF20}].|^[\t\r\n]"
"""Text that a spreadsheet takes for a formula, full-width signs included."""
_SIGNED_NUMBER = r"^[+\-][0-9]+(\.[0-9]+)?$"


def _csv(table: pa.Table, file: BinaryIO) -> None:
    """Cells and names that a spreadsheet would carry out begin with ' there; other formats have them as they are."""
    from pyarrow import csv

    names = _no_formula(pa.chunked_array([pa.array(table.column_names, pa.string())])).to_pylist()
    columns = [_no_formula(_texts(column)) for column in table.columns]
    csv.write_csv(pa.table(columns, names), file)


def _texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column whose texts are plain, however it is kept."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _no_formula(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow.compute as pc

    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return column
    formula = pc.match_substring_regex(column, _FORMULA)
    formula = pc.and_(formula, pc.invert(pc.match_substring_regex(column, _SIGNED_NUMBER)))
    quoted = pc.binary_join_element_wise(pa.scalar("'", column.type), column, pa.scalar("", column.type))
    return pc.if_else(formula, quoted, column)


def _parquet(table: pa.Table, file: BinaryIO) -> None:
    from pyarrow import parquet

    parquet.write_table(table, file)


def _arrow(table: pa.Table, file: BinaryIO) -> None:
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


FORMATS: dict[str, Callable[[pa.Table, BinaryIO], None]] = {".csv": _csv, ".parquet": _parquet, ".arrow": _arrow}
"""How rows may be written in the clear, by the file's ending."""


def write_plain(table: pa.Table, path: Path) -> None:
    """Write the rows (secret) in the clear, for their owner's eyes; the file is new, whole or not there.

    The ending is one of `FORMATS`.

    Raises Refused (it is there already), Unavailable.
    """
    write = FORMATS[path.suffix]  # a caller's bug if it is none
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        try:
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                write(table, file)
                file.flush()
                os.fsync(file.fileno())
            put_as_new(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    except FileExistsError:
        raise Refused("client.file_exists", file=str(path)) from None
    except (OSError, pa.ArrowException):
        raise Unavailable("client.unwritable", file=str(path)) from None
