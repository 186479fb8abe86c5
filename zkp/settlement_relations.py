"""The amount of a claim as equations between commitments: what is sent, in which ranges, equal to what.

The rule of `zkp.benefit`, as `zkp.settlement` proves it. A commitment is ``v G + b H``; most are never sent,
but are *formal sums* of those that are, of what the ledger holds, and of G (`Formal`): prover and verifier
build the same ones from the public row. With paid = sum C_R of what stands paid under the bill:

    [E]     = C_covered,  on the remainder  C_covered - 1000 paid + C_excess
    [x]     = [E] - 1000 C_d
    [x_n]   = [x] - C_x1 - .. - C_x(n-1)
    [Q]     = (sum_i rho_i [x_i] + h G - C_q) / 10^6
    [left]  = C_total - paid - C_R

`rule` gives, for a row and a service day: the names of the commitments that are sent (`sent`), which of them
commit to attributes (`links`), the ranges, and the choices (at least one of these is zero). Why these say what
the rule says, and why none of them can wrap mod the group's order: docs/protocols/settlement.md. Whoever changes
a line here argues it there.

Public but for `Openings`. Spec: DESIGN section 6; docs/protocols/settlement.md. Not reviewed by outsiders.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Final

from wire.dates import NO_END
from wire.money import LARGEST
from zkp import pedersen
from zkp.benefit import MICRO, MILLI, Benefit, sizes
from zkp.groups import Point, R
from zkp.policy import Row
from zkp.range_proof import Bound
from zkp.sigma import Base, Sum

TOTAL: Final = "total"
"""C_total, from the ledger."""

Openings = Mapping[str, tuple[int, int]]
"""Value and blinding of each commitment by name. Secret."""


@dataclass(frozen=True)
class Formal:
    """sum_i coefficient_i * C_i + constant * G: a commitment nobody computes. `parts`: coefficients by name."""

    parts: Mapping[str, int] = field(default_factory=dict)
    constant: int = 0

    def __add__(self, other: Formal) -> Formal:
        names = dict.fromkeys((*self.parts, *other.parts))
        merged = {name: self.parts.get(name, 0) + other.parts.get(name, 0) for name in names}
        return Formal(merged, self.constant + other.constant)

    def __sub__(self, other: Formal) -> Formal:
        return self + other.times(-1)

    def times(self, factor: int) -> Formal:
        """factor * this."""
        return Formal({name: factor * part for name, part in self.parts.items()}, factor * self.constant)

    @cached_property
    def _reduced(self) -> tuple[list[tuple[int, str]], list[tuple[int, Base]]]:
        """Coefficients mod R that are not zero, and G's."""
        reduced = [(part % R, name) for name, part in self.parts.items() if part % R]
        return reduced, [(self.constant % R, pedersen.G)] if self.constant % R else []

    def sum(self, points: Mapping[str, Point]) -> Sum:
        """As the proofs take it."""
        named, fixed = self._reduced
        return [*[(part, points[name]) for part, name in named], *fixed]

    def opening(self, openings: Openings) -> tuple[int, int]:
        """Prover: value and blinding, mod R."""
        value = self.constant + sum(part * openings[name][0] for name, part in self.parts.items())
        return value % R, sum(part * openings[name][1] for name, part in self.parts.items()) % R


def commitment(name: str) -> Formal:
    """The commitment of that name."""
    return Formal({name: 1})


def constant(value: int) -> Formal:
    """The number `value`, in the open."""
    return Formal({}, value)


def standing(number: int) -> str:
    """Name of the number-th C_R that stands paid, from 0."""
    return f"standing.{number}"


@dataclass(frozen=True)
class Range:
    """The value of `of` lies within `bound`. name: for people who read proofs."""

    name: str
    of: Formal
    bound: Bound


@dataclass(frozen=True)
class Choice:
    """At least one of `zeros` commits to zero, and it stays hidden which."""

    name: str
    zeros: tuple[Formal, ...]


@dataclass(frozen=True)
class Link:
    """A commitment to a weighted sum of hidden attributes: (weight, credential's prefix, attribute) each."""

    name: str
    attributes: tuple[tuple[int, str, str], ...]


@dataclass(frozen=True)
class Rule:
    """What is sent and shown for one row. sent: names of commitments in order."""

    sent: tuple[str, ...]
    links: tuple[Link, ...]
    ranges: tuple[Range, ...]
    choices: tuple[Choice, ...]


def band(number: int) -> str:
    """Name of the commitment to the number-th band but the last, from 1."""
    return f"band.{number}"


def of_class(number: int) -> str:
    """Name of the encounter's attribute for the number-th class, from 1."""
    return f"class_{number}"


def _amount(row: Row, standing_count: int) -> Rule:
    """The rule of the page, top to bottom."""
    size = sizes(row)
    sent: list[str] = ["covered"]
    weighted = tuple((w, "encounter", of_class(c)) for c, w in enumerate(row.weights, 1) if w)
    links = [Link("covered", weighted), Link(TOTAL, ((1, "encounter", "total"),))]
    ranges: list[Range] = []
    choices: list[Choice] = []
    paid = Formal({standing(number): 1 for number in range(standing_count)})

    # E = E', or max(E' - 1000 P, 0):  u >= 0, E >= 0, and u = 0 or E = 0
    base = commitment("covered")
    if row.remainder:
        sent.append("excess")
        base = base - paid.times(MILLI) + commitment("excess")
        ranges.append(Range("excess", commitment("excess"), Bound(0, MILLI * LARGEST)))
        choices.append(Choice("remainder", (base, commitment("excess"))))

    # d = min(D, floor(E / 1000)):  0 <= d <= D, x >= 0, and d = D or x = e <= 999
    left = base
    if row.deductible != 0:
        most = size.covered // MILLI
        if row.deductible is None:
            sent.append("own")
            links.append(Link("own", ((1, "account", "deductible"),)))
            unused = commitment("own") - commitment("deducted")
            ranges.append(Range("deductible left", unused, Bound(0, LARGEST)))
        else:
            most = min(most, row.deductible)
            unused = constant(row.deductible) - commitment("deducted")
        sent += ["deducted", "below"]
        left = base - commitment("deducted").times(MILLI)
        ranges.append(Range("deducted", commitment("deducted"), Bound(0, most)))
        ranges.append(Range("below a fen", commitment("below"), Bound(0, MILLI - 1)))
        choices.append(Choice("deductible", (unused, left - commitment("below"))))

    # x_i <= b_i, x_n >= 0, and x_i = b_i or nothing is left behind it
    earned = constant(size.half)
    for number, (width, rate) in enumerate(zip(size.widths, size.rates, strict=False), 1):
        sent.append(band(number))
        inside = commitment(band(number))
        left = left - inside
        earned = earned + inside.times(rate)
        ranges.append(Range(band(number), inside, Bound(0, width)))
        choices.append(Choice(band(number), (left, constant(width) - inside)))
    ranges.append(Range("last band", left, Bound(0, size.covered)))
    earned = earned + left.times(size.rates[-1])

    # N = 10^6 Q + q;  R <= Q, R <= cap, R <= total - P, and equal to one of them
    sent += ["rest", "cap", "paid"]
    links.append(Link("cap", ((1, "account", "cap"),)))
    paid_now = commitment("paid")
    above = (earned - commitment("rest")).times(pow(MICRO, -1, R)) - paid_now
    cap_left, total_left = commitment("cap") - paid_now, commitment(TOTAL) - paid - paid_now
    ranges += [
        Range("rest", commitment("rest"), Bound(0, MICRO - 1)),
        Range("paid", paid_now, Bound(0, size.benefit)),
        Range("above paid", above, Bound(0, size.benefit)),
        Range("cap left", cap_left, Bound(0, LARGEST)),
        Range("total left", total_left, Bound(0, LARGEST)),
    ]
    choices.append(Choice("paid", (above, cap_left, total_left)))
    return Rule(tuple(sent), tuple(links), tuple(ranges), tuple(choices))


def _valid_on(day: int, first: str, last: str) -> list[Range]:
    """first <= day <= last."""
    return [
        Range(first, commitment(first), Bound(0, day)),
        Range(last, commitment(last), Bound(day, NO_END)),
    ]


def _person(row: Row, service_day: int) -> Rule:
    """Plan active, age, filing valid, visit number: attributes between public bounds."""
    links = [
        Link("valid_from", ((1, "person", "valid_from"),)),
        Link("valid_to", ((1, "person", "valid_to"),)),
    ]
    ranges = _valid_on(service_day, "valid_from", "valid_to")
    births = row.births(service_day)
    if births is not None:
        links.append(Link("birth", ((1, "person", "birth"),)))
        ranges.append(Range("birth", commitment("birth"), Bound(*births)))
    if row.diagnoses is not None and row.diagnoses.kind == "filed":
        links += [Link("filed_from", ((1, "filing", "from"),)), Link("filed_to", ((1, "filing", "to"),))]
        ranges += _valid_on(service_day, "filed_from", "filed_to")
    if row.any_visit_from is not None:
        v = row.visits_added
        links.append(Link("visits", ((1, "account", "visits"),)))
        ranges.append(Range("visits", commitment("visits"), Bound(max(row.any_visit_from - v, 0), NO_END - v)))
    return Rule(tuple(link.name for link in links), tuple(links), tuple(ranges), ())


@lru_cache(maxsize=512)  # a batch is of few rows and days
def rule(row: Row, service_day: int, standing_count: int) -> Rule:
    """All that is shown by commitments for `row` on `service_day`, with that many payments standing."""
    person, amount = _person(row, service_day), _amount(row, standing_count)
    return Rule(
        (*person.sent, *amount.sent),
        (*person.links, *amount.links),
        (*person.ranges, *amount.ranges),
        amount.choices,
    )


# ---------------------------------------------------------------------------------------------- prover


def amounts(row: Row, value: Benefit) -> dict[str, int]:
    """Prover: the values of the commitments that the rule adds, by name (those of attributes are their own)."""
    left = value.after_deductible
    found = {"covered": value.covered, "excess": value.excess, "deducted": value.deducted, "paid": value.paid}
    found |= {"rest": value.rest, "below": left if left < MILLI else 0}
    return found | {band(number): part for number, part in enumerate(value.bands[:-1], 1)}


def true_branches(choices: Iterable[Choice], openings: Openings) -> dict[bytes, int]:
    """Prover: for each choice, by label, the place of a commitment to zero. Secret. ValueError if there is none."""
    found: dict[bytes, int] = {}
    for choice in choices:
        zeros = [place for place, one in enumerate(choice.zeros) if one.opening(openings)[0] == 0]
        if not zeros:
            raise ValueError(f"none of the values of {choice.name!r} is zero")
        found[label(choice)] = zeros[0]
    return found


def label(choice: Choice) -> bytes:
    """The choice's label in the sigma proof."""
    return choice.name.encode()
