"""Step 5: an insured person proves to the insurer that a bill's amount is within a limit, without showing it."""

from __future__ import annotations

import time

import msgspec

from medveil.demo.desk import in_words
from medveil.demo.facts import LimitFacts
from medveil.demo.grant import terms
from medveil.demo.play import INSURER, Play, now, rand
from medveil.gateway import eligibility as limits
from wire.canonical import encode
from wire.errors import Refused, VerificationError
from wire.money import parse_amount
from zkp import bill_limit
from zkp.bill_limit import Bill, Presentation

PERSON = "person-1"
BILL = parse_amount("3286.40", "CNY")
"""A synthetic bill: the data sets hold no amounts."""
LIMIT = parse_amount("5000.00", "CNY")
TOO_LOW = parse_amount("3000.00", "CNY")
PURPOSE = "ELIGVER"


async def prove_limit(play: Play) -> LimitFacts:
    """Bill, grant, request, proof, check; then the two ways to cheat that a reader thinks of first."""
    hospital, insurer = play.desks["hospital-1"], play.desks[INSURER]
    handle = await hospital.issue_bill(PERSON, BILL)
    granted = terms(
        "proof-hospital-1",
        hospital.name,
        insurer.name,
        limits.DATASET,
        (limits.FIELD,),
        PURPOSE,
        "proof",
        now(),
    )
    await hospital.issue(granted)
    presentation = await insurer.check_limit(hospital.name, handle, LIMIT, PURPOSE, granted.grant)
    facts = _measure(presentation, granted.grant, await _cheats(play, presentation))
    say = play.narrator.say
    say(f"{hospital.name} committed to {PERSON}'s bill (synthetic) on the ledger, under handle {facts.handle[:16]}….")
    say(f"{insurer.name} asked, under grant {facts.grant}: is it at most {facts.limit}?")
    times = f"{facts.prove_ms:.0f} ms to prove, {facts.verify_ms:.0f} ms to check"
    say(f"Yes, proven in {facts.proof_bytes} bytes ({times}); the amount was not shown.")
    say(facts.refusal, style="yellow")
    return facts


async def _cheats(play: Play, shown: Presentation) -> str:
    """A limit below the bill, and an old proof for a new question: both must fail. Says how they did."""
    try:
        await play.desks[INSURER].check_limit("hospital-1", shown.handle, TOO_LOW, PURPOSE, shown.grant)
    except Refused as refusal:
        below = in_words(refusal)
    else:
        raise Refused("demo.cheat_worked", what="a limit below the bill")
    again = msgspec.structs.replace(shown.request, nonce=rand(32))
    try:
        bill_limit.verify(shown, again, Bill(shown.handle, shown.commitment, shown.currency))
    except VerificationError as error:
        replayed = error.message
    else:
        raise Refused("demo.cheat_worked", what="a replayed proof")
    return f"With a limit of {TOO_LOW}: {below} The first proof, sent again for a new question: {replayed}"


def _measure(shown: Presentation, grant: str, refusal: str) -> LimitFacts:
    """How long proving and checking take, alone: on a bill of the same amount."""
    bill, opening = bill_limit.commit_bill(shown.handle, BILL, rand)
    started = time.perf_counter()
    again = bill_limit.prove(shown.request, bill, opening, rand)
    proved = time.perf_counter()
    bill_limit.verify(again, shown.request, bill)
    checked = time.perf_counter()
    return LimitFacts(
        person=PERSON,
        limit=str(LIMIT),
        handle=shown.handle.hex(),
        proof_bytes=len(encode(shown)),
        prove_ms=1000 * (proved - started),
        verify_ms=1000 * (checked - proved),
        grant=grant,
        refusal=refusal,
    )
