"""Who the members are at a height, and how many of them must cosign: genesis, and every change since.

A membership holds from one height to the next change. Block `h`, the envelopes in it and the head over it
(of size `h + 1`) belong to the membership at `h`. So what old keys signed stays verifiable by the membership of its
time. `ledger.handovers` says how a verifier comes to believe in a change.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import msgspec

from wire.errors import DecodeError, VerificationError
from wire.identifiers import ROLES, check_name
from wire.keyset import Founding, KeySet, Member, MembershipChange, MembershipChanges, SignatureKey
from wire.sealing import HYBRID, X25519
from wire.signing import ED25519, PUBLIC_BYTES

MOST_MEMBERS = 1000
_SEAL_BYTES = {X25519: 32, HYBRID: 1184 + 32}


def needed_cosigners(n: int) -> int:
    """The least k with k > (n + f) / 2 and f = floor((n - 1) / 3), for n re-executing members."""
    return (n + (n - 1) // 3) // 2 + 1


def cosigners_of(founding_k: int, founding_n: int, n: int) -> int:
    """k for n (>= 1) re-executing members, where genesis asked for `founding_k` of `founding_n`.

    What genesis asked for, at least what the rule needs; where members left, as many may still be missing as before,
    unless the rule needs more: otherwise those who leave would give each that stays a veto.
    """
    spare = founding_n - founding_k
    return max(min(founding_k, n - spare), needed_cosigners(n))


class Membership(msgspec.Struct, frozen=True, dict=True):
    """The members from block `from_height` on. k: cosignatures of distinct re-executing ones that make a head final."""

    from_height: int
    k: int
    members: tuple[Member, ...]

    @property
    def re_executing(self) -> tuple[str, ...]:
        """The organisations whose cosignatures count."""
        return tuple(member.organisation for member in self.members if member.re_executes)

    @cached_property
    def _by_name(self) -> dict[str, Member]:
        return {member.organisation: member for member in self.members}

    def find(self, organisation: str) -> Member | None:
        """The member of that name, if there is one."""
        return self._by_name.get(organisation)

    def member(self, organisation: str) -> Member:
        """The member of that name, or VerificationError."""
        member = self.find(organisation)
        if member is None:
            raise VerificationError("checkpoint.not_member", organisation=organisation)
        return member


def fails(rule: str) -> DecodeError:
    """The error that genesis or a later change breaks `rule`."""
    return DecodeError("checkpoint.bad_founding", rule=rule)


def check_member(member: Member) -> None:
    """Check what any member must satisfy beyond its types: name, known and distinct roles, key algorithms and lengths.

    Raises DecodeError naming the rule.
    """
    check_name(member.organisation, "organisation")
    if not member.roles or len(set(member.roles)) != len(member.roles) or not set(member.roles) <= set(ROLES):
        raise fails("roles")
    for entry in signature_keys(member.keys):
        if entry.key.algorithm != ED25519 or len(entry.key.public) != PUBLIC_BYTES:
            raise fails("keys")
    seal = member.keys.seal.key
    if _SEAL_BYTES.get(seal.suite) != len(seal.public):
        raise fails("seal key")


def signature_keys(keys: KeySet) -> tuple[SignatureKey, SignatureKey, SignatureKey, SignatureKey]:
    """The four signature keys of a set: envelope, cosign, http, tls."""
    return keys.envelope, keys.cosign, keys.http, keys.tls


def memberships(founding: Founding, changes: Sequence[MembershipChanges]) -> tuple[Membership, ...]:
    """The membership of genesis (checked already) and after each of `changes`, in order.

    Raises DecodeError naming the rule that a change breaks: heights grow and each names the one before; a change
    changes something; a new key was never used before, by anyone or for anything, and is valid from the
    change's height; the sequencer stays; somebody re-executes.
    """
    members = {member.organisation: member for member in founding.members}
    seen = {public for member in founding.members for public in publics(member.keys)}
    found = [Membership(0, founding.k, founding.members)]
    founding_n = len(found[0].re_executing)
    for one in changes:
        if one.from_height <= found[-1].from_height or one.previous != found[-1].from_height:
            raise fails("heights of changes")
        for change in one.changes:
            _apply(change, one.from_height, members, seen)
        n = sum(member.re_executes for member in members.values())
        if n == 0 or len(members) > MOST_MEMBERS or founding.sequencer not in members:
            raise fails("members")
        found.append(Membership(one.from_height, cosigners_of(founding.k, founding_n, n), tuple(members.values())))
    return tuple(found)


def publics(keys: KeySet) -> tuple[bytes, ...]:
    """The public bytes of all keys of a set, of the sealing key last."""
    return (
        keys.envelope.key.public,
        keys.cosign.key.public,
        keys.http.key.public,
        keys.tls.key.public,
        keys.seal.key.public,
    )


def _apply(change: MembershipChange, height: int, members: dict[str, Member], seen: set[bytes]) -> None:
    before = members.get(change.organisation)
    after = change.member
    if after is None:
        if before is None:
            raise fails("members")
        del members[change.organisation]
        return
    if after.organisation != change.organisation or after == before:
        raise fails("members")
    check_member(after)
    if before is not None and msgspec.structs.replace(after, keys=before.keys) != before:
        raise fails("what a rotation changes")
    for use in KeySet.__struct_fields__:
        entry = getattr(after.keys, use)
        if before is not None and entry == getattr(before.keys, use):
            continue
        if entry.valid_from != height:
            raise fails("heights of keys")
        if entry.key.public in seen:
            raise fails("distinct keys")
        seen.add(entry.key.public)
    members[change.organisation] = after
