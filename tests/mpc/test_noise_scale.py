"""The noise that the sites add to a query, looked at as a whole: wide enough, of the right shape, and independent.

What the judge says of right noise (OpenDP's, through `mpc.cells`) is said next to what it says of samplers that are
wrong on purpose: a variance a tenth too small or too large, sigma^2 / n where sigma^2 / h is owed, a site without
noise, seeds that sites, cells, phases or attempts have in common, another shape. With 7,000 cells of four sites a
variance wrong by a tenth lies 11.8 standard deviations away, the alarm at 6.2.
"""

from __future__ import annotations

from fractions import Fraction

import msgspec
import numpy as np
import pytest

from mpc import cells, noise
from mpc.budget import Scale, split
from mpc.query import Measure, noise_shares
from privacy.local import GroupColumn
from tests.mpc import noise_statistics as statistics

CELLS = 7_000
RHO = 10**8
LARGEST = 15
"""Of 0..30, from its centre."""
CHANGES = {"gate": 1, "counts": 1, "sums": LARGEST, "squares": LARGEST**2, "bins": 1}


@pytest.fixture
def query(make_query):
    """Four sites, h = 2; one cell of each kind in each group."""
    codes = tuple(f"g{i}" for i in range(CELLS))
    return make_query(
        groups=(GroupColumn("code", codes, other=False),),
        measures=(Measure("visits", 0, 30, 1),),
        rho_nano=RHO,
        split=split(RHO, False),
    )


def added(query, tables, draws):
    """What the sites add, by measure and kind: sites x cells, in lattice units; and the variance the pool needs."""
    first = cells.gate_layout(query)
    everything = [len(query.roster) * block.bound for block in first.blocks for _ in range(block.cells)]
    second = cells.sums_layout(query, cells.passing(query, everything, len(query.roster)))
    assert second.cells == 3 * first.cells
    weights = [measure.weight for measure in query.measures]
    noises, promised = {}, {}
    for layout in (first, second):
        exact = np.array(cells.contribution(query, layout, tables, draw=statistics.nothing))
        rows = [
            np.array(cells.contribution(query, layout, tables, draw=statistics.of_site(draws, site)))
            for site in range(len(query.roster))
        ]
        start = 0
        for block in layout.blocks:
            kind, measure = block.scale.kind, block.scale.measure
            part = slice(start, start + block.cells)
            start += block.cells
            noises[measure, kind] = np.array([(row - exact)[part] for row in rows], dtype=float)
            rho = Fraction(getattr(query.split, kind) * weights[measure], sum(weights))
            owed = CHANGES[kind] ** 2 * 10**9 / (2 * rho)
            promised[measure, kind] = float(owed * block.scale.lattice**2)
    return noises, promised


def judged(query, make_table, *draws):
    return statistics.judge(*added(query, make_table(query, []), draws), noise_shares(4, 1))


def test_what_the_sites_add_is_as_promised(query, make_table):
    """112,000 draws of the real sampler; and those of a quick one, which the wrong ones below are made of."""
    assert judged(query, make_table, noise.draw) == set()
    assert judged(query, make_table, *map(statistics.gaussian, range(4))) == set()


def test_two_measures_have_noise_of_their_own(query, make_table):
    """One with three times the weight of the other: of its own scale each, and nothing in common."""
    codes = tuple(f"g{i}" for i in range(2_000))
    stays, visits = Measure("stays", 0, 30, 1, weight=3), Measure("visits", 0, 30, 1)
    fields = {"measures": (stays, visits), "groups": (GroupColumn("code", codes, other=False),)}
    two = msgspec.structs.replace(query, **fields)
    assert judged(two, make_table, noise.draw) == set()
    shared = [statistics.mixed(site, lambda scale, site=site: 10 * site + len(scale.kind), 0.3) for site in range(4)]
    assert judged(two, make_table, *shared) == {"between kinds"}


@pytest.mark.parametrize("times", [0.9, 1.1])
def test_a_variance_wrong_by_a_tenth_is_found(query, make_table, times):
    draws = [statistics.gaussian(seed, times) for seed in range(4)]
    assert "scale" in judged(query, make_table, *draws)


@pytest.mark.parametrize(
    ("shares", "what"), [(4, "divided by all sites"), (3, "divided by the threshold"), (1, "divided by nothing")]
)
def test_noise_lost_by_splitting_is_found(query, make_table, shares, what):
    """Each brings sigma^2 / n or sigma^2 / t instead of sigma^2 / h: enough where all are honest and stay."""
    draws = [statistics.gaussian(seed, noise_shares(4, 1) / shares) for seed in range(4)]
    assert {"scale", "site", "honest", "pool"} <= judged(query, make_table, *draws), what


@pytest.mark.parametrize("site", range(4))
def test_a_site_without_noise_is_found(query, make_table, site):
    draws = [statistics.gaussian(seed) for seed in range(4)]
    draws[site] = statistics.nothing
    assert {"site", "honest", "pool"} <= judged(query, make_table, *draws)


@pytest.mark.parametrize("times", [0.75, 1.3])
def test_one_site_with_another_scale_is_found(query, make_table, times):
    draws = [statistics.gaussian(0), statistics.gaussian(1), statistics.gaussian(2, times), statistics.gaussian(3)]
    assert "site" in judged(query, make_table, *draws)


@pytest.mark.parametrize("share", [1.0, 0.15])
def test_sites_that_share_a_seed_are_found(query, make_table, share):
    """All of it, or 15 percent of the variance: the same stream for each kind at two of the sites."""
    draws = [statistics.gaussian(0), *(statistics.mixed(s, lambda one: len(one.kind), share) for s in (1, 2))]
    draws.append(statistics.gaussian(3))
    assert "between sites" in judged(query, make_table, *draws)


def test_sites_whose_noises_cancel_are_found(query, make_table):
    plain, again = statistics.gaussian(1), statistics.gaussian(1)
    draws = [plain, lambda scale, count: tuple(-x for x in again(scale, count)), *map(statistics.gaussian, (2, 3))]
    assert {"between sites", "honest", "pool"} <= judged(query, make_table, *draws)


@pytest.mark.parametrize("period", [1, 97, 3499])
def test_cells_that_share_a_draw_are_found(query, make_table, period):
    draws = [statistics.gaussian(0), statistics.repeated(1, period), *map(statistics.gaussian, (2, 3))]
    assert "between cells" in judged(query, make_table, *draws)


@pytest.mark.parametrize("share", [1.0, 0.15])
def test_phases_and_kinds_that_share_a_seed_are_found(query, make_table, share):
    """The counts of phase 2 with the noise of the gate: their difference would be exact where sites were lost."""
    draws = [statistics.gaussian(0), statistics.gaussian(1), statistics.mixed(2, lambda one: 5, share)]
    assert "between kinds" in judged(query, make_table, *draws, statistics.gaussian(3))


@pytest.mark.parametrize(
    "standard",
    [
        pytest.param(lambda rng, count: rng.laplace(0, np.sqrt(0.5), count), id="Laplace"),
        pytest.param(lambda rng, count: rng.uniform(-np.sqrt(3), np.sqrt(3), count), id="uniform"),
        pytest.param(lambda rng, count: rng.choice([-1.0, 1.0], count), id="two points"),
        pytest.param(lambda rng, count: np.abs(rng.normal(0, 1, count)), id="never negative"),
        pytest.param(lambda rng, count: np.clip(rng.normal(0, 1.15, count), -1.5, 1.5), id="cut off"),
    ],
)
def test_another_shape_of_the_same_width_is_found(query, make_table, standard):
    draws = [statistics.shaped(seed, standard) for seed in range(4)]
    assert "shape" in judged(query, make_table, *draws)


def test_another_attempt_draws_anew(query, make_table):
    """A retry is a new query: the first attempt's noise says nothing about its noise. One that replays is found."""
    tables, layout = make_table(query, []), cells.gate_layout(query)
    rows = [np.array(cells.contribution(query, layout, tables), dtype=float) for _ in range(2)]
    (block,) = layout.blocks
    assert not statistics.correlated(*(row - block.offset for row in rows))
    draws = (statistics.gaussian(7), statistics.gaussian(7))
    rows = [np.array(cells.contribution(query, layout, tables, draw=draw), dtype=float) for draw in draws]
    assert statistics.correlated(*(row - block.offset for row in rows))


def test_wide_draws_never_come_twice():
    """20,000 draws of sigma 2^50: two the same with probability below 10^-7. A buffer that is used again is found."""
    wide = Scale(0, "counts", 1, 1, 1, 2**50, 1)
    draws = noise.draw(wide, 20_000)
    assert len(set(draws)) == len(draws)
    assert len(set(statistics.repeated(1, 19_999)(wide, 20_000))) == 19_999
