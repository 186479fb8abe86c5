"""The log of safeguards: what protects persons and would be forgotten by a restore, in a file beside the register.

Legal holds, opt-outs, restrictions, erasures and recalls are in the vault's tables; a backup of them is older than they
are. The log does not go back with it: whoever opens a vault to write takes over from the log what the tables do not
have yet (`privacy.vault.safeguards`).

    beginning   magic, mark: see `privacy.vault.growing_file`
    entry       head || nonce (12) || AES-256-GCM(key, safeguards; magic || head || before) || mark
    head        length (4) || number (8) || check (4): the beginning of a MAC of the two and of `before`
    before      the last 16 bytes of the entry before it, without its mark; zeros for the first

An entry holds what was changed together, and is on disk before the tables are. Numbers rise. Entries that are left
out, moved, repeated or of another vault are DecodeError; one that was cut short at the end (a crash, a power cut or a
full disk) has no mark, and is none. An older copy of the file, put in its place, is consistent in itself: the tables
say that they are ahead of it. Logs of before have another magic and no marks; they are read, and written anew before
the next entry.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from privacy.suites import NONCE_BYTES, TAG_BYTES
from privacy.vault.growing_file import (
    BEGINNING,
    MAGIC_BYTES,
    MARK_BYTES,
    GrowingFile,
    content_of,
    failed,
    has_hole,
)
from wire.canonical import Wire, decode, encode
from wire.dates import Instant
from wire.domains import SAFEGUARDS, keyed
from wire.errors import DecodeError, Unavailable

MAGIC = b"medveil guards 2"
_BEFORE = b"medveil guards 1"
_CHECK = 4
_HEAD = 12 + _CHECK
_NO_TAG = bytes(TAG_BYTES)
_LARGE = 1 << 20
"""Bytes from which on a log is worth being rewritten."""


What = Literal["document", "note", "key", "epoch"]


class Safeguard(Wire, frozen=True, tag="privacy.safeguard"):
    """One thing that protects somebody, as it was put into the tables, or went from them. Secret.

    what, kind: a document or a note about a person of that kind, the state of a data key (kind ""), or the epoch that
    keys were rotated to (kind ""). item: the document's name, the keyed person, the data key's id; b"" of an epoch.
    content: of document or note; of an epoch its number. gone: it was removed; of a data key: it may be used again.
    at: ms UTC.
    """

    what: What
    kind: Annotated[str, msgspec.Meta(max_length=64)]
    item: bytes
    content: bytes
    gone: bool
    at: Instant

    @property
    def about(self) -> tuple[str, str, bytes]:
        """What it is about: a later one of the same replaces it."""
        return (self.what, self.kind, self.item)

    def __repr__(self) -> str:
        return f"Safeguard({self.what!r}, {self.kind!r})"


class _Entry(Wire, frozen=True, tag="privacy.safeguards"):
    together: tuple[Safeguard, ...]


class _Read(NamedTuple):
    """entries: by number. length: where the last whole one ends; before: its last bytes; number: its number.

    marked: entries have marks; not so in a log of before, or where there is none.
    """

    entries: list[tuple[int, Safeguard]]
    length: int
    before: bytes
    number: int
    marked: bool


class _End(NamedTuple):
    """Where this process left the file."""

    file: tuple[int, int]
    length: int
    before: bytes
    number: int
    marked: bool


class SafeguardLog:
    """The file. index_key: the vault's (secret). One process at a time writes, one thread at a time calls."""

    def __init__(self, path: Path, index_key: bytes, rand: Callable[[int], bytes]) -> None:
        self.path = path
        self._file = GrowingFile(path, MAGIC, keyed(index_key, SAFEGUARDS, b"mark")[:MARK_BYTES])
        self._cipher = AESGCM(keyed(index_key, SAFEGUARDS, b"entry"))
        self._check_key = keyed(index_key, SAFEGUARDS, b"head")
        self._rand = rand
        self._end: _End | None = None
        self._rewritten = 0

    def entries(self, path: Path | None = None) -> list[tuple[int, Safeguard]]:
        """Every safeguard with the number of its entry, the oldest first; none where there is no file.

        path: another log of this vault. Raises DecodeError (damaged, or of another vault), Unavailable.
        """
        return self._read(path or self.path).entries

    def number(self) -> int:
        """Number of the last entry; 0 where there is none. Raises as `entries`."""
        return self._where().number

    def append(self, together: Sequence[Safeguard], above: int = 0) -> int:
        """Note what is changed together, all of it or none, on disk when this returns: its number, beyond `above`.

        Raises as `entries`.
        """
        end = self._where()
        if not end.marked:
            self.compact()
            end = self._where()
        number = max(end.number, above) + 1
        entry, before = self._sealed(number, together, end.before)
        try:
            found = self._file.append(end.length, entry)
        except Unavailable:
            self._end = None
            raise
        length = end.length + len(entry) + MARK_BYTES
        self._end = _End((found.st_dev, found.st_ino), length, before, number, marked=True)
        if length > max(_LARGE, 4 * self._rewritten):
            with suppress(Unavailable):  # what had to be noted is
                self.compact()
        return number

    def compact(self) -> None:
        """Write the file anew with the last word on each thing alone. Raises as `entries`."""
        found = self._read(self.path)
        by_number: dict[int, list[Safeguard]] = {}
        for number, one in latest(found.entries).values():
            by_number.setdefault(number, []).append(one)
        appended, before = [], _NO_TAG
        for number in sorted(by_number):
            entry, before = self._sealed(number, by_number[number], before)
            appended.append(entry)
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._rewritten = self._file.rewrite(appended)
        except OSError as error:
            raise failed(self.path, error) from None
        finally:
            self._end = None

    # ---- inside

    def _sealed(self, number: int, together: Sequence[Safeguard], before: bytes) -> tuple[bytes, bytes]:
        plain = encode(_Entry(tuple(together)))
        head = (NONCE_BYTES + len(plain) + TAG_BYTES).to_bytes(4, "big") + number.to_bytes(8, "big")
        head += self._check(head, before)
        nonce = self._rand(NONCE_BYTES)
        entry = head + nonce + self._cipher.encrypt(nonce, plain, MAGIC + head + before)
        return entry, entry[-TAG_BYTES:]

    def _check(self, head: bytes, before: bytes) -> bytes:
        return hmac.digest(self._check_key, head + before, "sha256")[:_CHECK]

    def _where(self) -> _End:
        """Where the file ends; it is read where it is not as this process left it."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return _End((0, 0), 0, _NO_TAG, 0, marked=False)
        except OSError as error:
            raise failed(self.path, error) from None
        now = (found.st_dev, found.st_ino)
        if self._end is None or self._end.file != now or found.st_size != self._end.length:
            read = self._read(self.path)
            self._end = _End(now, read.length, read.before, read.number, read.marked)
        return self._end

    def _read(self, path: Path) -> _Read:
        content = content_of(path)
        marked = self._file.begins(content)
        if not marked and content[:MAGIC_BYTES] != _BEFORE[: len(content)]:
            raise DecodeError("privacy.safeguards_damaged", path=str(path))
        if len(content) < MAGIC_BYTES:
            return _Read([], 0, _NO_TAG, 0, marked)
        magic = MAGIC if marked else _BEFORE
        found: list[tuple[int, Safeguard]] = []
        start, before, last, cut_short = BEGINNING if marked else MAGIC_BYTES, _NO_TAG, 0, True
        while start + _HEAD <= len(content):
            head = content[start : start + _HEAD]
            length, number = int.from_bytes(head[:4], "big"), int.from_bytes(head[4:12], "big")
            end = start + _HEAD + length
            if not hmac.compare_digest(self._check(head[:-_CHECK], before), head[-_CHECK:]):
                cut_short = marked or has_hole(content, start, start + _HEAD)
                break
            if end > len(content):
                break
            sealed = content[start + _HEAD : end]
            try:
                plain = self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], magic + head + before)
            except InvalidTag:
                cut_short = marked or (end == len(content) and has_hole(content, start, end))
                break
            if marked and not self._file.marked(content, end):
                cut_short = self._file.never_was(content, start, end)
                break
            if number <= last:
                raise DecodeError("privacy.safeguards_damaged", path=str(path))
            found += ((number, one) for one in decode(_Entry, plain).together)
            start, before, last = end + (MARK_BYTES if marked else 0), sealed[-TAG_BYTES:], number
        if not cut_short or (marked and not self._file.never_was(content, start)):
            raise DecodeError("privacy.safeguards_damaged", path=str(path))
        return _Read(found, start, before, last, marked)


def latest(
    entries: Iterable[tuple[int, Safeguard]],
) -> dict[tuple[str, str, bytes], tuple[int, Safeguard]]:
    """The last word on each thing, with its number, in the order in which they were said."""
    found: dict[tuple[str, str, bytes], tuple[int, Safeguard]] = {}
    for number, one in entries:
        found.pop(one.about, None)
        found[one.about] = (number, one)
    return found
