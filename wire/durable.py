"""Names that outlive a power cut: a file that is on disk gets its name, and its folder is put on disk as well.

A file that was flushed and then renamed is whole, but until its folder is flushed the disk may still know it by the old
name alone, or not at all. So whoever gives a flushed file its name does it here.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from functools import cache
from pathlib import Path

from wire.errors import Refused

_HERE, _NOT_OVER = -100, 1
"""AT_FDCWD and RENAME_NOREPLACE of Linux."""


def flush(path: Path) -> None:
    """Put a file or folder on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_in_place(part: Path, path: Path) -> None:
    """Give a flushed file or folder its name, in the place of the file that bears it. Raises OSError."""
    part.replace(path)
    flush(path.parent)


def put_as_new(part: Path, path: Path) -> None:
    """Give a flushed file its name, in the place of none, also if that came this moment.

    The name `part` may be left, for the caller to remove. Raises FileExistsError, other OSError, Refused where the file
    system has neither hard links nor renames that spare what is there.
    """
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:  # no hard links, as on FAT and exFAT; what else ails the disk, the renaming meets as well
        _rename_not_over(part, path)
    flush(path.parent)


def _rename_not_over(part: Path, path: Path) -> None:
    """A rename that fails where the name is taken; `os.rename` would replace that file."""
    library = _library()
    rename = None if library is None else getattr(library, "renameat2", None)
    if rename is None:
        raise Refused("wire.no_new_name", file=str(path))
    if rename(_HERE, os.fsencode(part), _HERE, os.fsencode(path), _NOT_OVER) != 0:
        failed = ctypes.get_errno()
        if failed in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise Refused("wire.no_new_name", file=str(path))
        raise OSError(failed, os.strerror(failed), str(path))


@cache
def _library() -> ctypes.CDLL | None:
    return ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
