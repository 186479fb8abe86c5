"""The consortium: its members and votes on them, the ledger's history, this organisation's receipts."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from medveil.client.exchange import Exchange, M, Part, verb
from medveil.client.frames import Instant, Rows
from medveil.client.jobs import Progress, begin, wait
from medveil.client.line import fetch, get, octets, post
from medveil.client.pinned import believe, follow_members
from medveil.client.written import Written, receipt_of, write
from wire.errors import DecodeError, Refused, VerificationError

if TYPE_CHECKING:
    from ledger.receipts import Receipt
    from medveil.service.home.cards import MemberCard
    from wire.checkpoint import TrustFile


class Member(msgspec.Struct, frozen=True):
    """A member now. keys: the fingerprint of each key by its use."""

    organisation: str
    roles: tuple[str, ...]
    tier: str
    re_executes: bool
    suspended: bool
    keys: dict[str, str]


class Rotation(msgspec.Struct, frozen=True):
    """New keys of one's organisation, announced. block: the first one under them, by the gateway's word."""

    job: str
    block: int


class OpenVote(msgspec.Struct, frozen=True):
    """A vote on a member that is not decided. about: admission, removal, suspension or restoration.

    application: digest of the application that is voted for, or empty. needed: how many votes decide.
    """

    about: str
    organisation: str
    application: str
    voters: tuple[str, ...]
    needed: int


class PendingChange(msgspec.Struct, frozen=True):
    """A change that is decided and not in force yet. about: admission, removal or rotation (of keys).

    block: the first one with it, which is made when somebody writes.
    """

    about: str
    organisation: str
    block: int


class MemberList(Rows, frozen=True):
    """The members, as the gateway's replica has them at `height`: its word. k: how many make a head final.

    votes: on members, not decided yet; changes: decided, and not in force yet.
    """

    members: tuple[Member, ...]
    chain: str
    genesis: str
    height: int
    k: int
    sequencer: str
    votes: tuple[OpenVote, ...] = ()
    changes: tuple[PendingChange, ...] = ()

    def rows(self) -> tuple[Member, ...]:
        """The members."""
        return self.members


class Head(msgspec.Struct, frozen=True):
    """The latest final block that the gateway has replayed: its word."""

    chain: str
    genesis: str
    height: int
    time: Instant
    state_root: str


class Event(msgspec.Struct, frozen=True):
    """What an op did."""

    name: str
    subject: str
    values: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.subject}".strip()


class Entry(msgspec.Struct, frozen=True):
    """One envelope of final history. place: where it stands; code: of the first refusal, or empty."""

    place: str
    height: int
    time: Instant
    organisation: str
    nonce: int
    envelope: str
    kinds: tuple[str, ...]
    accepted: bool
    code: str
    codes: tuple[str, ...]
    events: tuple[Event, ...]


class EntryPage(Rows, frozen=True):
    """Entries, the oldest first. after: give it to get the next page; None where no more is final yet."""

    entries: tuple[Entry, ...]
    after: str | None
    height: int

    def rows(self) -> tuple[Entry, ...]:
        """The entries."""
        return self.entries


class Members(Part[M]):
    """``/v1/members``."""

    @verb
    def list(self) -> Exchange[MemberList]:
        """Who belongs to the consortium, votes on members, and what is decided and not in force yet."""
        return (yield from fetch(self._line, get("members"), MemberList))

    @verb
    def trust(self) -> Exchange[TrustFile]:
        """The pinned trust file, with every change of members since that is proven."""
        yield from follow_members(self._line)
        return self._line.pinned.needed()

    @verb
    def admit(self, card: bytes | Path | str, fingerprint: str) -> Exchange[Written]:
        """Vote that an applicant joins, exactly as its card says.

        card: a member card or its path. fingerprint: as the applicant's people read it out by another way; it is
        compared here, before the gateway hears of it. Raises Refused, DecodeError, VerificationError.
        """
        from ledger.contracts.organisations import VoteAdmission

        data = card if isinstance(card, bytes) else Path(card).read_bytes()
        read = _checked(data, self._line.pinned.needed(), fingerprint)
        body = {"card": data, "fingerprint": fingerprint}
        op = VoteAdmission(read.application)
        return (yield from write(self._line, post("members", "admissions", body=body), op))

    @verb
    def remove(self, organisation: str) -> Exchange[Written]:
        """Vote that a member leaves."""
        from ledger.contracts.organisations import VoteRemoval

        call = post("members", "removals", body={"organisation": organisation})
        return (yield from write(self._line, call, VoteRemoval(organisation)))

    @verb
    def suspend(self, organisation: str, *, suspended: bool = True) -> Exchange[Written]:
        """Vote that a member is suspended, or that its suspension is taken back."""
        from ledger.contracts.organisations import VoteSuspension

        body = {"organisation": organisation, "suspended": suspended}
        op = VoteSuspension(organisation, suspended)
        return (yield from write(self._line, post("members", "suspensions", body=body), op))

    @verb
    def rotate(
        self, *, notice: int | None = None, key: str = "", told: Callable[[Progress], None] | None = None
    ) -> Exchange[Rotation]:
        """Have this organisation's gateway draw new keys of all five uses and announce them; waits until they stand
        announced. notice: how many blocks ahead they are announced; None: as many as the gateway thinks right.
        """
        job = yield from begin(
            self._line, post("members", "rotation", body={} if notice is None else {"notice": notice}), key
        )
        done = yield from wait(self._line, job.job, told)
        before = re.fullmatch(r"/v1/members/handovers\?after=([0-9]{1,18})", done.result or "")
        if before is None:
            raise DecodeError("client.unexpected_answer")
        return Rotation(done.job, int(before[1]) + 1)

    @verb
    def leave(self) -> Exchange[Written]:
        """Have this organisation leave with the next block. There is no way back but a new admission."""
        from ledger.contracts.organisations import Leave

        return (yield from write(self._line, post("members", "departure"), Leave()))


def _checked(data: bytes, trust: TrustFile, fingerprint: str) -> MemberCard:
    """The card that `data` is, if it is for this consortium and the one that was read out."""
    from medveil.service.home.cards import MemberCard, check_card
    from medveil.service.home.cards import fingerprint as fingerprint_of
    from wire import evidence
    from wire.errors import DecodeError

    card = evidence.read(data)
    if not isinstance(card, MemberCard):
        raise DecodeError("cards.no_card", file="card")
    member = check_card(card, trust.genesis_hash)
    if "".join(fingerprint.split()).lower() != fingerprint_of(card).replace(" ", ""):
        raise Refused("cards.other_fingerprint", organisation=member.organisation)
    return card


class Ledger(Part[M]):
    """``/v1/ledger``: history as the gateway has it. What must be believed is believed by receipts and exports."""

    @verb
    def head(self) -> Exchange[Head]:
        """How far the gateway is."""
        return (yield from fetch(self._line, get("ledger", "head"), Head))

    @verb
    def entries(
        self,
        *,
        organisation: str | None = None,
        kind: str | None = None,
        since: int | None = None,
        until: int | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Exchange[EntryPage]:
        """A page of history, the oldest first. kind: a contract or an op; since, until: ms UTC of the block."""
        call = get(
            *("ledger", "entries"),
            organisation=organisation,
            kind=kind,
            since=since,
            until=until,
            after=after,
            limit=limit,
        )
        return (yield from fetch(self._line, call, EntryPage))


class Receipts(Part[M]):
    """``/v1/receipts``: of what this organisation wrote."""

    @verb
    def list(self, *, after: str | None = None, limit: int = 100) -> Exchange[EntryPage]:
        """A page of this organisation's envelopes, the oldest first."""
        return (yield from fetch(self._line, get("receipts", after=after, limit=limit), EntryPage))

    @verb
    def get(self, envelope: str) -> Exchange[Receipt]:
        """The receipt of an envelope, verified. envelope: its id, 64 hex digits."""
        self._line.pinned.needed()
        receipt = receipt_of((yield from octets(self._line, get("receipts", envelope))))
        yield from believe(self._line, [receipt])
        if receipt.result.envelope.hex() != envelope:
            raise VerificationError("client.other_receipt", part="envelope")
        return receipt
