"""Searching one file for what an erasure destroyed: marks of wraps and texts of the person's, however they are written.

    a mark       as its bytes, and in hex of either case, as dumps of a database have it
    a text       as it was typed, in the normal forms of Unicode and in capital and small letters; each in UTF-8,
                 UTF-16, GB 18030 and as JSON escapes it
    a name       of the file and the folders that it stands in: texts are looked for there too

Packed files are not opened: what they hold is not known, and that is said of each. Nothing that this software writes
into a home is packed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from privacy.erasure.receipt import MARK_BYTES

_PIECE = 1 << 20
SHORTEST_TEXT = 4
"""Characters of the shortest text that is looked for."""
_HEAD = 16
_PACKED = re.compile(
    rb"\x1f\x8b\x08[\x00-\x1f].{4}[\x00\x02\x04][\x00-\x0d\xff]"  # gzip
    rb"|BZh[1-9]1AY&SY|\xfd7zXZ\x00|\x28\xb5\x2f\xfd|\x04\x22\x4d\x18"  # bzip2, xz, Zstandard, LZ4
    rb"|PK\x03\x04|7z\xbc\xaf\x27\x1c|Rar!\x1a\x07"  # ZIP and office documents, 7-Zip, RAR
    rb"|PAR1|PGDMP|%PDF-",  # columns, a dump of PostgreSQL, pages: packed within
    re.DOTALL,
)
_DIGITS = bytes(one in b"0123456789abcdefABCDEF" for one in range(256))
_HEX = b"\x01" * 2 * MARK_BYTES
_ESCAPE = re.compile(r"\\u([0-9a-f]{4})")


class Seen(NamedTuple):
    """What one file holds. marks, texts: whether any of those that are looked for; size: bytes; packed: it may hold
    more, which nobody saw."""

    marks: bool
    texts: bool
    size: int
    packed: bool


class FileSearch:
    """A search for marks and texts. Raises ValueError for a text that is too short: it would stand anywhere."""

    def __init__(self, marks: Iterable[bytes], texts: Sequence[str] = ()) -> None:
        if any(len(text) < SHORTEST_TEXT for text in texts):
            raise ValueError(f"a marker has at least {SHORTEST_TEXT} characters: shorter ones stand anywhere")
        self._texts = {spelling for text in texts for spelling in _spellings(text)}
        written = {data for text in self._texts for data in _written(text)}
        self._marks = frozenset(marks)
        in_hex = {data for mark in self._marks for data in (mark.hex().encode(), mark.hex().upper().encode())}
        self._longest = max(map(len, written | self._marks | in_hex), default=1)
        self._pattern, self._in_hex = _any_of(written | self._marks), _any_of(in_hex)

    def within(self, path: Path) -> Seen:
        """What a file holds. Raises OSError."""
        marks = texts = packed = False
        size, tail = 0, b""
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                packed = packed or (not size and _PACKED.match(piece[:_HEAD]) is not None)
                size += len(piece)
                window = tail + piece
                for match in self._pattern.finditer(window):
                    marks, texts = marks or match.group() in self._marks, texts or match.group() not in self._marks
                if _HEX in window.translate(_DIGITS):  # there seldom is any: most files are no text
                    marks = marks or self._in_hex.search(window) is not None
                tail = window[-(self._longest - 1) :] if self._longest > 1 else b""
        return Seen(marks, texts, size, packed)

    def told(self, name: str) -> str:
        """The name of a file, without the parts that a text stands in: it is itself if none does."""
        return "/".join("*" if self._named(part) else part for part in name.split("/"))

    def _named(self, part: str) -> bool:
        return any(text in part for text in self._texts)


def _any_of(needles: Iterable[bytes]) -> re.Pattern[bytes]:
    return re.compile(b"|".join(map(re.escape, sorted(needles, key=len, reverse=True))) or b"(?!)")


def _spellings(text: str) -> Iterator[str]:
    yield text
    for form in (text, *(normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD"))):
        yield from (one for one in (form, form.upper(), form.lower()) if len(one) >= SHORTEST_TEXT)


def _written(text: str) -> Iterator[bytes]:
    for code in ("utf-8", "utf-16-le", "utf-16-be", "gb18030"):
        with suppress(UnicodeEncodeError):  # half of a character: no file in this code has it
            yield text.encode(code)
    escaped = json.dumps(text)[1:-1]
    yield escaped.encode()
    yield _ESCAPE.sub(lambda one: "\\u" + one.group(1).upper(), escaped).encode()
