"""The holder's wallet at rest: one file, encrypted under a passphrase.

    key  = argon2id(passphrase, salt, cost)                    RFC 9106
    body = AES-256-GCM(key, nonce, canonical wallet)           the file's header is associated data

Whoever has an older copy of the file and the passphrase has the seed: and the seed is all there is
(`zkp.wallet` finds everything else with issuers and ledger). So a stolen old copy is a stolen wallet, and an old
copy put back is only behind, never lost. Written whole or not at all by the caller (`wire.evidence.write_file`).

Adversary: whoever reads or alters the file without the passphrase. Guessing costs 64 MiB and a tenth of a second
a try; a short passphrase is guessed all the same.
"""

from __future__ import annotations

import unicodedata
from typing import Annotated, Final

import msgspec
from argon2.exceptions import HashingError
from argon2.low_level import Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from wire import canonical
from wire.canonical import Wire
from wire.domains import WALLET_FILE, framed
from wire.errors import Refused, Unavailable, VerificationError
from zkp.groups import Rand
from zkp.wallet import Wallet

VERSION: Final = 1
SHORTEST: Final = 8
"""Characters of a passphrase, at least."""


class Cost(Wire, frozen=True, tag="zkp.wallet_cost"):
    """Cost of turning the passphrase into a key. memory in KiB."""

    time: Annotated[int, msgspec.Meta(ge=1, le=32)]
    memory: Annotated[int, msgspec.Meta(ge=128, le=2**20)]
    lanes: Annotated[int, msgspec.Meta(ge=1, le=16)]


STRONG: Final = Cost(3, 64 * 1024, 4)
"""RFC 9106's second recommended setting."""


class WalletFile(Wire, frozen=True, tag="zkp.wallet_file"):
    """The file. It shows nothing but its length and cost."""

    version: Annotated[int, msgspec.Meta(ge=1, le=255)]
    salt: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    cost: Cost
    nonce: Annotated[bytes, msgspec.Meta(min_length=12, max_length=12)]
    body: bytes


def _key(passphrase: str, salt: bytes, cost: Cost) -> AESGCM:
    secret = unicodedata.normalize("NFC", passphrase)  # one passphrase has one spelling, whatever the keyboard composed
    try:
        return AESGCM(hash_secret_raw(secret.encode(), salt, cost.time, cost.memory, cost.lanes, 32, Type.ID))
    except HashingError:
        raise Unavailable("wallet.no_memory", mebibytes=cost.memory // 1024) from None


def _context(file: WalletFile) -> bytes:
    return framed(WALLET_FILE, canonical.encode(msgspec.structs.replace(file, body=b"")))


def seal(wallet: Wallet, passphrase: str, rand: Rand, cost: Cost = STRONG) -> bytes:
    """The bytes of the file (not secret). Salt and nonce are fresh each time.

    Raises Refused for a passphrase of fewer than 8 characters.
    """
    if len(passphrase) < SHORTEST:
        raise Refused("wallet.short_passphrase", shortest=SHORTEST)
    file = WalletFile(VERSION, rand(16), cost, rand(12), b"")
    body = _key(passphrase, file.salt, cost).encrypt(file.nonce, canonical.encode(wallet), _context(file))
    return canonical.encode(msgspec.structs.replace(file, body=body))


def unseal(data: bytes, passphrase: str) -> Wallet:
    """The wallet (secret) of a file's bytes.

    Raises DecodeError (no wallet file), Refused (of a newer version), VerificationError (wrong passphrase or
    altered: the two look the same), Unavailable (no memory for the key).
    """
    file = canonical.decode(WalletFile, data)
    if file.version != VERSION:
        raise Refused("wallet.newer_file", version=file.version, known=VERSION)
    try:
        plain = _key(passphrase, file.salt, file.cost).decrypt(file.nonce, file.body, _context(file))
    except InvalidTag:
        raise VerificationError("wallet.cannot_open") from None
    return canonical.decode(Wallet, plain)
