"""One-time codes: TOTP (RFC 6238: SHA-1, 6 digits, 30 s) and recovery codes.

A TOTP code is accepted for its own step and one to each side, and once: the last step that was used is kept, and
only later ones count. The seed must be had in the clear to check a code, so it is kept encrypted (AES-256-GCM,
bound to the person) under a key outside the database.

Recovery codes have 120 bits, so that one hash keeps them, and each works once.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable

from wire.domains import SERVICE_KEY, SERVICE_SECRET, digest, keyed
from wire.errors import DecodeError

STEP_SECONDS = 30
RECOVERY_CODES = 10

_SEED_BYTES = 20
_RECOVERY_BYTES = 15
_NONCE_BYTES = 12


def new_seed(rand: Callable[[int], bytes]) -> bytes:
    """20 secret bytes, as RFC 4226 (4, R6) asks."""
    return rand(_SEED_BYTES)


def provisioning_uri(seed: bytes, person: str, issuer: str) -> str:
    """The ``otpauth://`` address that an authenticator app reads from a QR code. Secret."""
    import pyotp

    return pyotp.TOTP(base64.b32encode(seed).decode()).provisioning_uri(name=person, issuer_name=issuer)


def matching_step(seed: bytes, code: str, now: int, after: int) -> int | None:
    """The step whose code this is: now's or a neighbour's, and later than `after`. now: ms UTC."""
    import pyotp

    codes = pyotp.TOTP(base64.b32encode(seed).decode())
    present = now // 1000 // STEP_SECONDS
    found = None
    for step in (present - 1, present, present + 1):  # all three, always: no earlier end for a nearer one
        if (
            hmac.compare_digest(codes.generate_otp(step).encode(), code.strip().encode("utf-8", "replace"))
            and step > after
        ):
            found = step
    return found


def lock_seed(key: bytes, person: str, seed: bytes, rand: Callable[[int], bytes]) -> bytes:
    """The seed encrypted for the database. key: 32 secret bytes of the service."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = rand(_NONCE_BYTES)
    return nonce + AESGCM(keyed(key, SERVICE_KEY, b"totp")).encrypt(nonce, seed, person.encode())


def unlock_seed(key: bytes, person: str, locked: bytes) -> bytes:
    """The seed. Raises DecodeError where the service's key is another one or the row was altered or moved."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        cipher = AESGCM(keyed(key, SERVICE_KEY, b"totp"))
        return cipher.decrypt(locked[:_NONCE_BYTES], locked[_NONCE_BYTES:], person.encode())
    except (InvalidTag, ValueError):
        raise DecodeError("accounts.seed_locked", person=person) from None


def new_recovery_codes(rand: Callable[[int], bytes]) -> list[str]:
    """Ten codes like ``ABCD-EFGH-IJKL-MNOP-QRST-UVWX``, to be shown once."""
    codes = [base64.b32encode(rand(_RECOVERY_BYTES)).decode() for _ in range(RECOVERY_CODES)]
    return ["-".join(code[i : i + 4] for i in range(0, len(code), 4)) for code in codes]


def recovery_digest(person: str, code: str) -> bytes:
    """What is kept of a recovery code; the same however it was typed."""
    plain = "".join(character for character in code.upper() if character.isalnum())
    return digest(SERVICE_SECRET, b"recovery", person.encode(), plain.encode("utf-8", "replace"))
