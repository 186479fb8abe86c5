"""What everybody can check about a Paillier modulus that somebody else generated.

The owner of a key proves that `n` is fit for Paillier: `n` odd, composite, of a known length, and
gcd(n, phi(n)) = 1, so that ``(1+n)^w r^n mod n^2`` encrypts exactly one `w`. The proof is eight
n-th roots of points that a hash of `n` chooses:

    x -> x^n is a permutation of Z_n* exactly when gcd(n, phi(n)) = 1. Otherwise some prime d divides
    both; n has no prime factor up to 65536, so d > 65536 and at most a share 1/d of Z_n* has a root.
    Eight points with roots: probability < 2^-128 (in the random oracle model).

Spec: Goldberg, Reyzin, Sagga, Baldimtsi, *Efficient Noninteractive Certification of RSA Moduli and
Beyond*, ASIACRYPT 2019 (ePrint 2018/057), the permutation proof with e = n; zero-knowledge, since
a simulator picks the roots first. Departures: (1) the trial bound is 2^16 and not a parameter;
(2) points are drawn with SHAKE-256 under our own domain; (3) "composite" is added by one Fermat
test: an `n` with ``2^(n-1) != 1 mod n`` is certainly not prime.

Not shown: that `n` has exactly two prime factors, or that they are large and random. A weak modulus
exposes the owner's own weights and what is sent to the owner, both of which it could publish anyway;
`mpc.scoring` says why it exposes nothing else. Adversary: an owner that picks `n` as it likes.
Review status: none from outside.
"""

from __future__ import annotations

from functools import cache
from hashlib import shake_256
from math import gcd, prod

from wire.domains import PAILLIER_KEY, framed
from wire.errors import VerificationError

LENGTHS = (2048, 3072, 4096)
"""Lengths of `n`, in bits, that are accepted."""

ROOTS = 8
TRIAL_BOUND = 1 << 16


@cache
def _small_primes_product() -> int:
    """The product of the odd primes below TRIAL_BOUND."""
    sieve = bytearray([1]) * TRIAL_BOUND
    for candidate in range(3, int(TRIAL_BOUND**0.5) + 1, 2):
        if sieve[candidate]:
            sieve[candidate * candidate :: 2 * candidate] = bytes(
                len(range(candidate * candidate, TRIAL_BOUND, 2 * candidate))
            )
    return prod(number for number in range(3, TRIAL_BOUND, 2) if sieve[number])


def _points(n: int) -> list[int]:
    """ROOTS points of Z_n, within 2^-128 of uniform, that depend on nothing but `n`."""
    length = (n.bit_length() + 7) // 8
    name = n.to_bytes(length, "big")
    width = length + 16
    stream = shake_256(framed(PAILLIER_KEY, name)).digest(ROOTS * width)
    return [int.from_bytes(stream[at : at + width], "big") % n for at in range(0, len(stream), width)]


def prove_key(p: int, q: int) -> tuple[bytes, ...]:
    """The owner's proof for n = p q (p, q: secret primes). ROOTS numbers as long as `n`, public.

    Raises ValueError where no proof exists, which is when gcd(n, phi(n)) is not 1.
    """
    n, order = p * q, (p - 1) * (q - 1)
    if p == q or gcd(n, order) != 1:
        raise ValueError("these primes do not make a Paillier modulus")
    to_root = pow(n, -1, order)
    length = (n.bit_length() + 7) // 8
    # P -> V: sigma_i = rho_i^(1/n) mod n
    return tuple(pow(point, to_root, n).to_bytes(length, "big") for point in _points(n))


def check_key(key: bytes, proof: tuple[bytes, ...]) -> int:
    """The modulus n that `key` (big-endian, full length) and its `proof` (from `prove_key`) show. Anyone runs it.

    Takes about 0.2 s for 2048 bits. Raises VerificationError naming the first check that fails.
    """
    n = int.from_bytes(key, "big")
    if n.bit_length() not in LENGTHS or len(key) * 8 != n.bit_length():
        raise VerificationError("scoring.key_length", bits=n.bit_length())
    if n % 2 == 0 or gcd(n, _small_primes_product() % n) != 1:
        raise VerificationError("scoring.key_small_factor", bound=TRIAL_BOUND)
    if pow(2, n - 1, n) == 1:
        raise VerificationError("scoring.key_prime")
    if len(proof) != ROOTS:
        raise VerificationError("scoring.key_proof", root=len(proof))
    for index, (point, encoded) in enumerate(zip(_points(n), proof, strict=True)):
        root = int.from_bytes(encoded, "big")
        # sigma_i^n = rho_i mod n, both units
        if len(encoded) != len(key) or not 0 < root < n or gcd(root, n) != 1 or pow(root, n, n) != point:
            raise VerificationError("scoring.key_proof", root=index)
    return n
