"""The generators of commitments to vectors: hashed to the curve once, pinned by digest, taken up again from bytes.

    G_j = hash_to_curve("value" || j as 4 bytes),  H = hash_to_curve("blinding")         domain VECTOR_GENERATOR

over G1 of BLS12-381 (RFC 9380), so that nobody knows a relation between them. One takes about 0.2 ms to make and a
hundredth of that to take up: whoever needs many keeps them. `PIECE` of them are a piece: each point as its two
coordinates, big-endian, 96 bytes. The SHA-256 of every piece stands here: bytes that hash to it are taken without
looking at their points, others are refused, wherever they came from, and what a curve library makes is held to it too.
Points of the table come in order, so that what is known is always a beginning of it.

This module reads and writes no file (`medveil.gateway.generator_file` does). All of it is public.
"""

from __future__ import annotations

from hashlib import sha256

from wire.domains import VECTOR_GENERATOR
from wire.errors import DecodeError
from zkp.groups import AFFINE_BYTES, ARKWORKS, Point
from zkp.groups import backend as group

LONGEST = 2**17
"""Points of the whole table: the most cells of one vector."""
PIECE = 2**12
"""Points of a piece."""
PIECE_BYTES = PIECE * AFFINE_BYTES
"""Bytes of a piece: 384 KiB."""

DIGESTS = tuple(
    bytes.fromhex(digest)
    for digest in (
        "712e1f4b9f8bb493bb61be55201418be7c19ea545712bcea2f0bd0fb16a35fa7",
        "fb160635a2be155c2fc463135e45073ac4e86d2b09a8179a450d789930e9658a",
        "7af066a7bfd201102bc3bb4c4b09d1f16df760ec695ff5826285183b96cb5640",
        "a3c14df9498ff3b0b6443bcdf93b319b984fef473212782b44b271ba2b8cf22e",
        "a42255f5d412d808e5ec9a88d9c686d6f7f326b6ed7a5f55e2fd0b3cede20d64",
        "02597d147d1866e0bdc8d4ef95500a35465b3aacee523ce49202e084f3bd3141",
        "c3d323ce030b300f17c527c5c073be3b1c587558e38a36fbae36eb53916bb4d0",
        "37418c1904c62e61630b336fc67fccc994ec7fc2c77a6b36252d54a6fc73dac0",
        "f68c6d37c9ba2e6c5254d370a4eadba33d5ccdee81b6507749219eb9805a4434",
        "a2985c3d630f9e16b6462ad4496861be6edba4a7eb75f1994b6c7856eb24ad38",
        "3b7bde2993dac492bee08de37d56e01caa91383358df0261ecd4b4cc9405cbde",
        "efa4bc7c615829537f9de88f23283faa8050e62f3de0c54979ac135602b3dda3",
        "df67ab22a533f3fc529457b8b29c439724ea1d81ee38ba20ebe9d7fcbbeb5bfd",
        "1fd3dbb986d42a15d358ca9f79316125ed39c308f236cae83dec84bc399ad442",
        "d82127724c45e2d0109b3908195d2ee825cbe79fb1491ec496fb4465a219103f",
        "8ad615623db067182a4409259f626eb0456d74f08b5dedfd9ee029bbe9fc5459",
        "eaa6157eb38bae73bd93eae5cdd23def085aff20f8d700857ee672aa78a9a105",
        "34b3176b8fa9d0b7b3569c0fe58b87a2e3ebbc27abb088229c2c25624a2bbe51",
        "ec7aa31fab3fdd5c8453ff34552a20fd9dcfa82b4bccb57ea04e834c760ce56b",
        "74f291ef86f3836670129de1447d9fc4c6304675e5aff5d8b134f53dcf7b3ad0",
        "4f11eea2aa70ffdd9f20f085292b4734c41ac69d922fc5b69c9605761a4a41e0",
        "e07458a7926dac85aa9f06947689d3f2779b8506a53df231fde8659f7f88379d",
        "37d7179069cacb0fdad65a9e9a401c320d9b13999c2112df2821de089a90632e",
        "11fdeb28c5f2720455f35b26b69f81097c41f241b2269cd883ab2395e4328ff4",
        "f25f1343378b5b4f4d486d258147013c0ada5a2b23bf565afb4dd6be49416334",
        "66d5db136f43e92c4e651c41e33d25c35869140ce3cb0483110520160a602c17",
        "f23e7a1829d1b87f41d5e063ac8642d1f05a3dcd368e40c34989a542df5ee803",
        "de463ec9e7b6ad59fc2eeefd9d2b42f4919199c155f23c105eebdbcec6eeb7db",
        "236c4946f60d7fd32775941b5e43c0e01b04df7c3e625d8d9ffbf0cff456182f",
        "0e56d9fbda273bc62db2a411b4b71bb477359c362ef1ccb103308d0518dc627c",
        "33cf358e746d68e544351dc6d45188d68e85bdb88462c5455a2cb7a554985a50",
        "1ddc507e1ef50a28141237528d90f1d616d4105cdf4757f49ce9937396532b45",
    )
)
"""SHA-256 of each piece, in order."""

_values: dict[str, tuple[Point, ...]] = {}
_blinding: dict[str, Point] = {}


def known(backend: str = ARKWORKS) -> int:
    """How many of the generators are in memory."""
    return len(_values.get(backend, ()))


def generators(count: int, backend: str = ARKWORKS) -> tuple[Point, ...]:
    """G_0 .. G_{count-1} (public): those that are not in memory yet are made, and stay."""
    if not 0 <= count <= LONGEST:
        raise ValueError(f"a vector has at most {LONGEST} cells")
    there = _values.get(backend, ())
    if len(there) < count:
        there = _values[backend] = (*there, *(_made(index, backend) for index in range(len(there), count)))
    return there[:count]


def blinding_generator(backend: str = ARKWORKS) -> Point:
    """H (public)."""
    if backend not in _blinding:
        _blinding[backend] = group(backend).hash_to_point(VECTOR_GENERATOR, b"blinding")
    return _blinding[backend]


def _made(index: int, backend: str) -> Point:
    return group(backend).hash_to_point(VECTOR_GENERATOR, b"value" + index.to_bytes(4, "big"))


def make_piece(number: int, backend: str = ARKWORKS) -> bytes:
    """Make a piece, about a second's work, and keep it in memory if it comes next there; returns its bytes.

    Raises DecodeError if the curve library does not make what is pinned.
    """
    there, first = _values.get(backend, ()), number * PIECE
    curve = group(backend)
    points = (there[index] if index < len(there) else _made(index, backend) for index in range(first, first + PIECE))
    data = b"".join(curve.encode_affine(point) for point in points)
    take_piece(number, data, backend)
    return data


def take_piece(number: int, data: bytes, backend: str = ARKWORKS) -> None:
    """Take up the bytes of a piece; all before it should be in memory, else it is only checked.

    Raises DecodeError unless they are the pinned ones.
    """
    if len(data) != PIECE_BYTES or sha256(data).digest() != DIGESTS[number]:
        raise DecodeError("mpc.bad_generators", piece=number)
    there, first = _values.get(backend, ()), number * PIECE
    if not first <= len(there) < first + PIECE:
        return
    decode, lacking = group(backend).decode_affine_unchecked, range(len(there) - first, PIECE)
    fresh = (decode(data[AFFINE_BYTES * place : AFFINE_BYTES * (place + 1)]) for place in lacking)
    _values[backend] = (*there, *fresh)
