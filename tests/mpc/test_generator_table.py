"""mpc.generator_table: pinned pieces, made by either library; nothing else is taken up."""

from __future__ import annotations

from hashlib import sha256

import pytest

from mpc import generator_table
from mpc.generator_table import DIGESTS, LONGEST, PIECE, PIECE_BYTES, generators, known, make_piece, take_piece
from wire.errors import DecodeError
from zkp.groups import AFFINE_BYTES, backend


@pytest.fixture(scope="module")
def piece() -> bytes:
    """The first piece, made."""
    return make_piece(0)


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No generator in memory."""
    monkeypatch.setattr(generator_table, "_values", {})


def test_what_is_made_is_what_is_pinned(piece: bytes) -> None:
    assert len(piece) == PIECE_BYTES and sha256(piece).digest() == DIGESTS[0]
    assert len(DIGESTS) * PIECE == LONGEST and len(set(DIGESTS)) == len(DIGESTS)


@pytest.mark.parametrize("before", [0, 1, 7])
@pytest.mark.usefixtures("empty")
def test_a_piece_is_taken_up_as_it_would_be_made(piece: bytes, before: int) -> None:
    made = [backend().encode(point) for point in generators(before or 9)]
    if not before:
        generator_table._values.clear()
    take_piece(0, piece)
    assert known() == PIECE
    assert [backend().encode(point) for point in generators(before or 9)] == made
    take_piece(0, piece)
    assert known() == PIECE


@pytest.mark.usefixtures("empty")
def test_two_libraries_take_up_the_same_points(piece: bytes) -> None:
    take_piece(0, piece, "reference")
    take_piece(0, piece)
    for place in (0, 1, PIECE - 1):
        theirs, ours = generators(PIECE, "reference")[place], generators(PIECE)[place]
        assert theirs.encoded == ours.encoded
        for library, point in (("reference", theirs), ("arkworks", ours)):
            coordinates = backend(library).encode_affine(point)
            assert coordinates == piece[AFFINE_BYTES * place :][:AFFINE_BYTES]


@pytest.mark.parametrize("library", ["arkworks", "reference"])
def test_the_identity_has_no_coordinates(library: str) -> None:
    with pytest.raises(ValueError, match="identity"):
        backend(library).encode_affine(backend(library).identity())


@pytest.mark.usefixtures("empty")
def test_other_bytes_are_refused_before_any_point_is_looked_at(piece: bytes) -> None:
    swapped = piece[AFFINE_BYTES : 2 * AFFINE_BYTES] + piece[:AFFINE_BYTES] + piece[2 * AFFINE_BYTES :]
    flipped = piece[:-1] + bytes([piece[-1] ^ 1])
    for wrong in (b"", piece[:-1], piece + b"\0", bytes(PIECE_BYTES), swapped, flipped):
        with pytest.raises(DecodeError) as refused:
            take_piece(0, wrong)
        assert refused.value.code == "mpc.bad_generators"
    with pytest.raises(DecodeError):
        take_piece(1, piece)  # the pinned bytes of another place
    assert known() == 0


@pytest.mark.usefixtures("empty")
def test_a_library_that_computes_something_else_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator_table, "_made", lambda index, library: backend().generator())
    with pytest.raises(DecodeError):
        make_piece(0)


@pytest.mark.long
def test_every_piece_is_what_is_pinned() -> None:
    for number in range(len(DIGESTS)):
        make_piece(number)
    assert known() == LONGEST
