"""zkp.wallet: every step survives a crash, and a lost wallet comes back from its seed and the ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.zkp import claims, holders
from tests.zkp.claims import ROW, TOTAL_BLINDING
from tests.zkp.holders import BILL, BUREAU_ACCOUNT, BUREAU_PERSON, HOSPITAL, SCOPE, occasion, rand_of
from wire import canonical
from wire.errors import DecodeError, MedveilError, Refused, VerificationError
from zkp import account, issuance, membership, payments, reversal, settlement, wallet, wallet_file
from zkp.claim import Claim
from zkp.credentials import ACCOUNT, PERSON
from zkp.groups import backend
from zkp.policy import Row
from zkp.reversal import Redeemed, Redemption
from zkp.settlement import Settlement
from zkp.wallet import Final, Posted, Prepared, Submitted, Wallet

GROUP = backend()
SEED = hashlib.sha256(b"a seed").digest()
CHEAP = wallet_file.Cost(1, 128, 1)


class Bureau:
    """Issues what is asked for, and keeps what it has signed; hospital included."""

    def __init__(self) -> None:
        self.persons: dict[bytes, bytes] = {}
        self.accounts: dict[bytes, bytes] = {}
        self.encounters: dict[bytes, bytes] = {}
        self.asked = 0

    def fill(self, empty: Wallet) -> Wallet:
        """A holder gets (or gets again) her three credentials, with requests made from the wallet's seed."""
        self.asked += 1
        when = occasion(f"asked {self.asked}")
        person, own, bill = holders.person_values(), holders.account_values(), holders.encounter_values()
        first = issuance.request_person(BUREAU_PERSON.of, when, wallet.randomness(empty, "person"))
        answer = issuance.issue_person(BUREAU_PERSON, when, first.request, b"anna", person, self.persons)
        self.persons[b"anna"] = first.request.commitment
        card = issuance.finish(first, person, answer)

        disclosed = {name: card.get(PERSON, name) for name in ("insutype", "psn_type")}
        second = issuance.request_account(
            BUREAU_ACCOUNT.of, when, SCOPE, card, BUREAU_PERSON.of, tuple(disclosed),
            wallet.randomness(empty, "account", SCOPE.payer, str(SCOPE.layer), str(SCOPE.year)),
        )  # fmt: skip
        answer = issuance.open_account(
            BUREAU_ACCOUNT, BUREAU_PERSON.of, when, SCOPE, second.request, disclosed, own, self.accounts
        )
        self.accounts[second.request.nullifier] = second.request.commitment
        opened = issuance.finish(second, own, answer)

        third = issuance.request_encounter(
            HOSPITAL.of, when, card, BUREAU_PERSON.of, (), wallet.randomness(empty, "encounter", BILL.hex())
        )
        answer = issuance.issue_encounter(HOSPITAL, BUREAU_PERSON.of, when, third.request, {}, bill, self.encounters)
        self.encounters[BILL] = third.request.commitment
        encounter = issuance.finish(third, bill, answer)
        return wallet.with_bill(wallet.with_account(wallet.with_person(empty, card), opened), encounter, TOTAL_BLINDING)


class Ledger:
    """Just what settlement needs of one: verified ops by serial, the bill's state, vouchers, the bureau's answers."""

    def __init__(self) -> None:
        total = GROUP.encode(claims.pedersen.commit(420_055, TOTAL_BLINDING))
        self.bill = payments.registered(BILL, "hospital-1", total, "CNY")
        self.ops: dict[bytes, Posted] = {}
        self.signed = 0

    def submit(self, op: Settlement | Redeemed) -> bytes:
        """Verify, book, make final. The same op again: the same id."""
        statement = op.claim if isinstance(op, Settlement) else op.redemption
        op_id = hashlib.sha256(canonical.encode(op)).digest()
        known = self.ops.get(statement.serial)
        if known is not None:
            if known.op_id == op_id:
                return op_id
            raise Refused("wallet.behind")  # any refusal will do: the serial is spent
        if isinstance(op, Settlement):
            settlement.verify(
                op, msgspec.structs.replace(op.claim, standing=tuple(p.amount for p in self.bill.standing))
            )
            self.bill = payments.pay(self.bill, op.payment, "CNY")
        else:
            reversal.verify(op, op.redemption)
        self.ops[statement.serial] = Posted(op, op_id, None)
        return op_id

    def sign(self, op_id: bytes) -> None:
        """The bureau answers a final op."""
        for serial, posted in self.ops.items():
            if posted.op_id == op_id:
                self.signed += 1
                answer = account.sign_update(BUREAU_ACCOUNT, op_id, posted.op.following)
                account.check_update(BUREAU_ACCOUNT.of, posted.op.following, answer)
                assert posted.answer in (None, answer)  # the same on every retry
                self.ops[serial] = msgspec.structs.replace(posted, answer=answer)

    def spent(self, serial: bytes) -> Posted | None:
        return self.ops.get(serial)


def filled() -> tuple[Wallet, Ledger, Bureau]:
    bureau = Bureau()
    return bureau.fill(wallet.restored("demo", SEED)), Ledger(), bureau


def set_row(held: Wallet) -> membership.Row:
    assert held.person is not None
    handle = held.person.get(PERSON, "handle")
    assert isinstance(handle, bytes)
    return membership.find(claims.published("active", "active", (bytes(15) + b"\1", handle)), handle)


def claim_for(held: Wallet, ledger: Ledger, row: Row = ROW, **changes: Any) -> Claim:
    assert held.person is not None
    own = wallet.account_of(held, row.payer, row.layer, row.year)
    holder = holders.Holder("anna", held.person, own.current, held.bills[0].encounter)
    standing = tuple(one.amount for one in ledger.bill.standing)
    claim = claims.claim_of(holder, row, standing, **changes)
    return msgspec.structs.replace(claim, total=ledger.bill.total)


def redemption_for(held: Wallet, voucher: payments.Voucher) -> Redemption:
    own = held.accounts[0].current
    return Redemption(
        "demo", HOSPITAL.of.issuer, BUREAU_ACCOUNT.of.issuer, voucher, "hospital-1", "bureau-1", bytes(32), "HPAYMT",
        "grant-1", account.spent_serial(own),
    )  # fmt: skip


def pay(held: Wallet, ledger: Ledger, row: Row = ROW, **changes: Any) -> Wallet:
    """All steps without a crash."""
    held, message = wallet.prepare_settlement(
        held, claim_for(held, ledger, row, **changes), set_row(held), None, rand_of("pay")
    )
    op_id = ledger.submit(message)
    held = wallet.submitted(held, message, op_id)
    posted = ledger.spent(message.claim.serial)
    assert posted is not None
    held = wallet.final(held, posted)
    assert isinstance(held.accounts[0].step, Final)
    ledger.sign(op_id)
    posted = ledger.spent(message.claim.serial)
    assert posted is not None
    return wallet.updated(held, posted)


def reverse(ledger: Ledger) -> payments.Voucher:
    ledger.bill, voucher = payments.reverse(ledger.bill, ROW.layer, ROW.payer, GROUP)
    return voucher


def redeem(held: Wallet, ledger: Ledger, voucher: payments.Voucher) -> Wallet:
    held, message = wallet.prepare_redemption(held, redemption_for(held, voucher), rand_of("redeem"))
    op_id = ledger.submit(message)
    ledger.sign(op_id)
    return wallet.catch_up(held, ledger.spent)


def numbers(held: Wallet) -> tuple[Any, ...]:
    own = held.accounts[0].current.named(ACCOUNT)
    return own["cap"], own["deductible"], own["visits"]


FIRST = (20_000_000, 80_000, 0)
AFTER = (20_000_000 - 263_845, 0, 1)


def test_all_steps() -> None:
    held, ledger, _ = filled()
    assert numbers(held) == FIRST
    paid = pay(held, ledger)
    assert numbers(paid) == AFTER and paid.accounts[0].step is None
    booking = wallet.booking_of(paid, ledger.bill.standing[0].amount)
    assert (booking.paid, booking.deducted) == (263_845, 80_000)
    opening, payment = wallet.opening_for(booking), ledger.bill.standing[0]
    payments.check_opening(opening, payment, GROUP)
    for wrong in (
        msgspec.structs.replace(opening, paid=263_844),
        msgspec.structs.replace(opening, blinding=bytes(32)),
        msgspec.structs.replace(opening, amount=ledger.bill.total),
    ):
        with pytest.raises(VerificationError):
            payments.check_opening(wrong, payment, GROUP)
    back = redeem(paid, ledger, reverse(ledger))
    assert numbers(back) == FIRST
    again = pay(back, ledger)
    assert numbers(again) == AFTER
    assert len(ledger.ops) == 3


# ---------------------------------------------------------------------------------------------- crashes


class Crash(Exception):
    """The process is gone."""


class Process:
    """A holder's program: saves, acts, and dies at the `dies_at`-th moment at which something has been done."""

    def __init__(self, held: Wallet, ledger: Ledger, dies_at: int) -> None:
        self.disk = canonical.encode(held)
        self.ledger = ledger
        self.left = dies_at

    def moment(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Crash

    def save(self, held: Wallet) -> Wallet:
        self.moment()  # died before it was saved
        self.disk = canonical.encode(held)
        self.moment()  # died just after
        return held

    def run(self, statement: Callable[[Wallet], Claim | Redemption], rand: str) -> Wallet:
        """Start from what was saved, whatever that is, and go on until the account is the next one."""
        held = canonical.decode(Wallet, self.disk)
        held = self.save(wallet.catch_up(held, self.ledger.spent))
        step = held.accounts[0].step
        if step is None and self.ledger.ops and self.finished:
            return held
        if step is None:
            asked = statement(held)
            if isinstance(asked, Claim):
                held, _ = wallet.prepare_settlement(held, asked, set_row(held), None, rand_of(rand))
            else:
                held, _ = wallet.prepare_redemption(held, asked, rand_of(rand))
            held = self.save(held)
            step = held.accounts[0].step
        assert step is not None
        if isinstance(step, (Prepared, Submitted)):
            op_id = self.ledger.submit(step.op)
            self.moment()
            held = self.save(wallet.submitted(held, step.op, op_id))
        serial = (step.op.claim if isinstance(step.op, Settlement) else step.op.redemption).serial
        posted = self.ledger.spent(serial)
        assert posted is not None
        held = self.save(wallet.final(held, posted))
        self.ledger.sign(posted.op_id)
        self.moment()
        posted = self.ledger.spent(serial)
        assert posted is not None
        return self.save(wallet.updated(held, posted))

    finished = False


def outcome_of(process: Process, statement: Callable[[Wallet], Claim | Redemption], count: int) -> tuple[int, Wallet]:
    """Run, and run again after each crash; returns how many crashes there were."""
    crashes = 0
    while True:
        process.finished = len(process.ledger.ops) == count
        try:
            return crashes, process.run(statement, f"try {crashes}")
        except Crash:
            crashes += 1


def test_a_crash_at_every_moment_of_a_settlement() -> None:
    moments = 0
    for dies_at in range(1, 30):
        held, ledger, _ = filled()
        process = Process(held, ledger, dies_at)
        crashes, done = outcome_of(process, lambda own, ledger=ledger: claim_for(own, ledger), 1)  # type: ignore[misc]
        assert numbers(done) == AFTER and len(ledger.ops) == 1 and len(done.bookings) == 1
        assert canonical.decode(Wallet, process.disk) == done
        if not crashes:
            break
        moments += 1
    assert 9 < moments < 29


def test_a_crash_at_every_moment_of_a_redemption() -> None:
    moments = 0
    for dies_at in range(1, 30):
        held, ledger, _ = filled()
        paid = pay(held, ledger)
        voucher = reverse(ledger)
        process = Process(paid, ledger, dies_at)
        crashes, done = outcome_of(process, lambda own, voucher=voucher: redemption_for(own, voucher), 2)  # type: ignore[misc]
        assert numbers(done) == FIRST and len(ledger.ops) == 2
        if not crashes:
            break
        moments += 1
    assert 9 < moments < 29


def test_lost_and_found() -> None:
    """Nothing is left but the seed: the issuers give the same credentials, the ledger the rest."""
    held, ledger, bureau = filled()
    paid = pay(held, ledger)
    voucher = reverse(ledger)
    back = redeem(paid, ledger, voucher)
    last = pay(back, ledger, nonce=bytes(32))
    found = bureau.fill(wallet.restored("demo", SEED))
    assert found.person == held.person and found.bills == held.bills and found.accounts == held.accounts
    assert wallet.catch_up(found, ledger.spent) == last


def test_an_older_copy_of_the_file() -> None:
    held, ledger, _ = filled()
    paid = pay(held, ledger)
    assert wallet.catch_up(held, ledger.spent) == paid
    assert wallet.catch_up(paid, ledger.spent) == paid
    with pytest.raises(Refused) as caught:
        wallet.prepare_settlement(paid, claim_for(held, ledger), set_row(paid), None, rand_of("x"))
    assert caught.value.code == "wallet.behind"


def test_final_but_not_signed_yet() -> None:
    held, ledger, _ = filled()
    held, message = wallet.prepare_settlement(held, claim_for(held, ledger), set_row(held), None, rand_of("x"))
    ledger.submit(message)
    waiting = wallet.catch_up(held, ledger.spent)
    assert isinstance(waiting.accounts[0].step, Final)
    posted = ledger.spent(message.claim.serial)
    assert posted is not None
    with pytest.raises(Refused) as caught:
        wallet.updated(waiting, posted)
    assert caught.value.code == "wallet.not_signed"
    ledger.sign(posted.op_id)
    assert numbers(wallet.catch_up(waiting, ledger.spent)) == AFTER


# ------------------------------------------------------------------------------------------------ order


def test_one_step_at_a_time() -> None:
    held, ledger, _ = filled()
    claim = claim_for(held, ledger)
    held, message = wallet.prepare_settlement(held, claim, set_row(held), None, rand_of("x"))
    same, again = wallet.prepare_settlement(held, claim, set_row(held), None, rand_of("y"))
    assert (same, again) == (held, message)
    other = msgspec.structs.replace(claim, nonce=bytes(32))
    with pytest.raises(Refused) as caught:
        wallet.prepare_settlement(held, other, set_row(held), None, rand_of("x"))
    assert caught.value.code == "wallet.step_open"
    idle = wallet.abandoned(held, message)
    held, moved = wallet.prepare_settlement(idle, other, set_row(held), None, rand_of("x"))
    for step in (
        lambda: wallet.submitted(held, message, bytes(32)),
        lambda: wallet.abandoned(held, message),
        lambda: wallet.updated(idle, Posted(message, bytes(32), None)),
    ):
        with pytest.raises(Refused) as caught:
            step()
        assert caught.value.code == "wallet.other_step"
    gone = wallet.final(held, Posted(moved, bytes(32), None))
    with pytest.raises(Refused):
        wallet.abandoned(gone, moved)
    with pytest.raises(Refused):
        wallet.submitted(gone, moved, bytes(32))


def test_abandoned_and_yet_taken() -> None:
    """The wallet gave an op up, and prepared another; the ledger had taken the first: that one counts."""
    held, ledger, _ = filled()
    held, first = wallet.prepare_settlement(held, claim_for(held, ledger), set_row(held), None, rand_of("x"))
    other = claim_for(held, ledger, nonce=bytes(32))
    held, _ = wallet.prepare_settlement(wallet.abandoned(held, first), other, set_row(held), None, rand_of("x"))
    ledger.sign(ledger.submit(first))
    assert numbers(wallet.catch_up(held, ledger.spent)) == AFTER


def test_two_statements_never_share_a_blinding() -> None:
    held, ledger, _ = filled()
    claim = claim_for(held, ledger)
    other = msgspec.structs.replace(claim, nonce=bytes(32))
    for label in ("paid", "deducted", "serial", "blind", "note"):
        assert wallet.deriver(held, claim)(label) != wallet.deriver(held, other)(label)
        assert wallet.deriver(held, claim)(label) == wallet.deriver(held, claim)(label)
    assert len({wallet.deriver(held, claim)(label) for label in ("paid", "deducted", "serial", "blind", "note")}) == 5
    assert wallet.randomness(held, "account", "a")(32) != wallet.randomness(held, "account", "b")(32)
    assert wallet.randomness(held, "ab")(32) != wallet.randomness(held, "a", "b")(32)


# ------------------------------------------------------------------------------- what is not the wallet's


def refused(step: Callable[[], object]) -> str:
    with pytest.raises(MedveilError) as caught:
        step()
    for language in ("en", "zh"):
        assert SEED.hex() not in caught.value.text(language)
    return caught.value.code


def test_what_is_not_there() -> None:
    held, ledger, _ = filled()
    rows = set_row(held)
    claim = claim_for(held, ledger)

    def settle(own: Wallet, asked: Claim) -> Callable[[], object]:
        return lambda: wallet.prepare_settlement(own, asked, rows, None, rand_of("x"))

    assert refused(settle(msgspec.structs.replace(held, accounts=()), claim)) == "wallet.no_account"
    assert refused(settle(msgspec.structs.replace(held, bills=()), claim)) == "wallet.no_bill"
    assert refused(settle(msgspec.structs.replace(held, person=None), claim)) == "wallet.no_person"
    strange = msgspec.structs.replace(claim, standing=(ledger.bill.total,))
    assert refused(settle(held, strange)) == "wallet.unknown_payment"
    assert refused(lambda: wallet.with_account(held, held.accounts[0].current)) == "wallet.account_there"
    assert len(wallet.with_bill(held, held.bills[0].encounter, 5).bills) == 1


def test_an_op_of_somebody_else_with_this_serial() -> None:
    """A copy of the account credential in other hands: the walk says so, and changes nothing."""
    held, ledger, _ = filled()
    thief = msgspec.structs.replace(held, seed=bytes(32))
    _, message = wallet.prepare_settlement(thief, claim_for(thief, ledger), set_row(thief), None, rand_of("x"))
    ledger.sign(ledger.submit(message))
    assert refused(lambda: wallet.catch_up(held, ledger.spent)) == "settlement.other_note"


def test_another_answer_than_the_bureaus() -> None:
    held, ledger, _ = filled()
    held, message = wallet.prepare_settlement(held, claim_for(held, ledger), set_row(held), None, rand_of("x"))
    op_id = ledger.submit(message)
    wrong = account.sign_update(BUREAU_ACCOUNT, bytes(32), message.following)
    right = account.sign_update(BUREAU_ACCOUNT, op_id, message.following)
    mixed = msgspec.structs.replace(wrong, shares=right.shares)
    assert refused(lambda: wallet.updated(held, Posted(message, op_id, mixed))) == "credentials.bad_signature"
    other = msgspec.structs.replace(message, following=message.paid)
    assert refused(lambda: wallet.catch_up(held, lambda _: Posted(other, op_id, right))) == "wallet.not_ours"


# --------------------------------------------------------------------------------------------- the file


def test_sealed() -> None:
    held, ledger, _ = filled()
    held = pay(held, ledger)
    data = wallet_file.seal(held, "ein langes Wort", rand_of("seal"), CHEAP)
    assert wallet_file.unseal(data, "ein langes Wort") == held
    assert (
        wallet_file.unseal(wallet_file.seal(held, "Ku\u0308che 1234", rand_of("x"), CHEAP), "K\u00fcche 1234") == held
    )
    strong = canonical.decode(wallet_file.WalletFile, wallet_file.seal(held, "ein langes Wort", rand_of("seal"))).cost
    assert strong == wallet_file.STRONG == wallet_file.Cost(3, 64 * 1024, 4)
    for secret in (held.seed, held.bills[0].total_blinding, held.accounts[0].current.signature):
        assert secret not in data and secret in canonical.encode(held)
    assert refused(lambda: wallet_file.unseal(data, "ein anderes Wort")) == "wallet.cannot_open"
    assert refused(lambda: wallet_file.seal(held, "kurz", rand_of("x"), CHEAP)) == "wallet.short_passphrase"


def test_an_altered_file() -> None:
    data = wallet_file.seal(wallet.new("demo", rand_of("new")), "ein langes Wort", rand_of("seal"), CHEAP)
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises((DecodeError, VerificationError, Refused)):
            wallet_file.unseal(changed, "ein langes Wort")
    for changed in (data[:-1], data + b"\0", b""):
        with pytest.raises(DecodeError):
            wallet_file.unseal(changed, "ein langes Wort")


def test_a_file_of_a_later_version() -> None:
    file = wallet_file.WalletFile(2, bytes(16), CHEAP, bytes(12), b"")
    assert refused(lambda: wallet_file.unseal(canonical.encode(file), "ein langes Wort")) == "wallet.newer_file"


def test_a_file_that_asks_for_too_much_memory() -> None:
    data = wallet_file.seal(wallet.new("demo", rand_of("new")), "ein langes Wort", rand_of("seal"), CHEAP)
    file = canonical.decode(wallet_file.WalletFile, data)
    greedy = msgspec.structs.replace(file, cost=wallet_file.Cost(32, 2**21, 1))
    assert refused(lambda: wallet_file.unseal(canonical.encode(greedy), "x" * 9)) == "wire.not_canonical"


def test_nothing_is_shown() -> None:
    held, ledger, _ = filled()
    held = pay(held, ledger)
    shown = f"{held!r} {held.accounts[0]!r} {held.bookings[0]!r} {held.bills[0]!r}"
    shown += f" {wallet.opening_for(held.bookings[0])!r}"
    assert shown == "Wallet(...) Account(...) Booking(...) Bill(...) PaymentOpening(...)"
