"""Questions, proofs of eligibility, and the verification of any proof, on files.

    ask       verifier   `Question`                                             V -> H
    prove     holder     `zkp.eligibility.Eligibility`                          H -> V
    verify    anybody    eligibility, settlement and redemption, with either curve library

What is asked and proved of a payment: `medveil.credentials.claiming`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from medveil.credentials import files
from medveil.credentials.claiming import RedemptionQuestion, SettlementQuestion, claim_of, redemption_of
from medveil.credentials.files import CredentialKey, Question, SetFile
from medveil.credentials.folder import Rand
from medveil.credentials.sets import diagnosis_of, row_of
from medveil.credentials.wallets import opened
from wire.canonical import Wire
from wire.errors import DecodeError, Refused
from zkp import eligibility, reversal, settlement
from zkp.credentials import ENCOUNTER, PERSON
from zkp.eligibility import Conditions, Eligibility, EligibilityRequest, Holdings
from zkp.groups import backend
from zkp.membership import Member
from zkp.policy import Diagnoses
from zkp.reversal import Redeemed
from zkp.settlement import Settlement
from zkp.wallet import bill_of

_TERMS: Final[Mapping[str, Any]] = {
    field.name: field.type
    for struct in (EligibilityRequest, Conditions)
    for field in msgspec.structs.fields(struct)
    if field.name not in ("person_key", "encounter_key", "active", "diagnoses", "conditions", "nonce")
}
"""What a verifier writes down, with its type: the rest of a question comes from files, or is drawn."""

_NEEDED: Final = _TERMS.keys() - {field.name for field in msgspec.structs.fields(Conditions) if not field.required}


def _term(name: str, value: object) -> Any:
    """A term as it stands in a question. Raises DecodeError, naming it."""
    try:
        if name in ("bill", "row"):
            value = bytes.fromhex(value)  # type: ignore[arg-type]
        elif name == "service_day":
            value = files.parse_day(value)  # type: ignore[arg-type]
        return msgspec.convert(value, _TERMS[name])
    except (TypeError, ValueError, DecodeError, msgspec.ValidationError):
        raise DecodeError("credential_files.term", term=name) from None


def ask(
    said: Mapping[str, Any],
    person: CredentialKey,
    encounter: CredentialKey,
    active: SetFile,
    diagnoses: SetFile | None,
    rand: Rand,
) -> Question:
    """Verifier: a question with a fresh nonce. `said`: what `Conditions` and `EligibilityRequest` name, as written in
    JSON; the service day as a date. Raises DecodeError, Refused."""
    key = None if diagnoses is None else diagnoses.published.key
    for name in sorted({*said, *_NEEDED}):
        if name not in said or name not in _TERMS:
            raise DecodeError("credential_files.question", term=str(name)[:64])
    terms = {name: _term(name, value) for name, value in said.items()}
    own = {name: terms.pop(name) for name in Conditions.__struct_fields__ if name in terms}
    request = EligibilityRequest(
        person_key=person.key,
        encounter_key=encounter.key,
        active=active.published.key,
        diagnoses=key,
        conditions=Conditions(**own, diagnoses=key and Diagnoses(key.kind, key.name)),  # type: ignore[arg-type]
        nonce=rand(32),
        **terms,
    )
    if (person.kind, encounter.kind) != ("person", "encounter") or encounter.issuer != request.hospital:
        raise Refused("credential_files.keys", hospital=request.hospital)
    eligibility.check_request(request)
    return Question(files.QUESTION, request)


def prove(
    wallet: Path, passphrase: str, question: Question, sets: Sequence[SetFile], filings: Sequence[Member], rand: Rand
) -> Eligibility:
    """Holder: answer a question. `sets`: as published, whole; `filings`: her own, where one is asked for.

    Raises Refused: what does not hold, or is not in the wallet. Nothing is proved then.
    """
    request = question.request
    with opened(wallet, passphrase) as kept:
        person, encounter = kept.wallet.person, bill_of(kept.wallet, request.bill).encounter
    if person is None:
        raise Refused("credential_files.no_credential", kind="person")
    handle, code = person.get(PERSON, "handle"), encounter.get(ENCOUNTER, "diagnosis")
    assert isinstance(handle, bytes) and isinstance(code, str)
    active, diagnosis = row_of(sets, request.active, [handle]), None
    if request.diagnoses is not None:
        diagnosis = diagnosis_of(sets, request.diagnoses, filings, handle, code, request.service_day)
    return eligibility.prove(request, Holdings(person, encounter, active, diagnosis), rand)


def verify(proof: Wire, question: Wire | None, curves: str) -> bool:
    """Anybody: check a proof of eligibility, settlement or redemption. Returns whether it was held against a question
    of the verifier's own; else it was checked against the statement that came with it, which its prover could choose.

    Of a settlement or redemption the spent serial, and of a settlement the service day, are the prover's to say: the
    proof shows that they are signed. Raises VerificationError, DecodeError; Refused for a file that is no such proof,
    or a question of another kind.
    """
    group = backend(curves)
    if isinstance(proof, Eligibility) and isinstance(question, Question | None):
        eligibility.verify(proof, proof.request if question is None else question.request, group)
    elif isinstance(proof, Settlement) and isinstance(question, SettlementQuestion | None):
        said = proof.claim
        asked = said if question is None else claim_of(question, said.row, said.service_day, said.serial)
        settlement.verify(proof, asked, group)
    elif isinstance(proof, Redeemed) and isinstance(question, RedemptionQuestion | None):
        told = proof.redemption
        reversal.verify(proof, told if question is None else redemption_of(question, told.serial), group)
    else:
        raise Refused("credential_files.no_proof")
    return question is not None


def statement(proof: Eligibility | Settlement | Redeemed) -> list[tuple[str, str | int]]:
    """What a proof says, for people: facts of its statement, none of them secret."""
    if isinstance(proof, Redeemed):
        return _redeemed(proof)
    said = proof.request if isinstance(proof, Eligibility) else proof.claim
    from wire.dates import date_of

    facts: list[tuple[str, str | int]] = [
        ("chain", said.chain),
        ("bill", said.bill.hex()),
        ("hospital", said.hospital),
        ("service day", date_of(said.service_day).isoformat()),
        ("audience", said.audience),
        ("purpose", said.purpose),
        ("grant", said.grant),
        ("active set", f"{said.active.name}, version {said.active.version}"),
    ]
    if said.diagnoses is not None:
        facts.append(("diagnosis", f"{said.diagnoses.kind}: {said.diagnoses.name}, version {said.diagnoses.version}"))
    asked = said.conditions if isinstance(said, EligibilityRequest) else said.row
    facts.append(("policy", f"{asked.policy}, version {asked.version}"))
    if isinstance(proof, Settlement):
        row = proof.claim.row
        facts += [("payer", row.payer), ("layer", row.layer), ("year", row.year), ("visit", row.visit)]
    for name in (*eligibility.PERSON_KEYS, *eligibility.ENCOUNTER_KEYS):
        if getattr(asked, name):
            facts.append((name, getattr(asked, name)))
    facts.append(("age", f"{asked.youngest} to {asked.oldest}"))
    return facts


def _redeemed(proof: Redeemed) -> list[tuple[str, str | int]]:
    said, payment = proof.redemption, proof.redemption.voucher.payment
    return [
        ("chain", said.chain),
        ("bill", said.voucher.handle.hex()),
        ("hospital", said.hospital),
        ("reversal", said.voucher.number),
        ("payer", payment.payer),
        ("layer", payment.layer),
        ("year", payment.year),
        ("audience", said.audience),
        ("purpose", said.purpose),
        ("grant", said.grant),
    ]


def as_tree(value: Any) -> Any:
    """A struct with its field names, for JSON; bytes as lower-case hex."""
    if isinstance(value, msgspec.Struct):
        named = {"type": type(value).__struct_config__.tag}
        return named | {name: as_tree(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, tuple):
        return [as_tree(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value
