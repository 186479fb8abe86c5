"""Step 7: two payers settle the bill of step 6, layer after layer; nobody but the person sees an amount.

    payer    -> person-1  `medveil.credentials.claiming.SettlementQuestion`: row, keys, sets, what stands paid, a nonce
    person-1 -> payer     `zkp.settlement.Settlement`: one proof over person, encounter and account credential
    payer                 checks it against the claim that follows from its own question
    bureau   -> person-1  the next account, signed blindly

No contract of the ledger keeps payments yet: the step itself keeps what stands paid (`zkp.payments.BillPayments`).
"""

from __future__ import annotations

import time

import msgspec

from medveil.credentials.claiming import SETTLEMENT_QUESTION, SettlementQuestion, claim_of
from medveil.demo.desk import in_words
from medveil.demo.facts import PaymentFacts, SettleFacts
from medveil.demo.grant import terms
from medveil.demo.insured import HOSPITAL, PERSON_NAME, Insured, open_account
from medveil.demo.play import Play, now, rand
from medveil.demo.policy import AMOUNTS, CURRENCY, LEVEL, TOTAL, Layer, layers, plain_payment
from medveil.gateway.eligibility import DATASET
from wire.canonical import encode
from wire.errors import Refused, VerificationError
from wire.money import Amount
from zkp import account, payments, pedersen, settlement, wallet
from zkp.claim import check_bill, claim_id
from zkp.credentials import ACCOUNT
from zkp.groups import backend
from zkp.payments import BillPayments
from zkp.policy import Row
from zkp.settlement import Settlement
from zkp.wallet import Posted, account_of, booking_of

PURPOSE = "HPAYMT"


async def settle(play: Play, insured: Insured) -> SettleFacts:
    """Account, claim, proof, check and next account for each layer; then the ways to be paid twice."""
    bill = payments.registered(insured.bill, HOSPITAL, insured.total, CURRENCY)
    paid: list[PaymentFacts] = []
    messages: list[Settlement] = []
    for layer in layers(insured.year):
        grant = f"settlement-{layer.row.payer}"
        await play.desks[HOSPITAL].issue(
            terms(grant, HOSPITAL, layer.row.payer, DATASET, ("settlement",), PURPOSE, "proof", now())
        )
        open_account(insured, layer.row.payer, layer.row.layer, layer.cap, layer.deductible)
        message, bill, facts = _pay(play, insured, bill, layer, grant)
        messages.append(message)
        paid.append(facts)
    found = _facts(insured, bill, messages, paid)
    _tell(play, found)
    return found


def _question(insured: Insured, bill: BillPayments, row: Row, grant: str) -> SettlementQuestion:
    """Payer: what it has of registry, row and bill, with a fresh nonce."""
    return SettlementQuestion(
        header=SETTLEMENT_QUESTION,
        chain=insured.chain,
        person_key=insured.person_by.of.issuer,
        encounter_key=insured.encounter_by.of.issuer,
        account_key=insured.account_by.of.issuer,
        active=insured.active.key,
        diagnoses=(insured.covered.key,),
        rows=(row,),
        bill=bill,
        vouchers=(),
        level=LEVEL,
        purpose=PURPOSE,
        grant=grant,
        nonce=rand(32),
    )


def _pay(
    play: Play, insured: Insured, bill: BillPayments, layer: Layer, grant: str
) -> tuple[Settlement, BillPayments, PaymentFacts]:
    """One layer: prove, check, book, and on to the next account. Returns the message and what then stands paid."""
    row = layer.row
    question = _question(insured, bill, row, grant)
    serial = account.spent_serial(account_of(insured.wallet, row.payer, row.layer, row.year).current)
    claim = claim_of(question, row, insured.day, serial)
    before = _cap(insured, row)
    insured.prepare(claim)  # the first of its length in a process fills tables of generators
    started = time.perf_counter()
    ready, message = insured.prepare(claim)
    proved = time.perf_counter()
    check_bill(claim, bill)
    settlement.verify(message, claim)
    checked = time.perf_counter()
    after = payments.pay(bill, message.payment, row.currency)
    # bureau -> holder, of a final op: blind, checked by everybody, the same on every retry
    answer = account.sign_update(insured.account_by, op_id := claim_id(claim), message.following)
    account.check_update(insured.account_by.of, message.following, answer)
    insured.wallet = wallet.updated(ready, Posted(message, op_id, answer))
    earlier = [booking_of(insured.wallet, one.amount).paid for one in bill.standing]
    mine = booking_of(insured.wallet, message.paid)
    facts = PaymentFacts(
        layer=row.layer,
        payer=row.payer,
        terms=layer.said,
        paid=_money(mine.paid),
        plain=_money(plain_payment(layer, AMOUNTS, sum(earlier), TOTAL)),
        cap_before=_money(before),
        cap_after=_money(_cap(insured, row)),
        proof_bytes=len(encode(message)),
        prove_ms=1000 * (proved - started),
        verify_ms=1000 * (checked - proved),
    )
    play.show(f"settlement-{row.layer}-question", question)
    play.show(f"settlement-{row.layer}", message)
    return message, after, facts


def _cap(insured: Insured, row: Row) -> int:
    """Holder: what her account has left. Secret; fen."""
    own = account_of(insured.wallet, row.payer, row.layer, row.year)
    cap = own.current.get(ACCOUNT, "cap")
    assert isinstance(cap, int)
    return cap


def _money(minor: int) -> str:
    return str(Amount(minor, CURRENCY))


def _cheats(insured: Insured, bill: BillPayments, messages: list[Settlement]) -> list[str]:
    """Paid twice, a lower layer after a higher, a fen more, another bill or question: all must fail. Says how."""
    first, last = messages[0], messages[-1]
    lines = []
    for row in (last.claim.row, first.claim.row):
        try:
            payments.check_open(bill, row.payer, row.layer, row.statutory, row.currency)
        except Refused as refusal:
            lines.append(f"Claimed again from {row.payer}: {in_words(refusal)}")
        else:
            raise Refused("demo.cheat_worked", what="a second payment")
    replace, group = msgspec.structs.replace, backend()
    more = group.encode(group.add(group.decode(first.paid), pedersen.generator_g(group)))
    for what, message in (
        ("with one fen more in its commitment", replace(first, paid=more)),
        ("relabelled as one of another bill", replace(first, claim=replace(first.claim, bill=rand(16)))),
        ("relabelled as the answer to a new question", replace(first, claim=replace(first.claim, nonce=rand(32)))),
    ):
        try:
            settlement.verify(message, message.claim)
        except VerificationError as error:
            lines.append(f"The first proof, {what}: {error.message}")
        else:
            raise Refused("demo.cheat_worked", what="an altered proof")
    return lines


def _facts(insured: Insured, bill: BillPayments, messages: list[Settlement], paid: list[PaymentFacts]) -> SettleFacts:
    standing = sum(booking_of(insured.wallet, one.amount).paid for one in bill.standing)
    return SettleFacts(
        person=PERSON_NAME,
        handle=bill.handle.hex(),
        total=_money(TOTAL),
        left=_money(TOTAL - standing),
        payments=paid,
        agree=all(one.paid == one.plain for one in paid),
        shown=["the bill's handle", "hospital and level", "service day", "the policy row", "the spent serial"],
        hidden=["who it is", "birth day", "diagnosis", "the total and its classes", "what is paid", "the account"],
        refusals=_cheats(insured, bill, messages),
    )


def _tell(play: Play, facts: SettleFacts) -> None:
    say = play.narrator.say
    say(f"{facts.person} claims for bill {facts.handle[:16]}… under two public policy rows, each in one proof")
    say("over person, encounter and account credential:")
    for one in facts.payments:
        say(f"layer {one.layer}, {one.payer}: {one.terms}.")
    play.narrator.table(
        ["payer", "paid", "plain arithmetic", "account's cap", "next account's", "proof", "to prove", "to check"],
        [
            [
                one.payer,
                one.paid,
                one.plain,
                one.cap_before,
                one.cap_after,
                f"{one.proof_bytes:,} bytes",
                f"{one.prove_ms:.0f} ms",
                f"{one.verify_ms:.0f} ms",
            ]
            for one in facts.payments
        ],
        numbers=(1, 2, 3, 4, 5, 6, 7),
    )
    same = "Both equal plain arithmetic" if facts.agree else "They do NOT equal plain arithmetic"
    say(f"{same}; {facts.left} of {facts.total} stay with her. The bureau renewed each account blindly.")
    say(f"Everybody sees {', '.join(facts.shown)}.")
    say(f"Hidden: {', '.join(facts.hidden)}. (This machine plays her, too: hence the table.)")
    for line in facts.refusals:
        say(line, style="yellow")
