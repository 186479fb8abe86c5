"""The demo's rows pay what the pencil says: against the prover's own integers, on bills drawn at random."""

from __future__ import annotations

import random

import pytest

from medveil.demo.policy import AMOUNTS, TOTAL, Layer, layers, plain_payment
from zkp.benefit import benefit
from zkp.policy import check_table


def test_the_rows_make_a_table() -> None:
    for year in (1999, 2026, 2078):
        check_table([layer.row for layer in layers(year)])


def test_the_demo_s_own_bill() -> None:
    """By hand: 11,504.45 covered less 1,200 is 10,304.45, of which 4,250 + 4,500 + 289.23 is paid; and so on."""
    statutory, supplementary = layers(2026)
    covered = 421_000 + 167_445 + 390_000 + 96_000 + 68_600
    left = covered - 120_000
    first = (500_000 * 850 + 500_000 * 900 + (left - 1_000_000) * 950 + 500) // 1000
    assert plain_payment(statutory, AMOUNTS, 0, TOTAL) == first == 896_893
    rest = TOTAL - 33_000 - first - 50_000
    assert plain_payment(supplementary, AMOUNTS, first, TOTAL) == (rest * 800 + 500) // 1000 == 214_526


@pytest.mark.parametrize("number", [0, 1])
def test_the_pencil_agrees_with_the_prover(number: int) -> None:
    draw = random.Random(20261122 + number)
    given = layers(2026)[number]
    seen = set()
    for _ in range(2000):
        amounts = [draw.randrange(10 ** draw.randrange(1, 8)) for _ in range(8)]
        total = sum(amounts) + draw.choice((0, draw.randrange(10_000)))
        paid = draw.choice((0, draw.randrange(total + 1)))
        layer = Layer(given.row, draw.choice((0, draw.randrange(10**7))), draw.randrange(10**6), "")
        found = benefit(layer.row, amounts, total, paid, layer.cap, layer.deductible)
        assert plain_payment(layer, amounts, paid, total) == found.paid
        seen.add((found.paid == layer.cap, found.paid == total - paid, found.paid == found.quotient))
    assert len(seen) >= 3, "each of the three bounds is met"
