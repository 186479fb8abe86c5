"""A tag that one holder can make once in a scope: N = secret * hash_to_curve(scope).

Whoever collects nullifiers sees that two uses within a scope are one holder's, and nothing across scopes
(decisional Diffie-Hellman in G1). So a scope is never the holder's choice, and holds all that makes a use
"the same": the verifier states it. A nullifier does not hide *that* a use happened, and links all uses
within its scope: docs/protocols/credentials.md.

Only for secrets of full entropy: over a short number (a bill's, a person's) it is inverted by trying all.
Payments need none: they name the bill's handle.

Adversary: a holder who wants a second nullifier in a scope (N is determined by her secret, which the same
proof shows to be the one in a credential); a verifier who wants to recognise a holder elsewhere. Not
reviewed by outsiders. Source: Camenisch, Hohenberger, Lysyanskaya 2005 and others; RFC 9380 for the base.
"""

from __future__ import annotations

from dataclasses import dataclass

from wire.domains import NULLIFIER
from wire.errors import DecodeError, VerificationError
from zkp.groups import Backend, Point
from zkp.sigma import Relation
from zkp.transcript import Transcript


@dataclass(frozen=True)
class Nullifier:
    """N within `scope`, of the secret that the proof's other relations call `variable`. Public."""

    scope: bytes
    variable: str
    point: Point
    group: Backend

    @property
    def encoded(self) -> bytes:
        """48 bytes: P -> V, and what a collector keeps."""
        return self.group.encode(self.point)

    def append_to(self, transcript: Transcript) -> None:
        """Write scope and point: before any challenge."""
        transcript.append_bytes(b"nullifier.scope", self.scope)
        transcript.append_point(b"nullifier.N", self.encoded)

    def relations(self) -> list[Relation]:
        """N = secret * hash_to_curve(scope)."""
        terms = [(self.variable, [(1, base(self.scope, self.group))])]
        return [Relation(b"nullifier", terms, [(1, self.point)])]


def base(scope: bytes, group: Backend) -> Point:
    """hash_to_curve(scope): a point of which nobody knows a logarithm."""
    return group.hash_to_point(NULLIFIER, scope)


def make(secret: int, scope: bytes, group: Backend, variable: str = "secret") -> Nullifier:
    """Holder: her nullifier in `scope` (public, non-empty). `secret`: 1..R-1. ValueError outside."""
    if not scope or not secret:
        raise ValueError("a nullifier takes a scope and a secret that is not zero")
    return Nullifier(scope, variable, group.mul(base(scope, group), secret), group)


def read(encoded: bytes, scope: bytes, group: Backend, variable: str = "secret") -> Nullifier:
    """Verifier: a nullifier in the verifier's own `scope`. Raises VerificationError if malformed or the identity."""
    try:
        return Nullifier(scope, variable, group.decode(encoded), group)
    except DecodeError:
        raise VerificationError("zkp.malformed_proof") from None
