"""Seals what a gateway's own database holds of secret things: steps, requests and seeds of jobs.

AES-256-GCM with a fresh random nonce; the caller's info is associated data. The key is in the vault, so that a copy
of the database alone says nothing.
"""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from wire.errors import VerificationError

KEY_BYTES = 32
_NONCE_BYTES = 12


class RecordSealer:
    """See `medveil.service.work.journal.Sealer`. key: 32 secret bytes; it seals at most 2^32 records."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError("the key has 32 bytes")
        self._aead = AESGCM(key)

    def seal(self, info: bytes, plaintext: bytes) -> bytes:
        """Sealed `plaintext` (secret): nonce, ciphertext and tag."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, plaintext, info)

    def open(self, info: bytes, sealed: bytes) -> bytes:
        """What was sealed with that info. Raises VerificationError."""
        try:
            return self._aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], info)
        except (InvalidTag, ValueError):
            raise VerificationError("wire.cannot_open") from None
