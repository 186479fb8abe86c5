"""mpc.query: what a query must say, its normal form, and the hash that stands for it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc.query import (
    Measure,
    Query,
    Split,
    check_proposal,
    check_query,
    check_terms,
    local_plans,
    most_colluders,
    noise_shares,
    normalised,
    salted_hash,
    threshold,
)
from privacy.local import GroupColumn
from privacy.predicate import And, Compare, In, IsNull, Not, Or
from wire import canonical
from wire.errors import DecodeError, Refused

ROSTER_2 = ("hospital-1", "hospital-2")


def measure(**changes):
    return (msgspec.structs.replace(Measure("visits", 0, 30, 1, (0, 1, 3, 6, 10, 30)), **changes),)


def test_the_example_is_sound_and_travels(make_query):
    query = make_query()
    check_query(query)
    assert canonical.decode(type(query), canonical.encode(query)) == query


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("mpc.query_version", {"version": 2}),
        ("mpc.roster_size", {"roster": ROSTER_2, "datasets": ("a", "b")}),
        ("mpc.roster_size", {"roster": (), "datasets": ()}),
        ("mpc.roster_order", {"roster": ("b", "a", "c", "d")}),
        ("mpc.roster_order", {"roster": ("a", "a", "b", "c")}),
        ("mpc.one_dataset_a_site", {"datasets": ("only-one",)}),
        ("mpc.too_many_measures", {"measures": tuple(Measure(f"m{i:02}", 0, 30, 1) for i in range(17))}),
        ("mpc.too_many_missing", {"measures": measure(missing=tuple(range(101)))}),
        ("mpc.measure_order", {"measures": measure() + measure(column="stays")}),
        ("mpc.measure_order", {"measures": measure() + measure(low=1, edges=())}),
        ("mpc.measure_weights", {"measures": measure(weight=2)}),
        ("mpc.measure_weights", {"measures": measure(column="stays", weight=6) + measure(weight=4)}),
        ("mpc.group_order", {"groups": (GroupColumn("plan", ("yes",)), GroupColumn("health", ("good",)))}),
        ("privacy.plan_groups", {"groups": (GroupColumn("plan", ("yes",)), GroupColumn("plan", ("no",)))}),
        ("mpc.privacy_unit", {"spread": "one-site"}),
        ("mpc.budget_split", {"measures": ()}),  # budget for sums that are not asked
        (
            "mpc.budget_split",
            {"measures": measure(column="stays", weight=1000) + measure(), "split": Split(*[999] * 5)},
        ),
        ("mpc.privacy_unit", {"rows_per_person": 2}),
        ("mpc.privacy_unit", {"person": "patient"}),
        ("mpc.privacy_unit", {"unit": "person", "rows_per_person": 3}),
        ("mpc.too_many_colluders", {"colluders": 2}),
        ("mpc.too_many_colluders", {"colluders": 3}),
        ("mpc.budget_split", {"split": Split(0, 1, 1, 1, 1)}),
        ("mpc.budget_split", {"split": Split(1, 0, 1, 1, 1)}),
        ("mpc.budget_split", {"split": Split(1, 1, 1, 0, 1)}),
        ("mpc.budget_split", {"split": Split(1, 1, 1, 1, 0)}),
        ("mpc.budget_split", {"split": Split(1, 50_000_000, 50_000_000, 1, 1)}),
        ("mpc.budget_split", {"measures": measure(edges=())}),  # budget for bins that are not asked
        ("privacy.plan_bounds", {"measures": measure(low=30, edges=())}),
        ("privacy.plan_edges", {"measures": measure(edges=(0, 5))}),
    ],
)
def test_each_fault_has_its_own_refusal(make_query, code, changes):
    with pytest.raises(Refused) as caught:
        check_query(make_query(**changes))
    assert caught.value.code == code
    assert caught.value.text("zh") != caught.value.text("en") != code


def test_many_group_columns_are_refused_before_they_are_multiplied_out(make_query):
    columns = tuple(GroupColumn(f"c{i:02}", tuple(f"v{j}" for j in range(50))) for i in range(30))
    with pytest.raises(Refused, match="numbers"):
        check_query(make_query(groups=columns))


def test_three_sites_and_one_colluder_leave_two_shares(make_query):
    assert [threshold(n) for n in (3, 4, 5, 6, 7, 9)] == [3, 3, 4, 5, 5, 7]
    assert noise_shares(3, 1) == 2
    check_query(make_query(roster=("a", "b", "c"), datasets=("a", "b", "c"), colluders=1))
    with pytest.raises(Refused):  # with all but one colluding, the sum is one site's
        check_query(make_query(roster=("a", "b", "c"), datasets=("a", "b", "c"), colluders=2))


def test_a_person_unit_names_the_person_or_says_one_row_each(make_query):
    check_query(make_query(unit="person"))
    query = make_query(unit="person", person="patient", rows_per_person=5)
    check_query(query)
    (plan,) = local_plans(query)
    assert (plan.person, plan.rows_per_person) == ("patient", 5)


def test_a_site_holds_the_query_to_its_populations_terms(make_query):
    query = make_query(unit="person", person="patient", rows_per_person=5)
    own = {"unit": "person", "rows_per_person": 5, "colluders": 1, "spread": "every-site", "person": "patient"}
    check_terms(query, **own)
    check_terms(query, **own | {"rows_per_person": 4, "colluders": 0, "spread": "one-site"})
    for changes, term in (
        ({"unit": "row", "rows_per_person": 1, "person": ""}, "unit"),
        ({"rows_per_person": 6}, "rows_per_person"),
        ({"colluders": 2}, "colluders"),
    ):
        with pytest.raises(Refused) as caught:
            check_terms(query, **own | changes)
        assert caught.value.facts["term"] == term
    for person in ("other_column", ""):
        with pytest.raises(Refused) as caught:
            check_terms(query, **own | {"person": person})
        assert caught.value.code == "mpc.other_person" and "person" in caught.value.text()
    with pytest.raises(Refused):  # rows, where the owners said persons
        check_terms(make_query(), **own | {"rows_per_person": 1})


def test_only_the_owners_can_say_that_each_person_is_at_one_site(make_query):
    query = make_query(unit="person", spread="one-site")
    check_query(query)
    own = {"unit": "person", "rows_per_person": 1, "colluders": 1, "person": ""}
    check_terms(query, spread="one-site", **own)
    with pytest.raises(Refused) as caught:
        check_terms(query, spread="one-site", **own | {"person": "patient"})
    assert caught.value.code == "mpc.other_person"
    with pytest.raises(Refused) as caught:
        check_terms(query, spread="every-site", **own)
    assert caught.value.facts["term"] == "spread"


def test_no_more_colluders_than_the_sums_withstand():
    """min(t - 1, 2t - n - 1), and never all but one."""
    assert [most_colluders(n) for n in (3, 4, 5, 6, 7, 8, 9, 10, 100, 200)] == [1, 1, 2, 3, 2, 3, 4, 3, 33, 67]
    for n in range(3, 201):
        t, c = threshold(n), most_colluders(n)
        assert c <= min(t - 1, 2 * t - n - 1, n - 2) and noise_shares(n, c) >= 1
        assert c + 1 > min(t - 1, 2 * t - n - 1, n - 2)


def test_a_site_approves_only_what_was_proposed(make_query, salt):
    """A coordinator that proposes less rho than the query's noise costs, or another roster, is caught."""
    query = make_query()
    proposed = {
        "query_hash": salted_hash(query, salt),
        "population": query.population,
        "roster": query.roster,
        "rho_nano": query.rho_nano,
    }
    check_proposal(query, salt, **proposed)
    for changes, term in (
        ({"query_hash": bytes(32)}, "query"),
        ({"population": "others"}, "population"),
        ({"roster": query.roster[:3]}, "roster"),
        ({"rho_nano": 1}, "rho_nano"),
        ({"phases": 4}, "phases"),
    ):
        with pytest.raises(Refused) as caught:
            check_proposal(query, salt, **{**proposed, **changes})
        assert caught.value.facts["term"] == term
    with pytest.raises(Refused):
        check_proposal(query, bytes(32), **proposed)


def test_the_hash_hides_behind_its_salt_and_binds_every_field(make_query, salt):
    query = make_query()
    plain = salted_hash(query, salt)
    assert len(plain) == 32
    assert salted_hash(query, bytes(32)) != plain
    for changes in ({"rho_nano": 200_000_000}, {"minimum_group": 121}, {"roster": ("a", "b", "c")}, {"colluders": 0}):
        assert salted_hash(make_query(**changes), salt) != plain
    with pytest.raises(ValueError, match="32 bytes"):
        salted_hash(query, b"short")


a, b, c = Compare("age", "ge", 18), Compare("sex", "eq", "f"), IsNull("idp")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (And((a, b)), And((b, a))),
        (And((a, And((b, c)))), And((And((c, a)), b, b))),
        (Or((a, Or((b,)))), Or((b, a, a))),
        (Not(Not(a)), a),
        (Not(Not(Not(a))), Not(a)),
        (And((a,)), a),
        (In("age", (3, 1, 2, 1)), In("age", (1, 2, 3))),
        (In("sex", ("f",)), b),
        (And((Not(Not(And((a, b)))), c)), And((a, b, c))),
    ],
)
def test_equal_filters_written_differently_hash_alike(make_query, salt, one, other):
    assert salted_hash(make_query(filter=one), salt) == salted_hash(make_query(filter=other), salt)


def test_different_filters_stay_different(make_query, salt):
    filters = (None, a, b, Not(a), And((a, b)), Or((a, b)), Not(And((a, b))), And((Not(a), b)))
    assert len({salted_hash(make_query(filter=f), salt) for f in filters}) == len(filters)


@given(st.binary(max_size=200))
def test_foreign_bytes_are_no_query(data):
    with pytest.raises(DecodeError):
        canonical.decode(Query, data)


def test_normalised_leaves_the_rest_alone(make_query):
    query = make_query(filter=Not(Not(a)))
    assert normalised(query) == make_query(filter=a)
    assert normalised(make_query()) == make_query()
