"""Suites: which cipher encrypts what is kept at home, behind one small door.

    1  AES-256-GCM    32-byte key    NIST SP 800-38D; the default
    2  SM4-GCM        16-byte key    GB/T 32907, RFC 8998; for fields that a rule wants under it

The key is BLAKE2b(label of the suite) under K, a data key of 32 random bytes (keyed mode, RFC 7693: a PRF, and a fifth
of the time of HMAC-SHA-256, which counts where every person has a key). What is sealed is 12 bytes of random nonce, the
ciphertext, 16 bytes of tag. The suite's id stands in the associated data of whatever it sealed. An id that is not here
is refused, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Literal, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from wire.domains import DATA_KEY, framed
from wire.errors import Refused

AES_256_GCM: Literal[1] = 1
SM4_GCM: Literal[2] = 2
SUITES = {AES_256_GCM: "AES-256-GCM", SM4_GCM: "SM4-GCM"}
"""Every suite by id."""

NONCE_BYTES = 12
TAG_BYTES = 16

_AES, _SM4 = framed(DATA_KEY, b"AES-256-GCM"), framed(DATA_KEY, b"SM4-GCM")


class Aead(Protocol):
    """A key that encrypts with associated data. `decrypt` raises cryptography's InvalidTag."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes:
        """Ciphertext and tag."""
        ...

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes:
        """The plaintext."""
        ...


class Sm4Gcm:
    """SM4-GCM under a 16-byte key, as `Aead`."""

    def __init__(self, key: bytes) -> None:
        self._key = algorithms.SM4(key)

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes:
        """Ciphertext and tag."""
        encryptor = Cipher(self._key, modes.GCM(nonce)).encryptor()
        encryptor.authenticate_additional_data(associated_data or b"")
        return encryptor.update(data) + encryptor.finalize() + encryptor.tag

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes:
        """The plaintext."""
        if len(data) < TAG_BYTES:
            raise InvalidTag
        decryptor = Cipher(self._key, modes.GCM(nonce, data[-TAG_BYTES:])).decryptor()
        decryptor.authenticate_additional_data(associated_data or b"")
        return decryptor.update(data[:-TAG_BYTES]) + decryptor.finalize()


def check_suite(suite: int) -> int:
    """`suite`, if there is one of that id. Raises Refused."""
    if suite not in SUITES:
        raise Refused("privacy.unknown_suite", suite=suite)
    return suite


def data_cipher(suite: int, key: bytes) -> Aead:
    """The cipher of a data key (32 secret bytes) under a suite. Raises Refused for an unknown suite."""
    if suite == AES_256_GCM:
        return AESGCM(blake2b(_AES, key=key, digest_size=32).digest())
    check_suite(suite)
    return Sm4Gcm(blake2b(_SM4, key=key, digest_size=16).digest())


def data_ciphers(suite: int, keys: Iterable[bytes]) -> list[Aead]:
    """`data_cipher` of each of many keys."""
    if suite == AES_256_GCM:
        return [AESGCM(blake2b(_AES, key=key, digest_size=32).digest()) for key in keys]
    return [data_cipher(suite, key) for key in keys]


def unseal(cipher: Aead, sealed: bytes, place: bytes) -> bytes:
    """What was sealed at `place`. Raises InvalidTag for anything else."""
    if len(sealed) < NONCE_BYTES + TAG_BYTES:
        raise InvalidTag
    return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place)
