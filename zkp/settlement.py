"""Settlement: what one policy row pays for one bill, claimed without showing person, diagnosis or amounts.

One proof in one transcript over three credentials of one secret (person, encounter, account): the plan is active
and the row's keys are the credentials' own, the amount follows the row (`zkp.settlement_relations`), it fits into
what the bill has left, and the next account is the old one less what is taken. The statement is a
`zkp.claim.Claim`, the message a `Settlement`. docs/protocols/settlement.md has the equations, why none of them can
wrap, and what is not covered.

    P -> V   three shown credentials, set memberships, C_N (next account), commitments to values      (points)
    P -> V   one sigma proof over all relations, one aggregated range proof
    V        one `zkp.batch.Check`: the ledger settles those of many claims together

Parties: the holder proves (`prove`); ledger, payer or auditor verify (`check`, `verify`) against a claim of their
*own* making. What is standing, spent and in force is the ledger's contract to know, not this file's.

Adversary: a claimant, alone, with others or with a hospital, who wants more than the row pays (soundness: discrete
logarithms, q-SDH, random oracle); everybody who wants to know more than the claim (zero knowledge). Not constant
time. Not reviewed by outsiders. Spec: DESIGN section 6; our own composition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from wire import canonical
from wire.canonical import Wire
from wire.errors import Refused, VerificationError
from wire.evidence import Header, register
from zkp import account, membership, pedersen, range_proof, sigma
from zkp import claim as claims
from zkp.attributes import SECRET, Credential
from zkp.batch import Check, settle, settle_all
from zkp.benefit import Benefit, benefit
from zkp.claim import Claim
from zkp.credentials import ACCOUNT, CLASSES, ENCOUNTER
from zkp.groups import Backend, R, Rand, backend, random_scalar
from zkp.membership import Filing
from zkp.payments import EncodedPoint, Payment
from zkp.settlement_proof import (
    Reader,
    Sent,
    in_fields,
    ledger_points,
    point_of,
    read_points,
    read_shown,
    show,
    statement_of,
    transcript_of,
    zero_name,
)
from zkp.settlement_relations import (
    TOTAL,
    Openings,
    Rule,
    amounts,
    label,
    rule,
    standing,
    true_branches,
)
from zkp.sigma import SigmaProof
from zkp.transcript import Transcript

_NONCE_BYTES = 12
NOTE_BYTES: Final = _NONCE_BYTES + 16 + 16

Derive = Callable[[str], bytes]
"""The wallet's secret bytes (64) for a label, different for each claim: from its seed and `zkp.claim.claim_id`."""


class Settlement(Wire, frozen=True, tag="zkp.settlement"):
    """The op's message: evidence of kind "settlement". It holds no secret.

    following: C_N; paid: C_R; deducted: C_d, where the row takes the account's deductible; owner: a commitment to
    the claimant's secret, for a reversal; note: R and d for the holder's own wallet, encrypted; proof: flat bytes of
    a length that the claim fixes.
    """

    header: Header
    claim: Claim
    following: EncodedPoint
    paid: EncodedPoint
    deducted: EncodedPoint | None
    owner: EncodedPoint
    note: Annotated[bytes, msgspec.Meta(min_length=NOTE_BYTES, max_length=NOTE_BYTES)]
    proof: Annotated[bytes, msgspec.Meta(max_length=16384)]

    @property
    def payment(self) -> Payment:
        """The payment as the ledger keeps it under the bill."""
        row = self.claim.row
        return Payment(
            row.payer, row.layer, row.statutory, row.year, self.paid, self.deducted, row.visits_added, self.owner
        )


HEADER = register("settlement", 1, Settlement)


@dataclass(frozen=True, repr=False)
class Holdings:
    """What the holder proves from. Secret whole.

    diagnosis: the row of the set that the policy asks for, if it does; total_blinding: of C_total, from the
    hospital; standing: amount and blinding of each payment that stands, in order.
    """

    person: Credential
    encounter: Credential
    account: Credential
    active: membership.Row
    diagnosis: membership.Row | None
    total_blinding: int
    standing: Sequence[tuple[int, int]]


@dataclass(frozen=True, repr=False)
class Outcome:
    """What the holder keeps until the op is final. Secret. paid, deducted: value and blinding of C_R and C_d."""

    following: account.Next
    paid: tuple[int, int]
    deducted: tuple[int, int]


# ---------------------------------------------------------------------------------------------- prover


def prove(
    claim: Claim, holdings: Holdings, derive: Derive, rand: Rand, group: Backend | None = None
) -> tuple[Settlement, Outcome]:
    """Holder: prove `claim` from `holdings` (secret). P -> V: the `Settlement`; the `Outcome` is the wallet's.

    `derive` gives what a restored wallet must find again (blindings of C_R, C_d and the next account); `rand` the
    rest. Raises Refused with what does not hold: a predicate, a key, a missing row. Nothing is shown then.
    VerificationError when an opening is not the bill's. DecodeError for malformed values.
    """
    group = group or backend()
    claims.check_claim(claim)
    _check_true(claim, holdings, group)
    amount = _benefit(claim, holdings)
    return _prove(claim, holdings, amount, derive, rand, group)


def _benefit(claim: Claim, holdings: Holdings) -> Benefit:
    bill, own = holdings.encounter.named(ENCOUNTER), holdings.account.named(ACCOUNT)
    classes = [_number(bill[name]) for name in CLASSES]
    paid = sum(value for value, _ in holdings.standing)
    return benefit(claim.row, classes, _number(bill["total"]), paid, _number(own["cap"]), _number(own["deductible"]))


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value


def _check_true(claim: Claim, holdings: Holdings, group: Backend) -> None:
    """Refuse a false statement, and say what is false: names of attributes, never values."""
    held = {"person": holdings.person, "encounter": holdings.encounter, "account": holdings.account}
    values = {prefix: one.named(claim.issuers[prefix].schema) for prefix, one in held.items()}
    if len({one[SECRET] for one in values.values()}) != 1:
        raise Refused("settlement.other_holder")
    for prefix, disclosed in claim.disclosed.items():
        for name, value in disclosed.items():
            if values[prefix][name] != value:
                raise Refused("settlement.other_attribute", credential=prefix, attribute=name)
    person, day, row = values["person"], claim.service_day, claim.row
    if not _number(person["valid_from"]) <= day <= _number(person["valid_to"]):
        raise Refused("settlement.plan_not_active")
    births = row.births(day)
    if births is not None and not births[0] <= _number(person["birth"]) <= births[1]:
        raise Refused("settlement.other_age", youngest=row.youngest, oldest=row.oldest)
    least = row.any_visit_from
    if least is not None and _number(values["account"]["visits"]) + row.visits_added < least:
        raise Refused("settlement.earlier_visit", visit=row.visit)
    if (holdings.active.key, holdings.active.member) != (claim.active, person["handle"]):
        raise Refused("settlement.not_active", set=claim.active.name, version=claim.active.version)
    if claim.diagnoses is not None:
        _check_diagnosis(claim.diagnoses, holdings.diagnosis, person["handle"], values["encounter"]["diagnosis"], day)
    pedersen.check_opening(
        group.decode(claim.total), _number(values["encounter"]["total"]), holdings.total_blinding, group
    )
    if len(holdings.standing) != len(claim.standing):
        raise Refused("settlement.other_payments", held=len(holdings.standing), standing=len(claim.standing))
    for encoded, (value, blinding) in zip(claim.standing, holdings.standing, strict=True):
        pedersen.check_opening(group.decode(encoded), value, blinding, group)


def _check_diagnosis(
    key: membership.SetKey, row: membership.Row | None, handle: object, diagnosis: object, day: int
) -> None:
    member = None if row is None or row.key != key else row.member
    if isinstance(member, Filing):
        if (member.handle, member.code) == (handle, diagnosis) and member.first <= day <= member.last:
            return
    elif member is not None and member == diagnosis:
        return
    raise Refused("settlement.diagnosis_not_in_set", set=key.name, version=key.version)


def _prove(
    claim: Claim, holdings: Holdings, amount: Benefit, derive: Derive, rand: Rand, group: Backend
) -> tuple[Settlement, Outcome]:
    """The proof of whatever `amount` and `holdings` say; false ones give a proof that nobody accepts."""
    shape = rule(claim.row, claim.service_day, len(claim.standing))
    own = claim.row.deductible is None
    held = {"person": holdings.person, "encounter": holdings.encounter, "account": holdings.account}
    # a source that repeats itself must not repeat a blinding for another claim
    hedge = Transcript(b"settlement/v1/blindings")
    hedge.append_bytes(b"claim", claims.encoded(claim))
    known = [scalar for prefix, one in held.items() for scalar in one.scalars(claim.issuers[prefix].schema)]
    rand = hedge.prover_randomness([holdings.total_blinding, *known], rand)
    shown, standings, witness = show(claim, held, holdings.active, holdings.diagnosis, rand, group)

    # commitments: attributes and amounts, their blindings; those that the wallet must find again are derived
    values = amounts(claim.row, amount)
    taken = values["paid"], values["deducted"] if own else 0
    secrets = secrets_of(derive, holdings.account, *taken)
    blindings = {name: random_scalar(rand) for name in shape.sent} | {n: secrets[n] for n in in_fields(claim)}
    openings: dict[str, tuple[int, int]] = {}
    for link in shape.links:
        value = sum(w * witness[shown[prefix].variable(name)] for w, prefix, name in link.attributes)
        blinding = holdings.total_blinding if link.name == TOTAL else blindings[link.name]
        openings[link.name] = (value, blinding)
        witness[f"link.{link.name}"] = blinding
    openings |= {name: (values[name], blindings[name]) for name in shape.sent if name not in openings}
    openings |= {standing(number): one for number, one in enumerate(holdings.standing)}
    for name in in_fields(claim):
        witness |= {name: openings[name][0], f"link.{name}": openings[name][1]}

    following = following_of(claim, holdings.account, *taken, secrets, group)
    witness |= {"next.serial": secrets["serial"], "next.blind": secrets["blind"]}
    outcome = Outcome(following, openings["paid"], openings["deducted"] if own else (0, 0))

    made = {
        name: pedersen.commit(value % R, blinding, group)
        for name, (value, blinding) in openings.items()
        if name in shape.sent
    }
    witness["link.owner"] = secrets["owner"]
    owner = pedersen.commit(witness[SECRET], secrets["owner"], group)
    sent = Sent(shown, standings, group.decode(following.commitment), owner, ledger_points(claim, group) | made)
    fields = {name: group.encode(made[name]) for name in in_fields(claim)}
    settlement = Settlement(
        HEADER,
        claim,
        following.commitment,
        fields["paid"],
        fields.get("deducted"),
        group.encode(owner),
        _note(derive, outcome),
        b"",
    )
    transcript = transcript_of(HEADER, claim, settlement.note, sent, shape.sent, group)
    branches = true_branches(shape.choices, openings)
    witness |= _branch_witness(shape, branches, openings)
    proved = sigma.prove(transcript, statement_of(claim, sent, shape), witness, rand, group, branches)
    ranged = [one.of.opening(openings) for one in shape.ranges]
    ranges = range_proof.prove(
        transcript,
        [one.of.sum(sent.points) for one in shape.ranges],
        [value for value, _ in ranged],
        [blinding for _, blinding in ranged],
        [one.bound for one in shape.ranges],
        rand,
        group,
    )
    in_proof = [group.encode(made[name]) for name in shape.sent if name not in fields]
    parts = [part.encoded for part in sent.parts]
    proof = b"".join((*parts, *in_proof, proved.commitments, proved.responses, ranges))
    return msgspec.structs.replace(settlement, proof=proof), outcome


def following_of(
    claim: Claim, current: Credential, paid: int, deducted: int, secrets: Mapping[str, int], group: Backend
) -> account.Next:
    """Holder: the account after a settlement. Secret but for its commitment. paid, deducted: R, and d if the row takes
    the account's deductible, else 0; secrets: `secrets_of` them. Raises DecodeError for impossible numbers."""
    own = current.named(ACCOUNT)
    return account.successor(
        current,
        cap=_number(own["cap"]) - paid,
        deductible=_number(own["deductible"]) - deducted,
        visits=_number(own["visits"]) + claim.row.visits_added,
        serial_share=secrets["serial"],
        blind=secrets["blind"],
        group=group,
    )


def secrets_of(derive: Derive, current: Credential, paid: int, deducted: int) -> dict[str, int]:
    """Holder: what a restored wallet finds again of a settlement of R and d: blindings, serial share, blind. Secret.

    They depend on R, d and what the account holds, too: a bill that its hospital signed anew with other amounts, or an
    account that its bureau signed anew, makes other ones of one claim, and two commitments under one blinding would
    give their difference away.
    """
    own = current.named(ACCOUNT)
    cap, deductible, visits = (_number(own[name]) for name in ("cap", "deductible", "visits"))
    of = f"of {paid} and {deducted} from {cap}, {deductible} and {visits}"
    names = ("paid", "deducted", "owner", "serial", "blind")
    return {name: int.from_bytes(derive(f"{name} {of}"), "big") % R for name in names}


def _note(derive: Derive, outcome: Outcome) -> bytes:
    """R and d for whoever has the wallet's seed: nonce and ciphertext. The nonce is a PRF of the text, so that another
    text under this claim's key gets another one."""
    plain = outcome.paid[0].to_bytes(8, "big") + outcome.deducted[0].to_bytes(8, "big")
    nonce = derive(f"nonce of {plain.hex()}")[:_NONCE_BYTES]
    return nonce + AESGCM(derive("note")[:32]).encrypt(nonce, plain, None)


def read_note(derive: Derive, note: bytes) -> tuple[int, int]:
    """Holder: R and d of a settlement of her own, from the ledger. Secret. Raises VerificationError for another's."""
    try:
        plain = AESGCM(derive("note")[:32]).decrypt(note[:_NONCE_BYTES], note[_NONCE_BYTES:], None)
    except InvalidTag:
        raise VerificationError("settlement.other_note") from None
    return int.from_bytes(plain[:8], "big"), int.from_bytes(plain[8:], "big")


def _branch_witness(shape: Rule, branches: Mapping[bytes, int], openings: Openings) -> dict[str, int]:
    """For each choice the blinding of the sum that is zero."""
    found = {}
    for choice in shape.choices:
        place = branches[label(choice)]
        found[zero_name(choice.name, place)] = choice.zeros[place].opening(openings)[1]
    return found


# -------------------------------------------------------------------------------------------- verifier


def check(settlement: Settlement, claim: Claim, group: Backend | None = None) -> Check:
    """Verifier: what must hold for `settlement` to prove `claim`, to be settled alone or with others.

    `claim` is the verifier's own; an auditor of one message takes ``settlement.claim`` and compares its fields with
    other evidence. Raises VerificationError or DecodeError for what is malformed, about another claim, or about one
    that nothing could prove. *Nothing is proved before the check is settled.*
    """
    group = group or backend()
    if settlement.header != HEADER:
        raise VerificationError("zkp.unknown_suite", suite=settlement.header.suite)
    for field in Claim.__struct_fields__:
        if getattr(settlement.claim, field) != getattr(claim, field):
            raise VerificationError("zkp.not_as_asked", field=field)
    try:
        claims.check_claim(claim)
    except Refused as refused:
        raise VerificationError(refused.code, **refused.facts) from None
    if (settlement.deducted is None) != (claim.row.deductible is not None):
        raise VerificationError("zkp.malformed_proof")
    canonical.decode(Settlement, canonical.encode(settlement))
    shape = rule(claim.row, claim.service_day, len(claim.standing))
    reader = Reader(settlement.proof)
    shown, standings = read_shown(claim, reader, group)
    fields = {"paid": settlement.paid} | ({"deducted": settlement.deducted} if settlement.deducted else {})
    points = read_points(claim, fields, shape, reader, group)
    following, owner = point_of(settlement.following, group), point_of(settlement.owner, group)
    sent = Sent(shown, standings, following, owner, points)
    transcript = transcript_of(HEADER, claim, settlement.note, sent, shape.sent, group)
    statement = statement_of(claim, sent, shape)
    commitments, responses = sigma.proof_bytes(statement)
    proved = SigmaProof(reader.take(commitments), reader.take(responses))
    found = Check(group)
    for part in sent.parts:
        part.add_to(found)
    sigma.verify(transcript, statement, proved, found)
    sums, bounds = [one.of.sum(sent.points) for one in shape.ranges], [one.bound for one in shape.ranges]
    range_proof.verify(transcript, sums, bounds, reader.rest(), found)
    return found


def verify(settlement: Settlement, claim: Claim, group: Backend | None = None) -> None:
    """Verifier: check one settlement alone. Raises VerificationError or DecodeError, as `check` does."""
    group = group or backend()
    settle([check(settlement, claim, group)], group)


def verify_batch(claimed: Iterable[tuple[Settlement, Claim]], group: Backend | None = None) -> None:
    """Verifier: many at once, for less. Raises `zkp.batch.BadProofs` with the places (from 0) of
    those that do not hold, malformed ones among them."""
    group = group or backend()
    settle_all([partial(check, settlement, claim, group) for settlement, claim in claimed], group)
