"""The policy rows under which the demo's bill is paid, and what they pay, worked out without credentials.

Synthetic, in the shape of a resident's cover: the statutory layer first, then a commercial one on what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal
from typing import Final, NamedTuple

from medveil.demo.play import BUREAU, INSURER
from wire.dates import day_of
from zkp.policy import AGES, Diagnoses, Row

CURRENCY: Final = "CNY"
LEVEL: Final = "3"
"""Of the hospital, as a registry would have it."""
COVERED: Final = "covered-inpatient"
"""The insurer's public list of diagnoses."""

AMOUNTS: Final = (421_000, 186_050, 390_000, 120_000, 98_000, 0, 0, 33_000)
"""The bill, fen by class of charges: drugs, tests, treatment, bed, material, none, none, what nobody covers."""
TOTAL: Final = sum(AMOUNTS)


class Layer(NamedTuple):
    """One payer's terms. cap, deductible: of the account that the bureau opens, fen; said: the row in words."""

    row: Row
    cap: int
    deductible: int
    said: str


def layers(year: int) -> tuple[Layer, ...]:
    """The statutory layer of the bureau, then the supplementary one of the insurer on what is left."""
    days = day_of(date(year, 1, 1)), day_of(date(year, 12, 31))
    statutory = Row(
        "employee-inpatient", 1, BUREAU, 1, True, year, *days, "", "310", "11", "330100", "", "21", LEVEL, *AGES, 1, 3,
        True, None, CURRENCY, (1000, 900, 1000, 800, 700, 0, 0, 0), False, None, 500_000, 1_000_000, (850, 900, 950),
        True,
    )  # fmt: skip
    supplementary = Row(
        "supplementary-inpatient", 1, INSURER, 2, False, year, *days, "", "310", "", "", "", "21", "", 18, 65, 0, 0,
        False, Diagnoses("covered", COVERED), CURRENCY, (1000, 1000, 1000, 1000, 1000, 0, 0, 0), True, 50_000, 0, 0,
        (800, 800, 800), True,
    )  # fmt: skip
    return (
        Layer(
            statutory, 40_000_000, 120_000, "85 % to 5,000, 90 % to 10,000, 95 % beyond, after the year's deductible"
        ),
        Layer(supplementary, 500_000, 0, "80 % of what is left beyond 500, up to 5,000 a year"),
    )


def plain_payment(layer: Layer, amounts: Sequence[int], paid: int, total: int) -> int:
    """What a layer pays, in fen, worked out in yuan with a pencil: no credential, no proof.

    amounts, total: of the bill, fen; paid: by lower layers, fen.
    """
    row, fen = layer.row, Decimal(100)
    base = sum((Decimal(w) / 1000 * a / fen for w, a in zip(row.weights, amounts, strict=True)), Decimal(0))
    if row.remainder:
        base = max(base - paid / fen, Decimal(0))
    deductible = layer.deductible if row.deductible is None else row.deductible
    base -= min(Decimal(deductible) / fen, base.quantize(Decimal("0.01"), ROUND_FLOOR))
    first, second = row.band_1 / fen, row.band_2 / fen
    bands = min(base, first), min(max(base - first, Decimal(0)), second - first), max(base - second, Decimal(0))
    due = sum((Decimal(rate) / 1000 * part for rate, part in zip(row.rates, bands, strict=True)), Decimal(0))
    rounded = due.quantize(Decimal("0.01"), ROUND_HALF_UP if row.half_up else ROUND_FLOOR)
    return min(int(rounded * 100), layer.cap, total - paid)
