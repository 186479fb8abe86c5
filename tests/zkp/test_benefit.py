"""zkp.benefit: hand-made cases, the bounds that the proof relies on, no float anywhere near."""

from __future__ import annotations

from datetime import date
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.dates import day_of
from wire.money import LARGEST
from zkp.benefit import HALF, LARGEST_CLASS, MICRO, benefit, sizes
from zkp.policy import AGES, Row

FULL = (1000,) * 8
ROW = Row(
    "p", 1, "fund", 1, True, 2026, day_of(date(2026, 1, 1)), day_of(date(2026, 12, 31)), "", "", "", "", "", "", "",
    *AGES, 0, 0, True, None, "CNY", FULL, False, 0, LARGEST, LARGEST, (1000, 1000, 1000), False,
)  # fmt: skip


def row(**changes: Any) -> Row:
    return msgspec.structs.replace(ROW, **changes)


def pays(
    row: Row, amount: int, paid: int = 0, cap: int = LARGEST, deductible: int = 0, total: int | None = None
) -> int:
    """R for a bill with everything in the first class."""
    return benefit(row, (amount, 0, 0, 0, 0, 0, 0, 0), amount if total is None else total, paid, cap, deductible).paid


BANDS = {"band_1": 1_000_00, "band_2": 5_000_00, "rates": (500, 700, 900)}


@pytest.mark.parametrize(
    ("amount", "reimbursed"),
    [
        (0, 0),
        (1, 0),  # half a fen, rounded down
        (2, 1),
        (1_000_00, 500_00),
        (1_000_01, 500_00),
        (1_000_02, 500_01),
        (5_000_00, 500_00 + 2_800_00),
        (10_000_00, 500_00 + 2_800_00 + 4_500_00),
    ],
)
def test_bands(amount: int, reimbursed: int) -> None:
    assert pays(row(**BANDS), amount) == reimbursed


def test_rounding_half_up() -> None:
    assert pays(row(**BANDS, half_up=True), 1) == 1
    assert pays(row(rates=(499,) * 3, half_up=True), 1) == 0


def test_deductible_is_taken_in_whole_fen() -> None:
    half = row(weights=(500,) * 8, deductible=10)
    assert pays(half, 21) == 0  # E = 10,500 milli-fen: 10 fen go, half a fen stays, nothing is paid
    one = benefit(half, (21, *[0] * 7), 21, 0, LARGEST, 0)
    assert (one.base, one.deducted, one.after_deductible) == (10_500, 10, 500)
    assert benefit(half, (19, *[0] * 7), 19, 0, LARGEST, 0).deducted == 9
    assert pays(half, 22) == 1


def test_deductible_of_the_account() -> None:
    own = row(deductible=None)
    assert pays(own, 300, deductible=100) == 200
    assert benefit(own, (60, *[0] * 7), 60, 0, LARGEST, 100).deducted == 60
    assert pays(ROW, 300, deductible=100) == 300  # not asked for by the row


def test_on_the_remainder() -> None:
    second = row(remainder=True, rates=(500,) * 3)
    assert pays(second, 1_000, paid=600) == 200
    partly = row(remainder=True, weights=(500,) * 8)
    assert pays(partly, 1_000, paid=600) == 0
    assert benefit(partly, (1_000, *[0] * 7), 1_000, 600, LARGEST, 0).excess == 100_000
    assert pays(partly, 1_000, paid=400) == 100


def test_never_above_cap_or_what_is_left() -> None:
    assert pays(ROW, 1_000, cap=300) == 300
    assert pays(ROW, 1_000, paid=900) == 100
    assert pays(ROW, 1_000, total=250) == 250
    assert pays(ROW, 1_000, cap=0) == 0


def test_bands_that_cannot_be_filled_are_left_out() -> None:
    assert sizes(ROW).widths == () and sizes(ROW).rates == (1000,)
    one = sizes(row(band_1=0, band_2=100, rates=(1, 2, 3)))
    assert (one.widths, one.rates) == ((100_000,), (2, 3))
    assert sizes(row(band_1=100, band_2=100, rates=(1, 2, 3))).rates == (1, 3)
    assert sizes(row(band_1=0, band_2=0, rates=(1, 2, 3))).rates == (3,)
    assert sizes(row(band_1=100, rates=(1, 2, 3))).rates == (1, 2)
    full = 8 * LARGEST_CLASS  # what a claim can have in fen
    assert sizes(row(band_1=full, rates=(1, 2, 3))).widths == ()
    assert sizes(row(band_1=full - 1, rates=(1, 2, 3))).widths == ((full - 1) * 1000,)
    assert sizes(row(band_1=1, band_2=full, rates=(1, 2, 3))).widths == (1000,)


@pytest.mark.parametrize(
    "wrong",
    [
        {"classes": (0,) * 7},
        {"classes": (2**32, *[0] * 7)},
        {"classes": (-1, *[0] * 7)},
        {"total": 2**40},
        {"paid": 101},
        {"paid": -1},
        {"cap": 2**40},
        {"cap": -1},
        {"deductible": 2**40},
    ],
)
def test_out_of_range(wrong: dict[str, Any]) -> None:
    arguments = {"classes": (100, *[0] * 7), "total": 100, "paid": 0, "cap": 0, "deductible": 0} | wrong
    with pytest.raises(ValueError):
        benefit(ROW, **arguments)


rates = st.integers(0, 1000) | st.sampled_from([0, 1, 999, 1000])
money = st.integers(0, LARGEST) | st.integers(0, 100_000) | st.sampled_from([0, 1, LARGEST])


@st.composite
def rows(draw: st.DrawFn) -> Row:
    own = draw(st.booleans())
    first, second = sorted((draw(money), draw(money)))
    return row(
        weights=tuple(draw(st.lists(rates, min_size=8, max_size=8).filter(any))),
        rates=tuple(draw(st.lists(rates, min_size=3, max_size=3).filter(any))),
        band_1=first, band_2=second, remainder=draw(st.booleans()),
        deductible=None if own else draw(money), half_up=draw(st.booleans()),
    )  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(rows(), st.data())
def test_what_the_proof_relies_on(row: Row, data: st.DataObject) -> None:
    """Every equation, both inequalities of every minimum, and every size that the ranges are cut to."""
    amount = st.integers(0, LARGEST_CLASS) | st.integers(0, 10_000)
    classes = data.draw(st.lists(amount, min_size=8, max_size=8))
    total = data.draw(money)
    paid, cap, left = data.draw(st.integers(0, total)), data.draw(money), data.draw(money)
    size, one = sizes(row), benefit(row, classes, total, paid, cap, left)
    owed = left if row.deductible is None else row.deductible

    assert one.covered == sum(w * a for w, a in zip(row.weights, classes, strict=True)) <= size.covered < 2**45
    assert one.base == one.covered - (1000 * paid if row.remainder else 0) + one.excess
    assert 0 <= one.excess <= 1000 * paid and (one.excess == 0 or one.base == 0)
    assert 0 <= one.deducted <= min(owed, size.covered // 1000)
    assert one.base == 1000 * one.deducted + one.after_deductible
    assert one.deducted == owed or one.after_deductible < 1000
    assert len(one.bands) == len(size.rates) == len(size.widths) + 1 and one.bands[-1] <= size.covered
    for at, width in enumerate(size.widths):
        assert 0 <= one.bands[at] <= width and (one.bands[at] == width or not any(one.bands[at + 1 :]))
    earned = sum(r * x for r, x in zip(size.rates, one.bands, strict=True)) + size.half
    assert earned == MICRO * one.quotient + one.rest and 0 <= one.rest < MICRO and size.half in (0, HALF)
    assert 0 <= one.paid <= one.quotient <= size.benefit < 2**36
    assert one.paid in (one.quotient, cap, total - paid) and one.paid <= min(cap, total - paid)
    assert sum(size.widths) < size.covered


@settings(max_examples=100, deadline=None)
@given(rows(), st.integers(0, LARGEST_CLASS))
def test_leaving_bands_out_changes_nothing(row: Row, amount: int) -> None:
    """The bands as DESIGN writes them, all three of them, give the same Q."""
    one = benefit(row, (amount, *[0] * 7), LARGEST, 0, LARGEST, LARGEST)
    x = one.after_deductible
    first = min(x, 1000 * row.band_1)
    second = min(x - first, 1000 * (row.band_2 - row.band_1))
    parts = (first, second, x - first - second)
    earned = Fraction(sum(r * p for r, p in zip(row.rates, parts, strict=True)) + (HALF if row.half_up else 0), MICRO)
    assert one.quotient == earned.numerator // earned.denominator


def test_secret_values_are_not_shown() -> None:
    assert "123" not in repr(benefit(ROW, (123, *[0] * 7), 123, 0, LARGEST, 0))
