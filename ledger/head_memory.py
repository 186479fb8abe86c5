"""What a replica remembers across restarts: the last head it cosigned, durable before the cosignature leaves.

One file of two slots, written in turn and in place, so that a write costs one flush of data and no
change of the file system. A write that was torn by a crash spoils one slot only, and its cosignature
never left; the other slot holds the head before. Each slot is a checkpoint note with the sequencer's and
the member's own signature, which whoever reads it checks as far as it knows the keys, behind a digest that tells
a torn write.

A file belongs to one replica at a time. Two of them, each with its own idea of what was signed last, would sign two
histories in one member's name: so whoever writes looks first, under a lock, whether somebody else has written.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from ledger.faults import Fault, no_fault
from wire.checkpoint import Note, parse_note
from wire.durable import flush
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
        self._own: list[bytes] = []  # what the slots may hold: notes that were read here, or written

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
        slots = list(_slots(data))
        for slot, data_of_note in slots:
            with contextlib.suppress(DecodeError):
                note = parse_note(data_of_note)
                found.append((note.checkpoint.size, slot, note))
        if not found and any(data):
            raise DecodeError("ledger.damaged", path=str(self._path))
        self._own = [data_of_note for _, data_of_note in slots]
        found.sort(key=lambda entry: entry[:2], reverse=True)
        if found:
            self._next = 1 - found[0][1]
        return tuple(note for _, _, note in found)

    def remember(self, note: Note) -> None:
        """Write `note` durably over the older slot. Raises Unavailable also if another replica has written."""
        data = note.format()
        record = len(data).to_bytes(4, "big") + sha256(data).digest() + data
        if len(record) > SLOT:
            raise ValueError("the note does not fit into a slot")
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._own = [*self._checked(file), data]  # where the write fails, the slot may hold either
                if os.fstat(file).st_size < 2 * SLOT:
                    os.truncate(file, 0)
                    self._fault("memory:emptied")
                    _write(file, bytes(2 * SLOT), 0)
                    os.fsync(file)
                    flush(self._path.parent)
                self._fault("memory:made")
                _write(file, record.ljust(SLOT, b"\0"), self._next * SLOT)
                self._fault("memory:written")
                os.fdatasync(file)
                self._fault("memory:flushed")
            finally:
                os.close(file)
        except OSError:
            raise self._unavailable() from None
        self._next = 1 - self._next

    def _checked(self, file: int) -> list[bytes]:
        """What the slots hold. Takes the file's lock, which goes with `file`; Unavailable if somebody else has it.

        Or if somebody else has written.
        """
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable("ledger.other_replica", path=str(self._path)) from None
        held = [data for _, data in _slots(os.pread(file, 2 * SLOT, 0))]
        if not all(data in self._own for data in held):
            raise Unavailable("ledger.other_replica", path=str(self._path))
        return held

    def _unavailable(self) -> Unavailable:
        return Unavailable("ledger.storage", path=str(self._path))


def _slots(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The slots that are whole, each with what it holds."""
    for slot in (0, 1):
        part = data[slot * SLOT : (slot + 1) * SLOT]
        note = part[HEAD : HEAD + int.from_bytes(part[:4], "big")]
        if part[4:HEAD] == sha256(note).digest():
            yield slot, note


def _write(file: int, data: bytes, at: int) -> None:
    """Write all of `data`. Raises OSError if the disk takes only a part."""
    if os.pwrite(file, data, at) != len(data):
        raise OSError("a part of it was not written")
