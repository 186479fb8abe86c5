"""Signatures under a domain: ed25519 (RFC 8032) with one pinned, strict verifier.

The verifier is libsodium's (PyNaCl). Libraries disagree on edge cases: this one refuses small-order
and non-canonical public keys, small-order R, and S >= L; it is cofactorless. Every organisation of
a chain must use the same verifier, since a signature that one accepts and another refuses splits
the ledger. SM2 and ML-DSA have their ids reserved and are refused as unknown.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from nacl import bindings, exceptions

from wire.canonical import Wire
from wire.domains import KEY_ID, Domain, digest, framed
from wire.errors import VerificationError

ED25519 = 1
SM2 = 2  # reserved
ML_DSA_65 = 3  # reserved

Algorithm = Annotated[int, msgspec.Meta(ge=0, le=255)]

PUBLIC_BYTES = 32
SIGNATURE_BYTES = 64


class VerifyKey(Wire, frozen=True, tag="wire.verify_key"):
    """A public signature key: algorithm id and its raw bytes."""

    algorithm: Algorithm
    public: bytes

    def key_id(self) -> bytes:
        """16 bytes that name this key."""
        return digest(KEY_ID, bytes([self.algorithm]), self.public)[:16]


class Signature(Wire, frozen=True, tag="wire.signature"):
    """A signature, with the algorithm and the id of the key that made it."""

    algorithm: Algorithm
    key_id: bytes
    value: bytes


class Signer:
    """Holds one ed25519 secret key. `seed`: 32 secret bytes."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != 32:
            raise ValueError("an ed25519 seed has 32 bytes")
        public, self._secret = bindings.crypto_sign_seed_keypair(seed)
        self.key = VerifyKey(ED25519, public)

    def sign_raw(self, message: bytes) -> bytes:
        """The bare 64-byte signature, for formats with a separation of their own (C2SP notes)."""
        return bindings.crypto_sign(message, self._secret)[:SIGNATURE_BYTES]

    def sign(self, domain: Domain, message: bytes) -> Signature:
        """Sign `message` under `domain`."""
        return Signature(ED25519, self.key.key_id(), self.sign_raw(framed(domain, message)))

    def for_key(self, key: VerifyKey) -> Signer | None:
        """Itself, if it signs for `key`."""
        return self if key == self.key else None

    @property
    def keys(self) -> tuple[VerifyKey, ...]:
        """What it can sign for."""
        return (self.key,)

    def __repr__(self) -> str:
        return f"Signer(key_id={self.key.key_id().hex()})"


class Keyring:
    """Signers of one organisation and one use: of its present key, and of those before or to come.

    Which of them signs is said by whoever knows what holds: the ledger, at a height.
    """

    def __init__(self, *signers: Signer) -> None:
        self._signers = {signer.key: signer for signer in signers}

    def for_key(self, key: VerifyKey) -> Signer | None:
        """The signer for `key`, if it is here."""
        return self._signers.get(key)

    def add(self, signer: Signer) -> None:
        """Hold one more: of a key to come. Whoever was given this ring has it from now on."""
        self._signers[signer.key] = signer

    @property
    def keys(self) -> tuple[VerifyKey, ...]:
        """What it can sign for."""
        return tuple(self._signers)

    def __repr__(self) -> str:
        return f"Keyring({len(self._signers)})"


def verify_raw(key: VerifyKey, message: bytes, signature: bytes) -> None:
    """Check a bare signature. Raises VerificationError."""
    if key.algorithm != ED25519:
        raise VerificationError("wire.unknown_algorithm", algorithm=key.algorithm)
    if len(key.public) != PUBLIC_BYTES or len(signature) != SIGNATURE_BYTES:
        raise VerificationError("wire.bad_signature", key=key.key_id().hex())
    try:
        bindings.crypto_sign_open(signature + message, key.public)
    except (exceptions.BadSignatureError, ValueError, TypeError):
        raise VerificationError("wire.bad_signature", key=key.key_id().hex()) from None


def verify(key: VerifyKey, domain: Domain, message: bytes, signature: Signature) -> None:
    """Check `signature` of `message` under `domain` by `key`. Returns None or raises VerificationError."""
    if signature.algorithm != key.algorithm or signature.key_id != key.key_id():
        raise VerificationError("wire.wrong_key", key=key.key_id().hex())
    verify_raw(key, framed(domain, message), signature.value)
