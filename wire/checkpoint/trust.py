"""What a verifier pins: genesis, every change of the members since, and the k-of-n cosigning rule.

Whoever verifies must get it from somebody they trust: all else follows from it. What `trust_of` makes of genesis
alone verifies everything up to the first change; `with_changes` adds one that the caller has come to believe
(`ledger.handovers`). ``consortium.json`` is its file: `wire.checkpoint.trust_file`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable

import msgspec

from wire.canonical import decode, encode
from wire.checkpoint.membership import (
    MOST_MEMBERS,
    Membership,
    check_member,
    fails,
    memberships,
    needed_cosigners,
    signature_keys,
)
from wire.checkpoint.note import origin_of
from wire.domains import GENESIS, digest
from wire.errors import DecodeError
from wire.identifiers import check_name
from wire.keyset import Founding, Member, MembershipChanges

_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}")


class TrustFile(msgspec.Struct, frozen=True):
    """What a verifier pins. Make one with `trust_of`, `with_changes` or `read_trust`, which check it.

    genesis: canonical bytes of `wire.keyset.Founding`; genesis_hash: its 32-byte hash, the name of the chain
    for good; changes: of the members since, as far as this file knows them; epochs: who the members are,
    of genesis first and then from each change on.
    """

    chain: str
    genesis: bytes
    genesis_hash: bytes
    sequencer: str
    zone: str
    changes: tuple[MembershipChanges, ...]
    epochs: tuple[Membership, ...]

    @property
    def origin(self) -> str:
        """The origin line of this chain's checkpoints."""
        return origin_of(self.chain, self.genesis_hash)

    @property
    def founding(self) -> Founding:
        """Genesis itself."""
        return decode(Founding, self.genesis)

    def at(self, height: int) -> Membership:
        """The members in block `height`, which sign the head of size `height + 1`; below 0 as at 0."""
        return self.epochs[bisect_right(self.epochs, max(height, 0), key=_from_height) - 1]

    @property
    def latest(self) -> Membership:
        """The newest membership that this file knows."""
        return self.epochs[-1]

    @property
    def k(self) -> int:
        """Cosignatures that the newest membership needs."""
        return self.latest.k

    @property
    def members(self) -> tuple[Member, ...]:
        """The members of the newest membership."""
        return self.latest.members

    def member(self, organisation: str) -> Member:
        """The member of the newest membership with that name, or VerificationError."""
        return self.latest.member(organisation)

    @property
    def everybody(self) -> tuple[str, ...]:
        """Every organisation that was ever a member, in order of arrival."""
        return tuple(dict.fromkeys(member.organisation for epoch in self.epochs for member in epoch.members))

    def with_changes(self, more: Iterable[MembershipChanges]) -> TrustFile:
        """This file and further changes, which the caller believes. Raises DecodeError if one breaks a rule."""
        changes = (*self.changes, *more)
        return msgspec.structs.replace(self, changes=changes, epochs=memberships(self.founding, changes))

    def until(self, height: int) -> TrustFile:
        """This file without the changes that hold only after block `height`."""
        kept = sum(change.from_height <= height for change in self.changes)
        if kept == len(self.changes):
            return self
        return msgspec.structs.replace(self, changes=self.changes[:kept], epochs=self.epochs[: kept + 1])


def _from_height(epoch: Membership) -> int:
    return epoch.from_height


def founding_hash(founding: Founding) -> bytes:
    """The hash of genesis: 32 bytes that name the chain."""
    return digest(GENESIS, encode(founding))


def check_founding(founding: Founding) -> None:
    """Check what genesis must satisfy, beyond its types. Raises DecodeError naming the rule.

    Names valid and distinct; roles known; the sequencer a member; every signature key ed25519, valid from
    height 0 and used once in the whole consortium (a cosignature does not say whose it is); k > (n + f) / 2.
    """
    check_name(founding.chain, "chain")
    if not _ZONE.fullmatch(founding.zone) or len(founding.zone) > 64:
        raise fails("zone")
    names = [member.organisation for member in founding.members]
    if not 0 < len(names) <= MOST_MEMBERS or len(set(names)) != len(names) or founding.sequencer not in names:
        raise fails("members")
    seen: set[bytes] = set()
    for member in founding.members:
        check_member(member)
        for entry in (*signature_keys(member.keys), member.keys.seal):
            if entry.valid_from != 0:
                raise fails("heights of keys")
        for signing in signature_keys(member.keys):
            if signing.key.public in seen:
                raise fails("distinct keys")
            seen.add(signing.key.public)
    n = sum(member.re_executes for member in founding.members)
    if n == 0 or not needed_cosigners(n) <= founding.k <= n:
        raise DecodeError("checkpoint.weak_quorum", k=founding.k, n=n, least=needed_cosigners(n) if n else 1)


def trust_of(founding: Founding) -> TrustFile:
    """The trust file that genesis alone implies. Raises DecodeError if genesis breaks a rule."""
    check_founding(founding)
    return TrustFile(
        chain=founding.chain,
        genesis=encode(founding),
        genesis_hash=founding_hash(founding),
        sequencer=founding.sequencer,
        zone=founding.zone,
        changes=(),
        epochs=memberships(founding, ()),
    )
