"""zkp.groups, G2 and the pairing: RFC 9380 vectors, strict decoding, the two backends against each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.errors import DecodeError
from zkp.groups import BACKENDS, POINT2_BYTES, Backend, R, backend

P = 0x1A0111EA397FE69A4B1BA7B6434BACD764774B84F38512BF6730D2A0F6B0F6241EABFFFEB153FFFFB9FEFFFFFFFFAAAB
IDENTITY = bytes([0xC0]) + bytes(95)
GENERATOR = bytes.fromhex(
    "93e02b6052719f607dacd3a088274f65596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e"
    "024aa2b2f08f0a91260805272dc51051c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8"
)

Complex = tuple[int, int]
"""An element c0 + c1 i of the field of P^2 elements."""


def compressed(x: Complex, y: Complex) -> bytes:
    """The 96 bytes of an affine point, written down from the specification: x1 with flags, then x0."""
    larger = 2 * y[1] > P if y[1] else 2 * y[0] > P
    return (x[1] | 1 << 383 | (1 << 381 if larger else 0)).to_bytes(48, "big") + x[0].to_bytes(48, "big")


def times(a: Complex, b: Complex) -> Complex:
    return (a[0] * b[0] - a[1] * b[1]) % P, (a[0] * b[1] + a[1] * b[0]) % P


def root(a: Complex) -> Complex | None:
    """A square root, by the norm; None if there is none. Independent of both libraries."""
    norm = pow(a[0] * a[0] + a[1] * a[1], (P + 1) // 4, P)
    for sign in (norm, -norm):
        half = (a[0] + sign) * pow(2, -1, P) % P
        c0 = pow(half, (P + 1) // 4, P)
        if c0 and c0 * c0 % P == half:
            found = c0, a[1] * pow(2 * c0, -1, P) % P
            if times(found, found) == (a[0] % P, a[1] % P):
                return found
    return None


def on_the_curve(start: int) -> bytes:
    """A point of y^2 = x^3 + 4 (1 + i) with small x: its order is not R (the cofactor has 500 bits)."""
    for c0 in range(start, start + 100):
        x = c0, 1
        cube = times(times(x, x), x)
        if y := root((cube[0] + 4, cube[1] + 4)):
            return compressed(x, y)
    raise AssertionError("half of all x lie on the curve")


def off_the_curve() -> bytes:
    for c0 in range(100):
        cube = times(times((c0, 1), (c0, 1)), (c0, 1))
        if root((cube[0] + 4, cube[1] + 4)) is None:
            return compressed((c0, 1), (0, 1))
    raise AssertionError("half of all x lie off the curve")


def element(text: str) -> Complex:
    c0, c1 = text.split(",")
    return int(c0, 16), int(c1, 16)


def test_rfc_9380_hash_to_curve(either: Backend, shared_vectors: Path) -> None:
    suite = json.loads((shared_vectors / "hash-to-curve" / "BLS12381G2_XMD_SHA-256_SSWU_RO_.json").read_text())
    assert len(suite["vectors"]) == 5
    for vector in suite["vectors"]:
        point = either.hash_to_point2(suite["dst"].encode(), vector["msg"].encode())
        want = compressed(element(vector["P"]["x"]), element(vector["P"]["y"]))
        assert either.encode2(point) == want
        assert either.decode2(want) == point


def test_order_and_generator(either: Backend) -> None:
    g = either.generator2()
    assert either.encode2(g) == GENERATOR and either.decode2(GENERATOR) == g
    assert either.is_identity2(either.mul2(g, R)) and not either.is_identity2(g)
    assert either.mul2(g, R + 5) == either.mul2(g, 5) == either.mul2(g, 5 - R)
    assert either.mul2(g, R - 1) == either.neg2(g)
    assert either.add2(g, g) == either.mul2(g, 2) and hash(either.add2(g, g)) == hash(either.mul2(g, 2))
    assert either.is_identity2(either.add2(g, either.neg2(g)))


@settings(max_examples=6)
@given(st.integers(0, R - 1), st.integers(1, R - 1))
def test_backends_agree(a: int, b: int) -> None:
    encodings = set()
    for name in BACKENDS:
        group = backend(name)
        encodings.add(group.encode2(group.add2(group.mul2(group.generator2(), a), group.mul2(group.generator2(), b))))
    assert len(encodings) == 1


NOT_POINTS = {
    "empty": b"",
    "a point of G1": backend().encode(backend().generator()),
    "short": GENERATOR[:-1],
    "long": GENERATOR + b"\0",
    "zeros": bytes(96),
    "uncompressed": GENERATOR + GENERATOR,
    "no compression flag": bytes([GENERATOR[0] & 0x7F]) + GENERATOR[1:],
    "infinity flag on a point": bytes([GENERATOR[0] | 0x40]) + GENERATOR[1:],
    "identity with sign": bytes([0xE0]) + bytes(95),
    "identity with a bit": IDENTITY[:-1] + b"\1",
    "identity with a bit in the first half": IDENTITY[:47] + b"\1" + bytes(48),
    "all ones": b"\xff" * 96,
    "c1 = p": (P | 1 << 383).to_bytes(48, "big") + GENERATOR[48:],
    "c0 + p": GENERATOR[:48] + (int.from_bytes(GENERATOR[48:], "big") + P).to_bytes(48, "big"),
    "a flag in the second half": GENERATOR[:48] + bytes([GENERATOR[48] | 0x80]) + GENERATOR[49:],
    "not on the curve": off_the_curve(),
    "outside the subgroup": on_the_curve(1),
    "outside the subgroup, another": on_the_curve(40),
}


@pytest.mark.parametrize("name", NOT_POINTS)
def test_decode_refuses(either: Backend, name: str) -> None:
    with pytest.raises(DecodeError) as caught:
        either.decode2(NOT_POINTS[name])
    assert caught.value.code == "zkp.bad_point2"


def test_the_identity_is_no_key(either: Backend) -> None:
    with pytest.raises(DecodeError) as caught:
        either.decode2(IDENTITY)
    assert caught.value.code == "zkp.identity_point"


def test_one_encoding_a_point(arkworks: Backend, reference: Backend) -> None:
    """Every single-bit change is refused, or decodes to another point that re-encodes to itself."""
    for bit in range(8 * POINT2_BYTES):
        changed = (int.from_bytes(GENERATOR, "big") ^ 1 << bit).to_bytes(96, "big")
        try:
            point = arkworks.decode2(changed)
        except DecodeError:
            if bit % 96 == 0:
                with pytest.raises(DecodeError):
                    reference.decode2(changed)
            continue
        assert arkworks.encode2(point) == changed
        assert reference.encode2(reference.decode2(changed)) == changed


def test_bilinear(either: Backend) -> None:
    g, h = either.generator(), either.generator2()

    def holds(*pairs: tuple[int, int]) -> bool:
        """Whether sum a b = 0, that is the product of e(a G, b H) is one."""
        return either.pairing_is_one([(either.mul(g, a), either.mul2(h, b)) for a, b in pairs])

    assert holds((6, 35), (-2, 105))
    assert holds((6, 35), (-10, 20), (-1, 10))
    assert not holds((6, 35), (-2, 104))
    assert not holds((1, 1))
    assert either.pairing_is_one([])
    assert holds((0, 5)), "an identity contributes one: who must not see it refuses it before"


def test_points_do_not_mix(arkworks: Backend, reference: Backend) -> None:
    g, h = arkworks.generator(), arkworks.generator2()
    assert h != reference.generator2() and h != g
    for bug in (
        lambda: arkworks.add2(h, reference.generator2()),
        lambda: arkworks.encode2(g),  # type: ignore[arg-type]
        lambda: arkworks.encode(h),  # type: ignore[arg-type]
        lambda: arkworks.msm([h], [1]),  # type: ignore[list-item]
        lambda: arkworks.pairing_is_one([(h, g)]),  # type: ignore[list-item]
        lambda: arkworks.pairing_is_one([(g, reference.generator2())]),
        lambda: reference.pairing_is_one([(g, h)]),
        lambda: arkworks.mul2(GENERATOR, 1),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match="not a point"):
            bug()


def test_domains_are_named(either: Backend) -> None:
    for domain in (b"", bytes(256)):
        with pytest.raises(ValueError, match=r"1\.\.255"):
            either.hash_to_point2(domain, b"")
