"""A query document as the query that the sites will be asked.

A document names columns and decimals; all that the query must say besides (tables, units, scales, domains, row
classes) is read from the ledger's declarations. Everything here is public to the roster; no data is looked at.
`medveil.gateway.explaining` says what a query would be before anything is proposed.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from math import gcd

from ledger.contracts import datasets
from ledger.contracts.datasets import Column, DatasetState, PopulationState
from medveil.gateway.ledger_account import LedgerState
from medveil.gateway.query_board import check_exact_bounds
from mpc.budget import split
from mpc.cells import prove_delta, prove_no_wrap
from mpc.query import VERSION, Measure, Query, check_query
from mpc.query_document import Grouped, Measured, QueryDocument, check_document
from privacy.filters import parse_filter
from privacy.grants.purposes import purpose
from privacy.local import GroupColumn
from privacy.predicate import check as check_predicate
from privacy.uses import Declaration
from wire.errors import Refused

Declared = Mapping[str, Mapping[str, Column]]
"""By table, its columns by name."""


def declaration(document: QueryDocument) -> Declaration:
    """What is said of the use, by which each site judges."""
    return Declaration(document.commercial, document.jurisdiction)


def make_query(document: QueryDocument, state: LedgerState, chain: str) -> Query:
    """The query that a document is, under the declarations in `state`.

    Raises DecodeError for what is no document, Refused naming what does not fit the declarations.
    """
    document = check_document(document)
    purpose(document.purpose)
    population = datasets.population(state.view(), document.population)
    tables = _tables(document, population, state)
    roster = tuple(sorted(tables))
    declared = {tables[site].dataset: {column.name: column for column in tables[site].columns} for site in roster}
    predicate = None if document.filter is None else parse_filter(document.filter)
    for name, columns in declared.items():
        if predicate is not None:
            check_predicate(predicate, {column.name: column.kind for column in columns.values()})
        asked = [(one.column, "number") for one in document.measures]
        for column, kind in (*asked, *((one.column, "category") for one in document.groups)):
            if column not in columns or columns[column].kind != kind:
                raise Refused("question.no_column", column=column, dataset=name, kind=kind)
    common = gcd(*(one.weight for one in document.measures))
    measures = tuple(_measure(f"measures[{at}]", one, common, declared) for at, one in enumerate(document.measures))
    query = Query(
        version=VERSION,
        chain=chain,
        population=document.population,
        roster=roster,
        datasets=tuple(tables[site].dataset for site in roster),
        measures=tuple(sorted(measures, key=lambda measure: measure.column)),
        groups=tuple(_group(one, declared) for one in sorted(document.groups, key=lambda group: group.column)),
        filter=predicate,
        purpose=document.purpose,
        unit=population.unit,
        person=document.person if population.unit == "person" else "",
        rows_per_person=population.rows_per_person,
        spread=population.spread,
        colluders=population.colluders,
        max_rows=max(table.row_class for table in tables.values()),
        rho_nano=document.rho_nano,
        split=split(document.rho_nano, any(measure.edges for measure in measures), bool(measures), document.exact),
        delta_exponent=document.delta_exponent,
        minimum_group=document.minimum_group,
        exact=document.exact,
    )
    if query.exact and not population.public:
        raise Refused("mpc.not_public", population=query.population)
    check_query(query)
    check_exact_bounds(query, state)
    prove_no_wrap(query)
    prove_delta(query)
    return query


def _tables(document: QueryDocument, population: PopulationState, state: LedgerState) -> dict[str, DatasetState]:
    """The table of each site that is asked: its only one in the population, or the one that the document names."""
    named = set(document.datasets)
    found: dict[str, list[DatasetState]] = {}
    for name in population.datasets:
        table = datasets.current_dataset(state.view(), name)
        found.setdefault(table.owner, []).append(table)
    for name in document.datasets:
        if name not in population.datasets:
            _check_version(name, state)
            raise Refused("question.no_such_table", dataset=name, population=document.population)
    chosen = {}
    for site in document.roster or found:
        if site not in found:
            raise Refused("datasets.no_table", organisation=site, population=document.population)
        tables = [table for table in found[site] if table.dataset in named] or found[site]
        if len(tables) > 1:
            raise Refused("question.several_tables", organisation=site, population=document.population)
        chosen[site] = tables[0]
    unasked = [name for name in document.datasets if name not in {table.dataset for table in chosen.values()}]
    if unasked:
        raise Refused("question.not_asked", dataset=unasked[0])
    return chosen


def _check_version(name: str, state: LedgerState) -> None:
    """Raise Refused naming the current version of a table of which `name` is an earlier one."""
    table = state.get(datasets.dataset_key(name), DatasetState)
    newer = table
    while newer is not None and newer.superseded_by is not None:
        newer = state.get(datasets.dataset_key(newer.superseded_by), DatasetState)
    if table is not None and newer is not None and newer is not table:
        raise Refused("question.superseded", dataset=name, successor=newer.dataset)


def _measure(place: str, asked: Measured, common: int, declared: Declared) -> Measure:
    """A measure within what every table declares of it. place: of it in the document; common: all weights' divisor."""
    columns = [of_table[asked.column] for of_table in declared.values()]
    scale = columns[0].scale
    if any(column.scale != scale for column in columns):
        raise Refused("question.other_scales", column=asked.column)
    low, high = max(column.low for column in columns), min(column.high for column in columns)
    edges = tuple(_units(edge, scale, f"{place}.edges[{at}]") for at, edge in enumerate(asked.edges))
    missing = tuple(_units(one, scale, f"{place}.missing[{at}]") for at, one in enumerate(asked.missing))
    asked_low = _units(asked.low, scale, f"{place}.low") if asked.low else edges[0] if edges else low
    asked_high = _units(asked.high, scale, f"{place}.high") if asked.high else edges[-1] if edges else high
    if not low <= asked_low < asked_high <= high:
        raise Refused("question.bounds", column=asked.column, low=_text(low, scale), high=_text(high, scale))
    return Measure(asked.column, asked_low, asked_high, scale, edges, tuple(sorted(missing)), asked.weight // common)


def _group(asked: Grouped, declared: Declared) -> GroupColumn:
    """A column to group by, with the values that every table declares."""
    domains = [columns[asked.column].values for columns in declared.values()]
    values = tuple(value for value in domains[0] if all(value in domain for domain in domains))
    values = tuple(value for value in values if not (asked.other and value == "other"))
    if not values:
        raise Refused("question.no_common_value", column=asked.column)
    return GroupColumn(asked.column, values, asked.other)


def _units(text: str, scale: int, field: str) -> int:
    """The whole number of units of 1/scale that a decimal text is. Raises Refused naming the field."""
    found = Decimal(text) * scale
    if found != found.to_integral_value():
        raise Refused("question.too_exact", field=field, scale=scale)
    return int(found)


def _text(units: int, scale: int) -> str:
    return f"{Decimal(units) / scale:f}"
