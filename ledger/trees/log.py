"""The append-only log of blocks: the tree of RFC 9162, kept so that every proof costs O(log n).

Leaf `h` is the hash of block `h`'s canonical header; leaf 0 is genesis. Verification is in
`wire.checkpoint.log_proofs`.
"""

from __future__ import annotations

from collections.abc import Iterable

from wire.checkpoint.log_proofs import EMPTY_ROOT, leaf_hash, node_hash


class Log:
    """A growing log. Holds all full subtrees: 64 bytes a leaf."""

    def __init__(self) -> None:
        self._levels: list[list[bytes]] = [[]]  # _levels[l][i]: hash over leaves i * 2^l .. (i + 1) * 2^l - 1

    @classmethod
    def of(cls, leaves: Iterable[bytes]) -> Log:
        """The log whose leaf hashes are `leaves`."""
        log = cls()
        for leaf in leaves:
            log._append(leaf)
        return log

    @property
    def size(self) -> int:
        """Number of leaves."""
        return len(self._levels[0])

    def append(self, data: bytes) -> int:
        """Append a leaf; returns its index."""
        return self._append(leaf_hash(data))

    def _append(self, leaf: bytes) -> int:
        index = self.size
        self._levels[0].append(leaf)
        level = 0
        while len(self._levels[level]) % 2 == 0:
            if level + 1 == len(self._levels):
                self._levels.append([])
            self._levels[level + 1].append(node_hash(*self._levels[level][-2:]))
            level += 1
        return index

    def leaf(self, index: int) -> bytes:
        """The hash of leaf `index` (0 <= index < size)."""
        return self._levels[0][index]

    def root(self, size: int | None = None) -> bytes:
        """Root of the first `size` leaves (all of them by default)."""
        size = self._checked(size)
        return self._range(0, size) if size else EMPTY_ROOT

    def root_with(self, data: bytes) -> bytes:
        """The root there would be after appending `data`."""
        root = leaf_hash(data)
        for level, hashes in enumerate(self._levels):
            if self.size >> level & 1:
                root = node_hash(hashes[-1], root)
        return root

    def truncate(self, size: int) -> None:
        """Forget all leaves from `size` on."""
        size = self._checked(size)
        for level, hashes in enumerate(self._levels):
            del hashes[size >> level :]

    def inclusion_proof(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """Proof that leaf `index` is in the tree of the first `size` leaves. Spec: RFC 9162, 2.1.3.1."""
        size = self._checked(size)
        if not 0 <= index < size:
            raise ValueError(f"leaf {index} is not in a log of {size}")
        proof: list[bytes] = []
        low, high = 0, size
        while high - low > 1:
            middle = low + _split(high - low)
            if index < middle:
                proof.append(self._range(middle, high))
                high = middle
            else:
                proof.append(self._range(low, middle))
                low = middle
        return tuple(reversed(proof))

    def consistency_proof(self, first: int, size: int | None = None) -> tuple[bytes, ...]:
        """Proof that the tree of `first` (>= 1) leaves is a prefix of that of `size`. Spec: RFC 9162, 2.1.4.1."""
        size = self._checked(size)
        if not 1 <= first <= size:
            raise ValueError(f"size {first} is not between 1 and {size}")
        proof: list[bytes] = []
        low, high, whole = 0, size, True
        while first != high:
            middle = low + _split(high - low)
            if first <= middle:
                proof.append(self._range(middle, high))
                high = middle
            else:
                proof.append(self._range(low, middle))
                low, whole = middle, False
        if not whole:
            proof.append(self._range(low, high))
        return tuple(reversed(proof))

    def _checked(self, size: int | None) -> int:
        if size is None:
            return self.size
        if not 0 <= size <= self.size:
            raise ValueError(f"the log has {self.size} leaves, not {size}")
        return size

    def _range(self, low: int, high: int) -> bytes:
        """Root over leaves low..high-1, where low is a multiple of the largest power of two in high - low."""
        count = high - low
        if count & (count - 1) == 0:
            level = count.bit_length() - 1
            return self._levels[level][low >> level]
        middle = low + _split(count)
        return node_hash(self._range(low, middle), self._range(middle, high))


def _split(size: int) -> int:
    """The largest power of two below `size` (>= 2)."""
    return 1 << ((size - 1).bit_length() - 1)
