"""A file that grows by what is appended, each time all of it or none, whatever becomes of the process or the power.

    magic       16 bytes
    mark        16 bytes: the same in all of one vault's file, under its index key
    appended    any number of bytes || mark

What is appended is on disk before its mark is written, and the mark is on disk before whoever appends goes on. A disk
that loses power keeps of the last append any pages it likes, in any order: without its mark it never was, and is
written over. So no damage is taken for it: what does not verify and has a mark behind it is damaged.

The beginning is in place with the file's name or not at all (a file of its own, renamed). Files of before have another
magic and no marks; who reads them judges their ends, and they are written anew before they grow.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from wire.durable import put_in_place
from wire.errors import Unavailable

MARK_BYTES = 16
MAGIC_BYTES = 16
BEGINNING = MAGIC_BYTES + MARK_BYTES
_SECTOR = 512
_SURE = 8
"""Zero bytes that are no accident of what is written there."""


class GrowingFile:
    """The file's form. magic, mark: 16 bytes each."""

    def __init__(self, path: Path, magic: bytes, mark: bytes) -> None:
        if len(magic) != MAGIC_BYTES or len(mark) != MARK_BYTES:
            raise ValueError("magic and mark have 16 bytes each")
        self.path = path
        self._mark = mark
        self._beginning = magic + mark

    def begins(self, content: bytes) -> bool:
        """Whether `content` is such a file, of the same vault."""
        return content.startswith(self._beginning)

    def marked(self, content: bytes, end: int) -> bool:
        """Whether what ends there was appended as a whole."""
        return content.startswith(self._mark, end)

    def never_was(self, content: bytes, start: int, end: int | None = None) -> bool:
        """Whether what stands from `start` on, where the last mark ends, is an append that was cut short.

        end: where it is whole, if it is: then at most some of its mark is missing.
        """
        if end is not None:
            rest = content[end:]
            mark = self._mark[: len(rest)]
            if any(rest[MARK_BYTES:]) or any(found not in (0, due) for found, due in zip(rest, mark, strict=False)):
                return False
        return content.find(self._mark, start) < 0

    def append(self, start: int, added: bytes) -> os.stat_result:
        """Add behind the `start` good bytes; what an interrupted call left there is overwritten. Raises Unavailable."""
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
            with os.fdopen(descriptor, "wb") as file:
                if os.fstat(descriptor).st_size != start:
                    file.truncate(start)
                    os.fsync(descriptor)  # nothing of it comes back beside what is written now
                file.seek(start)
                _write(file, added)
                _write(file, self._mark)
                return os.fstat(descriptor)
        except OSError as error:
            raise failed(self.path, error) from None

    def rewrite(self, appended: Iterable[bytes]) -> int:
        """Put a file of these in its place, or begin one; returns its length. Raises Unavailable."""
        new = self.path.with_name(self.path.name + ".new")
        data = [self._beginning]
        for each in appended:
            data += (each, self._mark)
        try:
            descriptor = os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                _write(file, b"".join(data))
            put_in_place(new, self.path)
        except OSError as error:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            raise failed(self.path, error) from None
        return sum(map(len, data))


def has_hole(content: bytes, start: int, end: int) -> bool:
    """Of files without marks: whether a sector of what lies from `start` to `end` was never written.

    It is all zeros up to where the sector ends, or the file. Who could write zeros there could as well cut the file.
    """
    for sector in range(start // _SECTOR * _SECTOR, min(end, len(content)), _SECTOR):
        part = content[max(sector, start) : sector + _SECTOR]
        if len(part) >= _SURE and not any(part):
            return True
    return False


def content_of(path: Path) -> bytes:
    """All of a file; b"" where there is none. Raises Unavailable."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise failed(path, error) from None


def failed(path: Path, error: OSError) -> Unavailable:
    """What a failure of the file is told as."""
    return Unavailable("privacy.store_failed", path=str(path), reason=error.strerror or "I/O")


def _write(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())
