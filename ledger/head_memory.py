"""What a replica remembers across restarts: the last head it cosigned, durable before the cosignature leaves.

One file of two slots, written in turn and in place, so that a write costs one flush of data and no
change of the file system. A write that was torn by a crash spoils one slot only, and its cosignature
never left; the other slot holds the head before. Each slot is a checkpoint note with the sequencer's and
the member's own signature, which whoever reads it checks as far as it knows the keys, behind a digest that tells
a torn write.
"""

from __future__ import annotations

import contextlib
import os
from hashlib import sha256
from pathlib import Path

from ledger.faults import Fault, no_fault
from wire.checkpoint import Note, parse_note
from wire.errors import DecodeError, Unavailable

SLOT = 4096
"""Bytes of a slot: four of length, 32 of SHA-256 of the note, then the note."""
HEAD = 4 + 32
"""Bytes before the note."""


class HeadMemory:
    """The file at `path`. Raises Unavailable where the disk refuses."""

    def __init__(self, path: Path, fault: Fault = no_fault) -> None:
        self._path = path
        self._fault = fault
        self._next = 0

    def recall(self) -> tuple[Note, ...]:
        """The well-formed notes in the slots, the one with the larger head first; none if there is no file.

        Raises DecodeError if the file holds something, but no well-formed note.
        """
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return ()
        except OSError:
            raise self._unavailable() from None
        found: list[tuple[int, int, Note]] = []
        for slot in (0, 1):
            part = data[slot * SLOT : (slot + 1) * SLOT]
            data_of_note = part[HEAD : HEAD + int.from_bytes(part[:4], "big")]
            if part[4:HEAD] != sha256(data_of_note).digest():
                continue
            with contextlib.suppress(DecodeError):
                note = parse_note(data_of_note)
                found.append((note.checkpoint.size, slot, note))
        if not found and any(data):
            raise DecodeError("ledger.damaged", path=str(self._path))
        found.sort(key=lambda entry: entry[:2], reverse=True)
        if found:
            self._next = 1 - found[0][1]
        return tuple(note for _, _, note in found)

    def remember(self, note: Note) -> None:
        """Write `note` durably over the older slot."""
        data = note.format()
        record = len(data).to_bytes(4, "big") + sha256(data).digest() + data
        if len(record) > SLOT:
            raise ValueError("the note does not fit into a slot")
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if os.fstat(file).st_size < 2 * SLOT:
                    os.truncate(file, 0)
                    self._fault("memory:emptied")
                    os.write(file, bytes(2 * SLOT))
                    os.fsync(file)
                self._fault("memory:made")
                os.pwrite(file, record.ljust(SLOT, b"\0"), self._next * SLOT)
                self._fault("memory:written")
                os.fdatasync(file)
                self._fault("memory:flushed")
            finally:
                os.close(file)
        except OSError:
            raise self._unavailable() from None
        self._next = 1 - self._next

    def _unavailable(self) -> Unavailable:
        return Unavailable("ledger.storage", path=str(self._path))
