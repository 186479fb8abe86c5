"""The routes of the consortium's members: who they are, the trust file, and votes on who joins and leaves."""

import asyncio
import base64
import hmac
from collections.abc import Iterable
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from ledger.contracts import membership
from ledger.contracts.membership import MemberState, Seat
from ledger.contracts.organisations import (
    LONGEST_NOTICE,
    Admission,
    Ballot,
    Leave,
    VoteAdmission,
    VoteRemoval,
    VoteSuspension,
)
from medveil.gateway.ledger_account import FinalState
from medveil.gateway.rotating import NOTICE
from medveil.service.accounts.rights import Principal
from medveil.service.api.bodies import Sent
from medveil.service.api.callers import May
from medveil.service.api.fields import WHOLE, Base64, Flag, Name, Written
from medveil.service.api.flow_requests import RotateRequest
from medveil.service.api.job_routes import JobView
from medveil.service.api.path_router import PathRouter
from medveil.service.api.workplace import BEGINS, WRITES, Key, Workplace
from medveil.service.home.cards import MemberCard, check_card, fingerprint
from wire import evidence
from wire.checkpoint.trust_file import format_trust
from wire.domains import KEY_ID, digest
from wire.errors import DecodeError, Refused, VerificationError
from wire.keyset import KeySet

Reader = Annotated[Principal, Depends(May("members.read"))]
Voter = Annotated[Principal, Depends(May("members.vote"))]
Rotator = Annotated[Principal, Depends(May("members.rotate"))]


class MemberView(BaseModel):
    """A member now. keys: the fingerprint of each of its keys, 32 hex digits."""

    organisation: str
    roles: list[str]
    tier: str
    re_executes: bool
    suspended: bool
    keys: dict[str, str]


Kind = Literal["admission", "removal", "suspension", "restoration"]


class OpenVoteView(BaseModel):
    """A vote of members that is not decided. application: digest of the very application that is voted for, or empty.

    voters: whose votes count today; needed: how many decide.
    """

    about: Kind
    organisation: str
    application: str
    voters: list[str]
    needed: int


Agreed = Literal["admission", "removal", "rotation"]


class PendingView(BaseModel):
    """A change that is decided and not in force yet. block: the first one with it; no block is made until somebody
    writes."""

    about: Agreed
    organisation: str
    block: int


class MemberList(BaseModel):
    """The members as this organisation's replica has them at `height`. k: how many make a head final."""

    members: list[MemberView]
    votes: list[OpenVoteView]
    changes: list[PendingView]
    chain: str
    genesis: str
    height: int
    k: int
    sequencer: str


class NewMember(Sent):
    """An applicant's card, and its fingerprint as its people read it out to you by another way."""

    card: Base64
    fingerprint: Annotated[str, Field(max_length=100, examples=["0123 4567 89ab cdef 0123 4567 89ab cdef"])]


class Named(Sent):
    """The member that a vote is about."""

    organisation: Name


class Suspension(Named):
    """suspended: false to take a suspension back."""

    suspended: Flag = True


class Rotation(Sent):
    """notice: how many blocks ahead the new keys are announced."""

    notice: Annotated[int, Field(ge=2, le=LONGEST_NOTICE // 2), WHOLE] = NOTICE


class Nothing(Sent):
    """An empty object."""


def fingerprints(keys: KeySet) -> dict[str, str]:
    """By use: the first 16 bytes of a digest of the key, in hex; of a signature key the id that signatures name."""
    found = {use: getattr(keys, use).key.key_id().hex() for use in ("envelope", "cosign", "http", "tls")}
    seal = keys.seal.key
    return found | {"seal": digest(KEY_ID, bytes([seal.suite]), seal.public)[:16].hex()}


_ADMISSION, _REMOVAL, _SUSPENSION = (f"organisations/{what}/".encode() for what in ("admission", "removal", "ballot"))


def open_votes(state: FinalState) -> list[OpenVoteView]:
    """The votes on members that are not decided, by what they are about and whom."""
    view = state.view()
    needed = membership.consortium(view).k
    found: list[OpenVoteView] = []

    def counts(seat: Seat) -> bool:
        member = state.get(membership.member_key(seat.organisation), MemberState)
        seated = member is not None and member.re_executes and not member.suspended
        return seated and membership.held(view, seat)

    def add(about: Kind, key: bytes, seats: Iterable[Seat], application: bytes = b"") -> None:
        voters = [seat.organisation for seat in seats if counts(seat)]
        if voters:
            name = key.decode("ascii").rpartition("/")[2]
            found.append(
                OpenVoteView(
                    about=about, organisation=name, application=application.hex(), voters=voters, needed=needed
                )
            )

    for key, admission in state.items(_ADMISSION, Admission):
        for application in dict.fromkeys(vote.application for vote in admission.votes):
            alike = [vote.voter for vote in admission.votes if vote.application == application]
            add("admission", key, alike, application)
    for key, ballot in state.items(_REMOVAL, Ballot):
        add("removal", key, ballot.voters)
    for key, ballot in state.items(_SUSPENSION, Ballot):
        member = state.get(membership.member_key(key.decode("ascii").rpartition("/")[2]), MemberState)
        add("restoration" if member is not None and member.suspended else "suspension", key, ballot.voters)
    return found


def pending_changes(state: FinalState) -> list[PendingView]:
    """What is decided and not in force yet, in the order in which it will be."""
    view = state.view()
    found: list[PendingView] = []
    for height in membership.consortium(view).pending:
        for change in membership.due(view, height):
            about: Agreed = "removal"
            if change.member is not None:
                about = "rotation" if membership.is_member(view, change.organisation) else "admission"
            found.append(PendingView(about=about, organisation=change.organisation, block=height))
    return found


def _members(at: Workplace) -> MemberList:
    """Takes a while: the whole state is walked."""
    account = at.organisation.account
    state = account.state
    consortium = membership.consortium(state.view())
    found = [
        MemberView(
            organisation=member.organisation,
            roles=list(member.roles),
            tier=member.tier,
            re_executes=member.re_executes,
            suspended=member.suspended,
            keys=fingerprints(member.keys),
        )
        for _, member in state.items(membership.MEMBERS, MemberState)
    ]
    return MemberList(
        members=sorted(found, key=lambda member: member.organisation),
        votes=open_votes(state),
        changes=pending_changes(state),
        chain=account.trust.chain,
        genesis=account.trust.genesis_hash.hex(),
        height=state.height,
        k=consortium.k,
        sequencer=consortium.sequencer,
    )


def member_routes(at: Workplace) -> APIRouter:
    """The router of ``/v1/members``."""
    router = PathRouter(tags=["members"])

    @router.get("/v1/members", summary="List the members")
    async def members(_who: Reader) -> MemberList:
        """Who belongs to the consortium, by name; votes on members, and what is decided and not in force yet."""
        return await asyncio.to_thread(_members, at)

    @router.get(
        "/v1/members/trust",
        summary="Get the trust file",
        response_class=Response,
        responses={200: {"description": "consortium.json.", "content": {"application/json": {"schema": _FILE}}}},
    )
    async def trust(_who: Reader) -> Response:
        """The trust file that this organisation pinned, with the members as they are now: what a verifier needs."""
        return Response(format_trust(at.organisation.trust), media_type="application/json")

    @router.post("/v1/members/admissions", summary="Vote to admit", responses=WRITES)
    async def admit(_who: Voter, body: NewMember) -> Written:
        """Vote that exactly this applicant joins. Compare its fingerprint by another way first."""
        return await at.write(VoteAdmission(_checked(at, body).application))

    @router.post("/v1/members/removals", summary="Vote to remove", responses=WRITES)
    async def remove(_who: Voter, body: Named) -> Written:
        """Vote that a member leaves."""
        return await at.write(VoteRemoval(body.organisation))

    @router.post("/v1/members/suspensions", summary="Vote to suspend", responses=WRITES)
    async def suspend(_who: Voter, body: Suspension) -> Written:
        """Vote that a member's envelopes are refused, or taken again."""
        return await at.write(VoteSuspension(body.organisation, body.suspended))

    @router.post("/v1/members/rotation", status_code=202, summary="Change your keys", responses=BEGINS)
    async def rotate(
        request: Request, response: Response, who: Rotator, body: Rotation, idempotency_key: Key = None
    ) -> JobView:
        """Draw new keys of all five uses and announce them; nothing restarts.

        The result: `/v1/members/handovers?after=H`. The new keys hold from block H + 1 on.
        """
        asked = RotateRequest(body.notice)
        return await at.begin("members.rotate", who, asked, idempotency_key, response, request.state.language)

    @router.post("/v1/members/departure", summary="Leave the consortium", responses=WRITES)
    async def leave(_who: Voter, body: Nothing) -> Written:
        """This organisation is no member from the next block on. There is no way back but a new admission."""
        return await at.write(Leave())

    return router


_FILE = {"type": "object", "description": "Read it with `medveil`: a file whose halves differ is refused."}


def _checked(at: Workplace, body: NewMember) -> MemberCard:
    """The card in a body, if it holds for this consortium and is the one that was read out. Raises Refused."""
    try:
        card = evidence.read(base64.b64decode(body.card, validate=True))
        if not isinstance(card, MemberCard):
            raise DecodeError("cards.no_card", file="card")
        member = check_card(card, at.organisation.trust.genesis_hash)
    except (DecodeError, VerificationError) as error:
        raise Refused("cards.not_taken", reason=error.message) from None
    said = "".join(body.fingerprint.split()).lower()
    if not hmac.compare_digest(said.encode(), fingerprint(card).replace(" ", "").encode()):
        raise Refused("cards.other_fingerprint", organisation=member.organisation)
    return card
