"""`dataset.toml`: parse and check the declaration of a table. The format: docs/dataset-toml.md.

Every fault is a DecodeError that names the file and the column or key. Values of the declaration
may be named (it is public); the rows of a site are never looked at here.
"""

from __future__ import annotations

import re
import tomllib
from fractions import Fraction
from functools import cache
from importlib import resources
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Annotated, Literal, cast

import msgspec

from connectors.layout import OTHER_VALUE, Case, Column, Label, Layout, Study, local_plan, row_class, schema_hash
from privacy.predicate import FIELD_PATTERN
from privacy.retention import RECORD_TYPES
from wire.errors import DecodeError, Unavailable
from wire.identifiers import NAME_PATTERN

__all__ = [
    "BUILT_IN",
    "Layout",
    "load_layout",
    "local_plan",
    "parse_layout",
    "read_layout",
    "row_class",
    "schema_hash",
]

FORMAT_VERSION = 1
BUILT_IN = ("heart", "randhie")

_LARGEST_FILE = 1024 * 1024
_MOST_COLUMNS = 256
_MOST_VALUES = 1000
_MOST_CELLS = 2**17
_LARGEST_EXACT = 2**53
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_PLAIN_TEXT = re.compile(r"[^\x00-\x1f\x7f|=]{1,100}")
_WHERE = re.compile(r"at `\$?\.?(.*?)`")
_LINE = re.compile(r"at line (\d+)")

Number = int | str  # tomllib hands floats over as their text, so that bounds stay exact
Name = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN, max_length=64)]
FieldName = Annotated[str, msgspec.Meta(pattern=FIELD_PATTERN)]
Text = Annotated[str, msgspec.Meta(max_length=1000)]


class _TomlCase(msgspec.Struct, forbid_unknown_fields=True):
    column: str
    value: str
    equals: Number | None = None
    at_least: Number | None = None


class _TomlColumn(msgspec.Struct, forbid_unknown_fields=True):
    name: FieldName
    kind: Literal["number", "category"]
    source: Annotated[str, msgspec.Meta(max_length=200)] = ""
    title: Text = ""
    title_zh: Text = ""
    unit: Text = ""
    unit_zh: Text = ""
    low: Number | None = None
    high: Number | None = None
    scale: Annotated[int, msgspec.Meta(ge=1, le=10**9)] = 1
    values: tuple[str, ...] = ()
    codes: dict[str, str] = {}
    missing: tuple[Number, ...] = ()
    cases: tuple[_TomlCase, ...] = ()
    otherwise: str = ""


class _TomlStudy(msgspec.Struct, forbid_unknown_fields=True):
    measure: str
    groups: tuple[str, ...]
    edges: tuple[Number, ...]
    minimum: Annotated[int, msgspec.Meta(ge=1, le=10**6)]
    title: Text
    title_zh: Text = ""
    other: bool = True


class _Toml(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    name: Name
    population: Name
    unit: Literal["row", "person"]
    columns: Annotated[tuple[_TomlColumn, ...], msgspec.Meta(min_length=1, max_length=_MOST_COLUMNS)]
    rows_per_person: Annotated[int, msgspec.Meta(ge=1, le=10**6)] = 1
    colluders: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 1
    header: bool = True
    record_id: FieldName | Literal[""] = ""
    person: FieldName | Literal[""] = ""
    record_type: str = ""
    date_column: FieldName | Literal[""] = ""
    ignored: tuple[str, ...] = ()
    missing: tuple[Number, ...] = ()
    study: _TomlStudy | None = None
    about: Text = ""
    about_zh: Text = ""
    split_rule: Text = "One file a site."
    split_rule_zh: Text = ""


def shown(path: Path) -> str:
    """`path` for a message: printable on one line, whatever bytes the name holds."""
    text = str(path).encode("utf-8", "replace").decode("utf-8")
    return "".join(character if character.isprintable() else "?" for character in text)


def is_number(text: str) -> bool:
    """Whether `text` is a plain decimal number: ASCII digits, a point, an exponent of up to three digits."""
    return _NUMBER.fullmatch(text) is not None


@cache
def load_layout(name: str) -> Layout:
    """The built-in layout called `name`. DecodeError where there is none."""
    return parse_layout(layout_bytes(name), f"layouts/{name}.toml")


def layout_bytes(name: str) -> bytes:
    """The `dataset.toml` of the built-in layout called `name`. DecodeError where there is none."""
    if name not in BUILT_IN:
        raise DecodeError("connectors.unknown_layout", layouts=", ".join(BUILT_IN))
    return resources.files("connectors").joinpath("layouts", f"{name}.toml").read_bytes()


def read_layout(path: Path, name: str = "") -> Layout:
    """The layout that the `dataset.toml` at `path` declares. name: for messages, by default the path.

    Raises DecodeError or Unavailable.
    """
    file = name or shown(path)
    try:
        if not path.exists():
            raise Unavailable("connectors.file_missing", file=file)
        if not path.is_file():
            raise DecodeError("connectors.not_a_file", file=file)
        with path.open("rb") as stream:
            data = stream.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise Unavailable("connectors.unreadable", file=file, reason=error.strerror or "") from None
    return parse_layout(data, file)


def parse_layout(data: bytes, file: str) -> Layout:
    """The layout declared by the bytes of a `dataset.toml`; `file` is its name for messages.

    Raises DecodeError naming the file and the key or column at fault.
    """
    if len(data) > _LARGEST_FILE:
        raise DecodeError("connectors.toml_too_long", file=file, limit=_LARGEST_FILE)
    try:
        tree = tomllib.loads(data.decode("utf-8-sig"), parse_float=str)
    except UnicodeDecodeError as error:
        raise DecodeError("connectors.not_utf8", file=file, line=data.count(b"\n", 0, error.start) + 1) from None
    except (ValueError, RecursionError) as error:  # ValueError: a TOML fault, or an integer of thousands of digits
        named = _LINE.search(str(error))
        last = data.rstrip().count(b"\n") + 1 if "end of document" in str(error) else 1
        raise DecodeError("connectors.toml_syntax", file=file, line=int(named.group(1)) if named else last) from None
    version = tree.get("version")
    if type(version) is int and version != FORMAT_VERSION:
        raise DecodeError("connectors.toml_version", file=file, found=version, known=FORMAT_VERSION)
    try:
        toml = msgspec.convert(tree, _Toml)
    except msgspec.ValidationError as error:
        where = _WHERE.search(str(error))
        unknown = re.search(r"(?:unknown|required) field `(.*?)`", str(error))
        key = ".".join(part for part in (where.group(1) if where else "", unknown.group(1) if unknown else "") if part)
        raise DecodeError("connectors.toml_shape", file=file, key=key or "-") from None
    return _Checker(toml, file).layout()


class _Checker:
    """Checks what the types cannot say and builds the layout."""

    def __init__(self, toml: _Toml, file: str) -> None:
        self.toml = toml
        self.file = file
        self.read: dict[str, Column] = {}

    def fault(self, code: str, column: str) -> DecodeError:
        return DecodeError(code, file=self.file, column=column or "-")

    def layout(self) -> Layout:
        toml = self.toml
        self.check_names()
        columns = tuple(self.derived(column) if column.cases else self.plain(column) for column in toml.columns)
        self.check_sources(columns)
        if toml.unit == "person" and not toml.person:
            raise DecodeError("connectors.toml_person", file=self.file)
        if toml.unit == "row" and toml.rows_per_person != 1:
            raise DecodeError("connectors.toml_rows_per_person", file=self.file)
        if toml.record_type not in ("", *RECORD_TYPES):
            raise DecodeError("connectors.toml_record_type", file=self.file, known=", ".join(RECORD_TYPES))
        if toml.date_column and toml.record_type in ("", "none"):
            raise DecodeError("connectors.toml_date_column", file=self.file)
        return Layout(
            version=toml.version,
            name=toml.name,
            population=toml.population,
            unit=toml.unit,
            rows_per_person=toml.rows_per_person,
            colluders=toml.colluders,
            header=toml.header,
            record_id=toml.record_id,
            person=toml.person,
            ignored=toml.ignored,
            columns=columns,
            labels=tuple(
                Label(c.title or c.name, c.title_zh or c.title or c.name, c.unit, c.unit_zh or c.unit)
                for c in toml.columns
            ),
            study=self.study(toml.study, columns) if toml.study else None,
            about=Label(toml.about, toml.about_zh or toml.about),
            split_rule=Label(toml.split_rule, toml.split_rule_zh or toml.split_rule),
            record_type=toml.record_type,
            date_column=toml.date_column,
        )

    def check_names(self) -> None:
        seen: set[str] = set()
        for name in (*(column.name for column in self.toml.columns), *self.texts()):
            if not re.fullmatch(FIELD_PATTERN, name):  # the pattern's own end lets a final line break pass
                raise DecodeError("connectors.toml_shape", file=self.file, key="columns.name")
            if name in seen:
                raise self.fault("connectors.toml_repeated", name)
            seen.add(name)

    def texts(self) -> tuple[str, ...]:
        """Text columns of the file: a record id may name the person too, a date names nobody."""
        identifiers = dict.fromkeys(name for name in (self.toml.record_id, self.toml.person) if name)
        return (*identifiers, *([self.toml.date_column] if self.toml.date_column else []))

    def check_sources(self, columns: tuple[Column, ...]) -> None:
        """Header names of declared, identifier and ignored columns are distinct."""
        seen: set[str] = set()
        sources = [column.source for column in columns if not column.derived]
        for name in (*sources, *self.texts(), *self.toml.ignored):
            if name in seen or not name or name != name.strip():
                raise self.fault("connectors.toml_repeated", name)
            seen.add(name)
        if self.toml.ignored and not self.toml.header:
            raise DecodeError("connectors.toml_ignored", file=self.file)

    def exact(self, number: Number, scale: int, column: str) -> int:
        """`number` in units of 1/scale, or a fault: it must be whole there and fit a double."""
        text = str(number)
        if not is_number(text) or len(text) > 40:
            raise self.fault("connectors.toml_bounds", column)
        value = Fraction(text) * scale
        if value.denominator != 1 or abs(value.numerator) > _LARGEST_EXACT:
            raise self.fault("connectors.toml_lattice", column)
        return value.numerator

    def plain(self, toml: _TomlColumn) -> Column:
        """A column that is read from the file."""
        if toml.otherwise:
            raise self.fault("connectors.toml_cases", toml.name)
        markers = ("", "?", *(str(marker).strip() for marker in (*self.toml.missing, *toml.missing)))
        missing = tuple(sorted(set(markers)))
        source = toml.source or toml.name
        if toml.kind == "number":
            if toml.low is None or toml.high is None or toml.values or toml.codes:
                raise self.fault("connectors.toml_bounds", toml.name)
            low = self.exact(toml.low, toml.scale, toml.name)
            high = self.exact(toml.high, toml.scale, toml.name)
            if low >= high:
                raise self.fault("connectors.toml_bounds", toml.name)
            column = Column(toml.name, source, "number", low, high, toml.scale, (), (), missing, (), "")
        else:
            values = self.values(toml)
            codes = tuple(sorted((key.strip(), value) for key, value in toml.codes.items()))
            keys = [key for key, _ in codes]
            if len(set(keys)) != len(keys) or any(not key or value not in values for key, value in codes):
                raise self.fault("connectors.toml_codes", toml.name)
            column = Column(toml.name, source, "category", 0, 0, 1, values, codes, missing, (), "")
        self.read[toml.name] = column
        return column

    def values(self, toml: _TomlColumn) -> tuple[str, ...]:
        """The declared values of a category: distinct, printable, none of them the reserved one."""
        values = toml.values
        if toml.low is not None or toml.high is not None or toml.scale != 1:
            raise self.fault("connectors.toml_values", toml.name)
        if not 1 <= len(values) <= _MOST_VALUES or len(set(values)) != len(values) or OTHER_VALUE in values:
            raise self.fault("connectors.toml_values", toml.name)
        if any(not _PLAIN_TEXT.fullmatch(value) or value != value.strip() for value in values):
            raise self.fault("connectors.toml_values", toml.name)
        return values

    def derived(self, toml: _TomlColumn) -> Column:
        """A category computed from number columns declared before it."""
        if toml.kind != "category" or toml.codes or toml.missing or toml.source:
            raise self.fault("connectors.toml_cases", toml.name)
        values = self.values(toml)
        cases = []
        for case in toml.cases:
            source = self.read.get(case.column)
            given = [(test, bound) for test in ("equals", "at_least") if (bound := getattr(case, test)) is not None]
            if source is None or source.kind != "number" or len(given) != 1 or case.value not in values:
                raise self.fault("connectors.toml_cases", toml.name)
            test, bound = given[0]
            exact = self.exact(bound, source.scale, toml.name)
            cases.append(Case(source.name, cast(Literal["equals", "at_least"], test), exact, case.value))
        if toml.otherwise not in values:
            raise self.fault("connectors.toml_cases", toml.name)
        return Column(toml.name, "", "category", 0, 0, 1, values, (), (), tuple(cases), toml.otherwise)

    def study(self, toml: _TomlStudy, columns: tuple[Column, ...]) -> Study:
        """The declared study: its measure is a number, its groups categories, its edges on the lattice."""
        by_name = {column.name: column for column in columns}
        measure = by_name.get(toml.measure)
        groups = [by_name.get(name) for name in toml.groups]
        if measure is None or measure.kind != "number":
            raise self.fault("connectors.toml_study", toml.measure)
        for name, group in zip(toml.groups, groups, strict=True):
            if group is None or group.kind != "category" or toml.groups.count(name) > 1:
                raise self.fault("connectors.toml_study", name)
        edges = tuple(self.exact(edge, measure.scale, toml.measure) for edge in toml.edges)
        if edges and (
            len(edges) < 2
            or edges[0] < measure.low
            or edges[-1] > measure.high
            or any(a >= b for a, b in pairwise(edges))
        ):
            raise self.fault("connectors.toml_edges", toml.measure)
        cells = prod(len(group.values) + 1 for group in groups if group) * (len(edges) + 2)
        if cells > _MOST_CELLS:
            raise self.fault("connectors.toml_study", toml.measure)
        column = self.toml.columns[columns.index(measure)]
        label = Label(toml.title, toml.title_zh or toml.title, column.unit, column.unit_zh or column.unit)
        return Study(toml.measure, toml.groups, edges, toml.minimum, toml.other, label)
