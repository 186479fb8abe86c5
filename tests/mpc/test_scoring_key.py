"""The public checks of somebody else's Paillier modulus: every malformed key is refused for its fault."""

from __future__ import annotations

import math

import pytest

from mpc import paillier_key
from mpc.paillier_key import ROOTS, TRIAL_BOUND, check_key, prove_key
from mpc.scoring import generate_key
from wire.errors import VerificationError


@pytest.fixture(scope="module")
def primes() -> tuple[int, int]:
    secret = generate_key()
    return int.from_bytes(secret.p, "big"), int.from_bytes(secret.q, "big")


@pytest.fixture(scope="module")
def proof(primes: tuple[int, int]) -> tuple[bytes, ...]:
    return prove_key(*primes)


def key_of(n: int) -> bytes:
    return n.to_bytes((n.bit_length() + 7) // 8, "big")


def prime_of(bits: int, remainder: int = 1, modulus: int = 2) -> int:
    """The first probable prime above 2^(bits-1) + 2^(bits-2) that leaves `remainder` (Fermat bases 2 and 3)."""
    candidate = 3 << (bits - 2)
    candidate += (remainder - candidate) % modulus
    while math.gcd(candidate, paillier_key._small_primes_product()) != 1 or not (
        pow(2, candidate - 1, candidate) == 1 == pow(3, candidate - 1, candidate)
    ):
        candidate += modulus
    return candidate


def refused(key: bytes, proof: tuple[bytes, ...], code: str) -> VerificationError:
    with pytest.raises(VerificationError) as caught:
        check_key(key, proof)
    assert caught.value.code == code
    return caught.value


def test_an_honest_key_is_accepted(primes: tuple[int, int], proof: tuple[bytes, ...]) -> None:
    assert check_key(key_of(primes[0] * primes[1]), proof) == primes[0] * primes[1]


def test_a_short_key_is_refused(proof: tuple[bytes, ...]) -> None:
    refused(key_of(prime_of(512) * prime_of(511)), proof, "scoring.key_length")
    refused(b"", proof, "scoring.key_length")


def test_a_key_with_a_leading_zero_is_refused(primes: tuple[int, int], proof: tuple[bytes, ...]) -> None:
    refused(b"\0" + key_of(primes[0] * primes[1]), proof, "scoring.key_length")


def test_an_even_key_is_refused(primes: tuple[int, int], proof: tuple[bytes, ...]) -> None:
    refused(key_of(primes[0] * primes[1] + 1), proof, "scoring.key_small_factor")


@pytest.mark.parametrize("small", [3, 65521])
def test_a_small_factor_is_refused(small: int, proof: tuple[bytes, ...]) -> None:
    n = small * ((3 << 2046) // small | 1)
    refused(key_of(n), proof, "scoring.key_small_factor")


def test_the_trial_primes_are_the_odd_primes_below_the_bound() -> None:
    product = paillier_key._small_primes_product()
    assert math.prod(p for p in range(3, 500, 2) if all(p % d for d in range(3, p, 2))) == math.gcd(
        product, math.prod(range(3, 500, 2))
    )
    assert TRIAL_BOUND == 65536 and product % 65521 == 0 and product % 2 == 1


def test_a_prime_key_is_refused(proof: tuple[bytes, ...]) -> None:
    # 2^2048 - 1942289 is the largest prime of 2048 bits
    refused(key_of(2**2048 - 1942289), proof, "scoring.key_prime")


def roots_where_they_exist(n: int, order: int) -> tuple[bytes, ...]:
    """The best that a dishonest owner can do: the root of every point that has one, 1 for the others."""
    common = math.gcd(n, order)
    roots = []
    for point in paillier_key._points(n):
        root = pow(point, pow(n // common, -1, order // common), n) if math.gcd(n // common, order) == 1 else 1
        roots.append((root or 1).to_bytes(256, "big"))
    return tuple(roots)


def test_a_key_with_a_common_divisor_of_n_and_phi_is_refused() -> None:
    # q = 1 mod p: p divides both n and phi(n), so encryption is not one-to-one
    p = prime_of(900)
    q = prime_of(1148, 1, p)
    assert math.gcd(p * q, (p - 1) * (q - 1)) == p and (p * q).bit_length() == 2048
    with pytest.raises(ValueError, match="Paillier"):
        prove_key(p, q)
    refused(key_of(p * q), roots_where_they_exist(p * q, (p - 1) * (q - 1)), "scoring.key_proof")


def test_a_square_is_refused() -> None:
    p = prime_of(1024)
    with pytest.raises(ValueError, match="Paillier"):
        prove_key(p, p)
    refused(key_of(p * p), roots_where_they_exist(p * p, p * (p - 1)), "scoring.key_proof")


def test_the_proof_is_of_its_own_key_and_complete(primes: tuple[int, int], proof: tuple[bytes, ...]) -> None:
    n = primes[0] * primes[1]
    other = prove_key(prime_of(1024), primes[0])
    refused(key_of(n), other, "scoring.key_proof")
    refused(key_of(n), proof[:-1], "scoring.key_proof")
    refused(key_of(n), (*proof, proof[0]), "scoring.key_proof")
    refused(key_of(n), (*proof[:-1], b"\0" * 256), "scoring.key_proof")
    refused(key_of(n), (*proof[:-1], b"\0" + proof[-1]), "scoring.key_proof")
    refused(key_of(n), (*proof[1:], proof[0]), "scoring.key_proof")


@pytest.mark.parametrize("root", range(ROOTS))
def test_a_changed_byte_in_any_root_is_refused(primes: tuple[int, int], proof: tuple[bytes, ...], root: int) -> None:
    changed = bytearray(proof[root])
    changed[31 * root] ^= 1
    error = refused(
        key_of(primes[0] * primes[1]), (*proof[:root], bytes(changed), *proof[root + 1 :]), "scoring.key_proof"
    )
    assert error.facts["root"] == root
