"""Settlement, the bureau's answer, the wallet behind it, reversal and redemption: all on files, cut short anywhere."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from medveil.credentials import (
    claiming,
    contract,
    folder,
    issuing,
    opening,
    policy_table,
    proving,
    sets,
    updating,
    wallets,
)
from tests.medveil.credentials.conftest import BILL, ENCOUNTER, FIRST, HANDLE, PASS, PERSON, SECOND, Desk
from wire.canonical import encode
from wire.errors import DecodeError, MedveilError, Refused, VerificationError
from zkp.settlement import NOTE_BYTES

PAID = 263_845
"""What the first row pays: 0.7 * 1000 + 0.8 * 1500 + 0.9 * 820.50 yuan, after 800 of deductible."""


def caps(found: list[updating.Said]) -> list[Any]:
    return [one["cap"] for one in found]


def test_two_layers_are_paid(desk: Desk) -> None:
    assert caps(desk.done(desk.settle())) == [20_000_000 - PAID, 5_000_000]
    found = desk.done(desk.settle(desk.question("insurer-1", 2)))
    assert caps(found) == [20_000_000 - PAID, 5_000_000 - (420_055 - PAID) // 2]
    assert [one["step"] for one in found] == ["idle", "idle"] and found[0]["deductible"] == 0
    paid = updating.payments(desk.wallet())
    assert [one["paid"] for one in paid] == [PAID, (420_055 - PAID) // 2] and paid[0]["deducted"] == 80_000


def test_verified_against_the_question(desk: Desk) -> None:
    question = desk.question()
    op = desk.settle(question)
    assert proving.verify(op, question, "arkworks")
    assert not proving.verify(op, None, "arkworks")


def test_another_question(desk: Desk) -> None:
    question = desk.question()
    op = desk.settle(question)
    for changes in (
        {"nonce": bytes(32)},
        {"grant": "grant-2"},
        {"purpose": "FRAUD"},
        {"chain": "other"},
        {"level": "2"},
        {"rows": (msgspec.structs.replace(question.rows[0], rates=(900, 900, 900)),)},
        {"bill": msgspec.structs.replace(question.bill, handle=bytes(16))},
        {"active": msgspec.structs.replace(question.active, version=2)},
    ):
        with pytest.raises((VerificationError, DecodeError)):
            proving.verify(op, msgspec.structs.replace(question, **changes), "arkworks")
    with pytest.raises(Refused) as caught:
        proving.verify(op, desk.key("person"), "arkworks")
    assert caught.value.code == "credential_files.no_proof"


# -------------------------------------------------------------------------------------- false statements


@pytest.mark.parametrize(
    "row, code, what",
    [
        ({"insutype": "390"}, "settlement.other_attribute", "insutype"),
        ({"region": "330200"}, "settlement.other_attribute", "region"),
        ({"med_type": "11"}, "settlement.other_attribute", "med_type"),
        ({"visit": 2}, "settlement.other_attribute", "visits"),
        ({"visit": 3}, "settlement.earlier_visit", 3),
        ({"level": "2"}, "settlement.other_level", "3"),
        ({"youngest": 60}, "settlement.other_age", 60),
        ({"last_day": "2025-11-30"}, "policy.not_in_force", "2025-12-11"),
        ({"diagnoses": {"kind": "covered", "name": "chronic"}}, "settlement.other_set", "chronic"),
        ({"currency": "USD"}, "payments.other_currency", "USD"),
    ],
)
def test_what_fails_is_said_and_nothing_is_kept(desk: Desk, row: dict[str, Any], code: str, what: Any) -> None:
    desk.agree(desk.published(2, HANDLE), FIRST | row)
    before = desk.wallet()
    with pytest.raises(Refused) as caught:
        desk.settle()
    assert caught.value.code == code and what in caught.value.facts.values()
    assert desk.wallet() == before


def test_the_row_missed_by_least_is_the_one_spoken_of(desk: Desk) -> None:
    other = FIRST | {"insutype": "390", "med_type": "11", "level": "1"}
    desk.agree(desk.published(2, HANDLE), other, FIRST | {"region": "330200"})
    with pytest.raises(Refused) as caught:
        desk.settle()
    assert caught.value.facts["attribute"] == "region"


def test_no_credential_active(desk: Desk) -> None:
    desk.agree(desk.published(2, "0e" * 16))
    with pytest.raises(Refused) as caught:
        desk.settle()
    assert caught.value.code == "membership.not_in_set"


def test_a_layer_pays_once_and_closes_those_below(desk: Desk) -> None:
    desk.done(desk.settle(desk.question("insurer-1", 2)))
    for question, code in (
        (desk.question("insurer-1", 2), "payments.paid_already"),
        (desk.question(), "payments.layer_closed"),
    ):
        with pytest.raises(Refused) as caught:
            desk.settle(question)
        assert caught.value.code == code


# -------------------------------------------------------------------------- what the contract does not take


def test_two_claims_proved_on_one_state(desk: Desk) -> None:
    """The second to arrive is refused; its account is free again once she abandons it."""
    late = desk.settle(desk.question("insurer-1", 2))
    desk.done(desk.settle())
    with pytest.raises(VerificationError) as caught:
        desk.post(late)
    assert caught.value.facts["field"] == "standing"
    question = desk.question("insurer-1", 2)
    with pytest.raises(Refused) as open_:
        desk.settle(question)
    assert open_.value.code == "wallet.step_open"
    found = updating.abandon(desk / "me", PASS, late, secrets.token_bytes)
    assert [one["step"] for one in found] == ["idle", "idle"]
    assert caps(desk.done(desk.settle(question)))[1] == 5_000_000 - (420_055 - PAID) // 2
    with pytest.raises(Refused):
        updating.abandon(desk / "me", PASS, late, secrets.token_bytes)


def test_a_serial_is_spent_once(desk: Desk, tmp_path: Path) -> None:
    """A copy of the wallet claims under a second bill with the same account."""
    desk.bill(bill="0c" * 16)
    (desk / "copy").write_bytes((desk / "me").read_bytes())
    desk.post(desk.settle())
    with pytest.raises(Refused) as caught:
        desk.post(desk.settle(desk.question(bill="0c" * 16), "copy"))
    assert caught.value.code == "credential_files.spent"


def test_an_op_that_was_altered(desk: Desk) -> None:
    op = desk.settle()
    before = (desk / "contract").read_bytes()
    for changed in (
        msgspec.structs.replace(op, note=bytes(NOTE_BYTES)),
        msgspec.structs.replace(op, paid=op.following),
        msgspec.structs.replace(op, claim=msgspec.structs.replace(op.claim, person_key=op.claim.account_key)),
        msgspec.structs.replace(op, claim=msgspec.structs.replace(op.claim, grant="grant-9")),
        msgspec.structs.replace(op, claim=msgspec.structs.replace(op.claim, service_day=op.claim.service_day - 1)),
    ):
        with pytest.raises((VerificationError, DecodeError)):
            desk.post(changed)
    assert (desk / "contract").read_bytes() == before


def test_an_older_set_does_not_come_back(desk: Desk) -> None:
    old = desk.published(1, HANDLE)
    desk.agree(desk.published(2, HANDLE))
    for again in (old, desk.published(2, HANDLE)):
        with pytest.raises(Refused) as caught:
            desk.agree(again)
        assert caught.value.code == "credential_files.older_set"


def test_an_older_set_does_not_come_back_by_another_name(desk: Desk) -> None:
    """Neither by the way of a set of another name, nor by leaving a set of diagnoses out and naming it again."""
    lists = [sets.publish("covered", "chronic", version, ["I10"], secrets.token_bytes) for version in (1, 2)]
    keys = [desk.key(name) for name in ("person", "account", "encounter")]
    table = policy_table.parse({"rows": [FIRST, SECOND]})

    def agree(*given: Any) -> None:
        contract.agree(desk / "contract", "demo", keys, given, {"hospital-1": "3"}, table)

    newest = desk.published(2, HANDLE)
    agree(newest, lists[1])
    agree(newest)  # left out, it stays
    assert contract.read(desk / "contract").diagnoses == (lists[1].published.key,)
    with pytest.raises(Refused) as caught:
        agree(newest, lists[0])
    assert caught.value.code == "credential_files.older_set"
    with pytest.raises(Refused) as caught:
        agree(sets.publish("active", "others", 1, [bytes.fromhex(HANDLE)], secrets.token_bytes))
    assert caught.value.code == "credential_files.other_active_set"


def test_a_claim_of_the_last_epoch(desk: Desk) -> None:
    op = desk.settle()
    desk.agree(desk.published(2, HANDLE))
    with pytest.raises(VerificationError) as caught:
        desk.post(op)
    assert caught.value.facts["field"] == "active"


def test_a_bill_is_registered_once(desk: Desk) -> None:
    answer = desk.bill(bill="0c" * 16)
    before = (desk / "contract").read_bytes()
    contract.register(desk / "contract", answer, "CNY")
    assert (desk / "contract").read_bytes() == before
    for changed, currency in (
        (msgspec.structs.replace(answer, total_blinding=bytes(31) + b"\1"), "CNY"),
        (answer, "USD"),
    ):
        with pytest.raises(Refused) as caught:
            contract.register(desk / "contract", changed, currency)
        assert caught.value.code == "credential_files.other_bill"


def test_a_red_bill(desk: Desk) -> None:
    op = desk.settle()
    contract.cancel(desk / "contract", bytes.fromhex(BILL))
    for tried in (lambda: desk.post(op), lambda: desk.settle(desk.question())):
        with pytest.raises(Refused) as caught:
            tried()
        assert caught.value.code == "payments.red_bill"


# ------------------------------------------------------------------------------------------- cut short


def test_the_same_line_again_gives_the_same_bytes(desk: Desk) -> None:
    question = desk.question()
    first = encode(desk.settle(question))
    assert encode(desk.settle(question)) == first
    desk.post(desk.settle(question))
    state = (desk / "contract").read_bytes()
    desk.post(desk.settle(question))
    assert (desk / "contract").read_bytes() == state
    assert desk.answer() == 1
    answered = (desk / "contract").read_bytes()
    assert desk.answer() == 0 and (desk / "contract").read_bytes() == answered
    assert desk.catch_up() == desk.catch_up()
    with pytest.raises(Refused) as caught:  # the account has gone on: no second claim from an old question
        desk.settle(question)
    assert caught.value.code == "credential_files.old_question"


def test_the_bureaus_answer_is_the_same_whenever_it_is_asked(desk: Desk) -> None:
    desk.post(desk.settle())
    posted = (desk / "contract").read_bytes()
    desk.answer()
    first = (desk / "contract").read_bytes()
    (desk / "contract").write_bytes(posted)  # the answer is lost
    desk.answer()
    assert (desk / "contract").read_bytes() == first


def test_killed_at_any_step(desk: Desk, cut: Callable[..., Any]) -> None:
    """Before and after each write: run again, it goes on."""
    question = desk.question()
    with cut(claiming, "prepare_settlement"):
        desk.settle(question)
    with cut(wallets.Kept, "save"):  # proved and not kept: another proof, of the same claim
        desk.settle(question)
    with cut(contract.Kept, "save"):
        desk.post(desk.settle(question))
    assert desk.catch_up()[0]["step"] == "prepared"
    desk.post(desk.settle(question))
    with cut(wallets.Kept, "save"):
        desk.catch_up()
    assert desk.catch_up()[0]["step"] == "final"
    with cut(contract.Kept, "save"):
        desk.answer()
    assert desk.answer() == 1
    with cut(wallets.Kept, "save"):
        desk.catch_up()
    assert caps(desk.catch_up())[0] == 20_000_000 - PAID


def test_a_copy_of_the_wallet_from_before(desk: Desk) -> None:
    old = (desk / "me").read_bytes()
    desk.done(desk.settle())
    desk.done(desk.settle(desk.question("insurer-1", 2)))
    newest = desk.wallet()
    (desk / "me").write_bytes(old)
    desk.catch_up()
    assert desk.wallet() == newest


def test_an_answer_taken_again_does_not_turn_the_account_back(desk: Desk) -> None:
    scope = issuing.AccountScope("demo", "bureau-1", 1, 2025)
    values = {"payer": "bureau-1", "layer": 1, "year": 2025, "visits": 0, "cap": 20_000_000, "deductible": 80_000}
    answer = desk.issued(desk.applied("account", scope=scope), values)
    desk.done(desk.settle())
    newest = desk.wallet()
    desk.take(answer)
    assert desk.wallet() == newest


def test_a_lost_wallet_after_payments(desk: Desk) -> None:
    """From the seed, the issuers' answers, which are the same, and the contract."""
    desk.done(desk.settle())
    lost = desk.wallet()
    (desk / "me").unlink()
    wallets.restore(desk / "me", PASS, "demo", lost.seed, secrets.token_bytes)
    desk.take(desk.issued(desk.applied("person"), PERSON, "4711"))
    for payer, layer, cap, deductible in (("bureau-1", 1, 20_000_000, 80_000), ("insurer-1", 2, 5_000_000, 0)):
        desk.account({"payer": payer, "layer": layer, "year": 2025, "visits": 0, "cap": cap, "deductible": deductible})
    desk.take(desk.issued(desk.applied("encounter", bill=bytes.fromhex(BILL)), ENCOUNTER))
    desk.catch_up()
    assert desk.wallet() == lost
    desk.done(desk.settle(desk.question("insurer-1", 2)))


# ------------------------------------------------------------------------------------------- reversal


def test_a_reversed_payment_comes_back_once(desk: Desk) -> None:
    desk.done(desk.settle())
    desk.reverse()
    with pytest.raises(Refused) as caught:  # first back into the account, then claimed again
        desk.settle()
    assert caught.value.code == "payments.unredeemed"
    question = desk.redemption()
    op = desk.redeem(question)
    assert encode(desk.redeem(question)) == encode(op)
    assert proving.verify(op, question, "arkworks")
    found = desk.done(op)
    assert (found[0]["cap"], found[0]["deductible"], found[0]["visits"]) == (20_000_000, 80_000, 0)
    assert caps(desk.done(desk.settle()))[0] == 20_000_000 - PAID  # the layer is free again


def test_a_voucher_is_redeemed_once(desk: Desk) -> None:
    desk.done(desk.settle(desk.question("insurer-1", 2)))
    desk.reverse("insurer-1", 2)
    question = desk.redemption()
    assert caps(desk.done(desk.redeem(question)))[1] == 5_000_000
    again = desk.redeem(question)  # with the next serial, of a voucher that stands redeemed by now
    for tried in (desk.redemption, lambda: desk.post(again)):
        with pytest.raises(Refused) as caught:
            tried()
        assert caught.value.code == "payments.redeemed"
    found = updating.abandon(desk / "me", PASS, again, secrets.token_bytes)
    assert caps(found)[1] == 5_000_000


def test_a_redemption_against_an_older_serial(desk: Desk) -> None:
    desk.done(desk.settle())
    desk.reverse()
    (desk / "copy").write_bytes((desk / "me").read_bytes())
    desk.bill("me", bill="0c" * 16)
    desk.agree(desk.published(2, HANDLE), FIRST, FIRST | {"visit": 2})
    desk.post(desk.settle(desk.question(bill="0c" * 16)))
    late = claiming.redeem(desk / "copy", PASS, desk.redemption(), secrets.token_bytes)
    with pytest.raises(Refused) as caught:
        desk.post(late)
    assert caught.value.code == "credential_files.spent"


def test_from_the_top_down(desk: Desk) -> None:
    desk.done(desk.settle())
    desk.done(desk.settle(desk.question("insurer-1", 2)))
    with pytest.raises(Refused) as caught:
        desk.reverse()
    assert caught.value.code == "payments.reverse_from_the_top"
    with pytest.raises(Refused) as caught:
        contract.cancel(desk / "contract", bytes.fromhex(BILL))
    assert caught.value.code == "payments.standing"
    desk.reverse("insurer-1", 2)
    desk.reverse()
    contract.cancel(desk / "contract", bytes.fromhex(BILL))


def test_the_bureau_of_people_signs_no_accounts(desk: Desk) -> None:
    with pytest.raises(Refused) as caught:
        updating.answer(desk / "person", PASS, desk / "contract")
    assert caught.value.code == "credential_files.no_accounts"


def test_another_consortiums_contract(desk: Desk) -> None:
    wallets.create(desk / "stranger", PASS, "other", secrets.token_bytes)
    with pytest.raises(Refused) as caught:
        desk.catch_up("stranger")
    assert caught.value.code == "credential_files.other_chain"


@pytest.mark.parametrize("purpose, grant, term", [("pay", "grant-1", "purpose"), ("HPAYMT", "Grant 1", "grant")])
def test_no_terms(desk: Desk, purpose: str, grant: str, term: str) -> None:
    with pytest.raises(DecodeError) as caught:
        contract.ask_claim(desk / "contract", bytes.fromhex(BILL), "bureau-1", 1, purpose, grant, secrets.token_bytes)
    assert caught.value.facts == {"term": term}


def test_in_use(desk: Desk) -> None:
    with contract.opened(desk / "contract"), pytest.raises(MedveilError) as caught:
        contract.cancel(desk / "contract", bytes.fromhex(BILL))
    assert caught.value.code == "credential_files.in_use"
    with folder.locked(desk / "free"):
        pass


def test_the_wallets_rows_and_the_tables(desk: Desk) -> None:
    """Two payers on layer 2 have rows of their own in a question."""
    desk.agree(desk.published(2, HANDLE), FIRST, SECOND, SECOND | {"payer": "insurer-2"})
    assert [row.payer for row in desk.question("insurer-2", 2).rows] == ["insurer-2"]
    with pytest.raises(Refused) as caught:
        desk.question("insurer-3", 2)
    assert caught.value.code == "policy.no_row"


# -------------------------------------------------------------------------------------- what the payer knows


def test_the_payer_reads_the_amount_from_its_opening(desk: Desk) -> None:
    op = desk.settle()
    desk.post(op)
    with pytest.raises(Refused) as caught:  # not caught up: the wallet has not booked it
        opening.opened(desk / "me", PASS, op)
    assert caught.value.code == "wallet.unknown_payment"
    desk.answer()
    desk.catch_up()
    said = opening.opened(desk / "me", PASS, op).opening
    bill, payment = opening.amount(desk / "contract", said)
    assert (bill, payment.payer, said.paid) == (BILL, "bureau-1", PAID)
    assert str(PAID) not in repr(said)
    with pytest.raises(VerificationError):
        opening.amount(desk / "contract", msgspec.structs.replace(said, paid=PAID - 1))
    desk.reverse()
    with pytest.raises(Refused) as caught:
        opening.amount(desk / "contract", said)
    assert caught.value.code == "credential_files.not_standing"


def test_a_redemption_that_was_altered(desk: Desk) -> None:
    desk.done(desk.settle())
    desk.reverse()
    op = desk.redeem(desk.redemption())
    for changed in (
        msgspec.structs.replace(op, proof=op.proof[:-1] + bytes([op.proof[-1] ^ 1])),
        msgspec.structs.replace(op, following=op.redemption.voucher.mirror),
        msgspec.structs.replace(op, redemption=msgspec.structs.replace(op.redemption, audience="insurer-1")),
    ):
        with pytest.raises((VerificationError, DecodeError)):
            desk.post(changed)
