"""The groups of BLS12-381: points of G1 and G2, pairing, scalars, strict encodings, hashing to the curves.

The only file that touches a curve library. ``backend("arkworks")`` is the working one;
``backend("reference")`` (py_ecc, pure Python, about fifty times slower) is the independent second
opinion of ``medveil verify --backend reference`` and of the differential tests. Bytes are the same
for both.

Scalars are Python ints mod `R` until they meet a point. Operations reduce them mod `R`; scalars from
outside come through `decode_scalar`, which refuses what is not already reduced: a public input
``x + R`` must never pass for ``x``. Points from outside come through ``decode`` and ``decode2``, which
check curve, subgroup and canonical form and refuse the identity.

Security: discrete logarithms in G1 and G2, about 117-128 bits. Neither library runs in constant time,
and Python ints do not either: keep long-term secret scalars in a key provider. Not reviewed by outsiders.

Spec: RFC 9380 (BLS12381G1_XMD:SHA-256_SSWU_RO_ and BLS12381G2_XMD:SHA-256_SSWU_RO_); compressed points
as in draft-irtf-cfrg-pairing-friendly-curves, appendix C (48 and 96 bytes, three flag bits).
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final, Protocol, final

from py_arkworks_bls12381 import GT, G1Point, G2Point, Scalar

from wire.errors import DecodeError

R: Final = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001
"""Order of the groups: a prime of 255 bits."""

POINT_BYTES: Final = 48
AFFINE_BYTES: Final = 96
POINT2_BYTES: Final = 96
SCALAR_BYTES: Final = 32

ARKWORKS: Final = "arkworks"
REFERENCE: Final = "reference"
BACKENDS: Final = (ARKWORKS, REFERENCE)

Rand = Callable[[int], bytes]
"""Source of randomness: ``rand(n)`` returns n fresh secret bytes (``secrets.token_bytes`` outside tests)."""

_LONGEST_DOMAIN = 255


class _Element:
    """An element of one of the groups, opaque: only its backend computes with it. Always on the curve and in
    the subgroup. Its encoding is computed once."""

    __slots__ = ("_backend", "_bytes", "_raw")

    def __init__(self, backend: Backend, raw: Any, encoded: bytes | None = None) -> None:
        self._backend = backend
        self._raw = raw
        self._bytes = encoded

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._backend.name})"


@final
class Point(_Element):
    """An element of G1. Compares by value; points of different backends are never equal (compare encodings)."""

    __slots__ = ()

    @property
    def encoded(self) -> bytes:
        """The 48 compressed bytes."""
        return self._bytes or self._backend.encode(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Point) or other._backend is not self._backend:
            return NotImplemented
        return self._backend.equal(self, other)

    def __hash__(self) -> int:
        return hash(self.encoded)


@final
class Point2(_Element):
    """An element of G2: a public key, or a generator. Compares by value, as `Point` does."""

    __slots__ = ()

    @property
    def encoded(self) -> bytes:
        """The 96 compressed bytes."""
        return self._bytes or self._backend.encode2(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Point2) or other._backend is not self._backend:
            return NotImplemented
        return self._backend.equal2(self, other)

    def __hash__(self) -> int:
        return hash(self.encoded)


class Backend(Protocol):
    """What a curve library must offer. Scalars: ints, reduced mod `R` here. A point of another
    backend or of the other group, or something that is no point, is a caller's bug: ValueError."""

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

    def sum(self, points: Sequence[Point]) -> Point:
        """The sum of `points`: one addition each; the identity for none."""
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

    def encode_affine(self, point: Point) -> bytes:
        """The 96 bytes of both coordinates, x first, big-endian. The identity has none: ValueError."""
        ...

    def decode_affine_unchecked(self, data: bytes) -> Point:
        """The point of `encode_affine`'s bytes, a hundred times faster than `decode`: nothing is checked.

        Only for bytes whose digest is known beforehand; never for what somebody sent.
        """
        ...

    def hash_to_point(self, domain: bytes, message: bytes) -> Point:
        """A point whose discrete logarithm nobody knows. `domain`: 1..255 public bytes, used as the
        whole DST of RFC 9380; `message`: public. Not constant time: never for a secret message."""
        ...

    def generator2(self) -> Point2:
        """The standard generator of G2. The operations named with a 2 are those of G2."""
        ...

    def add2(self, left: Point2, right: Point2) -> Point2: ...

    def neg2(self, point: Point2) -> Point2: ...

    def mul2(self, point: Point2, scalar: int) -> Point2: ...

    def equal2(self, left: Point2, right: Point2) -> bool: ...

    def is_identity2(self, point: Point2) -> bool: ...

    def encode2(self, point: Point2) -> bytes:
        """The 96 compressed bytes."""
        ...

    def decode2(self, data: bytes) -> Point2:
        """As `decode`, for G2. The identity is always refused: no key may be it."""
        ...

    def hash_to_point2(self, domain: bytes, message: bytes) -> Point2:
        """As `hash_to_point`, for G2."""
        ...

    def pairing_is_one(self, pairs: Sequence[tuple[Point, Point2]]) -> bool:
        """Whether the product of e(P, Q) over all pairs is one (so it is for none): one shared final
        exponentiation. An identity in a pair contributes one: refuse it where it must not be."""
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


def _raws(owner: Backend, points: Sequence[Point]) -> list[Any]:
    """The library's own values of `points`, all of which must be `owner`'s elements of G1."""
    raws = [point._raw for point in points if point.__class__ is Point and point._backend is owner]
    if len(raws) != len(points):
        raise ValueError(f"not a point of backend {owner.name!r}")
    return raws


def _raws2(owner: Backend, points: Sequence[Point2]) -> list[Any]:
    """As `_raws`, for G2."""
    raws = [point._raw for point in points if point.__class__ is Point2 and point._backend is owner]
    if len(raws) != len(points):
        raise ValueError(f"not a point of G2 of backend {owner.name!r}")
    return raws


def _scalars(values: Sequence[int]) -> list[Scalar]:
    convert = Scalar.from_be_bytes  # a tenth of the time of Scalar(int), which reduces silently
    return [convert((value % R).to_bytes(SCALAR_BYTES, "big")) for value in values]


@final
class _Arkworks:
    """py-arkworks-bls12381 (Rust)."""

    name = ARKWORKS

    def generator(self) -> Point:
        return Point(self, G1Point())

    def identity(self) -> Point:
        return Point(self, G1Point.identity())

    def add(self, left: Point, right: Point) -> Point:
        a, b = _raws(self, (left, right))
        return Point(self, a + b)

    def neg(self, point: Point) -> Point:
        (a,) = _raws(self, (point,))
        return Point(self, -a)

    def mul(self, point: Point, scalar: int) -> Point:
        (a,), (s,) = _raws(self, (point,)), _scalars((scalar,))
        return Point(self, a * s)

    def sum(self, points: Sequence[Point]) -> Point:
        return Point(self, sum(_raws(self, points), G1Point.identity()))

    def msm(self, points: Sequence[Point], scalars: Sequence[int]) -> Point:
        _check_lengths(points, scalars)
        return Point(self, G1Point.multiexp_unchecked(_raws(self, points), _scalars(scalars)))

    def equal(self, left: Point, right: Point) -> bool:
        a, b = _raws(self, (left, right))
        return bool(a == b)

    def is_identity(self, point: Point) -> bool:
        (a,) = _raws(self, (point,))
        return bool(a == G1Point.identity())

    def encode(self, point: Point) -> bytes:
        (a,) = _raws(self, (point,))
        if point._bytes is None:
            point._bytes = bytes(a.to_compressed_bytes())
        return point._bytes

    def decode(self, data: bytes, *, allow_identity: bool = False) -> Point:
        raw = self._checked(G1Point, data)
        if not allow_identity and raw == G1Point.identity():
            raise DecodeError("zkp.identity_point")
        return Point(self, raw, data)

    def encode_affine(self, point: Point) -> bytes:
        if self.is_identity(point):
            raise ValueError("the identity has no coordinates")
        (a,) = _raws(self, (point,))
        return bytes(a.to_xy_bytes_be())

    def decode_affine_unchecked(self, data: bytes) -> Point:
        return Point(self, G1Point.from_xy_bytes_unchecked_be(data))

    def hash_to_point(self, domain: bytes, message: bytes) -> Point:
        _check_domain(domain)
        return Point(self, G1Point.hash_to_curve(message, domain))

    def generator2(self) -> Point2:
        return Point2(self, G2Point())

    def add2(self, left: Point2, right: Point2) -> Point2:
        a, b = _raws2(self, (left, right))
        return Point2(self, a + b)

    def neg2(self, point: Point2) -> Point2:
        (a,) = _raws2(self, (point,))
        return Point2(self, -a)

    def mul2(self, point: Point2, scalar: int) -> Point2:
        (a,), (s,) = _raws2(self, (point,)), _scalars((scalar,))
        return Point2(self, a * s)

    def equal2(self, left: Point2, right: Point2) -> bool:
        a, b = _raws2(self, (left, right))
        return bool(a == b)

    def is_identity2(self, point: Point2) -> bool:
        (a,) = _raws2(self, (point,))
        return bool(a == G2Point.identity())

    def encode2(self, point: Point2) -> bytes:
        (a,) = _raws2(self, (point,))
        if point._bytes is None:
            point._bytes = bytes(a.to_compressed_bytes())
        return point._bytes

    def decode2(self, data: bytes) -> Point2:
        raw = self._checked(G2Point, data)
        if raw == G2Point.identity():
            raise DecodeError("zkp.identity_point")
        return Point2(self, raw, data)

    def hash_to_point2(self, domain: bytes, message: bytes) -> Point2:
        _check_domain(domain)
        return Point2(self, G2Point.hash_to_curve(message, domain))

    def pairing_is_one(self, pairs: Sequence[tuple[Point, Point2]]) -> bool:
        left, right = _raws(self, [p for p, _ in pairs]), _raws2(self, [q for _, q in pairs])
        return bool(GT.pairing_check(left, right))

    def _checked(self, kind: Any, data: bytes) -> Any:
        """The library's element of `kind` that `data` encodes canonically."""
        try:
            raw = kind.from_compressed_bytes(data)
        except ValueError:
            raise DecodeError(_BAD[kind is G2Point]) from None
        # it accepts several encodings of the identity (e0 00.., c0 00..01, ff..): compare
        if bytes(raw.to_compressed_bytes()) != data:
            raise DecodeError(_BAD[kind is G2Point])
        return raw


_BAD = ("zkp.bad_point", "zkp.bad_point2")


@final
class _Reference:
    """py_ecc (pure Python), imported when first asked for."""

    name = REFERENCE

    def __init__(self) -> None:
        # py_ecc raises the interpreter's recursion limit to 100,000 for everybody: nothing here needs that
        limit = sys.getrecursionlimit()
        try:
            from py_ecc import optimized_bls12_381 as curve
            from py_ecc.bls import hash_to_curve, point_compression
        finally:
            sys.setrecursionlimit(limit)
        self._curve: Any = curve
        self._hashing: Any = hash_to_curve
        self._compression: Any = point_compression

    def generator(self) -> Point:
        return Point(self, self._curve.G1)

    def identity(self) -> Point:
        return Point(self, self._curve.Z1)

    def add(self, left: Point, right: Point) -> Point:
        a, b = _raws(self, (left, right))
        return Point(self, self._curve.add(a, b))

    def neg(self, point: Point) -> Point:
        (a,) = _raws(self, (point,))
        return Point(self, self._curve.neg(a))

    def mul(self, point: Point, scalar: int) -> Point:
        (a,) = _raws(self, (point,))
        return Point(self, self._curve.multiply(a, scalar % R))

    def sum(self, points: Sequence[Point]) -> Point:
        total = self._curve.Z1
        for raw in _raws(self, points):
            total = self._curve.add(total, raw)
        return Point(self, total)

    def msm(self, points: Sequence[Point], scalars: Sequence[int]) -> Point:
        _check_lengths(points, scalars)
        raws, reduced = _raws(self, points), [s % R for s in scalars]
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
        a, b = _raws(self, (left, right))
        return bool(self._curve.eq(a, b))

    def is_identity(self, point: Point) -> bool:
        (a,) = _raws(self, (point,))
        return bool(self._curve.is_inf(a))

    def encode(self, point: Point) -> bytes:
        (a,) = _raws(self, (point,))
        if point._bytes is None:
            point._bytes = int(self._compression.compress_G1(a)).to_bytes(POINT_BYTES, "big")
        return point._bytes

    def decode(self, data: bytes, *, allow_identity: bool = False) -> Point:
        if len(data) != POINT_BYTES:
            raise DecodeError("zkp.bad_point")
        try:
            raw = self._compression.decompress_G1(int.from_bytes(data, "big"))
        except ValueError:
            raise DecodeError("zkp.bad_point") from None
        point = Point(self, raw)
        if not self._in_subgroup(raw) or self.encode(point) != data:
            raise DecodeError("zkp.bad_point")
        if not allow_identity and self._curve.is_inf(raw):
            raise DecodeError("zkp.identity_point")
        return point

    def encode_affine(self, point: Point) -> bytes:
        if self.is_identity(point):
            raise ValueError("the identity has no coordinates")
        (raw,) = _raws(self, (point,))
        x, y = self._curve.normalize(raw)
        return b"".join(int(one).to_bytes(AFFINE_BYTES // 2, "big") for one in (x, y))

    def decode_affine_unchecked(self, data: bytes) -> Point:
        half, field = AFFINE_BYTES // 2, self._curve.FQ
        x, y = int.from_bytes(data[:half], "big"), int.from_bytes(data[half:], "big")
        return Point(self, (field(x), field(y), field.one()))

    def hash_to_point(self, domain: bytes, message: bytes) -> Point:
        _check_domain(domain)
        return Point(self, self._hashing.hash_to_G1(message, domain, hashlib.sha256))

    def generator2(self) -> Point2:
        return Point2(self, self._curve.G2)

    def add2(self, left: Point2, right: Point2) -> Point2:
        a, b = _raws2(self, (left, right))
        return Point2(self, self._curve.add(a, b))

    def neg2(self, point: Point2) -> Point2:
        (a,) = _raws2(self, (point,))
        return Point2(self, self._curve.neg(a))

    def mul2(self, point: Point2, scalar: int) -> Point2:
        (a,) = _raws2(self, (point,))
        return Point2(self, self._curve.multiply(a, scalar % R))

    def equal2(self, left: Point2, right: Point2) -> bool:
        a, b = _raws2(self, (left, right))
        return bool(self._curve.eq(a, b))

    def is_identity2(self, point: Point2) -> bool:
        (a,) = _raws2(self, (point,))
        return bool(self._curve.is_inf(a))

    def encode2(self, point: Point2) -> bytes:
        (a,) = _raws2(self, (point,))
        if point._bytes is None:
            parts = self._compression.compress_G2(a)
            point._bytes = b"".join(int(part).to_bytes(POINT_BYTES, "big") for part in parts)
        return point._bytes

    def decode2(self, data: bytes) -> Point2:
        if len(data) != POINT2_BYTES:
            raise DecodeError("zkp.bad_point2")
        halves = int.from_bytes(data[:POINT_BYTES], "big"), int.from_bytes(data[POINT_BYTES:], "big")
        try:
            raw = self._compression.decompress_G2(halves)
        except ValueError:
            raise DecodeError("zkp.bad_point2") from None
        point = Point2(self, raw)
        if not self._in_subgroup(raw) or self.encode2(point) != data:
            raise DecodeError("zkp.bad_point2")
        if self._curve.is_inf(raw):
            raise DecodeError("zkp.identity_point")
        return point

    def hash_to_point2(self, domain: bytes, message: bytes) -> Point2:
        _check_domain(domain)
        return Point2(self, self._hashing.hash_to_G2(message, domain, hashlib.sha256))

    def pairing_is_one(self, pairs: Sequence[tuple[Point, Point2]]) -> bool:
        left, right = _raws(self, [p for p, _ in pairs]), _raws2(self, [q for _, q in pairs])
        product = self._curve.FQ12.one()
        for p, q in zip(left, right, strict=True):
            product *= self._curve.pairing(q, p, final_exponentiate=False)
        return bool(self._curve.final_exponentiate(product) == self._curve.FQ12.one())

    def _in_subgroup(self, raw: Any) -> bool:
        return bool(self._curve.is_inf(self._curve.multiply(raw, R)))
