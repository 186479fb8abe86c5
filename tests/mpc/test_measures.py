"""Several measures in one query, or none: cells, shares of the budget, sensitivity by enumeration, releases."""

from __future__ import annotations

import statistics
from decimal import Decimal
from fractions import Fraction
from itertools import product

import msgspec
import pyarrow as pa
import pytest

from connectors.arrow_engine import ArrowEngine
from mpc import cells
from mpc.budget import rows_of_one_unit, scales, sensitivity, split
from mpc.query import KINDS, NANO, Measure, check_query, kinds, local_plans, noise_shares, share
from mpc.release import Release, finish, verify_release
from privacy.local import GroupColumn, bind
from wire import canonical, evidence
from wire.errors import Refused, VerificationError

STAYS = Measure("stays", 0, 4, 1)
VISITS = Measure("visits", -3, 9, 1, (-3, 0, 2, 9))
WARD = (GroupColumn("ward", ("east", "west"), other=False),)


@pytest.fixture
def two(make_query):
    """Stays without a histogram, visits with one, by ward."""

    def make(**changes):
        return make_query(**{"measures": (STAYS, VISITS), "groups": WARD} | changes)

    return make


@pytest.fixture
def rows_only(make_query):
    """How many rows by ward."""

    def make(**changes):
        return make_query(**{"measures": (), "groups": WARD, "split": split(10**8, False, measures=False)} | changes)

    return make


def both_layouts(query):
    plans = local_plans(query)
    every = tuple(range(len(plans[0].combinations())))
    return cells.gate_layout(query), cells.sums_layout(query, (every,) * len(plans))


def exact_cells(query, tables, exact):
    """Exact cells of one site by measure and kind, in the kind's unit."""
    found = {}
    for layout in both_layouts(query):
        values = cells.contribution(query, layout, tables, draw=exact)
        start = 0
        for block in layout.blocks:
            part = values[start : start + block.cells]
            unit = block.scale.lattice
            found[block.scale.measure, block.scale.kind] = [Fraction(v - block.offset, unit) for v in part]
            start += block.cells
    return found


def squares_of_change(before, after):
    """Squared L2 distance of all cells of each measure's kind."""
    return {key: sum((x - y) ** 2 for x, y in zip(before[key], after[key], strict=True)) for key in before}


# --- cells and shares ---------------------------------------------------------------------------


def test_every_measure_has_its_cells_in_the_one_vector_of_a_phase(two):
    query = two()
    check_query(query)
    gate, sums = both_layouts(query)
    assert [(b.scale.measure, b.scale.kind, b.cells) for b in gate.blocks] == [(0, "gate", 2), (1, "gate", 2)]
    assert [(b.scale.measure, b.scale.kind, b.cells) for b in sums.blocks] == [
        (0, "counts", 2),
        (0, "sums", 2),
        (0, "squares", 2),
        (1, "counts", 2),
        (1, "sums", 2),
        (1, "squares", 2),
        (1, "bins", 6),
    ]
    assert cells.most_cells(query) == gate.cells + sums.cells == 22
    some = cells.sums_layout(query, ((1,), (0,)))
    assert [b.cells for b in some.blocks] == [1, 1, 1, 1, 1, 1, 3]
    assert cells.sums_layout(query, ((1,), (0,))).digest() != cells.sums_layout(query, ((0,), (1,))).digest()
    assert cells.sums_layout(query, ((), (0, 1))).cells == 12


def test_rows_alone_are_counted_in_both_phases_and_nothing_else(rows_only):
    query = rows_only()
    check_query(query)
    assert [[b.scale.kind for b in layout.blocks] for layout in both_layouts(query)] == [["gate"], ["counts"]]
    assert cells.most_cells(query) == 4
    assert query.split.total() == query.rho_nano == sum(one.rho_nano for one in scales(query))


def test_each_kind_is_shared_by_weights_among_the_measures_that_have_it(two):
    query = two(measures=(msgspec.structs.replace(STAYS, weight=3), VISITS))
    check_query(query)
    assert [share(query, at, "sums") for at in (0, 1)] == [query.split.sums * 3 // 4, query.split.sums // 4]
    assert share(query, 1, "bins") == query.split.bins, "no other measure has bins"
    assert [kinds(query, at) for at in (0, 1)] == [KINDS[:-1], KINDS]
    equal = two()
    assert share(equal, 0, "gate") == share(equal, 1, "gate") == equal.split.gate // 2


@pytest.mark.parametrize("weights", [(1, 1), (1, 2), (999, 1000), (7, 3)])
def test_the_shares_never_add_up_to_more_than_the_query_costs(two, weights):
    for rho in (10**6 + 1, 10**8, 10**9 + 7):
        measures = tuple(
            msgspec.structs.replace(one, weight=w) for one, w in zip((STAYS, VISITS), weights, strict=True)
        )
        query = two(measures=measures, rho_nano=rho, split=split(rho, True))
        check_query(query)
        given = sum(one.rho_nano for one in scales(query))
        assert rho - 10 < given <= rho


def test_wide_measures_are_refused_by_name(two):
    wide = Measure("width", 0, 10**7, 1)
    query = two(measures=(STAYS, wide), split=split(10**8, False), max_rows=2**15)
    check_query(query)
    with pytest.raises(Refused) as caught:
        cells.prove_no_wrap(query)
    assert (caught.value.code, caught.value.facts["measure"]) == ("mpc.would_wrap", "width")


def test_sixteen_measures_may_fill_a_phase_and_no_more(make_query):
    columns = tuple(Measure(f"m{i:02}", 0, 30, 1) for i in range(16))
    codes = tuple(f"g{i}" for i in range(2**17 // 48))
    query = make_query(measures=columns, groups=(GroupColumn("code", codes, other=False),), split=split(10**8, False))
    check_query(query)
    wider = (GroupColumn("code", (*codes, "one-more"), other=False),)
    with pytest.raises(Refused) as caught:
        check_query(msgspec.structs.replace(query, groups=wider))
    assert caught.value.facts["cells"] == 48 * (len(codes) + 1)


# --- who is protected ---------------------------------------------------------------------------


def test_no_row_moves_a_measures_cells_by_more_than_the_sensitivity(two, make_table, exact):
    """Every row there can be, known or not in each measure; the bounds are reached."""
    query = two()
    base = [(0, (1, 2)), (1, (None, 9)), (1, (4, None))]
    before = exact_cells(query, make_table(query, base), exact)
    largest = dict.fromkeys(before, Fraction(0))
    for group, stays, visits in product((0, 1), (None, *range(-1, 7)), (None, *range(-5, 12))):
        after = exact_cells(query, make_table(query, [*base, (group, (stays, visits))]), exact)
        for key, change in squares_of_change(before, after).items():
            largest[key] = max(largest[key], change)
    for (measure, kind), change in largest.items():
        assert change == sensitivity(query, measure, kind) ** 2, (measure, kind)


def worst_loss(query, before, after):
    """zCDP between two inputs, of all cells together, when no more noise is there than h sites bring."""
    honest = noise_shares(len(query.roster), query.colluders)
    change = squares_of_change(before, after)
    return sum(
        change[one.measure, one.kind] * one.lattice**2 / (2 * honest * one.site_variance) for one in scales(query)
    )


@pytest.mark.parametrize("spread", ["one-site", "every-site"])
def test_a_person_costs_no_more_than_rho_whatever_their_rows(two, exact, spread):
    """The site's own engine over every table that a person of up to three rows can have; two of a measure count.

    At each site where the person may have rows: all of them hold the same, which is the worst.
    """
    query = two(unit="person", person="patient", rows_per_person=2, spread=spread)
    check_query(query)
    sites = 1 if spread == "one-site" else len(query.roster)
    assert rows_of_one_unit(query) == 2 * sites
    others = [("a", "east", 1, 2), ("b", "west", None, 9)]
    kinds_of_rows = [
        ("p", "east", 4, 9),
        ("p", "west", 4, 9),
        ("p", "east", 0, None),
        ("p", "west", None, -3),
        ("p", "north", 4, -3),
    ]
    before = exact_cells(query, tables_of(query, others), exact)
    worst = {key: Fraction(0) for key in before}
    loss = Fraction(0)
    for count in range(4):
        for own in product(kinds_of_rows, repeat=count):
            after = exact_cells(query, tables_of(query, [*others, *own]), exact)
            moved = {key: [x + sites * (y - x) for x, y in zip(before[key], after[key], strict=True)] for key in before}
            loss = max(loss, worst_loss(query, before, moved))
            for key, change in squares_of_change(before, moved).items():
                worst[key] = max(worst[key], change)
    for (measure, kind), change in worst.items():
        assert change == sensitivity(query, measure, kind) ** 2, (measure, kind)
    assert Fraction(99, 100) * query.rho_nano < loss * NANO <= query.rho_nano, "no more, and not wastefully less"


def tables_of(query, rows):
    """What the engine in memory gives for rows of (patient, ward, stays, visits)."""
    columns = list(zip(*rows, strict=True)) or [()] * 4
    kinds_of_columns = {"patient": pa.string(), "ward": pa.string(), "stays": pa.int64(), "visits": pa.int64()}
    arrays = {
        name: pa.array(cells_of_it, kind)
        for (name, kind), cells_of_it in zip(kinds_of_columns.items(), columns, strict=True)
    }
    engine = ArrowEngine(pa.table(arrays))
    return tuple(engine.run(plan, bind({})) for plan in local_plans(query))


def test_each_measure_counts_its_own_first_rows_of_a_person(two):
    """A row in which one measure is missing takes no place of the other's."""
    query = two(unit="person", person="patient", rows_per_person=2)
    rows = [("p", "east", 1, None), ("p", "east", 2, None), ("p", "west", 3, 5), ("p", "west", None, 6)]
    stays, visits = tables_of(query, rows)
    assert stays.column("count").to_pylist() == [2, 0]
    assert visits.column("count").to_pylist() == [0, 2]


def test_the_engine_counts_rows_when_nothing_is_measured(rows_only):
    query = rows_only(unit="person", person="patient", rows_per_person=2)
    rows = [("p", "east", 1, None), ("p", "east", None, None), ("p", "west", 3, 5), ("q", "north", 1, 1)]
    (table,) = tables_of(query, rows)
    assert table.schema == local_plans(query)[0].result_schema()
    assert table.to_pydict() == {"group": ["ward=east", "ward=west"], "count": [2, 0]}
    assert local_plans(query)[0].columns() == {"patient", "ward"}


def test_a_person_at_one_site_has_the_noise_of_one_site(two, make_table, consortium, salt):
    query = two(unit="person", spread="one-site")
    board = consortium.answer(query, dict.fromkeys(query.roster, make_table(query, [(0, (1, 2))] * 200)))
    result = finish(query, salt, board)
    assert (result.unit, result.spread, result.rows_of_one_unit) == ("person", "one-site", 1)
    everywhere = finish(
        many := two(unit="person"), salt, consortium.answer(many, dict.fromkeys(many.roster, make_table(many, [])))
    )
    for near, far in zip(result.noise, everywhere.noise, strict=True):
        assert Decimal(far.required) == pytest.approx(4 * Decimal(near.required), abs=Decimal("0.0005"))


# --- releases -----------------------------------------------------------------------------------


@pytest.fixture
def records():
    """Rows of four sites: 400 by ward, a third of the stays unknown in the west and all but 20 of the visits."""
    found = []
    for site in range(4):
        east = [(0, (i % 5, (i * 7 + site) % 13 - 3)) for i in range(240)]
        west = [(1, (None if i % 3 == 0 else i % 4, i % 9 if i < 5 else None)) for i in range(160)]
        found.append(east + west)
    return found


@pytest.fixture
def board(two, make_table, consortium, records, exact):
    query = two()
    tables = {site: make_table(query, rows) for site, rows in zip(query.roster, records, strict=True)}
    return consortium.answer(query, tables, draw=exact)


@pytest.fixture
def released(two, salt, board) -> Release:
    return finish(two(), salt, board)


def known(records, measure, group):
    return [values[measure] for rows in records for at, values in rows if at == group and values[measure] is not None]


def test_each_measure_is_answered_and_hidden_by_its_own_counts(records, released):
    """Without noise: in the west, stays are known of enough rows and visits of too few."""
    stays, visits = released.results
    assert (stays.measure, [group.label for group in stays.groups], stays.hidden) == (
        "stays",
        ["ward=east", "ward=west"],
        (),
    )
    assert (visits.measure, [group.label for group in visits.groups]) == ("visits", ["ward=east"])
    assert [(one.label, one.noisy_count) for one in visits.hidden] == [("ward=west", "20")]
    for at, result in enumerate(released.results):
        for group in result.groups:
            values = known(records, at, ("ward=east", "ward=west").index(group.label))
            assert group.count.value == str(len(values))
            assert float(group.mean.value) == pytest.approx(statistics.mean(values), abs=1e-4)
            assert float(group.sd.value) == pytest.approx(statistics.stdev(values), abs=1e-4)
    assert stays.groups[0].bins == ()
    east = known(records, 1, 0)
    in_bins = [sum(low <= v < high for v in east) for low, high in ((-3, 0), (0, 2), (2, 10))]
    assert [cell.value for cell in visits.groups[0].bins] == [str(count) for count in in_bins]


def test_the_noise_is_stated_measure_by_measure(two, released):
    stated = [(one.measure, one.kind) for one in released.noise]
    assert stated == [("stays", kind) for kind in KINDS[:-1]] + [("visits", kind) for kind in KINDS]
    assert sum(one.rho_nano for one in released.noise) <= two().rho_nano
    by = {(one.measure, one.kind): one for one in released.noise}
    assert (by["stays", "sums"].sensitivity, by["visits", "sums"].sensitivity) == ("2", "6")


def test_a_release_of_several_measures_verifies_and_no_number_can_be_moved(released, board):
    verify_release(released, board)
    assert evidence.read(canonical.encode(released)) == released
    stays, visits = released.results
    replace = msgspec.structs.replace
    for results in (
        (visits, stays),
        (stays,),
        (stays, stays),
        (stays, replace(visits, measure="stays")),
        (stays, replace(visits, hidden=())),
        (replace(stays, groups=visits.groups), visits),
        (stays, replace(visits, groups=(replace(visits.groups[0], bins=visits.groups[0].bins[::-1]),))),
    ):
        with pytest.raises(VerificationError) as caught:
            verify_release(replace(released, results=results), board)
        assert caught.value.facts["field"] == "results"
    with pytest.raises(VerificationError) as caught:
        verify_release(replace(released, query=replace(released.query, measures=(VISITS, STAYS))), board)
    assert caught.value.code in ("mpc.not_this_query", "mpc.release_unsound")


def test_counts_of_rows_alone_are_released_and_verify(rows_only, make_table, consortium, records, exact, salt):
    query = rows_only(minimum_group=700)
    sites = zip(query.roster, records, strict=True)
    tables = {site: make_table(query, [(group, 0) for group, _ in rows]) for site, rows in sites}
    board = consortium.answer(query, tables, draw=exact)
    result = finish(query, salt, board)
    verify_release(result, board)
    (counts,) = result.results
    (east,) = counts.groups
    assert (counts.measure, east.label, east.count.value) == ("", "ward=east", "960")
    assert (east.mean, east.sd, east.bins) == (None, None, ())
    assert [(one.label, one.noisy_count) for one in counts.hidden] == [("ward=west", "640")]
    assert [(one.measure, one.kind, one.unit) for one in result.noise] == [("", "gate", "rows"), ("", "counts", "rows")]
    assert [len(one.honest) for one in result.epsilons] == [2, 2, 2]


def test_every_measure_carries_its_own_noise(two, make_table):
    """Over 2,000 groups: what a site adds to the cells of each measure's kind has the variance that its share needs.

    Relative sd of a sample variance over n cells is sqrt(2 / n): at 8 of those, 0.25 here, it is below 10^-13 by
    chance. With equal shares instead of 4 to 1, a measure would be outside by more than 0.3.
    """
    groups = (GroupColumn("code", tuple(f"g{i}" for i in range(2000)), other=False),)
    query = two(groups=groups, measures=(msgspec.structs.replace(STAYS, weight=4), VISITS))
    table = make_table(query, [])
    largest = {0: 2, 1: 6}
    for layout in both_layouts(query):
        exact = cells.contribution(query, layout, table, draw=lambda one, n: (0,) * n)
        noise = [u - x for u, x in zip(cells.contribution(query, layout, table), exact, strict=True)]
        start = 0
        for block in layout.blocks:
            measure, kind = block.scale.measure, block.scale.kind
            part = noise[start : start + block.cells]
            start += block.cells
            change = {"sums": largest[measure], "squares": largest[measure] ** 2}.get(kind, 1)
            weight = Fraction(1) if kind == "bins" else Fraction((4, 1)[measure], 5)
            rho = getattr(query.split, kind) * weight / NANO
            target = float(change**2 / (2 * rho) / 2 * block.scale.lattice**2)  # h = t - c = 2
            assert sum(x * x for x in part) / len(part) / target == pytest.approx(1, abs=8 * (2 / len(part)) ** 0.5)
