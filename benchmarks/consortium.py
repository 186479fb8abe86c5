"""The consortium of the ledger's bench: seven organisations with known keys, and fresh envelopes of grants."""

from __future__ import annotations

import hashlib
import secrets
import time
from functools import cache

from ledger.contracts.grants import AnchorGrant
from ledger.envelope import Envelope, sign_envelope
from wire.checkpoint import founding_hash
from wire.keyset import Founding, KeySet, Member, SealingKey, SignatureKey
from wire.sealing import X25519, OpenKey
from wire.signing import Signer

ORGANISATIONS = ("bureau-1", "hospital-1", "hospital-2", "hospital-3", "hospital-4", "insurer-1", "regulator-1")
HOSPITALS = ORGANISATIONS[1:5]
START = 1_700_000_000_000


def now() -> int:
    """This machine's clock, ms UTC."""
    return int(time.time() * 1000)


@cache
def signer(organisation: str, use: str) -> Signer:
    """A key of the bench's consortium."""
    return Signer(hashlib.sha256(f"{organisation}/{use}".encode()).digest())


def founding() -> Founding:
    """Seven organisations that all re-execute; the bureau sequences."""
    members = []
    for name in ORGANISATIONS:
        envelope, cosign, http, tls = (
            SignatureKey(signer(name, use).key, 0) for use in ("envelope", "cosign", "http", "tls")
        )
        seal = SealingKey(OpenKey(X25519, hashlib.sha256(name.encode()).digest()).key, 0)
        members.append(Member(name, (name.split("-")[0],), KeySet(envelope, cosign, http, tls, seal), True))
    return Founding("bench", tuple(members), "bureau-1", 5, "Asia/Shanghai", START)


class Pen:
    """Signs envelopes of grants from the four hospitals in turn. All fresh: nothing was seen, so nothing is cached."""

    def __init__(self, members: Founding) -> None:
        self.genesis = founding_hash(members)
        self.made = 0
        self._grants = 0

    def grants(self, count: int) -> tuple[AnchorGrant, ...]:
        """The next `count` grants, each with a commitment of its own."""
        first = self._grants
        self._grants += count
        return tuple(
            AnchorGrant(f"grant-{number}", secrets.token_bytes(32), 0, 2**41, 0)
            for number in range(first, first + count)
        )

    def envelopes(self, count: int, ops: int = 1) -> list[bytes]:
        """The next `count` envelopes of `ops` grants each; `count` is a multiple of the four hospitals or one."""
        signed = []
        for number in range(self.made, self.made + count):
            sender = HOSPITALS[number % len(HOSPITALS)]
            envelope = Envelope(1, self.genesis, sender, number // len(HOSPITALS), 10**9, self.grants(ops))
            signed.append(sign_envelope(signer(sender, "envelope"), envelope))
        self.made += count
        return signed
