"""mpc.cells: layouts, the static no-wrap proof, what a site fills in, and the noise that really is there."""

from __future__ import annotations

from fractions import Fraction
from math import sqrt

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpc import cells
from mpc.budget import scales, split
from mpc.query import Measure, check_query, local_plans
from privacy.local import GroupColumn
from wire.errors import Refused, VerificationError

ALL = range(6)


def layouts(query):
    plans = local_plans(query)
    every = tuple(range(len(plans[0].combinations())))
    return cells.gate_layout(query), cells.sums_layout(query, (every,) * len(plans))


def test_layout_of_both_phases(make_query):
    first, second = layouts(make_query())
    assert [(b.scale.kind, b.groups, b.width) for b in first.blocks] == [("gate", 6, 1)]
    assert [(b.scale.kind, b.groups, b.width) for b in second.blocks] == [
        ("counts", 6, 1),
        ("sums", 6, 1),
        ("squares", 6, 1),
        ("bins", 6, 5),
    ]
    assert (first.cells, second.cells) == (6, 48)
    assert cells.most_cells(make_query()) == 54


def test_a_layout_is_named_by_all_that_decides_a_number(make_query):
    digests = {
        cells.sums_layout(make_query(), ((0, 1),)).digest(),
        cells.sums_layout(make_query(), ((0, 2),)).digest(),
        cells.sums_layout(make_query(), ((),)).digest(),
        cells.sums_layout(make_query(rho_nano=2 * 10**8), ((0, 1),)).digest(),
        cells.sums_layout(make_query(colluders=0), ((0, 1),)).digest(),
        cells.sums_layout(make_query(max_rows=4096), ((0, 1),)).digest(),
        cells.gate_layout(make_query()).digest(),
    }
    assert len(digests) == 7


def test_without_noise_the_totals_are_the_exact_pool(make_query, make_table, make_rows, exact):
    query = make_query()
    (plan,) = local_plans(query)
    tables = [make_table(query, make_rows(site)) for site in range(4)]
    for layout in layouts(query):
        vectors = [cells.contribution(query, layout, table, draw=exact) for table in tables]
        totals = [sum(column) for column in zip(*vectors, strict=True)]
        for (_, kind), values in cells.noisy(layout, totals, 4).items():
            lattice = next(b.scale.lattice for b in layout.blocks if b.scale.kind == kind)
            pooled = {
                name: [sum(t.column(name)[g].as_py() for (t,) in tables) for g in ALL]
                for name in tables[0][0].column_names[1:]
            }
            wanted = {
                "gate": pooled["count"],
                "counts": pooled["count"],
                "sums": pooled["sum"],
                "squares": [
                    2 * s - n * plan.largest**2 for s, n in zip(pooled["sum_squares"], pooled["count"], strict=True)
                ],
                "bins": [pooled[f"bin_{i}"][g] for g in ALL for i in range(5)],
            }[kind]
            assert [value // lattice for value in values] == wanted
            assert all(value % lattice == 0 for value in values)


@pytest.mark.parametrize("values", [(30,) * 8, (0,) * 8, (0, 30) * 4, (15,) * 8, (-99, 99) * 4])
def test_a_full_table_of_extreme_values_is_summed_exactly(make_query, make_table, exact, values):
    """As many rows as the table declares, all in one group: what a cell can hold is not cut off."""
    query = make_query(max_rows=len(values))
    (plan,) = local_plans(query)
    rows = [(2, value) for value in values]
    layout = layouts(query)[1]
    found = cells.noisy(layout, cells.contribution(query, layout, make_table(query, rows), draw=exact), 1)
    shifted = [min(max(value, 0), 30) - plan.centre for value in values]
    for block in layout.blocks:
        told = found[block.scale.measure, block.scale.kind]
        assert all(value % block.scale.lattice == 0 for value in told)
        exactly = [value // block.scale.lattice for value in told]
        wanted = {
            "counts": len(values),
            "sums": sum(shifted),
            "squares": sum(2 * value**2 - plan.largest**2 for value in shifted),
        }
        if block.scale.kind in wanted:
            assert exactly == [wanted[block.scale.kind] if group == 2 else 0 for group in ALL]
        else:
            assert sum(exactly) == len(values)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    low=st.integers(-(10**6), 10**6),
    width=st.integers(1, 10**6),
    rho=st.integers(10**5, 10**11),
    rows=st.integers(1, 10**9),
    sites=st.integers(3, 20),
    unit=st.sampled_from(["row", "person"]),
    data=st.data(),
)
def test_nothing_a_site_can_hold_leaves_its_lane(make_query, make_table, low, width, rho, rows, sites, unit, data):
    """Either the declarations are refused, or the worst data and noise stay in 0..bound, and n x bound below 2^62."""
    roster = tuple(sorted(f"s{i}" for i in range(sites)))
    query = make_query(
        roster=roster,
        datasets=roster,
        measures=(Measure("x", low, low + width, 1),),
        groups=(),
        rho_nano=rho,
        split=split(rho, False),
        max_rows=rows,
        unit=unit,
    )
    try:
        check_query(query)
        cells.prove_no_wrap(query)
    except Refused:
        return
    (plan,) = local_plans(query)
    count = data.draw(st.sampled_from([0, rows]))
    shift = data.draw(st.sampled_from([low - plan.centre, 0, low + width - plan.centre]))
    (table,) = make_table(query, [])
    for name, value in (("count", count), ("sum", count * shift), ("sum_squares", count * shift**2)):
        table = table.set_column(table.column_names.index(name), table.schema.field(name), [[value]])
    sign = data.draw(st.sampled_from([-1, 1]))
    for layout in layouts(query):
        vector = cells.contribution(query, layout, (table,), draw=lambda one, n: (sign * one.reach,) * n)
        bounds = [block.bound for block in layout.blocks for _ in range(block.cells)]
        for u, bound in zip(vector, bounds, strict=True):
            assert 0 <= u <= bound
            assert sites * bound < 2**62


def test_declarations_that_could_wrap_are_refused(make_query):
    wide = Measure("cost", 0, 10**7, 1)
    query = make_query(measures=(wide,), split=split(10**8, False), max_rows=2**15)
    check_query(query)  # each site's own sums fit; the pool's would not
    with pytest.raises(Refused) as caught:
        cells.prove_no_wrap(query)
    assert caught.value.code == "mpc.would_wrap"


def test_an_engine_that_passes_its_bounds_is_clamped_not_reported(make_query, make_table, exact):
    query = make_query()
    layout = cells.gate_layout(query)
    (table,) = make_table(query, [(0, 1)] * 3)
    position = table.column_names.index("count")
    wild = table.set_column(position, table.schema.field("count"), [[10**12, -5, 0, 0, 0, 0]])
    values = cells.contribution(query, layout, (wild,), draw=exact)
    (block,) = layout.blocks
    assert [(v - block.offset) // block.scale.lattice for v in values[:2]] == [query.max_rows, 0]


def test_a_table_that_does_not_follow_the_plan_is_a_bug(make_query, make_table, exact):
    query = make_query()
    layout = cells.gate_layout(query)
    (table,) = make_table(query, [])
    for wrong in (
        table.drop_columns(["sum"]),
        table.slice(1),
        table.take([1, 0, 2, 3, 4, 5]),
        table.set_column(1, "count", [[None] * 6]),
        table.set_column(1, "count", [[0.5] * 6]),
    ):
        with pytest.raises(ValueError, match="local table"):
            cells.contribution(query, layout, (wrong,), draw=exact)
    with pytest.raises(ValueError, match="reach"):
        cells.contribution(query, layout, (table,), draw=lambda one, n: (one.reach * 10**6,) * n)


@pytest.mark.parametrize("sites", [3, 4])
def test_only_groups_whose_noisy_count_passes_are_asked(make_query, sites):
    """Of all four sites, or of the three that survived."""
    query = make_query()
    layout = cells.gate_layout(query)
    (block,) = layout.blocks
    lattice = block.scale.lattice
    counts = [120 * lattice, 120 * lattice - 1, 119 * lattice, 500 * lattice, -3, 0]
    totals = [count + sites * block.offset for count in counts]
    assert cells.passing(query, totals, sites) == ((0, 3),)
    assert cells.noisy(layout, totals, sites)[0, "gate"] == tuple(counts)
    assert cells.sums_layout(query, cells.passing(query, totals, sites)).cells == 2 * 8
    assert cells.sums_layout(query, ((),)).cells == 0


def test_totals_outside_their_range_are_no_answer(make_query):
    layout = cells.gate_layout(make_query())
    (block,) = layout.blocks
    good = [4 * block.offset] * 6
    cells.noisy(layout, good, 4)
    for bad in ([*good[:5], -1], [*good[:5], 4 * block.bound + 1]):
        with pytest.raises(VerificationError) as caught:
            cells.noisy(layout, bad, 4)
        assert caught.value.facts == {"phase": 1, "cell": 5}
    for shape in (good[:5], [*good, 0]):
        with pytest.raises(VerificationError, match="sums"):
            cells.noisy(layout, shape, 4)


def test_an_empty_site_sends_as_much_as_a_full_one(make_query, make_table, make_rows):
    """ "Refused because the group is empty" would be an exact bit for free."""
    query = make_query()
    for layout in layouts(query):
        empty = cells.contribution(query, layout, make_table(query, []))
        full = cells.contribution(query, layout, make_table(query, make_rows(0)))
        assert len(empty) == len(full) == layout.cells


@pytest.mark.parametrize("unit", ["row", "person"])
def test_the_noise_in_the_pool_is_what_the_release_says(make_query, make_table, unit):
    """Four sites over 3,000 groups: the variance of what they add, kind by kind, site by site and pooled.

    Relative sd of a sample variance over n cells is sqrt(2 / n); bounds at 8.5 of those, 0.22 for the
    smallest n = 3000 (chi-squared tail below 10^-13). A site that divided by the 4 sites, the
    threshold 3 or nothing instead of h = 2, that forgot the person's factor, or that used one draw
    for all cells, is outside by more than six.
    """
    groups = (GroupColumn("code", tuple(f"g{i}" for i in range(3000)), other=False),)
    query = make_query(groups=groups, unit=unit, colluders=1)
    table = make_table(query, [])
    exact = {
        layout.phase: cells.contribution(query, layout, table, draw=lambda one, n: (0,) * n)
        for layout in layouts(query)
    }
    required = {}
    largest, m = 15, (4 if unit == "person" else 1)
    for kind, change in (("gate", 1), ("counts", 1), ("sums", largest), ("squares", largest**2), ("bins", 1)):
        required[kind] = Fraction((m * change) ** 2 * 10**9, 2 * getattr(query.split, kind))
    for layout in layouts(query):
        vectors = [cells.contribution(query, layout, table) for _ in range(4)]
        noises = [[u - x for u, x in zip(v, exact[layout.phase], strict=True)] for v in vectors]
        start = 0
        for block in layout.blocks:
            part = [noise[start : start + block.cells] for noise in noises]
            start += block.cells
            n, lattice = block.cells, block.scale.lattice
            target = float(required[block.scale.kind] * lattice**2)
            slack = 8.5 * sqrt(2 / n)
            for site in part:
                assert abs(sum(x * x for x in site) / n / (target / 2) - 1) < slack  # sigma^2 / h, h = 3 - 1
            pooled = [sum(column) for column in zip(*part, strict=True)]
            assert abs(sum(x * x for x in pooled) / n / (2 * target) - 1) < slack  # n sigma^2 / h
            for i in range(3):  # sites draw independently
                product = sum(a * b for a, b in zip(part[i], part[i + 1], strict=True)) / n
                assert abs(product) / (target / 2) < 8 / sqrt(n)
            for site in part:  # and so do cells
                product = sum(a * b for a, b in zip(site[::2], site[1::2], strict=True)) / (n // 2)
                assert abs(product) / (target / 2) < 8 / sqrt(n // 2)


def test_every_kind_has_its_scale(make_query):
    assert [s.kind for s in scales(make_query())] == ["gate", "counts", "sums", "squares", "bins"]
