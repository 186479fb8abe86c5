"""The state tree: a bucketed Merkle tree over the current value of every key.

A key's path is SHA-256 of the key. A subtree (all keys whose paths share a prefix) is one *bucket*
while it has at most 8 keys, and otherwise an *inner* node with eight subtrees, one for each value of the next
three bits. So the shape is a pure function of the keys present: not of the order of writes, and not of deleted
keys. Whoever grinds keys into one bucket only makes a deeper subtree. Leaves, buckets and inner nodes are
hashed under three domains; none passes for another. An inner node binds all its eight children, in order; one
without keys is the empty bucket.

    leaf   = H(STATE_LEAF, key, value)
    bucket = H(STATE_BUCKET, path_1, leaf_1, path_2, leaf_2, ...)      in the order of paths
    inner  = H(STATE_INNER, child_0 || child_1 || ... || child_7)      256 bytes as one part

A tree is immutable: `update`, `put` and `delete` return a new one and share what did not change, so a
snapshot costs nothing and a refused envelope leaves no trace. `update` writes a whole block at once: every
node on the way to a changed key is made and hashed once, however many keys below it changed. How nodes lie in
memory is in `ledger.trees.nodes`. A proof holds the bucket's paths and leaf hashes (at most 8 x 64 bytes) and
seven hashes a level; it shows a value, or that the key is absent.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping
from hashlib import sha256
from itertools import pairwise
from operator import itemgetter
from typing import Annotated

import msgspec

from ledger.trees.nodes import (
    ARITY,
    BITS,
    BUCKET,
    DEPTH,
    EMPTY,
    EMPTY_HASH,
    SLOT,
    Node,
    change,
    changed,
    find,
    inner_hash,
    opened,
    record_of,
    records,
    siblings,
    turn,
    updated,
)
from wire.canonical import Wire
from wire.domains import STATE_BUCKET, STATE_LEAF, digest
from wire.errors import VerificationError
from wire.identifiers import Hash

_BESIDE = 32 * (ARITY - 1)

Beside = Annotated[bytes, msgspec.Meta(min_length=_BESIDE, max_length=_BESIDE)]
"""The hashes of a node's other seven children, joined in order."""


class Slot(Wire, frozen=True, tag="ledger.slot"):
    """One key of a bucket: its path and its leaf hash."""

    path: Hash
    leaf: Hash


class StateProof(Wire, frozen=True, tag="ledger.state_proof"):
    """slots: the bucket where the key is, or would be; siblings: from the bucket up to the root."""

    slots: tuple[Slot, ...]
    siblings: tuple[Beside, ...]


def path_of(key: bytes) -> bytes:
    """Where `key` is in the tree: 32 bytes."""
    return sha256(key).digest()


class StateTree:
    """An immutable map from keys to values (bytes) with a Merkle root."""

    __slots__ = ("_count", "_node", "_root")

    def __init__(self) -> None:
        self._node: Node = EMPTY
        self._root = EMPTY_HASH
        self._count = 0

    @classmethod
    def _of(cls, node: Node, root: bytes, count: int) -> StateTree:
        tree = cls.__new__(cls)
        tree._node, tree._root, tree._count = node, root, count
        return tree

    def __len__(self) -> int:
        return self._count

    @property
    def root(self) -> bytes:
        """32 bytes that bind every key and value."""
        return self._root

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, or None."""
        path = path_of(key)
        record = record_of(find(self._node, path), path)
        return None if record is None else record[16 + len(key) :]

    def update(self, values: Mapping[bytes, bytes | None]) -> StateTree:
        """The tree in which each key of `values` has its value there; None: in which it has none."""
        if not values:
            return self
        changes = [change(path_of(key), key, value) for key, value in values.items()]
        changes.sort(key=itemgetter(0))
        node, root, more = updated(self._node, changes)
        return StateTree._of(node, root, self._count + more)

    def put(self, key: bytes, value: bytes) -> StateTree:
        """The tree in which `key` has `value`."""
        return self.update({key: value})

    def delete(self, key: bytes) -> StateTree:
        """The tree without `key`."""
        return self.update({key: None})

    def items(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Keys that start with `prefix`, in the order of keys, with their values. Walks the whole tree."""
        found = [entry for entry in map(opened, records(self._node)) if entry[0].startswith(prefix)]
        return iter(sorted(found))

    def changed(self, since: StateTree, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Keys that start with `prefix` and have another value here than in `since`, or none there, with their values.

        In no order; keys that are here no more are not among them. Of a tree that this one came from it walks what was
        changed alone.
        """
        found = map(opened, changed(self._node, since._node))
        return (entry for entry in found if entry[0].startswith(prefix))

    def prove(self, key: bytes) -> StateProof:
        """Proof of the value of `key`, or of its absence."""
        path = path_of(key)
        slots = find(self._node, path).slots
        starts = range(0, len(slots), SLOT)
        bucket = tuple(Slot(slots[at + 8 : at + 40], slots[at + 48 : at + 80]) for at in starts)
        return StateProof(bucket, tuple(reversed(siblings(self._node, path))))


def verify_state(root: bytes, key: bytes, value: bytes | None, proof: StateProof) -> None:
    """Check that in the state with `root` the value of `key` is `value`; None: that there is none.

    Returns None or raises VerificationError.
    """
    path = path_of(key)
    levels = len(proof.siblings)
    paths = [slot.path for slot in proof.slots]
    if levels > DEPTH or len(paths) > BUCKET or any(a >= b for a, b in pairwise(paths)):
        raise VerificationError("ledger.bad_state_proof")
    if any(len(part) != 32 for slot in proof.slots for part in (slot.path, slot.leaf)):
        raise VerificationError("ledger.bad_state_proof")
    if any(len(beside) != _BESIDE for beside in proof.siblings):
        raise VerificationError("ledger.bad_state_proof")
    if any(_prefix(other, levels) != _prefix(path, levels) for other in paths):
        raise VerificationError("ledger.bad_state_proof")
    found = [slot.leaf for slot in proof.slots if slot.path == path]
    expected = [] if value is None else [digest(STATE_LEAF, key, value)]
    current = digest(STATE_BUCKET, *(part for slot in proof.slots for part in (slot.path, slot.leaf)))
    for level, beside in zip(range(levels - 1, -1, -1), proof.siblings, strict=True):
        before = 32 * turn(path, level)
        current = inner_hash(beside[:before] + current + beside[before:])
    if found != expected or not hmac.compare_digest(current, root):
        raise VerificationError("ledger.bad_state_proof")


def _prefix(path: bytes, levels: int) -> int:
    """The bits of a path that so many levels go by."""
    return int.from_bytes(path, "big") >> 256 - BITS * levels
