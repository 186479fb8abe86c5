"""The trust file: what a verifier pins. Genesis, key sets, the k-of-n cosigning rule.

``consortium.json`` states every fact twice: readable, and inside the canonical bytes of genesis, whose
hash it names. A file whose halves differ, or that is not byte for byte what `write_trust` writes, is
refused. Whoever verifies must get this file from somebody they trust: all else follows from it.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from wire.canonical import decode, encode
from wire.checkpoint.note import origin_of
from wire.domains import GENESIS, digest
from wire.errors import DecodeError, Unavailable, VerificationError
from wire.identifiers import ROLES, check_name
from wire.keyset import Founding, KeySet, Member, SignatureKey
from wire.sealing import HYBRID, X25519
from wire.signing import ED25519, PUBLIC_BYTES

VERSION = 1
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}")
_SEAL_BYTES = {X25519: 32, HYBRID: 1184 + 32}
_LONGEST = 4 * 1024 * 1024


class TrustFile(msgspec.Struct, frozen=True):
    """What a verifier pins. Make one with `trust_of` or `read_trust`, which check it.

    genesis: canonical bytes of `wire.keyset.Founding`; genesis_hash: its 32-byte hash, the name of the chain
    for good; k: cosignatures of distinct re-executing members that make a checkpoint final.
    """

    version: int
    chain: str
    genesis: bytes
    genesis_hash: bytes
    k: int
    sequencer: str
    zone: str
    members: tuple[Member, ...]

    @property
    def origin(self) -> str:
        """The origin line of this chain's checkpoints."""
        return origin_of(self.chain, self.genesis_hash)

    @property
    def founding(self) -> Founding:
        """Genesis itself."""
        return decode(Founding, self.genesis)

    @property
    def re_executing(self) -> tuple[str, ...]:
        """The organisations whose cosignatures count."""
        return tuple(member.organisation for member in self.members if member.re_executes)

    def member(self, organisation: str) -> Member:
        """The member of that name, or VerificationError."""
        for member in self.members:
            if member.organisation == organisation:
                return member
        raise VerificationError("checkpoint.not_member", organisation=organisation)


def founding_hash(founding: Founding) -> bytes:
    """The hash of genesis: 32 bytes that name the chain."""
    return digest(GENESIS, encode(founding))


def needed_cosigners(n: int) -> int:
    """The least k with k > (n + f) / 2 and f = floor((n - 1) / 3), for n re-executing members."""
    return (n + (n - 1) // 3) // 2 + 1


def _fail(rule: str) -> DecodeError:
    return DecodeError("checkpoint.bad_founding", rule=rule)


def check_founding(founding: Founding) -> None:
    """Check what genesis must satisfy, beyond its types. Raises DecodeError naming the rule.

    Names valid and distinct; roles known; the sequencer a member; every signature key ed25519, valid from
    height 0 and used once in the whole consortium (a cosignature does not say whose it is); k > (n + f) / 2.
    """
    check_name(founding.chain, "chain")
    if not _ZONE.fullmatch(founding.zone) or len(founding.zone) > 64:
        raise _fail("zone")
    names = [member.organisation for member in founding.members]
    if not names or len(names) > 1000 or len(set(names)) != len(names) or founding.sequencer not in names:
        raise _fail("members")
    seen: set[bytes] = set()
    for member in founding.members:
        check_name(member.organisation, "organisation")
        if not member.roles or len(set(member.roles)) != len(member.roles) or not set(member.roles) <= set(ROLES):
            raise _fail("roles")
        _check_keys(member.keys, seen)
    n = sum(member.re_executes for member in founding.members)
    if n == 0 or not needed_cosigners(n) <= founding.k <= n:
        raise DecodeError("checkpoint.weak_quorum", k=founding.k, n=n, least=needed_cosigners(n) if n else 1)


def _check_keys(keys: KeySet, seen: set[bytes]) -> None:
    for entry in (keys.envelope, keys.cosign, keys.http, keys.tls):
        if entry.key.algorithm != ED25519 or len(entry.key.public) != PUBLIC_BYTES or entry.valid_from != 0:
            raise _fail("keys")
        if entry.key.public in seen:
            raise _fail("distinct keys")
        seen.add(entry.key.public)
    seal = keys.seal
    if _SEAL_BYTES.get(seal.key.suite) != len(seal.key.public) or seal.valid_from != 0:
        raise _fail("seal key")


def trust_of(founding: Founding) -> TrustFile:
    """The trust file that genesis alone implies. Raises DecodeError if genesis breaks a rule."""
    check_founding(founding)
    return TrustFile(
        version=VERSION,
        chain=founding.chain,
        genesis=encode(founding),
        genesis_hash=founding_hash(founding),
        k=founding.k,
        sequencer=founding.sequencer,
        zone=founding.zone,
        members=founding.members,
    )


# --- the file ----------------------------------------------------------------------------------


class _Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    algorithm: int
    public: str
    valid_from: int


class _Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    organisation: str
    roles: tuple[str, ...]
    re_executes: bool
    keys: dict[str, _Key]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: str
    version: int
    chain: str
    genesis_hash: str
    k: int
    sequencer: str
    zone: str
    members: tuple[_Member, ...]
    genesis: str


def _readable(members: Sequence[Member]) -> tuple[_Member, ...]:
    return tuple(
        _Member(
            organisation=member.organisation,
            roles=member.roles,
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


def format_trust(trust: TrustFile) -> bytes:
    """The bytes of ``consortium.json``."""
    file = _File(
        kind="medveil consortium",
        version=trust.version,
        chain=trust.chain,
        genesis_hash=trust.genesis_hash.hex(),
        k=trust.k,
        sequencer=trust.sequencer,
        zone=trust.zone,
        members=_readable(trust.members),
        genesis=trust.genesis.hex(),
    )
    return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"


def parse_trust(data: bytes) -> TrustFile:
    """The trust file that `data` is. Raises DecodeError unless it is exactly what `format_trust` writes."""
    if len(data) > _LONGEST:
        raise DecodeError("checkpoint.bad_trust_file")
    try:
        file = msgspec.json.decode(data, type=_File)
        genesis = bytes.fromhex(file.genesis)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise DecodeError("checkpoint.bad_trust_file") from None
    if file.version != VERSION:
        raise DecodeError("checkpoint.trust_version", version=file.version)
    trust = trust_of(decode(Founding, genesis))
    if format_trust(trust) != data:
        raise DecodeError("checkpoint.bad_trust_file")
    return trust


def write_trust(path: Path, founding: Founding) -> TrustFile:
    """Write ``consortium.json`` for `founding`, whole or not at all. Raises Unavailable if the disk refuses."""
    trust = trust_of(founding)
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(format_trust(trust))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise Unavailable("checkpoint.trust_unwritable", path=str(path)) from None
    return trust


def read_trust(path: Path) -> TrustFile:
    """The trust file at `path`. Raises Unavailable if it cannot be read, DecodeError if it is not one."""
    try:
        data = path.read_bytes()
    except OSError:
        raise Unavailable("checkpoint.trust_unreadable", path=str(path)) from None
    return parse_trust(data)
