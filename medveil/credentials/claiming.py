"""Questions about one bill's payment, and the holder's answers: settlement, and redemption of a reversed payment.

    contract   `SettlementQuestion`, `RedemptionQuestion`    V -> H    what it has of the bill, and a fresh nonce
    holder     `zkp.settlement.Settlement`, `Redeemed`       H -> V    from her wallet, which notes the step first

What a claim says in the open follows from question, row, service day and spent serial (`claim_of`): prover and verifier
compute it alike. The same question gets the same answer until the account has gone on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from medveil.credentials.files import EncodedKey, SetFile
from medveil.credentials.folder import Rand
from medveil.credentials.sets import diagnosis_of, row_of
from medveil.credentials.wallets import opened
from wire.canonical import Wire
from wire.dates import date_of
from wire.errors import DecodeError, Refused, VerificationError
from wire.evidence import Header, register
from wire.identifiers import Hash, Name
from zkp import account
from zkp import policy as policies
from zkp.attributes import Value
from zkp.claim import Claim, Purpose, check_bill
from zkp.credentials import ACCOUNT, ENCOUNTER, PERSON
from zkp.membership import Member, SetKey
from zkp.payments import BillPayments, Voucher
from zkp.policy import Case, KeyCode, Row
from zkp.reversal import Redeemed, Redemption
from zkp.settlement import Settlement
from zkp.wallet import Wallet, account_of, bill_of, prepare_redemption, prepare_settlement


class SettlementQuestion(Wire, frozen=True, tag="medveil.settlement_question"):
    """V -> H. Public. rows: of one payer and layer, the one that fits is the holder's to find; bill: what stands paid;
    vouchers: of its reversals, and of the bills in whose place it stands; level: the hospital's in the registry;
    diagnoses: the sets that rows ask for."""

    header: Header
    chain: Name
    person_key: EncodedKey
    encounter_key: EncodedKey
    account_key: EncodedKey
    active: SetKey
    diagnoses: tuple[SetKey, ...]
    rows: Annotated[tuple[Row, ...], msgspec.Meta(min_length=1)]
    bill: BillPayments
    vouchers: tuple[Voucher, ...]
    level: KeyCode
    purpose: Purpose
    grant: Name
    nonce: Hash


class RedemptionQuestion(Wire, frozen=True, tag="medveil.redemption_question"):
    """V -> H. Public. voucher: as it is posted."""

    header: Header
    chain: Name
    encounter_key: EncodedKey
    account_key: EncodedKey
    voucher: Voucher
    hospital: Name
    purpose: Purpose
    grant: Name
    nonce: Hash


SETTLEMENT_QUESTION: Final = register("settlement-question", 1, SettlementQuestion)
REDEMPTION_QUESTION: Final = register("redemption-question", 1, RedemptionQuestion)


# ------------------------------------------------------------------------------------- for both sides


def claim_of(question: SettlementQuestion, row: Row, service_day: int, serial: bytes) -> Claim:
    """The claim under one of the question's rows. Raises VerificationError for a row that is none of them; Refused if
    the set that it asks for is not the question's."""
    if row not in question.rows:
        raise VerificationError("zkp.not_as_asked", field="row")
    diagnoses = None
    if row.diagnoses is not None:
        wanted = row.diagnoses.kind, row.diagnoses.name
        diagnoses = next((key for key in question.diagnoses if (key.kind, key.name) == wanted), None)
        if diagnoses is None:
            raise Refused("settlement.other_set", set=row.diagnoses.name)
    bill = question.bill
    return Claim(
        question.chain,
        question.person_key,
        question.encounter_key,
        question.account_key,
        question.active,
        diagnoses,
        row,
        bill.handle,
        bill.hospital,
        question.level,
        bill.total,
        service_day,
        tuple(one.amount for one in bill.standing),
        row.payer,
        question.nonce,
        question.purpose,
        question.grant,
        serial,
    )


def redemption_of(question: RedemptionQuestion, serial: bytes) -> Redemption:
    """The redemption that a question asks for."""
    return Redemption(
        question.chain,
        question.encounter_key,
        question.account_key,
        question.voucher,
        question.hospital,
        question.voucher.payment.payer,
        question.nonce,
        question.purpose,
        question.grant,
        serial,
    )


# ---------------------------------------------------------------------------------------------- holder


def settle(
    wallet: Path,
    passphrase: str,
    question: SettlementQuestion,
    sets: Sequence[SetFile],
    filings: Sequence[Member],
    rand: Rand,
) -> Settlement:
    """Holder: claim what a row pays for her bill. The wallet has noted the step before this returns.

    `sets`: as published, whole; `filings`: her own. Raises Refused: what does not hold, what is not in the wallet,
    another step of the account that is open, a payment that the bill does not take. Nothing is proved then.
    """
    with opened(wallet, passphrase) as kept:
        held = kept.wallet
        _check_chain(held, question.chain)
        person, bill = held.person, bill_of(held, question.bill.handle).encounter.named(ENCOUNTER)
        if person is None:
            raise Refused("credential_files.no_credential", kind="person")
        handle, code, day = person.get(PERSON, "handle"), bill["diagnosis"], bill["day"]
        assert isinstance(handle, bytes) and isinstance(code, str) and isinstance(day, int)
        made = sum(one.bill == question.bill.handle for one in held.bookings)
        if made > len(question.bill.standing) + question.bill.reversals:  # each payment under her bill is hers
            raise Refused("credential_files.old_question", handle=question.bill.handle.hex())
        payer, layer = question.rows[0].payer, question.rows[0].layer
        own = account_of(held, payer, layer, date_of(day).year)
        row = _fitting(question.rows, _case(held, bill, own.current.named(ACCOUNT)))
        claim = claim_of(question, row, day, account.spent_serial(own.current))
        try:
            check_bill(claim, question.bill, question.vouchers)
        except ValueError:  # vouchers that do not go with the bill
            raise DecodeError("wire.not_canonical", kind="SettlementQuestion") from None
        active = row_of(sets, claim.active, [handle])
        diagnosis = None
        if claim.diagnoses is not None:
            diagnosis = diagnosis_of(sets, claim.diagnoses, filings, handle, code, day)
        following, message = prepare_settlement(held, claim, active, diagnosis, rand)
        if following != held:
            kept.save(following, rand)
    return message


def redeem(wallet: Path, passphrase: str, question: RedemptionQuestion, rand: Rand) -> Redeemed:
    """Holder: take a reversed payment back into her account. As `settle`."""
    with opened(wallet, passphrase) as kept:
        held, payment = kept.wallet, question.voucher.payment
        _check_chain(held, question.chain)
        own = account_of(held, payment.payer, payment.layer, payment.year)
        redemption = redemption_of(question, account.spent_serial(own.current))
        following, message = prepare_redemption(held, redemption, rand)
        if following != held:
            kept.save(following, rand)
    return message


def _check_chain(held: Wallet, chain: str) -> None:
    if held.chain != chain:
        raise Refused("credential_files.other_chain", chain=held.chain, offered=chain)


def _case(held: Wallet, encounter: Mapping[str, Value], own: Mapping[str, Value]) -> Case:
    assert held.person is not None
    known: dict[str, Any] = {**held.person.named(PERSON), **encounter, **own}
    known["service_day"] = known["day"]
    return Case(**{name: known[name] for name in Case.__dataclass_fields__})


def _fitting(rows: Sequence[Row], case: Case) -> Row:
    """The row that the claim falls under; or, if none, the one that it misses by least: what fails there is said."""
    try:
        return policies.find(rows, case)
    except Refused:
        return min(rows, key=lambda row: _misses(row, case))


def _misses(row: Row, case: Case) -> int:
    births = row.births(case.service_day)
    return sum(
        (
            row.year != date_of(case.service_day).year,
            not row.first_day <= case.service_day <= row.last_day,
            row.visit != min(case.visits + row.visits_added, row.last_visit),
            births is not None and not births[0] <= case.birth <= births[1],
            *(value != getattr(case, key) for key, value in (row.person_keys | row.encounter_keys).items()),
        )
    )
