"""What the command line keeps between two calls: sessions and pinned trust files, in the user's configuration folder.

``sessions.json`` holds secrets and has mode 600, in a folder of mode 700; a file that others may read is refused.
``trust/<genesis>.json`` are the trust files that the user pinned; they grow by proven changes of members alone.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import typer

FILE = "sessions.json"
VERSION = 1


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is kept of one gateway. session, device: secrets. ca, trust: paths, or empty.

    organisation: whose it is, as it said at the first sign-in; every call checks that it says so still.
    """

    person: str = ""
    session: str = ""
    device: str = ""
    expires: int = 0
    ca: str = ""
    trust: str = ""
    organisation: str = ""

    def __repr__(self) -> str:
        return f"Kept({self.person!r})"


class Sessions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By the gateway's origin. current: the one that was signed in to last."""

    version: int = VERSION
    current: str = ""
    gateways: dict[str, Kept] = {}

    def named(self, gateway: str) -> str:
        """The origin of a gateway that is named by its address, or by its organisation once signed in to.

        Of several consortia's organisations of that name, the one that was signed in to last. Raises Refused.
        """
        from medveil.client.line import origin_of

        of_that_name = [origin for origin, kept in self.gateways.items() if kept.organisation == gateway]
        return of_that_name[-1] if of_that_name else origin_of(gateway)


def folder() -> Path:
    """The user's folder: MEDVEIL_CONFIG, or the system's usual place (XDG_CONFIG_HOME)."""
    return Path(os.environ.get("MEDVEIL_CONFIG") or typer.get_app_dir("medveil", force_posix=False))


def read_sessions() -> Sessions:
    """What is kept; nothing on the first call. Raises Refused (others may read it), DecodeError, Unavailable."""
    from medveil.client.credentials import read_private
    from wire.errors import DecodeError

    path = folder() / FILE
    if not path.exists():
        return Sessions()
    try:
        sessions = msgspec.json.decode(read_private(path), type=Sessions)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise DecodeError("client.bad_file", file=str(path)) from None
    if sessions.version != VERSION:
        raise DecodeError("client.bad_file", file=str(path))
    return sessions


def keep(gateway: str, kept: Kept) -> None:
    """Keep this of a gateway, and make it the current one. Raises Unavailable (disk)."""
    from medveil.client.credentials import write_private

    before = read_sessions()
    others = {origin: one for origin, one in before.gateways.items() if origin != gateway}
    sessions = Sessions(VERSION, gateway, others | {gateway: kept})
    _make(folder())
    write_private(folder() / FILE, msgspec.json.format(msgspec.json.encode(sessions)) + b"\n")


def pin(trust: Path) -> Path:
    """Keep a copy of a trust file as the pinned one of its consortium; returns where.

    One that is pinned already and knows more changes stays. Raises DecodeError, Unavailable; Refused for one that
    contradicts what is pinned.
    """
    from wire.checkpoint import read_trust, write_trust
    from wire.errors import Refused

    read = read_trust(trust)
    place = folder() / "trust" / f"{read.genesis_hash.hex()}.json"
    if place.exists():
        known = read_trust(place)
        fewer, more = sorted((known.changes, read.changes), key=len)
        if more[: len(fewer)] != fewer:
            raise Refused("client.other_trust", file=str(trust), pinned=str(place))
        if len(known.changes) >= len(read.changes):
            return place
    _make(folder())
    _make(place.parent)
    write_trust(place, read)
    return place


def _make(place: Path) -> None:
    from wire.errors import Unavailable

    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        raise Unavailable("client.unwritable", file=str(place)) from None
