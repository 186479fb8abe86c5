"""The register of erasures: which data keys were destroyed, in a file beside the key provider's.

A backup of a vault holds keys that were destroyed since. The register does not go back with it: whoever opens a vault
removes what the register names first, so that nothing erased comes back, unless the register was lost as well.

    beginning   magic, mark: see `privacy.vault.growing_file`
    erasure     entries, and a mark when they are on disk
    entry       key (16) || receipt (32) || more (1 bit), time, ms UTC (63 bits) || MAC (16)

An entry is appended and on disk before its key is destroyed. The MAC is under the vault's index key: nobody without it
can have keys removed. What is destroyed together is appended together: all of its entries but the last say that more
follow. An erasure that was cut short (a crash, a power cut or a full disk while it was appended) is none, as a whole:
no key of it was destroyed. Entries of one register can be added to another of the same vault (`join`). Registers of
before have another magic and no marks; they are read, and written anew by the next erasure.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from privacy.vault.growing_file import BEGINNING, MAGIC_BYTES, MARK_BYTES, GrowingFile, content_of, has_hole
from wire.domains import ERASURES, keyed
from wire.errors import DecodeError, Unavailable

MAGIC = b"medveil erased 2"
_BEFORE = b"medveil erased 1"
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
        self._file = GrowingFile(path, MAGIC, keyed(index_key, ERASURES, b"mark")[:MARK_BYTES])
        self._appending = Lock()

    def entries(self) -> tuple[Erasure, ...]:
        """What was destroyed, in order; none where there is no file.

        Raises DecodeError (damaged, or of another vault), Unavailable.
        """
        return tuple(self._read(content_of(self.path), self.path)[0])

    def append(self, erasures: Iterable[Erasure]) -> None:
        """Note erasures, all of them or none: on disk when this returns. Raises as `entries`."""
        added = self._together(list(erasures))
        with self._appending:
            content = content_of(self.path)
            found, whole = self._read(content, self.path)
            if not added:
                return
            if not self._file.begins(content):
                whole = self._file.rewrite([self._together(found)] if found else [])
            self._file.append(whole, added)

    def join(self, other: Path) -> int:
        """Take over the entries of another register of this vault; returns how many were new.

        Raises as `entries`, and Unavailable where it is not: with a path that was mistyped what was erased would stay.
        """
        content = content_of(other) if other.is_file() else b""
        if not content:
            raise Unavailable("privacy.no_register", path=str(other))
        if len(content) < MAGIC_BYTES:
            raise DecodeError("privacy.register_damaged", path=str(other))
        known = {erasure.key for erasure in self.entries()}
        new = [erasure for erasure in self._read(content, other)[0] if erasure.key not in known]
        self.append(new)
        return len(new)

    def _together(self, noted: Sequence[Erasure]) -> bytes:
        return b"".join(self._entry(erasure, more=at < len(noted)) for at, erasure in enumerate(noted, start=1))

    def _entry(self, erasure: Erasure, more: bool) -> bytes:
        if len(erasure.key) != 16 or len(erasure.receipt) != RECEIPT_BYTES:
            raise ValueError("an erasure names a key of 16 bytes and a receipt of 32")
        body = erasure.key + erasure.receipt + (erasure.at | (_MORE if more else 0)).to_bytes(8, "big")
        return body + self._mac(body)

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._mac_key, body, "sha256")[:_MAC_BYTES]

    def _goes_on(self, content: bytes, start: int) -> bool:
        """Of a register of before: whether another erasure was appended to one that does not verify at `start`."""
        for at in range(start, len(content) - 2 * _ENTRY + 1, _ENTRY):
            body = content[at : at + _ENTRY - _MAC_BYTES]
            last = not int.from_bytes(body[-8:], "big") & _MORE
            if last and hmac.compare_digest(self._mac(body), content[at + _ENTRY - _MAC_BYTES : at + _ENTRY]):
                return True
        return False

    def _read(self, content: bytes, path: Path) -> tuple[list[Erasure], int]:
        """The entries of whole erasures, and where the last of them ends; 0 for not even the beginning of a file."""
        marked = self._file.begins(content)
        if not marked and content[:MAGIC_BYTES] != _BEFORE[: len(content)]:
            raise DecodeError("privacy.register_damaged", path=str(path))
        found: list[Erasure] = []
        together: list[Erasure] = []
        whole = BEGINNING if marked else MAGIC_BYTES if len(content) >= MAGIC_BYTES else 0
        start, cut_short = whole, True
        while whole and start + _ENTRY <= len(content):
            body = content[start : start + _ENTRY - _MAC_BYTES]
            if not hmac.compare_digest(self._mac(body), content[start + _ENTRY - _MAC_BYTES : start + _ENTRY]):
                cut_short = marked or (has_hole(content, start, start + _ENTRY) and not self._goes_on(content, start))
                break
            start += _ENTRY
            at = int.from_bytes(body[-8:], "big")
            together.append(Erasure(body[:16], body[16 : 16 + RECEIPT_BYTES], at & ~_MORE))
            if at & _MORE:
                continue
            if marked and not self._file.marked(content, start):
                cut_short = self._file.never_was(content, whole, start)
                break
            start += MARK_BYTES if marked else 0
            found += together
            together, whole = [], start
        if not cut_short or (marked and not self._file.never_was(content, whole)):
            raise DecodeError("privacy.register_damaged", path=str(path))
        return found, whole
