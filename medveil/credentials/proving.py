"""Sets, questions, proofs and their verification, on files.

publish   bureau     a set under a fresh key, which is forgotten at once
ask       verifier   `Question`                                             V -> H
prove     holder     `zkp.eligibility.Eligibility`                          H -> V
verify    anybody    eligibility, settlement and redemption, with either curve library
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from medveil.credentials import files
from medveil.credentials.files import CredentialKey, Question, SetFile
from medveil.credentials.folder import Rand
from medveil.credentials.wallets import opened
from wire.canonical import Wire
from wire.errors import DecodeError, Refused
from wire.identifiers import check_name
from zkp import eligibility, membership, reversal, settlement
from zkp.credentials import ENCOUNTER, PERSON
from zkp.eligibility import Conditions, Eligibility, EligibilityRequest, Holdings
from zkp.groups import backend
from zkp.membership import Filing, Member
from zkp.policy import Diagnoses
from zkp.reversal import Redeemed
from zkp.settlement import Settlement
from zkp.wallet import bill_of


def parse_members(kind: str, lines: Iterable[str]) -> list[Member]:
    """One member a line: a handle in hex (*active*), a code (*covered*), or handle, code, first and last day
    (*filed*; days as 2025-12-11, last "-" for no end). Raises DecodeError, naming the line."""
    members: list[Member] = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        try:
            if kind == "active":
                (handle,) = words
                membership.FILING.scalar("handle", bytes.fromhex(handle))
                members.append(bytes.fromhex(handle))
            elif kind == "covered":
                (code,) = words
                membership.FILING.scalar("code", code)
                members.append(code)
            else:
                handle, code, first, last = words
                until = 65535 if last == "-" else files.parse_day(last)
                filing = Filing(bytes.fromhex(handle), code, files.parse_day(first), until)
                membership.FILING.scalars(filing.named)
                members.append(filing)
        except (ValueError, DecodeError):
            raise DecodeError("credential_files.member", line=number, kind=kind) from None
    return members


def publish(
    kind: Literal["active", "covered", "filed"], name: str, version: int, members: Sequence[Member], rand: Rand
) -> SetFile:
    """Bureau: one version of a set. Its secret key is drawn here and kept nowhere. Raises DecodeError."""
    check_name(name, "set")
    secret, key = membership.new_version(kind, name, version, rand)
    try:
        return SetFile(files.SET, membership.publish(secret, key, members))
    except ValueError:
        raise DecodeError("credential_files.member", line=0, kind=kind) from None


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


def _row(sets: Sequence[SetFile], key: membership.SetKey, members: Sequence[Member]) -> membership.Row:
    for each in sets:
        if each.published.key == key:
            for member in members:
                try:
                    return membership.find(each.published, member)
                except Refused:
                    continue
            raise Refused("membership.not_in_set", set=key.name, version=key.version)
    raise Refused("credential_files.no_set", set=key.name, version=key.version)


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
    active = _row(sets, request.active, [handle] if isinstance(handle, bytes) else [])
    diagnosis = None
    if request.diagnoses is not None:
        of_code: list[Member] = [code] if isinstance(code, str) else []
        diagnosis = _row(sets, request.diagnoses, of_code if request.diagnoses.kind == "covered" else filings)
    return eligibility.prove(request, Holdings(person, encounter, active, diagnosis), rand)


def verify(proof: Wire, question: Question | None, curves: str) -> bool:
    """Anybody: check a proof of eligibility, settlement or redemption. Returns whether it was held against a question
    of the verifier's own; else it was checked against the statement that came with it, which its prover could choose.

    Raises VerificationError, DecodeError; Refused for a file that is no such proof.
    """
    group = backend(curves)
    if isinstance(proof, Eligibility):
        eligibility.verify(proof, proof.request if question is None else question.request, group)
        return question is not None
    if isinstance(proof, Settlement) and question is None:
        settlement.verify(proof, proof.claim, group)
        return False
    if isinstance(proof, Redeemed) and question is None:
        reversal.verify(proof, proof.redemption, group)
        return False
    raise Refused("credential_files.no_proof")


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
