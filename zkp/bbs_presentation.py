"""A BBS signature shown inside a larger proof: what is sent, what is related, what is paired.

The draft's proof (`zkp.bbs.proof_gen`) stands alone. Here the same randomised points become two relations
of one sigma proof, so that hidden attributes can be used by whatever else that proof says, by their names:

    P -> V:  D = B r2,  Abar = A (r1 r2),  Bbar = D r1 - Abar e            144 bytes; none may be the identity
    Bbar = r1 D - e Abar
    P1 + Q1 domain + sum_disclosed H_i m_i = r3 D - sum_hidden H_j m_j      r3 = 1 / r2
    e(Abar, W) e(-Bbar, BP2) = 1

Attribute a of the credential shown under `prefix` is the variable ``<prefix>.<a>``, or the one that `shared`
names: the holder's secret is ``secret`` in all credentials of a proof, which is how they are shown to be one
person's. Once D is sent the hidden attributes are fixed (two representations of D give a logarithm between
generators): `zkp.sigma.Folded` relies on it.

Soundness: as the draft's proof, by extraction of all variables. Zero knowledge: D, Abar are uniform, Bbar is
SK Abar. The secret, the blind and whatever is not in `disclosed` stay hidden. Not reviewed by outsiders.

Spec: draft-irtf-cfrg-bbs-signatures-09, section 3.7; Tessaro and Zhu, eprint 2023/275, appendix B.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from wire.errors import DecodeError, VerificationError
from zkp import bbs
from zkp.attributes import BLIND, SECRET, Credential, Schema
from zkp.batch import Check
from zkp.groups import POINT_BYTES, Backend, Point, R, Rand, random_scalar
from zkp.sigma import Relation, Sum
from zkp.transcript import Transcript

POINTS_BYTES = 3 * POINT_BYTES
"""What one shown credential sends besides its share of the sigma proof: 144 bytes."""

SHARED = {SECRET: SECRET}
"""The usual sharing: one variable ``secret`` for all credentials of a proof."""


@dataclass(frozen=True)
class Issued:
    """Whose credentials are meant: a schema and an issuer's 96-byte public key. Public."""

    schema: Schema
    issuer: bytes


@dataclass(frozen=True)
class Shown:
    """A credential shown in a proof, as prover and verifier both see it. Public.

    disclosed: integers by attribute, as the statement has them; shared: variable by attribute.
    """

    of: Issued
    prefix: str
    disclosed: Mapping[str, int]
    a_bar: Point
    b_bar: Point
    d: Point
    group: Backend
    shared: Mapping[str, str] = field(default_factory=lambda: SHARED)

    def variable(self, attribute: str) -> str:
        """The name under which relations use a hidden attribute. ValueError for a disclosed or unknown one."""
        if attribute in self.disclosed or attribute not in self.of.schema.names:
            raise ValueError(f"{attribute} is not a hidden attribute of {self.of.schema.name}")
        return self.shared.get(attribute, f"{self.prefix}.{attribute}")

    @property
    def encoded(self) -> bytes:
        """P -> V: Abar, Bbar, D."""
        return b"".join(map(self.group.encode, (self.a_bar, self.b_bar, self.d)))

    def append_to(self, transcript: Transcript) -> None:
        """Write key, schema, what is disclosed and the points: before any challenge."""
        label, schema = self.prefix.encode(), self.of.schema
        transcript.append_key(label + b".issuer", self.of.issuer)
        transcript.append_bytes(label + b".schema", schema.header)
        for index, name in enumerate(schema.names):
            if name in self.disclosed:
                transcript.append_integer(label + b".disclosed", index)
                transcript.append_scalar(label + b".value", self.disclosed[name])
            elif name in self.shared:
                transcript.append_integer(label + b".shared", index)
                transcript.append_bytes(label + b".as", self.shared[name].encode())
        for name, point in (("Abar", self.a_bar), ("Bbar", self.b_bar), ("D", self.d)):
            transcript.append_point(label + b"." + name.encode(), self.group.encode(point))

    def relations(self) -> list[Relation]:
        """The two relations. Variables: the hidden attributes and ``<prefix>/e``, ``/r1``, ``/r3``."""
        label, names = self.prefix.encode(), self.of.schema.names
        family = bbs.CREDENTIALS.family
        bound = bbs.domain(self.of.issuer, len(names), self.of.schema.header, bbs.CREDENTIALS)
        # Bbar = r1 D - e Abar
        first = Relation(
            label + b"/signature",
            [(f"{self.prefix}/r1", [(1, self.d)]), (f"{self.prefix}/e", [(-1, self.a_bar)])],
            [(1, self.b_bar)],
        )
        # P1 + Q1 domain + sum_disclosed H_i m_i = r3 D - sum_hidden H_j m_j
        target: Sum = [
            (1, (family, 0)),
            (bound, (family, 1)),
            *((self.disclosed[name], (family, 2 + i)) for i, name in enumerate(names) if name in self.disclosed),
        ]
        hidden: list[tuple[str, Sum]] = [
            (self.shared.get(name, f"{self.prefix}.{name}"), [(-1, (family, 2 + i))])
            for i, name in enumerate(names)
            if name not in self.disclosed
        ]
        return [first, Relation(label + b"/messages", [(f"{self.prefix}/r3", [(1, self.d)]), *hidden], target)]

    def add_to(self, check: Check) -> None:
        """Verifier: e(Abar, W) e(-Bbar, BP2) = 1."""
        key = bbs.public_key(self.of.issuer, self.group)
        check.product([(self.a_bar, 1, key), (self.b_bar, R - 1, self.group.generator2())])


def show(
    credential: Credential,
    of: Issued,
    prefix: str,
    disclose: Collection[str],
    rand: Rand,
    group: Backend,
    shared: Mapping[str, str] = SHARED,
) -> tuple[Shown, dict[str, int]]:
    """Holder: randomise a credential (secret) for one proof. Returns what is sent and the witness (secret).

    Raises DecodeError for a credential of another schema or issuer. ValueError for disclosing the secret or the
    blind. The signature is not checked here: `zkp.credentials` does so on receipt.
    """
    _check_disclosed(of.schema, disclose)
    if credential.issuer != of.issuer:
        raise DecodeError("credentials.other_issuer", schema=of.schema.name)
    names, scalars = of.schema.names, credential.scalars(of.schema)
    point, e = bbs.read_signature(credential.signature, group)
    r1, r2 = random_scalar(rand) or 1, random_scalar(rand) or 1  # zero: once in 2^255
    family = bbs.CREDENTIALS.family
    bound = bbs.domain(of.issuer, len(names), of.schema.header, bbs.CREDENTIALS)
    d = group.msm(family.points(group, len(names) + 2), [scalar * r2 for scalar in (1, bound, *scalars)])
    a_bar = group.mul(point, r1 * r2)
    b_bar = group.msm([d, a_bar], [r1, -e])
    by_name = dict(zip(names, scalars, strict=True))
    disclosed = {name: by_name[name] for name in disclose}
    shown = Shown(of, prefix, disclosed, a_bar, b_bar, d, group, shared)
    witness = {shown.variable(name): scalar for name, scalar in by_name.items() if name not in disclosed}
    witness |= {f"{prefix}/r1": r1, f"{prefix}/e": e, f"{prefix}/r3": pow(r2, -1, R)}
    return shown, witness


def read(
    encoded: bytes,
    of: Issued,
    prefix: str,
    disclosed: Mapping[str, int],
    group: Backend,
    shared: Mapping[str, str] = SHARED,
) -> Shown:
    """Verifier: what a prover sent. `disclosed` is the verifier's own, from the statement: integers by attribute.

    Raises VerificationError for malformed points, and for the identity.
    """
    _check_disclosed(of.schema, disclosed)
    if len(encoded) != POINTS_BYTES:
        raise VerificationError("zkp.malformed_proof")
    try:
        a_bar, b_bar, d = (group.decode(encoded[at : at + POINT_BYTES]) for at in range(0, POINTS_BYTES, POINT_BYTES))
    except DecodeError:
        raise VerificationError("zkp.malformed_proof") from None
    return Shown(of, prefix, disclosed, a_bar, b_bar, d, group, shared)


def _check_disclosed(schema: Schema, disclose: Collection[str]) -> None:
    if not set(disclose) <= set(schema.names) - {SECRET, BLIND}:
        raise ValueError("only attributes of the schema are disclosed, never the secret or the blind")
