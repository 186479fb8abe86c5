"""An attacker who knows everything but whether one person is in the data, and what that shows about epsilon.

The strongest test of "in" against "out" is the likelihood ratio; for noise that is Gaussian nearly it is a weighted
sum. It is played over many groups that are alike, half of them with the person: every group is a run of its own, with
noise of its own. From how often it is right, `shown` derives an epsilon that the release has at least: if that is
above the one that was promised, the promise is false.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mpc.budget import Scale
from mpc.cells import Layout
from tests.mpc.noise_statistics import Draw

DOUBT = 1e-9
"""Chance that one of the two rates of one threshold is outside its Clopper-Pearson interval."""
THRESHOLDS = np.linspace(-3, 9, 33)
"""Log-likelihood ratios from which "in" is said: fixed before anything is seen, 33 x 2 x 2 x DOUBT in all."""
DELTAS = (1e-6, 0.01, 0.1, 0.3)

Scores = NDArray[np.float64]


@dataclass
class Drawn:
    """Samplers by site, and what each drew: called as `contribution` calls them, site after site in each phase."""

    draws: Sequence[Draw]
    kept: dict[Scale, list[tuple[int, ...]]] = field(default_factory=lambda: defaultdict(list))

    def __call__(self, scale: Scale, count: int) -> tuple[int, ...]:
        site = len(self.kept[scale])
        self.kept[scale].append(self.draws[min(site, len(self.draws) - 1)](scale, count))
        return self.kept[scale][-1]


@dataclass(frozen=True)
class Seen:
    """What was opened of one phase: noisy numbers by scale, over groups, in lattice units; and of how many sites."""

    numbers: Mapping[Scale, Scores]
    sites: int

    @classmethod
    def of(cls, layout: Layout, totals: Sequence[int], sites: int) -> Seen:
        """Read from the totals of a phase, as anybody does."""
        numbers, start = {}, 0
        for block in layout.blocks:
            cells = np.array(totals[start : start + block.cells], dtype=float)
            numbers[block.scale] = cells - sites * block.offset
            start += block.cells
        return cls(numbers, sites)

    def without(self, drawn: Drawn, colluders: Sequence[int]) -> Seen:
        """The same, less the noise of sites that tell it to the attacker. colluders: positions in the roster."""
        numbers = {
            scale: cells - sum(np.array(drawn.kept[scale][site], dtype=float) for site in colluders)
            for scale, cells in self.numbers.items()
        }
        return Seen(numbers, self.sites - len(colluders))


def score(seen: Seen, before: Mapping[str, int], change: Mapping[str, int]) -> Scores:
    """The log-likelihood ratio of each group. before: a cell of each kind without the person; change: what they add."""
    total: Any = 0.0
    for scale, cells in seen.numbers.items():
        moved = change[scale.kind] * scale.lattice
        variance = seen.sites * float(scale.site_variance)
        total = total + ((cells - before[scale.kind] * scale.lattice) * moved - moved**2 / 2) / variance
    return np.asarray(total)


def shown(with_them: Scores, without: Scores, delta: float) -> float:
    """An epsilon that whatever gave these scores has at least, at `delta`: wrong with a chance below 10^-6.

    P(in says in) <= e^epsilon P(out says in) + delta, and the same for "out": both rates by Clopper and Pearson.
    """
    best = 0.0
    for threshold in THRESHOLDS:
        for hits, misses in (
            (with_them >= threshold, without >= threshold),
            (without < -threshold, with_them < -threshold),
        ):
            least, most = _at_least(int(hits.sum()), hits.size), _at_most(int(misses.sum()), misses.size)
            if least > delta:
                best = max(best, log((least - delta) / most))
    return best


def _at_least(count: int, runs: int) -> float:
    return float(stats.beta.ppf(DOUBT, count, runs - count + 1)) if count else 0.0


def _at_most(count: int, runs: int) -> float:
    return float(stats.beta.ppf(1 - DOUBT, count + 1, runs - count)) if count < runs else 1.0
