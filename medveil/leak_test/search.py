"""Search of any number of bytes for thousands of spellings at once.

Each spelling is anchored by its four bytes that vary most; a table of 2^20 bits tells which words of the data may be an
anchor, and the few that may are compared. One pass, whatever the number of spellings.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from medveil.leak_test.patients import Marker
from medveil.leak_test.spellings import spellings

PIECE = 4 * 1024 * 1024
"""Bytes that are searched at a time."""
ENOUGH = PIECE // 4
"""Bytes for which a search is worth its while: smaller pieces are put together."""
_WORD = 4
_TABLE_BITS = 20
_SPREAD = np.uint32(2654435761)


class Found(NamedTuple):
    """A marker that stands in some data. how: the spelling's name; offset: where it begins."""

    marker: Marker
    how: str
    offset: int


class _Spelling(NamedTuple):
    data: bytes
    anchor: int
    marker: Marker
    how: str


class Search:
    """A search for every spelling of `markers`."""

    def __init__(self, markers: Iterable[Marker]) -> None:
        self._by_word: dict[int, list[_Spelling]] = defaultdict(list)
        self.longest = 0
        self.spellings = 0
        for marker in markers:
            for data, how in spellings(marker).items():
                anchor = _anchor(data)
                word = int.from_bytes(data[anchor : anchor + _WORD], "little")
                self._by_word[word].append(_Spelling(data, anchor, marker, how))
                self.longest = max(self.longest, len(data))
                self.spellings += 1
        self._words = np.array(sorted(self._by_word), np.uint32)
        self._table = np.zeros(1 << _TABLE_BITS, np.bool_)
        self._table[_places(self._words)] = True

    def find(self, data: bytes, base: int = 0) -> Iterator[Found]:
        """Everything found in `data`, in no order; each marker once a place. base: offset of its first byte."""
        seen = set()
        for shift in range(_WORD):
            count = (len(data) - shift) // _WORD
            if count <= 0:
                continue
            words = np.frombuffer(data, np.dtype("<u4"), count, shift)
            may = np.flatnonzero(self._table[_places(words)])
            if not may.size:
                continue
            found = words[may]
            at = np.minimum(np.searchsorted(self._words, found), self._words.size - 1)
            hit = self._words[at] == found
            for index, word in zip(may[hit].tolist(), found[hit].tolist(), strict=True):
                for one in self._by_word[word]:
                    begin = index * _WORD + shift - one.anchor
                    if begin >= 0 and data.startswith(one.data, begin) and (begin, one.marker) not in seen:
                        seen.add((begin, one.marker))
                        yield Found(one.marker, one.how, base + begin)

    def find_in(self, pieces: Iterable[bytes]) -> Iterator[Found]:
        """The same over data that comes in pieces, in whatever sizes."""
        kept, base, told = b"", 0, set[tuple[Marker, int]]()
        for piece in _gathered(pieces):
            data = kept + piece
            for one in self.find(data, base):
                if (one.marker, one.offset) not in told:
                    told.add((one.marker, one.offset))
                    yield one
            keep = min(len(data), self.longest - 1)
            base += len(data) - keep
            kept = data[len(data) - keep :]


def _gathered(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Small pieces put together: the rows of a table, above all."""
    some, size = list[bytes](), 0
    for piece in pieces:
        some.append(piece)
        size += len(piece)
        if size >= ENOUGH:
            yield b"".join(some)
            some, size = [], 0
    if some:
        yield b"".join(some)


def _places(words: np.ndarray) -> np.ndarray:
    """Where words stand in the table."""
    return (words * _SPREAD) >> np.uint32(32 - _TABLE_BITS)


def _anchor(data: bytes) -> int:
    """Where the word begins whose bytes differ most from each other and from zero."""

    def worth(at: int) -> tuple[int, int]:
        word = data[at : at + _WORD]
        return len(set(word) - {0}), at

    return max(range(len(data) - _WORD + 1), key=worth)
