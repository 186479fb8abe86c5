"""The table of generators in a home: ``generators``, pieces of `mpc.generator_table` one after the other.

It holds nothing of anybody's, and can be made again from nothing: no backup has it, and whoever deletes it loses
seconds. It is never believed: a piece that is not the pinned one, cut short or another program's, is made anew and
written over it. Where it cannot be written, pieces are made once a process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from threading import Lock

from mpc import generator_table
from mpc.generator_table import PIECE, PIECE_BYTES
from wire.errors import DecodeError

FILE = "generators"
FEW = 256
"""Generators that are made when they are needed: a piece takes longer."""

_loading = Lock()
"""Held while pieces are taken up or made: a second flow finds them in memory."""


async def generators_ready(folder: Path, cells: int) -> None:
    """Have the generators of `cells` in memory, from the home in `folder` as far as they are there.

    Else a second's work for each piece that is missing, in a thread, once a home.
    """
    if cells > generator_table.known() and cells > FEW:
        await asyncio.to_thread(load_generators, folder, cells)


def load_generators(folder: Path, cells: int) -> None:
    """See `generators_ready`; synchronous, and for any number of cells."""
    with _loading:
        _load(folder / FILE, cells)


def _load(path: Path, cells: int) -> None:
    for number in range(generator_table.known() // PIECE, -(-cells // PIECE)):
        data = b""
        with contextlib.suppress(OSError), path.open("rb") as file:
            file.seek(number * PIECE_BYTES)
            data = file.read(PIECE_BYTES)
        try:
            generator_table.take_piece(number, data)
        except DecodeError:
            with contextlib.suppress(OSError):  # the disk is full or read-only: it is in memory
                _write(path, number, generator_table.make_piece(number))


def _write(path: Path, number: int, data: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.pwrite(file, data, number * PIECE_BYTES)
    finally:
        os.close(file)
