"""What can be seen of a running process from outside, on Linux: by its /proc.

A process that is closed to this user (it dumps no core and lets nobody read its memory) is searched by root alone;
the report says which were.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from medveil.leak_test.search import PIECE

_PROC = Path("/proc")
_ZEROS = bytes(PIECE)
_CORE = "Max core file size"
_DEVICES = ("/dev/", "/proc/", "/sys/", "socket:", "pipe:", "anon_inode:", "/memfd:")
_MEMORY = "/dev/shm/"
"""Files like any other, though in memory."""


class Closed(Exception):
    """This user may not read it."""


def can_look() -> bool:
    """Whether this machine shows processes in /proc."""
    return sys.platform == "linux" and (_PROC / "self" / "environ").exists()


def command_line(process: int) -> bytes:
    """Its arguments."""
    return _read(process, "cmdline")


def environment(process: int) -> bytes:
    """The environment it was started with. Raises Closed."""
    return _read(process, "environ")


def core_limit(process: int) -> str:
    """How large a core it may leave: "0" for none; empty where the process has ended."""
    for line in _read(process, "limits").decode().splitlines():
        if line.startswith(_CORE):
            return line.removeprefix(_CORE).split()[0]
    return ""


def open_elsewhere(process: int, folder: Path) -> list[Path]:
    """Files outside `folder` that it has open for writing. Raises Closed."""
    found = []
    try:
        for link in (_PROC / str(process) / "fd").iterdir():
            target = str(link.readlink())
            flags = _flags(process, link.name)
            writes = flags & 3 != 0
            device = target.startswith(_DEVICES) and not target.startswith(_MEMORY)
            if writes and target.startswith("/") and not device and not target.startswith(f"{folder}/"):
                found.append(link)
    except PermissionError:
        raise Closed from None
    except FileNotFoundError:
        pass
    return found


def _flags(process: int, descriptor: str) -> int:
    for line in _read(process, f"fdinfo/{descriptor}").decode().splitlines():
        if line.startswith("flags:"):
            return int(line.split()[1], 8)
    return 0


def memory(process: int) -> Iterator[bytes]:
    """What it can write of its memory, area by area, each followed by zeros. Raises Closed."""
    try:
        areas = (_PROC / str(process) / "maps").read_text().splitlines()
        with (_PROC / str(process) / "mem").open("rb", buffering=0) as file:
            for area in areas:
                span, rights, *_ = area.split()
                if not rights.startswith("rw"):
                    continue
                begin, end = (int(part, 16) for part in span.split("-"))
                yield from _area(file.fileno(), begin, end)
                yield bytes(64)
    except PermissionError:
        raise Closed from None


def _area(descriptor: int, begin: int, end: int) -> Iterator[bytes]:
    while begin < end:
        try:
            piece = os.pread(descriptor, min(PIECE, end - begin), begin)
        except OSError:  # gone, or never there
            return
        if not piece:
            return
        begin += len(piece)
        if piece != _ZEROS[: len(piece)]:  # never touched
            yield piece


def _read(process: int, name: str) -> bytes:
    try:
        return (_PROC / str(process) / name).read_bytes()
    except PermissionError:
        raise Closed from None
    except (FileNotFoundError, ProcessLookupError):
        return b""
