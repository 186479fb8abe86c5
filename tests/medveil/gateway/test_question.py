"""A query document becomes the query that the sites are asked, under what the ledger declares."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ledger.contracts.datasets import (
    Column,
    DatasetState,
    PopulationState,
    Provider,
    dataset_key,
    population_key,
)
from ledger.machine import StateView
from ledger.trees.state import StateTree
from medveil.gateway.query_board import check_declared
from medveil.gateway.question import declaration, make_query
from mpc.query import Measure
from mpc.query_document import Grouped, Measured, QueryDocument
from privacy.local import GroupColumn
from privacy.predicate import Compare
from privacy.uses import Declaration
from wire.errors import MedveilError, Refused

COST = Column("cost", "number", 0, 10_000, 100, ())
AGE = Column("age", "number", 0, 120, 1, ())
WARD = Column("ward", "category", 0, 0, 1, ("east", "west", "other"))
SITES = ("site-a", "site-b", "site-c")


class Ledger:
    """State to read, made of what is put into it."""

    def __init__(self) -> None:
        self._view = StateView(StateTree())

    def view(self) -> StateView:
        return self._view

    def get(self, key: bytes, kind: Any) -> Any:
        return self._view.get(key, kind)

    def put(self, key: bytes, value: Any) -> None:
        self._view.put(key, value)


def table(name: str, owner: str, columns: tuple[Column, ...] = (COST, AGE, WARD), rows: int = 100) -> DatasetState:
    return DatasetState(
        dataset=name,
        population="stays",
        owner=owner,
        schema_hash=bytes(32),
        columns=columns,
        row_class=rows,
        commitment=bytes(32),
        height=1,
        version=1,
        supersedes=None,
        superseded_by=None,
        retired_at=None,
    )


def ledger(
    *tables: DatasetState, unit: str = "row", rows_per_person: int = 1, budget: int = 10**9, public: bool = False
) -> Any:
    found = tables or tuple(table(f"stays-{site}", site) for site in SITES)
    owners = tuple(dict.fromkeys(one.owner for one in found))
    state = Ledger()
    for one in found:
        state.put(dataset_key(one.dataset), one)
    population = PopulationState(
        population="stays",
        unit=unit,  # type: ignore[arg-type]
        rows_per_person=rows_per_person,
        spread="every-site",
        public=public,
        colluders=1,
        registered_by=owners[0],
        owners=owners,
        datasets=tuple(one.dataset for one in found),
        providers=tuple(Provider(owner, sum(one.owner == owner for one in found)) for owner in owners),
        changes=0,
        votes=(),
        budget=budget,
        reserved=0,
        spent=0,
    )
    state.put(population_key("stays"), population)
    return state


def asked(*measures: Measured, by: tuple[str, ...] = (), other: bool = True, **others: Any) -> QueryDocument:
    groups = tuple(Grouped(column, other) for column in by)
    least = {"population": "stays", "measures": measures or (Measured("cost"),), "groups": groups}
    return QueryDocument(**least | {"purpose": "HMB", "rho": "0.25"} | others)


def test_what_is_left_out_is_read_from_the_declarations() -> None:
    state = ledger(
        *(table(f"stays-{site}", site, rows=rows) for site, rows in zip(SITES, (100, 500, 200), strict=True))
    )
    query = make_query(asked(), state, "test-chain")
    assert (query.roster, query.datasets) == (SITES, tuple(f"stays-{site}" for site in SITES))
    assert query.measures == (Measure("cost", 0, 10_000, 100, ()),) and query.groups == ()
    assert (query.rho_nano, query.split.total(), query.max_rows) == (250_000_000, 250_000_000, 500)
    assert (query.unit, query.rows_per_person, query.colluders, query.chain) == ("row", 1, 1, "test-chain")
    check_declared(query, state, "")


def test_decimals_become_units_of_the_column() -> None:
    cost = Measured("cost", edges=("0", "25.5", "99.99"), missing=("7", "0.01"))
    query = make_query(asked(cost, by=("ward",), other=False, rho="0.000000123"), ledger(), "c")
    assert query.measures == (Measure("cost", 0, 9999, 100, (0, 2550, 9999), (1, 700)),)
    assert query.groups == (GroupColumn("ward", ("east", "west", "other"), False),) and query.rho_nano == 123
    assert query.split.bins
    grouped = make_query(asked(Measured("cost", "1", "2.50"), by=("ward",)), ledger(), "c")
    assert (grouped.measures[0].low, grouped.measures[0].high) == (100, 250)
    assert grouped.groups == (GroupColumn("ward", ("east", "west"), True),)


def test_the_filter_and_what_is_said_of_the_use() -> None:
    document = asked(filter={"column": "age", "at_least": 18}, commercial=True, jurisdiction="DE", delta="1e-9")
    query = make_query(document, ledger(), "c")
    assert query.filter == Compare("age", "ge", 18) and query.delta_exponent == 9
    assert declaration(document) == Declaration(True, "DE")


def test_bounds_and_values_are_those_that_every_table_declares() -> None:
    narrow = (msgspec.structs.replace(COST, low=500), AGE, msgspec.structs.replace(WARD, values=("west", "south")))
    state = ledger(table("a", "site-a", narrow), table("b", "site-b"), table("c", "site-c"))
    query = make_query(asked(by=("ward",), other=False), state, "c")
    assert (query.measures[0].low, query.groups[0].values) == (500, ("west",))
    check_declared(query, state, "")


def test_an_exact_question_has_the_bounds_that_every_table_declares() -> None:
    narrow = (msgspec.structs.replace(COST, low=500), AGE, WARD)
    tables = (table("a", "site-a", narrow), table("b", "site-b"), table("c", "site-c"))
    state = ledger(*tables, public=True)
    for one in (Measured("cost"), Measured("cost", "5", "100"), Measured("cost", edges=("5", "6", "100"))):
        query = make_query(asked(one, exact=True), state, "c")
        assert (query.measures[0].low, query.measures[0].high) == (500, 10_000)
        check_declared(query, state, "")
    for low, high in (("99.99", "100"), ("5", "5.01"), ("5.01", "100")):
        for one in (Measured("cost", low, high), Measured("cost", edges=(low, high))):
            with pytest.raises(Refused) as caught:
                make_query(asked(one, exact=True), state, "c")
            assert caught.value.code == "mpc.exact_bounds" and caught.value.facts["low"] == "5"
            noisy = make_query(asked(one), state, "c")
            with pytest.raises(Refused) as caught:
                check_declared(msgspec.structs.replace(noisy, exact=True), state, "")
            assert caught.value.code == "mpc.exact_bounds"
            check_declared(noisy, state, "")


def test_a_site_with_several_tables_is_asked_the_one_that_is_named() -> None:
    state = ledger(*(table(f"stays-{site}", site) for site in SITES), table("more", "site-a"))
    with pytest.raises(Refused) as caught:
        make_query(asked(), state, "c")
    assert caught.value.code == "question.several_tables"
    assert make_query(asked(datasets=("more",)), state, "c").datasets == ("more", "stays-site-b", "stays-site-c")


def test_an_earlier_version_of_a_table_is_no_table() -> None:
    state = ledger(table("new", "site-a"), table("b", "site-b"), table("c", "site-c"), table("d", "site-d"))
    first = msgspec.structs.replace(table("old", "site-a"), superseded_by="newer")
    state.put(dataset_key("old"), first)
    state.put(dataset_key("newer"), msgspec.structs.replace(table("newer", "site-a"), superseded_by="new"))
    for named, code, fact in ((("old",), "question.superseded", "new"), (("d",), "question.not_asked", "d")):
        with pytest.raises(Refused) as caught:
            make_query(asked(datasets=named, roster=("site-a", "site-b", "site-c")), state, "c")
        assert caught.value.code == code and fact in caught.value.facts.values()


def test_the_person_is_named_where_the_population_counts_persons() -> None:
    state = ledger(unit="person", rows_per_person=3)
    query = make_query(asked(person="patient"), state, "c")
    assert (query.unit, query.person, query.rows_per_person) == ("person", "patient", 3)
    check_declared(query, state, "patient")
    assert make_query(asked(person="patient"), ledger(), "c").person == ""


def cost(**others: Any) -> dict[str, Any]:
    return {"measures": (Measured("cost", **others),)}


@pytest.mark.parametrize(
    ("others", "code"),
    [
        ({"population": "nothing"}, "datasets.unknown_population"),
        ({"population": "No Name"}, "query_document.name"),
        ({"roster": ("site-a", "nobody", "site-b")}, "datasets.no_table"),
        ({"roster": ("site-a", "site-b")}, "query_document.roster_size"),
        ({"datasets": ("nothing",)}, "question.no_such_table"),
        ({"measures": (Measured("height"),)}, "question.no_column"),
        ({"measures": (Measured("ward"),)}, "question.no_column"),
        ({"by": ("age",)}, "question.no_column"),
        ({"by": ("ward", "ward")}, "query_document.repeated"),
        (cost(low="-1"), "question.bounds"),
        (cost(high="100.01"), "question.bounds"),
        (cost(low="5", high="5"), "query_document.low_high"),
        (cost(low="100"), "question.bounds"),
        (cost(low="0.001"), "question.too_exact"),
        (cost(missing=("0.001",)), "question.too_exact"),
        (cost(edges=("0", "1.005")), "question.too_exact"),
        (cost(edges=("0", "50", "40", "100")), "query_document.rising"),
        ({"rho": "0"}, "query_document.no_budget"),
        ({"purpose": "CURIOSITY"}, "privacy.unknown_purpose"),
        ({"filter": {"column": "height", "at_least": 1}}, "privacy.predicate_column"),
        ({"filter": {"column": "ward", "equals": 1}}, "privacy.predicate_kind"),
    ],
)
def test_what_cannot_be_asked_is_named(others: dict[str, Any], code: str) -> None:
    with pytest.raises(MedveilError) as caught:
        make_query(asked(**others), ledger(), "c")
    assert caught.value.code == code


def test_tables_that_cannot_be_added_up() -> None:
    finer = (msgspec.structs.replace(COST, scale=1000), AGE, msgspec.structs.replace(WARD, values=("south",)))
    state = ledger(table("a", "site-a", finer), table("b", "site-b"), table("c", "site-c"))
    for others, code in (
        ({}, "question.other_scales"),
        ({"measures": (Measured("age"),), "by": ("ward",)}, "question.no_common_value"),
    ):
        with pytest.raises(Refused) as caught:
            make_query(asked(**others), state, "c")
        assert caught.value.code == code
