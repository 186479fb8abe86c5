"""zkp.payments: each layer pays once, from the bottom up; reversals from the top down; red means no more."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire import canonical
from wire.errors import DecodeError, Refused
from zkp import payments, pedersen
from zkp.groups import Backend, backend
from zkp.payments import BillPayments, Payment, Voucher, check_open, pay, redeem, reverse, turn_red

HANDLE = bytes(range(16))


def point(value: int) -> bytes:
    return backend().encode(pedersen.commit(value, 1000 + value))


def bill() -> BillPayments:
    return payments.registered(HANDLE, "hospital-a", point(10_000), "CNY")


def payment(layer: int, payer: str = "fund", value: int = 1, **changes: object) -> Payment:
    plain = Payment(payer, layer, layer < 10, 2026, point(value), None, 1, point(77))
    return msgspec.structs.replace(plain, **changes)


def code(refused: pytest.ExceptionInfo[Refused]) -> str:
    assert HANDLE.hex() in refused.value.text() and HANDLE.hex() in refused.value.text("zh")
    return refused.value.code


def test_layers_from_the_bottom_up() -> None:
    state = bill()
    for one in (payment(1), payment(2), payment(10, "insurer-a"), payment(10, "insurer-b"), payment(12, "insurer-a")):
        state = pay(state, one, "CNY")
    assert [one.layer for one in state.standing] == [1, 2, 10, 10, 12]
    assert canonical.decode(BillPayments, canonical.encode(state)) == state


@pytest.mark.parametrize("again", [payment(1), payment(1, "fund-of-another-city"), payment(1, statutory=False)])
def test_a_statutory_layer_pays_once_whoever_asks(again: Payment) -> None:
    with pytest.raises(Refused) as caught:
        pay(pay(bill(), payment(1), "CNY"), again, "CNY")
    assert code(caught) == "payments.paid_already"


def test_a_commercial_layer_pays_once_a_payer() -> None:
    state = pay(pay(bill(), payment(10, "insurer-a"), "CNY"), payment(10, "insurer-b"), "CNY")
    for payer in ("insurer-a", "insurer-b"):
        with pytest.raises(Refused) as caught:
            pay(state, payment(10, payer), "CNY")
        assert code(caught) == "payments.paid_already"
    with pytest.raises(Refused):  # a layer is of one kind
        pay(state, payment(10, "fund", statutory=True), "CNY")


def test_a_paid_layer_closes_the_lower_ones() -> None:
    state = pay(bill(), payment(2), "CNY")
    with pytest.raises(Refused) as caught:
        pay(state, payment(1), "CNY")
    assert code(caught) == "payments.layer_closed"


def test_another_currency() -> None:
    with pytest.raises(Refused) as caught:
        pay(bill(), payment(1), "EUR")
    assert code(caught) == "payments.other_currency"


def test_not_endlessly_many() -> None:
    state = bill()
    for number in range(payments.MOST_PAYMENTS):
        state = pay(state, payment(10, f"insurer-{number}"), "CNY")
    with pytest.raises(Refused) as caught:
        pay(state, payment(11, "insurer"), "CNY")
    assert code(caught) == "payments.too_many"


def test_reversal_from_the_top_down(either: Backend) -> None:
    state = pay(pay(bill(), payment(1, value=5), "CNY"), payment(2, value=7), "CNY")
    with pytest.raises(Refused) as caught:
        reverse(state, 1, "fund", either)
    assert code(caught) == "payments.reverse_from_the_top"
    state, second = reverse(state, 2, "fund", either)
    state, first = reverse(state, 1, "fund", either)
    assert state == msgspec.structs.replace(bill(), reversals=2)
    assert (first.payment, second.payment) == (payment(1, value=5), payment(2, value=7))
    cancelled = either.add(either.decode(first.mirror), either.decode(first.payment.amount))
    assert either.is_identity(cancelled)
    with pytest.raises(Refused) as caught:
        reverse(state, 1, "fund", either)
    assert code(caught) == "payments.not_paid"


def test_a_freed_layer_pays_again(arkworks: Backend) -> None:
    state, voucher = reverse(pay(bill(), payment(1), "CNY"), 1, "fund", arkworks)
    state, again = reverse(pay(state, payment(1), "CNY"), 1, "fund", arkworks)
    assert voucher.payment == again.payment and voucher.id != again.id  # two reversals, two vouchers
    assert pay(state, payment(1), "CNY").reversals == 2


def test_one_insurer_of_several_is_reversed(arkworks: Backend) -> None:
    state = pay(pay(bill(), payment(10, "insurer-a"), "CNY"), payment(10, "insurer-b"), "CNY")
    state, voucher = reverse(state, 10, "insurer-a", arkworks)
    assert [one.payer for one in state.standing] == ["insurer-b"] and voucher.payment.payer == "insurer-a"
    with pytest.raises(Refused):
        reverse(state, 10, "insurer-a", arkworks)


def test_red(arkworks: Backend) -> None:
    paid = pay(bill(), payment(1), "CNY")
    with pytest.raises(Refused) as caught:
        turn_red(paid)
    assert code(caught) == "payments.standing"
    red = turn_red(reverse(paid, 1, "fund", arkworks)[0])
    for step in (lambda: pay(red, payment(2), "CNY"), lambda: turn_red(red)):
        with pytest.raises(Refused) as caught:
            step()
        assert code(caught) == "payments.red_bill"


def test_a_voucher_is_redeemed_once(arkworks: Backend) -> None:
    _, voucher = reverse(pay(bill(), payment(1), "CNY"), 1, "fund", arkworks)
    used = redeem(voucher)
    assert used.id == voucher.id and used.redeemed
    with pytest.raises(Refused) as caught:
        redeem(used)
    assert code(caught) == "payments.redeemed"
    assert canonical.decode(Voucher, canonical.encode(used)) == used


def test_what_stands_paid(either: Backend) -> None:
    state = pay(pay(bill(), payment(1, value=5), "CNY"), payment(2, value=7), "CNY")
    total = either.identity()
    for one in payments.paid(state, either):
        total = either.add(total, one)
    assert total == pedersen.commit(12, 2012, either)
    with pytest.raises(DecodeError):
        payments.paid(pay(bill(), payment(1, amount=bytes(48)), "CNY"), either)


@dataclass
class Plain:
    """The rule once more, as a list of (layer, payer)."""

    paid: list[tuple[int, str]]

    def may(self, layer: int, payer: str) -> bool:
        if any(other > layer for other, _ in self.paid):
            return False
        return (layer, payer) not in self.paid if layer >= 10 else layer not in [other for other, _ in self.paid]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([1, 2, 3, 10, 11]), st.sampled_from(["a", "b"])), max_size=24))
def test_any_order_of_payments_and_reversals(steps: list[tuple[bool, int, str]]) -> None:
    state, plain = bill(), Plain([])
    for back, layer, payer in steps:
        may = (
            (layer, payer) in plain.paid and all(other <= layer for other, _ in plain.paid)
            if back
            else plain.may(layer, payer)
        )
        try:
            if back:
                state, _ = reverse(state, layer, payer, backend())
                plain.paid.remove((layer, payer))
            else:
                check_open(state, payer, layer, layer < 10, "CNY")
                state = pay(state, payment(layer, payer), "CNY")
                plain.paid.append((layer, payer))
            assert may
        except Refused:
            assert not may
        assert [(one.layer, one.payer) for one in state.standing] == plain.paid
