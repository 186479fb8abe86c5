"""From budget to noise: sensitivity, noise scales, and what they mean as epsilon.

All of it is integer, rational or decimal arithmetic on public declarations: every site, the
coordinator and a stranger compute the same digits. Nothing here sees data.

**Neighbours.** Two inputs are neighbours if one has one row more ("row") or one person with all
rows more ("person"). Changing a row is one row less and one more: twice the distance, four times
the rho.

**L2 sensitivity of each kind of cell**, one row, in the kind's own integer unit, with D the largest
|v' - centre| of the plan. One row is in exactly one group and in one bin, so it moves one cell of
each kind, and the L2 distance over all groups is that cell's change:

    counts     1
    sums       D              sum of d, d = v' - centre in [-D, D]
    squares    D^2            sum of 2 d^2 - D^2, which lies in [-D^2, D^2]: centred, so half of d^2's
    bins       1

A person moves at most m = rows_per_person x sites rows, all of which may fall into one cell: m times
as much (the triangle inequality; rows of several groups move the vector less). Sites cannot
recognise one person, so the factor is the roster's size, and the rho of a fixed noise grows as m^2.

**Noise.** The Gaussian mechanism on integers with variance s^2 has rho = Delta^2 / (2 s^2) zCDP
(Canonne, Kamath, Steinke 2020, theorem 4). A kind with budget rho_k therefore needs
sigma^2 = Delta^2 / (2 rho_k) in the pool; kinds and phases add up by (adaptive) composition. Each of
n sites adds sigma^2 / h, h = t - c, so any h honest sites bring all of it, whatever the others do.

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

from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from math import isqrt
from typing import Annotated, Literal

import msgspec

from mpc.query import NANO, Query, Split, local_plan, noise_shares
from wire.canonical import Wire
from wire.errors import Refused

Kind = Literal["counts", "sums", "squares", "bins"]
KINDS: tuple[Kind, ...] = ("counts", "sums", "squares", "bins")

SMALLEST_SIGMA = 4
"""A site's sigma in lattice units, at least."""
LARGEST_SIGMA = 2**53
"""A site's sigma in lattice units, below: it must be an exact double, which is what OpenDP takes."""
REACH = 12
"""Draws beyond this many sigma are drawn again."""

_FINE = 1024
_EXACT = Context(prec=40)
_REDRAW_SHARE = Decimal("1e-6")
_TAIL = Decimal("1.1e-31")
"""Above 2 exp(-72) = 1.07e-31."""

_WEIGHTS: dict[Kind, int] = {"counts": 300, "sums": 300, "squares": 200, "bins": 200}


class Scale(Wire, frozen=True, tag="mpc.scale"):
    """The noise that one site adds to each cell of one kind.

    sensitivity: of the pooled cells, in the kind's unit. rho_nano: what the kind is debited.
    lattice: cells and noise are in units of 1/lattice of the kind's unit (a power of two).
    The site's sigma in lattice units is sigma / per; sigma^2 is the variance of the discrete
    Gaussian's parameter, which its true variance never exceeds.
    """

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
    subtracts its own) or "one-honest" (all but one do). honest: sites whose noise counts.
    rho, epsilon: decimals, rounded up; delta: decimal.
    """

    assumption: Literal["all-honest", "colluders", "one-honest"]
    honest: Annotated[int, msgspec.Meta(ge=1)]
    rho: str
    epsilon: str
    delta: str


def split(rho_nano: int, histogram: bool) -> Split:
    """The default division of `rho_nano`: counts 3, sums 3, squares 2, bins 2 parts of 10.

    Without a histogram its part goes to the others in proportion. Rounded down; what is left over
    goes to the counts, so that the parts add up to rho_nano exactly.
    """
    weights = {kind: weight for kind, weight in _WEIGHTS.items() if histogram or kind != "bins"}
    whole = sum(weights.values())
    part = {kind: rho_nano * weight // whole for kind, weight in weights.items()}
    part["counts"] += rho_nano - sum(part.values())
    return Split(part["counts"], part["sums"], part["squares"], part.get("bins", 0))


def rows_of_one_unit(query: Query) -> int:
    """m: rows by which two neighbouring inputs can differ, over all sites."""
    return 1 if query.unit == "row" else query.rows_per_person * len(query.roster)


def sensitivity(query: Query, kind: Kind) -> int:
    """L2 sensitivity of all pooled cells of `kind` together, in the kind's unit (module docstring)."""
    largest = local_plan(query).largest
    one_row = {"counts": 1, "sums": largest, "squares": largest**2, "bins": 1}[kind]
    return one_row * rows_of_one_unit(query)


def scale(query: Query, kind: Kind) -> Scale:
    """The noise of each site for `kind`. Raises Refused where it is too wide for the lanes.

    sigma_site^2 = Delta^2 / (2 rho_k h), rounded up.
    """
    delta2 = sensitivity(query, kind)
    rho_nano: int = getattr(query.split, kind)
    honest = noise_shares(len(query.roster), query.colluders)
    variance = Fraction(delta2**2 * NANO, 2 * rho_nano * honest)
    lattice = 1
    while variance * lattice**2 < SMALLEST_SIGMA**2:
        lattice *= 2
    for per in (_FINE, 1):
        # + 2: never rounded down, and at least 1 / (per * sigma) above, which covers tau (above).
        sigma = isqrt(variance * (lattice * per) ** 2 // 1) + 2
        if sigma < LARGEST_SIGMA and delta2 < 2**62:
            return Scale(kind, delta2, rho_nano, lattice, sigma, per)
    raise Refused("mpc.noise_too_wide", kind=kind)


def scales(query: Query) -> tuple[Scale, ...]:
    """The scale of each kind of cell that `query` has."""
    return tuple(scale(query, kind) for kind in KINDS if kind != "bins" or query.measure.edges)


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

    low, high = Decimal(-10), Decimal(30)
    for _ in range(90):
        third = _EXACT.divide(_EXACT.subtract(high, low), 3)
        left, right = _EXACT.add(low, third), _EXACT.subtract(high, third)
        if bound(left) < bound(right):
            high = right
        else:
            low = left
    found = _EXACT.add(bound(_EXACT.divide(_EXACT.add(low, high), 2)), Decimal("1e-20"))
    return max(Decimal(0), found).quantize(Decimal("0.0001"), ROUND_CEILING, _EXACT)


def epsilons(query: Query, cells: int) -> tuple[Epsilon, ...]:
    """Epsilon at the query's delta: all sites honest, the assumed colluders, one honest site alone.

    cells: upper bound on the cells of both phases (for the redraws). The pooled noise of k honest
    sites is k sigma^2 / h, so their rho is rho h / k. Raises Refused if delta cannot cover the redraws.
    """
    sites = len(query.roster)
    honest = noise_shares(sites, query.colluders)
    delta = Decimal(1).scaleb(-query.delta_exponent)
    spare = _EXACT.multiply(delta, _REDRAW_SHARE)
    kept = _EXACT.subtract(delta, spare)
    beta = _EXACT.multiply(Decimal(sites * cells), _TAIL)
    out = []
    for assumption, of_them in (
        ("all-honest", sites),
        ("colluders", sites - query.colluders),
        ("one-honest", 1),
    ):
        rho = Fraction(query.rho_nano * honest, NANO * of_them)
        epsilon = epsilon_at(rho, kept)
        if _EXACT.multiply(_EXACT.add(1, epsilon.exp(_EXACT)), beta) > spare:
            raise Refused("mpc.delta_too_small", exponent=query.delta_exponent)
        out.append(Epsilon(assumption, of_them, _up(rho), f"{epsilon:f}", f"{delta:f}"))  # type: ignore[arg-type]
    return tuple(out)


def _up(value: Fraction) -> str:
    """A rational as a decimal of nine places, rounded up."""
    nano = -(-value.numerator * NANO // value.denominator)
    return f"{nano // NANO}.{nano % NANO:09d}"
