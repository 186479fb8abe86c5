"""Shamir's secret sharing of 32-byte secrets: any `threshold` shares give the secret, fewer say nothing about it.

    f(x) = secret + c_1 x + ... + c_(t-1) x^(t-1)   mod p = 2^521 - 1        share of holder x: f(x), x = 1, 2, ...

p is the Mersenne prime of P-521: 256-bit secrets fit whole, and shares of unequal secrets cannot be told apart. Source:
A. Shamir, How to share a secret, CACM 22 (1979). Nothing here says whether a share is right: whoever needs to know
compares it with a digest that the dealer signed (`mpc.secure_aggregation`). Python integers are not constant-time.

Secret: secret, coefficients, shares. Public: holders' numbers, threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

PRIME = 2**521 - 1
SECRET_BYTES = 32
SHARE_BYTES = 66

Rand = Callable[[int], bytes]


def coefficients(threshold: int, rand: Rand) -> tuple[int, ...]:
    """The random part of a polynomial of degree threshold - 1 (secret): 66 fresh bytes of `rand` for each."""
    return tuple(int.from_bytes(rand(SHARE_BYTES), "big") % PRIME for _ in range(threshold - 1))


def split(secret: bytes, above: Iterable[int], holders: Iterable[int]) -> dict[int, bytes]:
    """The share (66 bytes, secret) of each holder. above: `coefficients`; holders: distinct numbers from 1 on."""
    if len(secret) != SECRET_BYTES:
        raise ValueError("a shared secret has 32 bytes")
    polynomial = (int.from_bytes(secret, "big"), *above)
    shares = {}
    for x in holders:
        if not 0 < x < 2**31:
            raise ValueError("holders are numbered from 1")
        value = 0
        for coefficient in reversed(polynomial):
            value = (value * x + coefficient) % PRIME
        shares[x] = value.to_bytes(SHARE_BYTES, "big")
    return shares


def weights(holders: Iterable[int]) -> dict[int, int]:
    """What each of these holders' shares counts for in the secret: Lagrange's coefficients at 0. Public."""
    numbers = sorted(holders)
    found = {}
    for x in numbers:
        above, below = 1, 1
        for other in numbers:
            if other != x:
                above = above * other % PRIME
                below = below * (other - x) % PRIME
        found[x] = above * pow(below, -1, PRIME) % PRIME
    return found


def join(shares: Mapping[int, bytes], by: Mapping[int, int]) -> bytes:
    """The secret (32 bytes) of as many shares as its threshold. by: `weights` of just these holders.

    Raises ValueError where these are no shares of one 32-byte secret, as far as that shows.
    """
    if shares.keys() != by.keys():
        raise ValueError("weights are of the holders whose shares are joined")
    value = sum(int.from_bytes(share, "big") * by[x] for x, share in shares.items()) % PRIME
    if value >> (8 * SECRET_BYTES):
        raise ValueError("these are no shares of a 32-byte secret")
    return value.to_bytes(SECRET_BYTES, "big")
