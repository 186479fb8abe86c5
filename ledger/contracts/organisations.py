"""`organisations`: how members join, leave, change their keys, and are suspended.

Genesis writes the members (`membership` holds them). Everything after is agreed on the ledger: re-executing members
that are not suspended vote, and k of them decide. Who counts may change while a vote is open (suspension and the way
back, members that leave): whoever voted already votes again, and the votes are counted anew.

* *Joining*: the applicant makes an `Application` (name, roles, tier, keys, each key's signature that it is held);
  members vote for exactly that application.
* *Leaving*: by its own op, or by vote. Its datasets and what was released about them stay.
* *Key rotation*: by its own op, signed with the key before; possession of each signature key is shown.
* *Suspension* and the way back, by vote: envelopes of a suspended member are refused; the cosigning rule is left alone.

State keys: see `membership`; ``organisations/admission/<name>`` -> Admission.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from ledger.contracts.contract import Context, Contract, Event, View, state_key
from ledger.contracts.membership import (
    NAME,
    KeyUse,
    Seat,
    Seats,
    ballot_key,
    claim,
    consortium,
    due,
    enough,
    held,
    is_member,
    key_use_key,
    member,
    member_key,
    pending,
    removal_key,
    require_vote,
    schedule,
    seat,
    unschedule,
)
from wire.canonical import Wire, encode
from wire.checkpoint.membership import MOST_MEMBERS, check_member, publics, signature_keys
from wire.domains import APPLICATION, KEY_POSSESSION, digest
from wire.errors import DecodeError, Refused, VerificationError
from wire.identifiers import Hash, Name
from wire.keyset import Height, KeySet, Member, MembershipChange
from wire.signing import Signature, verify

LONGEST_NOTICE = 100_000
"""Blocks by which a rotation may be announced ahead."""
ROTATION_PAUSE = 100
"""Blocks between two rotations of one organisation: every change stays in every trust file."""

Possession = Annotated[tuple[Signature, ...], msgspec.Meta(min_length=4, max_length=4)]
"""Signatures of `possession_message` by the new envelope, cosign, http and tls keys, in this order."""


class VoteSuspension(Wire, frozen=True, tag="organisations.vote_suspension"):
    """Vote to suspend `organisation`, or to take a suspension back. By a re-executing member."""

    organisation: Name
    suspended: bool


class Application(Wire, frozen=True, tag="organisations.application"):
    """What an organisation wants to be admitted as. member: its keys valid from 0: the ledger sets the height."""

    member: Member
    possession: Possession


class VoteAdmission(Wire, frozen=True, tag="organisations.vote_admission"):
    """Vote that an applicant joins, as it says and not otherwise. A later vote replaces the voter's earlier one."""

    application: Application


class VoteRemoval(Wire, frozen=True, tag="organisations.vote_removal"):
    """Vote that a member leaves. By a re-executing member, not in its own case."""

    organisation: Name


class Leave(Wire, frozen=True, tag="organisations.leave"):
    """The sender leaves with the next block. Not the sequencer."""


class RotateKeys(Wire, frozen=True, tag="organisations.rotate_keys"):
    """The sender's keys from block `from_height` on; 0: from the next one. keys: all five, valid from 0.

    Keys that stay are named again. Of the new ones none was ever used.
    """

    keys: KeySet
    from_height: Height
    possession: Possession


class KeysHeld(Wire, frozen=True, tag="organisations.keys_held"):
    """What each new key signs: to show that who names it holds it, and agrees to what it is to be."""

    chain: Hash
    member: Member


class Ballot(Wire, frozen=True, tag="organisations.ballot"):
    """Who voted for a change to an organisation, in order."""

    voters: Seats


class AdmissionVote(Wire, frozen=True, tag="organisations.admission_vote"):
    """The latest vote of one member on an applicant's name. application: digest of what it voted for."""

    voter: Seat
    application: Hash


class Admission(Wire, frozen=True, tag="organisations.admission"):
    """The open votes on an applicant's name: at most one a member."""

    votes: Annotated[tuple[AdmissionVote, ...], msgspec.Meta(max_length=1000)]


def admission_key(organisation: str) -> bytes:
    """State key of the open votes on an applicant."""
    return state_key(NAME, "admission", organisation)


def possession_message(chain: bytes, member: Member) -> bytes:
    """What each of the four signature keys of `member` (valid from 0) signs under the domain KEY_POSSESSION.

    chain: 32-byte hash of genesis. Roles and tier are signed too: nobody can be admitted as what it did not ask
    for. A sealing key cannot sign: who names one that it does not hold cannot
    read what is sealed to it, and a key that another ever named is refused.
    """
    return encode(KeysHeld(chain, member))


def vote_suspension(op: VoteSuspension, sender: str, context: Context, view: View) -> tuple[Event, ...]:
    """Count one vote; with k of them the suspension changes and the ballot is closed."""
    require_vote(view, sender)
    target = member(view, op.organisation)
    if op.organisation == sender:
        raise Refused("organisations.own_case", organisation=sender)
    if target.suspended == op.suspended:
        raise Refused("organisations.no_change", organisation=op.organisation)
    voters, again = _counted(ballot_key(op.organisation), sender, view)
    if not enough(view, voters):
        if again:
            raise Refused("organisations.voted", organisation=sender)
        view.put(ballot_key(op.organisation), Ballot(voters))
        return (Event("organisations.voted", op.organisation, (len(voters),)),)
    view.delete(ballot_key(op.organisation))
    view.put(member_key(op.organisation), msgspec.structs.replace(target, suspended=op.suspended))
    return (Event("organisations.suspended" if op.suspended else "organisations.restored", op.organisation),)


def _counted(key: bytes, sender: str, view: View) -> tuple[Seats, bool]:
    """The voters of an open ballot, with the sender, and whether it had voted before."""
    ballot = view.get(key, Ballot) or Ballot(())
    own = seat(view, sender)
    others = tuple(one for one in ballot.voters if one.organisation != sender and held(view, one))
    return (ballot.voters, True) if own in ballot.voters else ((*others, own), False)


def vote_admission(op: VoteAdmission, sender: str, context: Context, view: View) -> tuple[Event, ...]:
    """Count one vote for exactly this application; with k of them the applicant is a member from the next block on."""
    require_vote(view, sender)
    applicant = op.application.member
    name = applicant.organisation
    _check_application(op.application, context, view)
    chosen = digest(APPLICATION, encode(op.application))
    ballot = view.get(admission_key(name), Admission) or Admission(())
    mine = AdmissionVote(seat(view, sender), chosen)
    others = (vote for vote in ballot.votes if vote.voter.organisation != sender and held(view, vote.voter))
    votes = (*others, mine)
    alike = tuple(vote.voter for vote in votes if vote.application == chosen)
    if not enough(view, alike):
        if mine in ballot.votes:
            raise Refused("organisations.voted", organisation=sender)
        view.put(admission_key(name), Admission(votes))
        return (Event("organisations.voted", name, (len(alike),)),)
    view.delete(admission_key(name))
    height = context.height + 1
    joined = msgspec.structs.replace(applicant, keys=_valid_from(height, applicant.keys, None))
    claim(joined, view)
    schedule(height, MembershipChange(name, joined), view)
    return (Event("organisations.admitted", name, (height,)),)


def _check_application(application: Application, context: Context, view: View) -> None:
    applicant = application.member
    name = applicant.organisation
    state = consortium(view)
    if is_member(view, name) or pending(view, name) is not None:
        raise Refused("organisations.member_already", organisation=name)
    joining = sum(not is_member(view, change.organisation) for change in due(view, context.height + 1))
    if state.members + joining >= MOST_MEMBERS:
        raise Refused("organisations.too_many", limit=MOST_MEMBERS)
    try:
        check_member(applicant)
    except DecodeError:
        raise Refused("organisations.bad_application", organisation=name) from None
    _check_new_keys(applicant, None, application.possession, context, view)


def _check_new_keys(
    applicant: Member, before: KeySet | None, possession: Possession, context: Context, view: View
) -> None:
    """Each new key never used before and valid from 0; each signature key shown to be held. Raises Refused."""
    name, keys = applicant.organisation, applicant.keys
    named = publics(keys)
    old = publics(before) if before is not None else (None,) * len(named)
    fresh = [public for public, kept in zip(named, old, strict=True) if public != kept]
    if any(named.count(public) > 1 for public in named) or any(
        view.get(key_use_key(public), KeyUse) for public in fresh
    ):
        raise Refused("organisations.used_key", organisation=name)
    if any(getattr(keys, use).valid_from for use in KeySet.__struct_fields__):
        raise Refused("organisations.key_height", organisation=name)
    message = possession_message(context.genesis, applicant)
    for entry, signature in zip(signature_keys(keys), possession, strict=True):
        try:
            verify(entry.key, KEY_POSSESSION, message, signature)
        except VerificationError:
            raise Refused("organisations.key_not_held", organisation=name) from None


def _valid_from(height: int, keys: KeySet, before: KeySet | None) -> KeySet:
    """`keys`, the new ones valid from `height`, those that stay as they were."""
    entries: dict[str, Any] = {}
    for use in KeySet.__struct_fields__:
        entry, old = getattr(keys, use), None if before is None else getattr(before, use)
        stays = old is not None and old.key == entry.key
        entries[use] = old if stays else msgspec.structs.replace(entry, valid_from=height)
    return KeySet(**entries)


def vote_removal(op: VoteRemoval, sender: str, context: Context, view: View) -> tuple[Event, ...]:
    """Count one vote; with k of them the member is none from the next block on."""
    require_vote(view, sender)
    if op.organisation == sender:
        raise Refused("organisations.own_case", organisation=sender)
    _check_leaving(op.organisation, view)
    voters, again = _counted(removal_key(op.organisation), sender, view)
    if not enough(view, voters):
        if again:
            raise Refused("organisations.voted", organisation=sender)
        view.put(removal_key(op.organisation), Ballot(voters))
        return (Event("organisations.voted", op.organisation, (len(voters),)),)
    return _leaves(op.organisation, context, view)


def leave(op: Leave, sender: str, context: Context, view: View) -> tuple[Event, ...]:
    """The sender is no member from the next block on."""
    _check_leaving(sender, view)
    return _leaves(sender, context, view)


def _check_leaving(organisation: str, view: View) -> None:
    member(view, organisation)
    state = consortium(view)
    if organisation == state.sequencer:
        raise Refused("organisations.sequencer_stays", organisation=organisation)
    waiting = pending(view, organisation)
    if waiting is not None and waiting[1].member is None:
        raise Refused("organisations.leaving", organisation=organisation)


def _leaves(organisation: str, context: Context, view: View) -> tuple[Event, ...]:
    height = context.height + 1
    rotation = pending(view, organisation)
    if rotation is not None:
        unschedule(*rotation, view)
    left = [entry for entry in due(view, height) if entry.member is None]
    gone = sum(member(view, entry.organisation).re_executes for entry in left)
    if member(view, organisation).re_executes and gone + 1 >= consortium(view).cosigners:
        raise Refused("organisations.last_cosigner", organisation=organisation)
    schedule(height, MembershipChange(organisation, None), view)
    return (Event("organisations.leaves", organisation, (height,)),)


def rotate_keys(op: RotateKeys, sender: str, context: Context, view: View) -> tuple[Event, ...]:
    """The sender's keys change at the height it names."""
    state = member(view, sender)
    height = op.from_height or context.height + 1
    if not context.height < height <= context.height + LONGEST_NOTICE:
        raise Refused("organisations.rotation_height", organisation=sender, height=height)
    if pending(view, sender) is not None:
        raise Refused("organisations.rotation_pending", organisation=sender)
    rotated = max(getattr(state.keys, use).valid_from for use in KeySet.__struct_fields__)
    if rotated and height < rotated + ROTATION_PAUSE:
        raise Refused("organisations.rotated_lately", organisation=sender, height=rotated + ROTATION_PAUSE)
    keys = _valid_from(height, op.keys, state.keys)
    if keys == state.keys:
        raise Refused("organisations.no_change", organisation=sender)
    after = Member(sender, state.roles, keys, state.re_executes, state.tier)
    try:
        check_member(after)
    except DecodeError:
        raise Refused("organisations.bad_application", organisation=sender) from None
    asked = msgspec.structs.replace(after, keys=op.keys)
    _check_new_keys(asked, state.keys, op.possession, context, view)
    claim(after, view)
    schedule(height, MembershipChange(sender, after), view)
    return (Event("organisations.rotates", sender, (height,)),)


CONTRACT = Contract(
    NAME,
    1,
    {
        VoteSuspension: vote_suspension,
        VoteAdmission: vote_admission,
        VoteRemoval: vote_removal,
        Leave: leave,
        RotateKeys: rotate_keys,
    },
)
