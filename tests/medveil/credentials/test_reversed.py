"""What a holder tries between a reversal and its voucher, and under a bill that stands for a red one: all refused."""

from __future__ import annotations

import secrets

import msgspec
import pytest

from medveil.credentials import claiming, contract, issuing, updating
from medveil.credentials.files import Kind
from tests.medveil.credentials.conftest import BILL, FIRST, HANDLE, PASS, SECOND, Desk
from wire.canonical import encode
from wire.errors import DecodeError, Refused

AGAIN, THIRD = "0c" * 16, "0d" * 16
PAID = 263_845


def reversed_once(desk: Desk) -> None:
    """The first layer paid, used up the deductible, and was reversed; the voucher is not redeemed. A second visit is
    paid like a first one, so that nothing but the voucher is in the way."""
    desk.agree(desk.published(2, HANDLE), FIRST | {"last_visit": 1}, SECOND)
    desk.done(desk.settle())
    desk.reverse()


def hand_made(desk: Desk, bill: str = BILL) -> claiming.SettlementQuestion:
    """The question that a holder writes herself: from the public file, but for the voucher, redeemed as she has it."""
    state = contract.read(desk / "contract")
    vouchers = tuple(msgspec.structs.replace(one, redeemed=True) for one in state.vouchers)
    return claiming.SettlementQuestion(
        claiming.SETTLEMENT_QUESTION,
        state.chain,
        state.person_key,
        state.hospitals[0].key,
        state.account_key,
        state.active,
        state.diagnoses,
        tuple(row for row in state.rows if row.layer == 1),
        next(one for one in state.bills if one.handle.hex() == bill),
        vouchers,
        state.hospitals[0].level,
        "HPAYMT",
        "grant-1",
        bytes(32),
    )


def unredeemed(caught: pytest.ExceptionInfo[Refused]) -> bool:
    return caught.value.code == "payments.unredeemed" and caught.value.facts["number"] == 0


def test_a_claim_between_reversal_and_voucher(desk: Desk) -> None:
    """It would be paid without the deductible, which the voucher gives back afterwards."""
    reversed_once(desk)
    with pytest.raises(Refused) as asked:
        desk.settle()
    assert unredeemed(asked)
    op = desk.settle(hand_made(desk))  # the proof is a true one: the account's deductible is used up
    before = (desk / "contract").read_bytes()
    with pytest.raises(Refused) as caught:
        desk.post(op)
    assert unredeemed(caught) and (desk / "contract").read_bytes() == before
    updating.abandon(desk / "me", PASS, op, secrets.token_bytes)
    desk.done(desk.redeem(desk.redemption()))
    desk.done(desk.settle())
    paid = updating.payments(desk.wallet())
    assert [(one["paid"], one["deducted"]) for one in paid] == [(PAID, 80_000), (PAID, 80_000)]


def test_another_payers_layer_is_not_held_up(desk: Desk) -> None:
    reversed_once(desk)
    assert desk.done(desk.settle(desk.question("insurer-1", 2)))[1]["cap"] != 5_000_000


def test_a_bill_in_the_place_of_a_red_one(desk: Desk) -> None:
    """The hospital cancels the bill and says which one stands for it: the voucher is redeemed first all the same."""
    reversed_once(desk)
    contract.cancel(desk / "contract", bytes.fromhex(BILL))
    desk.bill(replaces=BILL, bill=AGAIN)
    with pytest.raises(Refused) as asked:
        desk.settle(desk.question(bill=AGAIN))
    assert unredeemed(asked)
    op = desk.settle(hand_made(desk, AGAIN))
    with pytest.raises(Refused) as caught:
        desk.post(op)
    assert unredeemed(caught)
    updating.abandon(desk / "me", PASS, op, secrets.token_bytes)
    desk.done(desk.redeem(desk.redemption()))
    desk.done(desk.settle(desk.question(bill=AGAIN)))
    assert [one["deducted"] for one in updating.payments(desk.wallet())] == [80_000, 80_000]


def test_a_replacement_of_a_replacement(desk: Desk) -> None:
    reversed_once(desk)
    contract.cancel(desk / "contract", bytes.fromhex(BILL))
    desk.bill(replaces=BILL, bill=AGAIN)
    contract.cancel(desk / "contract", bytes.fromhex(AGAIN))
    desk.bill(replaces=AGAIN, bill=THIRD)
    with pytest.raises(Refused) as caught:
        desk.settle(desk.question(bill=THIRD))
    assert unredeemed(caught)


def test_what_can_be_replaced(desk: Desk) -> None:
    with pytest.raises(Refused) as standing:  # not red
        desk.bill(replaces=BILL, bill=AGAIN)
    assert standing.value.code == "credential_files.not_replaced"
    contract.cancel(desk / "contract", bytes.fromhex(BILL))
    answer = desk.bill(replaces=BILL, bill=AGAIN)
    before = (desk / "contract").read_bytes()
    contract.register(desk / "contract", answer, "CNY", bytes.fromhex(BILL))  # the same again
    assert (desk / "contract").read_bytes() == before
    with pytest.raises(Refused) as other:  # a bill does not shed what it replaces
        contract.register(desk / "contract", answer, "CNY")
    assert other.value.code == "credential_files.other_bill"
    with pytest.raises(Refused) as twice:
        desk.bill(replaces=BILL, bill=THIRD)
    assert twice.value.code == "credential_files.not_replaced"
    with pytest.raises(Refused) as none:
        desk.bill(replaces="0f" * 16, bill=THIRD)
    assert none.value.code == "credential_files.no_bill"


def test_a_question_without_the_bills_vouchers(desk: Desk) -> None:
    """A stranger's file: no traceback, nothing proved."""
    reversed_once(desk)
    question = desk.question()
    before = desk.wallet()
    for vouchers in ((), (msgspec.structs.replace(question.vouchers[0], number=7),)):
        with pytest.raises(DecodeError):
            desk.settle(msgspec.structs.replace(question, vouchers=vouchers))
    assert desk.wallet() == before


def test_an_op_posted_again_after_its_reversal(desk: Desk) -> None:
    """It is final, and known: it does not pay twice."""
    op = desk.settle()
    desk.done(op)
    desk.reverse()
    for _ in range(2):
        desk.post(op)
        assert contract.read(desk / "contract").bills[0].standing == ()
        if not contract.read(desk / "contract").vouchers[0].redeemed:
            desk.done(desk.redeem(desk.redemption()))


def test_a_voucher_of_a_red_bill_still_comes_back(desk: Desk) -> None:
    desk.done(desk.settle())
    desk.reverse()
    contract.cancel(desk / "contract", bytes.fromhex(BILL))
    found = desk.done(desk.redeem(desk.redemption()))[0]
    assert (found["cap"], found["deductible"], found["visits"]) == (20_000_000, 80_000, 0)


@pytest.mark.parametrize("kind", ["person", "account", "encounter"])
def test_a_contract_with_an_issuers_key_of_another_consortium(desk: Desk, kind: Kind) -> None:
    name = desk.key(kind).issuer
    made = issuing.make_issuer(desk / "theirs", PASS, kind, name, secrets.token_bytes)
    (desk / f"{kind}.key").write_bytes(encode(made))
    desk.agree(desk.published(2, HANDLE))
    before = desk.wallet()
    with pytest.raises(DecodeError) as caught:
        desk.settle()
    assert caught.value.code == "credentials.other_issuer" and desk.wallet() == before
