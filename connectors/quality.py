"""How clean a table is, and the table as it may be kept: clamped, one row a record.

Dirty data never stops a load and is never reported per query: out-of-bounds numbers are counted and
clamped, unknown categories are counted and are "other" already, a repeated record id is counted and
only its first row is kept. The report is exact and therefore the site's own; what is published of
it is noised and paid for elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectors.layout import OTHER_VALUE, Layout
from wire.dates import day_of


@dataclass(frozen=True)
class ColumnQuality:
    """Counts of one column that was read. Exact: private to the site."""

    column: str
    missing: int
    out_of_range: int
    """Numbers beyond the bounds, or categories that are not declared."""


@dataclass(frozen=True)
class QualityReport:
    """Counts of one table as it was read. Exact: private to the site.

    duplicates: rows whose record id stood in an earlier row; None where the layout has no record id:
    equal rows may then be different people, so duplicates are not judged.
    """

    rows: int
    columns: tuple[ColumnQuality, ...]
    duplicates: int | None
    dirty_cells: int
    """Missing or out of range, or in a duplicate row: each cell once."""

    @property
    def missing(self) -> dict[str, int]:
        """Missing cells by column."""
        return {column.column: column.missing for column in self.columns}

    @property
    def out_of_range(self) -> dict[str, int]:
        """Out-of-range cells by column."""
        return {column.column: column.out_of_range for column in self.columns}

    @property
    def cells(self) -> int:
        """Cells that were read, identifiers and derived columns not counted."""
        return self.rows * len(self.columns)

    @property
    def dirty_rate(self) -> float:
        """Dirty cells over all cells, 0.0 to 1.0; 0.0 for an empty table."""
        return self.dirty_cells / self.cells if self.cells else 0.0

    @property
    def duplicates_judged(self) -> bool:
        """Whether there was a record id to judge duplicates by."""
        return self.duplicates is not None


@dataclass(frozen=True)
class Prepared:
    """What a vault takes in: a clean table (secret), its record ids in row order, and the report.

    days: each row's own civil day (secret), None where its cell was no date; None where the layout has no date column.
    """

    table: pa.Table
    record_ids: tuple[str, ...] | None
    report: QualityReport
    days: tuple[int | None, ...] | None = None


def quality(table: pa.Table, layout: Layout) -> QualityReport:
    """Judge a table as `files.read_csv` returns it (before clamping)."""
    again = _repeated(table, layout)
    repeated = np.zeros(table.num_rows, dtype=bool) if again is None else again
    counts = []
    dirty_cells = 0
    for column in layout.read_columns:
        cells = table[column.name]
        absent = np.asarray(pc.is_null(cells, nan_is_null=True))
        if column.kind == "number":
            values = cells.to_numpy()
            with np.errstate(invalid="ignore"):
                beyond = (values < column.low / column.scale) | (values > column.high / column.scale)
        else:
            beyond = np.asarray(pc.fill_null(pc.equal(cells, OTHER_VALUE), False))
        counts.append(ColumnQuality(column.name, int(absent.sum()), int(beyond.sum())))
        dirty_cells += int((absent | beyond | repeated).sum())
    duplicates = None if again is None else int(again.sum())
    return QualityReport(table.num_rows, tuple(counts), duplicates, dirty_cells)


def clamp(table: pa.Table, layout: Layout) -> pa.Table:
    """The same rows with every number inside its declared bounds; null stays null."""
    for column in layout.read_columns:
        if column.kind == "number":
            low, high = column.low / column.scale, column.high / column.scale
            cells = table[column.name].to_numpy()
            absent = np.isnan(cells)
            clamped = pa.array(np.clip(cells, low, high), pa.float64(), mask=absent)
            table = table.set_column(table.column_names.index(column.name), column.name, clamped)
    return table


def prepare(table: pa.Table, layout: Layout) -> Prepared:
    """Judge and clean a table as read: clamped, the first row of each record id only.

    The record id leaves the table for `record_ids` (None without one), unless it is the person
    column too, which queries need to cap rows per person. The date column leaves it for `days`.
    """
    report = quality(table, layout)
    again = _repeated(table, layout)
    if again is not None:
        table = table.filter(pa.array(~again))
    table = clamp(table, layout)
    days = None
    if layout.date_column:
        dates = table[layout.date_column].to_pylist()
        known = {day: None if day is None else day_of(day) for day in set(dates)}
        days = tuple(known[day] for day in dates)
        table = table.drop_columns([layout.date_column])
    if not layout.record_id:
        return Prepared(table, None, report, days)
    record_ids = tuple(table[layout.record_id].to_pylist())
    if layout.record_id != layout.person:
        table = table.drop_columns([layout.record_id])
    return Prepared(table, record_ids, report, days)


def _repeated(table: pa.Table, layout: Layout) -> np.ndarray | None:
    """Which rows repeat the record id of an earlier row; None where there is no record id."""
    if not layout.record_id:
        return None
    ids = pc.dictionary_encode(table[layout.record_id].combine_chunks()).indices.to_numpy()
    again = np.ones(table.num_rows, dtype=bool)
    again[np.unique(ids, return_index=True)[1]] = False
    return again
