"""A long text encrypted chunk by chunk, so that neither side holds more than two chunks of it: STREAM.

Hoang, Reyhanitabar, Rogaway, Vizar: Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance (CRYPTO
2015), section 7, the construction that age and Tink use. Under a key that seals this one text:

    chunk_i  =  AEAD(key, prefix || i || last, text_i; place)      i: 4 bytes; last: 1 for the last chunk, else 0

Every chunk but the last holds 64 KiB of text; the last one is empty only where the whole text is. A chunk that was
changed, moved, repeated, left out or taken from elsewhere does not open, and a text that was cut short or made longer
raises VerificationError where it ends: whoever reads has had the chunks before that, which are as they were written.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from cryptography.exceptions import InvalidTag

from privacy.suites import TAG_BYTES, Aead
from wire.errors import VerificationError

CHUNK = 64 * 1024
"""Bytes of text in a chunk."""

PREFIX_BYTES = 7
_MOST = 2**32
_SEALED = CHUNK + TAG_BYTES


class Readable(Protocol):
    """Where bytes come from: a file opened to read, a socket's file, a response's body."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        ...


def sealed_chunks(cipher: Aead, prefix: bytes, place: bytes, source: Readable) -> Iterator[bytes]:
    """The sealed chunks of `source`'s text (secret). cipher: of a key that seals nothing else. prefix: 7 bytes.

    Raises what `source` raises; ValueError beyond 2^32 chunks.
    """
    if len(prefix) != PREFIX_BYTES:
        raise ValueError("a prefix has 7 bytes")
    text = _exactly(source.read, CHUNK)
    for number in range(_MOST):
        following = _exactly(source.read, CHUNK) if len(text) == CHUNK else b""
        yield cipher.encrypt(_nonce(prefix, number, not following), text, place)
        if not following:
            return
        text = following
    raise ValueError("the text is too long")


class SealedReader(io.RawIOBase):
    """The text of sealed chunks, read in order. source: is closed with it. altered: makes the error that is raised.

    Raises VerificationError where a chunk is not what was sealed there, or the end is not the end.
    """

    def __init__(
        self, cipher: Aead, prefix: bytes, place: bytes, source: Any, altered: Callable[[], VerificationError]
    ) -> None:
        self._cipher, self._prefix, self._place = cipher, prefix, place
        self._source = source
        self._altered = altered
        self._sealed = _exactly(source.read, _SEALED)
        self._number = 0
        self._text = memoryview(b"")
        self._ended = False

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Some of the text; 0 at its end."""
        if self.closed:
            raise ValueError("it is closed")
        if not self._text and not self._ended:
            self._text = memoryview(self._next())
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self._text))
        target[:count] = self._text[:count]
        self._text = self._text[count:]
        return count

    def _next(self) -> bytes:
        following = _exactly(self._source.read, _SEALED) if len(self._sealed) == _SEALED else b""
        try:
            nonce = _nonce(self._prefix, self._number, not following)
            text = self._cipher.decrypt(nonce, self._sealed, self._place)
        except (InvalidTag, OverflowError):
            raise self._altered() from None
        if not text and self._number:
            raise self._altered()
        self._sealed, self._number, self._ended = following, self._number + 1, not following
        return text

    def close(self) -> None:
        """Close it and its source."""
        if not self.closed:
            self._text = memoryview(b"")
            self._source.close()
        super().close()


def _nonce(prefix: bytes, number: int, last: bool) -> bytes:
    return prefix + number.to_bytes(4, "big") + (b"\1" if last else b"\0")


def _exactly(read: Callable[[int], bytes], count: int) -> bytes:
    """`count` bytes, or all there are."""
    data = read(count)
    if len(data) == count or not data:
        return data
    parts, length = [data], len(data)
    while length < count and (data := read(count - length)):
        parts.append(data)
        length += len(data)
    return b"".join(parts)
