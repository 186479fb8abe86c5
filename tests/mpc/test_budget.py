"""mpc.budget: sensitivity against brute force, scales against the formula, epsilon against OpenDP."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc import cells
from mpc.budget import (
    SMALLEST_SIGMA,
    check_delta,
    epsilon_at,
    epsilons,
    rows_of_one_unit,
    rows_words,
    scale,
    scales,
    sensitivity,
    split,
)
from mpc.query import KINDS, Measure, Split, local_plans
from wire.errors import Refused
from wire.secure_sum import threshold

EDGES = (-3, 0, 2, 9)


def small(make_query, **changes):
    """Bounds of odd width, a centre off zero, few values: all neighbours can be enumerated."""
    return make_query(measures=(Measure("visits", -3, 9, 1, EDGES),), **changes)


def exact_cells(make_query, make_table, exact, query, rows):
    """Exact cells of one site by kind, without noise and offset, in the kind's unit."""
    table = make_table(query, rows)
    out = {}
    plans = local_plans(query)
    groups = tuple(range(len(plans[0].combinations())))
    for layout in (cells.gate_layout(query), cells.sums_layout(query, (groups,) * len(plans))):
        values = cells.contribution(query, layout, table, draw=exact)
        start = 0
        for block in layout.blocks:
            part = values[start : start + block.cells]
            out[block.scale.kind] = [Fraction(v - block.offset, block.scale.lattice) for v in part]
            start += block.cells
    return out


def test_sensitivity_is_the_largest_change_by_one_row(make_query, make_table, exact):
    query = small(make_query)
    base = [(0, 4), (1, -3), (5, 9)]
    before = exact_cells(make_query, make_table, exact, query, base)
    largest = dict.fromkeys(KINDS, Fraction(0))
    for group, value in product(range(6), range(-5, 12)):  # beyond the bounds too: clamped
        after = exact_cells(make_query, make_table, exact, query, [*base, (group, value)])
        for kind in KINDS:
            change = sum((x - y) ** 2 for x, y in zip(after[kind], before[kind], strict=True))
            largest[kind] = max(largest[kind], change)
    for kind in KINDS:
        assert largest[kind] == sensitivity(query, 0, kind) ** 2, kind


def test_sensitivity_of_a_person_is_reached_and_not_passed(make_query, make_table, exact):
    query = small(make_query, unit="person", person="patient", rows_per_person=2)
    assert rows_of_one_unit(query) == 8
    nothing = exact_cells(make_query, make_table, exact, query, [])
    for rows in ([(0, 9)] * 8, [(0, -3)] * 8, [(0, 9)] * 4 + [(1, 9)] * 4, [(g % 6, 9) for g in range(8)]):
        moved = exact_cells(make_query, make_table, exact, query, rows)
        for kind in KINDS:
            change = sum((x - y) ** 2 for x, y in zip(moved[kind], nothing[kind], strict=True))
            assert change <= sensitivity(query, 0, kind) ** 2
            if rows == [(0, 9)] * 8:
                assert change == sensitivity(query, 0, kind) ** 2


def test_a_person_at_four_sites_costs_sixteen_times_the_rho(make_query):
    row, person = make_query(), make_query(unit="person")
    for kind in KINDS:
        assert sensitivity(person, 0, kind) == 4 * sensitivity(row, 0, kind)
        # the same noise would cost 16 times: so the same rho needs 16 times the variance
        assert scale(person, 0, kind).site_variance / scale(person, 0, kind).lattice ** 2 == pytest.approx(
            16 * scale(row, 0, kind).site_variance / scale(row, 0, kind).lattice ** 2, rel=2e-3
        )


@pytest.mark.parametrize(("sites", "colluders", "shares"), [(3, 1, 2), (4, 0, 3), (4, 1, 2), (7, 2, 3), (10, 1, 6)])
def test_any_h_honest_sites_bring_all_the_noise(make_query, sites, colluders, shares):
    roster = tuple(sorted(f"s{i}" for i in range(sites)))
    query = make_query(roster=roster, datasets=roster, colluders=colluders)
    for one in scales(query):
        required = Fraction(sensitivity(query, one.measure, one.kind) ** 2 * 10**9, 2 * getattr(query.split, one.kind))
        pooled = shares * one.site_variance / one.lattice**2
        assert required < pooled <= required * (1 + Fraction(4, 1024)), "never below, and not wastefully above"


def test_the_lattice_keeps_each_sigma_at_four_steps_or_more(make_query):
    for rho in (10**6, 10**8, 10**9, 10**12):
        for one in scales(make_query(rho_nano=rho)):
            assert Fraction(one.sigma, one.per) >= SMALLEST_SIGMA
            assert one.lattice & (one.lattice - 1) == 0
            assert one.lattice == 1 or Fraction(one.sigma, one.per) < 2 * SMALLEST_SIGMA + 1
            assert Fraction(one.sigma / one.per) == Fraction(one.sigma, one.per), "exact as a double"


def test_two_discrete_gaussians_of_sigma_four_add_up_to_one():
    def pmf(variance: float, reach: int) -> list[float]:
        weights = [math.exp(-(x**2) / (2 * variance)) for x in range(-reach, reach + 1)]
        total = math.fsum(weights)
        return [weight / total for weight in weights]

    one, both = pmf(16.0, 80), pmf(32.0, 160)
    for at in range(-60, 61):
        summed = math.fsum(one[x + 80] * one[at - x + 80] for x in range(-80, 81) if abs(at - x) <= 80)
        assert summed == pytest.approx(both[at + 160], rel=1e-9)


def test_split_gives_away_all_and_no_more():
    for rho in (10, 11, 999, 10**9, 10**9 + 7):
        for histogram in (True, False):
            parts = split(rho, histogram)
            assert parts.total() == rho
            assert (parts.bins > 0) == histogram


@given(st.fractions(min_value=Fraction(1, 10**9), max_value=20), st.integers(3, 15))
def test_epsilon_is_a_true_bound_and_better_than_the_simple_one(rho, exponent):
    delta = Decimal(1).scaleb(-exponent)
    epsilon = epsilon_at(rho, delta)
    simple = float(rho) + 2 * math.sqrt(float(rho) * exponent * math.log(10))
    assert 0 <= float(epsilon) <= simple + 1e-4
    # at this epsilon no alpha may do visibly better than the one found
    best = min(
        alpha * float(rho) + (exponent * math.log(10) - math.log(alpha)) / (alpha - 1) + math.log1p(-1 / alpha)
        for alpha in (1 + math.exp(k / 50) for k in range(-300, 1400))
    )
    assert float(epsilon) == pytest.approx(max(best, 0.0), rel=1e-3, abs=2e-4)


def test_epsilon_agrees_with_opendp():
    import opendp.prelude as dp

    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T=float)
    for sigma in (2.0, 5.0, 20.0):
        curve = dp.c.make_zCDP_to_approxDP(space >> dp.m.then_gaussian(scale=sigma)).map(1.0)
        ours = epsilon_at(Fraction(1) / (2 * Fraction(sigma) ** 2), Decimal("1e-6"))
        assert float(ours) == pytest.approx(curve.epsilon(delta=1e-6), abs=2e-3)


def test_the_three_assumptions_are_ordered_and_scaled(make_query):
    query = make_query()
    honest, colluding, alone = epsilons(query, 100)
    assert (honest.honest, colluding.honest, alone.honest) == ((4, 4), (3, 3), (1, 1))
    # h = 2: all four bring twice the noise needed, one alone half of it
    assert (honest.rho, colluding.rho, alone.rho) == ("0.050000000", "0.066666667", "0.200000000")
    assert Decimal(honest.epsilon) < Decimal(colluding.epsilon) < Decimal(alone.epsilon)
    assert {e.delta for e in (honest, colluding, alone)} == {"0.000001"}


def test_lost_sites_take_their_noise_with_them(make_query):
    """Of four sites, three survive the second phase: its rho counts two thirds where all are honest, not a half."""
    query = make_query()
    assert query.split.gate == 10_000_000
    honest, colluding, alone = epsilons(query, 100, (4, 3))
    assert (honest.honest, colluding.honest, alone.honest) == ((4, 3), (3, 2), (1, 1))
    # gate 0.01 x 2/4 + rest 0.09 x 2/3; then x 2/3 and x 2/2: at the fewest survivors, just what was promised
    assert (honest.rho, colluding.rho, alone.rho) == ("0.065000000", "0.096666667", "0.200000000")
    assert [one.rho for one in epsilons(query, 100, (3, 3))] == ["0.066666667", "0.100000000", "0.200000000"]
    for less, more in zip(epsilons(query, 100), epsilons(query, 100, (3, 3)), strict=True):
        assert Decimal(less.epsilon) <= Decimal(more.epsilon)


def test_a_delta_that_cannot_cover_redraws_is_refused(make_query):
    epsilons(make_query(delta_exponent=15), 1000)
    with pytest.raises(Refused, match="redrawn"):
        epsilons(make_query(delta_exponent=15, rho_nano=60 * 10**9), 1000)
    for huge in (10**15, 2**53 - 1):  # e^epsilon has millions of digits there
        with pytest.raises(Refused, match="redrawn"):
            epsilons(make_query(rho_nano=huge), 1000)


@pytest.mark.parametrize("exponent", [3, 6, 12])
@pytest.mark.parametrize("sites", [3, 4, 40])
def test_what_is_checked_before_is_what_can_be_stated_in_the_end(make_query, exponent, sites):
    """With whatever survivors there are: at the last price that passes, and at the first that does not."""
    roster = tuple(f"site-{number:02}" for number in range(sites))
    of = {"roster": roster, "datasets": roster, "delta_exponent": exponent}

    def passes(rho, check=check_delta, *more):
        try:
            check(make_query(**of, rho_nano=rho), 1000, *more)
        except Refused as refused:
            assert refused.code == "mpc.delta_too_small"
            return False
        return True

    low, high = 1, 2**45
    assert passes(low) and not passes(high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if passes(middle) else (low, middle)
    fewest = threshold(sites)
    for survivors in ((), (fewest, fewest), (sites, fewest)):
        assert passes(low, epsilons, survivors) and not passes(high, epsilons, survivors)


def test_digits_do_not_depend_on_the_callers_decimal_context(make_query):
    import decimal

    plain = epsilons(make_query(), 1000)
    with decimal.localcontext() as context:
        context.prec = 3
        context.rounding = decimal.ROUND_DOWN
        assert epsilons(make_query(), 1000) == plain


def test_too_wide_noise_is_refused(make_query):
    wide = Measure("cost", 0, 2**30, 1)
    query = make_query(measures=(wide,), split=Split(1, 1, 1, 1, 0), max_rows=1)
    with pytest.raises(Refused) as caught:
        scales(query)
    assert caught.value.code == "mpc.noise_too_wide"


@pytest.mark.parametrize(
    ("sites", "cells", "rho"),
    [
        (4, 10, 6.8),
        (10, 10, 2.2),
        (100, 10, 0.18),
        (200, 10, 0.088),
        (4, 2**17, 4.5),
        (10, 2**17, 1.4),
        (100, 2**17, 0.11),
        (200, 2**17, 0.056),
    ],
)
def test_the_highest_price_is_what_the_documents_say(make_query, sites, cells, rho):
    """docs/limitations.md, docs/protocols/private-release.md: so much is answered, a sixth more is not."""
    names, tables = (tuple(f"{kind}-{site}" for site in range(sites)) for kind in ("site", "table"))
    query = make_query(roster=names, datasets=tables, colluders=1, rho_nano=int(rho * 10**9))
    check_delta(query, cells)
    with pytest.raises(Refused) as refused:
        check_delta(make_query(roster=names, datasets=tables, colluders=1, rho_nano=int(rho * 7 / 6 * 10**9)), cells)
    assert refused.value.code == "mpc.delta_too_small"


def test_a_budget_is_divided_to_the_last_part():
    assert split(7, True) == Split(gate=0, counts=3, sums=2, squares=1, bins=1)
    assert sum(getattr(split(7, False), kind) for kind in KINDS) == 7 and split(7, False).counts == 4
    assert split(7, False, measures=False) == Split(gate=2, counts=5, sums=0, squares=0, bins=0)
    assert [rows_words(count) for count in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]
