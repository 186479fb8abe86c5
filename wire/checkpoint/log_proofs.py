"""Merkle tree hashing, inclusion and consistency as RFC 9162 has them (the trees of RFC 6962).

The verifier's half is what outsiders run; the two proof builders here work on a whole list of leaf
hashes (`ledger.trees.log` keeps a growing log instead). All hashes are 32 bytes of SHA-256 and
public. Leaves and inner nodes are hashed under different prefixes, so that neither passes for the
other.

Spec: RFC 9162, sections 2.1.1 (hashes), 2.1.3 (inclusion), 2.1.4 (consistency).
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from hashlib import sha256

from wire.errors import VerificationError

BYTES = 32

EMPTY_ROOT = sha256(b"").digest()
"""Root of the tree without leaves."""

LARGEST = 2**63 - 1
"""Largest size of a tree."""


def leaf_hash(data: bytes) -> bytes:
    """Hash of a leaf: SHA-256(0x00 || data)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node: SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


def tree_root(leaf_hashes: Sequence[bytes]) -> bytes:
    """Root of the tree over `leaf_hashes`, in order; `EMPTY_ROOT` for none."""
    if not leaf_hashes:
        return EMPTY_ROOT
    level = list(leaf_hashes)
    # Pairing neighbours and carrying an odd last one up gives RFC 9162's tree: its left part is
    # always the largest full tree that fits.
    while len(level) > 1:
        paired = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            paired.append(level[-1])
        level = paired
    return level[0]


def _split(size: int) -> int:
    """The largest power of two below `size` (>= 2)."""
    return 1 << ((size - 1).bit_length() - 1)


def inclusion_proof(leaf_hashes: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Sibling hashes from leaf `index` (0-based) up to the root: at most ceil(log2(size)) of them."""
    if not 0 <= index < len(leaf_hashes):
        raise ValueError(f"leaf {index} is not in a tree of {len(leaf_hashes)}")
    proof: list[bytes] = []
    low, high = 0, len(leaf_hashes)
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            proof.append(tree_root(leaf_hashes[middle:high]))
            high = middle
        else:
            proof.append(tree_root(leaf_hashes[low:middle]))
            low = middle
    return tuple(reversed(proof))


def consistency_proof(leaf_hashes: Sequence[bytes], first: int) -> tuple[bytes, ...]:
    """Proof that the tree of the `first` (>= 1) first leaves is a prefix of the tree of all of them."""
    if not 1 <= first <= len(leaf_hashes):
        raise ValueError(f"size {first} is not between 1 and {len(leaf_hashes)}")
    proof: list[bytes] = []
    low, high, whole = 0, len(leaf_hashes), True
    while first != high:
        middle = low + _split(high - low)
        if first <= middle:
            proof.append(tree_root(leaf_hashes[middle:high]))
            high = middle
        else:
            proof.append(tree_root(leaf_hashes[low:middle]))
            low, whole = middle, False
    if not whole:
        proof.append(tree_root(leaf_hashes[low:high]))
    return tuple(reversed(proof))


def _are_hashes(*values: bytes) -> bool:
    return all(len(value) == BYTES for value in values)


def verify_inclusion(root: bytes, size: int, index: int, leaf_hash: bytes, proof: Sequence[bytes]) -> None:
    """Check that `leaf_hash` is leaf `index` of the tree of `size` leaves with `root`.

    Returns None or raises VerificationError. Spec: RFC 9162, section 2.1.3.2.
    """
    if not _are_hashes(root, leaf_hash, *proof) or not _included(root, size, index, leaf_hash, proof):
        raise VerificationError("checkpoint.bad_inclusion")


def _included(root: bytes, size: int, index: int, leaf_hash: bytes, proof: Sequence[bytes]) -> bool:
    if not 0 <= index < size <= LARGEST:
        return False
    fn, sn, r = index, size - 1, leaf_hash
    for p in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            if not fn & 1:
                while fn and not fn & 1:
                    fn >>= 1
                    sn >>= 1
        else:
            r = node_hash(r, p)
        fn >>= 1
        sn >>= 1
    return sn == 0 and hmac.compare_digest(r, root)


def verify_consistency(size1: int, root1: bytes, size2: int, root2: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree (`size1`, `root1`) is a prefix of the tree (`size2`, `root2`); 1 <= size1 <= size2.

    Returns None or raises VerificationError. Spec: RFC 9162, section 2.1.4.2.
    """
    if not _are_hashes(root1, root2, *proof) or not _consistent(size1, root1, size2, root2, proof):
        raise VerificationError("checkpoint.bad_consistency")


def _consistent(size1: int, root1: bytes, size2: int, root2: bytes, proof: Sequence[bytes]) -> bool:
    if not 1 <= size1 <= size2 <= LARGEST:
        return False
    if size1 == size2:
        return not proof and hmac.compare_digest(root1, root2)
    path = list(proof)
    if size1 & (size1 - 1) == 0:  # an exact power of two: its root is not in the proof
        path.insert(0, root1)
    if not path:
        return False
    fn, sn = size1 - 1, size2 - 1
    while fn & 1:
        fn >>= 1
        sn >>= 1
    fr = sr = path[0]
    for c in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr = node_hash(c, fr)
            sr = node_hash(c, sr)
            while fn and not fn & 1:
                fn >>= 1
                sn >>= 1
        else:
            sr = node_hash(sr, c)
        fn >>= 1
        sn >>= 1
    return sn == 0 and hmac.compare_digest(fr, root1) and hmac.compare_digest(sr, root2)
