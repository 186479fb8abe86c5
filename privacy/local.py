"""What a site computes over its own rows for one query: the plan, the filter, the engine's promise.

A plan is public: a measure with declared bounds, groups from declared domains, histogram edges. An
engine (`connectors.arrow_engine` is the one in memory) turns it into a table of exact integers at
home; `mpc` adds noise and masks before anything leaves. Nothing here depends on the data in the
open: out-of-bounds values are clamped, missing ones leave the sums, unknown groups become "other"
(or leave, where the plan says so), and every declared group is always in the result, empty or not.

Numbers. With plan.scale = s, a cell v becomes the integer v' = round_half_even(v * s), clamped to
low..high; low, high, edges and missing are integers in the same unit 1/s. Sums are centred, so that
one row moves them least: with centre = (low + high) // 2,

    count        rows of the group with a known measure
    sum          sum of (v' - centre)
    sum_squares  sum of (v' - centre)^2
    bin_i        rows with edges[i] <= v' < edges[i + 1]; the last bin includes its upper edge

A plan without a measure counts rows and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise, product
from typing import Annotated, Protocol

import msgspec
import pyarrow as pa

from privacy.predicate import And, Field, Int64, Predicate, check, columns
from wire.canonical import Wire
from wire.errors import Refused

OTHER = "other"
"""The group of a value outside the declared domain, or of a missing one."""
ALL = "all"
"""The only group of a plan without group columns."""

_SPACE = 2**62
_FORBIDDEN_IN_VALUES = ("|", "=")

GroupValue = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]


class GroupColumn(Wire, frozen=True, tag="privacy.group_column"):
    """A column to group by and its declared domain, compared as text.

    other: whether unknown and missing values form the group "other" (after the declared values).
    Without it such rows are left out.
    """

    name: Field
    values: Annotated[tuple[GroupValue, ...], msgspec.Meta(min_length=1)]
    other: bool = True

    def labels(self) -> tuple[str, ...]:
        """The values a row can have in the result, in order."""
        return (*self.values, OTHER) if self.other else self.values


class LocalPlan(Wire, frozen=True, tag="privacy.local_plan"):
    """What to compute. All of it public; see the module's docstring for units.

    measure: the column, or None: rows are counted, and low, high, edges and missing say nothing.
    missing: values of v' (before clamping) that mean "not known", such as cholesterol 0.
    max_rows: public upper bound on a site's rows (the largest row class of the roster): sums are
    proved to fit from it. person: the column that names the person, or "" where a row is its own
    person; only the first `rows_per_person` rows of a person, in table order after filtering and
    after leaving out missing measures, are counted.
    """

    measure: Field | None
    low: Int64
    high: Int64
    scale: Annotated[int, msgspec.Meta(ge=1, le=10**9)]
    groups: tuple[GroupColumn, ...]
    edges: tuple[Int64, ...]
    max_rows: Annotated[int, msgspec.Meta(ge=1, lt=2**40)]
    missing: tuple[Int64, ...] = ()
    person: str = ""
    rows_per_person: Annotated[int, msgspec.Meta(ge=1, lt=2**31)] = 1

    @property
    def centre(self) -> int:
        """What is subtracted from each value before summing, in units of 1/scale."""
        return (self.low + self.high) // 2

    @property
    def largest(self) -> int:
        """Largest |v' - centre| that can occur."""
        return max(self.high - self.centre, self.centre - self.low)

    @property
    def bins(self) -> int:
        """Number of histogram bins; 0 for no histogram."""
        return max(len(self.edges) - 1, 0)

    @property
    def numbers(self) -> tuple[str, ...]:
        """What is computed of each group: count; with a measure sum, sum_squares, bin_0 .. bin_{k-1} as well."""
        if self.measure is None:
            return ("count",)
        return ("count", "sum", "sum_squares", *(f"bin_{i}" for i in range(self.bins)))

    def combinations(self) -> tuple[tuple[str, ...], ...]:
        """Every declared combination of group values, the last column fastest: the result's row order."""
        return tuple(product(*(group.labels() for group in self.groups)))

    def group_labels(self) -> tuple[str, ...]:
        """The result's `group` column: "health=good|plan=yes", or "all" without groups."""
        return tuple(self.label(values) for values in self.combinations())

    def label(self, values: tuple[str, ...]) -> str:
        """The label of one combination."""
        named = zip(self.groups, values, strict=True)
        return "|".join(f"{group.name}={value}" for group, value in named) or ALL

    def columns(self) -> frozenset[str]:
        """The columns the plan reads (the filter's come on top)."""
        person = {self.person} if self.person else set()
        measure = set() if self.measure is None else {self.measure}
        return frozenset({group.name for group in self.groups} | measure | person)

    def result_schema(self) -> pa.Schema:
        """Schema of the result: group and `numbers`; none nullable."""
        fields = [pa.field("group", pa.string(), nullable=False)]
        return pa.schema(fields + [pa.field(name, pa.int64(), nullable=False) for name in self.numbers])

    def check(self) -> None:
        """Check what the types cannot say. Raises Refused naming the declaration, never data."""
        if self.measure is not None:
            self._check_measure(self.measure)
        names = [group.name for group in self.groups]
        if len(set(names)) != len(names):
            raise Refused("privacy.plan_groups", column=next(name for name in names if names.count(name) > 1))
        for group in self.groups:
            labels = group.labels()
            if len(set(labels)) != len(labels) or any(c in value for value in labels for c in _FORBIDDEN_IN_VALUES):
                raise Refused("privacy.plan_groups", column=group.name)

    def _check_measure(self, measure: str) -> None:
        if self.low >= self.high:
            raise Refused("privacy.plan_bounds", measure=measure)
        if self.largest**2 * self.max_rows >= _SPACE:
            raise Refused("privacy.plan_overflow", measure=measure, rows=self.max_rows)
        if self.edges and (
            len(self.edges) < 2
            or self.edges[0] != self.low
            or self.edges[-1] != self.high
            or any(a >= b for a, b in pairwise(self.edges))
        ):
            raise Refused("privacy.plan_edges", measure=measure)


class RowFilter(msgspec.Struct, frozen=True):
    """A predicate bound to a table: its columns exist and its values are of their kinds.

    Make it with `bind`. predicate None lets every row pass.
    """

    predicate: Predicate | None

    def columns(self) -> frozenset[str]:
        """The columns the filter looks at."""
        return frozenset() if self.predicate is None else columns(self.predicate)


def bind(kinds: Mapping[str, str], *predicates: Predicate | None) -> RowFilter:
    """The rows that satisfy every one of `predicates` (a grant's, a query's; None is no condition).

    kinds: "number" or "category" by column of the table. Raises Refused for an unknown column or a
    value of the wrong kind.
    """
    given = tuple(predicate for predicate in predicates if predicate is not None)
    if not given:
        return RowFilter(None)
    joined: Predicate = given[0] if len(given) == 1 else And(given)
    check(joined, kinds)
    return RowFilter(joined)


class LocalEngine(Protocol):
    """Runs plans over one dataset at home."""

    def run(self, plan: LocalPlan, row_filter: RowFilter) -> pa.Table:
        """The exact integers of `plan` over the rows of `row_filter`, as `plan.result_schema()`.

        One row for each of `plan.group_labels()`, in that order. Secret: only noised and masked
        values leave the site. Raises Refused where the plan does not check, the table lacks a
        column of it, or has more than `plan.max_rows` rows.
        """
        ...
