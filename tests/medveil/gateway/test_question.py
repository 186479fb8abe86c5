"""A question in a person's words becomes the query that the sites are asked, under what the ledger declares."""

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
from medveil.gateway.question import Question, make_query, preview
from mpc.query import Measure
from privacy.local import GroupColumn
from privacy.predicate import Compare
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


def ledger(*tables: DatasetState, unit: str = "row", rows_per_person: int = 1, budget: int = 10**9) -> Any:
    found = tables or tuple(table(f"stays-{site}", site) for site in SITES)
    owners = tuple(dict.fromkeys(one.owner for one in found))
    state = Ledger()
    for one in found:
        state.put(dataset_key(one.dataset), one)
    population = PopulationState(
        population="stays",
        unit=unit,  # type: ignore[arg-type]
        rows_per_person=rows_per_person,
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


def asked(**others: Any) -> Question:
    return Question(**{"population": "stays", "measure": "cost", "purpose": "HMB", "rho": "0.25"} | others)


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
    edges = ("0", "25.5", "99.99")
    query = make_query(asked(edges=edges, by=("ward",), other=False, rho="0.000000123"), ledger(), "c")
    assert query.measure == Measure("cost", 0, 9999, 100, (0, 2550, 9999))
    assert query.groups == (GroupColumn("ward", ("east", "west", "other"), False),) and query.rho_nano == 123
    assert query.split.bins
    grouped = make_query(asked(by=("ward",), low="1", high="2.50"), ledger(), "c")
    assert (grouped.measure.low, grouped.measure.high) == (100, 250)
    assert grouped.groups == (GroupColumn("ward", ("east", "west"), True),)


def test_bounds_and_values_are_those_that_every_table_declares() -> None:
    narrow = (msgspec.structs.replace(COST, low=500), AGE, msgspec.structs.replace(WARD, values=("west", "south")))
    state = ledger(table("a", "site-a", narrow), table("b", "site-b"), table("c", "site-c"))
    query = make_query(asked(by=("ward",), other=False), state, "c")
    assert (query.measure.low, query.groups[0].values) == (500, ("west",))
    check_declared(query, state, "")


def test_a_site_with_several_tables_is_asked_the_one_that_is_named() -> None:
    state = ledger(*(table(f"stays-{site}", site) for site in SITES), table("more", "site-a"))
    with pytest.raises(Refused) as caught:
        make_query(asked(), state, "c")
    assert caught.value.code == "question.several_tables"
    assert make_query(asked(datasets=("more",)), state, "c").datasets == ("more", "stays-site-b", "stays-site-c")


def test_the_person_is_named_where_the_population_counts_persons() -> None:
    state = ledger(unit="person", rows_per_person=3)
    query = make_query(asked(person="patient"), state, "c")
    assert (query.unit, query.person, query.rows_per_person) == ("person", "patient", 3)
    check_declared(query, state, "patient")
    assert make_query(asked(person="patient"), ledger(), "c").person == ""


@pytest.mark.parametrize(
    ("others", "code"),
    [
        ({"population": "nothing"}, "datasets.unknown_population"),
        ({"sites": ("site-a", "nobody", "site-b")}, "datasets.no_table"),
        ({"sites": ("site-a", "site-b")}, "mpc.roster_size"),
        ({"datasets": ("nothing",)}, "question.no_such_table"),
        ({"measure": "height"}, "question.no_column"),
        ({"measure": "ward"}, "question.no_column"),
        ({"by": ("age",)}, "question.no_column"),
        ({"by": ("ward", "ward")}, "privacy.plan_groups"),
        ({"low": "-1"}, "question.bounds"),
        ({"high": "100.01"}, "question.bounds"),
        ({"low": "5", "high": "5"}, "question.bounds"),
        ({"low": "0.001"}, "question.too_exact"),
        ({"edges": ("0", "1.005")}, "question.too_exact"),
        ({"edges": ("0", "50", "40", "100")}, "privacy.plan_edges"),
        ({"edges": ("0",), "high": "1"}, "privacy.plan_edges"),
        ({"rho": "0"}, "question.no_budget"),
        ({"rho": "0.0000000001"}, "question.too_exact"),
        ({"purpose": "CURIOSITY"}, "privacy.unknown_purpose"),
        ({"filter": Compare("height", "ge", 1)}, "privacy.predicate_column"),
        ({"filter": Compare("ward", "eq", 1)}, "privacy.predicate_kind"),
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
        ({"measure": "age", "by": ("ward",)}, "question.no_common_value"),
    ):
        with pytest.raises(Refused) as caught:
            make_query(asked(**others), state, "c")
        assert caught.value.code == code


def test_a_preview_says_noise_and_cost() -> None:
    few, many = (preview(asked(by=("ward",), rho=rho), ledger(), "c") for rho in ("0.01", "1"))
    assert (few.before, few.after, many.after) == (10**9, 990_000_000, 0)
    assert [one.kind for one in few.noise] == ["counts", "sums", "squares"]
    assert all(float(a.pooled) > float(b.pooled) for a, b in zip(few.noise, many.noise, strict=True))
    assert {one.assumption for one in few.epsilons} == {"all-honest", "colluders", "one-honest"}
    assert few.cells == 9 and preview(asked(rho="2"), ledger(), "c").after == -(10**9)
