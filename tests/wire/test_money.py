"""Amounts: integers in minor units, parsed strictly."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.canonical import decode, encode
from wire.errors import DecodeError
from wire.money import LARGEST, MINOR_DIGITS, Amount, parse_amount

currencies = st.sampled_from(sorted(MINOR_DIGITS))


@given(st.integers(0, LARGEST), currencies)
def test_shown_text_parses_back(minor: int, currency: str) -> None:
    amount = Amount(minor, currency)
    number, shown = str(amount).split(" ")
    assert shown == currency
    assert parse_amount(number, currency) == amount
    assert decode(Amount, encode(amount)) == amount


@given(st.decimals(0, 10**6, places=2))
def test_parsing_is_exact(value: Decimal) -> None:
    assert parse_amount(f"{value:.2f}", "CNY").minor == int(value * 100)


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [("128.50", "CNY", 12850), ("128.5", "CNY", 12850), ("0", "CNY", 0), ("007", "CNY", 700), ("5", "JPY", 5)],
)
def test_good(text: str, currency: str, minor: int) -> None:
    assert parse_amount(text, currency) == Amount(minor, currency)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1 ",
        "1\n",
        "+1",
        "-1",
        "1.",
        ".5",
        "1e3",
        "1,000",
        "1_000",
        "0x10",
        "1.234",
        "1.5.0",
        "NaN",
        "inf",
        "１２",
        "٣",
        "10995116277.76",
        "9" * 14,
        "9" * 15,
        "9" * 5000,
    ],
)
def test_bad(text: str) -> None:
    with pytest.raises(DecodeError) as caught:
        parse_amount(text, "CNY")
    assert caught.value.facts == {"currency": "CNY"}  # the text itself may be someone's bill


def test_no_part_of_the_smallest_unit() -> None:
    with pytest.raises(DecodeError):
        parse_amount("5.5", "JPY")
    with pytest.raises(DecodeError):
        parse_amount("1", "XXX")


@pytest.mark.parametrize(
    "bad", [Amount(-1, "CNY"), Amount(LARGEST + 1, "CNY")] + [Amount(1, c) for c in ("cny", "CNYY", "", "CNY\n")]
)
def test_bounds_hold_on_decoding(bad: Amount) -> None:
    with pytest.raises(DecodeError):
        decode(Amount, encode(bad))


def test_the_largest_amount_leaves_room_for_proofs() -> None:
    assert LARGEST == 2**40 - 1
    assert parse_amount("10995116277.75", "CNY").minor == LARGEST
