"""Aggregated Bulletproofs: committed values lie in [0, 2^bits), in one short proof.

Statement (public): commitments V_1..V_m (Pedersen), bits n. Witness: v_j, gamma_j with
``V_j = v_j G + gamma_j H`` and ``0 <= v_j < 2^n`` as integers. m and n are powers of two.

Adversary: a malicious prover of bounded power (soundness: discrete logarithms and the random-oracle
model), and a verifier that wants to learn more than the statement (perfect special honest-verifier
zero knowledge; non-interactive by Fiat-Shamir).

Spec: Bünz, Bootle, Boneh, Poelstra, Wuille, Maxwell: Bulletproofs (eprint 2017/1066), sections 3 and
4.2; the message order follows dalek's bulletproofs. Departures:
1. BLS12-381 G1 in place of ristretto255; generators by RFC 9380 under domain RANGE_GENERATOR.
2. Our transcript (`zkp.transcript`) in place of Merlin; the caller's statement comes first in it.
3. The verifier's two equations are joined by a weight that is the transcript's last challenge, after
   every byte of the proof: verification is deterministic.
4. The prover's inner-product rounds work on the original generators with products of challenges
   instead of folding the generators (the same messages).

The proof is flat bytes of a length that (n, m) fixes: A S T1 T2 | t tau mu | (L R) per round | a b;
points 48, scalars 32. 1 x 64: 928 bytes; 2 x 64: 1,024; 8 x 32: 1,120. Not constant time. Not reviewed
by outsiders.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from wire.domains import RANGE_GENERATOR
from wire.errors import DecodeError, Refused, VerificationError
from zkp import pedersen
from zkp.groups import (
    POINT_BYTES,
    SCALAR_BYTES,
    Backend,
    Point,
    R,
    Rand,
    backend,
    decode_scalar,
    encode_scalar,
    random_scalar,
)
from zkp.transcript import Transcript

WIDTHS = (8, 16, 32, 64)
"""Widths in bits that a value can have."""

LARGEST_COUNT = 16
"""Most values in one proof."""


def proof_bytes(bits: int, count: int) -> int:
    """Length in bytes of a proof over `count` values of `bits` bits."""
    _check_shape(bits, count)
    rounds = (bits * count).bit_length() - 1
    return (4 + 2 * rounds) * POINT_BYTES + 5 * SCALAR_BYTES


def _check_shape(bits: int, count: int) -> None:
    if bits not in WIDTHS:
        raise ValueError(f"a range proof is over {', '.join(map(str, WIDTHS))} bits, not {bits}")
    if not 1 <= count <= LARGEST_COUNT or count & (count - 1):
        raise ValueError(f"a range proof is over 1, 2, 4, 8 or 16 values, not {count}")


@cache
def _generators(name: str, size: int) -> tuple[list[Point], list[Point]]:
    """G_0.. and H_0..: independent of each other and of Pedersen's two."""
    group = backend(name)

    def hashed(base: bytes) -> list[Point]:
        return [group.hash_to_point(RANGE_GENERATOR, base + i.to_bytes(4, "big")) for i in range(size)]

    return hashed(b"G"), hashed(b"H")


def _start(transcript: Transcript, bits: int, commitments: Sequence[bytes]) -> None:
    transcript.append_bytes(b"range-proof", b"bulletproofs/BLS12381G1/v1")
    transcript.append_integer(b"bits", bits)
    transcript.append_integer(b"count", len(commitments))
    for encoded in commitments:
        transcript.append_point(b"V", encoded)


def _powers(base: int, count: int) -> list[int]:
    """base^0 .. base^(count-1)."""
    powers = [1]
    while len(powers) < count:
        powers.append(powers[-1] * base % R)
    return powers


def _inner(left: Sequence[int], right: Sequence[int]) -> int:
    return sum(a * b for a, b in zip(left, right, strict=True)) % R


# ---------------------------------------------------------------------------------------------- prover


def prove(
    transcript: Transcript,
    values: Sequence[int],
    blindings: Sequence[int],
    bits: int,
    rand: Rand,
    group: Backend | None = None,
) -> bytes:
    """Prover: show that each of `values` (secret) is in [0, 2^bits). Returns `proof_bytes` bytes, public.

    The statement is about the commitments ``pedersen.commit(value, blinding)``, which the proof does
    not contain. `transcript` already holds the caller's statement and is consumed. blindings: secret
    scalars, one a value. rand: secret source of bytes. Raises Refused ("zkp.out_of_range") when the
    statement is false: nothing is proved then.
    """
    _check_shape(bits, len(values))
    if len(blindings) != len(values):
        raise ValueError(f"{len(values)} values but {len(blindings)} blindings")
    if not all(0 <= value < 1 << bits for value in values):
        raise Refused("zkp.out_of_range", bits=bits)
    return _prove(transcript, values, blindings, bits, rand, group or backend())


def _prove(
    transcript: Transcript, values: Sequence[int], blindings: Sequence[int], bits: int, rand: Rand, group: Backend
) -> bytes:
    size = bits * len(values)
    bases_g, bases_h = _generators(group.name, size)
    g, h = pedersen.generator_g(group), pedersen.generator_h(group)
    out: list[bytes] = []

    def send(label: bytes, point: Point) -> None:  # P -> V
        out.append(group.encode(point))
        transcript.append_point(label, out[-1])

    commitments = [group.msm([g, h], [v, b]) for v, b in zip(values, blindings, strict=True)]
    _start(transcript, bits, [group.encode(v) for v in commitments])
    secret = transcript.prover_randomness([*values, *blindings], rand)

    # a_L = the bits of all values, a_R = a_L - 1
    a_l = [value >> i & 1 for value in values for i in range(bits)]
    a_r = [bit - 1 for bit in a_l]
    s_l = [random_scalar(secret) for _ in range(size)]
    s_r = [random_scalar(secret) for _ in range(size)]
    alpha, rho, tau1, tau2 = (random_scalar(secret) for _ in range(4))
    # A = alpha H + <a_L, G> + <a_R, H>;  S = rho H + <s_L, G> + <s_R, H>
    send(b"A", group.msm([h, *bases_g, *bases_h], [alpha, *a_l, *a_r]))
    send(b"S", group.msm([h, *bases_g, *bases_h], [rho, *s_l, *s_r]))
    y, z = transcript.challenge(b"y"), transcript.challenge(b"z")

    # l(X) = a_L - z + s_L X;  r(X) = y^i (a_R + z + s_R X) + z^(2+j) 2^b   with i = j n + b
    ys, zs = _powers(y, size), _powers(z, len(values) + 2)
    l0 = [bit - z for bit in a_l]
    r0 = [ys[i] * (a_r[i] + z) + (zs[2 + i // bits] << i % bits) for i in range(size)]
    r1 = [ys[i] * s_r[i] for i in range(size)]
    # t(X) = <l(X), r(X)> = t0 + t1 X + t2 X^2;  T_k = t_k G + tau_k H
    t1, t2 = (_inner(l0, r1) + _inner(s_l, r0)) % R, _inner(s_l, r1)
    send(b"T1", group.msm([g, h], [t1, tau1]))
    send(b"T2", group.msm([g, h], [t2, tau2]))
    x = transcript.challenge(b"x")

    a = [(l0[i] + s_l[i] * x) % R for i in range(size)]
    b = [(r0[i] + r1[i] * x) % R for i in range(size)]
    t = _inner(a, b)
    tau = (tau1 * x + tau2 * x * x + sum(zs[2 + j] * gamma for j, gamma in enumerate(blindings))) % R
    mu = (alpha + rho * x) % R
    for label, scalar in ((b"t", t), (b"tau", tau), (b"mu", mu)):  # P -> V
        out.append(encode_scalar(scalar))
        transcript.append_scalar(label, scalar)
    w = transcript.challenge(b"w")

    # Inner-product argument for P = <a, G> + <b, y^-i H> + w t G (section 3). At each level the folded
    # generators are G'_j = sum_k u_g[k] G_(k len + j), H'_j likewise with u_h and y^-i.
    y_inverse = _powers(pow(y, -1, R), size)
    u_g, u_h = [1], [1]
    while len(a) > 1:
        half = len(a) // 2
        low, high = range(half), range(half, len(a))
        left_points, left_scalars, right_points, right_scalars = [g], [0], [g], [0]
        for k, (of_g, of_h) in enumerate(zip(u_g, u_h, strict=True)):
            start = k * len(a)
            for i, j in zip(low, high, strict=True):
                # L = <a_low, G'_high> + <b_high, H'_low> + w <a_low, b_high> G, R the other way round
                left_points += [bases_g[start + j], bases_h[start + i]]
                left_scalars += [a[i] * of_g, b[j] * of_h % R * y_inverse[start + i]]
                right_points += [bases_g[start + i], bases_h[start + j]]
                right_scalars += [a[j] * of_g, b[i] * of_h % R * y_inverse[start + j]]
        left_scalars[0] = w * _inner(a[:half], b[half:])
        right_scalars[0] = w * _inner(a[half:], b[:half])
        send(b"L", group.msm(left_points, left_scalars))
        send(b"R", group.msm(right_points, right_scalars))
        u = transcript.challenge(b"u")
        u_inverse = pow(u, -1, R)
        # a' = a_low u + a_high / u;  b' = b_low / u + b_high u;  G' = G_low / u + u G_high;  H' = u H_low + H_high / u
        a = [(a[i] * u + a[j] * u_inverse) % R for i, j in zip(low, high, strict=True)]
        b = [(b[i] * u_inverse + b[j] * u) % R for i, j in zip(low, high, strict=True)]
        u_g = [c * factor % R for c in u_g for factor in (u_inverse, u)]
        u_h = [c * factor % R for c in u_h for factor in (u, u_inverse)]
    out += [encode_scalar(a[0]), encode_scalar(b[0])]  # P -> V
    return b"".join(out)


# -------------------------------------------------------------------------------------------- verifier


def verify(
    transcript: Transcript,
    commitments: Sequence[Point],
    bits: int,
    proof: bytes,
    group: Backend | None = None,
) -> None:
    """Verifier: check `proof` that each of `commitments` holds a value in [0, 2^bits).

    `transcript` must hold the same statement as the prover's and is consumed. One multi-scalar
    multiplication over 2 bits m + 2 log2(bits m) + m + 6 points. Raises VerificationError and nothing else
    for whatever `proof` is; commitments outside the group's backend are a ValueError.
    """
    group = group or backend()
    count = len(commitments)
    if len(proof) != proof_bytes(bits, count):
        raise VerificationError("zkp.proof_length", length=len(proof), expected=proof_bytes(bits, count))
    size = bits * count
    rounds = size.bit_length() - 1
    reader = _Reader(proof, group)
    try:
        _start(transcript, bits, [group.encode(v) for v in commitments])
        big_a, big_s = reader.point(transcript, b"A"), reader.point(transcript, b"S")
        y, z = transcript.challenge(b"y"), transcript.challenge(b"z")
        big_t1, big_t2 = reader.point(transcript, b"T1"), reader.point(transcript, b"T2")
        x = transcript.challenge(b"x")
        t, tau, mu = (reader.scalar(transcript, label) for label in (b"t", b"tau", b"mu"))
        w = transcript.challenge(b"w")
        lefts, rights, us = [], [], []
        for _ in range(rounds):
            lefts.append(reader.point(transcript, b"L"))
            rights.append(reader.point(transcript, b"R"))
            us.append(transcript.challenge(b"u"))
        a, b = reader.scalar(transcript, b"a"), reader.scalar(transcript, b"b")
    except DecodeError:
        raise VerificationError("zkp.malformed_proof") from None
    weight = transcript.challenge(b"weight")

    ys, zs = _powers(y, size), _powers(z, count + 3)
    y_inverse = _powers(pow(y, -1, R), size)
    u_inverses = [pow(u, -1, R) for u in us]
    # s_i: the coefficient of G_i in the last folded generator; that of H_i is its inverse, s_(size-1-i)
    s = [1]
    for u, u_inverse in zip(us, u_inverses, strict=True):
        s = [c * factor % R for c in s for factor in (u_inverse, u)]

    # (1) t G + tau H = sum_j z^(2+j) V_j + delta G + x T1 + x^2 T2
    #     delta = (z - z^2) sum_i y^i - sum_j z^(3+j) (2^n - 1)
    delta = ((z - z * z) * sum(ys) - sum(zs[3:]) * ((1 << bits) - 1)) % R
    # (2) A + x S - mu H - z sum_i G_i + sum_i (z + z^(2+j) 2^b y^-i) H_i + w t G + sum_k (u_k^2 L_k + u_k^-2 R_k)
    #       = sum_i a s_i G_i + sum_i b s_i^-1 y^-i H_i + w a b G
    # Check (2) + weight * (1) with everything on one side.
    bases_g, bases_h = _generators(group.name, size)
    terms = [
        (pedersen.generator_g(group), w * (t - a * b) + weight * (delta - t)),
        (pedersen.generator_h(group), -mu - weight * tau),
        (big_a, 1),
        (big_s, x),
        (big_t1, weight * x),
        (big_t2, weight * x * x),
    ]
    terms += [(v, weight * zs[2 + j]) for j, v in enumerate(commitments)]
    terms += [(point, u * u) for point, u in zip(lefts, us, strict=True)]
    terms += [(point, u * u) for point, u in zip(rights, u_inverses, strict=True)]
    terms += [(bases_g[i], -z - a * s[i]) for i in range(size)]
    terms += [
        (bases_h[i], z + y_inverse[i] * ((zs[2 + i // bits] << i % bits) - b * s[size - 1 - i])) for i in range(size)
    ]
    if not group.is_identity(group.msm([point for point, _ in terms], [scalar for _, scalar in terms])):
        raise VerificationError("zkp.bad_range_proof")


class _Reader:
    """Takes a proof apart in order; each part enters the transcript as it is read."""

    def __init__(self, proof: bytes, group: Backend) -> None:
        self._proof = proof
        self._at = 0
        self._group = group

    def _take(self, length: int) -> bytes:
        self._at += length
        return self._proof[self._at - length : self._at]

    def point(self, transcript: Transcript, label: bytes) -> Point:
        encoded = self._take(POINT_BYTES)
        point = self._group.decode(encoded)  # canonical, in the subgroup, not the identity
        transcript.append_point(label, encoded)
        return point

    def scalar(self, transcript: Transcript, label: bytes) -> int:
        value = decode_scalar(self._take(SCALAR_BYTES))
        transcript.append_scalar(label, value)
        return value
