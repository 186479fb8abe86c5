"""mpc.noise: the draws have the stated scale.

Thresholds: the sample variance of N draws has relative sd sqrt(2 / N); the mean has sd sigma / sqrt(N).
Each bound is at least seven of those away: a right implementation fails with probability < 10^-11,
a scale wrong by a tenth fails surely.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import exp, sqrt

import pytest

from mpc import noise
from mpc.budget import Scale

N = 20_000


def scale(sigma: int, per: int = 1) -> Scale:
    return Scale(0, "counts", 1, 1, 1, sigma, per)


@pytest.mark.parametrize("one", [scale(4), scale(4 * 1024 + 700, 1024), scale(123_456), scale(2**50)])
def test_variance_and_mean(one):
    draws = noise.draw(one, N)
    sigma = one.sigma / one.per
    mean = sum(draws) / N
    variance = sum((x - mean) ** 2 for x in draws) / (N - 1)
    assert abs(mean) < 7 * sigma / sqrt(N)
    assert abs(variance / sigma**2 - 1) < 7.5 * sqrt(2 / N)


def test_shape_is_the_discrete_gaussians():
    draws = Counter(noise.draw(scale(4), N))
    weights = {x: exp(-(x**2) / 32) for x in range(-48, 49)}
    total = sum(weights.values())
    for x in range(-6, 7):
        p = weights[x] / total
        assert abs(draws[x] / N - p) < 8 * sqrt(p * (1 - p) / N)


def test_neighbouring_draws_are_independent():
    one = scale(1000)
    draws = noise.draw(one, N)
    products = sum(a * b for a, b in pairwise(draws)) / (N - 1)
    assert abs(products) / 1000**2 < 7.5 / sqrt(N)
    assert len(set(draws)) > 1000


def test_draws_are_whole_numbers_within_reach():
    assert noise.draw(scale(4), 0) == ()
    draws = noise.draw(scale(4), 1000)
    assert all(type(x) is int and abs(x) <= 48 for x in draws)
    with pytest.raises(ValueError, match="negative"):
        noise.draw(scale(4), -1)


def test_a_draw_beyond_the_reach_is_drawn_again(monkeypatch):
    batches = iter([[0, 49, -49, 5], [48, 1000], [-48]])
    asked: list[int] = []

    def gaussian(sigma: float):
        assert sigma == 4.0
        return lambda zeros: (asked.append(len(zeros)), next(batches))[1]

    monkeypatch.setattr(noise, "_gaussian", gaussian)
    assert noise.draw(scale(4), 4) == (0, 5, 48, -48)
    assert asked == [4, 2, 1]


def test_two_calls_differ():
    assert noise.draw(scale(2**40), 4) != noise.draw(scale(2**40), 4)
