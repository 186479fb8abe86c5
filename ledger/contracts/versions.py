"""`versions`: from which height on a contract behaves otherwise, agreed by vote.

The members run one program; what it does must change for all of them at the same block. So each new
behaviour is a further version of its contract, kept beside the old one, and holds from the height for
which k re-executing members that are not suspended voted: the same contract, version and height. Version 1
of a contract holds from genesis and is never voted for. A contract that came later starts with a higher version and
takes no op until then.

The vote does not ask whether the program of the one who replays it knows the version: every program counts it
alike. One that does not know a version stops before the first block that needs it, and never diverges. So
update before you vote, and vote for a height that leaves the others time. An agreed switch cannot be taken back, so
it may be at most `LONGEST_NOTICE` blocks ahead.

State keys: ``versions/schedule`` -> Schedule; ``versions/ballot/<contract>`` -> Ballot.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from ledger.contracts.contract import Context, Contract, Event, View, state_key
from ledger.contracts.membership import Seat, enough, held, require_vote, seat
from wire.canonical import Wire
from wire.errors import Refused
from wire.identifiers import Name
from wire.keyset import Height

NAME = "versions"
MOST_SWITCHES = 1000
"""Most switches of one ledger, of all contracts together."""
LONGEST_NOTICE = 1_000_000
"""Blocks by which a switch may be agreed ahead."""

Version = Annotated[int, msgspec.Meta(ge=1, le=2**31)]


class VoteVersion(Wire, frozen=True, tag="versions.vote"):
    """Vote that `contract` behaves as its `version` says from block `from_height` on. By a re-executing member.

    A later vote of the same member on the same contract takes the place of its earlier one.
    """

    contract: Name
    version: Version
    from_height: Height


class Switch(Wire, frozen=True, tag="versions.switch"):
    """An agreed switch: from block `from_height` on, `contract` is in `version`."""

    contract: Name
    version: Version
    from_height: Height


class Schedule(Wire, frozen=True, tag="versions.schedule"):
    """All switches that were agreed, in the order of agreement; those of one contract in the order of heights."""

    switches: Annotated[tuple[Switch, ...], msgspec.Meta(max_length=MOST_SWITCHES)]


class VersionVote(Wire, frozen=True, tag="versions.version_vote"):
    """The latest vote of one member on a contract."""

    voter: Seat
    version: Version
    from_height: Height


class Ballot(Wire, frozen=True, tag="versions.ballot"):
    """The open votes on a contract: at most one a member."""

    votes: tuple[VersionVote, ...]


def schedule_key() -> bytes:
    """State key of the schedule."""
    return state_key(NAME, "schedule")


def ballot_key(contract: str) -> bytes:
    """State key of the open votes on a contract."""
    return state_key(NAME, "ballot", contract)


def switches(view: View) -> tuple[Switch, ...]:
    """All switches agreed so far."""
    schedule = view.get(schedule_key(), Schedule)
    return schedule.switches if schedule else ()


def vote(op: VoteVersion, sender: str, context: Context, view: View) -> tuple[Event, ...]:
    """Count one vote; with k equal ones the switch is agreed and the contract's ballot is closed."""
    require_vote(view, sender)
    agreed = switches(view)
    latest = max((switch for switch in agreed if switch.contract == op.contract), key=_height, default=None)
    version, height = (latest.version, latest.from_height) if latest else (1, 0)
    if op.version <= version:
        raise Refused("versions.not_newer", contract=op.contract, version=op.version, agreed=version)
    if op.from_height <= max(height, context.height):
        raise Refused("versions.too_early", contract=op.contract, height=op.from_height)
    if op.from_height > context.height + LONGEST_NOTICE:
        raise Refused("versions.too_far", contract=op.contract, height=op.from_height, notice=LONGEST_NOTICE)
    if len(agreed) >= MOST_SWITCHES:
        raise Refused("versions.too_many", limit=MOST_SWITCHES)
    ballot = view.get(ballot_key(op.contract), Ballot) or Ballot(())
    mine = VersionVote(seat(view, sender), op.version, op.from_height)
    others = (other for other in ballot.votes if other.voter.organisation != sender and held(view, other.voter))
    votes = (*others, mine)
    wanted = (op.version, op.from_height)
    alike = tuple(other.voter for other in votes if (other.version, other.from_height) == wanted)
    if not enough(view, alike):
        if mine in ballot.votes:
            raise Refused("versions.voted", organisation=sender, contract=op.contract)
        view.put(ballot_key(op.contract), Ballot(votes))
        return (Event("versions.voted", op.contract, (op.version, op.from_height, len(alike))),)
    view.delete(ballot_key(op.contract))
    view.put(schedule_key(), Schedule((*agreed, Switch(op.contract, op.version, op.from_height))))
    return (Event("versions.agreed", op.contract, (op.version, op.from_height)),)


def _height(switch: Switch) -> int:
    return switch.from_height


CONTRACT = Contract(NAME, 1, {VoteVersion: vote})
