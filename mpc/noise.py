"""Discrete Gaussian noise by OpenDP, one draw for each cell of one site.

Party: every site, at home. The draws are secret; scales are public (`mpc.budget`).

OpenDP samples exactly (Canonne, Kamath, Steinke 2020: rational arithmetic, no floating-point
sampling) from its own cryptographic generator, which takes no randomness argument: this is the one
place of `mpc` whose run cannot be replayed from `rand`. A draw beyond 12 sigma is drawn again, so
that the lanes of a secure sum provably hold it; `mpc.budget` counts that in delta.

Not promised: constant time. The sampler's running time depends on the draw; it is not observable
through the protocol, which sends nothing before all draws are made.
"""

from __future__ import annotations

from typing import Any

from mpc.budget import Scale


def draw(scale: Scale, count: int) -> tuple[int, ...]:
    """`count` independent draws (secret) in lattice units, each within scale.reach of 0."""
    if count < 0:
        raise ValueError("count must not be negative")
    if not scale.sigma:
        return (0,) * count  # of an exact query
    sigma = scale.sigma / scale.per  # exact: sigma < 2^53 and per is a power of two
    gaussian = _gaussian(sigma)
    draws: list[int] = []
    while len(draws) < count:
        fresh = gaussian([0] * (count - len(draws)))
        draws.extend(int(value) for value in fresh if abs(value) <= scale.reach)
    return tuple(draws)


def _gaussian(sigma: float) -> Any:
    """OpenDP's measurement that adds discrete Gaussian noise to a vector of integers."""
    import opendp.prelude as dp  # heavy: imported when a site draws

    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T=float)
    return space >> dp.m.then_gaussian(scale=sigma)
