"""The bytes of an extract's file, as they are carried and kept: in order, on the disk before they count.

Whatever the disk refuses is Unavailable, with the system's own reason.
"""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

from wire import durable
from wire.errors import Unavailable, VerificationError

_NOT_KEPT = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENODEV}
"""What a file system answers that keeps no room ahead: then what is promised is only counted."""


def failed(path: Path, error: OSError) -> Unavailable:
    """What the disk has refused."""
    return Unavailable("privacy.store_failed", path=str(path), reason=error.strerror or "I/O")


def hashed(path: Path) -> tuple[int, bytes]:
    """Length and SHA-256 of a file."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").digest()
            return file.tell(), found
    except OSError as error:
        raise failed(path, error) from None


def prepare(path: Path, length: int) -> None:
    """Have a part stand there with so many bytes of the disk, its owner's alone; what has come into it stays.

    Raises Unavailable (gateway.extract_no_room: the disk has fewer).
    """
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            try:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(descriptor, 0, length)
            except OSError as error:
                if error.errno not in _NOT_KEPT:
                    raise
            os.ftruncate(descriptor, length)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise Unavailable("gateway.extract_no_room", bytes=length) from None
        raise failed(path, error) from None


def read_bytes(path: Path, offset: int, length: int) -> bytes:
    """So many bytes from there on. Raises VerificationError where the file is shorter."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
    except OSError as error:
        raise failed(path, error) from None
    if len(data) != length:
        raise VerificationError("parquet.altered", file=path.name)
    return data


def write(path: Path, offset: int, data: bytes) -> None:
    """Put bytes into a part that `prepare` has made."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CLOEXEC), "wb") as file:
            file.seek(offset)
            file.write(data)
    except OSError as error:
        raise failed(path, error) from None


def flush(path: Path) -> None:
    """Put a file or folder on the disk."""
    try:
        durable.flush(path)
    except OSError as error:
        raise failed(path, error) from None


def appear(part: Path, path: Path) -> None:
    """Give a whole file its name, unless one stands there; the part is gone when this returns."""
    try:
        if not path.exists():
            part.rename(path)
        part.unlink(missing_ok=True)
    except OSError as error:
        raise failed(path, error) from None
    flush(path.parent)


def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise failed(path, error) from None
