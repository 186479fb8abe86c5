"""What a payer pays for one claim: the amount rule of a policy row, in plain integers.

    E' = sum_c w_c A_c                                    w_c per mille, A_c in fen: E' in milli-fen
    E  = E', or max(E' - 1000 P, 0) on the remainder      P: what stands paid under the bill, in fen
    d  = min(D, floor(E / 1000))                          D: the row's, or what the account has left of it
    x  = E - 1000 d = x_1 + .. + x_n                      x_i fills band i, of width b_i, before any goes on
    Q  = floor((sum_i rho_i x_i + h) / 10^6)              rho_i per mille; h = 500,000 if the row rounds half up
    R  = min(Q, cap left, total - P)

This is the prover's side: besides R it keeps the values in between that the proof commits to. The proof's
relations stand in `zkp.settlement_relations`; why none of them can wrap mod the group's order is argued in
docs/protocols/settlement.md, from the sizes that `Sizes` takes from the row.

Bands: up to three, ``1000 T1``, ``1000 (T2 - T1)`` and the rest. One of width zero is left out, and so is
whatever comes behind a band that the largest claim cannot fill: both are seen from the public row.

Amounts and accounts are secret; the row is public. Spec: DESIGN section 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wire.money import LARGEST
from zkp.policy import CLASSES, Row

LARGEST_CLASS = 2**32 - 1
"""Largest amount of one class of charges, in minor units."""

MILLI = 1000
"""Milli-fen in a fen."""

MICRO = 10**6
"""rate times amount is in millionths of a fen."""

HALF = MICRO // 2


@dataclass(frozen=True)
class Sizes:
    """What a row says about the largest values of a claim. Public.

    covered: of E', E and x, in milli-fen; widths: of the bands that can be filled, the last one being open;
    rates: of all bands, one more than widths; benefit: of Q and R, in fen, at least 1; half: h.
    """

    covered: int
    widths: tuple[int, ...]
    rates: tuple[int, ...]
    benefit: int
    half: int


def sizes(row: Row) -> Sizes:
    """The sizes of a claim under `row`."""
    covered = sum(row.weights) * LARGEST_CLASS
    widths: list[int] = []
    rates: list[int] = []
    reached = 0
    for width, rate in zip((row.band_1 * MILLI, (row.band_2 - row.band_1) * MILLI), row.rates, strict=False):
        if reached + width >= covered:  # the largest claim ends in it: it is open
            rates.append(rate)
            break
        reached += width
        if width:
            widths.append(width)
            rates.append(rate)
    else:
        rates.append(row.rates[2])
    half = HALF if row.half_up else 0
    return Sizes(covered, tuple(widths), tuple(rates), max((max(rates) * covered + half) // MICRO, 1), half)


@dataclass(frozen=True, repr=False)
class Benefit:
    """The rule's values for one claim. Secret; milli-fen where nothing else is said.

    covered: E'; excess: u = max(1000 P - E', 0) on the remainder, else 0; base: E; deducted: d in fen;
    bands: x_1, .. as in `Sizes`; quotient: Q in fen; rest: N - 10^6 Q; paid: R in fen.
    """

    covered: int
    excess: int
    base: int
    deducted: int
    bands: tuple[int, ...]
    quotient: int
    rest: int
    paid: int

    def __repr__(self) -> str:
        return "Benefit(...)"

    @property
    def after_deductible(self) -> int:
        """x in milli-fen."""
        return sum(self.bands)


def benefit(row: Row, classes: Sequence[int], total: int, paid: int, cap: int, deductible: int) -> Benefit:
    """What `row` pays for a bill. All amounts secret, in fen.

    classes: the bill's 8 totals by class, each 0..2^32-1; total: of the bill; paid: P, what stands paid under
    it, at most the total; cap: what the account may still receive; deductible: what it has left of its own,
    used if the row says so. ValueError outside these ranges.
    """
    if len(classes) != CLASSES or not all(0 <= amount <= LARGEST_CLASS for amount in classes):
        raise ValueError("a bill has 8 classes of 0..2^32-1 minor units")
    if not (0 <= paid <= total <= LARGEST and 0 <= cap <= LARGEST and 0 <= deductible <= LARGEST):
        raise ValueError("total, cap and deductible are 0..2^40-1 minor units, and no more is paid than the total")
    size = sizes(row)
    covered = sum(weight * amount for weight, amount in zip(row.weights, classes, strict=True))
    excess = max(MILLI * paid - covered, 0) if row.remainder else 0
    base = covered - MILLI * paid + excess if row.remainder else covered
    deducted = min(deductible if row.deductible is None else row.deductible, base // MILLI)
    left = base - MILLI * deducted
    bands: list[int] = []
    for width in size.widths:
        bands.append(min(left, width))
        left -= bands[-1]
    bands.append(left)
    earned = sum(rate * part for rate, part in zip(size.rates, bands, strict=True)) + size.half
    quotient, rest = divmod(earned, MICRO)
    return Benefit(covered, excess, base, deducted, tuple(bands), quotient, rest, min(quotient, cap, total - paid))
