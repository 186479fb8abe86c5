"""zkp.settlement_relations: every range and every choice of the rule is needed.

For each there is a false witness that breaks it and nothing else. With the rule as it is, its proof is refused.
With that one part taken out for prover and verifier, the same witness gives a proof that verifies, made by the
prover's own steps: so it was that part which refused it. docs/protocols/settlement.md, "What each part is for".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import msgspec
import pytest

from tests.zkp import claims, holders
from tests.zkp.claims import ROW, claim_of, derive_of, holdings_of, row
from tests.zkp.holders import DAY, rand_of
from wire.errors import VerificationError
from zkp import attributes, membership, pedersen, range_proof, settlement, settlement_relations
from zkp.benefit import MICRO, MILLI, sizes
from zkp.claim import Claim
from zkp.credentials import ACCOUNT, CLASSES, ENCOUNTER
from zkp.groups import R, backend
from zkp.policy import Diagnoses, Row
from zkp.range_proof import Bound
from zkp.settlement import Holdings, Settlement
from zkp.settlement_relations import Choice, Openings, Rule, band, rule

GROUP = backend()
OWED = {"deductible": 500_000}
"""More than the bill is worth."""

COVERED = 412_050_000
"""E' of the bill of these tests under `ROW`: 4,120.50 yuan, with 80,000 fen of deductible left in the account."""

FILED = row(diagnoses=Diagnoses("filed", "chronic"))
LAST = row(visit=3, last_visit=3)
REMAINDER = row(remainder=True)
SIXTY = row(youngest=60, oldest=60)
BORN = SIXTY.births(DAY) or (0, 0)
FIRST_BEST = row(rates=(900, 800, 700))
MIDDLE_BEST = row(rates=(700, 900, 800))
WIDE = row(rates=(700, 900, 100), band_1=300_000, band_2=400_000)


@dataclass(frozen=True)
class Lie:
    """A witness that breaks one part: "range" or "choice", and its name.

    why: what the claimant would have of it; changes: attributes as signed; filing: the same of her filing; standing:
    amounts that stand paid; said: values of the rule in place of the true ones, what follows from them being right.
    """

    kind: str
    name: str
    why: str
    row: Row = ROW
    changes: Mapping[str, Any] = field(default_factory=dict)
    filing: Mapping[str, Any] = field(default_factory=dict)
    standing: Sequence[int] = ()
    said: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.why}"


def _ranges(name: str, why: str, row: Row = ROW, **rest: Any) -> Lie:
    return Lie("range", name, why, row, **rest)


def _choices(name: str, why: str, row: Row = ROW, **rest: Any) -> Lie:
    return Lie("choice", name, why, row, **rest)


LIES = [
    # who she is, and when
    _ranges("valid_from", "a plan of tomorrow", changes={"valid_from": DAY + 1}),
    _ranges("valid_to", "a plan of yesterday", changes={"valid_to": DAY - 1}),
    _ranges("birth", "a day too young", SIXTY, changes={"birth": BORN[1] + 1}),
    _ranges("birth", "a day too old", SIXTY, changes={"birth": BORN[0] - 1}),
    _ranges("filed_from", "a filing of tomorrow", FILED, filing={"first": DAY + 1}),
    _ranges("filed_to", "a filing of yesterday", FILED, filing={"last": DAY - 1}),
    _ranges("visits", "the second visit by the row of the third", LAST, changes={"visits": 1}),
    # E
    _ranges("excess", "the base wiped", REMAINDER, said={"excess": -COVERED}),
    _ranges("excess", "a fen of it", REMAINDER, standing=[412_049], said={"excess": -1000}),
    _choices("remainder", "paid again", REMAINDER, standing=[200_000], said={"excess": 200_000_000}),
    # d
    _ranges("deductible left", "an account below zero", said={"deducted": 412_050}),
    _ranges("deductible left", "by a fen", changes={"deductible": 412_049}, said={"deducted": 412_050}),
    _ranges("deducted", "a fen more", row(deductible=412_049), said={"deducted": 412_050}),
    _ranges("deducted", "more than the row takes", row(deductible=30_000), said={"deducted": 412_050}),
    _ranges("deducted", "a deductible that grows", REMAINDER, standing=[412_150], said={"excess": 0, "deducted": -100}),
    _ranges("below a fen", "no deductible", said={"deducted": 0, "below": COVERED}),
    _ranges("below a fen", "the row's neither", row(deductible=30_000), said={"deducted": 0, "below": COVERED}),
    _ranges("below a fen", "a fen less", changes=OWED, said={"deducted": 412_049, "below": 1000}),
    _choices("deductible", "a fen less", changes=OWED, said={"deducted": 412_049}),
    _choices("deductible", "no deductible", said={"deducted": 0}),
    _choices("deductible", "the row's neither", row(deductible=30_000), said={"deducted": 0}),
    # x
    _ranges("band.1", "all in the first, best band", FIRST_BEST, said={"band.1": 332_050_000}),
    _ranges(
        "band.1",
        "a fen of the second",
        row(rates=(900, 800, 700), band_1=332_049, band_2=400_000),
        said={"band.1": 332_050_000},
    ),
    _ranges("band.2", "the rest in the second, best band", MIDDLE_BEST, said={"band.2": 232_050_000}),
    _ranges("last band", "a full second band, taken off the worst", WIDE, said={"band.2": 100_000_000}),
    _ranges("last band", "a fen so", row(band_1=300_000, band_2=332_051), said={"band.2": 32_051_000}),
    _choices("band.1", "the first, worst band skipped", said={"band.1": 0}),
    _choices("band.2", "the second, worse band skipped", said={"band.2": 0}),
    # Q
    _ranges("rest", "a fen more", said={"quotient": 263_846}),
    _ranges("rest", "whatever she likes", said={"quotient": 400_000}),
    _ranges("rest", "a fen less", said={"quotient": 263_844}),
    # R
    _ranges("paid", "a bill of less than nothing fills the cap", changes={"total": -5_000_000}),
    _ranges("paid", "a fen of it", changes={"total": -1}),
    _ranges("above paid", "a fen more", changes={"cap": 263_846}, said={"paid": 263_846}),
    _ranges("above paid", "the whole bill", said={"paid": 420_055}),
    _ranges("above paid", "the whole cap", changes={"cap": 300_000}, said={"paid": 300_000}),
    _ranges("cap left", "more than the cap", changes={"cap": 100_000}, said={"paid": 263_845}),
    _ranges("cap left", "by a fen", changes={"cap": 263_844}, said={"paid": 263_845}),
    _ranges("total left", "by a fen", standing=[156_211], said={"paid": 263_845}),
    _ranges("total left", "more than the bill has left", standing=[300_000], said={"paid": 263_845}),
    _choices("paid", "the cap spared", said={"paid": 0}),
]


def carried_on(lie: Lie, held: Holdings) -> dict[str, int]:
    """The values of the commitments: what the lie says, and by the rule whatever it does not speak of."""
    said, size = dict(lie.said), sizes(lie.row)
    bill, own = held.encounter.named(ENCOUNTER), held.account.named(ACCOUNT)
    numbers = {name: int(value) for name, value in (bill | own).items() if isinstance(value, int)}
    before = sum(lie.standing)
    covered = sum(w * numbers[name] for w, name in zip(lie.row.weights, CLASSES, strict=True))
    net = covered - MILLI * before
    excess = said.get("excess", max(-net, 0))
    base = net + excess if lie.row.remainder else covered
    most = numbers["deductible"] if lie.row.deductible is None else lie.row.deductible
    deducted = said.get("deducted", min(most, base // MILLI))
    left = base - MILLI * deducted
    values = {"covered": covered, "excess": excess, "deducted": deducted}
    values["below"] = said.get("below", left if left < MILLI else 0)
    earned = size.half
    for number, (width, rate) in enumerate(zip(size.widths, size.rates, strict=False), 1):
        values[band(number)] = said.get(band(number), min(left, width))
        left -= values[band(number)]
        earned += rate * values[band(number)]
    earned += size.rates[-1] * left
    quotient = said.get("quotient", earned // MICRO)
    values["rest"] = earned - MICRO * quotient
    values["paid"] = said.get("paid", min(quotient, numbers["cap"], numbers["total"] - before))
    return values


def broken(parts: Rule, openings: Openings) -> list[tuple[str, str]]:
    """Which ranges and choices do not hold for these openings."""
    found = [
        ("range", one.name)
        for one in parts.ranges
        if not one.bound.low <= one.of.opening(openings)[0] <= one.bound.high
    ]
    return found + [
        ("choice", one.name) for one in parts.choices if all(zero.opening(openings)[0] for zero in one.zeros)
    ]


class Prover:
    """The prover of `zkp.settlement` without its look at the statement: it commits to what it is told.

    `numbers`: attributes and next account may hold any integer, as a false issuer might sign it.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.patch = patch
        self.openings: Openings = {}
        patch.setitem(attributes._ENCODE, "number", lambda _, value: value % R)
        commit = pedersen.commit
        patch.setattr(pedersen, "commit", lambda value, *rest: commit(value % R, *rest))
        patch.setattr(settlement, "amounts", lambda _, values: values)
        patch.setattr(settlement, "_note", lambda *_: bytes(settlement.NOTE_BYTES))
        patch.setattr(settlement, "true_branches", self._branches)

    def __call__(self, lie: Lie) -> tuple[Settlement, Claim]:
        holder = holders.holder("anna", **lie.changes)
        before = [(value, 2**199 + number) for number, value in enumerate(lie.standing)]
        points = [GROUP.encode(pedersen.commit(*one)) for one in before]
        claim = claim_of(holder, lie.row, points)
        held = holdings_of(holder, claim_of(holder), before)
        if lie.row.diagnoses is not None:
            filing = claims.filing(holder, **lie.filing)
            members = claims.published("filed", "chronic", (filing,), 9)
            claim = msgspec.structs.replace(claim, diagnoses=members.key)
            held = dataclasses.replace(held, diagnosis=membership.find(members, filing))
        values: Any = carried_on(lie, held)
        return settlement._prove(claim, held, values, derive_of("lie", claim), rand_of("lie"), GROUP)[0], claim

    _honest = staticmethod(settlement_relations.true_branches)

    def _branches(self, choices: Iterable[Choice], openings: Openings) -> dict[bytes, int]:
        self.openings = openings
        return self._honest(choices, openings)

    def force(self) -> None:
        """Go on where the steps refuse: a choice without a true branch by its first, a range of the nearest value."""
        self.patch.setattr(settlement, "true_branches", self._any_branches)
        self.patch.setattr(range_proof, "prove", self._any_ranges)

    def _any_branches(self, choices: Iterable[Choice], openings: Openings) -> dict[bytes, int]:
        false = {label for kind, label in broken(Rule((), (), (), tuple(choices)), openings)}
        return {one.name.encode(): 0 for one in choices if one.name in false} | self._branches(
            [one for one in choices if one.name not in false], openings
        )

    @staticmethod
    def _any_ranges(
        transcript: Any, sums: Any, values: Sequence[int], blindings: Any, bounds: Sequence[Bound], *rest: Any
    ) -> bytes:
        near = [min(max(value, one.low), one.high) for value, one in zip(values, bounds, strict=True)]
        bits = list(chain.from_iterable(one.bits_of(value) for value, one in zip(near, bounds, strict=True)))
        return range_proof._prove(transcript, sums, values, blindings, bounds, bits, *rest)


@pytest.fixture
def prover(monkeypatch: pytest.MonkeyPatch) -> Prover:
    return Prover(monkeypatch)


def without(kind: str, name: str) -> Any:
    """`rule` less one part."""

    def less(*of: Any) -> Rule:
        parts = rule(*of)
        ranges = tuple(one for one in parts.ranges if (kind, one.name) != ("range", name))
        choices = tuple(one for one in parts.choices if (kind, one.name) != ("choice", name))
        assert len(ranges) + len(choices) == len(parts.ranges) + len(parts.choices) - 1
        return dataclasses.replace(parts, ranges=ranges, choices=choices)

    return less


@pytest.mark.parametrize("lie", LIES, ids=str)
def test_it_is_this_part_that_refuses(prover: Prover, lie: Lie) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settlement, "rule", without(lie.kind, lie.name))
        message, claim = prover(lie)
        settlement.verify(message, claim)
    assert broken(rule(lie.row, DAY, len(lie.standing)), prover.openings) == [(lie.kind, lie.name)]
    with pytest.raises(VerificationError):
        settlement.verify(message, claim)
    prover.force()
    message, claim = prover(lie)
    with pytest.raises(VerificationError) as caught:
        settlement.verify(message, claim)
    assert caught.value.code == "zkp.bad_proof"


@pytest.mark.parametrize(
    ("one", "standing"),
    [
        (ROW, ()),
        (REMAINDER, (200_000,)),
        (REMAINDER, (412_150,)),
        (row(deductible=30_000), ()),
        (FILED, ()),
        (WIDE, ()),
    ],
    ids=["plain", "remainder", "nothing left", "of the row", "filed", "two bands"],
)
def test_the_harness_itself_makes_true_proofs(prover: Prover, one: Row, standing: Sequence[int]) -> None:
    prover.force()
    message, claim = prover(Lie("", "", "", one, standing=standing))
    settlement.verify(message, claim)
    assert broken(rule(one, DAY, len(standing)), prover.openings) == []


def test_no_part_is_left_out() -> None:
    """A part that is new in the rule needs a lie here."""
    whole = row(
        remainder=True, youngest=18, diagnoses=Diagnoses("filed", "chronic"), visit=3, last_visit=3, deductible=None
    )
    parts = rule(whole, DAY, 2)
    names = {("range", one.name) for one in parts.ranges} | {("choice", one.name) for one in parts.choices}
    assert names == {(lie.kind, lie.name) for lie in LIES}
