"""In how many ways a planted text or number could stand in a file, an answer or a process.

Characters as UTF-8, UTF-16, GB 18030; escaped for JSON, addresses, Python; as hex and base64 at each alignment; with
its bytes turned round; and the bare hashes by which an enumerable text would be found again, written in these ways too.
Numbers as decimals in fen and yuan, as integers and doubles of either byte order (MessagePack, Arrow, protocol
scalars), milli-fen, and as SQLite writes them. Nothing shorter than six bytes: that would be found by chance.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Iterator
from urllib.parse import quote

from medveil.leak_test.patients import Marker

SHORTEST = 6
"""Bytes of the shortest spelling."""

_HASHES = ("sha256", "sha512", "sha1", "md5", "sm3", "blake2b", "blake2s")
_HASHED = {"name", "identity number", "phone", "record id", "wallet"}
"""Kinds that can be enumerated, so that a bare hash gives them away."""
_DIGEST_BYTES = 16
"""So much of a hash is searched for: it may be cut."""


def spellings(marker: Marker) -> dict[bytes, str]:
    """Every spelling of a marker, with what it is called."""
    found: dict[bytes, str] = {}
    pairs = _of_number(marker.number) if marker.number is not None else _of_text(marker.text, marker.kind in _HASHED)
    for how, data in pairs:
        if len(data) >= SHORTEST:
            found.setdefault(data, how)
    return found


def _of_text(text: str, hashed: bool) -> Iterator[tuple[str, bytes]]:
    raw = text.encode()
    yield "UTF-8", raw
    yield from _of_bytes("UTF-8", raw)
    for code in ("utf-16-le", "utf-16-be", "gb18030"):
        yield code.upper(), text.encode(code)
        yield from _of_bytes(code.upper(), text.encode(code))
    yield "JSON", json.dumps(text)[1:-1].encode()
    yield "address", quote(text, safe="").encode()
    yield "address", quote(text, safe="").lower().encode()
    yield "Python", repr(raw)[2:-1].encode()
    yield "other letters", text.upper().encode()
    yield "other letters", text.lower().encode()
    yield "turned round", text[::-1].encode()
    if text.isdigit():
        yield from _of_integer("number", int(text))
    if hashed:
        for name in _HASHES:
            digest = _hash(name, raw)
            if digest:
                yield f"bare {name}", digest[:_DIGEST_BYTES]
                yield from _of_bytes(f"bare {name}", digest[:_DIGEST_BYTES])


def _of_bytes(what: str, raw: bytes) -> Iterator[tuple[str, bytes]]:
    yield f"{what}, hex", raw.hex().encode()
    yield f"{what}, hex", raw.hex().upper().encode()
    yield f"{what}, turned round", raw[::-1]
    for shift in range(3):  # base64 at each alignment, without the characters that its neighbours share
        whole = base64.b64encode(bytes(shift) + raw)
        first, last = -(-8 * shift // 6), 8 * (shift + len(raw)) // 6
        yield f"{what}, base64", whole[first:last]
        yield f"{what}, base64", base64.urlsafe_b64encode(bytes(shift) + raw)[first:last]


def _of_number(fen: int) -> Iterator[tuple[str, bytes]]:
    whole, part = divmod(fen, 100)
    for text in (str(fen), f"{whole}.{part:02}", f"{whole:,}.{part:02}", f"{fen:,}", repr(fen / 100)):
        yield "decimal", text.encode()
        yield from _of_bytes("decimal", text.encode())
        yield "decimal, UTF-16", text.encode("utf-16-le")
        yield "decimal, UTF-16", text.encode("utf-16-be")
    yield from _of_integer("fen", fen)
    yield from _of_integer("milli-fen", 1000 * fen)
    for value in (float(fen), fen / 100):
        for order in (">d", "<d"):
            data = struct.pack(order, value)
            yield "double", data
            yield "double, hex", data.hex().encode()


def _of_integer(what: str, value: int) -> Iterator[tuple[str, bytes]]:
    for order in (">q", "<q"):
        data = struct.pack(order, value)
        yield f"{what}, integer", data
        yield f"{what}, integer, hex", data.hex().encode()
        for shift in range(3):
            first, last = -(-8 * shift // 6), 8 * (shift + len(data)) // 6
            yield f"{what}, integer, base64", base64.b64encode(bytes(shift) + data)[first:last]
    if value < 2**47:
        yield f"{what}, as SQLite writes it", value.to_bytes(6, "big")


def _hash(name: str, raw: bytes) -> bytes:
    """A hash; nothing where this machine's library lacks it."""
    try:
        return hashlib.new(name, raw, usedforsecurity=False).digest()
    except ValueError:
        return b""
