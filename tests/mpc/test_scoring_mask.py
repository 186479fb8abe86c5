"""What the bureau learns from v = a (s - L) + b beside its sign: the law of v, computed exactly."""

from __future__ import annotations

import math
import secrets
from collections import Counter
from fractions import Fraction

import pytest

from mpc.scoring import Feature, _below, _mask, declared_bounds

LOW, HIGH = 7, 15


def mask_law(low: int, high: int) -> dict[int, float]:
    """P(a) as _mask draws it: a uniform octave, within it proportional to 1/a."""
    law: dict[int, float] = {}
    for octave in range(low, high):
        numbers = range(1 << octave, 2 << octave)
        total = math.fsum(1 / number for number in numbers)
        for number in numbers:
            law[number] = 1 / (number * total * (high - low))
    return law


def view_law(distance: int, masks: dict[int, float]) -> list[float]:
    """P(v) for v = a d + b, b uniform in 0..a-1, as a list by v (d >= 0)."""
    steps = [0.0] * ((1 << HIGH) * (distance + 1) + 1)
    for a, probability in masks.items():
        steps[a * distance] += probability / a
        steps[a * (distance + 1)] -= probability / a
    law, level = [], 0.0
    for step in steps:
        level += step
        law.append(level)
    return law


def between(first: list[float], second: list[float]) -> float:
    """Statistical distance."""
    width = max(len(first), len(second))
    pairs = zip(first + [0.0] * (width - len(first)), second + [0.0] * (width - len(second)), strict=True)
    return math.fsum(abs(one - two) for one, two in pairs) / 2


@pytest.fixture(scope="module")
def masks() -> dict[int, float]:
    return mask_law(LOW, HIGH)


@pytest.mark.parametrize(("near", "far"), [(0, 1), (0, 3), (1, 3), (2, 3)])
def test_two_scores_on_one_side_are_as_close_as_the_bound_says(masks: dict[int, float], near: int, far: int) -> None:
    found = between(view_law(near, masks), view_law(far, masks))
    bound = (math.log(far + 1) + 1) / math.log(2 ** (HIGH - LOW))
    assert 0 < found <= bound


def test_in_the_middle_of_the_range_v_says_nothing_of_the_distance(masks: dict[int, float]) -> None:
    laws = [view_law(distance, masks) for distance in (1, 2, 3)]
    for v in range(5 << LOW, (1 << HIGH) - 1, 997):
        expected = 1 / (v * math.log(2 ** (HIGH - LOW)))
        for law in laws:
            assert law[v] == pytest.approx(expected, rel=0.06)


def test_the_limit_itself_gives_only_what_the_docs_say(masks: dict[int, float]) -> None:
    # s = L: v = b < a. Density (1/max(v, 2^low) - 1/2^high) / ln(range); v < 2^low happens for s = L alone
    law, next_law = view_law(0, masks), view_law(1, masks)
    spread = math.log(2 ** (HIGH - LOW))
    assert math.fsum(law[: 1 << LOW]) == pytest.approx((1 - 2 ** (LOW - HIGH)) / spread, rel=0.01)
    assert math.fsum(next_law[: 1 << LOW]) == 0
    for v in (300, 2000, 20_000):
        assert law[v] == pytest.approx((1 / v - 2**-HIGH) / spread, rel=0.02)


def test_below_the_limit_the_law_is_the_same_mirrored() -> None:
    # -v - 1 = a (k - 1) + (a - 1 - b) for s - L = -k: the law of distance k - 1
    for a in (5, 9):
        for k in (1, 2, 5):
            below = sorted(-(a * -k + b) - 1 for b in range(a))
            assert below == sorted(a * (k - 1) + b for b in range(a))


def test_the_declared_leak_is_at_least_the_exact_bound() -> None:
    for high in (1, 60, 5000, 1 << 31):
        bounds = declared_bounds([Feature("x", 0, high, 1, 0)], 0, 1000, 1)
        exact = (math.log(bounds.distance + 1) + 1) / ((bounds.mask_high - bounds.mask_low) * math.log(2))
        assert exact * 1000 <= bounds.leak_per_mille <= exact * 1000 + 3
        assert bounds.leak_per_mille < 30


def test_masks_are_drawn_by_their_law() -> None:
    # 2^4 <= a < 2^7: chi-squared over the 112 values, 40,000 draws, refused only at 1 in a million
    draws = Counter(_mask(4, 7, secrets.token_bytes) for _ in range(40_000))
    law = mask_law(4, 7)
    assert set(draws) <= set(law)
    statistic = math.fsum((draws[a] - 40_000 * p) ** 2 / (40_000 * p) for a, p in law.items())
    assert statistic < 111 + 5.5 * math.sqrt(2 * 111) + 20


def test_uniform_draws_reject_instead_of_reducing() -> None:
    given = iter([b"\xff", b"\xc0", b"\x9f", b"\x5f"])
    # 5 values, 3 bits: 7, 6 and 5 (0x9f >> 5 = 4) ...
    assert _below(5, lambda length: next(given)) == 4
    assert _below(1, lambda length: b"") == 0
    counts = Counter(_below(5, secrets.token_bytes) for _ in range(5000))
    assert set(counts) == {0, 1, 2, 3, 4} and min(counts.values()) > 800


def test_masks_reach_both_ends_of_a_product_sized_range() -> None:
    sizes = [_mask(100, 2000, secrets.token_bytes).bit_length() - 1 for _ in range(2000)]
    assert 100 <= min(sizes) < 150 and 1950 < max(sizes) < 2000
    assert Fraction(sum(sizes), len(sizes)) == pytest.approx(1050, abs=60)
