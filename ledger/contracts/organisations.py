"""`organisations`: who the members are, what they may do, with which keys.

Genesis writes the members. A member that misbehaves is suspended by vote: once k re-executing
members that are not suspended themselves want it, its envelopes are refused; the same way back.
Suspension does not touch the cosigning rule, which the trust file pins.

State keys: ``organisations/consortium`` -> Consortium; ``organisations/member/<name>`` -> MemberState;
``organisations/ballot/<name>`` -> Ballot.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from ledger.contracts.contract import Context, Contract, Event, Ids, View, state_key
from wire.canonical import Wire
from wire.errors import Refused
from wire.identifiers import Hash, Name
from wire.keyset import Founding, KeySet

NAME = "organisations"


class VoteSuspension(Wire, frozen=True, tag="organisations.vote_suspension"):
    """Vote to suspend `organisation`, or to take a suspension back. By a re-executing member."""

    organisation: Name
    suspended: bool


class Consortium(Wire, frozen=True, tag="organisations.consortium"):
    """What genesis fixed. genesis: its hash."""

    genesis: Hash
    k: Annotated[int, msgspec.Meta(ge=1, le=1000)]
    sequencer: Name
    zone: str


class MemberState(Wire, frozen=True, tag="organisations.member"):
    """One member as the ledger has it now."""

    organisation: Name
    roles: tuple[str, ...]
    keys: KeySet
    re_executes: bool
    suspended: bool


class Ballot(Wire, frozen=True, tag="organisations.ballot"):
    """Who voted to change the suspension of an organisation, in order."""

    voters: Ids


def consortium_key() -> bytes:
    """State key of the consortium."""
    return state_key(NAME, "consortium")


def member_key(organisation: str) -> bytes:
    """State key of a member."""
    return state_key(NAME, "member", organisation)


def ballot_key(organisation: str) -> bytes:
    """State key of the open vote on a member."""
    return state_key(NAME, "ballot", organisation)


def found(founding: Founding, genesis: bytes, view: View) -> None:
    """Write what genesis says."""
    view.put(consortium_key(), Consortium(genesis, founding.k, founding.sequencer, founding.zone))
    for member in founding.members:
        state = MemberState(member.organisation, member.roles, member.keys, member.re_executes, False)
        view.put(member_key(member.organisation), state)


def member(view: View, organisation: str) -> MemberState:
    """The member of that name. Raises Refused."""
    state = view.get(member_key(organisation), MemberState)
    if state is None:
        raise Refused("organisations.unknown", organisation=organisation)
    return state


def require_role(view: View, sender: str, *roles: str) -> MemberState:
    """The sender, which must have one of `roles`. Raises Refused."""
    state = member(view, sender)
    if not any(role in state.roles for role in roles):
        raise Refused("organisations.role", organisation=sender, roles=", ".join(roles))
    return state


def vote_suspension(op: VoteSuspension, sender: str, context: Context, view: View) -> tuple[Event, ...]:
    """Count one vote; with k of them the suspension changes and the ballot is closed."""
    if not member(view, sender).re_executes:
        raise Refused("organisations.no_vote", organisation=sender)
    target = member(view, op.organisation)
    if op.organisation == sender:
        raise Refused("organisations.own_case", organisation=sender)
    if target.suspended == op.suspended:
        raise Refused("organisations.no_change", organisation=op.organisation)
    ballot = view.get(ballot_key(op.organisation), Ballot) or Ballot(())
    if sender in ballot.voters:
        raise Refused("organisations.voted", organisation=sender)
    voters = (*ballot.voters, sender)
    consortium = view.get(consortium_key(), Consortium)
    assert consortium is not None  # written by genesis
    if sum(not member(view, voter).suspended for voter in voters) < consortium.k:
        view.put(ballot_key(op.organisation), Ballot(voters))
        return (Event("organisations.voted", op.organisation, (len(voters),)),)
    view.delete(ballot_key(op.organisation))
    view.put(member_key(op.organisation), msgspec.structs.replace(target, suspended=op.suspended))
    return (Event("organisations.suspended" if op.suspended else "organisations.restored", op.organisation),)


CONTRACT = Contract(NAME, 1, {VoteSuspension: vote_suspension})
