"""Eligibility: this bill's patient is insured as the policy asks, shown without saying who or what for.

Statement (`EligibilityRequest`, public, the verifier's own): bill handle, hospital and service day; what is asked
of person and visit (`Conditions`, from a policy row); issuers' keys, set versions; chain, audience, nonce,
purpose, grant. Over a person credential of the bureau and an encounter credential of the hospital:

    one secret in both                                              (one variable)
    encounter: bill, hospital, day, and med_type, level if asked    disclosed
    person: scheme, insutype, psn_type, region, sex if asked        disclosed
    valid_from <= day <= valid_to                                   two commitments, ranges [0, day], [day, 65535]
    born between two days, by calendar from the ages, if asked      one commitment, one exact two-sided range
    the person's handle in the active set of this epoch             membership
    the diagnosis on a public list, if asked                        membership
    or filed by this person, valid on the day, if asked             a filing with the same handle and code

    P -> V   the credentials' and sets' points, the commitments
             one sigma proof: two relations a credential, one a set, one fold for all commitments
             one range proof: 48 bits in 64 at most, with a filing 80 in 128

The commitments C = v G + b H are folded (`zkp.sigma.Folded`): each v is a hidden message that its credential's D
fixes. Nothing wraps: ranges are of days, 0..65535. No account takes part, and nothing is spent: the verifier keeps
the nonces it has given out.

Adversary: a prover without such credentials, alone or with others' (BBS, discrete logarithms, q-SDH, random
oracle); a verifier that wants more than the request says (zero knowledge). Linkable on purpose: by the bill's
handle. Not covered: what the hospital typed; a person who hands her wallet on. docs/protocols/eligibility.md. Not
constant time. Not reviewed by outsiders. Spec: DESIGN section 6; our own composition.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Annotated

import msgspec

from wire import canonical
from wire.canonical import Wire
from wire.dates import NO_END, birth_days
from wire.errors import DecodeError, Refused, VerificationError
from wire.evidence import Header, register
from wire.identifiers import Handle, Hash, Name
from zkp import bbs_presentation, membership, range_proof, sigma
from zkp.attributes import SECRET, Credential, Value
from zkp.batch import Check, settle, settle_all
from zkp.bbs_presentation import Issued, Shown
from zkp.credentials import ENCOUNTER, PERSON
from zkp.groups import POINT_BYTES, Backend, Point, Rand, backend, random_scalar
from zkp.membership import SetKey, Standing
from zkp.pedersen import G, H, commit
from zkp.policy import AGES, Age, Diagnoses, KeyCode, Row, row_id
from zkp.range_proof import Bound
from zkp.relations import Item
from zkp.sigma import Folded, Relation, SigmaProof
from zkp.transcript import Transcript

EncodedKey = Annotated[bytes, msgspec.Meta(min_length=96, max_length=96)]
ServiceDay = Annotated[int, msgspec.Meta(ge=0, le=NO_END - 1)]
Purpose = Annotated[str, msgspec.Meta(pattern=r"^[A-Z][A-Z0-9]{0,31}\Z")]

PERSON_KEYS = ("scheme", "insutype", "psn_type", "region", "sex")
ENCOUNTER_KEYS = ("med_type", "level")
FILING_SHARED = {"handle": "person.handle", "code": "encounter.diagnosis"}


class Conditions(Wire, frozen=True, tag="zkp.conditions"):
    """What is asked of person and visit. Public. An empty code asks nothing; ages 0..150: any.

    policy, version, row: which terms these are; row: a hash of them (`zkp.policy.row_id`, or the asker's own).
    diagnoses: the set in which the diagnosis must stand, or None.
    """

    policy: Name
    version: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    row: Hash
    scheme: KeyCode = ""
    insutype: KeyCode = ""
    psn_type: KeyCode = ""
    region: KeyCode = ""
    sex: KeyCode = ""
    med_type: KeyCode = ""
    level: KeyCode = ""
    youngest: Age = AGES[0]
    oldest: Age = AGES[1]
    diagnoses: Diagnoses | None = None


class EligibilityRequest(Wire, frozen=True, tag="zkp.eligibility_request"):
    """What a verifier asks about one bill, and under which keys. Public between the two.

    person_key, encounter_key: issuers' 96 bytes; active, diagnoses: the sets' newest versions; audience: the asking
    organisation; nonce: fresh, from it; purpose and grant: under which the answer is used.
    """

    chain: Name
    person_key: EncodedKey
    encounter_key: EncodedKey
    active: SetKey
    diagnoses: SetKey | None
    conditions: Conditions
    bill: Handle
    hospital: Name
    service_day: ServiceDay
    audience: Name
    nonce: Hash
    purpose: Purpose
    grant: Name


class Eligibility(Wire, frozen=True, tag="zkp.eligibility"):
    """The answer: evidence of kind "eligibility". It holds no secret. The request fixes all lengths.

    points: person, encounter, active set, diagnosis set or filing, then the commitments; commitments, responses:
    the sigma proof's; ranges: the range proof.
    """

    header: Header
    request: EligibilityRequest
    points: Annotated[bytes, msgspec.Meta(max_length=2048)]
    commitments: Annotated[bytes, msgspec.Meta(max_length=2048)]
    responses: Annotated[bytes, msgspec.Meta(max_length=4096)]
    ranges: Annotated[bytes, msgspec.Meta(max_length=2048)]


HEADER = register("eligibility", 1, Eligibility)


@dataclass(frozen=True, repr=False)
class Holdings:
    """What the holder proves from. Secret whole. diagnosis: her filing's row, or the code's row of a public list."""

    person: Credential
    encounter: Credential
    active: membership.Row
    diagnosis: membership.Row | None = None


def conditions_of(row: Row) -> Conditions:
    """What a policy row asks of person and visit. Whether it is in force: `zkp.policy.check_in_force`. DecodeError."""
    keys = {name: getattr(row, name) for name in (*PERSON_KEYS, *ENCOUNTER_KEYS)}
    return Conditions(
        row.policy,
        row.version,
        row_id(row),
        **keys,
        youngest=row.youngest,
        oldest=row.oldest,
        diagnoses=row.diagnoses,
    )


# ------------------------------------------------------------------------------- statement, for both sides


def _asked(request: EligibilityRequest) -> tuple[dict[str, Value], dict[str, Value]]:
    """What is disclosed of person and encounter credential."""
    conditions = request.conditions
    person: dict[str, Value] = {name: getattr(conditions, name) for name in PERSON_KEYS if getattr(conditions, name)}
    encounter: dict[str, Value] = {"bill": request.bill, "hospital": request.hospital, "day": request.service_day}
    encounter |= {name: getattr(conditions, name) for name in ENCOUNTER_KEYS if getattr(conditions, name)}
    return person, encounter


def _ranges(request: EligibilityRequest) -> Mapping[str, Bound]:
    """Which hidden days lie between which bounds, by the proof's name for the attribute."""
    conditions = request.conditions
    filed = conditions.diagnoses is not None and conditions.diagnoses.kind == "filed"
    return _bounds(request.service_day, conditions.youngest, conditions.oldest, filed)


@lru_cache(maxsize=1024)
def _bounds(day: int, youngest: int, oldest: int, filed: bool) -> Mapping[str, Bound]:
    valid = Bound(0, day), Bound(day, NO_END)
    bounds = dict(zip(("person.valid_from", "person.valid_to"), valid, strict=True))
    if (youngest, oldest) != AGES:
        bounds["person.birth"] = Bound(*birth_days(youngest, oldest, day))
    if filed:
        bounds |= dict(zip(("filing.from", "filing.to"), valid, strict=True))
    return bounds


def check_request(request: EligibilityRequest) -> None:
    """Raise DecodeError or Refused for a request that no proof could answer, from the request alone."""
    try:
        canonical.decode(EligibilityRequest, canonical.encode(request))
    except OverflowError:
        raise DecodeError("wire.not_canonical", kind="EligibilityRequest") from None
    conditions, given = request.conditions, request.diagnoses
    if conditions.youngest > conditions.oldest:
        raise DecodeError("eligibility.bad_ages", youngest=conditions.youngest, oldest=conditions.oldest)
    wanted = conditions.diagnoses
    if request.active.kind != "active":
        raise Refused("eligibility.other_set", set=request.active.name)
    if (wanted and (wanted.kind, wanted.name)) != (given and (given.kind, given.name)):
        raise Refused("eligibility.other_set", set=given.name if given else "-")
    _ranges(request)


@dataclass(frozen=True)
class _Parts:
    """What a prover has sent before the first challenge."""

    request: EligibilityRequest
    shown: Sequence[Shown | Standing]
    days: Sequence[Point]
    group: Backend

    @property
    def encoded(self) -> bytes:
        return b"".join([*(part.encoded for part in self.shown), *map(self.group.encode, self.days)])

    def transcript(self) -> Transcript:
        transcript = _transcript(self.request)
        for part in self.shown:
            part.append_to(transcript)
        for point in self.days:
            transcript.append_point(b"C", self.group.encode(point))
        return transcript

    def statement(self) -> list[Item]:
        folded = [
            Relation(name.encode(), [(name, [(1, G)]), (f"opening.{name}", [(1, H)])], [(1, point)])
            for name, point in zip(_ranges(self.request), self.days, strict=True)
        ]
        return [*(relation for part in self.shown for relation in part.relations()), Folded(b"days", folded)]


def _transcript(request: EligibilityRequest) -> Transcript:
    transcript = Transcript(b"eligibility/v1")
    transcript.append_bytes(b"header", canonical.encode(HEADER))
    transcript.append_bytes(b"request", canonical.encode(request))
    return transcript


# ---------------------------------------------------------------------------------------------- prover


def prove(request: EligibilityRequest, holdings: Holdings, rand: Rand, group: Backend | None = None) -> Eligibility:
    """Holder: answer `request` from `holdings` (secret). P -> V

    Raises Refused, saying which condition does not hold, and makes no proof then; DecodeError for a request or
    credentials of another kind or issuer. That she was asked is hers to tell or not.
    """
    check_request(request)
    _check_holds(request, holdings)
    return _prove(request, holdings, rand, group or backend())


def _prove(request: EligibilityRequest, holdings: Holdings, rand: Rand, group: Backend) -> Eligibility:
    person, encounter = _asked(request)
    secrets = [*holdings.person.scalars(PERSON), *holdings.encounter.scalars(ENCOUNTER)]
    hedged = _transcript(request).prover_randomness(secrets, rand)

    witness: dict[str, int] = {}
    shown: list[Shown | Standing] = []
    for prefix, of, credential, disclose in (
        ("person", Issued(PERSON, request.person_key), holdings.person, person),
        ("encounter", Issued(ENCOUNTER, request.encounter_key), holdings.encounter, encounter),
    ):
        points, known = bbs_presentation.show(credential, of, prefix, disclose, hedged, group)
        shown.append(points)
        witness |= known
    standing, known = membership.show(holdings.active, "active", "person.handle", hedged, group)
    shown.append(standing)
    witness |= known
    row = holdings.diagnosis
    if request.diagnoses is not None and row is not None:
        part: Shown | Standing
        if request.diagnoses.kind == "filed":
            of = request.diagnoses.issued
            part, known = bbs_presentation.show(row.credential, of, "filing", (), hedged, group, FILING_SHARED)
        else:
            part, known = membership.show(row, "diagnosis", "encounter.diagnosis", hedged, group)
        shown.append(part)
        witness = {**known, **witness}  # what is shared stays the credentials' own

    bounds = _ranges(request)
    openings = {name: random_scalar(hedged) for name in bounds}
    days = [commit(witness[name], opening, group) for name, opening in openings.items()]
    parts = _Parts(request, shown, days, group)
    transcript = parts.transcript()
    proof = sigma.prove(
        transcript,
        parts.statement(),
        {**witness, **{f"opening.{name}": opening for name, opening in openings.items()}},
        hedged,
        group,
    )
    values = [witness[name] for name in bounds]
    sums = [[(1, point)] for point in days]
    ranges = range_proof.prove(transcript, sums, values, list(openings.values()), list(bounds.values()), hedged, group)
    return Eligibility(HEADER, request, parts.encoded, proof.commitments, proof.responses, ranges)


def _check_holds(request: EligibilityRequest, holdings: Holdings) -> None:
    """Raise Refused for the first condition that does not hold."""
    person, encounter = holdings.person.named(PERSON), holdings.encounter.named(ENCOUNTER)
    if person[SECRET] != encounter[SECRET]:
        raise Refused("eligibility.two_holders")
    for asked, held in zip(_asked(request), (person, encounter), strict=True):
        for name, value in asked.items():
            if held[name] != value:
                raise Refused(
                    "eligibility.other_value", attribute=name, asked=value.hex() if isinstance(value, bytes) else value
                )
    hidden: dict[str, Value] = {f"person.{name}": value for name, value in person.items()}
    _check_row(request.active, holdings.active, person["handle"])
    if request.diagnoses is not None:
        diagnosis: object = encounter["diagnosis"]
        filing = holdings.diagnosis.member if holdings.diagnosis else None
        if isinstance(filing, membership.Filing):
            hidden |= {"filing.from": filing.first, "filing.to": filing.last}
            if (filing.handle, filing.code) == (person["handle"], diagnosis):
                diagnosis = filing
        _check_row(request.diagnoses, holdings.diagnosis, diagnosis)
    for name, bound in _ranges(request).items():
        value = hidden[name]
        if not isinstance(value, int) or not bound.low <= value <= bound.high:
            raise Refused("eligibility.day_outside", attribute=name)


def _check_row(key: SetKey, row: membership.Row | None, member: object) -> None:
    if row is None or row.key != key or row.member != member:
        raise Refused("eligibility.not_in_set", set=key.name, version=key.version)


# -------------------------------------------------------------------------------------------- verifier


def check(proof: Eligibility, request: EligibilityRequest, group: Backend | None = None) -> Check:
    """Verifier: take `proof` apart as an answer to its own `request`. `zkp.batch.settle` decides, one or many at once.

    The keys, set versions and terms in `request` must be those that the ledger holds on the service day: they
    decide what an acceptance means. A nonce is good for one answer. Raises VerificationError or DecodeError, also for
    a request that nothing could answer.
    """
    if proof.header != HEADER:
        raise VerificationError("zkp.unknown_suite", suite=proof.header.suite)
    for field in EligibilityRequest.__struct_fields__:
        if getattr(proof.request, field) != getattr(request, field):
            raise VerificationError("zkp.not_as_asked", field=field)
    try:
        check_request(request)
    except Refused as refused:
        raise VerificationError(refused.code, **refused.facts) from None
    group = group or backend()
    parts = _read(proof.points, request, group)
    found = Check(group)
    transcript = parts.transcript()
    sigma.verify(transcript, parts.statement(), SigmaProof(proof.commitments, proof.responses), found)
    bounds = list(_ranges(request).values())
    range_proof.verify(transcript, [[(1, point)] for point in parts.days], bounds, proof.ranges, found)
    for part in parts.shown:
        part.add_to(found)
    return found


def verify(proof: Eligibility, request: EligibilityRequest, group: Backend | None = None) -> None:
    """Verifier: check that `proof` answers `request`. About 10 ms. Raises as `check`; VerificationError if false."""
    group = group or backend()
    settle([check(proof, request, group)], group)


def verify_batch(answers: Iterable[tuple[Eligibility, EligibilityRequest]], group: Backend | None = None) -> None:
    """Verifier: many at once, for less. Raises `zkp.batch.BadProofs` with the places (from 0) of
    those that do not hold, malformed ones among them."""
    group = group or backend()
    settle_all([partial(check, proof, request, group) for proof, request in answers], group)


def _read(data: bytes, request: EligibilityRequest, group: Backend) -> _Parts:
    """The points of a proof, in order. Raises VerificationError if malformed."""
    at = 0

    def take(length: int) -> bytes:
        nonlocal at
        at += length
        return data[at - length : at]

    person, encounter = _asked(request)
    shown: list[Shown | Standing] = []
    for prefix, of, disclosed in (
        ("person", Issued(PERSON, request.person_key), person),
        ("encounter", Issued(ENCOUNTER, request.encounter_key), encounter),
    ):
        integers = {name: of.schema.scalar(name, value) for name, value in disclosed.items()}
        shown.append(bbs_presentation.read(take(bbs_presentation.POINTS_BYTES), of, prefix, integers, group))
    shown.append(membership.read(take(membership.POINTS_BYTES), request.active, "active", "person.handle", group))
    if request.diagnoses is not None and request.diagnoses.kind == "filed":
        points, of = take(bbs_presentation.POINTS_BYTES), request.diagnoses.issued
        shown.append(bbs_presentation.read(points, of, "filing", {}, group, FILING_SHARED))
    elif request.diagnoses is not None:
        points = take(membership.POINTS_BYTES)
        shown.append(membership.read(points, request.diagnoses, "diagnosis", "encounter.diagnosis", group))
    try:
        days = [group.decode(take(POINT_BYTES)) for _ in _ranges(request)]
    except DecodeError:
        raise VerificationError("zkp.malformed_proof") from None
    if at != len(data):
        raise VerificationError("zkp.proof_length", length=len(data), expected=at)
    return _Parts(request, shown, days, group)
