"""Checkpoints as C2SP signed notes, with cosignatures.

    <origin>
    <size in decimal>
    <root in base64>

    — <origin> base64(key id || ed25519 signature of the text)                      the sequencer
    — <organisation> base64(key id || 8-byte time || ed25519 signature)             a cosigner

A cosigner signs ``cosignature/v1\\ntime <seconds>\\n<text>``. The origin is ``<chain>/<genesis hash>``,
so a checkpoint of one chain never passes on another, and no text starts like a cosigned message.

Spec: c2sp.org/signed-note@v1.0.0, c2sp.org/tlog-checkpoint@v1.0.0, c2sp.org/tlog-cosignature@v1.0.0
(signature types 0x01 and 0x04). Departures, all stricter: (1) no extension lines; (2) bytes that do
not format back to themselves are refused; (3) at most 1,001 signatures.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, replace
from hashlib import sha256

from wire.checkpoint.log_proofs import BYTES, LARGEST
from wire.errors import DecodeError, VerificationError
from wire.signing import SIGNATURE_BYTES, Signer, VerifyKey, verify_raw

LOG_SIGNATURE = 0x01
COSIGNATURE = 0x04

_KEY_ID_BYTES = 4
_TIME_BYTES = 8
_DASH = "— "
_MOST_LINES = 1001  # the sequencer and as many members as genesis may name
_LONGEST = 256 * 1024
_ORIGIN = re.compile(r"[a-z0-9._-]{1,64}/[0-9a-f]{64}")
_NAME = re.compile(r"[!-*,-~]{1,200}")  # printable ASCII without space and plus
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True)
class Checkpoint:
    """A head of the log. size: leaves; root: 32 bytes; time: instant in ms UTC, 0 where nothing vouches for it."""

    origin: str
    size: int
    root: bytes
    time: int = 0


@dataclass(frozen=True)
class SignatureLine:
    """One signature of a note: the key's name, its 4-byte id, and what follows."""

    name: str
    key_id: bytes
    signature: bytes

    def format(self) -> str:
        """The line, with its newline."""
        return f"{_DASH}{self.name} {base64.b64encode(self.key_id + self.signature).decode('ascii')}\n"

    @property
    def time(self) -> int:
        """POSIX seconds of a cosignature; ValueError for any other line."""
        if len(self.signature) != _TIME_BYTES + SIGNATURE_BYTES:
            raise ValueError("not a cosignature")
        return int.from_bytes(self.signature[:_TIME_BYTES], "big")


@dataclass(frozen=True)
class Note:
    """A parsed checkpoint note: the head it states and the signatures under it, none of them checked."""

    checkpoint: Checkpoint
    lines: tuple[SignatureLine, ...]

    @property
    def text(self) -> bytes:
        """What the signatures cover."""
        return checkpoint_text(self.checkpoint)

    def format(self) -> bytes:
        """The whole note."""
        return (self.text.decode("ascii") + "\n" + "".join(line.format() for line in self.lines)).encode()

    def with_line(self, line: SignatureLine) -> Note:
        """The note with one more signature."""
        return replace(self, lines=(*self.lines, line))


def origin_of(chain: str, genesis_hash: bytes) -> str:
    """The origin line of a chain: its name and the hash of its genesis (32 bytes)."""
    return f"{chain}/{genesis_hash.hex()}"


def key_id(name: str, kind: int, public: bytes) -> bytes:
    """SHA-256(name || newline || signature type || public key)[:4]."""
    return sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:_KEY_ID_BYTES]


def checkpoint_text(checkpoint: Checkpoint) -> bytes:
    """The note text of a head; its time is not part of it."""
    root = base64.b64encode(checkpoint.root).decode("ascii")
    return f"{checkpoint.origin}\n{checkpoint.size}\n{root}\n".encode("ascii")


def cosigned_message(text: bytes, seconds: int) -> bytes:
    """What a cosigner signs at POSIX time `seconds`."""
    return b"cosignature/v1\ntime %d\n" % seconds + text


def sign_checkpoint(signer: Signer, origin: str, size: int, root: bytes) -> Note:
    """The sequencer's signed head, without cosignatures. `signer` holds its cosign key."""
    note = Note(Checkpoint(origin, size, root), ())
    line = SignatureLine(origin, key_id(origin, LOG_SIGNATURE, signer.key.public), signer.sign_raw(note.text))
    return note.with_line(line)


def cosign_checkpoint(signer: Signer, organisation: str, note: Note, seconds: int) -> SignatureLine:
    """The cosignature of `organisation` at POSIX time `seconds` (public). It must have replayed the blocks."""
    if not 0 <= seconds < 2**63:
        raise ValueError("a cosignature's time is 0..2^63-1 seconds")
    signature = signer.sign_raw(cosigned_message(note.text, seconds))
    return SignatureLine(
        organisation,
        key_id(organisation, COSIGNATURE, signer.key.public),
        seconds.to_bytes(_TIME_BYTES, "big") + signature,
    )


def verify_log_signature(key: VerifyKey, note: Note, line: SignatureLine) -> None:
    """Check the sequencer's line. Raises VerificationError."""
    if line.key_id != key_id(line.name, LOG_SIGNATURE, key.public):
        raise VerificationError("checkpoint.unknown_signer", name=line.name)
    try:
        verify_raw(key, note.text, line.signature)
    except VerificationError:
        raise VerificationError("checkpoint.bad_signature", name=line.name) from None


def verify_cosignature(key: VerifyKey, note: Note, line: SignatureLine) -> None:
    """Check a cosigner's line. Raises VerificationError."""
    if line.key_id != key_id(line.name, COSIGNATURE, key.public):
        raise VerificationError("checkpoint.unknown_signer", name=line.name)
    if len(line.signature) != _TIME_BYTES + SIGNATURE_BYTES or line.time >= 2**63:
        raise VerificationError("checkpoint.bad_signature", name=line.name)
    try:
        verify_raw(key, cosigned_message(note.text, line.time), line.signature[_TIME_BYTES:])
    except VerificationError:
        raise VerificationError("checkpoint.bad_signature", name=line.name) from None


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeError, ValueError):
        raise DecodeError("checkpoint.bad_note") from None


def _parse_line(text: str) -> SignatureLine:
    parts = text.removeprefix(_DASH).split(" ")
    if not text.startswith(_DASH) or len(parts) != 2 or not _NAME.fullmatch(parts[0]):
        raise DecodeError("checkpoint.bad_note")
    value = _base64(parts[1])
    if len(value) <= _KEY_ID_BYTES:
        raise DecodeError("checkpoint.bad_note")
    return SignatureLine(parts[0], value[:_KEY_ID_BYTES], value[_KEY_ID_BYTES:])


def parse_note(data: bytes) -> Note:
    """The note that `data` is. Checks the form only; raises DecodeError unless it formats back to `data`."""
    if len(data) > _LONGEST:
        raise DecodeError("checkpoint.bad_note")
    try:
        body = data.decode("utf-8")
    except UnicodeDecodeError:
        raise DecodeError("checkpoint.bad_note") from None
    text, gap, signatures = body.partition("\n\n")
    head = text.split("\n")
    lines = signatures.split("\n")
    if not gap or len(head) != 3 or lines.pop() != "" or not 1 <= len(lines) <= _MOST_LINES:
        raise DecodeError("checkpoint.bad_note")
    origin, size, root = head
    if not _ORIGIN.fullmatch(origin) or not _SIZE.fullmatch(size) or int(size) > LARGEST or len(_base64(root)) != BYTES:
        raise DecodeError("checkpoint.bad_note")
    note = Note(Checkpoint(origin, int(size), _base64(root)), tuple(_parse_line(line) for line in lines))
    if note.format() != data:
        raise DecodeError("checkpoint.bad_note")
    return note
