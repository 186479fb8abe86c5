"""Step 6: an insurer asks whether a bill's patient is insured as its policy asks, and learns nothing else.

    insurer-1 -> person-1   `medveil.credentials.files.Question`: keys, sets, bill, day, conditions, a fresh nonce
    person-1  -> insurer-1  `zkp.eligibility.Eligibility`: one proof over person and encounter credential

Then what a reader tries first: a person to whom a condition does not apply, and an answer that is passed on.
"""

from __future__ import annotations

import time

import msgspec

from medveil.credentials import files
from medveil.credentials.files import Question
from medveil.demo.desk import in_words
from medveil.demo.facts import EligibilityFacts
from medveil.demo.grant import terms
from medveil.demo.insured import HOSPITAL, PERSON_NAME, Insured
from medveil.demo.play import INSURER, Play, now, rand
from medveil.demo.policy import COVERED, layers
from medveil.gateway.eligibility import DATASET
from wire.canonical import encode
from wire.dates import date_of
from wire.errors import Refused, VerificationError
from zkp import eligibility
from zkp.eligibility import Eligibility, EligibilityRequest, Holdings, conditions_of
from zkp.wallet import bill_of

PURPOSE = "ELIGVER"
OLDER = (60, 65)
"""Ages that the person is not of."""


async def ask_eligibility(play: Play, insured: Insured) -> EligibilityFacts:
    """Question, proof, check; then the two ways to cheat."""
    insurer, grant = play.desks[INSURER], "eligibility-hospital-1"
    granted = terms(grant, HOSPITAL, insurer.name, DATASET, ("eligibility",), PURPOSE, "proof", now())
    await play.desks[HOSPITAL].issue(granted)
    request = _request(insured, insurer.name, grant)
    answer = _answer(insured, request)  # the first in a process fills tables of generators
    started = time.perf_counter()
    answer = _answer(insured, request)
    proved = time.perf_counter()
    eligibility.verify(answer, request)
    checked = time.perf_counter()
    play.show("eligibility-question", Question(files.QUESTION, request))
    play.show("eligibility", answer)
    facts = _facts(insured, answer, 1000 * (proved - started), 1000 * (checked - proved))
    _tell(play, facts)
    return facts


def _request(insured: Insured, insurer: str, grant: str) -> EligibilityRequest:
    """Insurer: what its policy row asks, of its own knowledge."""
    return EligibilityRequest(
        chain=insured.chain,
        person_key=insured.person_by.of.issuer,
        encounter_key=insured.encounter_by.of.issuer,
        active=insured.active.key,
        diagnoses=insured.covered.key,
        conditions=conditions_of(layers(insured.year)[-1].row),
        bill=insured.bill,
        hospital=HOSPITAL,
        service_day=insured.day,
        audience=insurer,
        nonce=rand(32),
        purpose=PURPOSE,
        grant=grant,
    )


def _answer(insured: Insured, request: EligibilityRequest) -> Eligibility:
    """Holder: the proof, from her wallet. Raises Refused, naming what does not hold."""
    person, bill = insured.wallet.person, bill_of(insured.wallet, request.bill)
    assert person is not None  # `sign_up` did it
    holdings = Holdings(person, bill.encounter, insured.active_row, insured.covered_row)
    return eligibility.prove(request, holdings, rand)


def _cheats(insured: Insured, answer: Eligibility) -> list[str]:
    """Another age, and an answer passed off for a new question's: both must fail. Says how they did."""
    replace, asked = msgspec.structs.replace, answer.request
    youngest, oldest = OLDER
    older = replace(asked, nonce=rand(32), conditions=replace(asked.conditions, youngest=youngest, oldest=oldest))
    try:
        _answer(insured, older)
    except Refused as refusal:
        not_true = in_words(refusal)
    else:
        raise Refused("demo.cheat_worked", what="an age outside the policy's")
    anew = replace(asked, nonce=rand(32))
    try:
        eligibility.verify(replace(answer, request=anew), anew)
    except VerificationError as error:
        replayed = error.message
    else:
        raise Refused("demo.cheat_worked", what="a replayed proof")
    return [
        f"Asked for ages {youngest} to {oldest}, her wallet refuses: {not_true}",
        f"The first answer, relabelled as the answer to a new question: {replayed}",
    ]


def _facts(insured: Insured, answer: Eligibility, prove_ms: float, verify_ms: float) -> EligibilityFacts:
    request = answer.request
    terms_of = request.conditions
    day = date_of(request.service_day).isoformat()
    return EligibilityFacts(
        person=PERSON_NAME,
        hospital=HOSPITAL,
        insurer=request.audience,
        handle=request.bill.hex(),
        policy=terms_of.policy,
        asked=[
            f"plan active on {day}",
            f"age {terms_of.youngest} to {terms_of.oldest} on that day",
            f"insutype {terms_of.insutype}, med_type {terms_of.med_type}",
            f"diagnosis on the public list {COVERED}",
            "credential in the active set",
        ],
        shown=["the bill's handle", "hospital", "service day", "the conditions"],
        hidden=["who it is", "birth day", "region, sex, kind of person", "diagnosis", "every amount"],
        members=len(insured.active),
        proof_bytes=len(encode(answer)),
        prove_ms=prove_ms,
        verify_ms=verify_ms,
        grant=request.grant,
        refusals=_cheats(insured, answer),
    )


def _tell(play: Play, facts: EligibilityFacts) -> None:
    say = play.narrator.say
    say(f"The bureau signed {facts.person}'s credential blindly, {facts.hospital} that of another bill (synthetic)")
    say("over the same secret, which neither of them knows.")
    say("Gateways and ledger carry no credentials yet: this step and the next are played with the library.")
    say(f"{facts.insurer} asked whether the patient of bill {facts.handle[:16]}… is insured as {facts.policy} says:")
    say(f"{'; '.join(facts.asked)} ({facts.members:,} members)?")
    times = f"{facts.prove_ms:.0f} ms to prove, {facts.verify_ms:.0f} ms to check"
    say(f"Yes, proven in {facts.proof_bytes:,} bytes ({times}).")
    say(f"Hidden: {', '.join(facts.hidden)}.")
    for line in facts.refusals:
        say(line, style="yellow")
