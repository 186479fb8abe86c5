"""The parts that the proof of a settlement is made of: what is shown, in which order, related how.

Built alike by prover and verifier from a `zkp.claim.Claim`: `Sent` is what crosses, `transcript_of` writes all of it
before the first challenge, `statement_of` relates it. docs/protocols/settlement.md numbers the relations and says
why the folded ones are sound. `zkp.reversal` uses the next account's relation too.

Public but for witnesses, which `show` returns to the prover. Not reviewed by outsiders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wire import canonical
from wire.errors import DecodeError, VerificationError
from wire.evidence import Header
from zkp import bbs_presentation, membership, pedersen
from zkp import claim as claims
from zkp.attributes import BLIND, SECRET, Credential
from zkp.bbs import CREDENTIALS
from zkp.bbs_presentation import Shown
from zkp.claim import Claim
from zkp.credentials import ACCOUNT
from zkp.groups import POINT_BYTES, Backend, Point, Rand
from zkp.membership import Standing
from zkp.relations import Item
from zkp.settlement_relations import TOTAL, Rule, label, standing
from zkp.sigma import Base, Folded, OneOf, Relation, Sum
from zkp.transcript import Transcript


@dataclass(frozen=True)
class Sent:
    """All points of one proof, decoded. Public. points: commitments by name, the ledger's among them."""

    shown: Mapping[str, Shown]
    standings: Sequence[Standing]
    following: Point
    owner: Point
    points: Mapping[str, Point]

    @property
    def parts(self) -> list[Shown | Standing]:
        """Credentials and memberships, in the order in which they are sent."""
        return [*self.shown.values(), *self.standings]


def _filing_sharing(person: Shown, encounter: Shown) -> dict[str, str]:
    """A filing belongs to the holder, and is of the encounter's diagnosis."""
    return {"handle": person.variable("handle"), "code": encounter.variable("diagnosis")}


def in_fields(claim: Claim) -> tuple[str, ...]:
    """The commitments that the message names itself, apart from the proof's bytes."""
    return ("paid", "deducted") if claim.row.deductible is None else ("paid",)


def transcript_of(
    header: Header, claim: Claim, note: bytes, sent: Sent, names: Sequence[str], group: Backend
) -> Transcript:
    """Everything public, and every point, before the first challenge."""
    transcript = Transcript(b"settlement/v1")
    transcript.append_bytes(b"header", canonical.encode(header))
    transcript.append_bytes(b"claim", claims.encoded(claim))
    transcript.append_bytes(b"note", note)
    for part in sent.parts:
        part.append_to(transcript)
    transcript.append_point(b"next account", group.encode(sent.following))
    transcript.append_point(b"owner", group.encode(sent.owner))
    for name in names:
        transcript.append_point(name.encode(), group.encode(sent.points[name]))
    return transcript


def following_relation(
    current: Shown, following: Point, changes: Mapping[str, tuple[int, str]], visits: int
) -> Relation:
    """C_N commits to the account `current` with its numbers changed, under a new serial share and blind.

    changes: for an attribute, (+1 or -1, the variable that is added or taken); visits: what is added to the visits.
    """
    family = CREDENTIALS.family
    terms: list[tuple[str, Sum]] = []
    target: list[tuple[int, Base]] = [(1, following)]
    for index, name in enumerate(ACCOUNT.names, 2):
        base: Base = (family, index)
        if name in ("serial", BLIND):
            terms.append((f"next.{name}", [(1, base)]))
        elif name in current.disclosed:
            target.append((-current.disclosed[name], base))
        else:
            terms.append((current.variable(name), [(1, base)]))
        if name in changes:
            factor, variable = changes[name]
            terms.append((variable, [(factor, base)]))
        if name == "visits":
            target.append((-visits, base))
    return Relation(b"next account", terms, target)


def opened(name: str, variable: str, point: Point) -> Relation:
    """C = v G + b H, with v the `variable` that another relation fixes; for a fold. The blinding is ``link.<name>``."""
    terms: list[tuple[str, Sum]] = [(variable, [(1, pedersen.G)]), (f"link.{name}", [(1, pedersen.H)])]
    return Relation(name.encode(), terms, [(1, point)])


def zero_name(choice: str, place: int) -> str:
    """The variable b of the place-th branch of a choice: its formal sum is b H."""
    return f"zero.{choice}.{place}"


def statement_of(claim: Claim, sent: Sent, shape: Rule) -> list[Item]:
    """All relations of the sigma proof: docs/protocols/settlement.md numbers them."""
    row, own = claim.row, claim.row.deductible is None
    statement: list[Item] = [relation for part in sent.parts for relation in part.relations()]
    changes = {"cap": (-1, "paid")} | ({"deductible": (-1, "deducted")} if own else {})
    statement.append(following_relation(sent.shown["account"], sent.following, changes, row.visits_added))
    links = [
        Relation(
            link.name.encode(),
            [
                *((sent.shown[prefix].variable(name), [(w, pedersen.G)]) for w, prefix, name in link.attributes),
                (f"link.{link.name}", [(1, pedersen.H)]),
            ],
            [(1, sent.points[link.name])],
        )
        for link in shape.links
    ]
    links += [opened(name, name, sent.points[name]) for name in in_fields(claim)]
    links.append(opened("owner", SECRET, sent.owner))
    statement.append(Folded(b"commitments", links))
    for choice in shape.choices:
        branches = [
            Relation(
                zero_name(choice.name, place).encode(),
                [(zero_name(choice.name, place), [(1, pedersen.H)])],
                zero.sum(sent.points),
            )
            for place, zero in enumerate(choice.zeros)
        ]
        statement.append(OneOf(label(choice), branches))
    return statement


def ledger_points(claim: Claim, group: Backend) -> dict[str, Point]:
    """C_total and the C_R that stand. Raises VerificationError."""
    try:
        points = {standing(number): group.decode(one) for number, one in enumerate(claim.standing)}
        return {TOTAL: group.decode(claim.total), **points}
    except DecodeError:
        raise VerificationError("zkp.malformed_proof") from None


def show(
    claim: Claim,
    held: Mapping[str, Credential],
    active: membership.Row,
    filed: membership.Row | None,
    rand: Rand,
    group: Backend,
) -> tuple[dict[str, Shown], list[Standing], dict[str, int]]:
    """Prover: randomise credentials (by prefix) and set rows for this proof; the witness (secret) of what they hide."""
    shown: dict[str, Shown] = {}
    witness: dict[str, int] = {}
    for prefix, issued in claim.issuers.items():
        disclose = tuple(claim.disclosed[prefix])
        shown[prefix], known = bbs_presentation.show(held[prefix], issued, prefix, disclose, rand, group)
        witness |= known
    variables = [("active", active, shown["person"].variable("handle"))]
    if filed is not None and claim.diagnoses is not None:
        diagnosis = shown["encounter"].variable("diagnosis")
        if claim.diagnoses.kind == "covered":
            variables.append(("covered", filed, diagnosis))
        else:
            shown["filing"], known = bbs_presentation.show(
                filed.credential,
                claim.diagnoses.issued,
                "filing",
                (),
                rand,
                group,
                _filing_sharing(shown["person"], shown["encounter"]),
            )
            witness = known | witness
    standings = []
    for prefix, row, variable in variables:
        one, known = membership.show(row, prefix, variable, rand, group)
        standings.append(one)
        witness |= known
    return shown, standings, witness


class Reader:
    """Takes a proof apart in order. Too short a proof: VerificationError."""

    def __init__(self, proof: bytes) -> None:
        self._proof = proof
        self._at = 0

    def take(self, length: int) -> bytes:
        """The next `length` bytes."""
        self._at += length
        if self._at > len(self._proof):
            raise VerificationError("zkp.proof_length", length=len(self._proof), expected=self._at)
        return self._proof[self._at - length : self._at]

    def rest(self) -> bytes:
        """What is left: the caller checks its length."""
        return self._proof[self._at :]


def point_of(data: bytes, group: Backend) -> Point:
    """The point of 48 bytes of a message. Raises VerificationError."""
    try:
        return group.decode(data)
    except DecodeError:
        raise VerificationError("zkp.malformed_proof") from None


def read_points(
    claim: Claim, fields: Mapping[str, bytes], shape: Rule, reader: Reader, group: Backend
) -> dict[str, Point]:
    """Verifier: the commitments, those in `fields` from there, and the ledger's. Raises VerificationError."""
    encoded = {name: fields.get(name) or reader.take(POINT_BYTES) for name in shape.sent}
    points = {name: point_of(data, group) for name, data in encoded.items()}
    return points | ledger_points(claim, group)


def read_shown(claim: Claim, reader: Reader, group: Backend) -> tuple[dict[str, Shown], list[Standing]]:
    """Verifier: the shown credentials and memberships. Raises VerificationError."""
    shown: dict[str, Shown] = {}
    asked = claim.disclosed
    for prefix, issued in claim.issuers.items():
        disclosed = claims.integers(issued.schema, asked[prefix])
        encoded = reader.take(bbs_presentation.POINTS_BYTES)
        shown[prefix] = bbs_presentation.read(encoded, issued, prefix, disclosed, group)
    handle, diagnosis = shown["person"].variable("handle"), shown["encounter"].variable("diagnosis")
    sets = [("active", claim.active, handle)]
    if claim.diagnoses is not None and claim.diagnoses.kind == "covered":
        sets.append(("covered", claim.diagnoses, diagnosis))
    elif claim.diagnoses is not None:
        sharing = _filing_sharing(shown["person"], shown["encounter"])
        encoded = reader.take(bbs_presentation.POINTS_BYTES)
        shown["filing"] = bbs_presentation.read(encoded, claim.diagnoses.issued, "filing", {}, group, sharing)
    standings = [
        membership.read(reader.take(membership.POINTS_BYTES), key, prefix, variable, group)
        for prefix, key, variable in sets
    ]
    return shown, standings
