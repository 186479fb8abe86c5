"""A hidden value stands in a published, signed set: the credential is active, the diagnosis is covered or filed.

A bureau publishes a set whole, under a *fresh key for each version*; a holder fetches it, finds her own row
and proves to have one, without saying which. What is no longer published cannot be proved under the next
version's key: that is how a filing or a credential ends. Three kinds:

    active    value = handle of the person credential       active in an epoch
    covered   value = code of the diagnosis                 a public list of diagnoses
    filed     (handle, code, from, to)                      a person's own filing of a diagnosis, and its validity

*active* and *covered* rows are weak Boneh-Boyen signatures on one value m, with the key Y = y P2:

    sigma = P1 / (y + m)
    P -> V:  A' = rho sigma,  Abar = rho P1 - m A'          96 bytes; A' must not be the identity
    relation Abar = rho P1 - m A'          pairing e(A', Y) e(-Abar, P2) = 1

*filed* rows are BBS signatures over their four values (`FILING`, shown by `zkp.bbs_presentation` with handle and
code shared with the other credentials). One weak signature on a packing of the four would let a hospital that
signs a diagnosis outside its range make one person's handle out of another's; and sending code * A' would let
everybody find the code by trying all. With a generator for each value neither arises.

A row's tag is a hash of set key and value: the holder finds her row by it. Handles are random 128-bit numbers
that only bureau and holder know, so that a published row of *active* or *filed* tells nobody else anything.

Adversary: a prover without a row (q-SDH; messages are chosen before the version's key); a verifier who wants
the value or to link two proofs (zero knowledge; Abar is y A'). Whoever holds a set's key can forge membership:
the bureau alone, never an insurer; `docs/protocols/key-ceremony.md`. Not reviewed by outsiders.

Source: Boneh and Boyen 2004 (weak signatures); Camenisch, Chaabouni, Shelat 2008 (set membership).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec

from wire import canonical
from wire.canonical import Wire
from wire.dates import Day
from wire.domains import SET_ROW, digest
from wire.errors import DecodeError, Refused, VerificationError
from wire.identifiers import Handle, Name
from zkp import bbs
from zkp.attributes import Attribute, Credential, Schema, Value, credential
from zkp.batch import Check
from zkp.bbs_presentation import Issued
from zkp.groups import POINT_BYTES, Backend, Point, R, Rand, backend, encode_scalar, random_scalar
from zkp.sigma import Relation, Sum
from zkp.transcript import Transcript

FILING: Final = Schema(
    "medveil.filing",
    1,
    (Attribute("handle", "handle"), Attribute("code", "text"), Attribute("from", "day"), Attribute("to", "day")),
)
"""A filed diagnosis: whose (handle of the person credential), which code, first and last day."""

P1: Final = (bbs.CREDENTIALS.family, 0)
"""The base of weak signatures: BBS's P1."""

TAG_BYTES = 16
POINTS_BYTES = 2 * POINT_BYTES
"""What a proof of membership sends besides its share of the sigma proof: 96 bytes."""

Code = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9.+*-]{1,31}\Z")]
"""A diagnosis code, such as I10.x00x002."""


class SetKey(Wire, frozen=True, tag="zkp.set_key"):
    """What a set's members are checked with. Public. version: of *active*, the epoch; key: 96 bytes."""

    kind: Literal["active", "covered", "filed"]
    name: Name
    version: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    key: Annotated[bytes, msgspec.Meta(min_length=96, max_length=96)]

    @property
    def issued(self) -> Issued:
        """As the issuer of filings. ValueError for another kind of set."""
        if self.kind != "filed":
            raise ValueError("only filings are shown as signed rows")
        return Issued(FILING, self.key)


class Filing(Wire, frozen=True, tag="zkp.filing"):
    """A person's filing. Secret. Valid on the days first..last, both included."""

    handle: Handle
    code: Code
    first: Day
    last: Day

    @property
    def named(self) -> dict[str, Value]:
        """As the attributes of `FILING`."""
        return {"handle": self.handle, "code": self.code, "from": self.first, "to": self.last}

    def __repr__(self) -> str:
        return "Filing(...)"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return []


class PublishedSet(Wire, frozen=True, tag="zkp.published_set"):
    """A whole set. Public. rows: tag (16 bytes) and signature (48, or 80 of a filing) each, ascending by tag."""

    key: SetKey
    rows: bytes

    @property
    def row_bytes(self) -> int:
        """Length of a row: 64, or 96 of filings."""
        return TAG_BYTES + _signature_bytes(self.key)

    def __len__(self) -> int:
        return len(self.rows) // self.row_bytes


Member = Filing | bytes | str
"""What stands in a set: a `Filing`, a handle (16 bytes, *active*) or a code (text, *covered*)."""


def _signature_bytes(key: SetKey) -> int:
    return bbs.SIGNATURE_BYTES if key.kind == "filed" else POINT_BYTES


def values(key: SetKey, member: Member) -> list[int]:
    """The integers that the set signs for `member`: four of a filing, else one. ValueError for another kind's."""
    if isinstance(member, Filing) and key.kind == "filed":
        canonical.decode(Filing, canonical.encode(member))
        if member.first > member.last:
            raise ValueError("a filing is valid from its first to its last day")
        return FILING.scalars(member.named)
    if isinstance(member, bytes) and key.kind == "active":
        return [FILING.scalar("handle", member)]
    if isinstance(member, str) and key.kind == "covered":
        return [FILING.scalar("code", member)]
    raise ValueError(f"no member of a set of kind {key.kind}")


def tag(key: SetKey, member: Member) -> bytes:
    """By which a holder finds her row: 16 bytes. Secret as long as the member's handle is."""
    return digest(SET_ROW, canonical.encode(key), *map(encode_scalar, values(key, member)))[:TAG_BYTES]


# ------------------------------------------------------------------------------------------ publisher


def new_version(
    kind: Literal["active", "covered", "filed"], name: str, version: int, rand: Rand, group: Backend | None = None
) -> tuple[int, SetKey]:
    """Bureau: a fresh secret key y for one version of a set, and the public key. Never used for another version."""
    y = random_scalar(rand) or 1
    return y, SetKey(kind, name, version, bbs.sk_to_pk(y, group))


def publish(y: int, key: SetKey, members: Iterable[Member], group: Backend | None = None) -> PublishedSet:
    """Bureau: sign every member under the secret key `y` of this version. 10^5 of *active*: below a minute.

    A member that is named twice stands in the set once. Raises Refused if there is none: an empty list is a mistake,
    more often than not, and would end every membership.
    """
    group = group or backend()
    base = P1[0].point(group, P1[1])
    rows: dict[bytes, bytes] = {}
    for member in members:
        signed = values(key, member)
        if key.kind == "filed":
            signature = bbs.sign_scalars(y, key.key, FILING.header, signed, group=group)
        else:
            (m,) = signed
            if (y + m) % R == 0:  # once in 2^255
                raise ValueError("no signature under this key: draw another")
            signature = group.encode(group.mul(base, pow(y + m, -1, R)))
        rows[tag(key, member)] = signature
    if not rows:
        raise Refused("membership.empty_set", set=key.name, version=key.version)
    return PublishedSet(key, b"".join(label + rows[label] for label in sorted(rows)))


# --------------------------------------------------------------------------------------------- holder


@dataclass(frozen=True, repr=False)
class Row:
    """A member with its signature, checked: what a holder keeps of a set. Secret."""

    key: SetKey
    member: Member
    signature: bytes

    @property
    def credential(self) -> Credential:
        """A filing as the credential that `zkp.bbs_presentation.show` takes."""
        if not isinstance(self.member, Filing):
            raise ValueError("only filings are shown as signed rows")
        return credential(FILING, self.key.key, self.member.named, self.signature)


def find(published: PublishedSet, member: Member, group: Backend | None = None) -> Row:
    """Holder: the row of `member` (secret) in the whole set, fetched without saying which, and checked.

    Raises Refused ("membership.not_in_set") if there is none, DecodeError for a damaged set, VerificationError
    for a signature that does not hold.
    """
    group, width, key = group or backend(), published.row_bytes, published.key
    if len(published.rows) % width:
        raise DecodeError("membership.damaged_set", set=key.name, version=key.version)
    wanted = tag(key, member)
    at = bisect_left(range(len(published)), wanted, key=lambda i: published.rows[i * width : i * width + TAG_BYTES])
    row = published.rows[at * width : (at + 1) * width]
    if row[:TAG_BYTES] != wanted:
        raise Refused("membership.not_in_set", set=key.name, version=key.version)
    found = Row(key, member, row[TAG_BYTES:])
    check_row(found, group)
    return found


def check_row(row: Row, group: Backend) -> None:
    """Check e(sigma, Y + m P2) = e(P1, P2), or a filing's signature. Raises VerificationError or DecodeError."""
    signed = values(row.key, row.member)
    if row.key.kind == "filed":
        bbs.verify_scalars(row.key.key, row.signature, FILING.header, signed, group=group)
        return
    sigma, generator = group.decode(row.signature), group.generator2()
    key = group.add2(bbs.public_key(row.key.key, group), group.mul2(generator, signed[0]))
    if not group.pairing_is_one([(sigma, key), (group.neg(P1[0].point(group, P1[1])), generator)]):
        raise VerificationError("membership.bad_row", set=row.key.name, version=row.key.version)


# ------------------------------------------------------------------------------- in a larger proof


@dataclass(frozen=True)
class Standing:
    """A hidden value's membership in an *active* or *covered* set, as prover and verifier both see it. Public.

    variable: the name under which the proof's other relations have the value.
    """

    key: SetKey
    prefix: str
    variable: str
    a: Point
    a_bar: Point
    group: Backend

    @property
    def encoded(self) -> bytes:
        """P -> V: A', Abar."""
        return self.group.encode(self.a) + self.group.encode(self.a_bar)

    def append_to(self, transcript: Transcript) -> None:
        """Write the set's key with kind, name and version, and the points: before any challenge."""
        label = self.prefix.encode()
        transcript.append_bytes(label + b".set", canonical.encode(self.key))
        transcript.append_bytes(label + b".of", self.variable.encode())
        transcript.append_point(label + b".A'", self.group.encode(self.a))
        transcript.append_point(label + b".Abar", self.group.encode(self.a_bar))

    def relations(self) -> list[Relation]:
        """Abar = rho P1 - m A', with m the proof's `variable`."""
        terms: list[tuple[str, Sum]] = [(f"{self.prefix}/rho", [(1, P1)]), (self.variable, [(-1, self.a)])]
        return [Relation(self.prefix.encode() + b"/member", terms, [(1, self.a_bar)])]

    def add_to(self, check: Check) -> None:
        """Verifier: e(A', Y) e(-Abar, P2) = 1."""
        key = bbs.public_key(self.key.key, self.group)
        check.product([(self.a, 1, key), (self.a_bar, R - 1, self.group.generator2())])


def show(row: Row, prefix: str, variable: str, rand: Rand, group: Backend) -> tuple[Standing, dict[str, int]]:
    """Holder: randomise a row (secret) for one proof. Returns what is sent and the witness, without the value itself.

    ValueError for a filing, which `zkp.bbs_presentation.show` shows.
    """
    if row.key.kind == "filed":
        raise ValueError("a filing is shown as a credential")
    rho = random_scalar(rand) or 1  # zero: once in 2^255
    a = group.mul(group.decode(row.signature), rho)
    (m,) = values(row.key, row.member)
    a_bar = group.msm([P1[0].point(group, P1[1]), a], [rho, -m])
    return Standing(row.key, prefix, variable, a, a_bar, group), {f"{prefix}/rho": rho}


def read(encoded: bytes, key: SetKey, prefix: str, variable: str, group: Backend) -> Standing:
    """Verifier: what a prover sent about the verifier's own `key`. Raises VerificationError if malformed."""
    if key.kind == "filed":
        raise ValueError("a filing is shown as a credential")
    if len(encoded) != POINTS_BYTES:
        raise VerificationError("zkp.malformed_proof")
    try:
        a, a_bar = group.decode(encoded[:POINT_BYTES]), group.decode(encoded[POINT_BYTES:])
    except DecodeError:
        raise VerificationError("zkp.malformed_proof") from None
    return Standing(key, prefix, variable, a, a_bar, group)
