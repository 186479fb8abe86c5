"""Merkle trees of RFC 9162: published roots, a second implementation, and every single fault refused."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.checkpoint import log_proofs as lp
from wire.errors import VerificationError

# The reference inputs and roots of the Certificate Transparency project's Merkle tree tests.
INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def recursive_root(leaves: list[bytes]) -> bytes:
    """RFC 9162, section 2.1.1, word for word: the second implementation."""
    n = len(leaves)
    if n == 0:
        return sha256(b"").digest()
    if n == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < n:
        k *= 2
    return sha256(b"\x01" + recursive_root(leaves[:k]) + recursive_root(leaves[k:])).digest()


def hashes(n: int) -> list[bytes]:
    return [lp.leaf_hash(i.to_bytes(4, "big")) for i in range(n)]


@pytest.mark.parametrize("size", range(1, 9))
def test_published_roots(size: int) -> None:
    leaves = [lp.leaf_hash(bytes.fromhex(text)) for text in INPUTS[:size]]
    assert lp.tree_root(leaves).hex() == ROOTS[size - 1]


def test_empty_root() -> None:
    assert lp.tree_root([]) == sha256(b"").digest() == lp.EMPTY_ROOT


@given(st.lists(st.binary(max_size=8), max_size=40))
def test_root_equals_the_definition(leaves: list[bytes]) -> None:
    assert lp.tree_root([lp.leaf_hash(leaf) for leaf in leaves]) == recursive_root(leaves)


def test_every_inclusion_proof_up_to_33() -> None:
    for size in range(1, 34):
        leaves = hashes(size)
        root = lp.tree_root(leaves)
        for index in range(size):
            proof = lp.inclusion_proof(leaves, index)
            lp.verify_inclusion(root, size, index, leaves[index], proof)
            with pytest.raises(VerificationError):
                lp.verify_inclusion(root, size, (index + 1) % size if size > 1 else 1, leaves[index], proof)
            with pytest.raises(VerificationError):
                lp.verify_inclusion(root, size, index, leaves[index], (*proof, bytes(32)))
            if proof:
                with pytest.raises(VerificationError):
                    lp.verify_inclusion(root, size, index, leaves[index], proof[:-1])


def test_every_consistency_proof_up_to_33() -> None:
    leaves = hashes(33)
    roots = {size: lp.tree_root(leaves[:size]) for size in range(1, 34)}
    for second in range(1, 34):
        for first in range(1, second + 1):
            proof = lp.consistency_proof(leaves[:second], first)
            lp.verify_consistency(first, roots[first], second, roots[second], proof)
            with pytest.raises(VerificationError):
                lp.verify_consistency(first, roots[first], second, roots[second], (*proof, bytes(32)))
            with pytest.raises(VerificationError):
                lp.verify_consistency(first, bytes(32), second, roots[second], proof)
            with pytest.raises(VerificationError):
                lp.verify_consistency(first, roots[first], second, bytes(32), proof)
            if proof:
                with pytest.raises(VerificationError):
                    lp.verify_consistency(first, roots[first], second, roots[second], proof[1:])


@settings(max_examples=60)
@given(st.integers(1, 300), st.data())
def test_a_changed_bit_is_refused(size: int, data: st.DataObject) -> None:
    leaves = hashes(size)
    index = data.draw(st.integers(0, size - 1))
    root, proof = lp.tree_root(leaves), lp.inclusion_proof(leaves, index)
    parts = [root, leaves[index], *proof]
    which, bit = data.draw(st.integers(0, len(parts) - 1)), data.draw(st.integers(0, 255))
    changed = bytearray(parts[which])
    changed[bit // 8] ^= 1 << bit % 8
    parts[which] = bytes(changed)
    with pytest.raises(VerificationError):
        lp.verify_inclusion(parts[0], size, index, parts[1], parts[2:])


def test_a_rewritten_history_is_not_consistent() -> None:
    old, new = hashes(6), hashes(9)
    new[2] = lp.leaf_hash(b"rewritten")
    with pytest.raises(VerificationError):
        lp.verify_consistency(6, lp.tree_root(old), 9, lp.tree_root(new), lp.consistency_proof(new, 6))


@pytest.mark.parametrize("size,index", [(0, 0), (1, 1), (4, -1), (2**63, 0)])
def test_inclusion_outside_the_tree(size: int, index: int) -> None:
    leaf = lp.leaf_hash(b"x")
    with pytest.raises(VerificationError):
        lp.verify_inclusion(leaf, size, index, leaf, ())


@pytest.mark.parametrize("first,second", [(0, 4), (5, 4)])
def test_consistency_of_impossible_sizes(first: int, second: int) -> None:
    with pytest.raises(VerificationError):
        lp.verify_consistency(first, lp.EMPTY_ROOT, second, lp.tree_root(hashes(second)), ())


def test_hashes_of_other_lengths_are_refused() -> None:
    with pytest.raises(VerificationError):
        lp.verify_inclusion(bytes(32), 2, 0, bytes(32), (bytes(31),))
    with pytest.raises(VerificationError):
        lp.verify_consistency(1, bytes(32), 2, bytes(32), (bytes(33),))


def test_a_node_is_no_leaf() -> None:
    left, right = hashes(2)
    assert lp.leaf_hash(left + right) != lp.node_hash(left, right)


def test_builders_refuse_impossible_requests() -> None:
    with pytest.raises(ValueError):
        lp.inclusion_proof(hashes(3), 3)
    with pytest.raises(ValueError):
        lp.consistency_proof(hashes(3), 0)
