"""What passes between `Pkcs11KeyProvider` and the process that speaks to its token: messages, and their frames.

A frame is four bytes of length and one MessagePack value. Both ends are this program's own.
"""

from __future__ import annotations

import socket
import struct

import msgspec

_LENGTH = struct.Struct(">I")
_LARGEST = 64 * 1024 * 1024


class Request(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """What is asked. patience: seconds after which the process ends rather than go on waiting for the token."""

    patience: int

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"  # a PIN or keys may be in it


class Connect(Request, frozen=True, tag="connect"):
    """Load the module, log in and read which epochs there are; create: of a set of keys that is not there yet."""

    module: str
    token: str
    name: str
    pin: str
    create: bool


class NewEpoch(Request, frozen=True, tag="new"):
    """Make the next epoch's key."""


class Destroy(Request, frozen=True, tag="destroy"):
    """Destroy an epoch's key."""

    epoch: int


class Remove(Request, frozen=True, tag="remove"):
    """Destroy the whole set: every key, and the number of the next one."""


class Wrap(Request, frozen=True, tag="wrap"):
    """Encrypt each (nonce, key, context)."""

    epoch: int
    items: list[tuple[bytes, bytes, bytes]]


class Unwrap(Request, frozen=True, tag="unwrap"):
    """Decrypt each (wrapped, context)."""

    epoch: int
    items: list[tuple[bytes, bytes]]


class Epochs(msgspec.Struct, frozen=True, array_like=True, tag="epochs"):
    """The epochs that there are now, rising; made: the one that was just made, or 0."""

    epochs: list[int]
    made: int = 0


class Answers(msgspec.Struct, frozen=True, array_like=True, tag="answers"):
    """One for each item; None for what was altered."""

    items: list[bytes | None]

    def __repr__(self) -> str:
        return f"Answers({len(self.items)})"


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="failed"):
    """why: "module", "token", "pin", "pin_locked", "exists", "missing", "extractable", "twice", "mechanism", "gone"
    (no such epoch) or "failed". reason: the name of the token's error, or of the epoch; never data."""

    why: str
    reason: str


requests = msgspec.msgpack.Decoder(Connect | NewEpoch | Destroy | Remove | Wrap | Unwrap)
answers = msgspec.msgpack.Decoder(Epochs | Answers | Failed)


def send(line: socket.socket, message: msgspec.Struct) -> None:
    """One message, its length before it. Raises OSError."""
    data = msgspec.msgpack.encode(message)
    line.sendall(_LENGTH.pack(len(data)) + data)


def receive(line: socket.socket) -> bytes:
    """The bytes of one message. Raises OSError (a timeout is one), EOFError where the other side is gone."""
    (length,) = _LENGTH.unpack(_exactly(line, _LENGTH.size))
    if length > _LARGEST:
        raise EOFError
    return _exactly(line, length)


def _exactly(line: socket.socket, count: int) -> bytes:
    found = bytearray(count)
    view, at = memoryview(found), 0
    while at < count:
        read = line.recv_into(view[at:])
        if not read:
            raise EOFError
        at += read
    return bytes(found)
