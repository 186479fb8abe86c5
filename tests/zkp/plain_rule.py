"""The amount rule of DESIGN section 6, written down a second time, from that page alone.

Money is an exact fraction of a fen here, never milli-fen, and a band is a piece of a line: another road to
the same numbers as `zkp.benefit`, which it must meet to the fen.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import floor
from typing import NamedTuple


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
    covered = sum(Fraction(weight, 1000) * fen for weight, fen in zip(weights, classes, strict=True))
    if base_is_remainder:
        covered = covered - paid_before if covered > paid_before else Fraction(0)

    # whole fen go off the front, as many as the deductible asks for and the covered amount has
    deducted = 0 if covered < 1 else deductible if covered >= deductible else floor(covered)
    beyond = covered - deducted

    earned = Fraction(0)
    edges = [Fraction(0), Fraction(bands[0]), Fraction(bands[1])]
    for place, rate in enumerate(rates):
        start = edges[place]
        end = edges[place + 1] if place + 1 < len(edges) else max(beyond, start)
        inside = max(Fraction(0), min(beyond, end) - start)
        earned += inside * Fraction(rate, 1000)
    due = floor(earned + Fraction(1, 2)) if round_half_up else floor(earned)

    return Answer(deducted, sorted((due, cap_left, total - paid_before))[0])
