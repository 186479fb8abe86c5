"""``consortium.json``: the file of what a verifier pins.

It states every fact twice: readable, and inside the canonical bytes of genesis, whose hash it names, and of each
change since. A file whose halves differ, or that is not byte for byte what `write_trust` writes, is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from wire.canonical import decode, encode
from wire.checkpoint.trust import TrustFile, trust_of
from wire.errors import DecodeError, Refused, Unavailable
from wire.evidence import write_file
from wire.keyset import Founding, Member, MembershipChanges, SignatureKey

VERSION = 1
LONGEST = 32 * 1024 * 1024
"""Most bytes of the file."""


class _Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    algorithm: int
    public: str
    valid_from: int


class _Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    organisation: str
    roles: tuple[str, ...]
    tier: str
    re_executes: bool
    keys: dict[str, _Key]


class _Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    from_height: int
    organisation: str
    became: str


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    kind: str
    version: int
    chain: str
    genesis_hash: str
    k: int
    sequencer: str
    zone: str
    members: tuple[_Member, ...]
    genesis: str
    changes: tuple[_Change, ...] = ()
    history: tuple[str, ...] = ()


def _readable(members: Sequence[Member]) -> tuple[_Member, ...]:
    return tuple(
        _Member(
            organisation=member.organisation,
            roles=member.roles,
            tier=member.tier,
            re_executes=member.re_executes,
            keys={
                "envelope": _key(member.keys.envelope),
                "cosign": _key(member.keys.cosign),
                "http": _key(member.keys.http),
                "tls": _key(member.keys.tls),
                "seal": _Key(
                    member.keys.seal.key.suite, member.keys.seal.key.public.hex(), member.keys.seal.valid_from
                ),
            },
        )
        for member in members
    )


def _key(entry: SignatureKey) -> _Key:
    return _Key(entry.key.algorithm, entry.key.public.hex(), entry.valid_from)


def _changes(trust: TrustFile) -> tuple[_Change, ...]:
    found: list[_Change] = []
    for before, one in zip(trust.epochs, trust.changes, strict=False):
        for change in one.changes:
            became = "left"
            if change.member is not None:
                became = "joined" if before.find(change.organisation) is None else "new keys"
            found.append(_Change(one.from_height, change.organisation, became))
    return tuple(found)


def format_trust(trust: TrustFile) -> bytes:
    """The bytes of ``consortium.json``."""
    file = _File(
        kind="medveil consortium",
        version=VERSION,
        chain=trust.chain,
        genesis_hash=trust.genesis_hash.hex(),
        k=trust.k,
        sequencer=trust.sequencer,
        zone=trust.zone,
        members=_readable(trust.members),
        genesis=trust.genesis.hex(),
        changes=_changes(trust),
        history=tuple(encode(one).hex() for one in trust.changes),
    )
    return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"


def parse_trust(data: bytes) -> TrustFile:
    """The trust file that `data` is. Raises DecodeError unless it is exactly what `format_trust` writes."""
    if len(data) > LONGEST:
        raise DecodeError("checkpoint.bad_trust_file")
    try:
        file = msgspec.json.decode(data, type=_File)
        genesis = bytes.fromhex(file.genesis)
        history = [bytes.fromhex(one) for one in file.history]
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise DecodeError("checkpoint.bad_trust_file") from None
    if file.version != VERSION:
        raise DecodeError("checkpoint.trust_version", version=file.version)
    trust = trust_of(decode(Founding, genesis)).with_changes(decode(MembershipChanges, one) for one in history)
    if format_trust(trust) != data:
        raise DecodeError("checkpoint.bad_trust_file")
    return trust


def write_trust(path: Path, trust: TrustFile) -> None:
    """Write ``consortium.json``, whole or not at all.

    Raises Unavailable if the disk refuses, Refused if it would be too long to be read.
    """
    data = format_trust(trust)
    if len(data) > LONGEST:
        raise Refused("checkpoint.trust_too_long", length=len(data), limit=LONGEST)
    try:
        write_file(path, data)
    except OSError:
        raise Unavailable("checkpoint.trust_unwritable", path=str(path)) from None


def read_trust(path: Path) -> TrustFile:
    """The trust file at `path`. Raises Unavailable if it cannot be read, DecodeError if it is not one."""
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST + 1)
    except OSError:
        raise Unavailable("checkpoint.trust_unreadable", path=str(path)) from None
    return parse_trust(data)
