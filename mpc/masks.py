"""Masks of a secure sum: what a 32-byte seed adds to a vector of 64-bit lanes, and to the blinding beside it.

    PRG(seed) = AES-256-CTR from counter 0:   48 bytes  -> the blinding lane, an integer
                                              8 bytes a cell, little-endian -> that cell's lane, mod 2^64

The whole 256 bits of a seed are the key: nothing is folded. A seed is fresh for one pair, or one party, and one
session, and is used for one stream. 48 bytes reduced mod the group's order are uniform up to 2^-128.

From counter 2 on, this is what AES-256-GCM under nonce 0 makes of zeros, which OpenSSL does twice as fast as plain
counter mode where a processor has vector AES (without, it takes half as long again): GCM's code makes the stream. No
tag is ever made. GCM refuses to go on where its counter would end, at 64 GiB.

Streams are made and added piece by piece, small enough for the processor's cache: a vector of 10^6 cells passes through
memory once, whatever the number of masks. Secret: seeds, streams, vectors. Running time depends on lengths alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR, GCM

Lanes = npt.NDArray[np.uint64]
"""Cells mod 2^64, in order. On the wire: 8 little-endian bytes each."""

LANE_BYTES = 8
SEED_BYTES = 32
WIDE = 48
"""Bytes of the blinding lane's mask."""

Seen = Callable[[memoryview], object]

_PIECE = 2**14
"""Cells of one piece: with its stream it stays in a core's own cache."""
_STAGE = 2**16
"""Cells that are shown at a time: enough for a hash that takes many blocks at once."""

_BLOCK = 16
_BEFORE = 2 * _BLOCK
"""Bytes of a stream that come before GCM's first block under a nonce of 12 bytes."""


class _Stream:
    """PRG(seed): the mask of the blinding, and then the lanes, in order."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise ValueError("a mask's seed has 32 bytes")
        first = Cipher(AES(seed), CTR(bytes(_BLOCK))).encryptor().update(bytes(_BEFORE))
        self._rest = Cipher(AES(seed), GCM(bytes(12))).encryptor()
        self.wide = int.from_bytes(first + self._rest.update(bytes(WIDE - _BEFORE)), "big")

    def into(self, room: memoryview, zeros: memoryview) -> None:
        """The next bytes, as many as there are zeros."""
        self._rest.update_into(zeros, room)

    def __repr__(self) -> str:
        return "_Stream()"


class MaskedLanes(NamedTuple):
    """A masked vector as it travels. data: not to be written to. blinding: what the same masks add to the blinding: not
    reduced, of either sign."""

    data: memoryview
    blinding: int


def masked(cells: Lanes, plus: Iterable[bytes], minus: Iterable[bytes] = (), seen: Seen | None = None) -> MaskedLanes:
    """`cells` with the masks of the seeds `plus` added and those of `minus` taken away; cells itself stays.

    seen: told of what is masked, in order, while the processor's cache still has it: a hash of all of it.
    """
    added, taken = [_Stream(seed) for seed in plus], [_Stream(seed) for seed in minus]
    blinding = sum(one.wide for one in added) - sum(one.wide for one in taken)
    lanes = np.empty(
        len(cells), dtype="<u8"
    )  # an array's memory comes in large pages, found much sooner than small ones
    out = lanes.view(np.uint8).data
    for stage in _masked_stages(out, cells, added, taken):
        if seen is not None:
            seen(stage)
    return MaskedLanes(out.toreadonly(), blinding)


def _masked_stages(
    out: memoryview, cells: Lanes, added: Sequence[_Stream], taken: Sequence[_Stream]
) -> Iterator[memoryview]:
    """Masks `cells` into `out`, and gives what is done, stage after stage."""
    lanes = np.frombuffer(out, dtype="<u8")
    zeros, buffer = memoryview(bytes(LANE_BYTES * _PIECE)), memoryview(bytearray(LANE_BYTES * _PIECE))
    stream = np.frombuffer(buffer, dtype="<u8")
    steps = [*((one, np.add) for one in added), *((one, np.subtract) for one in taken)]
    for begin in range(0, len(lanes), _STAGE):
        end = min(begin + _STAGE, len(lanes))
        for start in range(begin, end, _PIECE):
            piece = lanes[start : min(start + _PIECE, end)]
            before, other, length = cells[start : start + len(piece)], stream[: len(piece)], LANE_BYTES * len(piece)
            for one, change in steps:
                one.into(buffer, zeros[:length])
                change(before, other, out=piece)
                before = piece
            if not steps:
                piece[:] = before
        yield out[LANE_BYTES * begin : LANE_BYTES * end]


def from_bytes(data: bytes | memoryview) -> Lanes:
    """Lanes as they came. Raises ValueError for bytes that are no whole cells."""
    return np.frombuffer(data, dtype="<u8").astype(np.uint64, copy=False)
