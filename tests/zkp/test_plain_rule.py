"""The amount rule twice: as the prover reckons and as somebody else wrote it down, to the fen."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.zkp import plain_rule
from tests.zkp.claims import ROW, claim_of, derive_of, holdings_of, row
from tests.zkp.holders import Holder, account, encounter, person, rand_of
from wire.money import LARGEST
from zkp import pedersen, settlement
from zkp.benefit import LARGEST_CLASS, benefit
from zkp.credentials import CLASSES
from zkp.groups import backend
from zkp.policy import Row

CLAIMS = 10_000


def amount(chance: random.Random, largest: int) -> int:
    """Of any size, with a liking for small ones, round ones and the ends."""
    kind = chance.random()
    if kind < 0.1:
        return chance.choice([0, min(1, largest), largest, max(largest - 1, 0)])
    if kind < 0.3:
        return chance.randrange(0, largest + 1)
    value = chance.randrange(0, 10 ** chance.randrange(1, 10))
    return min(largest, value - value % 1000 if kind < 0.5 else value)


def random_row(chance: random.Random, **changes: Any) -> Row:
    bands = sorted((amount(chance, LARGEST), amount(chance, LARGEST)))
    rates = [chance.choice([0, 1, 500, 999, 1000, chance.randrange(1001)]) for _ in range(11)]
    return row(
        weights=(*rates[:7], rates[7] or 1000),
        rates=(rates[8], rates[9], rates[10] or 1),
        band_1=bands[0],
        band_2=bands[1],
        deductible=chance.choice([None, 0, amount(chance, LARGEST)]),
        remainder=chance.random() < 0.5,
        half_up=chance.random() < 0.5,
        **changes,
    )


def plain(row: Row, classes: list[int], total: int, paid: int, cap: int, left: int) -> plain_rule.Answer:
    return plain_rule.answer(
        classes=classes,
        weights=row.weights,
        total=total,
        paid_before=paid,
        base_is_remainder=row.remainder,
        deductible=left if row.deductible is None else row.deductible,
        bands=(row.band_1, row.band_2),
        rates=row.rates,
        round_half_up=row.half_up,
        cap_left=cap,
    )


def test_ten_thousand_random_claims() -> None:
    chance = random.Random(20261122)
    zero = capped = whole = 0
    for _ in range(CLAIMS):
        one = random_row(chance)
        classes = [amount(chance, LARGEST_CLASS) for _ in range(8)]
        total = chance.choice([min(sum(classes), LARGEST), amount(chance, LARGEST)])
        paid = chance.choice([0, amount(chance, total), total])
        cap, left = amount(chance, LARGEST), amount(chance, LARGEST)
        found = benefit(one, classes, total, paid, cap, left)
        assert (found.deducted, found.paid) == plain(one, classes, total, paid, cap, left), (one, classes, total, paid)
        zero += found.paid == 0
        capped += found.paid == cap
        whole += found.paid == total - paid > 0
    assert all(count > CLAIMS // 50 for count in (zero, capped, whole, CLAIMS - zero - capped - whole))


def prove_random(seed: int) -> None:
    """A random claim on random paid layers, proved and verified: it pays what the plain rule says."""
    chance = random.Random(seed)
    one = random_row(chance, visit=3, last_visit=3)
    classes = [amount(chance, LARGEST_CLASS) for _ in range(8)]
    total = min(sum(classes) + amount(chance, 10_000), LARGEST)
    cap, left, visits = amount(chance, LARGEST), amount(chance, LARGEST), chance.choice([2, 3, 65_534])
    paid = [(part, chance.randrange(2**250)) for part in (amount(chance, total // 2), amount(chance, total // 2))]
    paid = paid[: chance.randrange(3)]
    held = person(f"r{seed}")
    own = account(held, f"r{seed}", cap=cap, deductible=left, visits=visits)
    bill = encounter(held, f"r{seed}", total=total, **dict(zip(CLASSES, classes, strict=True)))
    holder = Holder(f"r{seed}", held, own, bill)
    group = backend()
    claim = claim_of(holder, one, [group.encode(pedersen.commit(*each)) for each in paid])
    message, outcome = settlement.prove(claim, holdings_of(holder, claim, paid), derive_of("r", claim), rand_of("r"))
    settlement.verify(message, claim)
    before = sum(value for value, _ in paid)
    answer = plain(one, classes, total, before, cap, left)
    assert outcome.paid[0] == answer.paid
    assert outcome.deducted[0] == (answer.deducted if one.deductible is None else 0)
    assert outcome.following.values["cap"] == cap - answer.paid


@pytest.mark.parametrize("seed", range(8))
def test_a_random_claim_is_proved(seed: int) -> None:
    prove_random(seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 500))
def test_hundreds_of_random_claims_are_proved(seed: int) -> None:
    prove_random(seed)


def test_the_row_of_the_other_tests_is_one_of_them() -> None:
    classes = [250_000, 130_050, 0, 40_000, 5, 0, 0, 0]
    assert plain(ROW, classes, sum(classes), 0, 20_000_000, 80_000) == (80_000, 263_845)
