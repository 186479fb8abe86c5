"""The state tree: a bucketed Merkle tree over the current value of every key.

A key's path is SHA-256 of the key. A subtree (all keys whose paths share a prefix) is one *bucket*
while it has at most 8 keys, and otherwise an *inner* node with the two subtrees one bit deeper. So the
shape is a pure function of the keys present: not of the order of writes, and not of deleted keys.
Whoever grinds keys into one bucket only makes a deeper subtree. Leaves, buckets and inner nodes are
hashed under three domains; none passes for another.

    leaf   = H(STATE_LEAF, key, value)
    bucket = H(STATE_BUCKET, path_1, leaf_1, path_2, leaf_2, ...)      in the order of paths
    inner  = H(STATE_INNER, left, right)

A tree is immutable: `put` and `delete` return a new one and share what did not change, so a snapshot
costs nothing and a refused envelope leaves no trace. A proof holds the bucket's paths and leaf hashes
(at most 8 x 64 bytes) and one hash a level; it shows a value, or that the key is absent.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise

from wire.canonical import Wire
from wire.domains import STATE_BUCKET, STATE_INNER, STATE_LEAF, digest
from wire.errors import VerificationError
from wire.identifiers import Hash

BUCKET = 8
"""Most keys of a bucket."""
DEPTH = 256
"""Bits of a path."""


class Slot(Wire, frozen=True, tag="ledger.slot"):
    """One key of a bucket: its path and its leaf hash."""

    path: Hash
    leaf: Hash


class StateProof(Wire, frozen=True, tag="ledger.state_proof"):
    """slots: the bucket where the key is, or would be; siblings: from the bucket up to the root."""

    slots: tuple[Slot, ...]
    siblings: tuple[Hash, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    path: bytes
    leaf: bytes
    key: bytes
    value: bytes


@dataclass(slots=True)
class _Bucket:
    entries: tuple[_Entry, ...]  # in the order of paths
    cached: bytes | None = field(default=None, repr=False)

    @property
    def count(self) -> int:
        return len(self.entries)

    def hash(self) -> bytes:
        if self.cached is None:
            self.cached = _bucket_hash(tuple((entry.path, entry.leaf) for entry in self.entries))
        return self.cached


@dataclass(slots=True)
class _Inner:
    left: _Node
    right: _Node
    count: int
    cached: bytes | None = field(default=None, repr=False)

    def hash(self) -> bytes:
        if self.cached is None:
            self.cached = digest(STATE_INNER, self.left.hash(), self.right.hash())
        return self.cached


_Node = _Bucket | _Inner


def path_of(key: bytes) -> bytes:
    """Where `key` is in the tree: 32 bytes."""
    return sha256(key).digest()


def _leaf_hash(key: bytes, value: bytes) -> bytes:
    return digest(STATE_LEAF, key, value)


def _bucket_hash(slots: tuple[tuple[bytes, bytes], ...]) -> bytes:
    return digest(STATE_BUCKET, *(part for slot in slots for part in slot))


def _bit(path: bytes, depth: int) -> int:
    return path[depth >> 3] >> (7 - (depth & 7)) & 1


def _build(entries: tuple[_Entry, ...], depth: int) -> _Node:
    """The subtree over `entries` (in the order of paths), all of which share `depth` bits."""
    if len(entries) <= BUCKET:
        return _Bucket(entries)
    left = tuple(entry for entry in entries if not _bit(entry.path, depth))
    right = entries[len(left) :]
    return _Inner(_build(left, depth + 1), _build(right, depth + 1), len(entries))


def _entries(node: _Node) -> Iterator[_Entry]:
    if isinstance(node, _Bucket):
        yield from node.entries
    else:
        yield from _entries(node.left)
        yield from _entries(node.right)


def _with(node: _Node, entry: _Entry, depth: int) -> _Node:
    if isinstance(node, _Bucket):
        others = [other for other in node.entries if other.path != entry.path]
        entries = tuple(sorted([*others, entry], key=lambda item: item.path))
        return _build(entries, depth)
    if _bit(entry.path, depth):
        left, right = node.left, _with(node.right, entry, depth + 1)
    else:
        left, right = _with(node.left, entry, depth + 1), node.right
    return _Inner(left, right, left.count + right.count)


def _without(node: _Node, path: bytes, depth: int) -> _Node:
    if isinstance(node, _Bucket):
        entries = tuple(entry for entry in node.entries if entry.path != path)
        return node if len(entries) == len(node.entries) else _Bucket(entries)
    left, right = node.left, node.right
    if _bit(path, depth):
        right = _without(right, path, depth + 1)
    else:
        left = _without(left, path, depth + 1)
    if left is node.left and right is node.right:
        return node
    inner = _Inner(left, right, left.count + right.count)
    return _Bucket(tuple(_entries(inner))) if inner.count <= BUCKET else inner


class StateTree:
    """An immutable map from keys to values (bytes) with a Merkle root."""

    __slots__ = ("_node",)

    def __init__(self) -> None:
        self._node: _Node = _Bucket(())

    @classmethod
    def _of(cls, node: _Node) -> StateTree:
        tree = cls.__new__(cls)
        tree._node = node
        return tree

    def __len__(self) -> int:
        return self._node.count

    @property
    def root(self) -> bytes:
        """32 bytes that bind every key and value. Only what changed is hashed again."""
        return self._node.hash()

    def _find(self, path: bytes) -> tuple[_Bucket, list[bytes]]:
        """The bucket of `path`, and the siblings from the root down to it."""
        node, siblings, depth = self._node, list[bytes](), 0
        while isinstance(node, _Inner):
            right = _bit(path, depth)
            siblings.append((node.left if right else node.right).hash())
            node = node.right if right else node.left
            depth += 1
        return node, siblings

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, or None."""
        path, node, depth = path_of(key), self._node, 0
        while isinstance(node, _Inner):
            node = node.right if _bit(path, depth) else node.left
            depth += 1
        for entry in node.entries:
            if entry.path == path:
                return entry.value
        return None

    def put(self, key: bytes, value: bytes) -> StateTree:
        """The tree in which `key` has `value`."""
        return StateTree._of(_with(self._node, _Entry(path_of(key), _leaf_hash(key, value), key, value), 0))

    def delete(self, key: bytes) -> StateTree:
        """The tree without `key`."""
        return StateTree._of(_without(self._node, path_of(key), 0))

    def items(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Keys that start with `prefix`, in the order of keys, with their values. Walks the whole tree."""
        found = [(entry.key, entry.value) for entry in _entries(self._node) if entry.key.startswith(prefix)]
        return iter(sorted(found))

    def prove(self, key: bytes) -> StateProof:
        """Proof of the value of `key`, or of its absence."""
        bucket, siblings = self._find(path_of(key))
        slots = tuple(Slot(entry.path, entry.leaf) for entry in bucket.entries)
        return StateProof(slots, tuple(reversed(siblings)))


def verify_state(root: bytes, key: bytes, value: bytes | None, proof: StateProof) -> None:
    """Check that in the state with `root` the value of `key` is `value`; None: that there is none.

    Returns None or raises VerificationError.
    """
    path = path_of(key)
    depth = len(proof.siblings)
    paths = [slot.path for slot in proof.slots]
    if depth > DEPTH or len(paths) > BUCKET or any(a >= b for a, b in pairwise(paths)):
        raise VerificationError("ledger.bad_state_proof")
    if any(len(part) != 32 for slot in proof.slots for part in (slot.path, slot.leaf)):
        raise VerificationError("ledger.bad_state_proof")
    if any(_bit(other, level) != _bit(path, level) for other in paths for level in range(depth)):
        raise VerificationError("ledger.bad_state_proof")
    found = [slot.leaf for slot in proof.slots if slot.path == path]
    expected = [] if value is None else [_leaf_hash(key, value)]
    current = _bucket_hash(tuple((slot.path, slot.leaf) for slot in proof.slots))
    for level, sibling in zip(range(depth - 1, -1, -1), proof.siblings, strict=True):
        if _bit(path, level):
            current = digest(STATE_INNER, sibling, current)
        else:
            current = digest(STATE_INNER, current, sibling)
    if found != expected or not hmac.compare_digest(current, root):
        raise VerificationError("ledger.bad_state_proof")
