"""Masks of a secure sum: what a 32-byte seed adds to a vector of 64-bit lanes, and to the blinding beside it.

    PRG(seed) = AES-256-CTR from counter 0:   48 bytes  -> the blinding lane, an integer
                                              8 bytes a cell, little-endian -> that cell's lane, mod 2^64

The whole 256 bits of a seed are the key: nothing is folded. A seed is fresh for one pair, or one party, and one
session, and is used for one stream. 48 bytes reduced mod the group's order are uniform up to 2^-128.

Streams are made and added piece by piece, small enough for the processor's cache: a vector of 10^6 cells passes through
memory once, whatever the number of masks. Secret: seeds, streams, vectors. Running time depends on lengths alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

Lanes = npt.NDArray[np.uint64]
"""Cells mod 2^64, in order. On the wire: 8 little-endian bytes each."""

LANE_BYTES = 8
SEED_BYTES = 32
WIDE = 48
"""Bytes of the blinding lane's mask."""

Seen = Callable[[memoryview], object]

_PIECE = 2**14
"""Cells of one piece: with its stream it stays in a core's own cache."""
_STAGE = 2**17
"""Cells that one thread hands to the other: seldom enough that neither waits."""
_STRIDE = 2**8
"""Cells, less than a page of memory has."""


def _stream(seed: bytes) -> CipherContext:
    if len(seed) != SEED_BYTES:
        raise ValueError("a mask's seed has 32 bytes")
    return Cipher(AES(seed), CTR(bytes(16))).encryptor()


class MaskedLanes(NamedTuple):
    """A masked vector as it travels. blinding: what the same masks add to the blinding: not reduced, of either sign."""

    data: bytes
    blinding: int


def masked(cells: Lanes, plus: Iterable[bytes], minus: Iterable[bytes] = (), seen: Seen | None = None) -> MaskedLanes:
    """`cells` with the masks of the seeds `plus` added and those of `minus` taken away; cells itself stays.

    seen: told of what is masked, in order, in a thread of its own beside the masking: a hash of all of it.
    """
    added, taken = [_stream(seed) for seed in plus], [_stream(seed) for seed in minus]
    blinding = sum(_wide(one) for one in added) - sum(_wide(one) for one in taken)
    room = BytesIO(bytes(LANE_BYTES * len(cells)))  # what is masked in place is given out without being copied
    if len(cells):
        _mask(room.getbuffer(), cells, added, taken, seen)
    return MaskedLanes(room.getvalue(), blinding)


def _mask(
    out: memoryview, cells: Lanes, added: Sequence[CipherContext], taken: Sequence[CipherContext], seen: Seen | None
) -> None:
    """Masked cells into `out`. A thread beside goes ahead, so that fresh memory is there, and shows what is done."""
    lanes = np.frombuffer(out, dtype="<u8")
    zeros = memoryview(bytes(LANE_BYTES * _PIECE))
    buffer = bytearray(len(zeros) + 15)  # a cipher context wants room for a block more
    stream = np.frombuffer(buffer, dtype="<u8", count=_PIECE)
    steps = [*((one, np.add) for one in added), *((one, np.subtract) for one in taken)]

    def touch(first: int, last: int) -> None:
        lanes[first * _STAGE : last * _STAGE : _STRIDE] = 0

    def mask(stage: int) -> memoryview:
        begin, end = stage * _STAGE, min((stage + 1) * _STAGE, len(lanes))
        for start in range(begin, end, _PIECE):
            piece = lanes[start : min(start + _PIECE, end)]
            before = cells[start : start + len(piece)]
            blank, other = zeros[: LANE_BYTES * len(piece)], stream[: len(piece)]
            for one, change in steps:
                one.update_into(blank, buffer)
                change(before, other, out=piece)
                before = piece
            if not steps:
                piece[:] = before
        return out[LANE_BYTES * begin : LANE_BYTES * end]

    stages = -(-len(lanes) // _STAGE)
    if stages == 1:
        done = mask(0)
        if seen is not None:
            seen(done)
        return
    shown: list[Future[object]] = []
    with ThreadPoolExecutor(1) as beside:
        # Twice as many each time: it is always ahead, and all is touched before anything is shown.
        ready = {1 << power: beside.submit(touch, 1 << power, 2 << power) for power in range((stages - 1).bit_length())}
        for stage in range(stages):
            if stage in ready:
                ready[stage].result()
            done = mask(stage)
            if seen is not None:
                shown.append(beside.submit(seen, done))
        for one in shown:
            one.result()


def _wide(stream: CipherContext) -> int:
    return int.from_bytes(stream.update(bytes(WIDE)), "big")


def from_bytes(data: bytes) -> Lanes:
    """Lanes as they came. Raises ValueError for bytes that are no whole cells."""
    return np.frombuffer(data, dtype="<u8").astype(np.uint64, copy=False)
