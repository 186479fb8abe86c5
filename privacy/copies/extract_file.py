"""The file of an extract: an encrypted Parquet, and after it the sealed statement that opens it.

    file   = body || end || length of end (4 bytes, big-endian) || "mvx1"
    body   = encrypted Parquet (`privacy.copies.encrypted_parquet`) under a fresh key K
    end    = {cover, sealed}                                          canonical, public
    sealed = HPKE(recipient's key, info = cover; {facts, signature, K})
    facts  = cover, grant, commitment of its terms, dataset, purpose, times, columns and what was done to each,
             rows, hash of the risk report, length of body and SHA-256 of its pieces, hash of K
    signature = ed25519 by the issuer's envelope key, domain EXTRACT, over the canonical facts

The end is written last, because K leaves last: until then the file is noise to everybody. HPKE does not name its
sender, so the issuer signs; the facts name recipient and key, so that a signature cannot be sealed on to somebody
else; they bind K by hash, so that the file can be shown to a third party without its content.

What whoever carries the file learns: issuer, recipient, suite, the extract's id, and the body's size.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from privacy.copies.encrypted_parquet import KEY_BYTES
from privacy.grants.terms import Code
from wire import sealing
from wire.canonical import Wire, decode, encode
from wire.dates import Instant
from wire.domains import EXTRACT, EXTRACT_KEY, EXTRACT_PLACE, SEAL_EXTRACT, digest, framed
from wire.errors import DecodeError, Refused, Unavailable, VerificationError
from wire.evidence import open_file
from wire.identifiers import Handle, Hash, Name
from wire.sealing import OpenKey, Sealed, SealKey
from wire.signing import Signature, Signer, VerifyKey, verify

VERSION = 2
"""Of version 1 were those whose body was hashed as a whole: they are not opened."""
PARQUET_AES_256_GCM = 1
"""Suite of the body: Parquet modular encryption, AES_GCM_V1 with one 256-bit key."""

MAGIC = b"mvx1"
_LONGEST_END = 2**22
_MOST_COLUMNS = 1000


class ExtractCover(Wire, frozen=True, tag="privacy.extract_cover"):
    """What anybody may read. extract: the id of this extract; seal_key: which of the recipient's keys opens it."""

    version: Annotated[int, msgspec.Meta(ge=1, le=255)]
    suite: Annotated[int, msgspec.Meta(ge=1, le=255)]
    extract: Handle
    issuer: Name
    recipient: Name
    seal_key: Handle

    def place(self) -> bytes:
        """32 bytes that the body is bound to."""
        return digest(EXTRACT_PLACE, encode(self))


class ExtractColumn(Wire, frozen=True, tag="extracts.column"):
    """A column as it left. kind: its Arrow type; mask: what was done to it, "" for nothing."""

    name: Annotated[str, msgspec.Meta(max_length=200)]
    kind: Annotated[str, msgspec.Meta(max_length=40)]
    mask: Annotated[str, msgspec.Meta(max_length=200)]


class ExtractFacts(Wire, frozen=True, tag="privacy.extract_facts"):
    """What the issuer signs and the recipient alone reads.

    commitment: of the grant's terms, as anchored on the ledger. audit: number of the intent in the issuer's trail.
    delete_by: when the recipient must have deleted its copies. rows: exact. risk: SHA-256 of the report on
    re-identification that the issuer measured before release. guarantee: in plain words, that no noise protects it.
    length, body: of the encrypted Parquet, the latter the SHA-256 of its pieces. key: hash of what decrypts it.
    """

    cover: ExtractCover
    grant: Name
    commitment: Hash
    dataset: Name
    purpose: Code
    audit: Annotated[int, msgspec.Meta(ge=1, lt=2**62)]
    made: Instant
    delete_by: Instant
    columns: Annotated[tuple[ExtractColumn, ...], msgspec.Meta(min_length=1, max_length=_MOST_COLUMNS)]
    rows: Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
    risk: Hash
    guarantee: Literal["outside-differential-privacy"]
    length: Annotated[int, msgspec.Meta(ge=1, lt=2**62)]
    body: Hash
    key: Hash


class _Opening(Wire, frozen=True, tag="privacy.extract_opening"):
    facts: ExtractFacts
    signature: Signature
    key: Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]

    def __repr__(self) -> str:
        return "_Opening()"


class ExtractEnd(Wire, frozen=True, tag="privacy.extract_end"):
    """The end of the file, as anybody can read it."""

    cover: ExtractCover
    sealed: Sealed

    def bytes(self) -> bytes:
        """What is appended to the body."""
        end = encode(self)
        return end + len(end).to_bytes(4, "big") + MAGIC


class OpenedEnd(msgspec.Struct, frozen=True):
    """What the recipient's key opened and the issuer's signed. key: 32 secret bytes that decrypt the body."""

    facts: ExtractFacts
    signature: Signature
    key: bytes

    def __repr__(self) -> str:
        return f"OpenedEnd({self.facts.grant!r})"


def key_hash(key: bytes, cover: ExtractCover) -> bytes:
    """What the facts say of the body's key (secret): 32 bytes that tell nothing of it."""
    return digest(EXTRACT_KEY, cover.extract, key)


def seal_end(facts: ExtractFacts, key: bytes, recipient: SealKey, signer: Signer) -> ExtractEnd:
    """Issuer: sign the facts and seal them with the body's key (secret) to the recipient. signer: its envelope key.

    Raises DecodeError for a malformed recipient's key.
    """
    opening = _Opening(facts, signer.sign(EXTRACT, encode(facts)), key)
    return ExtractEnd(facts.cover, sealing.seal(recipient, _info(facts.cover), encode(opening)))


def open_end(end: ExtractEnd, keys: Iterable[OpenKey], issuer_keys: Iterable[VerifyKey], recipient: str) -> OpenedEnd:
    """Recipient: open the end and check the issuer's signature and everything it says of itself.

    keys: the recipient's own, of any generation. issuer_keys: the issuer's envelope keys that are trusted for this.
    Raises Refused (newer format, another recipient's, or sealed to a key that is not here), VerificationError
    (altered, or not signed by one of `issuer_keys`).
    """
    cover = end.cover
    check_cover(cover)
    if cover.recipient != recipient:
        raise Refused("extracts.of_other", recipient=cover.recipient)
    own = next((key for key in keys if key.key.key_id() == cover.seal_key), None)
    if own is None:
        raise Refused("extracts.key_missing", key=cover.seal_key.hex())
    try:
        opening = decode(_Opening, sealing.open(own, _info(cover), end.sealed))
        issuer = next((key for key in issuer_keys if key.key_id() == opening.signature.key_id), None)
        if issuer is None:
            raise VerificationError("extracts.altered", issuer=cover.issuer)
        verify(issuer, EXTRACT, encode(opening.facts), opening.signature)
    except (VerificationError, DecodeError):
        raise VerificationError("extracts.altered", issuer=cover.issuer) from None
    if opening.facts.cover != cover or opening.facts.key != key_hash(opening.key, cover):
        raise VerificationError("extracts.altered", issuer=cover.issuer)
    return OpenedEnd(opening.facts, opening.signature, opening.key)


def check_cover(cover: ExtractCover) -> None:
    """Raises Refused for a format or suite that this medveil does not know."""
    if cover.version != VERSION or cover.suite != PARQUET_AES_256_GCM:
        raise Refused("extracts.newer", version=cover.version, suite=cover.suite)


def read_end(path: Path) -> ExtractEnd:
    """The end of an extract's file; nothing of it is proved yet.

    Raises Unavailable (cannot be read), Refused (a pipe or device), DecodeError (not an extract, or cut short).
    """
    try:
        with open_file(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 8, 0))
            tail = file.read(8)
            length = int.from_bytes(tail[:4], "big")
            if len(tail) != 8 or tail[4:] != MAGIC or length > min(size - 8, _LONGEST_END):
                raise DecodeError("extracts.not_extract", file=path.name)
            file.seek(size - 8 - length)
            data = file.read(length)
    except OSError as error:
        raise Unavailable("privacy.store_failed", path=str(path), reason=error.strerror or "I/O") from None
    try:
        return decode(ExtractEnd, data)
    except DecodeError:
        raise DecodeError("extracts.not_extract", file=path.name) from None


def _info(cover: ExtractCover) -> bytes:
    return framed(SEAL_EXTRACT, encode(cover))
