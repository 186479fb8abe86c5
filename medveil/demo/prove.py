"""Step 5: an insured person proves to the insurer that a bill is within a limit, without showing it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec

from medveil.demo.facts import EligibilityFacts
from medveil.demo.grant import terms
from medveil.demo.play import INSURER, Play, now, rand
from medveil.gateway import eligibility, granting
from medveil.gateway.eligibility import Wallet
from wire.canonical import encode
from wire.errors import Refused, VerificationError
from wire.identifiers import new_handle
from wire.money import Amount, parse_amount
from zkp import bill_limit
from zkp.bill_limit import LimitRequest, Presentation

PERSON = "person-1"
BILL = parse_amount("3286.40", "CNY")
"""A synthetic bill: the data sets hold no amounts."""
LIMIT = parse_amount("5000.00", "CNY")
TOO_LOW = parse_amount("3000.00", "CNY")
PURPOSE = "ELIGVER"


async def prove(play: Play) -> tuple[EligibilityFacts, Presentation]:
    """Bill, grant, request, proof, check; then the two ways to cheat that a reader thinks of first."""
    hospital = play.consortium["hospital-1"]
    insurer = play.consortium[INSURER]
    passphrase = rand(16).hex()
    wallet = Wallet.create(hospital.folder / "wallets" / PERSON, PERSON, passphrase, rand)
    try:
        note = wallet.folder / "passphrase"
        note.touch(mode=0o600)
        note.write_text(passphrase + "\n", encoding="ascii")
        bill = await eligibility.issue_bill(hospital, wallet, new_handle(rand), BILL)
        granted = terms(
            "proof-hospital-1",
            hospital.name,
            insurer.name,
            eligibility.DATASET,
            (eligibility.FIELD,),
            PURPOSE,
            "proof",
            now(),
        )
        await granting.issue(hospital, granted)
        await granting.accept(insurer, granted.grant)
        ask = partial(_ask, play, wallet, bill.handle, granted.grant)
        presentation = await ask(LIMIT)
        facts = _measure(play, wallet, presentation, bill, granted.grant, await _cheats(play, ask, presentation))
    finally:
        wallet.close()
    say = play.narrator.say
    say(f"{hospital.name} committed to {PERSON}'s bill (synthetic) on the ledger, under handle {facts.handle[:16]}….")
    say(f"{insurer.name} asked, under grant {facts.grant}: is it at most {facts.limit}?")
    times = f"{facts.prove_ms:.0f} ms to prove, {facts.verify_ms:.0f} ms to check"
    say(f"Yes, proven in {facts.proof_bytes} bytes ({times}); the amount was not shown.")
    say(facts.refusal, style="yellow")
    return facts, presentation


async def _ask(play: Play, wallet: Wallet, handle: bytes, grant: str, limit: Amount) -> Presentation:
    """One request of the insurer, answered by the hospital's gateway from the person's wallet."""
    nonce = rand(32)
    request = LimitRequest(
        play.consortium.trust.chain, handle, limit.minor, limit.currency, INSURER, nonce, PURPOSE, grant
    )
    hospital = play.consortium["hospital-1"]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(eligibility.answer(hospital, wallet, nonce, now))
        asked = tasks.create_task(_either(eligibility.check_limit(play.consortium[INSURER], hospital.name, request)))
    answer = asked.result()
    if isinstance(answer, Refused):
        raise answer
    return answer


async def _either(asked: Awaitable[Presentation]) -> Presentation | Refused:
    """A refusal as a value, so that it does not cancel the other side of the conversation."""
    try:
        return await asked
    except Refused as refusal:
        return refusal


async def _cheats(play: Play, ask: Callable[[Amount], Awaitable[Presentation]], presentation: Presentation) -> str:
    """A limit below the bill, and an old proof for a new question: both must fail. Says how they did."""
    try:
        await ask(TOO_LOW)
    except Refused as refusal:
        below = str(refusal.facts["words"])
    else:
        raise Refused("demo.cheat_worked", what="a limit below the bill")
    bill = eligibility.registered_bill(play.consortium[INSURER], presentation.handle)
    again = msgspec.structs.replace(presentation.request, nonce=rand(32))
    try:
        bill_limit.verify(presentation, again, bill)
    except VerificationError as error:
        replayed = error.message
    else:
        raise Refused("demo.cheat_worked", what="a replayed proof")
    return f"With a limit of {TOO_LOW}: {below} The first proof, sent again for a new question: {replayed}"


def _measure(
    play: Play, wallet: Wallet, presentation: Presentation, bill: bill_limit.Bill, grant: str, refusal: str
) -> EligibilityFacts:
    """How long proving and checking take, alone."""
    started = time.perf_counter()
    wallet.prove(presentation.request, rand)
    proved = time.perf_counter()
    bill_limit.verify(presentation, presentation.request, bill)
    checked = time.perf_counter()
    return EligibilityFacts(
        person=PERSON,
        limit=str(LIMIT),
        handle=presentation.handle.hex(),
        proof_bytes=len(encode(presentation)),
        prove_ms=1000 * (proved - started),
        verify_ms=1000 * (checked - proved),
        grant=grant,
        refusal=refusal,
    )
