"""zkp.claim.check_bill: a claim is about a bill as the ledger holds it, and about one that takes its payment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from tests.zkp.claims import ROW, claim_of, derive_of, holdings_of, row, settled
from tests.zkp.holders import BILL, BUREAU_ACCOUNT, holder, rand_of
from tests.zkp.test_reversal import derive, redemption_of, reversed_payment
from wire.errors import Refused
from zkp import account, payments, pedersen, reversal, settlement
from zkp.claim import Claim, check_bill
from zkp.groups import Backend, backend
from zkp.payments import MOST_PAYMENTS, BillPayments, Payment
from zkp.policy import Row

GROUP = backend()


def point(number: int) -> bytes:
    return GROUP.encode(pedersen.commit(number, number + 1, GROUP))


def payment(number: int, payer: str = "bureau-1", layer: int = 1, statutory: bool = True) -> Payment:
    return Payment(payer, layer, statutory, 2025, point(number), None, 1, point(1000 + number))


def stated(one: Row = ROW, *standing: Payment, **changes: Any) -> tuple[Claim, BillPayments]:
    """A claim and the ledger's bill, on which `standing` has been paid: they agree but for `changes` of the bill."""
    claim = claim_of(holder(), one, [each.amount for each in standing])
    bill = payments.registered(BILL, "hospital-1", claim.total, "CNY")
    return claim, msgspec.structs.replace(bill, standing=standing, **changes)


def refused(claim: Claim, bill: BillPayments) -> Refused:
    with pytest.raises(Refused) as caught:
        check_bill(claim, bill)
    return caught.value


COMMERCIAL = row(layer=5, statutory=False, payer="insurer-1")


def test_about_the_bill() -> None:
    check_bill(*stated())
    check_bill(*stated(COMMERCIAL, payment(1), payment(2, layer=2)))
    check_bill(*stated(COMMERCIAL, payment(1), payment(2, "insurer-2", 5, False)))


@pytest.mark.parametrize(
    "field, value",
    [
        ("bill", bytes(16)),
        ("hospital", "hospital-2"),
        ("total", point(7)),
        ("standing", ()),
        ("standing", (point(1),)),
        ("standing", (point(2), point(1))),
        ("standing", (point(1), point(3))),
        ("standing", (point(1), point(2), point(2))),
    ],
)
def test_about_another_state(field: str, value: Any) -> None:
    """Another bill, hospital or total; a payment left out, two in another order, another one, one too many."""
    claim, bill = stated(COMMERCIAL, payment(1), payment(2, layer=2))
    error = refused(msgspec.structs.replace(claim, **{field: value}), bill)
    assert (error.code, error.facts["field"]) == ("payments.other_state", field)


def test_every_field_that_the_bill_has_is_compared() -> None:
    """Of the bill's fields, those that stand in a claim too: a new one must be thought of here."""
    assert set(BillPayments.__struct_fields__) == {
        "handle", "hospital", "total", "currency", "standing", "reversals", "red",
    }  # fmt: skip


@pytest.mark.parametrize(
    "one, standing, changes, code",
    [
        (ROW, (), {"red": True}, "red_bill"),
        (row(currency="EUR"), (), {}, "other_currency"),
        (ROW, (payment(1, layer=2),), {}, "layer_closed"),
        (ROW, (payment(1),), {}, "paid_already"),
        (row(payer="bureau-2"), (payment(1),), {}, "paid_already"),
        (COMMERCIAL, (payment(1, "insurer-1", 5, False),), {}, "paid_already"),
        (row(layer=5), (payment(1, "insurer-1", 5, False),), {}, "paid_already"),
    ],
)
def test_takes_no_payment_now(one: Row, standing: tuple[Payment, ...], changes: dict[str, Any], code: str) -> None:
    assert refused(*stated(one, *standing, **changes)).code == f"payments.{code}"


def test_no_more_than_sixty_four() -> None:
    """As many as may stand before the last one pass, and one more has no place, however it is claimed."""
    others = [payment(number, f"insurer-{number}", 4, False) for number in range(2, MOST_PAYMENTS + 2)]
    check_bill(*stated(COMMERCIAL, *others[: MOST_PAYMENTS - 1]))
    assert refused(*stated(COMMERCIAL, *others)).code == "payments.too_many"


def test_a_deductible_wiped_by_waiting() -> None:
    """A payment is reversed, and its holder claims the same bill again before she takes the voucher back.

    The proof is true: the account's deductible is used up, and it is her second visit. With the voucher redeemed later
    she would have her deductible back and the bill paid without one.
    """
    message, outcome = settled()
    voucher, held, again = reversed_payment()
    bill = payments.pay(payments.registered(BILL, "hospital-1", message.claim.total, "CNY"), message.payment, "CNY")
    bill, posted = payments.reverse(bill, 1, "bureau-1", GROUP)
    assert posted == voucher

    claim = claim_of(again, row(visit=2))
    better, more = settlement.prove(claim, holdings_of(again, claim), derive_of("again", claim), rand_of("again"))
    settlement.verify(better, claim)
    assert more.paid[0] > outcome.paid[0] and more.deducted[0] == 0
    with pytest.raises(Refused) as caught:
        check_bill(claim, bill, [voucher])
    assert caught.value.code == "payments.unredeemed"
    with pytest.raises(ValueError, match="every voucher"):
        check_bill(claim, bill)  # a contract that forgot to look

    # taken back first, the same bill is paid as it was the first time
    redemption = redemption_of(voucher, held.account)
    _, following = reversal.prove(redemption, held, derive, rand_of("back"))
    answer = account.sign_update(BUREAU_ACCOUNT, b"\1" * 32, following.commitment)
    whole = replace(again, account=account.finish_update(BUREAU_ACCOUNT.of, following, answer))
    claim = claim_of(whole)
    check_bill(claim, bill, [payments.redeem(voucher)])
    _, same = settlement.prove(claim, holdings_of(whole, claim), derive_of("whole", claim), rand_of("whole"))
    assert (same.paid[0], same.deducted[0]) == (outcome.paid[0], outcome.deducted[0])


def test_whose_voucher_is_in_the_way() -> None:
    """That payer's, on that layer, in that year: also under a bill that this one replaces; nobody else's."""
    voucher, _, _ = reversed_payment()
    claim, bill = stated()
    old = msgspec.structs.replace(voucher, handle=bytes(16))
    with pytest.raises(Refused):
        check_bill(claim, bill, [old])
    check_bill(claim, bill, [payments.redeem(old)])
    for changes in ({"payer": "bureau-2"}, {"layer": 2}, {"year": 2024}):
        other = msgspec.structs.replace(old, payment=msgspec.structs.replace(old.payment, **changes))
        check_bill(claim, bill, [other])
    with pytest.raises(ValueError):
        check_bill(claim, bill, [voucher])  # of this handle, under which nothing was reversed


def test_then_it_can_be_paid(arkworks: Backend) -> None:
    """What passes here, `payments.pay` takes; afterwards the same claim is about an old state."""
    claim, bill = stated()
    check_bill(claim, bill)
    paid = payments.pay(bill, payment(3), "CNY")
    assert payments.paid(paid, arkworks)
    assert refused(claim, paid).code == "payments.paid_already"
    other = claim_of(holder(), COMMERCIAL)
    check_bill(other, bill)
    assert refused(other, paid).facts == {"handle": BILL.hex(), "field": "standing"}
