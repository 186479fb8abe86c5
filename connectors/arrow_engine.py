"""The local engine in memory: a plan over an Arrow table becomes exact integers by group.

Runs at the site, on decrypted rows. Everything is int64 and exact: `LocalPlan.check` has proved that
no sum can leave it.

Whoever asks sees when a site's keys come, which is after this, and may close the query then at no cost. So each step
is taken over all rows of the table, whichever of them count: a filter that only a few rows pass takes as long as one
that all pass. The time depends on the table and on the plan. Not promised: the same time to the microsecond.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import acero

from privacy.local import GroupColumn, LocalPlan, RowFilter
from privacy.predicate import check, to_arrow
from privacy.vault.person_names import canonical
from wire.errors import Refused

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_EDGE = 2.0**63
_SAFE = 2**63


class ArrowEngine:
    """Implements `privacy.local.LocalEngine` over one table (secret): numbers, and categories as text."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._persons: dict[str, Integers] = {}  # by column, what `_codes` found there: all plans of a query have one

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
        passing = _passing(table, row_filter)
        if plan.measure is None:
            values, known = np.zeros(table.num_rows, dtype=np.int64), np.ones(table.num_rows, dtype=bool)
        else:
            values, known = scaled(table[plan.measure], plan)
        group, declared = _groups(table, plan)
        counted = known & passing
        if plan.person:
            # "the first rows_per_person rows of a person, after filtering and leaving out missing measures":
            # rows of undeclared groups count towards them and leave afterwards.
            if plan.person not in self._persons:
                self._persons[plan.person] = _codes(table[plan.person])
            counted = _first_rows(self._persons[plan.person], counted, plan.rows_per_person)
        return _sums(plan, values, group, counted & declared)


def _passing(table: pa.Table, row_filter: RowFilter) -> Mask:
    """Which rows pass: plainly true is what a condition must be."""
    if row_filter.predicate is None:
        return np.ones(table.num_rows, dtype=bool)
    names = sorted(row_filter.columns())
    check(row_filter.predicate, {name: _kind(table.schema.field(name).type) for name in names})
    rows = acero.Declaration("table_source", acero.TableSourceNodeOptions(table.select(names)))
    judged = acero.ProjectNodeOptions([to_arrow(row_filter.predicate)], ["passes"])
    found = acero.Declaration.from_sequence([rows, acero.Declaration("project", judged)]).to_table(use_threads=False)
    return np.asarray(pc.fill_null(found["passes"], False))


def scaled(cells: pa.ChunkedArray, plan: LocalPlan) -> tuple[Integers, Mask]:
    """(v' clamped to low..high, whether the cell is known): v' = round_half_even(v * scale).

    The product of a float column is a double's. Null, NaN and the plan's missing markers are unknown;
    the integer beside them means nothing.
    """
    known = ~np.asarray(pc.is_null(cells, nan_is_null=True))
    if pa.types.is_integer(cells.type):
        return _whole(cells, plan, known)
    with np.errstate(over="ignore"):
        rounded = np.rint(cells.cast(pa.float64()).to_numpy() * plan.scale)
    for marker in plan.missing:
        known &= rounded != float(marker)
    rounded = np.where(known, rounded, float(plan.centre))
    inside = (rounded >= -_EDGE) & (rounded < _EDGE)
    integers = np.where(inside, rounded, 0.0).astype(np.int64)
    clamped = np.clip(integers, plan.low, plan.high)
    return np.where(inside, clamped, np.where(rounded > 0, plan.high, plan.low)).astype(np.int64), known


def _whole(cells: pa.ChunkedArray, plan: LocalPlan, known: Mask) -> tuple[Integers, Mask]:
    """`scaled` for whole numbers. v * scale may leave 64 bits, so v is brought near the bounds before."""
    whole = np.asarray(pc.fill_null(cells, 0))
    for marker in plan.missing:
        if marker % plan.scale == 0:
            known &= whole != marker // plan.scale
    lowest, highest = plan.low // plan.scale, -(-plan.high // plan.scale)
    kinds = np.iinfo(whole.dtype)
    lowest, highest = (min(max(edge, kinds.min), kinds.max) for edge in (lowest, highest))
    near = np.clip(whole, lowest, highest)
    if max(abs(lowest), abs(highest)) * plan.scale < _SAFE:
        return np.clip(near.astype(np.int64) * plan.scale, plan.low, plan.high), known
    units = [min(max(int(cell) * plan.scale, plan.low), plan.high) for cell in near.tolist()]
    return np.array(units, dtype=np.int64), known


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


def _first_rows(codes: Integers, counted: Mask, most: int) -> Mask:
    """Which of the rows that are `counted` are the first `most` ones of their person.

    All rows without a person are one person's.
    """
    order = np.argsort(codes, kind="stable")
    ordered, there = codes[order], counted[order].astype(np.int64)
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])[: len(ordered)]  # none where there is no row
    before = np.cumsum(there) - there  # counted rows above each, of all persons
    rank = before - np.repeat(before[starts], np.diff(np.r_[starts, len(ordered)]))
    first = np.zeros(len(codes), dtype=bool)
    first[order] = rank < most
    return first & counted


def _codes(persons: pa.ChunkedArray) -> Integers:
    """A number for the person of each row, the same in whatever spelling the row has them; -1 without one.

    What the noise covers is the rows of one person: in two spellings they would be twice as many.
    """
    encoded = pc.dictionary_encode(persons.combine_chunks())
    spelled = np.asarray(pc.fill_null(encoded.indices, -1)).astype(np.int64)
    numbers: dict[object, int] = {}
    same = []
    for one in encoded.dictionary.to_pylist():
        same.append(numbers.setdefault(canonical(one) if isinstance(one, str) else one, len(numbers)))
    return np.array([*same, -1], dtype=np.int64)[spelled]


def _sums(plan: LocalPlan, values: Integers, group: Integers, counted: Mask) -> pa.Table:
    """count; with a measure sum of (v' - centre), of its square and the histogram, for every declared group.

    Rows that are not `counted` add nothing to the group that they would be in.
    """
    groups = len(plan.group_labels())
    centred = values - plan.centre
    ones = counted.astype(np.int64)

    def total(what: Integers) -> Integers:
        sums = np.zeros(groups, dtype=np.int64)
        np.add.at(sums, group, what * ones)
        return sums

    columns: list[Any] = [pa.array(plan.group_labels(), pa.string()), total(ones)]
    if plan.measure is not None:
        columns += [total(centred), total(centred * centred)]
    if plan.measure is not None and plan.bins:
        edges = np.array(plan.edges, dtype=np.int64)
        # bin_i: edges[i] <= v' < edges[i + 1]; the last bin includes its upper edge
        position = np.minimum(np.searchsorted(edges, values, side="right") - 1, plan.bins - 1)
        histogram = np.zeros((groups, plan.bins), dtype=np.int64)
        np.add.at(histogram, (group, position), ones)
        columns += [histogram[:, index] for index in range(plan.bins)]
    return pa.table([pa.array(column) for column in columns], schema=plan.result_schema())
