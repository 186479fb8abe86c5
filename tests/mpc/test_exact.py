"""Exact queries: no noise on what passed, more hidden, the same sites in both phases, one question a table."""

from __future__ import annotations

import statistics
from fractions import Fraction
from math import exp

import msgspec
import pytest

from mpc import cells, noise
from mpc.budget import epsilons, scales, split, surely_below
from mpc.history import Earlier, check_exact, check_exact_sites, exact_before
from mpc.query import Measure, check_query, check_terms, local_plans
from mpc.release import finish, noise_statements, verify_release
from privacy.local import GroupColumn
from privacy.predicate import Compare
from wire.errors import Refused, VerificationError

EDGES = (0, 1, 3, 6, 10, 30)
RHO = 400_000_000
SMALL = 5  # health=poor, plan=no
SHOWN = (0, 1)  # health=good


def changed(struct, **fields):
    return msgspec.structs.replace(struct, **fields)


def number(text: str | None) -> Fraction:
    assert text is not None
    return Fraction(text)


@pytest.fixture
def query(make_query):
    """The example question, exactly: groups of 2,400, 800, 1,200, 360, 160 and 12 rows over four sites."""
    return make_query(exact=True, rho_nano=RHO, split=split(RHO, True, exact=True), minimum_group=50)


@pytest.fixture
def released(query, salt, board):
    return finish(query, salt, board)


def plain(query, rows):
    plan = local_plans(query)[0]
    found: dict[str, list[int]] = {label: [] for label in plan.group_labels()}
    for group, value in (row for one in rows for row in one):
        found[plan.group_labels()[group]].append(value)
    return found


def test_what_is_shown_is_the_pooled_answer_to_the_last_digit(query, rows, released):
    (result,) = released.results
    assert [group.label for group in result.groups] == [local_plans(query)[0].group_labels()[one] for one in SHOWN]
    for group in result.groups:
        values = plain(query, rows)[group.label]
        assert group.count.value == group.count.low == group.count.high == str(len(values))
        for shown, expected in ((group.mean, statistics.mean(values)), (group.sd, statistics.stdev(values))):
            assert shown.value == shown.low == shown.high
            assert abs(number(shown.value) - Fraction(expected)) <= Fraction(1, 9999)


def test_a_small_group_is_hidden_with_a_box_of_others(released):
    (result,) = released.results
    why = {hidden.label: hidden.reason for hidden in result.hidden}
    assert why == {
        "health=poor|plan=no": "perhaps-small",
        "health=poor|plan=yes": "protects-another",
        "health=fair|plan=no": "protects-another",
        "health=fair|plan=yes": "protects-another",
    }
    for hidden in result.hidden:
        assert hidden.minimum > 50  # and what the noise may have added
        for language in ("en", "zh"):
            assert hidden.label in hidden.text(language)
            assert hidden.noisy_count in hidden.text(language)


def test_bins_stay_noisy_and_paid_for(query, rows, released):
    assert query.split.bins > 0
    assert (query.split.counts, query.split.sums, query.split.squares) == (0, 0, 0)
    assert query.split.total() == RHO
    found = [number(one.value) for group in released.results[0].groups for one in group.bins]
    assert all(number(one.high) > number(one.low) for group in released.results[0].groups for one in group.bins)
    exact = []
    for group in released.results[0].groups:
        values = plain(query, rows)[group.label]
        exact += [sum(EDGES[i] <= v < EDGES[i + 1] or (i == 4 and v == 30) for v in values) for i in range(5)]
    assert found != exact


def test_noise_statements_say_where_there_is_none(query, released):
    without = {one.kind for one in released.noise if one.pooled == "0"}
    assert without == {"counts", "sums", "squares"}
    assert all(one.rho_nano == 0 for one in released.noise if one.kind in without)
    assert released.noise == noise_statements(query)


def test_the_release_says_that_it_is_exact_and_why(query, released):
    assert "not differentially private" in released.protection()
    assert query.population in released.protection()
    assert "10^-6" in released.protection("zh")


def test_epsilons_are_about_what_has_noise(make_query, query):
    counts_only = make_query(rho_nano=RHO, split=split(RHO, True))
    assert epsilons(query, cells.most_cells(query)) == epsilons(counts_only, cells.most_cells(counts_only))


def test_a_stranger_verifies_it(released, board):
    verify_release(released, board)


@pytest.mark.parametrize("reason", ["protects-another", "withheld"])
def test_another_reason_does_not_verify(released, board, reason):
    (result,) = released.results
    first = next(at for at, one in enumerate(result.hidden) if one.reason == "perhaps-small")
    hidden = [changed(one, reason=reason) if at == first else one for at, one in enumerate(result.hidden)]
    with pytest.raises(VerificationError, match="results"):
        verify_release(changed(released, results=(changed(result, hidden=tuple(hidden)),)), board)


def test_sites_lost_between_the_phases_end_it(consortium, query, salt, tables):
    board = consortium.answer(query, tables, lost={2: {"hospital-2": "start"}})
    with pytest.raises(Refused) as caught:
        finish(query, salt, board)
    assert caught.value.code == "mpc.exact_sites"
    assert caught.value.facts["sites"] == "hospital-2"
    board = consortium.answer(query, tables, lost={one: {"hospital-2": "start"} for one in (1, 2)})
    assert finish(query, salt, board).lost == ("hospital-2",)


def test_the_same_sites_are_asked_of_exact_queries_alone(make_query, query):
    check_exact_sites(make_query(), ("a", "b", "c"), ("a", "b"))
    check_exact_sites(query, ("a", "b", "c"), ("c", "b", "a"))
    with pytest.raises(Refused):
        check_exact_sites(query, ("a", "b", "c"), ("a", "b", "c", "d"))


def test_groups_are_hidden_alike_for_all_measures(consortium, make_query, make_table, salt):
    """A group that is small for one measure is hidden for the other, which may be known of the same rows."""
    measures = (Measure("cost", 0, 30, 1), Measure("visits", 0, 30, 1))
    groups = (GroupColumn("plan", ("a", "b", "c", "d"), other=False),)
    query = make_query(
        exact=True,
        measures=measures,
        groups=groups,
        split=split(RHO, False, exact=True),
        rho_nano=RHO,
        minimum_group=20,
    )
    sizes = (400, 300, 200, 250)
    rows = [(group, (None if group == 0 else 7, 7)) for group, size in enumerate(sizes) for _ in range(size)]
    board = consortium.answer(query, {site: make_table(query, rows) for site in query.roster})
    found = finish(query, salt, board)
    shown = [[group.label for group in result.groups] for result in found.results]
    assert shown == [["plan=b", "plan=d"]] * 2
    assert {one.label: one.reason for one in found.results[1].hidden} == {
        "plan=a": "perhaps-small",
        "plan=c": "protects-another",
    }


@pytest.mark.parametrize(("spread", "of_one"), [("one-site", 12), ("every-site", 48)])
def test_the_minimum_is_one_of_persons_not_of_rows(consortium, make_query, make_table, salt, spread, of_one):
    """Sixty rows of five persons are no group of ten, though the noise at this price finds sixty rows."""
    rho = 6 * 10**9
    query = make_query(
        exact=True,
        unit="person",
        person="patient",
        rows_per_person=12,
        spread=spread,
        groups=(GroupColumn("plan", ("a", "b", "c", "d", "e"), other=False),),
        measures=(Measure("visits", 0, 30, 1),),
        split=split(rho, False, exact=True),
        rho_nano=rho,
        minimum_group=10,
    )

    def shown(persons):
        """The groups that are shown where the last one is of so many, with all rows that they may have."""
        many = [(group, 7) for group in range(4) for _ in range(400)]
        rows = many + [(4, 29)] * (persons * of_one // 4)
        board = consortium.answer(query, {site: make_table(query, rows) for site in query.roster})
        (result,) = finish(query, salt, board).results
        assert all(one.minimum > 9 * of_one for one in result.hidden)
        return [group.label for group in result.groups]

    assert "plan=e" not in shown(5)
    assert "plan=e" not in shown(9)
    assert "plan=e" in shown(20)


def test_values_that_are_all_alike_have_no_deviation(consortium, make_query, make_table, salt):
    query = make_query(
        exact=True,
        groups=(),
        measures=(Measure("visits", 0, 30, 1),),
        split=split(RHO, False, exact=True),
        rho_nano=RHO,
        minimum_group=20,
    )
    board = consortium.answer(query, {site: make_table(query, [(0, 7)] * 100) for site in query.roster})
    (group,) = finish(query, salt, board).results[0].groups
    assert (group.count.value, group.mean.value, group.sd.value) == ("400", "7", "0")


def test_rows_alone_are_counted_exactly(consortium, make_query, make_table, salt):
    own = split(RHO, False, measures=False, exact=True)
    query = make_query(exact=True, measures=(), split=own, rho_nano=RHO, minimum_group=20)
    assert own == changed(own, gate=RHO)
    rows = [(group, 1) for group in range(6) for _ in range(100)]
    found = finish(query, salt, consortium.answer(query, {site: make_table(query, rows) for site in query.roster}))
    assert [group.count.value for group in found.results[0].groups] == ["400"] * 6


def test_a_group_below_the_minimum_passes_with_probability_delta_at_most(query):
    """What a noisy count must exceed the minimum by covers the pooled noise of all sites, cells and measures."""
    gate = cells.gate_layout(query)
    (block,) = gate.blocks
    for sites in (3, 4):
        spare = cells.needed(query, block.scale, sites) - query.minimum_group * block.scale.lattice
        variance = float(sites * block.scale.site_variance)
        assert gate.cells * exp(-(spare**2) / (2 * variance)) <= 1e-6
        assert gate.cells * exp(-((spare * 0.98) ** 2) / (2 * variance)) > 1e-6  # and not much more than that
        assert spare == surely_below(query, block.scale, sites, gate.cells)


def test_the_noise_that_is_drawn_keeps_to_that(query):
    """As drawn: one in a hundred pools is beyond the bound at delta 10^-2 of one cell, not more."""
    (block,) = cells.gate_layout(query).blocks
    spare = surely_below(changed(query, delta_exponent=2), block.scale, 4, 1)
    draws = [noise.draw(block.scale, 4000) for _ in range(4)]
    beyond = sum(sum(of_site) > spare for of_site in zip(*draws, strict=True))
    assert beyond <= 40 + 6 * 6.3


def test_no_noise_is_drawn_for_what_is_exact(query):
    for scale in scales(query):
        if scale.kind in ("counts", "sums", "squares"):
            assert noise.draw(scale, 1000) == (0,) * 1000
            assert (scale.lattice, scale.reach, scale.rho_nano) == (1, 0, 0)
        else:
            assert any(noise.draw(scale, 1000))


def test_hiding_depends_on_the_published_counts_alone(query, board):
    gate = board.phases[0]
    first = cells.hidden_exactly(query, gate.opened.totals, 4)
    assert first == cells.hidden_exactly(query, gate.opened.totals, 4)
    assert {one.group for one in first} == {2, 3, 4, 5}


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("mpc.budget_split", {"split": split(RHO, True)}),
        ("mpc.exact_delta", {"delta_exponent": 5}),
        ("mpc.exact_too_large", {"groups": (GroupColumn("a", tuple(f"v{one}" for one in range(4097)), other=False),)}),
        (
            "mpc.exact_too_large",
            {"groups": tuple(GroupColumn(name, ("x", "y"), other=False) for name in "abcdefg")},
        ),
    ],
)
def test_what_an_exact_query_cannot_be(query, code, change):
    check_query(query)
    with pytest.raises(Refused) as caught:
        check_query(changed(query, **change))
    assert caught.value.code == code


def test_exact_is_for_public_populations_alone(make_query, query):
    terms = {"unit": "row", "rows_per_person": 1, "colluders": 1, "spread": "every-site"}
    check_terms(query, **terms, public=True)
    check_terms(make_query(), **terms, public=True)
    check_terms(make_query(), **terms)
    with pytest.raises(Refused) as caught:
        check_terms(query, **terms)
    assert caught.value.code == "mpc.not_public"


def test_of_a_table_one_exact_question_is_answered(make_query, query):
    def may_hold(name: str, one: Earlier) -> bool:
        assert one in before
        return name == "hospital-1.visits-2" or name in one.query.datasets

    before = [Earlier(bytes(15) + b"\1", query)]
    newer = ("hospital-1.visits-2", *query.datasets[1:])
    others = (
        changed(query, filter=Compare("age", "gt", 64)),
        changed(query, groups=query.groups[:1]),
        changed(query, measures=()),
        changed(query, roster=query.roster[1:], datasets=query.datasets[1:]),
        changed(query, datasets=newer),
        changed(query, datasets=("hospital-1.visits-2", "b", "c", "d")),
        query,
    )
    for other in others:
        with pytest.raises(Refused) as caught:
            check_exact(other, before, may_hold)
        assert caught.value.code == "mpc.exact_before"
        assert caught.value.facts["query"] == before[0].handle.hex()
        assert exact_before(other, before, may_hold) == tuple(before)
        check_exact(changed(other, exact=False), before, may_hold)
        check_exact(other, [Earlier(before[0].handle, make_query())], may_hold)
    check_exact(changed(query, datasets=("a", "b", "c", "d")), before, may_hold)


def test_two_exact_answers_of_the_same_rows_would_give_a_small_group_away(query):
    """What `check_exact` is for: other noise hides other groups, and with the total the small one is plain."""
    query = changed(query, groups=(GroupColumn("plan", ("a", "b", "c", "d"), other=False),))
    (block,) = cells.gate_layout(query).blocks
    hidden = set()
    for _ in range(40):
        noises = zip(*(noise.draw(block.scale, 4) for _ in range(4)), strict=True)
        counts = [one * block.scale.lattice + sum(added) for one, added in zip((3, 200, 200, 300), noises, strict=True)]
        found = cells.hidden_exactly(query, [one + 4 * block.offset for one in counts], 4)
        hidden.add(frozenset(one.group for one in found))
    assert {frozenset({0, 1}), frozenset({0, 2})} <= hidden


def test_values_that_mean_not_known_are_not_counted_by_a_difference(query):
    (measure,) = query.measures
    chosen = changed(measure, missing=(3,))
    check_query(changed(query, measures=(chosen,)))
    other = changed(measure, column="aaa")
    check_query(changed(query, measures=(other, measure)))
    with pytest.raises(Refused) as caught:
        check_query(changed(query, measures=(other, chosen)))
    assert caught.value.code == "mpc.exact_missing"
    noised = changed(query, measures=(other, chosen), exact=False, split=split(RHO, True))
    check_query(noised)
