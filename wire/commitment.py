"""Salted hash commitments: hiding while the salt is secret, binding always.

The salt is derived from a secret per-patient (or per-dataset) salt key and everything that names the
place where the commitment stands, so that two contracts never show the same commitment, and erasing
the salt key kills the link for good. A bare hash of personal data is never written anywhere:
identity numbers can be enumerated.
"""

from __future__ import annotations

import hmac

from wire.canonical import Wire, encode
from wire.domains import COMMITMENT, CONTRIBUTION, SALT, digest, keyed
from wire.errors import VerificationError

BYTES = 32


class Place(Wire, frozen=True, tag="wire.place"):
    """Where a commitment stands. Every part of it separates salts."""

    contract: str
    op: str
    recipient: str
    record: str
    field: str
    version: int


def salt(salt_key: bytes, place: Place) -> bytes:
    """The 32-byte salt (secret) of `place`, by HMAC-SHA-256 under `salt_key` (secret, >= 16 bytes)."""
    return keyed(salt_key, SALT, encode(place))


def commit(salt: bytes, value: bytes) -> bytes:
    """Commitment to `value` (secret) under a 32-byte `salt` (secret): 32 public bytes."""
    if len(salt) != BYTES:
        raise ValueError("a commitment's salt has 32 bytes")
    return digest(COMMITMENT, salt, value)


def check(commitment: bytes, salt: bytes, value: bytes) -> None:
    """Check an opening. Raises VerificationError."""
    if len(salt) != BYTES or not hmac.compare_digest(commitment, commit(salt, value)):
        raise VerificationError("wire.bad_opening")


def contribution_digest(query: bytes, phase: int, site: str, point: bytes, salt: bytes) -> bytes:
    """What a site announces before it shows its vector commitment: H(query, phase, site, point, salt).

    query: the query's 16-byte handle; phase: 1..255; point: 48 bytes, secret until all have announced;
    salt: 32 secret bytes, shown with the point. The ledger's `queries` contract checks it.
    """
    return digest(CONTRIBUTION, query, bytes([phase]), site.encode(), point, salt)
