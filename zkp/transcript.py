"""The Fiat-Shamir transcript: length-framed, typed writes; challenges that depend on all before them.

One write is ``type (1 byte) | label length (1) | label | data length (8, big-endian) | data`` into
SHAKE-256, so that no two sequences of operations give the same input. A challenge is a write too
(of its label), and reads 48 bytes of the sponge, reduced to 1..R-1.

A protocol puts everything that its verifier relies on into the transcript before the first challenge:
suite, statement, sizes, audience, nonce, every point. What is left out can be exchanged by an attacker
("weak Fiat-Shamir", how several published range-proof libraries were broken).

Adversary: anybody, in the random-oracle model. Not reviewed by outsiders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache

from wire.domains import TRANSCRIPT, framed
from wire.errors import VerificationError
from zkp.groups import POINT2_BYTES, POINT_BYTES, SCALAR_BYTES, R, Rand, encode_scalar

_BYTES = 1
_INTEGER = 2
_POINT = 3
_SCALAR = 4
_CHALLENGE = 5
_WITNESS = 6
_RANDOM = 7
_KEY = 8
_DIGEST = 9

_WIDE = 48
_IDENTITY = bytes([0xC0]) + bytes(POINT_BYTES - 1)
_IDENTITY2 = bytes([0xC0]) + bytes(POINT2_BYTES - 1)


@lru_cache(maxsize=4096)
def _framing(kind: int, label: bytes, length: int) -> bytes:
    """What stands before `length` bytes of data. Labels and most lengths are a protocol's constants."""
    if not 1 <= len(label) <= 255:
        raise ValueError("a transcript label has 1..255 bytes")
    return bytes([kind, len(label)]) + label + length.to_bytes(8, "big")


class Transcript:
    """What prover and verifier have both seen so far. Public, except inside `prover_randomness`."""

    def __init__(self, protocol: bytes) -> None:
        """`protocol` names the protocol, its version and its suite."""
        self._sponge = hashlib.shake_256(framed(TRANSCRIPT, b""))
        self._write(_BYTES, b"protocol", protocol)

    def _write(self, kind: int, label: bytes, data: bytes) -> None:
        self._sponge.update(_framing(kind, label, len(data)) + data)

    def append_bytes(self, label: bytes, data: bytes) -> None:
        """Append public bytes of any length."""
        self._write(_BYTES, label, data)

    def append_integer(self, label: bytes, value: int) -> None:
        """Append a public integer, 0..2^64-1. ValueError outside."""
        if not 0 <= value < 1 << 64:
            raise ValueError("an integer of a transcript is in 0..2^64-1")
        self._write(_INTEGER, label, value.to_bytes(8, "big"))

    def append_point(self, label: bytes, encoded: bytes) -> None:
        """Append the 48 bytes of a point. Raises VerificationError for the identity."""
        if len(encoded) != POINT_BYTES:
            raise ValueError(f"a point has {POINT_BYTES} bytes")
        if encoded == _IDENTITY:
            raise VerificationError("zkp.identity_point")
        self._write(_POINT, label, encoded)

    def append_key(self, label: bytes, encoded: bytes) -> None:
        """Append the 96 bytes of a point of G2: a public key. Raises VerificationError for the identity."""
        if len(encoded) != POINT2_BYTES:
            raise ValueError(f"a point of G2 has {POINT2_BYTES} bytes")
        if encoded == _IDENTITY2:
            raise VerificationError("zkp.identity_point")
        self._write(_KEY, label, encoded)

    def append_scalar(self, label: bytes, scalar: int) -> None:
        """Append a scalar 0..R-1. ValueError outside: an unreduced one must never pass for its residue."""
        if not 0 <= scalar < R:
            raise ValueError("a scalar of a transcript is in 0..R-1")
        self._write(_SCALAR, label, scalar.to_bytes(SCALAR_BYTES, "big"))

    def challenge(self, label: bytes) -> int:
        """The challenge scalar at this place, 1..R-1, uniform up to 2^-128."""
        self._write(_CHALLENGE, label, b"")
        return int.from_bytes(self._sponge.copy().digest(_WIDE), "big") % (R - 1) + 1

    def digest(self) -> bytes:
        """32 bytes that depend on everything so far: what a batch draws its weights from. Adds nothing."""
        fork = self._sponge.copy()
        fork.update(bytes([_DIGEST]))
        return fork.digest(32)

    def prover_randomness(self, witness: Iterable[int], rand: Rand) -> Rand:
        """Prover only: a `rand` for blindings, hedged by transcript and witness (secret scalars).

        Two proofs from the same blindings give the witness away. So the stream is SHAKE-256 of what
        has been said so far, the witness and 32 bytes of `rand`: if `rand` ever repeats itself, the
        same statement gets the same proof again and another one independent blindings. The transcript
        itself is not changed.
        """
        seed = rand(32)
        if len(seed) != 32:
            raise ValueError("rand(n) must return n bytes")
        fork = self._sponge.copy()
        for scalar in witness:
            fork.update(bytes([_WITNESS]) + encode_scalar(scalar))
        fork.update(bytes([_RANDOM]) + seed)
        key = fork.digest(64)
        drawn = 0

        def hedged(length: int) -> bytes:
            nonlocal drawn
            drawn += 1
            return hashlib.shake_256(key + drawn.to_bytes(8, "big")).digest(length)

        return hedged
