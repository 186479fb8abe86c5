"""Who calls: a person with a session, or a program with a token and the key that the token is bound to.

Both are secrets and stay out of reprs, messages and logs. A program's file is JSON of mode 600, which
`medveil tokens issue --out FILE` writes.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from medveil.client.exchange import Request
from wire.durable import put_as_new, put_in_place
from wire.errors import DecodeError, Refused, Unavailable
from wire.signing import Signer

Clock = Callable[[], int]
Rand = Callable[[int], bytes]

_LONGEST = 64 * 1024


@dataclass(frozen=True)
class Session:
    """A person's session. secret: from signing in."""

    secret: str = field(repr=False)

    def fields(self, request: Request, clock: Clock, rand: Rand) -> tuple[tuple[str, str], ...]:
        """Header fields that say who calls."""
        return (("authorization", f"Bearer {self.secret}"),)


@dataclass(frozen=True)
class Program:
    """A program. token: secret; signer: holds the ed25519 key that the token is bound to."""

    token: str = field(repr=False)
    signer: Signer

    def fields(self, request: Request, clock: Clock, rand: Rand) -> tuple[tuple[str, str], ...]:
        """Header fields that say who calls; of a call that changes something also its signature (RFC 9421).

        Made anew for each try: a signature works once.
        """
        from medveil.service.accounts.signed_request import PlainRequest, needs_signature, sign_request

        who = ("authorization", f"Bearer {self.token}")
        if not needs_signature(request.method):
            return (who,)
        plain = PlainRequest(request.method, request.url, (*request.headers, who), request.content or b"")
        return (who, *sign_request(plain, self.signer, clock=clock, rand=rand).items())


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    gateway: str
    token: str
    key: str
    ca: str = ""
    trust: str = ""
    organisation: str = ""


@dataclass(frozen=True)
class ProgramFile:
    """What a program needs to call one gateway. ca, trust: paths, or empty; organisation: whose it is, or empty."""

    gateway: str
    program: Program
    ca: str
    trust: str
    organisation: str


def write_program(
    path: Path, gateway: str, token: str, seed: bytes, *, ca: str = "", trust: str = "", organisation: str = ""
) -> None:
    """Write a program's file, readable by its owner alone. Raises Refused if it exists, Unavailable (disk)."""
    file = _File(1, gateway, token, seed.hex(), ca, trust, organisation)
    write_private(path, msgspec.json.encode(file) + b"\n", new=True)


def read_program(path: Path) -> ProgramFile:
    """A program's file. Raises Refused if others may read it, Unavailable, DecodeError."""
    try:
        file = msgspec.json.decode(read_private(path), type=_File)
        seed = bytes.fromhex(file.key)
        if file.version != 1 or len(seed) != 32:
            raise ValueError("not a program's file")
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise DecodeError("client.bad_file", file=str(path)) from None
    return ProgramFile(file.gateway, Program(file.token, Signer(seed)), file.ca, file.trust, file.organisation)


def read_private(path: Path) -> bytes:
    """A file of secrets. Raises Refused if others may read it, Unavailable if it is not there or too long."""
    try:
        with path.open("rb") as file:
            if os.name == "posix" and os.fstat(file.fileno()).st_mode & 0o077:
                raise Refused("client.open_file", file=str(path))
            data = file.read(_LONGEST + 1)
    except OSError:
        raise Unavailable("client.unreadable", file=str(path)) from None
    if len(data) > _LONGEST:
        raise DecodeError("client.bad_file", file=str(path))
    return data


def write_private(path: Path, data: bytes, *, new: bool = False) -> None:
    """Write a file of secrets whole or not at all, readable by its owner alone from its first byte on.

    new: it must not be there yet. Raises Refused, Unavailable (disk).
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if new:
                put_as_new(beside, path)
            else:
                put_in_place(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    except FileExistsError:
        raise Refused("client.file_exists", file=str(path)) from None
    except OSError:
        raise Unavailable("client.unwritable", file=str(path)) from None
