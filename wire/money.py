"""Money as integer minor units with a currency. No floats anywhere near it."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Annotated

import msgspec

from wire.canonical import Wire
from wire.errors import DecodeError

MINOR_DIGITS = {"CNY": 2, "USD": 2, "EUR": 2, "JPY": 0}

LARGEST = 2**40 - 1
"""Largest amount in minor units (about 11 billion yuan), so that proofs over it cannot wrap."""


class Amount(Wire, frozen=True, tag="wire.amount"):
    """minor: 0..2^40-1 in the currency's minor unit (fen for CNY)."""

    minor: Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
    currency: Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z")]

    def __str__(self) -> str:
        digits = MINOR_DIGITS.get(self.currency, 2)
        whole, part = divmod(self.minor, 10**digits)
        return f"{whole}.{part:0{digits}d} {self.currency}" if digits else f"{whole} {self.currency}"


def parse_amount(text: str, currency: str) -> Amount:
    """An amount from decimal text such as "128.50". Raises DecodeError for anything else."""
    digits = MINOR_DIGITS.get(currency)
    if digits is None:
        raise DecodeError("wire.bad_amount", currency=currency)
    if not re.fullmatch(rf"\d{{1,14}}(\.\d{{1,{max(digits, 1)}}})?", text, flags=re.ASCII):
        raise DecodeError("wire.bad_amount", currency=currency)
    try:
        minor = Decimal(text).scaleb(digits)
    except InvalidOperation:
        raise DecodeError("wire.bad_amount", currency=currency) from None
    if minor != int(minor) or not 0 <= minor <= LARGEST:
        raise DecodeError("wire.bad_amount", currency=currency)
    return Amount(int(minor), currency)
