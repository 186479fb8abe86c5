"""mpc.masks: the stream as the paper's equations have it, with other code; exact cancelling; whole seeds."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import given
from hypothesis import strategies as st

from mpc import masks
from mpc.sum_messages import masked_digest
from wire.domains import MASKED_CELLS, framed

SEED = bytes(range(32))


def lanes_of(data: bytes | memoryview) -> list[int]:
    return masks.from_bytes(data).tolist()


def plain(seed: bytes, cells: int) -> tuple[list[int], int]:
    """PRG by AES in single blocks and Python integers."""
    blocks = Cipher(AES(seed), ECB()).encryptor()
    stream = blocks.update(b"".join(i.to_bytes(16, "big") for i in range(4 + cells // 2)))
    lanes = [int.from_bytes(stream[48 + 8 * i : 56 + 8 * i], "little") for i in range(cells)]
    return lanes, int.from_bytes(stream[:48], "big")


@given(st.integers(0, 5), st.lists(st.integers(0, 2**64 - 1), max_size=40))
def test_the_stream_is_aes_256_counter_mode(key, cells):
    seed = bytes([key]) * 32
    lanes, wide = plain(seed, len(cells))
    out, blinding = masks.masked(np.array(cells, dtype=np.uint64), [seed])
    assert lanes_of(out) == [(cell + lane) % 2**64 for cell, lane in zip(cells, lanes, strict=True)]
    assert blinding == wide
    taken, other = masks.masked(np.array(cells, dtype=np.uint64), [], [seed])
    assert lanes_of(taken) == [(cell - lane) % 2**64 for cell, lane in zip(cells, lanes, strict=True)]
    assert other == -wide


@pytest.mark.parametrize("length", [0, 1, 2**14 - 1, 2**14, 2**14 + 1, 2**16, 9 * 2**14 + 5])
def test_pieces_make_one_stream(length):
    """Cells on both sides of a piece's end have the lanes that the whole stream has there."""
    lanes, _ = plain(SEED, length)
    out, _ = masks.masked(np.zeros(length, dtype=np.uint64), [SEED])
    assert lanes_of(out) == lanes


def test_what_is_added_is_taken_away():
    cells = np.arange(50_000, dtype=np.uint64)
    seeds = [bytes([n]) * 32 for n in range(5)]
    out, there = masks.masked(cells, seeds[:3], seeds[3:])
    back, again = masks.masked(masks.from_bytes(out), seeds[3:], seeds[:3])
    assert (masks.from_bytes(back) == cells).all() and there + again == 0
    assert cells[7] == 7  # what was given stays


def test_every_bit_of_a_seed_counts():
    """Seen elsewhere: seeds folded to 32 bits before masks are made."""
    zeros = np.zeros(4, dtype=np.uint64)
    seen = {bytes(masks.masked(zeros, [(1 << bit).to_bytes(32, "big")])[0]) for bit in range(256)}
    assert len(seen) == 256


@pytest.mark.parametrize("seed", [b"", bytes(16), bytes(31), bytes(33)])
def test_a_seed_has_32_bytes(seed):
    with pytest.raises(ValueError, match="32 bytes"):
        masks.masked(np.zeros(1, dtype=np.uint64), [seed])


def test_lanes_travel_little_endian():
    cells = np.array([1, 2**64 - 1, 256], dtype=np.uint64)
    data = masks.masked(cells, []).data
    assert data == b"".join(int(cell).to_bytes(8, "little") for cell in cells)
    assert (masks.from_bytes(data) == cells).all()
    with pytest.raises(ValueError):
        masks.from_bytes(data[:-1])


@pytest.mark.parametrize("length", [0, 1, 2**14, 2**16, 2**16 + 1, 20 * 2**14 + 3])
def test_what_is_seen_beside_is_what_travels(length):
    """Pieces are seen in order, each before its room is used again."""
    hashed = hashlib.sha256()
    data, _ = masks.masked(np.arange(length, dtype=np.uint64), [SEED], seen=hashed.update)
    assert hashed.digest() == hashlib.sha256(data).digest() and len(data) == 8 * length


def test_what_goes_wrong_beside_is_said():
    def fails(piece):
        raise MemoryError

    for length in (5, 2**17):
        with pytest.raises(MemoryError):
            masks.masked(np.zeros(length, dtype=np.uint64), [SEED], seen=fails)


def test_nobody_writes_to_what_travels():
    for length in (0, 3, 2**17):
        assert masks.masked(np.zeros(length, dtype=np.uint64), [SEED]).data.readonly


@pytest.mark.parametrize("length", [0, 5, 2**14 + 1, 2**16, 9 * 2**14 + 5])
def test_what_is_masked_is_shown_once_and_in_order(length):
    seen = bytearray()
    data = masks.masked(np.arange(length, dtype=np.uint64), [SEED], [], seen.extend).data
    assert seen == data


@pytest.mark.parametrize(
    ("length", "digest"),
    [
        (0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
        (1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"),
        (1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7"),
        (1025, "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444"),
    ],
)
def test_the_digest_of_masked_cells_is_blake3(length, digest):
    """The vectors of BLAKE3's authors, and what is signed: one hash of domain, session and cells, however they come."""
    assert blake3(bytes(i % 251 for i in range(length))).hexdigest() == digest
    cells = bytes(i % 251 for i in range(length))
    whole, parts = masked_digest(SEED), masked_digest(SEED)
    whole.update(cells)
    for start in range(0, length, 100):
        parts.update(memoryview(cells)[start : start + 100])
    assert whole.digest() == parts.digest() == blake3(framed(MASKED_CELLS, SEED) + cells).digest()
    assert masked_digest(bytes(32)).digest() != masked_digest(SEED).digest()
