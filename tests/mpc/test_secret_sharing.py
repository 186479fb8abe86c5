"""mpc.secret_sharing: any threshold of shares gives the secret, fewer fit every secret."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc.secret_sharing import PRIME, SHARE_BYTES, coefficients, join, split, weights

SECRET = bytes(range(32))


@given(st.binary(min_size=32, max_size=32), st.integers(1, 9), st.integers(0, 6), st.randoms(use_true_random=False))
def test_any_threshold_of_shares_gives_the_secret(secret, threshold, more, random):
    shares = split(secret, coefficients(threshold, random.randbytes), range(1, threshold + more + 1))
    some = random.sample(sorted(shares), threshold)
    assert join({x: shares[x] for x in some}, weights(some)) == secret
    assert join(shares, weights(shares)) == secret


def test_every_subset_of_the_threshold_agrees(replay):
    shares = split(SECRET, coefficients(3, replay("shares")), (1, 2, 3, 4, 7, 100))
    for some in combinations(shares, 3):
        assert join({x: shares[x] for x in some}, weights(some)) == SECRET


def test_fewer_shares_fit_every_secret(replay):
    """Two shares of three: for any other secret there is a polynomial that gives the same two."""
    shares = split(SECRET, coefficients(3, replay("shares")), (1, 2))
    one, two = (int.from_bytes(shares[x], "big") for x in (1, 2))
    for other in (0, 1, 2**256 - 1):
        # c1 + c2 = f(1) - s, 2 c1 + 4 c2 = f(2) - s
        c2 = ((two - other) - 2 * (one - other)) * pow(2, -1, PRIME) % PRIME
        c1 = (one - other - c2) % PRIME
        assert split(other.to_bytes(32, "big"), (c1, c2), (1, 2)) == shares


def test_a_share_alone_is_not_the_secret(replay):
    assert all(SECRET not in share for share in split(SECRET, coefficients(2, replay("x")), range(1, 50)).values())


def test_a_changed_share_gives_another_secret_or_none(replay):
    shares = split(SECRET, coefficients(3, replay("shares")), (1, 2, 3))
    for x, share in shares.items():
        for bit in (0, 100, 8 * SHARE_BYTES - 1):
            value = (int.from_bytes(share, "big") ^ (1 << bit)) % PRIME
            changed = {**shares, x: value.to_bytes(SHARE_BYTES, "big")}
            try:
                assert join(changed, weights(changed)) != SECRET
            except ValueError:
                pass


def test_shares_of_one_run_replay(replay):
    again = [split(SECRET, coefficients(4, replay("same")), (1, 2, 3, 4)) for _ in range(2)]
    assert again[0] == again[1]


@pytest.mark.parametrize("secret", [b"", bytes(31), bytes(33)])
def test_a_secret_has_32_bytes(secret):
    with pytest.raises(ValueError, match="32 bytes"):
        split(secret, (), (1,))


@pytest.mark.parametrize("holder", [0, -1, 2**31])
def test_holders_are_numbered_from_1(holder):
    """Number 0 would be handed the secret itself."""
    with pytest.raises(ValueError, match="from 1"):
        split(SECRET, (5,), (holder,))


def test_weights_belong_to_their_holders():
    shares = split(SECRET, (5,), (1, 2, 3))
    with pytest.raises(ValueError, match="weights"):
        join(shares, weights((1, 2)))
