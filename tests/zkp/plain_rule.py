"""The amount rule of DESIGN section 6, written down a second time, from that page alone. Integers only.

Another road to the same numbers as `zkp.benefit`, which it must meet to the fen: nothing is split into bands here. Each
edge is a step in the rate, and what lies beyond an edge earns the step besides what all of it earns before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

MILLI = 1_000
"""Milli-fen in a fen: a whole fen at a weight or rate of one per mille."""

MICRO = 1_000_000
"""Millionths of a fen in a fen: what a milli-fen earns at one per mille."""


class Answer(NamedTuple):
    """What is taken off first, and what is paid: whole fen."""

    deducted: int
    paid: int


def answer(
    *,
    classes: Sequence[int],
    weights: Sequence[int],
    total: int,
    paid_before: int,
    base_is_remainder: bool,
    deductible: int,
    bands: tuple[int, int],
    rates: tuple[int, int, int],
    round_half_up: bool,
    cap_left: int,
) -> Answer:
    """All amounts in fen, weights and rates per mille. `paid_before`: what lower layers paid of this bill."""
    covered = sum(weight * fen for weight, fen in zip(weights, classes, strict=True))  # milli-fen
    if base_is_remainder:
        covered -= MILLI * paid_before
        if covered < 0:
            covered = 0

    # whole fen go off the front, as many as the deductible asks for and the covered amount has
    deducted = deductible if covered >= MILLI * deductible else (covered - covered % MILLI) // MILLI
    beyond = covered - MILLI * deducted

    earned, rate_before = 0, 0  # millionths of a fen
    for edge, rate in zip((0, *bands), rates, strict=True):
        past = beyond - MILLI * edge
        if past > 0:
            earned += (rate - rate_before) * past
        rate_before = rate
    if round_half_up:
        earned += MICRO // 2
    due = (earned - earned % MICRO) // MICRO

    return Answer(deducted, sorted((due, cap_left, total - paid_before))[0])
