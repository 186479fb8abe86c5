"""The state tree: a bucketed Merkle tree over the current value of every key.

A key's path is SHA-256 of the key. A subtree (all keys whose paths share a prefix) is one *bucket*
while it has at most 8 keys, and otherwise an *inner* node with the two subtrees one bit deeper. So the
shape is a pure function of the keys present: not of the order of writes, and not of deleted keys.
Whoever grinds keys into one bucket only makes a deeper subtree. Leaves, buckets and inner nodes are
hashed under three domains; none passes for another.

    leaf   = H(STATE_LEAF, key, value)
    bucket = H(STATE_BUCKET, path_1, leaf_1, path_2, leaf_2, ...)      in the order of paths
    inner  = H(STATE_INNER, left, right)

A tree is immutable: `update`, `put` and `delete` return a new one and share what did not change, so a
snapshot costs nothing and a refused envelope leaves no trace. `update` writes a whole block at once: every
node on the way to a changed key is made and hashed once, however many keys below it changed. A proof holds
the bucket's paths and leaf hashes (at most 8 x 64 bytes) and one hash a level; it shows a value, or that
the key is absent.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import pairwise
from operator import itemgetter
from typing import Any

from wire.canonical import Wire
from wire.domains import STATE_BUCKET, STATE_INNER, STATE_LEAF, digest, framed
from wire.errors import VerificationError
from wire.identifiers import Hash

BUCKET = 8
"""Most keys of a bucket."""
DEPTH = 256
"""Bits of a path."""
_START = 3
"""Bytes of a path that lead to any bucket of up to some ten million keys, unless they were ground."""


class Slot(Wire, frozen=True, tag="ledger.slot"):
    """One key of a bucket: its path and its leaf hash."""

    path: Hash
    leaf: Hash


class StateProof(Wire, frozen=True, tag="ledger.state_proof"):
    """slots: the bucket where the key is, or would be; siblings: from the bucket up to the root."""

    slots: tuple[Slot, ...]
    siblings: tuple[Hash, ...]


_Entry = tuple[bytes, bytes, bytes, bytes]
"""Path, leaf hash, key, value. A plain tuple of bytes: the garbage collector lets go of those for good."""

_Change = tuple[bytes, _Entry | None]
"""A path, and what stands there from now on: None for nothing."""


class _Bucket:
    __slots__ = ("count", "entries", "hash")
    count: int
    hash: bytes

    def __init__(self, entries: tuple[_Entry, ...]) -> None:
        self.entries = entries  # in the order of paths
        self.count = len(entries)
        self.hash = _bucket_hash([entry[:2] for entry in entries])


class _Inner:
    __slots__ = ("count", "hash", "left", "right")
    count: int
    hash: bytes

    def __init__(self, left: _Node, right: _Node) -> None:
        self.left = left
        self.right = right
        self.count = left.count + right.count
        self.hash = sha256(_INNER + left.hash + _LENGTH + right.hash).digest()


_Node = _Bucket | _Inner

# The same bytes as `digest` of the domain and its parts, whose lengths are known here.
_LENGTH = (32).to_bytes(8, "big")
_LEAF = framed(STATE_LEAF, b"")
_INNER = framed(STATE_INNER, _LENGTH)
_BUCKET = framed(STATE_BUCKET, b"")


def path_of(key: bytes) -> bytes:
    """Where `key` is in the tree: 32 bytes."""
    return sha256(key).digest()


def _leaf_hash(key: bytes, value: bytes) -> bytes:
    return sha256(b"".join((_LEAF, len(key).to_bytes(8, "big"), key, len(value).to_bytes(8, "big"), value))).digest()


def _bucket_hash(slots: Sequence[tuple[bytes, ...]]) -> bytes:
    """slots: pairs of a path and a leaf hash, 32 bytes each, in order."""
    return sha256(_BUCKET + b"".join([_LENGTH + part for slot in slots for part in slot])).digest()


def _bit(path: bytes, depth: int) -> int:
    return path[depth >> 3] >> (7 - (depth & 7)) & 1


def _build(entries: Sequence[_Entry], depth: int) -> _Node:
    """The subtree over `entries` (in the order of paths), all of which share `depth` bits."""
    if len(entries) <= BUCKET:
        return _Bucket(tuple(entries))
    middle = _middle(entries, 0, len(entries), depth)
    return _Inner(_build(entries[:middle], depth + 1), _build(entries[middle:], depth + 1))


def _middle(items: Sequence[tuple[Any, ...]], low: int, high: int, depth: int) -> int:
    """The first of items low..high-1, which start with paths in order, on the right at `depth`; `high` for none."""
    at, bit = depth >> 3, 0x80 >> (depth & 7)
    while low < high:
        middle = (low + high) >> 1
        if items[middle][0][at] & bit:
            high = middle
        else:
            low = middle + 1
    return low


def _entries(node: _Node) -> Iterator[_Entry]:
    if isinstance(node, _Bucket):
        yield from node.entries
    else:
        yield from _entries(node.left)
        yield from _entries(node.right)


def _changed(node: _Node, changes: Sequence[_Change], low: int, high: int, depth: int) -> _Node:
    """The subtree after changes low..high-1, at least one, all of this subtree, in the order of paths."""
    if high - low == 1:
        return _changed_once(node, *changes[low], depth)
    if isinstance(node, _Bucket):
        entries: dict[bytes, _Entry | None] = {entry[0]: entry for entry in node.entries}
        entries.update(changes[low:high])
        return _build(sorted(entry for entry in entries.values() if entry is not None), depth)
    left, right = node.left, node.right
    middle = _middle(changes, low, high, depth)
    if low < middle:
        left = _changed(left, changes, low, middle, depth + 1)
    if middle < high:
        right = _changed(right, changes, middle, high, depth + 1)
    if left.count + right.count <= BUCKET:
        return _Bucket((*_entries(left), *_entries(right)))
    return _Inner(left, right)


def _changed_once(node: _Node, path: bytes, entry: _Entry | None, depth: int) -> _Node:
    """`_changed` for one change, which is what most subtrees of a large state see: one way down, and back."""
    above: list[tuple[_Node, int]] = []
    while isinstance(node, _Inner):
        right = path[depth >> 3] >> (7 - (depth & 7)) & 1
        above.append((node.left if right else node.right, right))
        node = node.right if right else node.left
        depth += 1
    entries = [other for other in node.entries if other[0] != path]
    if entry is not None:
        entries.append(entry)
        entries.sort()
    node = _build(entries, depth)
    while above:
        sibling, right = above.pop()
        if sibling.count + node.count <= BUCKET:
            ends = (sibling, node) if right else (node, sibling)
            node = _Bucket((*_entries(ends[0]), *_entries(ends[1])))
        else:
            node = _Inner(sibling, node) if right else _Inner(node, sibling)
    return node


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
        """32 bytes that bind every key and value."""
        return self._node.hash

    def _find(self, path: bytes) -> tuple[_Bucket, list[bytes]]:
        """The bucket of `path`, and the siblings from the root down to it."""
        node, siblings, depth = self._node, list[bytes](), 0
        while isinstance(node, _Inner):
            right = _bit(path, depth)
            siblings.append((node.left if right else node.right).hash)
            node = node.right if right else node.left
            depth += 1
        return node, siblings

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, or None."""
        path, node = path_of(key), self._node
        bits, mask = int.from_bytes(path[:_START], "big"), 1 << 8 * _START - 1  # a small number is quick to test
        while mask and isinstance(node, _Inner):
            node = node.right if bits & mask else node.left
            mask >>= 1
        depth = 8 * _START
        while isinstance(node, _Inner):
            node = node.right if _bit(path, depth) else node.left
            depth += 1
        for entry in node.entries:
            if entry[0] == path:
                return entry[3]
        return None

    def update(self, values: Mapping[bytes, bytes | None]) -> StateTree:
        """The tree in which each key of `values` has its value there; None: in which it has none."""
        if not values:
            return self
        changes: list[_Change] = []
        for key, value in values.items():
            path = path_of(key)
            changes.append((path, None if value is None else (path, _leaf_hash(key, value), key, value)))
        changes.sort(key=itemgetter(0))
        return StateTree._of(_changed(self._node, changes, 0, len(changes), 0))

    def put(self, key: bytes, value: bytes) -> StateTree:
        """The tree in which `key` has `value`."""
        return self.update({key: value})

    def delete(self, key: bytes) -> StateTree:
        """The tree without `key`."""
        return self.update({key: None})

    def items(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Keys that start with `prefix`, in the order of keys, with their values. Walks the whole tree."""
        found = [(key, value) for _, _, key, value in _entries(self._node) if key.startswith(prefix)]
        return iter(sorted(found))

    def prove(self, key: bytes) -> StateProof:
        """Proof of the value of `key`, or of its absence."""
        bucket, siblings = self._find(path_of(key))
        slots = tuple(Slot(path, leaf) for path, leaf, _, _ in bucket.entries)
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
    current = _bucket_hash([(slot.path, slot.leaf) for slot in proof.slots])
    for level, sibling in zip(range(depth - 1, -1, -1), proof.siblings, strict=True):
        if _bit(path, level):
            current = digest(STATE_INNER, sibling, current)
        else:
            current = digest(STATE_INNER, current, sibling)
    if found != expected or not hmac.compare_digest(current, root):
        raise VerificationError("ledger.bad_state_proof")
