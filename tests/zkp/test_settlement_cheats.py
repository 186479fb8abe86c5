"""zkp.settlement: provers that cheat. Each builds its false witness, goes through every step, and is refused.

The prover's own refusals are taken out: false values are committed to, false credentials shown as what the claim
says, ranges proved of the nearest value in range, a choice that has no true branch proved by its first one. The
control proves that the harness as such makes proofs that verify.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec
import pytest

from tests.zkp import claims, holders
from tests.zkp.claims import ROW, claim_of, derive_of, holdings_of, row, settled
from tests.zkp.holders import DAY, OTHER_HOSPITAL, Holder, rand_of
from wire.errors import Refused, VerificationError
from zkp import account, membership, payments, pedersen, range_proof, settlement
from zkp import claim as claims_of
from zkp.account import Next
from zkp.attributes import SECRET, Credential
from zkp.benefit import Benefit
from zkp.claim import Claim
from zkp.credentials import ACCOUNT, ENCOUNTER
from zkp.groups import R, backend, encode_scalar
from zkp.policy import Diagnoses, Row
from zkp.range_proof import Bound
from zkp.settlement import Holdings, Outcome, Settlement
from zkp.settlement_proof import statement_of
from zkp.settlement_relations import Choice, Link, Openings, Rule, rule

GROUP = backend()
Numbers = dict[str, int]


class Cheat:
    """A prover without scruples. `amounts`: the rule's values that it lies about; `next_account`: numbers of the
    next account that it writes in place of the right ones; `witness`: what it says of hidden attributes."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.next_account: Numbers = {}
        self.witness: Numbers = {}
        self.links: dict[str, Link] = {}
        patch.setattr(settlement, "show", self._show)
        patch.setattr(settlement, "rule", self._rule)
        patch.setattr(settlement, "statement_of", self._statement)
        patch.setattr(settlement, "true_branches", self._branches)
        patch.setattr(settlement.account, "successor", self._successor)
        patch.setattr(settlement.range_proof, "prove", self._ranges)
        patch.setattr(settlement, "_note", lambda *_: bytes(settlement.NOTE_BYTES))

    def __call__(self, claim: Claim, held: Holdings, **lies: Any) -> tuple[Settlement, Outcome]:
        amount: Benefit = dataclasses.replace(settlement._benefit(claim, held), **lies)
        try:
            return settlement._prove(claim, held, amount, derive_of("cheat", claim), rand_of("cheat"), GROUP)
        finally:
            self.links = {}

    def _rule(self, *of: Any) -> Rule:
        """What is committed to in place of the attributes; the statement stays the verifier's."""
        true = rule(*of)
        return dataclasses.replace(true, links=tuple(self.links.get(link.name, link) for link in true.links))

    @staticmethod
    def _statement(claim: Claim, *rest: Any) -> Any:
        true = rule(claim.row, claim.service_day, len(claim.standing))
        return statement_of(claim, rest[0], true)

    _honest_show = staticmethod(settlement.show)

    def _show(self, claim: Claim, held: Mapping[str, Credential], *rest: Any) -> Any:
        of_claim = {
            prefix: msgspec.structs.replace(one, issuer=claim.issuers[prefix].issuer) for prefix, one in held.items()
        }
        shown, standings, witness = self._honest_show(claim, of_claim, *rest)
        for prefix, disclosed in claim.disclosed.items():  # shown as what the claim says, whatever it is
            said = claims_of.integers(claim.issuers[prefix].schema, disclosed)
            shown[prefix] = dataclasses.replace(shown[prefix], disclosed=said)
        return shown, standings, witness | self.witness

    @staticmethod
    def _branches(choices: Iterable[Choice], openings: Openings) -> dict[bytes, int]:
        return {
            choice.name.encode(): next(
                (place for place, one in enumerate(choice.zeros) if one.opening(openings)[0] == 0), 0
            )
            for choice in choices
        }

    def _successor(self, current: Credential, **values: Any) -> Next:
        values |= self.next_account
        names = {"serial_share": "serial", "blind": "blind"}
        numbers = dict(zip(ACCOUNT.names, current.scalars(ACCOUNT), strict=True))
        numbers |= {names.get(name, name): value % R for name, value in values.items() if name != "group"}
        numbers[SECRET] = self.witness.get("next.secret", numbers[SECRET])
        commitment = account.blind_issuance.commit(ACCOUNT, numbers, GROUP)
        return Next(current.named(ACCOUNT), GROUP.encode(commitment))

    @staticmethod
    def _ranges(
        transcript: Any, sums: Any, values: Sequence[int], blindings: Any, bounds: Sequence[Bound], *rest: Any
    ) -> bytes:
        near = [min(max(value, one.low), one.high) for value, one in zip(values, bounds, strict=True)]
        bits = list(chain.from_iterable(one.bits_of(value) for value, one in zip(near, bounds, strict=True)))
        return range_proof._prove(transcript, sums, values, blindings, bounds, bits, *rest)


@pytest.fixture(scope="module")
def paid_before() -> tuple[Settlement, Outcome]:
    """A true settlement by an honest prover."""
    return settled()


@pytest.fixture
def cheat(paid_before: tuple[Settlement, Outcome], monkeypatch: pytest.MonkeyPatch) -> Cheat:
    return Cheat(monkeypatch)


def refused(message: Settlement, claim: Claim | None = None) -> None:
    with pytest.raises(VerificationError) as caught:
        settlement.verify(message, message.claim if claim is None else claim)
    assert caught.value.code == "zkp.bad_proof"


def truth(row: Row = ROW, name: str = "anna", **changes: Any) -> tuple[Claim, Holdings, Holder]:
    holder = holders.holder(name, **changes)
    claim = claim_of(holder, row)
    return claim, holdings_of(holder, claim), holder


@pytest.mark.parametrize("one", [ROW, row(deductible=30_000), row(remainder=True), row(visit=1, last_visit=1)])
def test_the_harness_itself_makes_true_proofs(cheat: Cheat, one: Row) -> None:
    claim, held, _ = truth(one)
    settlement.verify(cheat(claim, held)[0], claim)


# ------------------------------------------------------------------------------------------- the amount

CAPPED = {"cap": 300_000}


@pytest.mark.parametrize(
    ("one", "lies"),
    [
        (ROW, {"paid": 300_000}),  # R = cap, and Q is smaller
        (ROW, {"paid": 420_055}),  # R = total, and Q is smaller
        (ROW, {"paid": 263_846}),  # one fen above Q
        (ROW, {"paid": R - 5}),  # a negative payment fills the cap
        (ROW, {"quotient": 263_846, "paid": 263_846}),
        (ROW, {"quotient": 263_846, "rest": -1, "paid": 263_846}),
        (ROW, {"rest": 10**6 + 5}),
        (ROW, {"deducted": 0}),  # a wiped deductible
        (ROW, {"deducted": 79_999}),  # less than owed, more than a fen left
        (ROW, {"deducted": R - 10_000}),  # a deductible that pays
        (ROW, {"deducted": 90_000}),  # more than owed
        (row(deductible=30_000), {"deducted": 0}),
        (row(deductible=30_000), {"deducted": 29_999}),
        (row(deductible=30_000), {"deducted": R - 30_000}),
        (ROW, {"bands": (0, 0, 327_052_500)}),  # all in the best band
        (ROW, {"bands": (100_000_000, 0, 227_052_500)}),  # the middle band skipped
        (ROW, {"bands": (-100_000_000, 150_000_000, 277_052_500)}),
        (ROW, {"bands": (200_000_000, 150_000_000, -22_947_500)}),
        (row(remainder=True), {"excess": 100_000}),  # something paid below that was not
        (row(remainder=True), {"excess": R - 1000}),
    ],
)
def test_another_amount(cheat: Cheat, one: Row, lies: dict[str, Any]) -> None:
    """Every value of the rule, replaced alone and with what follows from it."""
    claim, held, _ = truth(one, **CAPPED)
    refused(cheat(claim, held, **lies)[0])
    follow = consequences(one, settlement._benefit(claim, held), lies)
    if follow != lies:
        refused(cheat(claim, held, **follow)[0])


def consequences(row: Row, true: Benefit, lies: dict[str, Any]) -> dict[str, Any]:
    """The lie carried on through the rule: everything after it is consistent with it, mod R."""
    lie = dataclasses.replace(true, **lies)
    if "paid" in lies or "quotient" in lies or "rest" in lies:
        return lies
    bands = lie.bands
    if "bands" not in lies:
        moved = (lie.covered + lie.excess - 1000 * lie.deducted) - (true.covered + true.excess - 1000 * true.deducted)
        bands = (*lie.bands[:-1], lie.bands[-1] + moved)
    size = settlement.benefit.__globals__["sizes"](row)
    earned = sum(rate * part for rate, part in zip(size.rates, bands, strict=True)) + size.half
    quotient, rest = divmod(earned % R if earned < 0 else earned, 10**6)
    return lies | {"bands": bands, "quotient": quotient, "rest": rest, "paid": min(quotient, 300_000)}


@pytest.mark.parametrize(
    ("one", "changes", "lies"),
    [
        (ROW, {"cap": 100_000}, {"paid": 263_845}),  # R = Q, and the account has less left
        (ROW, {"cap": 100_000}, {"paid": 100_001}),
        (ROW, {"cap": 100_000}, {"paid": 99_999}),  # less than each of the three: allowed by the ranges alone
        (ROW, {"cap": 0}, {"paid": 1}),
        (ROW, CAPPED, {"paid": 263_844}),
        (ROW, CAPPED, {"paid": 0}),
        *(
            (one, {"deductible": 500_000, **CAPPED}, {"deducted": deducted})  # E is less than D: 412,050 fen
            for one in (ROW, row(deductible=500_000))
            for deducted in (0, 412_049, 412_051, 500_000)
        ),
    ],
)
def test_another_minimum_than_the_least(cheat: Cheat, one: Row, changes: dict[str, Any], lies: dict[str, Any]) -> None:
    """The same where the account's cap, or what the bill is worth, is what ends the amount."""
    claim, held, _ = truth(one, **changes)
    settlement.verify(cheat(claim, held)[0], claim)
    refused(cheat(claim, held, **lies)[0])
    follow = consequences(one, settlement._benefit(claim, held), lies)
    if follow != lies:
        refused(cheat(claim, held, **follow)[0])


def test_more_than_the_bill_has_left(cheat: Cheat) -> None:
    """Two layers above the total: the second says that the first paid less than it did."""
    message, first = settled()
    claim, held, _ = truth(row(payer="insurer-a", layer=10, statutory=False, deductible=0), payer="insurer-a", layer=10)
    claim = msgspec.structs.replace(claim, standing=(message.paid,))
    left = 420_055 - first.paid[0]
    for said in (0, first.paid[0] - 1000):
        false = dataclasses.replace(held, standing=[(said, first.paid[1])])
        refused(cheat(claim, false)[0])
    for amount in (left + 1, left + 1000):
        true = dataclasses.replace(held, standing=[first.paid])
        refused(cheat(claim, true, paid=amount)[0])
    without = msgspec.structs.replace(claim, standing=())
    forgotten, _ = cheat(without, held)
    settlement.verify(forgotten, without)  # true of a bill under which nothing is paid
    with pytest.raises(VerificationError) as caught:
        settlement.verify(forgotten, claim)
    assert caught.value.facts["field"] == "standing"
    refused(msgspec.structs.replace(forgotten, claim=claim), claim)


def test_another_total(cheat: Cheat) -> None:
    """The bill's total is the hospital's on the ledger, the amounts are the encounter's."""
    claim, held, _ = truth()
    for total in (500_000, 420_054):
        point = GROUP.encode(pedersen.commit(total, claims.TOTAL_BLINDING))
        refused(cheat(msgspec.structs.replace(claim, total=point), held)[0])
    cheat.witness = {"encounter.total": 500_000}
    point = GROUP.encode(pedersen.commit(500_000, claims.TOTAL_BLINDING))
    refused(cheat(msgspec.structs.replace(claim, total=point), held)[0])


@pytest.mark.parametrize(
    "link",
    [
        Link("covered", ((2000, "encounter", "class_1"),)),
        Link("cap", ((2, "account", "cap"),)),
        Link("own", ((0, "account", "deductible"),)),
        Link("own", ((1, "account", "cap"),)),
        Link("total", ((2, "encounter", "total"),)),
        Link("birth", ((2, "person", "birth"),)),
        Link("valid_to", ((2, "person", "valid_from"),)),
    ],
)
def test_commitments_to_other_numbers_than_the_attributes(cheat: Cheat, link: Link) -> None:
    """The credentials are shown as they are; what is reckoned with is something else. Folding must not hide it."""
    claim, held, _ = truth(row(youngest=18))
    cheat.links = {link.name: link}
    refused(cheat(claim, held)[0])


def test_two_false_commitments_that_cancel(cheat: Cheat) -> None:
    """Folded with equal weights this would pass: one commitment a thousand up, another a thousand down."""
    claim, held, _ = truth()
    for factor in (1, 3):
        cheat.links = {
            "cap": Link("cap", ((1, "account", "cap"), (factor, "encounter", "class_2"))),
            "own": Link("own", ((1, "account", "deductible"), (-factor, "encounter", "class_2"))),
        }
        refused(cheat(claim, held)[0])


@pytest.mark.parametrize(
    "said",
    [
        {"encounter.class_1": 300_000},
        {"account.cap": 2**40 - 1},
        {"account.deductible": 0},
        {"person.birth": 20_000},
        {"person.valid_to": 60_000},
    ],
)
def test_attributes_that_nobody_signed(cheat: Cheat, said: Numbers) -> None:
    claim, held, _ = truth(row(youngest=18))
    cheat.witness = said
    refused(cheat(claim, held)[0])


# -------------------------------------------------------------------------------- row, account, bill, person


@pytest.mark.parametrize(
    "changes",
    [
        {"region": "330200"},
        {"insutype": "390"},
        {"psn_type": "31"},
        {"level": "2"},
        {"med_type": "11"},
        {"visit": 2},
        {"payer": "bureau-2"},
        {"layer": 2},
        {"scheme": "310"},
        {"sex": "1"},
    ],
)
def test_a_row_that_is_not_hers(cheat: Cheat, changes: dict[str, Any]) -> None:
    claim, held, _ = truth(row(**changes))
    refused(cheat(msgspec.structs.replace(claim, level=claim.row.level), held)[0])


def test_last_years_account(cheat: Cheat) -> None:
    claim, held, _ = truth(year=2024)
    refused(cheat(claim, held)[0])


@pytest.mark.parametrize("visits", [0, 1])
def test_a_later_visit_than_it_is(cheat: Cheat, visits: int) -> None:
    claim, held, _ = truth(row(visit=3, last_visit=3), visits=visits)
    refused(cheat(claim, held)[0])
    cheat.witness = {"account.visits": 2}
    refused(cheat(claim, held)[0])


@pytest.mark.parametrize(
    ("changes", "one"),
    [
        ({"valid_from": DAY + 1}, ROW),
        ({"valid_to": DAY - 1}, ROW),
        ({}, row(youngest=60)),
        ({}, row(oldest=30)),
    ],
)
def test_not_insured_that_day_or_of_another_age(cheat: Cheat, changes: dict[str, Any], one: Row) -> None:
    claim, held, _ = truth(one, **changes)
    refused(cheat(claim, held)[0])


def test_the_encounter_of_another_bill(cheat: Cheat) -> None:
    """Eligible on one bill, settled on another."""
    claim, held, holder = truth()
    other = holders.encounter(holder.person, bill=bytes(16), total=400_000, class_1=230_000 - 55)
    for total in (420_055, 400_000):
        point = GROUP.encode(pedersen.commit(total, claims.TOTAL_BLINDING))
        refused(cheat(msgspec.structs.replace(claim, total=point), dataclasses.replace(held, encounter=other))[0])


def test_the_encounter_of_another_hospital(cheat: Cheat) -> None:
    claim, held, _ = truth()
    refused(cheat(msgspec.structs.replace(claim, encounter_key=OTHER_HOSPITAL.of.issuer), held)[0])


@pytest.mark.parametrize("place", ["person", "encounter", "account"])
def test_two_people(cheat: Cheat, place: str) -> None:
    """One's plan, another's bill or account: whichever secret they name."""
    claim, held, anna = truth()
    berta = holders.holder("berta")
    mixed = dataclasses.replace(held, **{place: getattr(berta, place)})
    claim = msgspec.structs.replace(claim, serial=account.spent_serial(mixed.account))
    if place == "person":
        members = claims.active(anna, berta)
        claim = msgspec.structs.replace(claim, active=members.key)
        mixed = dataclasses.replace(mixed, active=membership.find(members, claims.handle_of(berta)))
    for one in (anna, berta):
        secret = one.encounter.scalars(ENCOUNTER)[0]
        cheat.witness = {SECRET: secret}
        refused(cheat(claim, mixed)[0])


def test_a_card_that_is_no_longer_active(cheat: Cheat) -> None:
    claim, held, _ = truth()
    newer = claims.published("active", "active", (bytes(15) + b"\3",), 8)
    member = membership.find(newer, bytes(15) + b"\3")
    refused(cheat(msgspec.structs.replace(claim, active=newer.key), dataclasses.replace(held, active=member))[0])


@pytest.mark.parametrize(
    "changes",
    [{"handle": bytes(15) + b"\2"}, {"code": "E11.900"}, {"last": DAY - 1}, {"first": DAY + 1}],
)
def test_a_filing_that_is_not_hers_or_not_of_this(cheat: Cheat, changes: dict[str, Any]) -> None:
    claim, held, holder = truth(row(diagnoses=Diagnoses("filed", "chronic")))
    other = claims.filing(holder, **changes)
    members = claims.published("filed", "chronic", (other,), 9)
    claim = msgspec.structs.replace(claim, diagnoses=members.key)
    refused(cheat(claim, dataclasses.replace(held, diagnosis=membership.find(members, other)))[0])


def test_a_diagnosis_that_is_not_covered(cheat: Cheat) -> None:
    claim, held, _ = truth(row(diagnoses=Diagnoses("covered", "chronic")), diagnosis="J45.901")
    refused(cheat(claim, held)[0])
    cheat.witness = {"encounter.diagnosis": int.from_bytes(b"I10.x00x002", "big")}
    refused(cheat(claim, held)[0])


# ------------------------------------------------------------------------------------------ the next account


@pytest.mark.parametrize(
    "numbers",
    [
        {"cap": 20_000_000},
        {"cap": 2**40 - 1},
        {"deductible": 0 - 1},
        {"deductible": 80_000},
        {"visits": 0},
        {"visits": 2},
    ],
)
def test_a_better_next_account(cheat: Cheat, numbers: Numbers) -> None:
    for one in (ROW, row(visit=1, last_visit=1)):
        claim, held, _ = truth(one)
        cheat.next_account = numbers
        refused(cheat(claim, held)[0])


def test_a_deductible_that_the_row_does_not_touch(cheat: Cheat) -> None:
    claim, held, _ = truth(row(deductible=0))
    cheat.next_account = {"deductible": 0}
    refused(cheat(claim, held)[0])


def test_a_next_account_for_somebody_else(cheat: Cheat) -> None:
    claim, held, _ = truth()
    cheat.witness = {"next.secret": holders.holder("berta").account.scalars(ACCOUNT)[0]}
    refused(cheat(claim, held)[0])


def test_a_payment_in_somebody_elses_name(cheat: Cheat, monkeypatch: pytest.MonkeyPatch) -> None:
    """C_S commits to Berta's secret: a reversal would give her the amount."""
    claim, held, anna = truth()
    mine, hers = (one.account.scalars(ACCOUNT)[0] for one in (anna, holders.holder("berta")))
    honest = pedersen.commit

    def commit(value: int, *rest: Any) -> Any:
        return honest(hers if value == mine else value, *rest)

    monkeypatch.setattr(settlement.pedersen, "commit", commit)
    refused(cheat(claim, held)[0])


def test_another_serial(cheat: Cheat) -> None:
    """The old account under a serial that was not spent yet."""
    claim, held, _ = truth()
    refused(cheat(msgspec.structs.replace(claim, serial=encode_scalar(12345)), held)[0])


# ------------------------------------------------------------------------------------- kept by the ledger's state


def test_a_second_payment_by_the_same(cheat: Cheat) -> None:
    """With a fresh account the proof is true; the bill's state refuses it, and an old proof is stale."""
    message, _ = settled()
    state = payments.registered(message.claim.bill, "hospital-1", message.claim.total, "CNY")
    paid = payments.pay(state, message.payment, "CNY")
    with pytest.raises(Refused) as caught:
        payments.pay(paid, message.payment, "CNY")
    assert caught.value.code == "payments.paid_already"
    again = msgspec.structs.replace(message.claim, standing=(message.paid,))
    with pytest.raises(VerificationError) as stale:
        settlement.verify(message, again)
    assert stale.value.code == "zkp.not_as_asked"


def test_two_credentials_of_one_person_on_one_bill(cheat: Cheat) -> None:
    """A hospital that signs two encounters for one bill, to two people: each proof is true, one is paid."""
    message, _ = settled()
    berta = holders.holder("berta")
    other = settlement.prove(claim := claim_of(berta), holdings_of(berta, claim), derive_of("b", claim), rand_of("b"))[
        0
    ]
    settlement.verify(other, claim)
    state = payments.registered(message.claim.bill, "hospital-1", message.claim.total, "CNY")
    paid = payments.pay(state, message.payment, "CNY")
    with pytest.raises(Refused):
        payments.pay(paid, other.payment, "CNY")
