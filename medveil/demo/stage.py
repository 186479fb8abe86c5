"""The output folder of a run: one run at a time, nothing half-written, nothing of others touched.

A run works in ``DIR/.partial``. Only when everything stands does it replace what an earlier run left
in DIR. A run that was killed leaves at most ``.partial`` (thrown away by the next) or a marked,
complete one (its replacement is finished by the next).
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from wire.errors import Refused, Unavailable

PARTS = ("consortium.json", "evidence", "proofs", "receipts", "report.html", "sites")
_MARK = ".medveil-demo"
_PARTIAL = ".partial"
_COMPLETE = ".complete"
_LOCK = ".lock"


@contextmanager
def stage(out: Path) -> Iterator[Path]:
    """A clean folder to build in; what it holds becomes the content of `out` if the block succeeds.

    Raises Unavailable (another run, a read-only or full disk), Refused (`out` holds other things).
    """
    try:
        _prepare(out)
        lock = FileLock(out / _LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise Unavailable("demo.busy", retry_after=60, folder=str(out)) from None
    except (OSError, NotImplementedError) as error:
        raise cannot_write(error, out) from None
    try:
        partial = out / _PARTIAL
        try:
            _recover(out)
            partial.mkdir(mode=0o700)
        except OSError as error:
            raise cannot_write(error, out) from None
        try:
            yield partial
            _sync(partial)
            (partial / _COMPLETE).touch()
            _replace(out)
        except OSError as error:
            raise cannot_write(error, out) from None
        finally:
            if not (partial / _COMPLETE).exists():
                shutil.rmtree(partial, ignore_errors=True)
    finally:
        lock.release()


def cannot_write(error: BaseException, out: Path) -> Unavailable:
    """The sentence for a disk that does not take what is written."""
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Unavailable("demo.disk_full", folder=str(out))
    return Unavailable("demo.cannot_write", folder=str(out))


def _prepare(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise Refused("demo.not_a_folder", folder=str(out))
    out.mkdir(parents=True, exist_ok=True)
    mark = out / _MARK
    if not mark.exists():
        if any(out.iterdir()):
            raise Refused("demo.not_ours", folder=str(out))
        mark.write_text("An output folder of medveil demo. A new run replaces its content.\n", encoding="utf-8")


def _recover(out: Path) -> None:
    """Finish what a killed run had completed; throw away what it had not."""
    partial = out / _PARTIAL
    if (partial / _COMPLETE).exists():
        _replace(out)
    elif partial.exists():
        shutil.rmtree(partial)


def _replace(out: Path) -> None:
    """Move every part of the complete `.partial` into place. May be repeated after a crash."""
    partial = out / _PARTIAL
    for part in PARTS:
        fresh, old = partial / part, out / part
        if not fresh.exists():
            continue
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        fresh.replace(old)
    shutil.rmtree(partial)


def _sync(folder: Path) -> None:
    """Everything below `folder` on the disk before it is called complete."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                os.fsync(file.fileno())
