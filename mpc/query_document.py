"""The query document: what a researcher writes, one file for command line, gateway and notebook.

A JSON object; `MEANINGS` says what each field means. Numbers that a column holds, and rho, are decimals written as
text; what is left out is as declared, or as `QueryDocument` has it:

    {
      "version": 1,
      "population": "stays",
      "measures": [{"column": "cost", "low": "0", "high": "5000", "edges": ["0", "1000", "5000"], "missing": ["0"]}],
      "groups": [{"column": "ward", "other": false}],
      "filter": {"column": "age", "at_least": 18},
      "purpose": "HMB",
      "rho": "0.25"
    }

Here is judged what the document alone shows: form, sizes, order, what stands twice. What the ledger declares (tables,
bounds, scales, values of groups, the population's terms) makes the query of it: `medveil.gateway.question`.

Whatever does not fit raises DecodeError ``query_document.*`` with the field's place, such as ``measures[0].low``; never
with what was written there. All of a document is public to the roster.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any, NoReturn

import msgspec

from wire.errors import DecodeError
from wire.identifiers import NAME_PATTERN
from wire.secure_sum import FEWEST_SITES
from wire.strict_json import names_differ, shown_name

COMPONENT = "QueryDocument"
"""Name of the schema in the OpenAPI components."""
VERSION = 1
LARGEST = 256 * 1024
"""Bytes of a file, at most."""
MOST_MEASURES = 16
MOST_GROUPS = 8
MOST_SITES = 200
MOST_EDGES = 200
MOST_MISSING = 100
MOST_WEIGHT = 1000
LEAST_GROUP = 2
MOST_GROUP = 10**9
_NANO = 10**9
_LONGEST_WHOLE = 19

COLUMN_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]{0,63}\Z"
PURPOSE_PATTERN = r"^[A-Z][A-Z0-9]{0,31}\Z"
COUNTRY_PATTERN = r"^[A-Z]{2}\Z"
DECIMAL_PATTERN = r"^-?[0-9]{1,15}(\.[0-9]{1,9})?\Z"
RHO_PATTERN = r"^[0-9]{1,6}(\.[0-9]{1,9})?\Z"
DELTA_PATTERN = r"^(1e-([3-9]|1[0-5])|0\.0{2,14}1)\Z"
_NAME_LONGEST = 64


class Measured(msgspec.Struct, frozen=True):
    """A column to measure. low, high: decimals; "" for as wide as declared, or as the edges reach.

    edges: of a histogram, rising; missing: decimals that stand for "not known". weight: its share of the budget beside
    the other measures'.
    """

    column: str
    low: str = ""
    high: str = ""
    edges: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    weight: int = 1


class Grouped(msgspec.Struct, frozen=True):
    """A column to group by. other: whether rows of an unknown or missing value form the group "other"."""

    column: str
    other: bool = True


class QueryDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked, as far as a researcher says it. `MEANINGS` says what each field means."""

    version: int = VERSION
    population: str
    purpose: str
    rho: str
    measures: tuple[Measured, ...] = ()
    groups: tuple[Grouped, ...] = ()
    filter: dict[str, Any] | None = None
    roster: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    person: str = ""
    delta: str = "1e-6"
    minimum_group: int = 10
    exact: bool = False
    commercial: bool = False
    jurisdiction: str = "CN"

    @property
    def rho_nano(self) -> int:
        """rho in units of 10^-9."""
        return int(Decimal(self.rho) * _NANO)

    @property
    def delta_exponent(self) -> int:
        """delta = 10^-delta_exponent."""
        return -Decimal(self.delta).adjusted()


MEANINGS: Mapping[str, str] = {
    "version": "of the document's form: 1.",
    "population": "whose tables are asked.",
    "measures": "up to 16 number columns: column, low and high (clamped to them), edges of a histogram, missing "
    "(values that mean not known), weight (share of the budget); none: rows are counted.",
    "groups": "up to 8 category columns: column, other (whether unknown values are a group of their own).",
    "filter": "which rows, as docs/client.md shows filters; null for all.",
    "purpose": "what it is for, a code such as HMB.",
    "rho": 'the privacy budget to spend, a decimal such as "0.25".',
    "roster": "the sites to ask, at least three; empty for every site with a table.",
    "datasets": "which table, where a site has several.",
    "person": "the column that names the person, where the population's unit is the person.",
    "delta": 'a power of ten from "1e-3" to "1e-15"; of an exact query from "1e-6".',
    "minimum_group": "groups whose noisy count is below it are hidden.",
    "exact": "true for counts, means and deviations without noise; of populations that are declared public.",
    "commercial": "true if it serves somebody's sales.",
    "jurisdiction": "the country where you work with it, two letters.",
}
"""What the fields mean, in the order in which a template shows them."""

_REQUIRED = ("population", "purpose", "rho")
_MEASURED = tuple(Measured.__struct_fields__)
_GROUPED = tuple(Grouped.__struct_fields__)


def read_document(data: bytes) -> QueryDocument:
    """The document in a file's bytes. Raises DecodeError, whatever they are."""
    if len(data) > LARGEST:
        raise DecodeError("query_document.too_large", most=LARGEST)
    try:
        text = data.decode("utf-8-sig")
        value = json.loads(text, object_pairs_hook=names_differ, parse_int=_whole_number, parse_constant=_no_number)
    except UnicodeDecodeError:
        raise DecodeError("query_document.not_utf8") from None
    except json.JSONDecodeError as error:
        raise DecodeError("query_document.not_json", line=error.lineno) from None
    except RecursionError:
        raise DecodeError("query_document.filter_too_deep", field="filter") from None
    return parse_document(value)


def parse_document(value: object) -> QueryDocument:
    """The document that a JSON value is. Raises DecodeError naming the field."""
    said = _object(value, "", _fields(QueryDocument))
    for name in _REQUIRED:
        if name not in said:
            raise DecodeError("query_document.missing", field=name)
    taken: dict[str, Any] = {}
    for name, one in said.items():
        taken[name] = _READ[name](one, name)
    if taken.get("roster") and len(taken["roster"]) < FEWEST_SITES:
        raise DecodeError("query_document.roster_size", field="roster", fewest=FEWEST_SITES)
    return QueryDocument(**taken)


def check_document(document: QueryDocument) -> QueryDocument:
    """`document` as it would be read from a file: for one that was made in memory. Raises DecodeError."""
    return parse_document(show_document(document))


def show_document(document: QueryDocument) -> dict[str, Any]:
    """The JSON value of a document, every field in it: `parse_document` gives it back."""
    shown = {name: getattr(document, name) for name in MEANINGS}
    return shown | {
        "measures": [_listed(one) for one in document.measures],
        "groups": [_listed(one) for one in document.groups],
        "roster": list(document.roster),
        "datasets": list(document.datasets),
    }


def _listed(one: Measured | Grouped) -> dict[str, Any]:
    found = {name: getattr(one, name) for name in one.__struct_fields__}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def _fields(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    return tuple(MEANINGS) if kind is QueryDocument else kind.__struct_fields__


def _whole_number(text: str) -> int:
    if len(text) > _LONGEST_WHOLE:
        raise DecodeError("query_document.digits", most=_LONGEST_WHOLE)
    return int(text)


def _no_number(_text: str) -> NoReturn:
    raise DecodeError("query_document.no_number")


def _object(value: object, place: str, known: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DecodeError("query_document.object", field=place or "{}")
    for name in value:
        if name not in known:
            field = f"{place}.{shown_name(str(name))}" if place else shown_name(str(name))
            raise DecodeError("query_document.unknown", field=field, known=", ".join(known))
    return value


def _list(value: object, place: str, most: int) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise DecodeError("query_document.list", field=place)
    if len(value) > most:
        raise DecodeError("query_document.too_many", field=place, most=most)
    return value


def _text(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise DecodeError("query_document.text", field=place)
    return value


def _decimal(value: object, place: str) -> str:
    if not isinstance(value, str) or not re.match(DECIMAL_PATTERN, value, re.ASCII):
        raise DecodeError("query_document.decimal", field=place)
    return value


def _name(value: object, place: str) -> str:
    text = _text(value, place)
    if len(text) > _NAME_LONGEST or not re.match(NAME_PATTERN, text):
        raise DecodeError("query_document.name", field=place)
    return text


def _column(value: object, place: str) -> str:
    if not re.match(COLUMN_PATTERN, text := _text(value, place)):
        raise DecodeError("query_document.column", field=place)
    return text


def _whole(value: object, place: str, least: int, most: int) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 15.0 is a whole number in JSON
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise DecodeError("query_document.whole", field=place, least=least, most=most)
    return value


def _flag(value: object, place: str) -> bool:
    if not isinstance(value, bool):
        raise DecodeError("query_document.flag", field=place)
    return value


def _version(value: object, place: str) -> int:
    if isinstance(value, bool) or value != VERSION:
        raise DecodeError("query_document.version", field=place, version=VERSION)
    return VERSION


def _names(value: object, place: str) -> tuple[str, ...]:
    found = tuple(_name(one, f"{place}[{at}]") for at, one in enumerate(_list(value, place, MOST_SITES)))
    _differ(found, place)
    return found


def _differ(found: Sequence[Any], place: str, field: str = "") -> None:
    """Check that nothing stands twice. field: what of each item is compared, for the error's place."""
    for at, one in enumerate(found):
        if one in found[:at]:
            raise DecodeError("query_document.repeated", field=f"{place}[{at}]{field}")


def _measures(value: object, place: str) -> tuple[Measured, ...]:
    items = _list(value, place, MOST_MEASURES)
    found = tuple(_measured(one, f"{place}[{at}]") for at, one in enumerate(items))
    _differ([one.column for one in found], place, ".column")
    return found


def _measured(value: object, place: str) -> Measured:
    said = _object(value, place, _MEASURED)
    if "column" not in said:
        raise DecodeError("query_document.missing", field=f"{place}.column")
    column = _column(said["column"], f"{place}.column")
    low, high = (_bound(said.get(name, ""), f"{place}.{name}") for name in ("low", "high"))
    edges = _decimals(said.get("edges", ()), f"{place}.edges", MOST_EDGES)
    if len(edges) == 1:
        raise DecodeError("query_document.two_edges", field=f"{place}.edges")
    numbers = [Decimal(edge) for edge in edges]
    for at, (one, other) in enumerate(pairwise(numbers), 1):
        if one >= other:
            raise DecodeError("query_document.rising", field=f"{place}.edges[{at}]")
    if low and high and Decimal(low) >= Decimal(high):
        raise DecodeError("query_document.low_high", field=f"{place}.low")
    for name, bound, edge in (("low", low, edges[:1]), ("high", high, edges[-1:])):
        if bound and edge and Decimal(bound) != Decimal(edge[0]):
            raise DecodeError("query_document.edges_reach", field=f"{place}.{name}")
    missing = _decimals(said.get("missing", ()), f"{place}.missing", MOST_MISSING)
    _differ([Decimal(one) for one in missing], f"{place}.missing")
    weight = _whole(said.get("weight", 1), f"{place}.weight", 1, MOST_WEIGHT)
    return Measured(column, low, high, edges, missing, weight)


def _bound(value: object, place: str) -> str:
    """A bound; "" and null leave it open."""
    return "" if value is None or value == "" else _decimal(value, place)


def _decimals(value: object, place: str, most: int) -> tuple[str, ...]:
    return tuple(_decimal(one, f"{place}[{at}]") for at, one in enumerate(_list(value, place, most)))


def _groups(value: object, place: str) -> tuple[Grouped, ...]:
    found = tuple(_grouped(one, f"{place}[{at}]") for at, one in enumerate(_list(value, place, MOST_GROUPS)))
    _differ([one.column for one in found], place, ".column")
    return found


def _grouped(value: object, place: str) -> Grouped:
    said = _object(value, place, _GROUPED)
    if "column" not in said:
        raise DecodeError("query_document.missing", field=f"{place}.column")
    return Grouped(_column(said["column"], f"{place}.column"), _flag(said.get("other", True), f"{place}.other"))


def _filter(value: object, place: str) -> dict[str, Any] | None:
    if value is None:
        return None
    from privacy.filters import NoFilter, parse_filter, show_filter

    try:
        return show_filter(parse_filter(value))
    except NoFilter as fault:
        inside = (f"[{part}]" if isinstance(part, int) else f".{shown_name(part)}" for part in fault.misfit.place)
        rule = fault.misfit.rule if fault.misfit.rule.startswith("filter") else f"filter_{fault.misfit.rule}"
        raise DecodeError(f"query_document.{rule}", field=place + "".join(inside)) from None


def _purpose(value: object, place: str) -> str:
    if not re.match(PURPOSE_PATTERN, text := _text(value, place)):
        raise DecodeError("query_document.purpose", field=place)
    return text


def _country(value: object, place: str) -> str:
    if not re.match(COUNTRY_PATTERN, text := _text(value, place)):
        raise DecodeError("query_document.country", field=place)
    return text


def _rho(value: object, place: str) -> str:
    if not isinstance(value, str) or not re.match(RHO_PATTERN, value, re.ASCII):
        raise DecodeError("query_document.rho", field=place)
    if not Decimal(value):
        raise DecodeError("query_document.no_budget", field=place)
    return value


def _delta(value: object, place: str) -> str:
    text = _text(value, place)
    if not re.match(DELTA_PATTERN, text, re.ASCII):
        raise DecodeError("query_document.delta", field=place)
    return text


def _person(value: object, place: str) -> str:
    return "" if value == "" else _column(value, place)


def _minimum(value: object, place: str) -> int:
    return _whole(value, place, LEAST_GROUP, MOST_GROUP)


_READ = {
    "version": _version,
    "population": _name,
    "purpose": _purpose,
    "rho": _rho,
    "measures": _measures,
    "groups": _groups,
    "filter": _filter,
    "roster": _names,
    "datasets": _names,
    "person": _person,
    "delta": _delta,
    "minimum_group": _minimum,
    "exact": _flag,
    "commercial": _flag,
    "jurisdiction": _country,
}


def schema() -> dict[str, Any]:
    """The one OpenAPI component of a query document. A filter's is that of `privacy.filters`."""
    column = _pattern(COLUMN_PATTERN)
    bound = {"anyOf": [_pattern(DECIMAL_PATTERN), {"type": "null"}, {"type": "string", "maxLength": 0}]}
    name = {**_pattern(NAME_PATTERN), "maxLength": _NAME_LONGEST}
    names = {"type": "array", "items": name, "maxItems": MOST_SITES}
    flag = {"type": "boolean"}
    decimals = {"type": "array", "items": _pattern(DECIMAL_PATTERN)}
    measured = {
        "column": column,
        "low": bound,
        "high": bound,
        "edges": {**decimals, "maxItems": MOST_EDGES},
        "missing": {**decimals, "maxItems": MOST_MISSING},
        "weight": {"type": "integer", "minimum": 1, "maximum": MOST_WEIGHT},
    }
    properties: dict[str, dict[str, Any]] = {
        "version": {"type": "integer", "const": VERSION},
        "population": name,
        "measures": {"type": "array", "items": _closed(measured, "column"), "maxItems": MOST_MEASURES},
        "groups": {
            "type": "array",
            "items": _closed({"column": column, "other": flag}, "column"),
            "maxItems": MOST_GROUPS,
        },
        "filter": {"anyOf": [{"$ref": "#/components/schemas/Filter"}, {"type": "null"}]},
        "purpose": _pattern(PURPOSE_PATTERN),
        "rho": {**_pattern(RHO_PATTERN), "examples": ["0.25"]},
        "roster": names,
        "datasets": names,
        "person": {"anyOf": [column, {"type": "string", "maxLength": 0}]},
        "delta": _pattern(DELTA_PATTERN),
        "minimum_group": {"type": "integer", "minimum": LEAST_GROUP, "maximum": MOST_GROUP},
        "exact": flag,
        "commercial": flag,
        "jurisdiction": _pattern(COUNTRY_PATTERN),
    }
    described = {field: {**one, "description": MEANINGS[field]} for field, one in properties.items()}
    return {**_closed(described, *_REQUIRED), "title": COMPONENT, "description": "What a researcher asks."}


def _pattern(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern.replace("\\Z", "$")}


def _closed(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }
