"""zkp.settlement: true claims of every kind of row are proved and verified, as the rule has it; false ones refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.zkp import claims, holders
from tests.zkp.claims import ROW, claim_of, derive_of, holdings_of, row, settled
from tests.zkp.holders import BUREAU_ACCOUNT, rand_of
from wire import canonical, evidence
from wire.errors import DecodeError, Refused, VerificationError
from zkp import account, pedersen, settlement
from zkp.benefit import benefit
from zkp.credentials import ACCOUNT, CLASSES, ENCOUNTER
from zkp.groups import Backend, backend
from zkp.policy import Diagnoses, Row

GROUP = backend()

ROWS = {
    "three bands, account's deductible": ROW,
    "the row's deductible": row(deductible=30_000),
    "no deductible, one band": row(deductible=0, band_1=0, band_2=0),
    "two bands": row(band_2=100_000, half_up=True),
    "on the remainder": row(remainder=True),
    "last visit": row(visit=1, last_visit=1),
    "visits do not count": row(visit=0, counts_visit=False),
    "ages": row(youngest=18, oldest=60),
    "filed": row(diagnoses=Diagnoses("filed", "chronic")),
    "covered": row(diagnoses=Diagnoses("covered", "chronic")),
    "for anybody": row(insutype="", psn_type="", region="", med_type="", level=""),
}


def number(value: object) -> int:
    assert isinstance(value, int)
    return value


def expected(row: Row, holder: holders.Holder, paid: int = 0) -> int:
    bill, own = holder.encounter.named(ENCOUNTER), holder.account.named(ACCOUNT)
    classes = [number(bill[name]) for name in CLASSES]
    return benefit(row, classes, number(bill["total"]), paid, number(own["cap"]), number(own["deductible"])).paid


@pytest.mark.parametrize("name", ROWS)
def test_a_true_claim(name: str) -> None:
    holder = holders.holder()
    claim = claim_of(holder, ROWS[name])
    message, outcome = settled(ROWS[name])
    settlement.verify(message, claim)
    assert outcome.paid[0] == expected(ROWS[name], holder) > 0
    assert GROUP.encode(pedersen.commit(*outcome.paid)) == message.paid
    assert len(message.proof) < 5_600
    before, after = holder.account.named(ACCOUNT), outcome.following.values
    assert after["cap"] == number(before["cap"]) - outcome.paid[0]
    assert after["deductible"] == number(before["deductible"]) - outcome.deducted[0]
    assert (outcome.deducted[0] > 0) == (message.deducted is not None) == (ROWS[name].deductible is None)
    assert after["visits"] == number(before["visits"]) + ROWS[name].visits_added


def test_as_evidence() -> None:
    message, _ = settled()
    again = evidence.read(canonical.encode(message))
    assert again == message
    settlement.verify(again, again.claim)


def test_the_other_backend_verifies(reference: Backend) -> None:
    message, _ = settled(ROWS["no deductible, one band"])
    settlement.verify(message, message.claim, reference)
    with pytest.raises(VerificationError):
        settlement.verify(msgspec.structs.replace(message, note=bytes(settlement.NOTE_BYTES)), message.claim, reference)


def test_a_batch() -> None:
    messages = [settled(one)[0] for one in ROWS.values()]
    settlement.verify_batch((message, message.claim) for message in messages)
    messages[3], messages[7] = (
        msgspec.structs.replace(messages[at], note=bytes(settlement.NOTE_BYTES)) for at in (3, 7)
    )
    with pytest.raises(VerificationError) as caught:
        settlement.verify_batch((message, message.claim) for message in messages)
    assert caught.value.facts["bad"] == "3, 7"


def test_layer_on_layer() -> None:
    """A second layer pays on what the first left; a third finds nothing; together never more than the total."""
    holder = holders.holder()
    total = number(holder.encounter.get(ENCOUNTER, "total"))
    message, first = settled()
    second = row(payer="insurer-a", layer=10, statutory=False, remainder=True, deductible=0, rates=(900,) * 3)
    other = holders.Holder(
        "anna", holder.person, holders.account(holder.person, payer="insurer-a", layer=10), holder.encounter
    )
    claim = claim_of(other, second, [message.paid])
    after, outcome = settlement.prove(
        claim, holdings_of(other, claim, [first.paid]), derive_of("anna", claim), rand_of("second")
    )
    settlement.verify(after, claim)
    assert outcome.paid[0] == expected(second, other, first.paid[0]) > 0
    third = row(payer="insurer-b", layer=11, statutory=False, deductible=0, rates=(1000,) * 3)
    last = holders.Holder(
        "anna", holder.person, holders.account(holder.person, payer="insurer-b", layer=11), holder.encounter
    )
    claim = claim_of(last, third, [message.paid, after.paid])
    final, rest = settlement.prove(
        claim, holdings_of(last, claim, [first.paid, outcome.paid]), derive_of("anna", claim), rand_of("third")
    )
    settlement.verify(final, claim)
    assert first.paid[0] + outcome.paid[0] + rest.paid[0] == total


def test_the_next_account_is_signed_and_spent_again() -> None:
    holder = holders.holder()
    message, outcome = settled(ROWS["last visit"])
    answer = account.sign_update(BUREAU_ACCOUNT, bytes(32), message.following)
    account.check_update(BUREAU_ACCOUNT.of, message.following, answer)
    renewed = account.finish_update(BUREAU_ACCOUNT.of, outcome.following, answer)
    assert account.spent_serial(renewed) != account.spent_serial(holder.account)
    again = holders.Holder("anna", holder.person, renewed, holder.encounter)
    claim = claim_of(again, ROWS["last visit"], total=message.claim.total)
    settlement.verify(
        settlement.prove(claim, holdings_of(again, claim), derive_of("anna", claim), rand_of("again"))[0], claim
    )


def test_the_note_is_the_wallets() -> None:
    message, outcome = settled()
    derive = derive_of("anna", message.claim)
    assert settlement.read_note(derive, message.note) == (outcome.paid[0], outcome.deducted[0])
    with pytest.raises(VerificationError) as caught:
        settlement.read_note(derive_of("berta", message.claim), message.note)
    assert caught.value.code == "settlement.other_note"


def test_what_a_wallet_must_find_again_does_not_depend_on_chance() -> None:
    holder = holders.holder()
    claim = claim_of(holder)
    message, outcome = settled()
    again, same = settlement.prove(claim, holdings_of(holder, claim), derive_of("anna", claim), rand_of("other"))
    assert (again.paid, again.deducted, again.following, again.note) == (
        message.paid, message.deducted, message.following, message.note,
    )  # fmt: skip
    assert same == outcome and again.proof != message.proof
    other = msgspec.structs.replace(claim, nonce=bytes(32))
    moved, _ = settlement.prove(other, holdings_of(holder, other), derive_of("anna", other), rand_of("settled"))
    assert not {moved.paid, moved.deducted, moved.following, moved.note} & {
        message.paid, message.deducted, message.following, message.note,
    }  # fmt: skip


def test_a_bill_signed_anew_shares_no_blinding_with_the_old_one() -> None:
    """The same claim, byte for byte, over a bill whose hospital moved amounts between classes: everything is new."""
    anna = holders.holder()
    moved = holders.encounter(anna.person, "anna", class_1=230_000, class_3=20_000)
    claim = claim_of(anna)
    other = holders.Holder("anna", anna.person, anna.account, moved)
    assert claim_of(other) == claim
    message, outcome = settled()
    again, different = settlement.prove(claim, holdings_of(other, claim), derive_of("anna", claim), rand_of("settled"))
    settlement.verify(again, claim)
    assert outcome.paid[0] != different.paid[0]
    assert outcome.paid[1] != different.paid[1] and outcome.deducted[1] != different.deducted[1]
    for name in ("serial", "blind"):
        assert outcome.following.values[name] != different.following.values[name]
    for note, of in ((message.note, outcome), (again.note, different)):
        assert settlement.read_note(derive_of("anna", claim), note) == (of.paid[0], of.deducted[0])
    assert message.note[:12] != again.note[:12] and message.proof[:144] != again.proof[:144]


def test_an_account_signed_anew_shares_no_blinding_with_the_old_one() -> None:
    """Its serial is the same, so that the claim is, and R and d may be."""
    anna = holders.holder()
    more = holders.account(anna.person, cap=30_000_000)
    claim = claim_of(anna)
    other = holders.Holder("anna", anna.person, more, anna.encounter)
    assert claim_of(other) == claim
    again, different = settlement.prove(claim, holdings_of(other, claim), derive_of("anna", claim), rand_of("settled"))
    settlement.verify(again, claim)
    outcome = settled()[1]
    assert outcome.paid[0] == different.paid[0] and outcome.deducted[0] == different.deducted[0]
    assert outcome.following.values["blind"] != different.following.values["blind"]
    assert outcome.paid[1] != different.paid[1]


# --------------------------------------------------------------------- the prover refuses, and says what is false


def refused(holder: holders.Holder, row: Row = ROW, **changes: Any) -> str:
    claim = claim_of(holder, row, **changes)
    with pytest.raises((Refused, VerificationError)) as caught:
        settlement.prove(claim, holdings_of(holder, claim), derive_of("x", claim), rand_of("x"))
    for language in ("en", "zh"):
        assert not any(secret in caught.value.text(language) for secret in ("29000", "I10", "420055", "20000000"))
    return caught.value.code


@pytest.mark.parametrize(
    ("changes", "row_changes", "code"),
    [
        ({"region": "320000"}, {}, "settlement.other_attribute"),
        ({"insutype": "390"}, {}, "settlement.other_attribute"),
        ({"level": "2"}, {}, "settlement.other_attribute"),
        ({"med_type": "11"}, {}, "settlement.other_attribute"),
        ({"bill": bytes(16)}, {}, "settlement.other_attribute"),
        ({"payer": "bureau-2"}, {}, "settlement.other_attribute"),
        ({"layer": 2}, {}, "settlement.other_attribute"),
        ({"visits": 1}, {}, "settlement.other_attribute"),
        ({"valid_from": holders.DAY + 1}, {}, "settlement.plan_not_active"),
        ({"valid_to": holders.DAY - 1}, {}, "settlement.plan_not_active"),
        ({}, {"youngest": 60}, "settlement.other_age"),
        ({"visits": 1}, {"visit": 3}, "settlement.earlier_visit"),
        ({"diagnosis": "J45.901"}, {"diagnoses": Diagnoses("filed", "chronic")}, "settlement.diagnosis_not_in_set"),
        ({"diagnosis": "J45.901"}, {"diagnoses": Diagnoses("covered", "chronic")}, "settlement.diagnosis_not_in_set"),
    ],
)
def test_a_false_statement(changes: dict[str, Any], row_changes: dict[str, Any], code: str) -> None:
    assert refused(holders.holder("berta", **changes), row(**row_changes)) == code


def test_parts_of_two_people() -> None:
    anna, berta = holders.holder("anna"), holders.holder("berta")
    for mixed in (
        holders.Holder("x", anna.person, berta.account, anna.encounter),
        holders.Holder("x", anna.person, anna.account, berta.encounter),
        holders.Holder("x", berta.person, anna.account, anna.encounter),
    ):
        assert refused(mixed) == "settlement.other_holder"


def test_what_the_claim_alone_forbids() -> None:
    holder = holders.holder()
    assert refused(holder, row(first_day=holders.DAY + 1)) == "policy.not_in_force"
    assert refused(holder, row(year=2024)) == "policy.other_year"
    assert refused(holder, level="2") == "settlement.other_level"
    covered = claims.published("covered", "other", ("I10.x00x002",))
    assert refused(holder, diagnoses=covered.key) == "settlement.other_set"
    assert refused(holder, row(diagnoses=Diagnoses("covered", "chronic")), diagnoses=covered.key) == (
        "settlement.other_set"
    )
    assert refused(holder, active=covered.key) == "settlement.other_set"
    for forbidden, kind in (
        (row(visit=9), DecodeError),
        (row(year=2024), VerificationError),
        (row(youngest=140), VerificationError),
    ):
        claim = claim_of(holder, forbidden)
        with pytest.raises(kind):
            settlement.verify(msgspec.structs.replace(settled()[0], claim=claim), claim)


@pytest.mark.parametrize("key", [bytes(96), bytes([0xC0]) + bytes(95), b"\x80" + bytes(95), bytes(range(96))])
def test_keys_that_are_none(key: bytes) -> None:
    message, _ = settled()
    for field in ("person_key", "encounter_key", "account_key"):
        claim = msgspec.structs.replace(message.claim, **{field: key})
        with pytest.raises((VerificationError, DecodeError)):
            settlement.verify(msgspec.structs.replace(message, claim=claim), claim)
    claim = msgspec.structs.replace(message.claim, active=msgspec.structs.replace(message.claim.active, key=key))
    with pytest.raises((VerificationError, DecodeError)):
        settlement.verify(msgspec.structs.replace(message, claim=claim), claim)


def test_an_old_set_version() -> None:
    holder = holders.holder()
    newer = claims.published("active", "active", (claims.handle_of(holder),), 8)
    assert refused(holder, active=newer.key) == "settlement.not_active"


def test_openings_that_are_not_the_bills() -> None:
    holder = holders.holder()
    message, outcome = settled()
    assert refused(holder, total=message.paid) == "zkp.wrong_opening"
    assert refused(holder, standing=(message.paid,)) == "settlement.other_payments"
    claim = claim_of(holder, standing=[message.paid])
    held = holdings_of(holder, claim, [(outcome.paid[0] - 1, outcome.paid[1])])
    with pytest.raises(VerificationError):
        settlement.prove(claim, held, derive_of("x", claim), rand_of("x"))


def test_nothing_secret_is_shown() -> None:
    holder = holders.holder()
    claim = claim_of(holder)
    assert repr(holdings_of(holder, claim)).startswith("<") and repr(settled()[1]).startswith("<")
