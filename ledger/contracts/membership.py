"""The members as the ledger has them: who, what they may do, with which keys, and what changes at which height.

This is the state below every contract; the ops that change it are those of `organisations`. A change of members or
keys is agreed in one block and holds from a later one on. Each height with changes names the one before it, so that
a verifier who is shown them one by one (`ledger.handovers`) misses none. k follows the number of members that
re-execute. A key that was ever named is never another's, and never comes back.

State keys: ``organisations/consortium`` -> Consortium; ``organisations/member/<name>`` -> MemberState;
``organisations/changes/<height>`` -> wire.keyset.MembershipChanges; ``organisations/key/<digest>`` -> KeyUse;
``organisations/ballot/<name>``, ``organisations/removal/<name>`` -> ballots, closed when a member leaves.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from ledger.contracts.contract import View, state_key
from wire.canonical import Wire
from wire.checkpoint.membership import MOST_MEMBERS, cosigners_of, publics
from wire.domains import KEY_POSSESSION, digest
from wire.errors import Refused
from wire.identifiers import Hash, Name
from wire.keyset import Founding, Height, KeySet, Member, MembershipChange, MembershipChanges, Tier

NAME = "organisations"
MOST_PENDING = 100
"""Heights at which agreed changes may wait at a time."""

Count = Annotated[int, msgspec.Meta(ge=0, le=MOST_MEMBERS)]


class Consortium(Wire, frozen=True, tag="organisations.consortium"):
    """The consortium now. genesis: its hash; founding_k: the k that genesis asked for; k: the one in force.

    members, cosigners: how many there are, and re-execute; latest: height of the latest change in force, 0 for
    none; pending: heights of agreed changes to come, in order.
    """

    genesis: Hash
    founding_k: Annotated[int, msgspec.Meta(ge=1, le=1000)]
    founding_n: Count
    k: Annotated[int, msgspec.Meta(ge=1, le=1000)]
    sequencer: Name
    zone: str
    members: Count
    cosigners: Count
    latest: Height
    pending: Annotated[tuple[Height, ...], msgspec.Meta(max_length=MOST_PENDING)]


class MemberState(Wire, frozen=True, tag="organisations.member"):
    """One member as the ledger has it now."""

    organisation: Name
    roles: tuple[str, ...]
    tier: Tier
    keys: KeySet
    re_executes: bool
    suspended: bool


class Seat(Wire, frozen=True, tag="organisations.seat"):
    """A voter. since: height from which the envelope key is valid that cast the vote."""

    organisation: Name
    since: Height


Seats = Annotated[tuple[Seat, ...], msgspec.Meta(max_length=MOST_MEMBERS)]


class KeyUse(Wire, frozen=True, tag="organisations.key_use"):
    """Who named a key first."""

    organisation: Name


def consortium_key() -> bytes:
    """State key of the consortium."""
    return state_key(NAME, "consortium")


MEMBERS = state_key(NAME, "member", "")
"""What the state keys of all members begin with."""


def member_key(organisation: str) -> bytes:
    """State key of a member."""
    return state_key(NAME, "member", organisation)


def changes_key(height: int) -> bytes:
    """State key of the changes that hold from block `height` on."""
    return state_key(NAME, "changes", height)


def key_use_key(public: bytes) -> bytes:
    """State key of a public key's use."""
    return state_key(NAME, "key", digest(KEY_POSSESSION, public))


def ballot_key(organisation: str) -> bytes:
    """State key of the open vote on a member's suspension."""
    return state_key(NAME, "ballot", organisation)


def removal_key(organisation: str) -> bytes:
    """State key of the open vote on a member's removal."""
    return state_key(NAME, "removal", organisation)


def found(founding: Founding, genesis: bytes, view: View) -> None:
    """Write what genesis says."""
    cosigners = sum(member.re_executes for member in founding.members)
    consortium = Consortium(
        genesis=genesis,
        founding_k=founding.k,
        founding_n=cosigners,
        k=founding.k,
        sequencer=founding.sequencer,
        zone=founding.zone,
        members=len(founding.members),
        cosigners=cosigners,
        latest=0,
        pending=(),
    )
    view.put(consortium_key(), consortium)
    for member in founding.members:
        _enter(member, view, suspended=False)
        claim(member, view)


def _enter(member: Member, view: View, suspended: bool) -> None:
    state = MemberState(
        member.organisation, member.roles, member.tier, member.keys, member.re_executes, suspended=suspended
    )
    view.put(member_key(member.organisation), state)


def claim(member: Member, view: View) -> None:
    """Note that its keys are its own, for good."""
    for public in publics(member.keys):
        view.put(key_use_key(public), KeyUse(member.organisation))


def consortium(view: View) -> Consortium:
    """The consortium as it is."""
    state = view.get(consortium_key(), Consortium)
    assert state is not None  # written by genesis
    return state


def member(view: View, organisation: str) -> MemberState:
    """The member of that name. Raises Refused."""
    state = view.get(member_key(organisation), MemberState)
    if state is None:
        raise Refused("organisations.unknown", organisation=organisation)
    return state


def is_member(view: View, organisation: str) -> bool:
    """Whether there is a member of that name now."""
    return view.get(member_key(organisation), MemberState) is not None


def require_role(view: View, sender: str, *roles: str) -> MemberState:
    """The sender, which must have one of `roles`. Raises Refused."""
    state = member(view, sender)
    if not any(role in state.roles for role in roles):
        raise Refused("organisations.role", organisation=sender, roles=", ".join(roles))
    return state


def require_vote(view: View, sender: str) -> None:
    """Raises Refused unless the sender re-executes, so that its vote counts."""
    if not member(view, sender).re_executes:
        raise Refused("organisations.no_vote", organisation=sender)


def seat(view: View, organisation: str) -> Seat:
    """The seat with which a member votes. Raises Refused if it is none."""
    return Seat(organisation, member(view, organisation).keys.envelope.valid_from)


def held(view: View, one: Seat) -> bool:
    """Whether the seat is still its voter's: not after a rotation, nor for a later member of that name."""
    state = view.get(member_key(one.organisation), MemberState)
    return state is not None and state.keys.envelope.valid_from == one.since


def enough(view: View, seats: Seats) -> bool:
    """Whether k of `seats` are members' now that re-execute and are not suspended."""
    counted = 0
    for one in seats:
        state = view.get(member_key(one.organisation), MemberState)
        counted += state is not None and held(view, one) and state.re_executes and not state.suspended
    return counted >= consortium(view).k


# --- changes to come -------------------------------------------------------------------------------


def changes_at(view: View, height: int) -> MembershipChanges | None:
    """What changes with block `height`, as agreed so far."""
    return view.get(changes_key(height), MembershipChanges)


def due(view: View, height: int) -> tuple[MembershipChange, ...]:
    """The single changes at a height."""
    found = changes_at(view, height)
    return found.changes if found is not None else ()


def pending(view: View, organisation: str) -> tuple[int, MembershipChange] | None:
    """Height and change that an organisation still waits for."""
    for height in consortium(view).pending:
        for change in due(view, height):
            if change.organisation == organisation:
                return height, change
    return None


def keys_at(view: View, organisation: str, height: int) -> KeySet | None:
    """The keys of a member in block `height`, from now on: None if it is none then, as agreed so far."""
    state = view.get(member_key(organisation), MemberState)
    keys = state.keys if state is not None else None
    waiting = pending(view, organisation)
    if waiting is None or waiting[0] > height:
        return keys
    return waiting[1].member.keys if waiting[1].member is not None else None


def schedule(height: int, change: MembershipChange, view: View) -> None:
    """Enter an agreed change; each height names the one before it."""
    state = consortium(view)
    known = changes_at(view, height)
    if known is not None:
        view.put(changes_key(height), msgspec.structs.replace(known, changes=(*known.changes, change)))
        return
    if len(state.pending) >= MOST_PENDING:
        raise Refused("organisations.too_many_changes", limit=MOST_PENDING)
    earlier = tuple(other for other in state.pending if other < height)
    later = tuple(other for other in state.pending if other > height)
    previous = earlier[-1] if earlier else state.latest
    view.put(changes_key(height), MembershipChanges(height, previous, (change,)))
    _link(later, height, view)
    view.put(consortium_key(), msgspec.structs.replace(state, pending=(*earlier, height, *later)))


def unschedule(height: int, change: MembershipChange, view: View) -> None:
    """Take a change back that was not in force yet."""
    known = changes_at(view, height)
    assert known is not None  # the change was found there
    others = tuple(other for other in known.changes if other != change)
    if others:
        view.put(changes_key(height), msgspec.structs.replace(known, changes=others))
        return
    state = consortium(view)
    view.delete(changes_key(height))
    _link(tuple(other for other in state.pending if other > height), known.previous, view)
    left = tuple(other for other in state.pending if other != height)
    view.put(consortium_key(), msgspec.structs.replace(state, pending=left))


def _link(later: tuple[int, ...], previous: int, view: View) -> None:
    if later:
        following = changes_at(view, later[0])
        assert following is not None  # every pending height has its changes
        view.put(changes_key(later[0]), msgspec.structs.replace(following, previous=previous))


def begin_block(view: View, height: int) -> None:
    """Put the changes in force that were agreed for block `height`: before anything in the block happens."""
    state = consortium(view)
    if not state.pending or state.pending[0] != height:
        return
    members, cosigners = state.members, state.cosigners
    for change in due(view, height):
        before = view.get(member_key(change.organisation), MemberState)
        members += (change.member is not None) - (before is not None)
        cosigners += (change.member is not None and change.member.re_executes) - (
            before is not None and before.re_executes
        )
        if change.member is not None:
            _enter(change.member, view, suspended=before is not None and before.suspended)
            continue
        for key in (member_key, ballot_key, removal_key):
            view.delete(key(change.organisation))
    after = msgspec.structs.replace(
        state,
        k=cosigners_of(state.founding_k, state.founding_n, cosigners),
        members=members,
        cosigners=cosigners,
        latest=height,
        pending=state.pending[1:],
    )
    view.put(consortium_key(), after)
