"""What is looked at in the noise of a release: is it as wide as promised, of the right shape, and of nobody else's?

A judge is given what the sites really added, cell by cell, and the variance that is promised; it names what it finds
wrong. Each statistic alarms on right noise with a probability below `ALARM`, and there are fewer than 900 of them in
one judgement, so that a judgement of right noise is wrong less than once in a million times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from math import log, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mpc.budget import Scale

ALARM = 1e-9
_FAR = 6.2
"""Of a normal deviate: beyond it with probability 5.6 x 10^-10, which leaves room for sums that are normal nearly."""
_ANY_LAG = 8.0
"""The same where the largest of thousands of lags is looked at: 1.3 x 10^-15 each."""

Noise = NDArray[np.float64]
Draw = Callable[[Scale, int], tuple[int, ...]]
Of = tuple[int, str]
"""A measure, and a kind of its cells."""


def judge(noises: Mapping[Of, Noise], promised: Mapping[Of, float], honest: int) -> set[str]:
    """What is wrong with the noise of one query, by the names below; nothing if it is as promised.

    noises: by measure and kind of cell, sites x cells, in lattice units. promised: the variance that the pool needs.
    honest: h, the sites that bring it together.

    "scale": all draws of a kind; "site": one site's; "honest": what some h sites bring together; "pool": what all do.
    "shape": the draws against the exact distribution. "between sites", "between cells", "between kinds": correlation.
    """
    found: set[str] = set()
    for kind, noise in noises.items():
        each = promised[kind] / honest
        scaled = noise / sqrt(each)
        sites = len(noise)
        found |= {"scale"} if too_far_off(scaled) else set()
        found |= {"site"} if any(too_far_off(site) for site in scaled) else set()
        pools = (scaled[list(some)].sum(axis=0) / sqrt(honest) for some in combinations(range(sites), honest))
        found |= {"honest"} if any(too_far_off(pool) for pool in pools) else set()
        found |= {"pool"} if too_far_off(scaled.sum(axis=0) / sqrt(sites)) else set()
        found |= {"shape"} if misshapen(noise, sqrt(each)) else set()
        if any(correlated(one, other) for one, other in combinations(scaled, 2)):
            found.add("between sites")
        if any(repeats(site) for site in scaled):
            found.add("between cells")
    for (one, left), (other, right) in combinations(noises.items(), 2):
        width = min(left.shape[1], right.shape[1])
        one_by_one = zip(left / sqrt(promised[one]), right / sqrt(promised[other]), strict=True)
        if any(correlated(a[:width], b[:width]) for a, b in one_by_one):
            found.add("between kinds")
    return found


def too_far_off(scaled: Noise) -> bool:
    """Whether squares of what should be standard normal do not add up to as many: chi-squared, both tails."""
    total = float((scaled**2).sum())
    return 2 * min(stats.chi2.cdf(total, scaled.size), stats.chi2.sf(total, scaled.size)) < ALARM


def misshapen(noise: Noise, sigma: float) -> bool:
    """Whether the draws are further from the discrete Gaussian than the inequality of Dvoretzky, Kiefer, Wolfowitz
    and Massart allows: P(sup |F_N - F| > e) <= 2 exp(-2 N e^2), for any distribution."""
    reach = int(12 * sigma) + 1
    values = np.arange(-reach, reach + 1)
    if len(values) > 2_000_000:  # so fine a lattice that the normal distribution is the same
        ordered = np.sort(noise.ravel())
        wanted = stats.norm.cdf(ordered / sigma)
        steps = np.arange(1, ordered.size + 1) / ordered.size
        distance = max(np.abs(wanted - steps).max(), np.abs(wanted - steps + 1 / ordered.size).max())
    else:
        weights = np.exp(-(values.astype(float) ** 2) / (2 * sigma**2))
        wanted = weights.cumsum() / weights.sum()
        drawn = np.searchsorted(np.sort(noise.ravel()), values, side="right") / noise.size
        distance = np.abs(wanted - drawn).max()
    return bool(distance > sqrt(log(2 / ALARM) / (2 * noise.size)))


def correlated(one: Noise, other: Noise) -> bool:
    """Whether two rows of draws go together, or against each other."""
    size = np.sqrt((one**2).sum() * (other**2).sum())
    return bool(size and abs((one * other).sum()) / size > _FAR / sqrt(len(one)))


def repeats(row: Noise) -> bool:
    """Whether a row goes together with itself, moved by any number of cells up to half of them."""
    power = np.abs(np.fft.rfft(row, 2 * len(row))) ** 2
    moved = np.fft.irfft(power)[: len(row) // 2]
    if not moved[0]:
        return False
    lags = np.arange(1, len(moved))
    return bool((np.abs(moved[1:]) / moved[0] > _ANY_LAG * np.sqrt(len(row) - lags) / len(row)).any())


# --- samplers that are wrong on purpose, and one that is right ------------------------------------


def gaussian(seed: int, variance: float = 1.0) -> Draw:
    """A quick sampler that replays: normal, rounded, with the scale's variance times `variance`."""
    rng = np.random.default_rng(seed)
    return lambda scale, count: _whole(rng.normal(0, sqrt(float(scale.site_variance) * variance), count), scale)


def mixed(seed: int, common: Callable[[Scale], int], share: float) -> Draw:
    """Draws of which the part `share` is of a stream of its own name, so that others may have the same.

    common: the seed of that stream, by scale.
    """
    rng = np.random.default_rng(seed)

    def draw(scale: Scale, count: int) -> tuple[int, ...]:
        theirs = np.random.default_rng(common(scale)).normal(0, 1, count)
        mine = rng.normal(0, 1, count)
        sigma = sqrt(float(scale.site_variance))
        return _whole(sigma * (sqrt(share) * theirs + sqrt(1 - share) * mine), scale)

    return draw


def shaped(seed: int, standard: Callable[[np.random.Generator, int], Noise]) -> Draw:
    """Draws of another shape than the Gaussian's. standard: of variance 1."""
    rng = np.random.default_rng(seed)
    return lambda scale, count: _whole(standard(rng, count) * sqrt(float(scale.site_variance)), scale)


def repeated(seed: int, period: int) -> Draw:
    """A buffer of `period` draws, used again and again."""
    plain = gaussian(seed)

    def draw(scale: Scale, count: int) -> tuple[int, ...]:
        buffer = plain(scale, period)
        return (buffer * (count // period + 1))[:count]

    return draw


def nothing(scale: Scale, count: int) -> tuple[int, ...]:
    """No noise."""
    return (0,) * count


def _whole(values: Noise, scale: Scale) -> tuple[int, ...]:
    return tuple(int(value) for value in np.clip(np.rint(values), -scale.reach, scale.reach))


def of_site(draws: Sequence[Draw], site: int) -> Draw:
    """The sampler of one site, the last of them for all that come after."""
    return draws[min(site, len(draws) - 1)]
