"""Sealing to one recipient: HPKE base mode (RFC 9180), by suite id.

* suite 1: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM
* suite 2: ML-KEM-768 + X25519 hybrid, HKDF-SHA256, AES-256-GCM

HPKE does not name its sender: sign what is sealed. Everything the recipient must agree on
(sender, session, purpose) goes into `info`, as canonical bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519

from wire.canonical import Wire
from wire.domains import KEY_ID, digest
from wire.errors import DecodeError, VerificationError

X25519 = 1
HYBRID = 2

Suite = Annotated[int, msgspec.Meta(ge=0, le=255)]

_MLKEM_PUBLIC = 1184
_MLKEM_SEED = 64


class SealKey(Wire, frozen=True, tag="wire.seal_key"):
    """A public sealing key. public: 32 bytes (suite 1) or 1184 + 32 bytes, ML-KEM half first (suite 2)."""

    suite: Suite
    public: bytes

    def key_id(self) -> bytes:
        """16 bytes that name this key."""
        return digest(KEY_ID, b"seal", bytes([self.suite]), self.public)[:16]


class Sealed(Wire, frozen=True, tag="wire.sealed"):
    """What only the recipient can open."""

    suite: Suite
    ciphertext: bytes


class OpenKey:
    """Holds a secret sealing key. `secret`: 32 bytes (suite 1) or 64 + 32 (suite 2)."""

    def __init__(self, suite: int, secret: bytes) -> None:
        self.suite = suite
        if suite == X25519 and len(secret) == 32:
            private = x25519.X25519PrivateKey.from_private_bytes(secret)
            self._private: object = private
            public = private.public_key().public_bytes_raw()
        elif suite == HYBRID and len(secret) == _MLKEM_SEED + 32:
            lattice = mlkem.MLKEM768PrivateKey.from_seed_bytes(secret[:_MLKEM_SEED])
            curve = x25519.X25519PrivateKey.from_private_bytes(secret[_MLKEM_SEED:])
            self._private = hpke.MLKEM768X25519PrivateKey(lattice, curve)
            public = lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
        else:
            raise ValueError("a sealing secret has 32 bytes (suite 1) or 96 bytes (suite 2)")
        self.key = SealKey(suite, public)

    @classmethod
    def generate(cls, rand: Callable[[int], bytes], suite: int = X25519) -> OpenKey:
        """A fresh key from `rand`."""
        return cls(suite, rand(32 if suite == X25519 else _MLKEM_SEED + 32))

    def __repr__(self) -> str:
        return f"OpenKey(suite={self.suite})"


def _suite(suite: int) -> hpke.Suite:
    kems = {X25519: hpke.KEM.X25519, HYBRID: hpke.KEM.MLKEM768_X25519}
    if suite not in kems:
        raise VerificationError("wire.unknown_algorithm", algorithm=suite)
    return hpke.Suite(kems[suite], hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


def _public(key: SealKey) -> object:
    try:
        if key.suite == X25519:
            return x25519.X25519PublicKey.from_public_bytes(key.public)
        if len(key.public) != _MLKEM_PUBLIC + 32:
            raise ValueError
        return hpke.MLKEM768X25519PublicKey(
            mlkem.MLKEM768PublicKey.from_public_bytes(key.public[:_MLKEM_PUBLIC]),
            x25519.X25519PublicKey.from_public_bytes(key.public[_MLKEM_PUBLIC:]),
        )
    except ValueError:
        raise DecodeError("wire.bad_seal_key", suite=key.suite) from None


def seal(recipient: SealKey, info: bytes, plaintext: bytes) -> Sealed:
    """Seal `plaintext` (secret) to `recipient`; `info` (public) must be the same on opening.

    The encapsulation's randomness comes from the library. Raises DecodeError for a malformed key.
    """
    suite = _suite(recipient.suite)
    public = _public(recipient)
    try:
        return Sealed(recipient.suite, suite.encrypt(plaintext, public, info))  # type: ignore[arg-type]
    except ValueError:  # a point of small order has no shared secret
        raise DecodeError("wire.bad_seal_key", suite=recipient.suite) from None


def open(key: OpenKey, info: bytes, sealed: Sealed) -> bytes:
    """The plaintext, or VerificationError if anything (suite, info, bytes, key) does not match."""
    if sealed.suite != key.suite:
        raise VerificationError("wire.cannot_open")
    try:
        return _suite(key.suite).decrypt(sealed.ciphertext, key._private, info)  # type: ignore[arg-type]
    except (InvalidTag, ValueError):
        raise VerificationError("wire.cannot_open") from None
