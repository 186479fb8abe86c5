"""zkp.groups: RFC 9380 vectors, strict decoding, the two backends against each other."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.errors import DecodeError
from zkp.groups import BACKENDS, POINT_BYTES, Backend, R, backend, decode_scalar, encode_scalar, random_scalar

P = 0x1A0111EA397FE69A4B1BA7B6434BACD764774B84F38512BF6730D2A0F6B0F6241EABFFFEB153FFFFB9FEFFFFFFFFAAAB
IDENTITY = bytes([0xC0]) + bytes(47)
GENERATOR = bytes.fromhex(
    "97f1d3a73197d7942695638c4fa9ac0fc3688c4f9774b905a14e3a3f171bac586c55e83ff97a1aeffb3af00adb22c6bb"
)

scalars = st.integers(0, R - 1) | st.sampled_from([0, 1, 2, R - 1, R - 2, 2**64, 2**128])


def compressed(x: int, y: int) -> bytes:
    """The 48 bytes of an affine point, written down from the specification."""
    return (x | 1 << 383 | (1 << 381 if 2 * y > P else 0)).to_bytes(48, "big")


def outside_subgroup() -> bytes:
    """A point of the curve y^2 = x^3 + 4 that is not of order R (cofactor about 2^125)."""
    x = 4
    while pow(x**3 + 4, (P - 1) // 2, P) != 1:
        x += 1
    return compressed(x, pow(x**3 + 4, (P + 1) // 4, P))


def test_rfc_9380_hash_to_curve(either: Backend, shared_vectors: Path) -> None:
    suite = json.loads((shared_vectors / "hash-to-curve" / "BLS12381G1_XMD_SHA-256_SSWU_RO_.json").read_text())
    assert len(suite["vectors"]) == 5
    for vector in suite["vectors"]:
        point = either.hash_to_point(suite["dst"].encode(), vector["msg"].encode())
        want = compressed(int(vector["P"]["x"], 16), int(vector["P"]["y"], 16))
        assert either.encode(point) == want
        assert either.decode(want) == point


def test_order_and_generator(either: Backend) -> None:
    g, zero = either.generator(), either.identity()
    assert either.encode(g) == GENERATOR
    assert either.encode(zero) == IDENTITY
    assert either.is_identity(either.mul(g, R)) and not either.is_identity(g)
    assert either.mul(g, R + 5) == either.mul(g, 5) == either.mul(g, 5 - R)
    assert either.mul(g, R - 1) == either.neg(g) == either.mul(g, -1)
    assert either.add(g, either.neg(g)) == zero == either.add(zero, zero)
    assert either.add(g, zero) == g
    assert hash(either.add(g, g)) == hash(either.mul(g, 2))


def test_msm(either: Backend) -> None:
    g = either.generator()
    points = [either.mul(g, i * i + 1) for i in range(9)] + [either.identity(), g, g, either.neg(g)]
    values = [0, 1, R - 1, 2**200 + 7, 5, 6, 7, -3, R + 2, 4, 9, 9, 18]
    direct = either.identity()
    for point, value in zip(points, values, strict=True):
        direct = either.add(direct, either.mul(point, value))
    assert either.msm(points, values) == direct
    assert either.msm([], []) == either.identity()
    assert either.msm([g], [3]) == either.mul(g, 3)


@pytest.mark.parametrize("points, values", [(2, 1), (1, 2), (0, 1), (3, 0)])
def test_msm_never_truncates(either: Backend, points: int, values: int) -> None:
    with pytest.raises(ValueError, match="points but"):
        either.msm([either.generator()] * points, [1] * values)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(scalars, scalars), min_size=1, max_size=6))
def test_backends_agree(pairs: list[tuple[int, int]]) -> None:
    encodings = set()
    for name in BACKENDS:
        group = backend(name)
        bases = [group.mul(group.generator(), base) for base, _ in pairs]
        encodings.add(group.encode(group.msm(bases, [value for _, value in pairs])))
    assert len(encodings) == 1


def test_backends_hash_alike(arkworks: Backend, reference: Backend) -> None:
    for domain, message in [(b"d", b""), (b"d" * 255, b"m"), (b"medveil", bytes(200))]:
        assert arkworks.encode(arkworks.hash_to_point(domain, message)) == reference.encode(
            reference.hash_to_point(domain, message)
        )


NOT_POINTS = {
    "empty": b"",
    "short": GENERATOR[:-1],
    "long": GENERATOR + b"\0",
    "zeros": bytes(48),
    "uncompressed": GENERATOR + GENERATOR,
    "no compression flag": bytes([GENERATOR[0] & 0x7F]) + GENERATOR[1:],
    "infinity flag on a point": bytes([GENERATOR[0] | 0x40]) + GENERATOR[1:],
    "identity with sign": bytes([0xE0]) + bytes(47),
    "identity with a bit": bytes([0xC0]) + bytes(46) + b"\1",
    "all ones": b"\xff" * 48,
    "x = p": (P | 1 << 383).to_bytes(48, "big"),
    "x + p": (int.from_bytes(bytes([0x80]) + bytes(47), "big") | P + 4).to_bytes(48, "big"),
    "not on the curve": (next(x for x in range(100) if pow(x**3 + 4, (P - 1) // 2, P) != 1) | 1 << 383).to_bytes(
        48, "big"
    ),
    "outside the subgroup": outside_subgroup(),
}


@pytest.mark.parametrize("name", NOT_POINTS)
def test_decode_refuses(either: Backend, name: str) -> None:
    for allow_identity in (False, True):
        with pytest.raises(DecodeError) as caught:
            either.decode(NOT_POINTS[name], allow_identity=allow_identity)
        assert caught.value.code == "zkp.bad_point"


def test_identity_only_when_allowed(either: Backend) -> None:
    with pytest.raises(DecodeError) as caught:
        either.decode(IDENTITY)
    assert caught.value.code == "zkp.identity_point"
    assert either.is_identity(either.decode(IDENTITY, allow_identity=True))


def test_one_encoding_a_point(arkworks: Backend, reference: Backend) -> None:
    """Every single-bit change is refused, or decodes to another point that re-encodes to itself."""
    for bit in range(8 * POINT_BYTES):
        changed = (int.from_bytes(GENERATOR, "big") ^ 1 << bit).to_bytes(48, "big")
        try:
            point = arkworks.decode(changed)
        except DecodeError:
            if bit % 16 == 0:
                with pytest.raises(DecodeError):
                    reference.decode(changed)
            continue
        assert arkworks.encode(point) == changed
        assert reference.encode(reference.decode(changed)) == changed


@pytest.mark.parametrize("value", [0, 1, R - 1])
def test_scalars_round_trip(value: int) -> None:
    assert decode_scalar(encode_scalar(value)) == value


@pytest.mark.parametrize(
    "data",
    [b"", bytes(31), bytes(33), R.to_bytes(32, "big"), (R + 1).to_bytes(32, "big"), b"\xff" * 32],
)
def test_unreduced_scalars_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_scalar(data)
    assert caught.value.code == "zkp.bad_scalar"


def test_random_scalar(seeded: Callable[[int], Callable[[int], bytes]]) -> None:
    assert 0 <= random_scalar(seeded(1)) < R
    assert random_scalar(seeded(1)) == random_scalar(seeded(1)) != random_scalar(seeded(2))
    assert random_scalar(lambda n: b"\xff" * n) == (2**384 - 1) % R
    with pytest.raises(ValueError):
        random_scalar(lambda n: bytes(n - 1))


def test_points_of_two_backends_do_not_mix(arkworks: Backend, reference: Backend) -> None:
    ours, theirs = arkworks.generator(), reference.generator()
    assert ours != theirs and ours != GENERATOR
    with pytest.raises(ValueError, match="not a point of backend"):
        arkworks.add(ours, theirs)
    with pytest.raises(ValueError, match="not a point of backend"):
        reference.msm([theirs, ours], [1, 2])
    with pytest.raises(ValueError, match="not a point of backend"):
        arkworks.encode(GENERATOR)  # type: ignore[arg-type]


def test_domains_are_named(either: Backend) -> None:
    for domain in (b"", bytes(256)):
        with pytest.raises(ValueError, match=r"1\.\.255"):
            either.hash_to_point(domain, b"")


def test_unknown_backend() -> None:
    with pytest.raises(ValueError, match="no backend 'fast'"):
        backend("fast")
    assert backend() is backend("arkworks")


def test_the_recursion_limit_stays(reference: Backend) -> None:
    """py_ecc raises it to 100,000 on import, which would turn a RecursionError into a crash."""
    assert reference.name == "reference"
    assert sys.getrecursionlimit() < 50_000


def test_sum(either: Backend) -> None:
    g = either.generator()
    assert either.sum([]) == either.identity()
    assert either.sum([g, either.mul(g, 5), either.neg(g), either.identity()]) == either.mul(g, 5)


def test_encodings_are_kept_and_true(either: Backend) -> None:
    """A point remembers its bytes: decoded, computed and asked twice, they are the same."""
    for scalar in (1, 2, R - 1):
        point = either.mul(either.generator(), scalar)
        first = either.encode(point)
        assert either.encode(point) is first
        assert either.encode(either.decode(first)) == first == either.encode(either.mul(either.generator(), scalar))
        key = either.mul2(either.generator2(), scalar)
        assert either.encode2(either.decode2(either.encode2(key))) == either.encode2(key)
