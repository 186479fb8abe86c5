"""zkp.reversal: a voucher is redeemed by its own holder, into her current account, for what it holds."""

from __future__ import annotations

import dataclasses
import random
from functools import cache
from typing import Any

import msgspec
import pytest

from tests.zkp import holders
from tests.zkp.claims import ROW, claim_of, derive_of, holdings_of, row, settled
from tests.zkp.holders import BUREAU_ACCOUNT, HOSPITAL, OTHER_HOSPITAL, Holder, rand_of
from wire import canonical, evidence
from wire.errors import DecodeError, Refused, VerificationError
from zkp import account, payments, reversal, settlement
from zkp.attributes import Credential
from zkp.batch import settle
from zkp.credentials import ACCOUNT
from zkp.groups import Backend, R, backend
from zkp.payments import Voucher
from zkp.policy import Row
from zkp.reversal import Holdings, Redeemed, Redemption

GROUP = backend()
IDENTITY = bytes([0xC0]) + bytes(47)
PLAIN = row(deductible=30_000)


@cache
def reversed_payment(one: Row = ROW) -> tuple[Voucher, Holdings, Holder]:
    """Anna's payment, renewed account and all, taken back by the ledger."""
    holder = holders.holder()
    message, outcome = settled(one)
    bill = payments.registered(message.claim.bill, "hospital-1", message.claim.total, "CNY")
    _, voucher = payments.reverse(payments.pay(bill, message.payment, "CNY"), 1, "bureau-1", GROUP)
    answer = account.sign_update(BUREAU_ACCOUNT, bytes(32), message.following)
    renewed = account.finish_update(BUREAU_ACCOUNT.of, outcome.following, answer)
    taken = outcome.paid[0], outcome.deducted[0]
    owner = settlement.secrets_of(derive_of("anna", message.claim), holder.account, *taken)["owner"]
    held = Holdings(holder.encounter, renewed, outcome.paid, outcome.deducted, owner)
    return voucher, held, dataclasses.replace(holder, account=renewed)


def redemption_of(voucher: Voucher, current: Credential, **changes: Any) -> Redemption:
    plain = Redemption(
        "demo", HOSPITAL.of.issuer, BUREAU_ACCOUNT.of.issuer, voucher, "hospital-1", "bureau-1", bytes(32), "HPAYMT",
        "grant-1", account.spent_serial(current),
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


def derive(label: str) -> bytes:
    return rand_of(f"derive/{label}")(64)


@cache
def redeemed(one: Row = ROW) -> tuple[Redeemed, account.Next]:
    voucher, held, _ = reversed_payment(one)
    return reversal.prove(redemption_of(voucher, held.account), held, derive, rand_of("redeem"))


@pytest.mark.parametrize("one", [ROW, PLAIN, row(visit=0, counts_visit=False)])
def test_what_was_taken_comes_back(one: Row) -> None:
    first, (_, held, _) = holders.holder().account.named(ACCOUNT), reversed_payment(one)
    message, following = redeemed(one)
    reversal.verify(message, message.redemption)
    for name in ("cap", "deductible", "visits"):
        assert following.values[name] == first[name]
    assert held.account.named(ACCOUNT)["cap"] != first["cap"]
    assert len(canonical.encode(message)) < 2_400


def test_as_evidence_and_by_the_other_backend(reference: Backend) -> None:
    message, _ = redeemed()
    again = evidence.read(canonical.encode(message))
    assert again == message
    reversal.verify(again, again.redemption, reference)


def test_settled_with_claims() -> None:
    message, _ = redeemed()
    claim, _ = settled()
    checks = [reversal.check(message, message.redemption), settlement.check(claim, claim.claim)]
    settle(checks, GROUP)


def test_the_account_goes_on() -> None:
    """The renewed account pays again."""
    message, following = redeemed()
    answer = account.sign_update(BUREAU_ACCOUNT, bytes(31) + b"\1", message.following)
    renewed = account.finish_update(BUREAU_ACCOUNT.of, following, answer)
    holder = dataclasses.replace(holders.holder(), account=renewed)
    claim = claim_of(holder)
    settlement.verify(
        settlement.prove(claim, holdings_of(holder, claim), derive_of("x", claim), rand_of("x"))[0], claim
    )


# --------------------------------------------------------------------------------------- false redemptions


def cheated(
    redemption: Redemption, held: Holdings, patch: pytest.MonkeyPatch, true: bool = False, **numbers: int
) -> None:
    """A prover without scruples: what it shows is what is asked, its next account holds `numbers`."""
    honest = reversal.bbs_presentation.show

    def show(credential: Credential, issued: Any, prefix: str, *rest: Any) -> Any:
        own = msgspec.structs.replace(credential, issuer=issued.issuer)
        shown, witness = honest(own, issued, prefix, *rest)
        said = {name: issued.schema.scalar(name, value) for name, value in redemption.disclosed[prefix].items()}
        return dataclasses.replace(shown, disclosed=said), witness

    def following(of: Redemption, own: Holdings, derived: Any, group: Backend) -> account.Next:
        current = dict(zip(ACCOUNT.names, own.account.scalars(ACCOUNT), strict=True))
        current["cap"] += own.paid[0]
        current["deductible"] += own.deducted[0]
        current["visits"] -= of.voucher.payment.visits
        current |= {"serial": 5, "blind": 7} | numbers
        made = group.encode(account.blind_issuance.commit(ACCOUNT, {n: v % R for n, v in current.items()}, group))

        class Made:
            commitment = made
            scalars = current

        return Made()  # type: ignore[return-value]

    with patch.context() as here:
        here.setattr(reversal.bbs_presentation, "show", show)
        here.setattr(reversal, "following_of", following)
        message, _ = reversal._prove(redemption, held, derive, rand_of("cheat"), GROUP)
    if true:
        reversal.verify(message, redemption)
        return
    with pytest.raises(VerificationError) as caught:
        reversal.verify(message, redemption)
    assert caught.value.code == "zkp.bad_proof"


def test_the_harness_makes_true_proofs(monkeypatch: pytest.MonkeyPatch) -> None:
    voucher, held, _ = reversed_payment()
    cheated(redemption_of(voucher, held.account), held, monkeypatch, true=True)


@pytest.mark.parametrize("numbers", [{"cap": 20_000_001}, {"deductible": 2**40 - 1}, {"visits": 5}, {"visits": 1}])
def test_more_than_the_voucher_holds(monkeypatch: pytest.MonkeyPatch, numbers: dict[str, int]) -> None:
    voucher, held, _ = reversed_payment()
    cheated(redemption_of(voucher, held.account), held, monkeypatch, **numbers)


@pytest.mark.parametrize("value", [263_846, 500_000, -5])
def test_another_amount_than_was_paid(monkeypatch: pytest.MonkeyPatch, value: int) -> None:
    voucher, held, _ = reversed_payment()
    false = dataclasses.replace(held, paid=(value, held.paid[1]))
    cheated(redemption_of(voucher, held.account), false, monkeypatch)
    with pytest.raises(VerificationError) as caught:
        reversal.prove(redemption_of(voucher, held.account), false, derive, rand_of("x"))
    assert caught.value.code == "zkp.wrong_opening"


def test_a_deductible_that_was_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A payment under a row's own deductible gives none back."""
    voucher, held, _ = reversed_payment(PLAIN)
    cheated(redemption_of(voucher, held.account), held, monkeypatch, deductible=110_000)


def test_somebody_elses_voucher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Berta, with Anna's encounter credential or with one of her own for another bill."""
    voucher, held, _ = reversed_payment()
    berta = holders.holder("berta")
    mixed = dataclasses.replace(held, account=berta.account)
    with pytest.raises(Refused) as caught:
        reversal.prove(redemption_of(voucher, berta.account), mixed, derive, rand_of("x"))
    assert caught.value.code == "settlement.other_holder"
    cheated(redemption_of(voucher, berta.account), mixed, monkeypatch)
    other = holders.encounter(berta.person, "berta", bill=bytes(16))
    cheated(redemption_of(voucher, berta.account), dataclasses.replace(mixed, encounter=other), monkeypatch)


def test_a_second_patient_in_the_bill(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hospital signed Berta into Anna's bill as well: the payment was Anna's, and so is the voucher."""
    voucher, held, _ = reversed_payment()
    berta = holders.holder("berta")
    mixed = dataclasses.replace(held, account=berta.account, encounter=berta.encounter)
    with pytest.raises(VerificationError) as caught:
        reversal.prove(redemption_of(voucher, berta.account), mixed, derive, rand_of("x"))
    assert caught.value.code == "zkp.wrong_opening"
    cheated(redemption_of(voucher, berta.account), mixed, monkeypatch)


@pytest.mark.parametrize("changes", [{"payer": "bureau-2"}, {"layer": 2}, {"year": 2024}])
def test_into_another_account(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    voucher, held, holder = reversed_payment()
    other = holders.account(holder.person, **changes)
    false = dataclasses.replace(held, account=other)
    with pytest.raises(Refused) as caught:
        reversal.prove(redemption_of(voucher, other), false, derive, rand_of("x"))
    assert caught.value.code == "settlement.other_attribute"
    cheated(redemption_of(voucher, other), false, monkeypatch)


def test_the_spent_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the account as it was before the payment: its serial is spent; under another serial it is no proof."""
    voucher, held, _ = reversed_payment()
    old = holders.holder().account
    false = dataclasses.replace(held, account=old)
    cheated(redemption_of(voucher, held.account), false, monkeypatch)
    assert redemption_of(voucher, old).serial == settled()[0].claim.serial


def test_another_hospitals_credential_of_that_bill(monkeypatch: pytest.MonkeyPatch) -> None:
    voucher, held, _ = reversed_payment()
    false = redemption_of(voucher, held.account, encounter_key=OTHER_HOSPITAL.of.issuer)
    cheated(false, held, monkeypatch)


def test_once() -> None:
    message, _ = redeemed()
    used = payments.redeem(message.redemption.voucher)
    with pytest.raises(Refused) as caught:
        payments.redeem(used)
    assert caught.value.code == "payments.redeemed"
    _, held, _ = reversed_payment()
    with pytest.raises(Refused):
        reversal.prove(redemption_of(used, held.account), held, derive, rand_of("x"))
    with pytest.raises(VerificationError):
        reversal.verify(message, msgspec.structs.replace(message.redemption, voucher=used))
    # a prover who does not care, and a verifier whose own voucher says so
    again, _ = reversal._prove(redemption_of(used, held.account), held, derive, rand_of("x"), GROUP)
    with pytest.raises(VerificationError) as second:
        reversal.verify(again, again.redemption)
    assert second.value.code == "payments.redeemed"


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": bytes(31) + b"\1"}, {"audience": "other"}, {"chain": "other"}, {"hospital": "hospital-2"},
        {"serial": bytes(31) + b"\1"}, {"purpose": "ELIGVER"}, {"grant": "other"}, {"number": 1}, {"handle": bytes(16)},
        {"payer": "other"}, {"layer": 3}, {"year": 2024}, {"visits": 0}, {"amount": None}, {"deductible": None},
        {"owner": None},
    ],
)  # fmt: skip
def test_replayed_under_another_statement(changes: dict[str, Any]) -> None:
    message, _ = redeemed()
    ((field, value),) = changes.items()
    old = message.redemption
    if field in ("number", "handle"):
        other = msgspec.structs.replace(old, voucher=msgspec.structs.replace(old.voucher, **changes))
    elif field in Redemption.__struct_fields__:
        other = msgspec.structs.replace(old, **changes)
    else:
        swapped = old.voucher.mirror if field in ("amount", "deductible", "owner") else value
        payment = msgspec.structs.replace(old.voucher.payment, **{field: swapped})
        other = msgspec.structs.replace(old, voucher=msgspec.structs.replace(old.voucher, payment=payment))
    with pytest.raises(VerificationError) as caught:
        reversal.verify(message, other)
    assert caught.value.code == "zkp.not_as_asked"
    with pytest.raises((VerificationError, DecodeError)):
        reversal.verify(msgspec.structs.replace(message, redemption=other), other)


def mutated(message: Redeemed, turn: int, chance: random.Random) -> bytes | Redeemed:
    """A flip, a cut, an extension, pieces that change places, x + r, the identity, a replay."""
    data, proof = canonical.encode(message), message.proof
    at, width = chance.randrange(len(data)), chance.choice([32, 48])
    one = chance.randrange(0, len(proof) - 2 * width, 16)
    two = chance.randrange(one + width, len(proof) - width + 1)
    swapped = proof[two : two + width] + proof[one + width : two] + proof[one : one + width]
    scalar = len(proof) - 32 * chance.randrange(1, 10)
    unreduced = (int.from_bytes(proof[scalar : scalar + 32], "big") + R) % 2**256
    serial = int.from_bytes(message.redemption.serial, "big") + R
    return (
        data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :],
        data[:at],
        data + bytes(chance.choice([1, 32, 48])),
        with_proof(message, proof[:one]),
        with_proof(message, proof[:one] + swapped + proof[two + width :]),
        with_proof(message, proof[:scalar] + unreduced.to_bytes(32, "big") + proof[scalar + 32 :]),
        msgspec.structs.replace(
            message, redemption=msgspec.structs.replace(message.redemption, serial=serial.to_bytes(32, "big"))
        ),
        with_proof(message, proof[:one] + proof[one + 1 : one + width] + proof[one : one + 1] + proof[one + width :]),
        with_proof(message, proof[: 48 * (one // 48)] + IDENTITY + proof[48 * (one // 48) + 48 :]),
        msgspec.structs.replace(message, following=chance.choice([IDENTITY, message.redemption.voucher.mirror])),
        msgspec.structs.replace(message, redemption=elsewhere(message.redemption, chance)),
    )[turn % 11]


def elsewhere(redemption: Redemption, chance: random.Random) -> Redemption:
    """Another statement: a nonce, an audience, a bill, a layer, a payer, a year, a key, an amount."""
    replace, voucher = msgspec.structs.replace, redemption.voucher
    field, value = chance.choice(
        [
            ("nonce", chance.randbytes(32)), ("audience", "other"), ("handle", chance.randbytes(16)), ("layer", 3),
            ("payer", "other"), ("year", 2024), ("visits", 0), ("statutory", False), ("amount", voucher.mirror),
            ("encounter_key", redemption.account_key), ("account_key", redemption.encounter_key),
        ]
    )  # fmt: skip
    if field in Redemption.__struct_fields__:
        return replace(redemption, **{field: value})
    if field == "handle":
        return replace(redemption, voucher=replace(voucher, handle=value))
    return replace(redemption, voucher=replace(voucher, payment=replace(voucher.payment, **{field: value})))


def campaign(count: int, seed: int) -> None:
    """Refused, and by no other error: as the ledger checks it, and as whoever reads it."""
    message, _ = redeemed()
    chance = random.Random(seed)
    for turn in range(count):
        changed = mutated(message, turn, chance)
        try:
            read = canonical.decode(Redeemed, changed) if isinstance(changed, bytes) else changed
        except DecodeError:
            continue
        assert read != message
        for statement in (message.redemption, read.redemption):
            with pytest.raises((VerificationError, DecodeError)):
                reversal.verify(read, statement)


def with_proof(message: Redeemed, proof: bytes) -> Redeemed:
    return msgspec.structs.replace(message, proof=proof)


def test_five_hundred_mutations() -> None:
    campaign(500, 5)


@pytest.mark.long
def test_ten_thousand_mutations() -> None:
    campaign(10_000, 6)


def test_identities_and_lengths() -> None:
    message, _ = redeemed()
    with pytest.raises(VerificationError):
        reversal.verify(msgspec.structs.replace(message, following=IDENTITY), message.redemption)
    for start in range(0, len(message.proof) - 48, 48):
        cut = message.proof[:start] + IDENTITY + message.proof[start + 48 :]
        with pytest.raises(VerificationError):
            reversal.verify(msgspec.structs.replace(message, proof=cut), message.redemption)
    for proof in (message.proof[:-1], message.proof + b"\0", b""):
        with pytest.raises(VerificationError):
            reversal.verify(msgspec.structs.replace(message, proof=proof), message.redemption)


def test_secrets_are_not_shown() -> None:
    _, held, _ = reversed_payment()
    assert repr(held).startswith("<")
