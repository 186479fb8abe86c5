"""The group G1 of BLS12-381: points, scalars, strict encodings, hashing to the curve. Two backends.

The only file that touches a curve library. ``backend("arkworks")`` is the working one;
``backend("reference")`` (py_ecc, pure Python, about fifty times slower) is the independent second
opinion of ``medveil verify --backend reference`` and of the differential tests. Bytes are the same
for both.

Scalars are Python ints mod `R` until they meet a point. Operations reduce them mod `R`; scalars from
outside come through `decode_scalar`, which refuses what is not already reduced: a public input
``x + R`` must never pass for ``x``. Points from outside come through ``decode``, which checks curve,
subgroup and canonical form and refuses the identity unless asked not to.

Security: discrete logarithms in G1, about 117-128 bits. Neither library runs in constant time, and
Python ints do not either: keep long-term secret scalars in a key provider. Not reviewed by outsiders.

Spec: RFC 9380 (BLS12381G1_XMD:SHA-256_SSWU_RO_); compressed points as in
draft-irtf-cfrg-pairing-friendly-curves, appendix C (48 bytes, three flag bits).
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final, Protocol, final

from py_arkworks_bls12381 import G1Point, Scalar

from wire.errors import DecodeError

R: Final = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001
"""Order of the group: a prime of 255 bits."""

POINT_BYTES: Final = 48
SCALAR_BYTES: Final = 32

ARKWORKS: Final = "arkworks"
REFERENCE: Final = "reference"
BACKENDS: Final = (ARKWORKS, REFERENCE)

Rand = Callable[[int], bytes]
"""Source of randomness: ``rand(n)`` returns n fresh secret bytes (``secrets.token_bytes`` outside tests)."""

_LONGEST_DOMAIN = 255


@final
class Point:
    """An element of G1, opaque: only its backend computes with it. Always on the curve and in the subgroup.

    Points compare by value; points of different backends are never equal (compare their encodings).
    """

    __slots__ = ("_backend", "_raw")

    def __init__(self, backend: Backend, raw: Any) -> None:
        self._backend = backend
        self._raw = raw

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Point) or other._backend.name != self._backend.name:
            return NotImplemented
        return self._backend.equal(self, other)

    def __hash__(self) -> int:
        return hash(self._backend.encode(self))

    def __repr__(self) -> str:
        return f"Point({self._backend.name})"


class Backend(Protocol):
    """What a curve library must offer. Scalars: ints, reduced mod `R` here. A point of another
    backend, or something that is no point, is a caller's bug: ValueError."""

    @property
    def name(self) -> str:
        """ "arkworks" or "reference"."""
        ...

    def generator(self) -> Point:
        """The standard generator of G1."""
        ...

    def identity(self) -> Point:
        """The neutral element."""
        ...

    def add(self, left: Point, right: Point) -> Point:
        """left + right."""
        ...

    def neg(self, point: Point) -> Point:
        """-point."""
        ...

    def mul(self, point: Point, scalar: int) -> Point:
        """scalar * point."""
        ...

    def msm(self, points: Sequence[Point], scalars: Sequence[int]) -> Point:
        """sum_i scalars[i] * points[i]; the identity for empty input. Different lengths: ValueError."""
        ...

    def equal(self, left: Point, right: Point) -> bool:
        """Whether both are the same group element."""
        ...

    def is_identity(self, point: Point) -> bool:
        """Whether `point` is the neutral element."""
        ...

    def encode(self, point: Point) -> bytes:
        """The 48 compressed bytes."""
        ...

    def decode(self, data: bytes, *, allow_identity: bool = False) -> Point:
        """The point that `data` encodes. Raises DecodeError unless `data` is the canonical encoding of
        a point of the prime-order subgroup, and not the identity (unless `allow_identity`)."""
        ...

    def hash_to_point(self, domain: bytes, message: bytes) -> Point:
        """A point whose discrete logarithm nobody knows. `domain`: 1..255 public bytes, used as the
        whole DST of RFC 9380; `message`: public. Not constant time: never for a secret message."""
        ...


def encode_scalar(scalar: int) -> bytes:
    """32 big-endian bytes of ``scalar mod R``."""
    return (scalar % R).to_bytes(SCALAR_BYTES, "big")


def decode_scalar(data: bytes) -> int:
    """The scalar of 32 big-endian bytes. Raises DecodeError for another length or a value >= R."""
    value = int.from_bytes(data, "big")
    if len(data) != SCALAR_BYTES or value >= R:
        raise DecodeError("zkp.bad_scalar")
    return value


def random_scalar(rand: Rand) -> int:
    """A secret scalar, uniform up to 2^-128: 48 bytes of `rand` reduced mod R."""
    data = rand(48)
    if len(data) != 48:
        raise ValueError("rand(n) must return n bytes")
    return int.from_bytes(data, "big") % R


def backend(name: str = ARKWORKS) -> Backend:
    """The backend of that name: "arkworks" or "reference". An unknown name is a ValueError."""
    return _backend(name)


@cache
def _backend(name: str) -> Backend:
    if name == ARKWORKS:
        return _Arkworks()
    if name == REFERENCE:
        return _Reference()
    raise ValueError(f"no backend {name!r}; there are {', '.join(BACKENDS)}")


def _check_lengths(points: Sequence[Point], scalars: Sequence[int]) -> None:
    # arkworks' multiexp_unchecked silently truncates to the shorter one
    if len(points) != len(scalars):
        raise ValueError(f"{len(points)} points but {len(scalars)} scalars")


def _check_domain(domain: bytes) -> None:
    if not 1 <= len(domain) <= _LONGEST_DOMAIN:
        raise ValueError("a hash-to-curve domain has 1..255 bytes")


def _raws(owner: Backend, *points: Point) -> list[Any]:
    """The library's own values of `points`, all of which must be `owner`'s."""
    for point in points:
        if not isinstance(point, Point) or point._backend.name != owner.name:
            raise ValueError(f"not a point of backend {owner.name!r}")
    return [point._raw for point in points]


def _scalar(value: int) -> Scalar:
    return Scalar.from_be_bytes((value % R).to_bytes(SCALAR_BYTES, "big"))  # a tenth of the time of Scalar(int)


@final
class _Arkworks:
    """py-arkworks-bls12381 (Rust)."""

    name = ARKWORKS

    def generator(self) -> Point:
        return Point(self, G1Point())

    def identity(self) -> Point:
        return Point(self, G1Point.identity())

    def add(self, left: Point, right: Point) -> Point:
        a, b = _raws(self, left, right)
        return Point(self, a + b)

    def neg(self, point: Point) -> Point:
        (a,) = _raws(self, point)
        return Point(self, -a)

    def mul(self, point: Point, scalar: int) -> Point:
        (a,) = _raws(self, point)
        return Point(self, a * _scalar(scalar))

    def msm(self, points: Sequence[Point], scalars: Sequence[int]) -> Point:
        _check_lengths(points, scalars)
        return Point(self, G1Point.multiexp_unchecked(_raws(self, *points), [_scalar(s) for s in scalars]))

    def equal(self, left: Point, right: Point) -> bool:
        a, b = _raws(self, left, right)
        return bool(a == b)

    def is_identity(self, point: Point) -> bool:
        (a,) = _raws(self, point)
        return bool(a == G1Point.identity())

    def encode(self, point: Point) -> bytes:
        (a,) = _raws(self, point)
        return bytes(a.to_compressed_bytes())

    def decode(self, data: bytes, *, allow_identity: bool = False) -> Point:
        try:
            raw = G1Point.from_compressed_bytes(data)
        except ValueError:
            raise DecodeError("zkp.bad_point") from None
        # it accepts several encodings of the identity (e0 00.., c0 00..01, ff..): compare
        if bytes(raw.to_compressed_bytes()) != data:
            raise DecodeError("zkp.bad_point")
        if not allow_identity and raw == G1Point.identity():
            raise DecodeError("zkp.identity_point")
        return Point(self, raw)

    def hash_to_point(self, domain: bytes, message: bytes) -> Point:
        _check_domain(domain)
        return Point(self, G1Point.hash_to_curve(message, domain))


@final
class _Reference:
    """py_ecc (pure Python), imported when first asked for."""

    name = REFERENCE

    def __init__(self) -> None:
        # py_ecc raises the interpreter's recursion limit to 100,000 for everybody: G1 needs no such thing
        limit = sys.getrecursionlimit()
        try:
            from py_ecc import optimized_bls12_381 as curve
            from py_ecc.bls import hash_to_curve, point_compression
        finally:
            sys.setrecursionlimit(limit)
        self._curve: Any = curve
        self._hash_to_g1: Any = hash_to_curve.hash_to_G1
        self._compression: Any = point_compression

    def generator(self) -> Point:
        return Point(self, self._curve.G1)

    def identity(self) -> Point:
        return Point(self, self._curve.Z1)

    def add(self, left: Point, right: Point) -> Point:
        a, b = _raws(self, left, right)
        return Point(self, self._curve.add(a, b))

    def neg(self, point: Point) -> Point:
        (a,) = _raws(self, point)
        return Point(self, self._curve.neg(a))

    def mul(self, point: Point, scalar: int) -> Point:
        (a,) = _raws(self, point)
        return Point(self, self._curve.multiply(a, scalar % R))

    def msm(self, points: Sequence[Point], scalars: Sequence[int]) -> Point:
        _check_lengths(points, scalars)
        raws, reduced = _raws(self, *points), [s % R for s in scalars]
        add, double = self._curve.add, self._curve.double
        # Pippenger: for each window of w bits, points of equal digit share a bucket,
        # and sum_d d * bucket[d] is the sum of the buckets' running sums from the top
        width = max(2, len(raws).bit_length() - 2)
        total = self._curve.Z1
        for start in reversed(range(0, R.bit_length(), width)):
            for _ in range(width):
                total = double(total)
            buckets: list[Any] = [self._curve.Z1] * (1 << width)
            for raw, scalar in zip(raws, reduced, strict=True):
                digit = (scalar >> start) & ((1 << width) - 1)
                if digit:
                    buckets[digit] = add(buckets[digit], raw)
            running = weighted = self._curve.Z1
            for bucket in reversed(buckets[1:]):
                running = add(running, bucket)
                weighted = add(weighted, running)
            total = add(total, weighted)
        return Point(self, total)

    def equal(self, left: Point, right: Point) -> bool:
        a, b = _raws(self, left, right)
        return bool(self._curve.eq(a, b))

    def is_identity(self, point: Point) -> bool:
        (a,) = _raws(self, point)
        return bool(self._curve.is_inf(a))

    def encode(self, point: Point) -> bytes:
        (a,) = _raws(self, point)
        return int(self._compression.compress_G1(a)).to_bytes(POINT_BYTES, "big")

    def decode(self, data: bytes, *, allow_identity: bool = False) -> Point:
        if len(data) != POINT_BYTES:
            raise DecodeError("zkp.bad_point")
        try:
            raw = self._compression.decompress_G1(int.from_bytes(data, "big"))
        except ValueError:
            raise DecodeError("zkp.bad_point") from None
        if not self._curve.is_inf(self._curve.multiply(raw, R)):  # on the curve, but outside the subgroup
            raise DecodeError("zkp.bad_point")
        point = Point(self, raw)
        if self.encode(point) != data:
            raise DecodeError("zkp.bad_point")
        if not allow_identity and self._curve.is_inf(raw):
            raise DecodeError("zkp.identity_point")
        return point

    def hash_to_point(self, domain: bytes, message: bytes) -> Point:
        _check_domain(domain)
        return Point(self, self._hash_to_g1(message, domain, hashlib.sha256))
