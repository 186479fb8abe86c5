"""Aggregated range proofs of exact, mixed bounds: committed integers lie between their bounds, in one short proof.

Statement (public): commitments V_1..V_m, each a formal sum of points (`zkp.batch.Sum`), and a `Bound`
(low_j, high_j) for each. Witness: v_j, gamma_j with ``V_j = v_j G + gamma_j H`` and low_j <= v_j <= high_j.

A bound is exact and two-sided: v - low is the sum of its bits under the weights 1, 2, .., 2^(k-2) and
``high - low - (2^(k-1) - 1)``, k = bit_length(high - low), whose subset sums are just 0 .. high - low.
All bits of all values stand in one vector, filled up to a power of two with bits of weight 0.

*Nothing can wrap*: what is shown is ``v_j = low_j + s_j`` mod R with s_j an *integer* in 0..high_j - low_j,
and high_j < 2^64 < R. Whoever adds committed values up shows that the sum of the bounds is below R / 2.

Protocol: Bulletproofs+ (Chung, Han, Ju, Kim, Seo, eprint 2020/735), figures 1 and 3. With w_i the weight
and j(i) the value of bit i, d_i = z^(2 j(i)) w_i (j from 1), <a, b>_y = sum_i y^(i+1) a_i b_i:

    P -> V   A = alpha H + <a_L, G> + <a_R, H>            a_L the bits, a_R = a_L - 1
    V -> P   y, z
             a = a_L - z;  b = a_R + z + d_i y^-(i+1)     <a, b>_y = sum_j z^(2j) (v_j - low_j) + delta
             delta = (z - z^2) sum_i y^(i+1) - z sum_i d_i
    P <-> V  halving rounds  L, R -> x                    (until 4 numbers are left on each side)
    P -> V   A', B;  V -> P  e;  P -> V  r', s', delta'   (the rest, masked)

Departures: 1. BLS12-381 G1, generators by RFC 9380 under domain RANGE_GENERATOR, `zkp.transcript`.
2. Arbitrary weights w_i in place of powers of two: the paper's d is any public vector. 3. The term in
d carries y^-(i+1) in place of y^(N-i) and no factor y^(N+1) in front of V: the same equation divided by
y^(N+1). 4. One challenge x = e^2 a round, by scaling the folded vectors. 5. The halving stops at 4: A', B
and the responses are the paper's last step for vectors (same bytes, four points fewer).
6. The verifier's equation, weighted by a challenge after the last byte, is added to a `Check`.

Adversary: a prover of bounded power (discrete logarithms between the generators, random oracle); a
verifier that wants the values (honest-verifier zero knowledge, Fiat-Shamir). Not constant time: the
number of 1 bits shows in the prover's run time. Not reviewed by outsiders.

The proof is flat bytes of a length that the bounds fix: A | (L R) per round | A' B | r' (4) s' (4) delta';
points 48, scalars 32. 64 bits: 816 bytes; 128: 912; 512: 1,104; 1,024: 1,200.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Final, final

from wire.domains import RANGE_GENERATOR
from wire.errors import DecodeError, Refused, VerificationError
from zkp import pedersen
from zkp.batch import Check, Family, Sum
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
from zkp.relations import encoded_sum
from zkp.transcript import Transcript

HIGHEST: Final = (1 << 64) - 1
"""Highest upper bound."""

MOST_BITS: Final = 1024
"""Most bits of all bounds of one proof together."""

MOST_VALUES: Final = 64

_LEFT = 4
"""How many numbers a side the halving leaves."""

_FOLDED, _LONG = 8, 256
"""After three rounds on 256 generators or more, computing the folded ones is cheaper (measured: -10 to -25 %)."""


@final
@dataclass(frozen=True)
class Bound:
    """low <= value <= high, exactly. 0 <= low <= high < 2^64, public. ``Bound(0, 2**n - 1)``: n bits."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= HIGHEST:
            raise ValueError("a bound has 0 <= low <= high < 2^64")

    @property
    def bits(self) -> int:
        """How many bits it takes in the proof."""
        return (self.high - self.low).bit_length()

    @property
    def weights(self) -> list[int]:
        """The bits' weights: their subset sums are 0 .. high - low."""
        span, bits = self.high - self.low, self.bits
        return [1 << i for i in range(bits - 1)] + ([span - (1 << bits - 1) + 1] if bits else [])

    def bits_of(self, value: int) -> list[int]:
        """0s and 1s that sum up to value - low under `weights`; low <= value <= high."""
        rest, weights = value - self.low, self.weights
        if not weights:
            return []
        top = int(rest >= 1 << len(weights) - 1)
        rest -= top * weights[-1]
        return [rest >> i & 1 for i in range(len(weights) - 1)] + [top]


def _size(bounds: Sequence[Bound]) -> int:
    """Length of the vectors: the bits of all bounds, padded to a power of two. ValueError for too many."""
    total = sum(bound.bits for bound in bounds)
    if not 1 <= len(bounds) <= MOST_VALUES or total > MOST_BITS:
        raise ValueError(f"a range proof is over 1..{MOST_VALUES} values and at most {MOST_BITS} bits")
    return max(_LEFT, 1 << (total - 1).bit_length())


def proof_bytes(bounds: Sequence[Bound]) -> int:
    """Length in bytes of a proof of these bounds."""
    rounds = (_size(bounds) // _LEFT).bit_length() - 1
    return (3 + 2 * rounds) * POINT_BYTES + (2 * _LEFT + 1) * SCALAR_BYTES


def _family(base: bytes) -> Family:
    def make(group: Backend, index: int) -> Point:
        return group.hash_to_point(RANGE_GENERATOR, base + index.to_bytes(4, "big"))

    return Family(f"range-proof/v1/{base.decode()}", make)


BITS_G: Final = _family(b"G")
BITS_H: Final = _family(b"H")
"""The generators of the bit vectors: independent of each other and of Pedersen's two."""


def _start(transcript: Transcript, bounds: Sequence[Bound], commitments: Sequence[Sum]) -> None:
    if len(commitments) != len(bounds):
        raise ValueError(f"{len(commitments)} commitments but {len(bounds)} bounds")
    transcript.append_bytes(b"range-proof", b"bulletproofs+/BLS12381G1/v1")
    transcript.append_bytes(b"bounds", b"".join([(b.low << 64 | b.high).to_bytes(16, "big") for b in bounds]))
    transcript.append_bytes(b"V", b"".join(map(encoded_sum, commitments)))


def _geometric(factor: int, base: int, count: int) -> list[int]:
    """factor, factor base, .., factor base^(count-1), mod R."""
    found = []
    for _ in range(count):
        found.append(factor)
        factor = factor * base % R
    return found


def _powers(base: int, count: int) -> list[int]:
    """base^1 .. base^count."""
    return _geometric(base, base, count)


# ---------------------------------------------------------------------------------------------- prover


def prove(
    transcript: Transcript,
    commitments: Sequence[Sum],
    values: Sequence[int],
    blindings: Sequence[int],
    bounds: Sequence[Bound],
    rand: Rand,
    group: Backend | None = None,
) -> bytes:
    """Prover: show that each of `values` (secret ints) lies within its bound. Returns `proof_bytes` bytes, public.

    commitments: the formal sums that the verifier will use, for the transcript; that they open to `values`
    under `blindings` (secret scalars) is the caller's to know: otherwise the proof is not accepted.
    `transcript` holds the caller's statement and goes on after this proof's last byte. rand: secret source
    of bytes. Raises Refused ("zkp.out_of_bounds", the value's place counted from 0) when a value is outside:
    nothing is proved then.
    """
    if not len(values) == len(blindings) == len(bounds):
        raise ValueError(f"{len(values)} values, {len(blindings)} blindings, {len(bounds)} bounds")
    for place, (value, bound) in enumerate(zip(values, bounds, strict=True)):
        if not bound.low <= value <= bound.high:
            raise Refused("zkp.out_of_bounds", place=place, low=bound.low, high=bound.high)
    bits = list(chain.from_iterable(bound.bits_of(value) for value, bound in zip(values, bounds, strict=True)))
    return _prove(transcript, commitments, values, blindings, bounds, bits, rand, group or backend())


def _prove(
    transcript: Transcript,
    commitments: Sequence[Sum],
    values: Sequence[int],
    blindings: Sequence[int],
    bounds: Sequence[Bound],
    bits: Sequence[int],
    rand: Rand,
    group: Backend,
) -> bytes:
    size = _size(bounds)
    g, h = pedersen.generator_g(group), pedersen.generator_h(group)
    bases_g, bases_h = BITS_G.points(group, size), BITS_H.points(group, size)
    out: list[bytes] = []

    def send(label: bytes, point: Point) -> None:  # P -> V
        out.append(group.encode(point))
        transcript.append_point(label, out[-1])

    _start(transcript, bounds, commitments)
    secret = transcript.prover_randomness([*values, *blindings], rand)
    alpha = random_scalar(secret)
    bits = [*bits, *[0] * (size - len(bits))]
    # A = alpha H + <a_L, G> + <a_R, H>: G_i for a bit 1, -H_i for a bit 0
    both, minus = _paired(group.name, size)
    send(b"A", group.sum([minus, group.mul(h, alpha), *[both[i] for i, bit in enumerate(bits) if bit]]))
    y, z = transcript.challenge(b"y"), transcript.challenge(b"z")

    y_inverse = pow(y, -1, R)
    a = [bit - z for bit in bits]
    b = [bit - 1 + z for bit in bits]
    squares = _powers(z * z % R, len(bounds))
    powers, start = _geometric(y_inverse, y_inverse, size), 0
    for bound, of_value in zip(bounds, squares, strict=True):
        for place, weight in enumerate(bound.weights, start):
            b[place] += of_value * weight * powers[place]
        start += bound.bits
    alpha += sum(power * gamma for power, gamma in zip(squares, blindings, strict=True))

    # Folded generators: G'_t = sum_k of_g[k] G_(k len + t), H'_t likewise; computed as points once it pays.
    ys = _powers(y, size)
    of_g, of_h = [1], [1]
    while len(a) > _LEFT:
        length, half = len(a), len(a) // 2
        a1, a2, b1, b2 = a[:half], a[half:], b[:half], b[half:]
        low = [point for at in range(0, size, length) for point in bases_g[at : at + half]]
        high = [point for at in range(half, size, length) for point in bases_g[at : at + half]]
        low_h = [point for at in range(0, size, length) for point in bases_h[at : at + half]]
        high_h = [point for at in range(half, size, length) for point in bases_h[at : at + half]]
        y_half, y_minus = ys[half - 1], powers[half - 1]
        left, right = [s * y_minus % R for s in a1], [s * y_half % R for s in a2]
        d_left, d_right = random_scalar(secret), random_scalar(secret)
        # L = <y^-half a1, G2> + <b2, H1> + <a1, b2>_y G + d_L H
        # R = <y^half a2, G1> + <b1, H2> + <y^half a2, b1>_y G + d_R H
        c_left = sum(p * s * t for p, s, t in zip(ys, a1, b2, strict=False)) % R
        c_right = sum(p * s * t for p, s, t in zip(ys, right, b1, strict=False)) % R
        of_left = [s * c for c in of_g for s in left] + [s * c for c in of_h for s in b2] + [c_left, d_left]
        of_right = [s * c for c in of_g for s in right] + [s * c for c in of_h for s in b1] + [c_right, d_right]
        send(b"L", group.msm([*high, *low_h, g, h], of_left))
        send(b"R", group.msm([*low, *high_h, g, h], of_right))
        x = transcript.challenge(b"x")
        x_inverse = pow(x, -1, R)
        # G' = G1 + x y^-half G2;  H' = H1 + x^-1 H2;  a' = a1 + x^-1 y^half a2;  b' = b1 + x b2
        a = [(s + x_inverse * t) % R for s, t in zip(a1, right, strict=True)]
        b = [(s + x * t) % R for s, t in zip(b1, b2, strict=True)]
        of_g = [c * factor % R for c in of_g for factor in (1, x * y_minus)]
        of_h = [c * factor % R for c in of_h for factor in (1, x_inverse)]
        alpha = (x * d_left + alpha + x_inverse * d_right) % R
        if len(of_g) == _FOLDED and size >= _LONG:
            size = len(a)
            bases_g = tuple(group.msm(bases_g[t::size], of_g) for t in range(size))
            bases_h = tuple(group.msm(bases_h[t::size], of_h) for t in range(size))
            of_g, of_h = [1], [1]

    r, s = ([random_scalar(secret) for _ in range(_LEFT)] for _ in range(2))
    delta, eta = random_scalar(secret), random_scalar(secret)
    # A' = <r, G> + <s, H> + (<r, b>_y + <a, s>_y) G + delta H;  B = <r, s>_y G + eta H
    cross = sum(p * (r[i] * b[i] + a[i] * s[i]) for i, p in enumerate(ys[:_LEFT]))
    masks = [t * c for c in of_g for t in r] + [t * c for c in of_h for t in s]
    send(b"A'", group.msm([*bases_g, *bases_h, g, h], [*masks, cross, delta]))
    send(b"B", group.msm([g, h], [sum(p * r[i] * s[i] for i, p in enumerate(ys[:_LEFT])), eta]))
    e = transcript.challenge(b"e")
    responses = [t + u * e for t, u in zip(r, a, strict=True)] + [t + u * e for t, u in zip(s, b, strict=True)]
    encoded = b"".join(map(encode_scalar, [*responses, eta + delta * e + alpha * e * e]))
    transcript.append_bytes(b"responses", encoded)  # P -> V
    transcript.challenge(b"weight")
    return b"".join(out) + encoded


@cache
def _paired(name: str, size: int) -> tuple[tuple[Point, ...], Point]:
    """G_i + H_i for each i, and -sum_i H_i."""
    group = backend(name)
    bases_g, bases_h = BITS_G.points(group, size), BITS_H.points(group, size)
    both = tuple(group.add(p, q) for p, q in zip(bases_g, bases_h, strict=True))
    return both, group.neg(group.sum(bases_h))


# -------------------------------------------------------------------------------------------- verifier


def verify(
    transcript: Transcript, commitments: Sequence[Sum], bounds: Sequence[Bound], proof: bytes, check: Check
) -> None:
    """Verifier: take `proof` apart and add its equation to `check`, which `zkp.batch.settle` computes.

    Nothing is proved until the check is settled. `transcript` holds the same as the prover's did; the
    commitments are formal sums of points that the caller decoded. Costs 3 N multiplications of scalars, N
    the padded bits; the generators' coefficients merge in a batch. Raises VerificationError for whatever
    malformed `proof`.
    """
    group, size, expected = check.group, _size(bounds), proof_bytes(bounds)
    if len(proof) != expected:
        raise VerificationError("zkp.proof_length", length=len(proof), expected=expected)
    _start(transcript, bounds, commitments)
    scalars_at = expected - SCALAR_BYTES * (2 * _LEFT + 1)
    encoded = [proof[at : at + POINT_BYTES] for at in range(0, scalars_at, POINT_BYTES)]
    rest = proof[scalars_at:]
    try:
        # canonical, in the subgroup, not the identity
        big_a, *cross, last_a, last_b = [group.decode(point) for point in encoded]
        *responses, delta = [decode_scalar(rest[i : i + SCALAR_BYTES]) for i in range(0, len(rest), SCALAR_BYTES)]
    except DecodeError:
        raise VerificationError("zkp.malformed_proof") from None
    transcript.append_point(b"A", encoded[0])
    y, z = transcript.challenge(b"y"), transcript.challenge(b"z")
    rounds = []
    for at in range(0, len(cross), 2):
        transcript.append_point(b"L", encoded[at + 1])
        transcript.append_point(b"R", encoded[at + 2])
        rounds.append((cross[at], cross[at + 1], transcript.challenge(b"x")))
    transcript.append_point(b"A'", encoded[-2])
    transcript.append_point(b"B", encoded[-1])
    e = transcript.challenge(b"e")
    transcript.append_bytes(b"responses", rest)
    weight = transcript.challenge(b"weight")
    check.bind(transcript.digest())

    # weight * (e^2 (A^ + sum_k x_k L_k + x_k^-1 R_k) + e A' + B
    #           - e <r', G'> - e <s', H'> - <r', s'>_y G - delta' H) = 0
    # A^ = A - z <1, G> + sum_i (z + d_i y^-(i+1)) H_i + sum_j z^(2j) (V_j - low_j G) + delta G
    r, s = responses[:_LEFT], responses[_LEFT:]
    square = z * z % R
    y_inverse, *inverses = _inverses([y, *(x for _, _, x in rounds)])
    first, second = weight * e % R, weight * e % R * e % R  # weight e, weight e^2
    check.term(big_a, second)
    check.term(last_a, first)
    check.term(last_b, weight)
    factors_g, factors_h = [], []
    y_half = y_inverse * y_inverse % R  # y^-half of the round; the last one's is y^-4
    for (left, right, x), x_inverse in zip(reversed(rounds), reversed(inverses), strict=True):
        y_half = y_half * y_half % R
        check.term(left, second * x)
        check.term(right, second * x_inverse)
        factors_g.append(x * y_half % R)
        factors_h.append(x_inverse)
    # - e <r', G'> - e <s', H'>: the rounds' (1, x y^-half) and (1, x^-1), multiplied out from both ends
    middle = len(rounds) // 2
    for family, last, factors in ((BITS_G, r, factors_g), (BITS_H, s, factors_h)):
        low = _multiplied([-first * t % R for t in last], factors[:middle])
        check.fixed_many(family, low, factors=_multiplied([1], factors[middle:]))
    check.fixed_even(BITS_G, -second * z, size)
    check.fixed_even(BITS_H, second * z, size)

    # + e^2 d_i y^-(i+1) H_i: within a value 2 / y times the one before, but for the last weight
    powers = _geometric(1, y_inverse, 1 + max(bound.bits for bound in bounds))
    ratios = [power << place for place, power in enumerate(powers)]
    start, y_start, of_value, of_g = 0, y_inverse, 1, 0
    for commitment, bound in zip(commitments, bounds, strict=True):
        of_value = of_value * square % R  # z^(2j)
        scaled, bits = second * of_value % R, bound.bits
        if bits:
            of_first = scaled * y_start % R
            check.fixed_many(BITS_H, ratios[: bits - 1], start, [of_first])
            check.fixed(BITS_H, start + bits - 1, of_first * (bound.weights[-1] * powers[bits - 1] % R))
            start, y_start = start + bits, y_start * powers[bits] % R
        of_g -= of_value * (bound.low + z * (bound.high - bound.low))
        check.formal(commitment, scaled)
    sum_y, y_power = y, y  # y + y^2 + .. + y^N = y (1 + y) (1 + y^2) (1 + y^4) ..
    for _ in range(size.bit_length() - 1):
        sum_y, y_power = sum_y * (1 + y_power) % R, y_power * y_power % R
    of_g += (z - square) * sum_y
    product = sum(p * t * u for p, t, u in zip(_powers(y, _LEFT), r, s, strict=True))
    check.fixed(*pedersen.G, second * (of_g % R) - weight * (product % R))
    check.fixed(*pedersen.H, -weight * delta)


def _multiplied(last: Sequence[int], factors: Sequence[int]) -> list[int]:
    """last_t * the product of the factors for whose place i has a bit 1, for each (i, t)."""
    found = list(last)
    for factor in factors:
        found += [c * factor % R for c in found]
    return found


def _inverses(values: Sequence[int]) -> list[int]:
    """1 / v for each, by one inversion (Montgomery's trick). None may be 0: challenges are not."""
    products = [1]
    for value in values:
        products.append(products[-1] * value % R)
    rest = pow(products[-1], -1, R)
    found = []
    for value, before in zip(reversed(values), reversed(products[:-1]), strict=True):
        found.append(rest * before % R)
        rest = rest * value % R
    return found[::-1]
