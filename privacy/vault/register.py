"""The register of erasures: which data keys were destroyed, in a file beside the key provider's.

A backup of a vault holds keys that were destroyed since. The register does not go back with it: whoever opens a vault
removes what the register names first, so that nothing erased comes back, unless the register was lost as well.

    magic       16 bytes
    entry       key (16) || receipt (32) || time, ms UTC (8) || MAC (16)

An entry is appended and on disk before its key is destroyed. The MAC is under the vault's index key: nobody without it
can have keys removed. An entry that was cut short (a crash while it was appended) is no entry: its key was not
destroyed. Entries of one register can be added to another of the same vault (`join`).
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from wire.domains import ERASURES, keyed
from wire.errors import DecodeError, Unavailable

MAGIC = b"medveil erased 1"
RECEIPT_BYTES = 32
_MAC_BYTES = 16
_ENTRY = 16 + RECEIPT_BYTES + 8 + _MAC_BYTES


class Erasure(NamedTuple):
    """One data key that was destroyed. receipt: 32 bytes that name its receipt; at: ms UTC."""

    key: bytes
    receipt: bytes
    at: int


class Register:
    """The file. index_key: the vault's (secret)."""

    def __init__(self, path: Path, index_key: bytes) -> None:
        self.path = path
        self._mac_key = keyed(index_key, ERASURES)

    def entries(self) -> tuple[Erasure, ...]:
        """What was destroyed, in order; none where there is no file.

        Raises DecodeError (damaged, or of another vault), Unavailable.
        """
        return tuple(self._read(_content(self.path)))

    def append(self, erasures: Iterable[Erasure]) -> None:
        """Note erasures: on disk when this returns. Raises as `entries`."""
        content = _content(self.path)
        self._read(content)
        added = b"".join(self._entry(erasure) for erasure in erasures)
        if added:
            _append(self.path, len(content) - max(len(content) - len(MAGIC), 0) % _ENTRY, added)

    def join(self, other: Path) -> int:
        """Take over the entries of another register of this vault; returns how many were new. Raises as `entries`."""
        known = {erasure.key for erasure in self.entries()}
        new = [erasure for erasure in self._read(_content(other)) if erasure.key not in known]
        self.append(new)
        return len(new)

    def _entry(self, erasure: Erasure) -> bytes:
        if len(erasure.key) != 16 or len(erasure.receipt) != RECEIPT_BYTES:
            raise ValueError("an erasure names a key of 16 bytes and a receipt of 32")
        body = erasure.key + erasure.receipt + erasure.at.to_bytes(8, "big")
        return body + self._mac(body)

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._mac_key, body, "sha256")[:_MAC_BYTES]

    def _read(self, content: bytes) -> list[Erasure]:
        if content[: len(MAGIC)] != MAGIC[: len(content)]:
            raise DecodeError("privacy.register_damaged", path=str(self.path))
        found = []
        for start in range(len(MAGIC), len(content) - _ENTRY + 1, _ENTRY):
            body = content[start : start + _ENTRY - _MAC_BYTES]
            if not hmac.compare_digest(self._mac(body), content[start + _ENTRY - _MAC_BYTES : start + _ENTRY]):
                raise DecodeError("privacy.register_damaged", path=str(self.path))
            found.append(Erasure(body[:16], body[16 : 16 + RECEIPT_BYTES], int.from_bytes(body[-8:], "big")))
        return found


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise Unavailable("privacy.store_failed", path=str(path), reason=error.strerror or "I/O") from None


def _append(path: Path, whole: int, added: bytes) -> None:
    """Add to the `whole` good bytes of the file; what an interrupted call left after them is overwritten."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            if whole < len(MAGIC):
                whole, added = 0, MAGIC + added
            file.truncate(whole)
            file.seek(whole)
            file.write(added)
            file.flush()
            os.fsync(file.fileno())
        if whole == 0:
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise Unavailable("privacy.store_failed", path=str(path), reason=error.strerror or "I/O") from None
