"""A researcher's question in a person's words, as the query that the sites will be asked.

A question names columns and decimals; all that the query must say besides (tables, units, scales, domains, row
classes) is read from the ledger's declarations. `preview` says what would be asked, how noisy the answer will be and
what it will cost, before anything is proposed. Everything here is public to the roster; no data is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from ledger.contracts import datasets
from ledger.contracts.datasets import Column, DatasetState, PopulationState
from medveil.gateway.ledger_account import LedgerState
from mpc.budget import Epsilon, epsilons, split
from mpc.cells import most_cells, prove_no_wrap
from mpc.query import NANO, VERSION, Measure, Query, check_query
from mpc.release import NoiseStatement, noise_statements
from privacy.grants.purposes import purpose
from privacy.local import GroupColumn
from privacy.predicate import Predicate
from privacy.predicate import check as check_predicate
from wire.errors import Refused


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a researcher asks. low, high, edges, rho: decimal texts; empty bounds: as wide as declared.

    sites: empty for every site with a table; datasets: which table, where a site has several. by: columns to group
    by; other: whether rows of unknown group form the group "other". person: the column that names the person, where
    the population's unit is the person.
    """

    population: str
    measure: str
    purpose: str
    rho: str
    sites: Sequence[str] = ()
    datasets: Sequence[str] = ()
    low: str = ""
    high: str = ""
    edges: Sequence[str] = ()
    by: Sequence[str] = ()
    other: bool = True
    filter: Predicate | None = None
    person: str = ""
    delta_exponent: int = 6
    minimum_group: int = 10


@dataclass(frozen=True)
class Preview:
    """What a question will be. noise: on one cell of each kind; cells: how many numbers leave at most.

    before, after: what the population has available in nano-rho; after is negative where that is not enough.
    """

    query: Query
    cells: int
    noise: tuple[NoiseStatement, ...]
    epsilons: tuple[Epsilon, ...]
    before: int
    after: int


def make_query(question: Question, state: LedgerState, chain: str) -> Query:
    """The query that a question is, under the declarations in `state`. Raises Refused naming what does not fit."""
    purpose(question.purpose)
    population = datasets.population(state.view(), question.population)
    tables = _tables(question, population, state)
    roster = tuple(sorted(tables))
    declared = {tables[site].dataset: {column.name: column for column in tables[site].columns} for site in roster}
    for name, columns in declared.items():
        if question.filter is not None:
            check_predicate(question.filter, {column.name: column.kind for column in columns.values()})
        for column, kind in ((question.measure, "number"), *((group, "category") for group in question.by)):
            if column not in columns or columns[column].kind != kind:
                raise Refused("question.no_column", column=column, dataset=name, kind=kind)
    rho = _units(question.rho, NANO, "rho")
    if rho < 1:
        raise Refused("question.no_budget")
    measure = _measure(question, [columns[question.measure] for columns in declared.values()])
    query = Query(
        version=VERSION,
        chain=chain,
        population=question.population,
        roster=roster,
        datasets=tuple(tables[site].dataset for site in roster),
        measures=(measure,),
        groups=tuple(_group(question, name, declared) for name in question.by),
        filter=question.filter,
        purpose=question.purpose,
        unit=population.unit,
        person=question.person if population.unit == "person" else "",
        rows_per_person=population.rows_per_person,
        colluders=population.colluders,
        max_rows=max(table.row_class for table in tables.values()),
        rho_nano=rho,
        split=split(rho, histogram=bool(measure.edges)),
        delta_exponent=question.delta_exponent,
        minimum_group=question.minimum_group,
    )
    check_query(query)
    prove_no_wrap(query)
    return query


def preview(question: Question, state: LedgerState, chain: str) -> Preview:
    """What asking would be. Nothing is proposed and nothing spent. Raises Refused as `make_query`."""
    query = make_query(question, state, chain)
    available = datasets.population(state.view(), query.population).available
    cells = most_cells(query)
    return Preview(query, cells, noise_statements(query), epsilons(query, cells), available, available - query.rho_nano)


def _tables(question: Question, population: PopulationState, state: LedgerState) -> dict[str, DatasetState]:
    """The table of each site that is asked: its only one in the population, or the one that the question names."""
    named = set(question.datasets)
    found: dict[str, list[DatasetState]] = {}
    for name in population.datasets:
        table = datasets.current_dataset(state.view(), name)
        found.setdefault(table.owner, []).append(table)
    for name in named - set(population.datasets):
        raise Refused("question.no_such_table", dataset=name, population=question.population)
    chosen = {}
    for site in question.sites or found:
        if site not in found:
            raise Refused("datasets.no_table", organisation=site, population=question.population)
        tables = [table for table in found[site] if table.dataset in named] or found[site]
        if len(tables) > 1:
            raise Refused("question.several_tables", organisation=site, population=question.population)
        chosen[site] = tables[0]
    return chosen


def _measure(question: Question, columns: Sequence[Column]) -> Measure:
    """The measure within what every table declares of it."""
    scale = columns[0].scale
    if any(column.scale != scale for column in columns):
        raise Refused("question.other_scales", column=question.measure)
    low, high = max(column.low for column in columns), min(column.high for column in columns)
    edges = tuple(_units(edge, scale, "edges") for edge in question.edges)
    asked_low = _units(question.low, scale, "low") if question.low else edges[0] if edges else low
    asked_high = _units(question.high, scale, "high") if question.high else edges[-1] if edges else high
    if not low <= asked_low < asked_high <= high:
        raise Refused("question.bounds", column=question.measure, low=_text(low, scale), high=_text(high, scale))
    return Measure(question.measure, asked_low, asked_high, scale, edges)


def _group(question: Question, name: str, declared: Mapping[str, Mapping[str, Column]]) -> GroupColumn:
    """A column to group by, with the values that every table declares."""
    domains = [columns[name].values for columns in declared.values()]
    values = tuple(value for value in domains[0] if all(value in domain for domain in domains))
    values = tuple(value for value in values if not (question.other and value == "other"))
    if not values:
        raise Refused("question.no_common_value", column=name)
    return GroupColumn(name, values, question.other)


def _units(text: str, scale: int, field: str) -> int:
    """The whole number of units of 1/scale that a decimal text is. Raises Refused naming the field."""
    found = Decimal(text) * scale
    if found != found.to_integral_value():
        raise Refused("question.too_exact", field=field, scale=scale)
    return int(found)


def _text(units: int, scale: int) -> str:
    return f"{Decimal(units) / scale:f}"
