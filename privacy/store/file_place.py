"""Whether an open SQLite file still stands where whoever starts next looks for it.

SQLite goes on writing to a file that was moved, deleted or replaced, and to a write-ahead log of which only itself
knows: all of that would be gone with the process.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class _Found(NamedTuple):
    """device, inode: which file stands there. size: its bytes."""

    device: int
    inode: int
    size: int

    def continues(self, before: _Found) -> bool:
        return (self.device, self.inode) == (before.device, before.inode) and self.size >= before.size


class FilePlace:
    """The place of one open file and of its write-ahead log, which stands beside what a link leads to."""

    def __init__(self, path: Path) -> None:
        self._path, self._log = path, Path(f"{os.path.realpath(path)}-wal")
        self._file: _Found | None = None
        self._logged: _Found | None = None

    def holds(self) -> bool:
        """Whether what stands there is what stood there at the last look, and no shorter."""
        file, logged = _find(self._path), _find(self._log)
        stood = all(
            before is None or (now is not None and now.continues(before))
            for now, before in ((file, self._file), (logged, self._logged))
        )
        if stood:
            self._file, self._logged = file, logged
        return stood

    def log_was_cut(self) -> None:
        """The owner has moved its log into the file, and cut it."""
        logged = _find(self._log)
        if self._logged is not None and logged is not None:
            self._logged = self._logged._replace(size=min(self._logged.size, logged.size))


def _find(path: Path) -> _Found | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return _Found(found.st_dev, found.st_ino, found.st_size)
