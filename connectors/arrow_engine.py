"""The local engine in memory: a plan over an Arrow table becomes exact integers by group.

Runs at the site, on decrypted rows. Everything is int64 and exact: `LocalPlan.check` has proved that
no sum can leave it. The time taken depends on the data; it is not shown to anyone but the site.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from privacy.local import GroupColumn, LocalPlan, RowFilter
from privacy.predicate import check, to_arrow
from privacy.vault.person_names import canonical
from wire.errors import Refused

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_EDGE = 2.0**63


class ArrowEngine:
    """Implements `privacy.local.LocalEngine` over one table (secret): numbers, and categories as text."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def run(self, plan: LocalPlan, row_filter: RowFilter) -> pa.Table:
        """See `privacy.local.LocalEngine.run`. The result is secret.

        Raises Refused: a plan that does not check, a column that is absent or of the wrong kind,
        more rows than the plan allows.
        """
        plan.check()
        table = self._table
        for name in sorted(plan.columns() | row_filter.columns()):
            if table.column_names.count(name) != 1:
                raise Refused("connectors.no_such_column", column=name)
        if plan.measure is not None:
            measure = table.schema.field(plan.measure).type
            if not (pa.types.is_integer(measure) or pa.types.is_floating(measure)):
                raise Refused("connectors.not_a_measure", column=plan.measure)
        if table.num_rows > plan.max_rows:
            raise Refused("connectors.more_rows_than_declared", limit=plan.max_rows)
        if row_filter.predicate is not None:
            check(row_filter.predicate, {name: _kind(table.schema.field(name).type) for name in row_filter.columns()})
            table = table.filter(to_arrow(row_filter.predicate))
        if plan.measure is None:
            values, known = np.zeros(table.num_rows, dtype=np.int64), np.ones(table.num_rows, dtype=bool)
        else:
            values, known = scaled(table[plan.measure], plan)
        group, declared = _groups(table, plan)
        if plan.person:
            # "the first rows_per_person rows of a person, after filtering and leaving out missing measures":
            # rows of undeclared groups count towards them and leave afterwards.
            known[known] = _first_rows(table[plan.person].filter(pa.array(known)), plan.rows_per_person)
        counted = known & declared
        return _sums(plan, values[counted], group[counted])


def scaled(cells: pa.ChunkedArray, plan: LocalPlan) -> tuple[Integers, Mask]:
    """(v' clamped to low..high, whether the cell is known): v' = round_half_even(v * scale).

    The product of a float column is a double's. Null, NaN and the plan's missing markers are unknown;
    the integer beside them means nothing.
    """
    known = ~np.asarray(pc.is_null(cells, nan_is_null=True))
    if pa.types.is_integer(cells.type):
        # Python integers: v * scale may leave 64 bits before it is clamped.
        units = [int(cell) * plan.scale if cell is not None else plan.low for cell in cells.to_pylist()]
        known &= ~np.array([unit in plan.missing for unit in units], dtype=bool)
        return np.array([min(max(unit, plan.low), plan.high) for unit in units], dtype=np.int64), known
    with np.errstate(over="ignore"):
        rounded = np.rint(cells.cast(pa.float64()).to_numpy() * plan.scale)
    for marker in plan.missing:
        known &= rounded != float(marker)
    rounded = np.where(known, rounded, float(plan.centre))
    inside = (rounded >= -_EDGE) & (rounded < _EDGE)
    integers = np.where(inside, rounded, 0.0).astype(np.int64)
    clamped = np.clip(integers, plan.low, plan.high)
    return np.where(inside, clamped, np.where(rounded > 0, plan.high, plan.low)).astype(np.int64), known


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return "category" if pa.types.is_string(kind) or pa.types.is_large_string(kind) else "number"


def _groups(table: pa.Table, plan: LocalPlan) -> tuple[Integers, Mask]:
    """(index into plan.combinations(), whether every group of the row is a declared one)."""
    index = np.zeros(table.num_rows, dtype=np.int64)
    declared = np.ones(table.num_rows, dtype=bool)
    for column in plan.groups:
        label, known = _labels(table[column.name], column)
        index = index * len(column.labels()) + label
        declared &= known
    return index, declared


def _labels(cells: pa.ChunkedArray, column: GroupColumn) -> tuple[Integers, Mask]:
    """(index into column.labels(), whether the row stays): undeclared and missing cells are "other" or leave."""
    if pa.types.is_dictionary(cells.type):
        cells = cells.cast(cells.type.value_type)
    if _kind(cells.type) == "category":
        found = pc.index_in(cells.cast(pa.string()), value_set=pa.array(column.values, pa.string()))
        label = np.asarray(pc.fill_null(found, -1)).astype(np.int64)
    else:
        numbers = cells.cast(pa.float64(), safe=False).to_numpy()
        label = np.full(len(numbers), -1, dtype=np.int64)
        for position, value in enumerate(column.values):
            number = _as_number(value)
            if number is not None:
                label[numbers == number] = position
    unknown = label < 0
    if column.other:
        return np.where(unknown, len(column.values), label), np.ones(len(label), dtype=bool)
    return np.where(unknown, 0, label), ~unknown


def _as_number(value: str) -> float | None:
    """The number that prints as `value` ("1", "2.5"), or None: "01" and "1.0" are no number's text."""
    try:
        number = float(value)
    except ValueError:
        return None
    text = str(int(number)) if number.is_integer() else repr(number)
    return number if text == value else None


def _first_rows(persons: pa.ChunkedArray, most: int) -> Mask:
    """Which rows are among the first `most` of their person. All rows without a person are one person's."""
    codes = _codes(persons)
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])[: len(ordered)]  # none where there is no row
    lengths = np.diff(np.r_[starts, len(ordered)])
    rank = np.arange(len(ordered)) - np.repeat(starts, lengths)
    first = np.zeros(len(codes), dtype=bool)
    first[order] = rank < most
    return first


def _codes(persons: pa.ChunkedArray) -> Integers:
    """A number for the person of each row, the same in whatever spelling the row has them; -1 without one.

    What the noise covers is the rows of one person: in two spellings they would be twice as many.
    """
    encoded = pc.dictionary_encode(persons.combine_chunks())
    spelled = np.asarray(pc.fill_null(encoded.indices, -1)).astype(np.int64)
    numbers: dict[object, int] = {}
    names = (canonical(one) if isinstance(one, str) else one for one in encoded.dictionary.to_pylist())
    same = np.array([*(numbers.setdefault(name, len(numbers)) for name in names), -1], dtype=np.int64)
    return same[spelled]


def _sums(plan: LocalPlan, values: Integers, group: Integers) -> pa.Table:
    """count; with a measure sum of (v' - centre), of its square and the histogram, for every declared group."""
    groups = len(plan.group_labels())
    centred = values - plan.centre

    def total(what: Integers) -> Integers:
        sums = np.zeros(groups, dtype=np.int64)
        np.add.at(sums, group, what)
        return sums

    columns: list[Any] = [pa.array(plan.group_labels(), pa.string()), total(np.ones(len(values), dtype=np.int64))]
    if plan.measure is not None:
        columns += [total(centred), total(centred * centred)]
    if plan.measure is not None and plan.bins:
        edges = np.array(plan.edges, dtype=np.int64)
        # bin_i: edges[i] <= v' < edges[i + 1]; the last bin includes its upper edge
        position = np.minimum(np.searchsorted(edges, values, side="right") - 1, plan.bins - 1)
        histogram = np.zeros((groups, plan.bins), dtype=np.int64)
        np.add.at(histogram, (group, position), 1)
        columns += [histogram[:, index] for index in range(plan.bins)]
    return pa.table([pa.array(column) for column in columns], schema=plan.result_schema())
