"""What a table holds: declared columns, bounds, missing markers, and the study it was made for.

A layout comes from a `dataset.toml` beside the site files or is built in (`layouts/`). It is public:
all sites of a population share it, its hash stands on the ledger, and it never depends on the rows.
Numbers are exact: a bound is an integer in units of 1/scale of its column. See docs/dataset-toml.md;
`connectors.dataset` parses and checks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from privacy.local import GroupColumn, GroupValue, LocalPlan
from privacy.predicate import Field
from wire.canonical import Wire, decode, encode
from wire.domains import SCHEMA, digest
from wire.errors import DecodeError

OTHER_VALUE = "other"
"""What a category cell outside the declared values becomes."""

MOST_ROWS = 10_000_000
"""Most rows of one site's table."""
SMALLEST_CLASS = 100
"""The row class of every table up to this size, the empty one too."""

Exact = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
"""An integer in units of 1/scale: exact as a double too."""


class Case(Wire, frozen=True, tag="connectors.case"):
    """One rule of a derived column: `value` where number column `column` passes `test` against `bound`.

    bound: in units of 1/scale of that column.
    """

    column: Field
    test: Literal["equals", "at_least"]
    bound: Exact
    value: GroupValue


class Column(Wire, frozen=True, tag="connectors.column"):
    """A declared column.

    name: what grants and queries call it. source: what the header of the file calls it.
    kind "number": low..high in units of 1/scale. kind "category": `values`, codes maps cells to them.
    missing: cells that mean "not known" (numbers compare as numbers, so "0" covers "0.0").
    cases, otherwise: a derived column; it is computed, not read.
    """

    name: Field
    source: str
    kind: Literal["number", "category"]
    low: Exact
    high: Exact
    scale: Annotated[int, msgspec.Meta(ge=1, le=10**9)]
    values: tuple[GroupValue, ...]
    codes: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]
    cases: tuple[Case, ...]
    otherwise: str

    @property
    def derived(self) -> bool:
        """Whether the column is computed from others."""
        return bool(self.cases)


class Label(Wire, frozen=True, tag="connectors.label"):
    """How a column or a study is called on a screen, in English and Chinese, and its unit."""

    title: str
    title_zh: str
    unit: str = ""
    unit_zh: str = ""

    def text(self, language: str = "en") -> str:
        """The title in `language` ("en" or "zh")."""
        return self.title_zh if language == "zh" else self.title

    def unit_text(self, language: str = "en") -> str:
        """The unit in `language`; "" for none."""
        return self.unit_zh if language == "zh" else self.unit


class Study(Wire, frozen=True, tag="connectors.study"):
    """The question a layout suggests: a measure by groups.

    edges: of the histogram, in units of 1/scale of the measure, within its bounds. The first and the
    last bound the study: values beyond count as the bound, and the noise falls with the width.
    minimum: the smallest noisy pooled count whose group is shown. other: whether rows of unknown
    group form the group "other".
    """

    measure: Field
    groups: tuple[Field, ...]
    edges: tuple[Exact, ...]
    minimum: Annotated[int, msgspec.Meta(ge=1, le=10**6)]
    other: bool
    label: Label


class _Schema(Wire, frozen=True, tag="connectors.schema"):
    """What the schema hash covers: everything that changes the meaning of a cell, no titles."""

    version: int
    name: str
    unit: str
    rows_per_person: int
    record_id: str
    person: str
    columns: tuple[Column, ...]


class Layout(Wire, frozen=True, tag="connectors.layout"):
    """A declared dataset.

    name, population: identifiers. unit: the privacy unit. rows_per_person: the cap (1 where the
    unit is the row). colluders: sites assumed to collude when noise is shared out. record_id and
    person name text columns of the file ("" for none); ignored names columns that are never read.
    header: whether the first line names the columns; without it they stand in declared order.
    about: where the data come from and under which licence. split_rule: how rows were dealt to sites.
    record_type: of `privacy.retention.RECORD_TYPES`, or "" for not declared; date_column: the text column of the file
    that holds each record's own day, or "". They say how long rows must be kept, not what cells mean: they are not in
    the schema hash, and sites of one population may differ in them.
    """

    version: int
    name: str
    population: str
    unit: Literal["row", "person"]
    rows_per_person: int
    colluders: int
    header: bool
    record_id: str
    person: str
    ignored: tuple[str, ...]
    columns: tuple[Column, ...]
    labels: tuple[Label, ...]
    study: Study | None
    about: Label
    split_rule: Label
    record_type: str = ""
    date_column: str = ""

    def column(self, name: str) -> Column:
        """The column called `name`. ValueError where there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise ValueError(f"layout {self.name} has no column {name!r}")

    def label(self, name: str) -> Label:
        """How the column called `name` is called on a screen."""
        return self.labels[self.columns.index(self.column(name))]

    @property
    def read_columns(self) -> tuple[Column, ...]:
        """The columns that stand in the file, in declared order."""
        return tuple(column for column in self.columns if not column.derived)

    @property
    def identifiers(self) -> tuple[str, ...]:
        """The text columns of the file that name a record or a person: record id first, no repeats."""
        return tuple(dict.fromkeys(name for name in (self.record_id, self.person) if name))

    @property
    def texts(self) -> tuple[str, ...]:
        """The text columns of the file, in this order: the identifiers, then the date column."""
        return tuple(dict.fromkeys((*self.identifiers, *([self.date_column] if self.date_column else []))))

    def kinds(self) -> Mapping[str, str]:
        """ "number" or "category" by column: what `privacy.local.bind` checks a predicate against."""
        return {column.name: column.kind for column in self.columns}


_OLDER = msgspec.defstruct(
    "LayoutWithoutRetention",
    [(field.name, field.type) for field in msgspec.structs.fields(Layout) if field.required],
    tag="connectors.layout",
    frozen=True,
    array_like=True,
    forbid_unknown_fields=True,
)


def kept_layout(data: bytes) -> Layout:
    """The layout of its canonical bytes, also those from before layouts said how long rows must be kept.

    Raises DecodeError.
    """
    try:
        return decode(Layout, data)
    except DecodeError:
        older = decode(_OLDER, data)
    return Layout(**{name: getattr(older, name) for name in older.__struct_fields__})


def schema_hash(layout: Layout) -> bytes:
    """SHA-256 of what gives a cell its meaning: 32 public bytes, the same at every site."""
    return digest(
        SCHEMA,
        encode(
            _Schema(
                version=layout.version,
                name=layout.name,
                unit=layout.unit,
                rows_per_person=layout.rows_per_person,
                record_id=layout.record_id,
                person=layout.person,
                columns=layout.columns,
            )
        ),
    )


def row_class(count: int) -> int:
    """`count` rounded up to a public step of 100, 200, 500, 1,000, 2,000, 5,000, ...

    The class goes on the ledger, the exact count stays at home. An empty table has class 100.
    """
    if not 0 <= count <= MOST_ROWS:
        raise ValueError(f"a table has 0 to {MOST_ROWS} rows")
    step = SMALLEST_CLASS
    while True:
        for factor in (1, 2, 5):
            if count <= factor * step:
                return factor * step
        step *= 10


def local_plan(layout: Layout, max_rows: int) -> LocalPlan:
    """The layout's own study as a plan. max_rows: the largest row class of the roster.

    ValueError where the layout has no study. Missing markers are not repeated in the plan: reading
    a file has already turned such cells into nulls.
    """
    study = layout.study
    if study is None:
        raise ValueError(f"layout {layout.name} declares no study")
    measure = layout.column(study.measure)
    plan = LocalPlan(
        measure=measure.name,
        low=study.edges[0] if study.edges else measure.low,
        high=study.edges[-1] if study.edges else measure.high,
        scale=measure.scale,
        groups=tuple(
            GroupColumn(name=name, values=layout.column(name).values, other=study.other)
            for name in sorted(study.groups)  # as queries have them
        ),
        edges=study.edges,
        max_rows=max_rows,
        person=layout.person if layout.unit == "person" else "",
        rows_per_person=layout.rows_per_person,
    )
    plan.check()
    return plan
