"""The state tree's nodes, and the one walk that changes many keys at once.

A node holds its children's hashes and not its own, so that of a sibling nothing is read but its hash, and holds them
as they are hashed; so does a bucket its slots. A block's changes are written in the order of paths, in one walk
without recursion: down to a bucket, up to where the next path parts, down again. Every node on the way is made and
hashed once. What a key costs by itself are the levels below the last node that it shares with another key of the
block: they grow with the state, and so a node has eight children, and the steps of one level are few. Of 4, 8 and 16
children, 8 cost a key least: 16 save no level of a million keys, and each child is one more reference to count.

Nodes are never written to once they are in a tree, so none can be part of a cycle, and they are structs that the
garbage collector never sees: its full collections take no longer for a million keys.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from struct import Struct

import msgspec

from wire.domains import STATE_BUCKET, STATE_INNER, STATE_LEAF, framed

BUCKET = 8
"""Most keys of a bucket."""
SLOT = 80
"""Bytes of a slot: a path and a leaf hash, each after its length, as a bucket is hashed."""
BITS = 3
"""Bits of a path that choose a child."""
ARITY = 1 << BITS
"""Children of an inner node."""
DEPTH = 85
"""Most inner nodes on a path: of keys that share 255 bits there are two, which are a bucket."""

# The same bytes as `digest` of the domain and its parts, whose lengths are known here.
_LENGTH = (32).to_bytes(8, "big")
_LEAF = framed(STATE_LEAF, b"")
_INNER = framed(STATE_INNER, (32 * ARITY).to_bytes(8, "big"))
_BUCKET = framed(STATE_BUCKET, b"")

_SPLIT = [Struct(f"{SLOT}s" * count).unpack for count in range(BUCKET + 1)]
"""Slots of a bucket of so many keys."""
_FIELDS = tuple(f"child_{turn}" for turn in range(ARITY))
_PLACES = [(field, len(_INNER) + 32 * turn, len(_INNER) + 32 * turn + 32) for turn, field in enumerate(_FIELDS)]
"""Of each child: its field, and where its hash begins and ends in `Inner.hashed`."""
_CHUNK = 24
"""Bits of a path that are looked at as one small number, which is quick to take apart."""
_FIRST = _CHUNK - BITS
"""What a chunk is shifted by for its first turn."""
_MASK = ARITY - 1
"""The bits of one turn."""
_PADDED = 264
"""A path's bits, filled up to whole chunks."""


class Bucket(msgspec.Struct, gc=False, tag="bucket"):
    """Up to 8 keys. slots: `SLOT` bytes each, in the order of paths; records: of the same keys, see `Change`."""

    slots: bytes
    records: tuple[bytes, ...]


class Inner(msgspec.Struct, gc=False, tag="inner"):
    """More than 8 keys: a subtree for each value of the next three bits. hashed: what its hash is taken of, whole."""

    hashed: bytes
    child_0: Node
    child_1: Node
    child_2: Node
    child_3: Node
    child_4: Node
    child_5: Node
    child_6: Node
    child_7: Node

    def children(self) -> list[Node]:
        """All children, in order."""
        return [getattr(self, field) for field in _FIELDS]


Node = Bucket | Inner

_copied: Callable[[Inner], Inner] = Inner.__copy__  # type: ignore[attr-defined]  # every struct has it

EMPTY = Bucket(b"", ())
"""A tree without keys, and a child without keys."""

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


EMPTY_HASH = bucket_hash(b"")
"""The hash of `EMPTY`."""


def inner_hash(children: bytes) -> bytes:
    """The hash of an inner node. children: the hashes of all eight, joined."""
    return sha256(_INNER + children).digest()


def turn(path: bytes, level: int) -> int:
    """Which child of an inner node at `level`, 0 for the root, is on the way to `path`."""
    return int.from_bytes(path, "big") >> 256 - BITS * (level + 1) & _MASK


def find(node: Node, path: bytes) -> Bucket:
    """The bucket where `path` is, or would be, in the tree below the root `node`."""
    bits, shift, depth = int.from_bytes(path[: _CHUNK // 8], "big"), _FIRST, _CHUNK
    while isinstance(node, Inner):
        if shift < 0:
            bits, shift = _chunk(int.from_bytes(path, "big"), depth)
            depth += _CHUNK
        node = getattr(node, _FIELDS[bits >> shift & _MASK])
        shift -= BITS
    return node


def _chunk(path: int, depth: int) -> tuple[int, int]:
    """The bits of a path in the chunk that `depth` is in, and what they are shifted by for the turn at `depth`."""
    chunk, within = divmod(depth, _CHUNK)
    bits = (path << _PADDED - 256) >> _PADDED - _CHUNK * (chunk + 1) & (1 << _CHUNK) - 1
    return bits, _FIRST - within


def record_of(bucket: Bucket, path: bytes) -> bytes | None:
    """The record of `path` if it is in the bucket."""
    at = bucket.slots.find(path)
    while at >= 0 and at % SLOT != 8:  # the same bytes where no path is
        at = bucket.slots.find(path, at + 1)
    return None if at < 0 else bucket.records[at // SLOT]


def siblings(node: Node, path: bytes) -> list[bytes]:
    """The seven hashes, joined, beside each node on the way to the bucket of `path`, from the root down."""
    found: list[bytes] = []
    while isinstance(node, Inner):
        name, begin, end = _PLACES[turn(path, len(found))]
        found.append(node.hashed[len(_INNER) : begin] + node.hashed[end:])
        node = getattr(node, name)
    return found


def records(node: Node) -> Iterator[bytes]:
    """All records, in the order of paths."""
    if isinstance(node, Bucket):
        yield from node.records
    else:
        for child in node.children():
            yield from records(child)


def changed(node: Node, before: Node) -> Iterator[bytes]:
    """The records below `node` that are not below `before`, of the same place in another tree, in no order.

    What both trees share is not looked at: of a tree and one that was made of it by changes, it takes as long as these.
    """
    pairs = [(node, before)]
    while pairs:
        here, there = pairs.pop()
        if here is there:
            continue
        if isinstance(here, Inner) and isinstance(there, Inner):
            pairs += zip(here.children(), there.children(), strict=True)
        else:
            known = dict.fromkeys(records(there))
            yield from (record for record in records(here) if record not in known)


def updated(node: Node, changes: Sequence[Change]) -> tuple[Node, bytes, int]:
    """The root after `changes`, its hash, and how many keys it has more than the root before, `node`.

    changes: at least one, in the order of paths, each path once.
    """
    above: list[Inner] = []  # from the root to the parent of `node`: copies, still to be changed and hashed
    places: list[tuple[str, int, int]] = []  # at each of them: where `node` is below it
    number, count, grown, shrunk = 0, len(changes), 0, False
    path = int.from_bytes(changes[0][0], "big")
    bits, shift = _chunk(path, 0)
    while True:
        # Down to the bucket of this change.
        while isinstance(node, Inner):
            if shift < 0:
                bits, shift = _chunk(path, BITS * len(above))
            above.append(_copied(node))
            place = _PLACES[bits >> shift & _MASK]
            places.append(place)
            node = getattr(node, place[0])
            shift -= BITS
        # The changes of the same bucket, and the level at which the one after them parts; -1: there is none.
        first, parting, depth = number, -1, BITS * len(above)
        number += 1
        while number < count:
            other = int.from_bytes(changes[number][0], "big")
            shared = 256 - (path ^ other).bit_length()
            path = other
            if shared < depth:
                parting = shared // BITS
                break
            number += 1
        node, digest, more = _rewritten(node, changes[first:number], depth)
        grown += more
        shrunk = shrunk or more < number - first  # or else something was only replaced
        # Up to where the next change parts.
        while above:
            parent = above[-1]
            name, begin, end = places.pop()
            setattr(parent, name, node)
            parent.hashed = hashed = parent.hashed[:begin] + digest + parent.hashed[end:]
            if len(places) == parting:
                break
            above.pop()
            if shrunk and (joined := _joined(parent)):
                node, digest = joined, bucket_hash(joined.slots)
            else:
                node, digest = parent, sha256(hashed).digest()
        if number == count:
            return node, digest, grown
        bits, shift = _chunk(path, BITS * parting)
        place = _PLACES[bits >> shift & _MASK]
        places.append(place)
        node = getattr(above[parting], place[0])
        shift -= BITS


def _joined(parent: Inner) -> Bucket | None:
    """The bucket that a node's children are by now, or None."""
    slots, of = b"", tuple[bytes, ...]()
    for child in parent.children():
        if isinstance(child, Inner) or len(of) + len(child.records) > BUCKET:
            return None
        slots += child.slots
        of += child.records
    return Bucket(slots, of)


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
    """The subtree at `depth` bits over these keys, and its hash."""
    if not slots:
        return EMPTY, EMPTY_HASH
    if len(slots) <= BUCKET:
        joined = b"".join(slots)
        return Bucket(joined, tuple(of)), bucket_hash(joined)
    # Two bytes of the slot: they hold the turn.
    at, shift = 8 + (depth >> 3), 16 - BITS - (depth & 7)
    turns = [int.from_bytes(slot[at : at + 2], "big") >> shift & _MASK for slot in slots]
    hashed, children, begin = _INNER, list[Node](), 0
    for end in (bisect_left(turns, value) for value in range(1, ARITY + 1)):
        child, digest = _built(slots[begin:end], of[begin:end], depth + BITS)
        hashed += digest
        children.append(child)
        begin = end
    return Inner(hashed, *children), sha256(hashed).digest()
