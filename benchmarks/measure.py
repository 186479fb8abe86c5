"""How a figure is measured: A and B in turn, medians, garbage collection off, and what is reported of it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")

Timed = tuple[tuple[float, float], ...]
"""Seconds of (medveil, peer), one pair a round."""

LOWER_IS_BETTER = {"s": 1.0, "ms": 1e3, "us": 1e6, "bytes": 1.0, "times": 1.0}
"""Units of which less is better, with how many of a timed one make a second. ``times``: a factor of growth.

Of any other unit more is better: a rate, ``things/s``, a ``share`` of a limit, a number of ``streams`` held, ``fold``:
how many times faster or smaller than a peer.
"""


class CannotRun(Exception):
    """A bench lacks something on this machine; the text says what and what to do."""


@dataclass(frozen=True)
class Figure:
    """One measured number.

    figure: its name within the bench; value: median over rounds, in `unit`; peer: what ran beside it, with
    its version, or None; ratio: median over rounds of medveil's value / the peer's in the same unit, so
    below 1 is better for times and sizes, above 1 for rates; spread: half the distance between the
    quartiles, as a share of the median; rounds: pairs taken, 0 for what is counted and not timed.
    """

    figure: str
    value: float
    unit: str
    peer: str | None = None
    ratio: float | None = None
    spread: float = 0.0
    rounds: int = 0


@dataclass(frozen=True)
class Effort:
    """How long to measure one figure. rounds: at least; seconds: then until these are over; most: rounds at most."""

    rounds: int
    seconds: float
    most: int = 41


QUICK = Effort(3, 0.3)
FULL = Effort(7, 6.0)


def effort(quick: bool, full: Effort = FULL) -> Effort:
    """The effort that a bench spends on a figure; `full` for one whose rounds are long."""
    return QUICK if quick else full


def _seconds(step: Callable[[T], object], given: T, clock: Callable[[], float]) -> float:
    began = clock()
    step(given)
    return clock() - began


def in_turn(
    ours: Callable[[T], object],
    peer: Callable[[T], object],
    prepare: Callable[[], T],
    effort: Effort,
    clock: Callable[[], float] | None = None,
) -> Timed:
    """Time `ours` and `peer` on the same fresh input, one after the other, the order swapped every round.

    prepare: makes a round's input, not timed; called once more for the warm-up, which is not counted. clock:
    `perf_counter` if none is given; the processor's (`process_time`) where one is taken from the other, so that who
    else has the machine counts less.
    """
    clock = clock or perf_counter
    rounds: list[tuple[float, float]] = []
    collecting = gc.isenabled()
    spent = 0.0
    try:
        given = prepare()
        for step in (ours, peer):
            step(given)
        while len(rounds) < effort.rounds or (spent < effort.seconds and len(rounds) < effort.most):
            given = prepare()
            gc.collect()
            gc.disable()
            if len(rounds) % 2:
                second = _seconds(peer, given, clock)
                first = _seconds(ours, given, clock)
            else:
                first = _seconds(ours, given, clock)
                second = _seconds(peer, given, clock)
            if collecting:
                gc.enable()
            rounds.append((first, second))
            spent += first + second
    finally:
        if collecting:
            gc.enable()
    return tuple(rounds)


def spread(values: list[float]) -> float:
    """Half the distance between the quartiles, as a share of the median."""
    if len(values) < 2:
        return 0.0
    low, _, high = quantiles(values, n=4, method="inclusive")
    return (high - low) / 2 / median(values)


def beside(
    figure: str,
    unit: str,
    peer: str,
    rounds: Timed,
    count: int = 1,
) -> Figure:
    """The figure of rounds in which both sides did `count` things each."""

    def value(seconds: float) -> float:
        return seconds / count * LOWER_IS_BETTER[unit] if unit in LOWER_IS_BETTER else count / seconds

    values = [value(ours) for ours, _ in rounds]
    ratios = [value(ours) / value(theirs) for ours, theirs in rounds]
    return Figure(figure, median(values), unit, peer, median(ratios), spread(values), len(rounds))


def compare(
    figure: str,
    unit: str,
    peer: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    quick: bool,
    count: int = 1,
) -> Figure:
    """`in_turn` and `beside` for steps that need no fresh input. count: things that one call does."""
    rounds = in_turn(lambda _: ours(), lambda _: theirs(), lambda: None, effort(quick))
    return beside(figure, unit, peer, rounds, count)
