"""The register of erasures: which data keys were destroyed, in a file beside the key provider's.

A backup of a vault holds keys that were destroyed since. The register does not go back with it: whoever opens a vault
removes what the register names first, so that nothing erased comes back, unless the register was lost as well.

    magic       16 bytes
    entry       key (16) || receipt (32) || more (1 bit), time, ms UTC (63 bits) || MAC (16)

An entry is appended and on disk before its key is destroyed. The MAC is under the vault's index key: nobody without it
can have keys removed. What is destroyed together is appended together: all of its entries but the last say that more
follow. An erasure that was cut short (a crash or a full disk while it was appended) is none, as a whole: no key of it
was destroyed. Entries of one register can be added to another of the same vault (`join`).
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from wire.domains import ERASURES, keyed
from wire.errors import DecodeError, Unavailable

MAGIC = b"medveil erased 1"
RECEIPT_BYTES = 32
_MAC_BYTES = 16
_ENTRY = 16 + RECEIPT_BYTES + 8 + _MAC_BYTES
_MORE = 1 << 63


class Erasure(NamedTuple):
    """One data key that was destroyed. receipt: 32 bytes that name its receipt; at: ms UTC."""

    key: bytes
    receipt: bytes
    at: int


class Register:
    """The file. index_key: the vault's (secret). Threads may share it; one process at a time appends."""

    def __init__(self, path: Path, index_key: bytes) -> None:
        self.path = path
        self._mac_key = keyed(index_key, ERASURES)
        self._appending = Lock()

    def entries(self) -> tuple[Erasure, ...]:
        """What was destroyed, in order; none where there is no file.

        Raises DecodeError (damaged, or of another vault), Unavailable.
        """
        return tuple(self._read(_content(self.path), self.path)[0])

    def append(self, erasures: Iterable[Erasure]) -> None:
        """Note erasures, all of them or none: on disk when this returns. Raises as `entries`."""
        noted = list(erasures)
        entries = [self._entry(erasure, more=True) for erasure in noted[:-1]]
        entries += [self._entry(erasure, more=False) for erasure in noted[-1:]]
        with self._appending:
            _, whole = self._read(_content(self.path), self.path)
            if entries:
                _append(self.path, whole, b"".join(entries))

    def join(self, other: Path) -> int:
        """Take over the entries of another register of this vault; returns how many were new.

        Raises as `entries`, and Unavailable where it is not: with a path that was mistyped what was erased would stay.
        """
        content = _content(other) if other.is_file() else b""
        if not content:
            raise Unavailable("privacy.no_register", path=str(other))
        if len(content) < len(MAGIC):
            raise DecodeError("privacy.register_damaged", path=str(other))
        known = {erasure.key for erasure in self.entries()}
        new = [erasure for erasure in self._read(content, other)[0] if erasure.key not in known]
        self.append(new)
        return len(new)

    def _entry(self, erasure: Erasure, more: bool) -> bytes:
        if len(erasure.key) != 16 or len(erasure.receipt) != RECEIPT_BYTES:
            raise ValueError("an erasure names a key of 16 bytes and a receipt of 32")
        body = erasure.key + erasure.receipt + (erasure.at | (_MORE if more else 0)).to_bytes(8, "big")
        return body + self._mac(body)

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._mac_key, body, "sha256")[:_MAC_BYTES]

    def _read(self, content: bytes, path: Path) -> tuple[list[Erasure], int]:
        """The entries of whole erasures, and where the last of them ends; 0 for not even the beginning of a file."""
        if content[: len(MAGIC)] != MAGIC[: len(content)]:
            raise DecodeError("privacy.register_damaged", path=str(path))
        found: list[Erasure] = []
        together: list[Erasure] = []
        whole = len(MAGIC) if len(content) >= len(MAGIC) else 0
        for start in range(len(MAGIC), len(content) - _ENTRY + 1, _ENTRY):
            body = content[start : start + _ENTRY - _MAC_BYTES]
            if not hmac.compare_digest(self._mac(body), content[start + _ENTRY - _MAC_BYTES : start + _ENTRY]):
                if not any(content[start:]):
                    break  # the disk made room and lost power: nothing was written there
                raise DecodeError("privacy.register_damaged", path=str(path))
            at = int.from_bytes(body[-8:], "big")
            together.append(Erasure(body[:16], body[16 : 16 + RECEIPT_BYTES], at & ~_MORE))
            if not at & _MORE:
                found += together
                together, whole = [], start + _ENTRY
        return found, whole


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
