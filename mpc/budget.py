"""From budget to noise: sensitivity, noise scales, and what they mean as epsilon.

All of it is integer, rational or decimal arithmetic on public declarations: every site, the
coordinator and a stranger compute the same digits. Nothing here sees data.

**Neighbours.** Two inputs are neighbours if one has one row more ("row") or one person with all
rows more ("person"). Changing a row is one row less and one more: twice the distance, four times
the rho.

**L2 sensitivity of each kind of cell of a measure**, one row, in the kind's own integer unit, with D
the largest |v' - centre| of the measure's plan. One row is in at most one group and in one bin, so it
moves one cell of each kind, and the L2 distance over all groups is that cell's change:

    gate       1              rows, in phase 1
    counts     1              rows, in phase 2
    sums       D              sum of d, d = v' - centre in [-D, D]
    squares    D^2            sum of 2 d^2 - D^2, which lies in [-D^2, D^2]: centred, so half of d^2's
    bins       1

A person moves at most m = rows_per_person x sites rows of a measure, all of which may fall into one
cell: m times as much (the triangle inequality; rows of several groups move the vector less). Sites
cannot recognise one person, so the factor is the roster's size, and the rho of a fixed noise grows as
m^2. In a population whose owners declared that each person is at one site, m = rows_per_person.

Each measure counts its own first rows_per_person rows of a person, those in which it is known, so the
bound holds for each measure alone. One row may move the cells of all measures: they are not bounded
together, each is paid for.

**Noise.** The Gaussian mechanism on integers with variance s^2 has rho = Delta^2 / (2 s^2) zCDP
(Canonne, Kamath, Steinke 2020, theorem 4). A kind of a measure with budget rho_k therefore needs
sigma^2 = Delta^2 / (2 rho_k) in the pool; kinds, measures and phases add up by (adaptive) composition. Each of
n sites adds sigma^2 / h, h = t - c. At least t sites survive a phase, so at least h honest ones do, and
they bring all of it, whatever the others do and whoever chooses the survivors.

**Sums of discrete Gaussians** are not exactly discrete Gaussian. With each site's sigma at least 4
lattice units, tau = 10 sum_k exp(-2 pi^2 sigma^2 k / (k + 1)) < n * 10^-66 (Kairouz, Liu, Steinke
2021, theorem 1), which adds at most tau * cells < 10^-58 to epsilon^2. Scales are rounded up by
more than one part in 2^54, which buys far more than that. Where sigma would be below 4, the lattice
is refined: value and noise are multiplied by a power of two.

**Redraw beyond 12 sigma.** A site's draw lies beyond with probability at most 2 exp(-72) (discrete
Gaussians are sub-Gaussian with the same sigma), so the mechanism with redraws is within
beta = n * cells * 2 exp(-72) of the one without, and (epsilon, delta') becomes
(epsilon, delta' + (1 + e^epsilon) beta). Epsilon is computed at delta' = delta (1 - 10^-6), and the
query is refused unless the rest covers the redraws.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import MAX_EMAX, MIN_EMIN, ROUND_CEILING, Context, Decimal
from fractions import Fraction
from math import isqrt
from typing import Annotated, Literal

import msgspec

from mpc.query import (
    EXACT,
    KINDS,
    NANO,
    PHASES,
    Kind,
    Query,
    Split,
    columns,
    kinds,
    local_plans,
    noise_shares,
    noised,
    share,
)
from wire.canonical import Wire
from wire.errors import Refused

SMALLEST_SIGMA = 4
"""A site's sigma in lattice units, at least."""
LARGEST_SIGMA = 2**53
"""A site's sigma in lattice units, below: it must be an exact double, which is what OpenDP takes."""
REACH = 12
"""Draws beyond this many sigma are drawn again."""

_FINE = 1024
_EXACT = Context(prec=40, Emax=MAX_EMAX, Emin=MIN_EMIN)
_GOLDEN = Decimal("0.6180339887498948482045868343656381177203")
_SECTIONS = 60
"""They leave 10^-11 of the logarithm of alpha - 1, hence 10^-22 of epsilon, which is flat there."""
_REDRAW_SHARE = Decimal("1e-6")
_TAIL = Decimal("1.1e-31")
"""Above 2 exp(-72) = 1.07e-31."""

_WEIGHTS: dict[Kind, int] = {"gate": 100, "counts": 200, "sums": 300, "squares": 200, "bins": 200}


class Scale(Wire, frozen=True, tag="mpc.scale"):
    """The noise that one site adds to each cell of one kind of one measure.

    measure: index into `mpc.query.local_plans`. sensitivity: of the pooled cells of the measure's kind, in
    the kind's unit. rho_nano: what they are debited. sigma: 0 where an exact query has no noise.
    lattice: cells and noise are in units of 1/lattice of the kind's unit (a power of two).
    The site's sigma in lattice units is sigma / per; sigma^2 is the variance of the discrete
    Gaussian's parameter, which its true variance never exceeds.
    """

    measure: Annotated[int, msgspec.Meta(ge=0)]
    kind: Kind
    sensitivity: int
    rho_nano: int
    lattice: int
    sigma: int
    per: int

    @property
    def site_variance(self) -> Fraction:
        """Variance of one site's noise, in squared lattice units."""
        return Fraction(self.sigma, self.per) ** 2

    @property
    def reach(self) -> int:
        """Largest |noise| of one site, in lattice units."""
        return REACH * self.sigma // self.per


class Epsilon(Wire, frozen=True, tag="mpc.epsilon"):
    """What the release costs in (epsilon, delta) terms under one assumption about the sites.

    assumption: "all-honest", "colluders" (the query's number of sites contributes no noise or
    subtracts its own) or "one-honest" (all but one do). honest: sites whose noise counts, of those
    that survived each phase. rho, epsilon: decimals, rounded up; delta: decimal.
    """

    assumption: Literal["all-honest", "colluders", "one-honest"]
    honest: tuple[Annotated[int, msgspec.Meta(ge=1)], ...]
    rho: str
    epsilon: str
    delta: str


def split(rho_nano: int, histogram: bool, measures: bool = True, exact: bool = False) -> Split:
    """The default division of `rho_nano`: gate 1, counts 2, sums 3, squares 2, bins 2 parts of 10.

    Without a histogram, or without measures, the parts of what is not asked go to the others in proportion, and so
    do those of what has no noise. Rounded down; what is left over goes to the counts, or to the gate where they
    have no noise, so that the parts add up to rho_nano exactly.
    """
    asked: tuple[Kind, ...] = ("gate", "counts") if not measures else KINDS if histogram else KINDS[:-1]
    if exact:
        asked = tuple(kind for kind in asked if kind not in EXACT)
    whole = sum(_WEIGHTS[kind] for kind in asked)
    part = {kind: rho_nano * _WEIGHTS[kind] // whole if kind in asked else 0 for kind in KINDS}
    part["gate" if exact else "counts"] += rho_nano - sum(part.values())
    return Split(**part)


def rows_words(count: int, language: str = "en") -> str:
    """So many rows, in words."""
    return f"{count} 行" if language == "zh" else f"{count} row{'s' if count != 1 else ''}"


def rows_of_one_unit(query: Query) -> int:
    """m: rows by which two neighbouring inputs can differ, over all sites."""
    if query.unit == "row":
        return 1
    return query.rows_per_person * (1 if query.spread == "one-site" else len(query.roster))


def sensitivity(query: Query, measure: int, kind: Kind) -> int:
    """L2 sensitivity of all pooled cells of a measure's `kind` together, in the kind's unit (module docstring)."""
    largest = local_plans(query)[measure].largest
    one_row = {"gate": 1, "counts": 1, "sums": largest, "squares": largest**2, "bins": 1}[kind]
    return one_row * rows_of_one_unit(query)


def scale(query: Query, measure: int, kind: Kind) -> Scale:
    """The noise of each site for a measure's `kind`. Raises Refused where it is too wide for the lanes.

    sigma_site^2 = Delta^2 / (2 rho_k h), rounded up. 0 for a kind without noise, whose cells are in its own unit.
    """
    delta2 = sensitivity(query, measure, kind)
    if not noised(query, kind):
        return Scale(measure, kind, delta2, 0, lattice=1, sigma=0, per=1)
    rho_nano = share(query, measure, kind)
    honest = noise_shares(len(query.roster), query.colluders)
    variance = Fraction(delta2**2 * NANO, 2 * rho_nano * honest)
    lattice = 1
    while variance * lattice**2 < SMALLEST_SIGMA**2:
        lattice *= 2
    for per in (_FINE, 1):
        # + 2: never rounded down, and at least 1 / (per * sigma) above, which covers tau (above).
        sigma = isqrt(variance * (lattice * per) ** 2 // 1) + 2
        if sigma < LARGEST_SIGMA and delta2 < 2**62:
            return Scale(measure, kind, delta2, rho_nano, lattice, sigma, per)
    raise Refused("mpc.noise_too_wide", kind=kind, measure=columns(query)[measure] or "rows")


def scales(query: Query) -> tuple[Scale, ...]:
    """The scale of each kind of cell that `query` has, measure by measure."""
    return tuple(
        scale(query, measure, kind) for measure in range(len(columns(query))) for kind in kinds(query, measure)
    )


def surely_below(query: Query, scale: Scale, sites: int, cells: int) -> int:
    """Lattice units that the noise of so many sites on none of so many cells exceeds, but with probability delta.

    Each site's noise is sub-Gaussian, so the pool's is beyond m with probability exp(-m^2 / (2 sites sigma^2)) at most:
    m^2 = 2 sites sigma^2 ln(cells / delta), rounded up. delta: the query's.
    """
    surprise = _EXACT.ln(Decimal(cells).scaleb(query.delta_exponent)).quantize(Decimal("0.01"), ROUND_CEILING)
    square = 2 * sites * scale.site_variance * Fraction(surprise)
    return isqrt(square // 1) + 1


def epsilon_at(rho: Fraction, delta: Decimal) -> Decimal:
    """The least epsilon this rule finds such that rho-zCDP implies (epsilon, delta); rounded up to 10^-4.

    min over alpha > 1 of  alpha rho + (ln(1/delta) - ln alpha) / (alpha - 1) + ln(1 - 1/alpha)
    (Canonne, Kamath, Steinke 2020, corollary 13). Every alpha gives a true bound; the search is in
    decimals, so that it gives the same digits everywhere.
    """
    if rho < 0 or not 0 < delta < 1:
        raise ValueError("rho must be at least 0 and delta in (0, 1)")
    if rho == 0:
        return Decimal(0)
    cost = _EXACT.divide(Decimal(rho.numerator), Decimal(rho.denominator))
    surprise = _EXACT.minus(delta.ln(_EXACT))

    def bound(exponent: Decimal) -> Decimal:
        x = _EXACT.exp(exponent)  # alpha - 1
        alpha = _EXACT.add(x, 1)
        log_alpha = _EXACT.ln(alpha)
        first = _EXACT.multiply(alpha, cost)
        second = _EXACT.divide(_EXACT.subtract(surprise, log_alpha), x)
        return _EXACT.add(_EXACT.add(first, second), _EXACT.subtract(exponent, log_alpha))

    # Golden sections: each step looks at one point more.
    low, high = Decimal(-10), Decimal(30)
    step = _EXACT.multiply(_EXACT.subtract(high, low), _GOLDEN)
    left, right = _EXACT.subtract(high, step), _EXACT.add(low, step)
    at_left, at_right = bound(left), bound(right)
    for _ in range(_SECTIONS):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = _EXACT.subtract(high, _EXACT.multiply(_EXACT.subtract(high, low), _GOLDEN))
            at_left = bound(left)
        else:
            low, left, at_left = left, right, at_right
            right = _EXACT.add(low, _EXACT.multiply(_EXACT.subtract(high, low), _GOLDEN))
            at_right = bound(right)
    found = _EXACT.add(min(at_left, at_right), Decimal("1e-20"))
    return max(Decimal(0), found).quantize(Decimal("0.0001"), ROUND_CEILING, _EXACT)


def epsilons(query: Query, cells: int, survivors: Sequence[int] = ()) -> tuple[Epsilon, ...]:
    """Epsilon at the query's delta: all survivors honest, the assumed colluders, one honest site alone.

    cells: upper bound on the cells of both phases (for the redraws). survivors: how many sites survived
    each phase, all of the roster by default. The pooled noise of k honest sites is k sigma^2 / h, so a
    phase's rho is then rho h / k; what of the query's rho no kind has counts with the second phase.
    Raises Refused if delta cannot cover the redraws.
    """
    sites = len(query.roster)
    share = noise_shares(sites, query.colluders)
    delta, kept, spare, beta = _deltas(query, cells)
    there = tuple(survivors) or (sites,) * PHASES
    spent = (query.split.gate, query.rho_nano - query.split.gate)
    out = []
    for assumption, of_them in (
        ("all-honest", there),
        ("colluders", tuple(of_phase - query.colluders for of_phase in there)),
        ("one-honest", (1,) * PHASES),
    ):
        rho = sum((Fraction(part * share, NANO * k) for part, k in zip(spent, of_them, strict=True)), Fraction(0))
        epsilon = epsilon_at(rho, kept)
        if _EXACT.multiply(_EXACT.add(1, epsilon.exp(_EXACT)), beta) > spare:
            raise Refused("mpc.delta_too_small", exponent=query.delta_exponent)
        out.append(Epsilon(assumption, of_them, _up(rho), f"{epsilon:f}", f"{delta:f}"))  # type: ignore[arg-type]
    return tuple(out)


def check_delta(query: Query, cells: int) -> None:
    """Check that `epsilons` can be stated for a query, whoever survives. Raises Refused. cells: as there.

    The most is that of one honest site, at rho h. What rho + 2 sqrt(rho ln(1/delta)), which is above it (Bun and
    Steinke 2016, proposition 1.3), has room for needs no search.
    """
    _, kept, spare, beta = _deltas(query, cells)
    cost = _EXACT.divide(Decimal(query.rho_nano * noise_shares(len(query.roster), query.colluders)), NANO)
    reach = _EXACT.sqrt(_EXACT.multiply(cost, _EXACT.minus(kept.ln(_EXACT))))
    above = _EXACT.add(_EXACT.fma(2, reach, cost), Decimal("0.001"))  # it is rounded up
    if _EXACT.multiply(_EXACT.add(1, above.exp(_EXACT)), beta) > spare:
        epsilons(query, cells)


def _deltas(query: Query, cells: int) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    """delta; what of it is kept for epsilon, and spared for redraws; the chance of any redraw, or more."""
    delta = Decimal(1).scaleb(-query.delta_exponent)
    spare = _EXACT.multiply(delta, _REDRAW_SHARE)
    beta = _EXACT.multiply(Decimal(len(query.roster) * cells), _TAIL)
    return delta, _EXACT.subtract(delta, spare), spare, beta


def _up(value: Fraction) -> str:
    """A rational as a decimal of nine places, rounded up."""
    nano = -(-value.numerator * NANO // value.denominator)
    return f"{nano // NANO}.{nano % NANO:09d}"
