"""Read a site's CSV file strictly, by its declared layout.

A fault stops the reading with one sentence that names the file, the line and the column, never the
cell: a cell is a patient's. Even the names in a header are not repeated, since a file without a
header has its first patient there.

Form is strict, content is not. A ragged row, broken quotes, a NUL byte, bytes that are not UTF-8,
text where a number belongs and a wrong set of columns are faults. A missing marker, "NaN" in a
number column, a number beyond the bounds (however large, "inf" included) and a value that no
category declares are data: they become null, stay for `quality` to count and clamp, or become
"other".
"""

from __future__ import annotations

import csv
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa

from connectors.dataset import shown
from connectors.layout import MOST_ROWS, OTHER_VALUE, Column, Layout
from wire.dates import day_of
from wire.errors import DecodeError, Unavailable

LONGEST_ROW = 1024 * 1024
"""Longest row that is read, in bytes, line breaks inside quotes included."""

_BATCH = 65_536
_MOST_REMEMBERED = 65_536
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NOT_A_VALUE = frozenset({"nan", "+nan", "-nan"})
_INFINITE = re.compile(r"([+-]?)inf(?:inity)?", re.IGNORECASE)
_WHOLE = re.compile(r"([+-]?)0*([0-9]+)(?:\.0*)?")
_DATE = re.compile(r"([0-9]{4})[-/]?([0-9]{2})[-/]?([0-9]{2})(?:[ T].*)?")
"""2026-03-02, 2026/03/02 or 20260302, with or without a time behind it."""
_BLANK = " \t\r\n"

Cell = float | str | date | None


class _BadCell(Exception):
    """A cell that its column cannot hold. Carries nothing."""


def read_csv(path: Path, layout: Layout, name: str = "") -> pa.Table:
    """The table in the CSV file at `path`: secret, not yet clamped. name: for messages, by default the path.

    Columns: the identifiers of the layout (text, never null), its date column if it has one (date32,
    null where the cell is no date), then the declared columns in their order: numbers as float64 (null
    where missing, infinite where beyond a double), categories as text (null where missing, "other" where
    undeclared), derived columns computed from the clamped
    ones. Row order is the file's. Blank lines are skipped.

    Raises Unavailable (no such file, not readable) or DecodeError (what the file holds).
    """
    file = name or shown(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise Unavailable("connectors.file_missing", file=file) from None
    except OSError as error:
        raise Unavailable("connectors.unreadable", file=file, reason=error.strerror or "") from None
    if not stat.S_ISREG(mode):  # a directory; or a pipe, whose opening would wait for ever
        raise DecodeError("connectors.not_a_file", file=file)
    try:
        with path.open("rb") as stream:
            return read_lines(iter(lambda: stream.readline(LONGEST_ROW + 1), b""), file, layout)
    except OSError as error:
        raise Unavailable("connectors.unreadable", file=file, reason=error.strerror or "") from None


def read_lines(lines: Iterable[bytes], file: str, layout: Layout) -> pa.Table:
    """`read_csv` of lines already at hand; `file` is their name for messages."""
    source = _Lines(lines, file)
    rows = csv.reader(source, strict=True)
    identifiers, texts = layout.identifiers, layout.texts
    names = [*texts, *(column.source for column in layout.read_columns)]
    parsers: list[Callable[[str], Cell]] = [_date if name == layout.date_column else _identifier for name in texts]
    parsers += [_parser(column) for column in layout.read_columns]
    labels = [*texts, *(column.name for column in layout.read_columns)]
    first = _next(rows, source)
    if first is None:
        raise DecodeError("connectors.file_empty", file=file)
    if layout.header:
        order, width = _order(first, names, labels, layout, source), len(first)
        first = None
    else:
        order, width = list(range(len(names))), len(names)
    cells: list[list[Cell]] = [[] for _ in names]
    batches: list[list[pa.Array]] = [[] for _ in names]
    types = [pa.date32() if name == layout.date_column else pa.string() for name in texts]
    types += [_type(column) for column in layout.read_columns]

    def flush() -> None:
        for held, batch, kind in zip(cells, batches, types, strict=True):
            batch.append(pa.array(held, kind))
            held.clear()

    remembered: list[dict[str, Cell]] = [{} for _ in names]
    steps = list(zip(order, parsers, cells, remembered, labels, strict=True))
    count = 0
    row = first if first is not None else _next(rows, source)
    while row is not None:
        if len(row) != width:
            raise DecodeError("connectors.ragged_row", file=file, line=source.start, found=len(row), expected=width)
        count += 1
        if count > MOST_ROWS:
            raise DecodeError("connectors.too_many_rows", file=file, limit=MOST_ROWS)
        for position, parse, held, known, label in steps:
            text = row[position]
            if text in known:
                held.append(known[text])
                continue
            try:
                value = parse(text.strip(_BLANK))
            except _BadCell:
                code = "connectors.no_identifier" if label in identifiers else "connectors.not_a_number"
                raise DecodeError(code, file=file, line=source.start, column=label) from None
            if len(known) < _MOST_REMEMBERED:
                known[text] = value
            held.append(value)
        if count % _BATCH == 0:
            flush()
        row = _next(rows, source)
    flush()
    read = {label: pa.chunked_array(batch, kind) for label, batch, kind in zip(labels, batches, types, strict=True)}
    ordered = {name: read[name] for name in texts}
    for column in layout.columns:
        ordered[column.name] = _derive(column, layout, read) if column.derived else read[column.name]
    return pa.table(ordered)


class _Lines(Iterator[str]):
    """Lines as text: UTF-8 without a byte-order mark, no NUL, a bounded row. Counts where a row began."""

    def __init__(self, lines: Iterable[bytes], file: str) -> None:
        self.lines = iter(lines)
        self.file = file
        self.line = 0
        self.start = 1
        self.pending = 0

    def begin_row(self) -> None:
        self.start = self.line + 1
        self.pending = 0

    def __next__(self) -> str:
        data = next(self.lines)
        self.line += 1
        self.pending += len(data)
        if self.pending > LONGEST_ROW:
            raise DecodeError("connectors.row_too_long", file=self.file, line=self.start, limit=LONGEST_ROW)
        if self.line == 1:
            if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise DecodeError("connectors.not_utf8", file=self.file, line=1)
            data = data.removeprefix(b"\xef\xbb\xbf")
        if b"\x00" in data:
            raise DecodeError("connectors.nul_byte", file=self.file, line=self.line)
        text = _decoded(data)
        if text is None:
            raise DecodeError("connectors.not_utf8", file=self.file, line=self.line)
        return text


def _decoded(data: bytes) -> str | None:
    """The text, or None: a UnicodeDecodeError would carry the row into the error's context."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _next(rows: Iterator[list[str]], source: _Lines) -> list[str] | None:
    """The next row that is not blank, or None at the end."""
    while True:
        source.begin_row()
        try:
            row = next(rows)
        except StopIteration:
            return None
        except csv.Error:
            raise DecodeError("connectors.broken_row", file=source.file, line=source.start) from None
        if row and (len(row) > 1 or row[0].strip(_BLANK)):
            return row


def _order(
    header: Sequence[str], names: Sequence[str], labels: Sequence[str], layout: Layout, source: _Lines
) -> list[int]:
    """Where each wanted column stands. The header must hold exactly the declared columns, in any order."""
    found: dict[str, int] = {}
    for position, cell in enumerate(header):
        name = cell.strip(_BLANK)
        if name not in names and name not in layout.ignored:
            raise DecodeError(
                "connectors.undeclared_column", file=source.file, line=source.start, position=position + 1
            )
        if name in found:
            raise DecodeError("connectors.repeated_column", file=source.file, line=source.start, position=position + 1)
        found[name] = position
    absent = [label for name, label in zip(names, labels, strict=True) if name not in found]
    if absent:
        raise DecodeError("connectors.missing_columns", file=source.file, line=source.start, columns=", ".join(absent))
    return [found[name] for name in names]


def _type(column: Column) -> pa.DataType:
    return pa.float64() if column.kind == "number" else pa.string()


def _parser(column: Column) -> Callable[[str], Cell]:
    return _number_parser(column) if column.kind == "number" else _category_parser(column)


def _number_parser(column: Column) -> Callable[[str], float | None]:
    markers = frozenset(column.missing)
    missing = frozenset(float(marker) for marker in markers if _NUMBER.fullmatch(marker))

    def parse(text: str) -> float | None:
        if text in markers or text.lower() in _NOT_A_VALUE:
            return None
        infinite = _INFINITE.fullmatch(text)
        if not infinite and not _NUMBER.fullmatch(text):
            raise _BadCell
        value = float(text)
        return None if value in missing else value

    return parse


def _category_parser(column: Column) -> Callable[[str], str | None]:
    markers = frozenset(column.missing)
    whole_markers = frozenset(whole for marker in markers if (whole := _whole(marker)) is not None)
    codes = {value: value for value in column.values} | dict(column.codes)
    whole_codes = {whole: value for code, value in codes.items() if (whole := _whole(code)) is not None}

    def parse(text: str) -> str | None:
        if text in markers:
            return None
        if text in codes:
            return codes[text]
        whole = _whole(text)
        if whole is None:
            return OTHER_VALUE
        return None if whole in whole_markers else whole_codes.get(whole, OTHER_VALUE)

    return parse


def _whole(text: str) -> str | None:
    """The one spelling of a whole number ("1" for "1.0", "+1", "01"), or None."""
    match = _WHOLE.fullmatch(text)
    if not match:
        return None
    sign, digits = match.groups()
    return digits if sign != "-" or digits == "0" else "-" + digits


def _identifier(text: str) -> str:
    if not text:
        raise _BadCell
    return text


def _date(text: str) -> date | None:
    """A calendar date that a civil day can be; anything else is no date: content, not form."""
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    try:
        found = date(*map(int, match.groups()))
        day_of(found)
    except (ValueError, DecodeError):
        return None
    return found


def _derive(column: Column, layout: Layout, read: dict[str, pa.ChunkedArray]) -> pa.Array:
    """A derived column: the first case that holds on the clamped cells, else `otherwise`.

    Null where a column of its cases is missing.
    """
    sources = {case.column for case in column.cases}
    cells: dict[str, np.ndarray] = {}
    for name in sources:
        number = layout.column(name)
        scaled = read[name].to_numpy() * number.scale  # null becomes NaN and stays NaN
        cells[name] = np.clip(np.rint(scaled), number.low, number.high)
    rows = len(next(iter(cells.values())))
    index = np.full(rows, column.values.index(column.otherwise), dtype=np.int64)
    for case in reversed(column.cases):  # the first case that holds is written last
        found = cells[case.column]
        holds = found == case.bound if case.test == "equals" else found >= case.bound
        index[holds] = column.values.index(case.value)
    missing = np.any([np.isnan(values) for values in cells.values()], axis=0)
    return pa.array(np.array(column.values, dtype=object)[index], pa.string(), mask=missing)
