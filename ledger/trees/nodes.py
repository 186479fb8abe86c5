"""The state tree's nodes, and the one walk that changes many keys at once.

A node holds its children's hashes and not its own, so that of a sibling nothing is read but its hash, and a bucket
holds its slots as they are hashed. A block's changes are written in the order of paths, in one walk without
recursion: down to a bucket, up to where the next path parts, down again. Every node on the way is made and
hashed once. What a key costs by itself are the levels below the last node that it shares with another key of the
block: they grow with the state, and so the steps of one level are few.

Nodes are never written to once they are in a tree, so none can be part of a cycle, and they are structs that the
garbage collector never sees: its full collections take no longer for a million keys.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from hashlib import sha256
from struct import Struct

import msgspec

from wire.domains import STATE_BUCKET, STATE_INNER, STATE_LEAF, framed

BUCKET = 8
"""Most keys of a bucket."""
SLOT = 80
"""Bytes of a slot: a path and a leaf hash, each after its length, as a bucket is hashed."""

# The same bytes as `digest` of the domain and its parts, whose lengths are known here.
_LENGTH = (32).to_bytes(8, "big")
_LEAF = framed(STATE_LEAF, b"")
_INNER = framed(STATE_INNER, _LENGTH)
_BUCKET = framed(STATE_BUCKET, b"")

_SPLIT = [Struct(f"{SLOT}s" * count).unpack for count in range(BUCKET + 1)]
"""Slots of a bucket of so many keys."""
_CHUNK = 24
"""Bits of a path that are looked at as one small number, which is quick to test."""
_PADDED = 264
"""A path's bits, filled up to whole chunks."""


class Bucket(msgspec.Struct, gc=False):
    """Up to 8 keys. slots: `SLOT` bytes each, in the order of paths; records: of the same keys, see `Change`."""

    slots: bytes
    records: tuple[bytes, ...]


class Inner(msgspec.Struct, gc=False):
    """More than 8 keys: two subtrees one bit deeper, and their hashes."""

    left: Node
    right: Node
    left_hash: bytes
    right_hash: bytes


Node = Bucket | Inner

EMPTY = Bucket(b"", ())
"""The root of a tree without keys."""

Change = tuple[bytes, bytes, bytes | None]
"""A path, its slot, and the record that stands there from now on: key and value as a leaf's hash takes them.

None: nothing stands there, and the slot is its first half.
"""


def change(path: bytes, key: bytes, value: bytes | None) -> Change:
    """What sets `key`, whose path is `path`, to `value`; None: removes it."""
    if value is None:
        return path, _LENGTH + path, None
    record = b"".join((len(key).to_bytes(8, "big"), key, len(value).to_bytes(8, "big"), value))
    return path, _LENGTH + path + _LENGTH + sha256(_LEAF + record).digest(), record


def opened(record: bytes) -> tuple[bytes, bytes]:
    """The key and the value of a record."""
    end = 8 + int.from_bytes(record[:8], "big")
    return record[8:end], record[end + 8 :]


def bucket_hash(slots: bytes) -> bytes:
    """The hash of a bucket."""
    return sha256(_BUCKET + slots).digest()


def find(node: Node, path: bytes) -> Bucket:
    """The bucket where `path` is, or would be, in the tree below the root `node`."""
    bits, mask = int.from_bytes(path[: _CHUNK // 8], "big"), 1 << _CHUNK - 1
    depth = _CHUNK
    while isinstance(node, Inner):
        if not mask:
            bits, mask = _chunk(int.from_bytes(path, "big"), depth)
            depth += _CHUNK
        node = node.right if bits & mask else node.left
        mask >>= 1
    return node


def _chunk(path: int, depth: int) -> tuple[int, int]:
    """The bits of a path in the chunk that `depth` is in, and the mask of the bit at `depth`."""
    chunk, within = divmod(depth, _CHUNK)
    bits = (path << _PADDED - 256) >> _PADDED - _CHUNK * (chunk + 1) & (1 << _CHUNK) - 1
    return bits, 1 << _CHUNK - 1 - within


def record_of(bucket: Bucket, path: bytes) -> bytes | None:
    """The record of `path` if it is in the bucket."""
    at = bucket.slots.find(path)
    while at >= 0 and at % SLOT != 8:  # the same bytes where no path is
        at = bucket.slots.find(path, at + 1)
    return None if at < 0 else bucket.records[at // SLOT]


def siblings(node: Node, path: bytes) -> list[bytes]:
    """The hashes beside the way to the bucket of `path`, from the root down."""
    found: list[bytes] = []
    while isinstance(node, Inner):
        depth = len(found)
        if path[depth >> 3] & 0x80 >> (depth & 7):
            found.append(node.left_hash)
            node = node.right
        else:
            found.append(node.right_hash)
            node = node.left
    return found


def records(node: Node) -> Iterator[bytes]:
    """All records, in the order of paths."""
    if isinstance(node, Bucket):
        yield from node.records
    else:
        yield from records(node.left)
        yield from records(node.right)


def updated(node: Node, changes: Sequence[Change]) -> tuple[Node, bytes, int]:
    """The root after `changes`, its hash, and how many keys it has more than the root before, `node`.

    changes: at least one, in the order of paths, each path once.
    """
    above: list[Inner] = []  # from the root to the parent of `node`
    turns: list[int] = []  # at each of them: not 0 for right
    number, count, grown, shrunk = 0, len(changes), 0, False
    path = int.from_bytes(changes[0][0], "big")
    bits, mask = _chunk(path, 0)
    while True:
        # Down to the bucket of this change.
        while isinstance(node, Inner):
            if not mask:
                bits, mask = _chunk(path, len(above))
            above.append(node)
            turn = bits & mask
            turns.append(turn)
            node = node.right if turn else node.left
            mask >>= 1
        # The changes of the same bucket, and the depth at which the one after them parts; -1: there is none.
        first, parting = number, -1
        number += 1
        while number < count:
            other = int.from_bytes(changes[number][0], "big")
            shared = 256 - (path ^ other).bit_length()
            path = other
            if shared < len(above):
                parting = shared
                break
            number += 1
        node, digest, more = _rewritten(node, changes[first:number], len(above))
        grown += more
        shrunk = shrunk or more < number - first  # or else something was only replaced
        # Up to where the next change parts: there it goes right, and this one went left.
        while len(above) > parting + 1:
            parent = above.pop()
            if turns.pop():
                beside, hash_beside = parent.left, parent.left_hash
                if shrunk and (both := _joined(beside, node)):
                    node, digest = both, bucket_hash(both.slots)
                else:
                    node = Inner(beside, node, hash_beside, digest)
                    digest = sha256(_INNER + hash_beside + _LENGTH + digest).digest()
            else:
                beside, hash_beside = parent.right, parent.right_hash
                if shrunk and (both := _joined(node, beside)):
                    node, digest = both, bucket_hash(both.slots)
                else:
                    node = Inner(node, beside, digest, hash_beside)
                    digest = sha256(_INNER + digest + _LENGTH + hash_beside).digest()
        if number == count:
            return node, digest, grown
        parent = above[parting]
        above[parting] = Inner(node, parent.right, digest, parent.right_hash)
        turns[parting] = 1
        node = parent.right
        bits, mask = _chunk(path, parting + 1)


def _joined(left: Node, right: Node) -> Bucket | None:
    """The bucket that two subtrees are by now, or None."""
    if isinstance(left, Bucket) and isinstance(right, Bucket) and len(left.records) + len(right.records) <= BUCKET:
        return Bucket(left.slots + right.slots, left.records + right.records)
    return None


def _rewritten(bucket: Bucket, changes: Sequence[Change], depth: int) -> tuple[Node, bytes, int]:
    """What a bucket at `depth` is after `changes`, all of which are of it; its hash; how many keys more."""
    slots, of = list(_SPLIT[len(bucket.records)](bucket.slots)), list(bucket.records)
    for _, slot, record in changes:
        start = slot[:40]
        at = bisect_left(slots, start)
        there = at < len(slots) and slots[at].startswith(start)
        if record is None:
            del slots[at : at + there], of[at : at + there]
        elif there:
            slots[at], of[at] = slot, record
        else:
            slots.insert(at, slot)
            of.insert(at, record)
    node, digest = _built(slots, of, depth)
    return node, digest, len(of) - len(bucket.records)


def _built(slots: list[bytes], of: list[bytes], depth: int) -> tuple[Node, bytes]:
    """The subtree at `depth` over these keys, and its hash."""
    if len(slots) <= BUCKET:
        joined = b"".join(slots)
        return Bucket(joined, tuple(of)), sha256(_BUCKET + joined).digest()
    at, bit = 8 + (depth >> 3), 0x80 >> (depth & 7)
    middle = bisect_left(slots, 1, key=lambda slot: slot[at] & bit)
    left, left_hash = _built(slots[:middle], of[:middle], depth + 1)
    right, right_hash = _built(slots[middle:], of[middle:], depth + 1)
    return Inner(left, right, left_hash, right_hash), sha256(_INNER + left_hash + _LENGTH + right_hash).digest()
