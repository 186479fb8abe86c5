"""Evidence between gateways: what each member can show of itself, collected by those who supervise.

    asker  -> member   EvidenceRequest     who asks must be a bureau or a regulator
    member -> ledger   AnchorAccess        its trail as far as it goes
    member -> asker    EvidencePart*       receipts of its own envelopes
    asker              exports the ledger, once everybody has answered, or has had its time
    asker  -> member   AccessWanted        up to which entry, as that export has it
    member -> asker    EvidencePart*       its access batches; its results: releases, proofs, reviewed models

Members go on meanwhile: what the exported ledger and the collected batches do not know yet is left out by the asker.
Nothing here is a record or a term of a grant: every part is of a kind that `medveil verify` checks. What a member
sends is checked on arrival; one that does not answer in time, or sends what does not hold, is named and left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Annotated, Literal, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import msgspec

from ledger.contracts.membership import MemberState, member_key
from ledger.envelope import envelope_id, open_envelope
from ledger.export import LedgerExport
from ledger.receipts import Receipt
from medveil.gateway.accounting import anchor_audit
from medveil.gateway.granting import log_denial
from medveil.gateway.models import own_models
from medveil.gateway.organisation import Organisation, Refusal, refusal
from medveil.gateway.query_history import RELEASES
from medveil.gateway.steps import FlowCancelled, Steps
from medveil.gateway.waiting import answer_of
from mpc.release import Release
from mpc.scoring import ScoreModel
from privacy.audit import AccessBatch
from wire.canonical import Wire, decode, encode
from wire.errors import MedveilError, ProtocolAbort, Refused
from wire.identifiers import Handle, Hash
from zkp.bill_limit import Presentation

SUPERVISORS = ("bureau", "regulator")
"""Roles that may ask for others' evidence."""
PART_BYTES = 6 * 1024 * 1024
"""Bytes of content after which a part is full; a message may have 8 MiB, and the largest single piece 1 MiB."""
MOST_RECEIPTS = 1000
"""Receipts that a member shows: of its latest envelopes. All its envelopes are in the ledger anyway."""
MOST_PARTS = 10_000
PRESENTATIONS = "presentation"

EVIDENCE: Literal["evidence"] = "evidence"
"""What an audit trail calls this, as a kind of use and in place of a dataset."""

_PROOF_BYTES = 16 * 1024
"""Room for what comes with an envelope in its receipt."""
_ENDED = "ended"

T = TypeVar("T")
W = TypeVar("W", bound=Wire)


class EvidenceRequest(Wire, frozen=True, tag="medveil.evidence_request"):
    """Asker to member: anchor your trail, and show receipts."""

    session: Handle


class AccessWanted(Wire, frozen=True, tag="medveil.access_wanted"):
    """Asker to member: your results, and your batches up to `last`, where your chain ends in the exported ledger."""

    last: Annotated[int, msgspec.Meta(ge=0, lt=2**62)]


class Evidence(Wire, frozen=True, tag="medveil.evidence"):
    """What an organisation shows. models: without weights."""

    releases: tuple[Release, ...] = ()
    presentations: tuple[Presentation, ...] = ()
    models: tuple[ScoreModel, ...] = ()
    receipts: tuple[Receipt, ...] = ()
    batches: tuple[AccessBatch, ...] = ()

    def joined(self, other: Evidence) -> Evidence:
        """Both of them."""
        return Evidence(
            self.releases + other.releases,
            self.presentations + other.presentations,
            self.models + other.models,
            self.receipts + other.receipts,
            self.batches + other.batches,
        )


class EvidencePart(Wire, frozen=True, tag="medveil.evidence_part"):
    """Member to asker: a part of an answer. more: whether another follows."""

    evidence: Evidence
    more: bool


class _Shown(Wire, frozen=True, tag="medveil.evidence_shown"):
    """What there was to show when it was asked: by name, so that a second run shows the same."""

    releases: tuple[str, ...]
    presentations: tuple[str, ...]
    models: tuple[str, ...]


class _Written(Wire, frozen=True, tag="medveil.evidence_written"):
    """The envelopes whose receipts are shown."""

    envelopes: tuple[Hash, ...]


class _End(Wire, frozen=True, tag="medveil.evidence_end"):
    """A member's part has ended."""


def results(organisation: Organisation) -> Evidence:
    """What an organisation can show of its own: releases, presentations, reviewed models."""
    return _results(organisation, _named(organisation))


def _named(organisation: Organisation) -> _Shown:
    vault = organisation.vault
    models = tuple(model.model for model in own_models(organisation))
    return _Shown(vault.documents(RELEASES), vault.documents(PRESENTATIONS), models)


def _results(organisation: Organisation, shown: _Shown) -> Evidence:
    def all_of(kind: type[W], what: str, names: Sequence[str]) -> tuple[W, ...]:
        return tuple(decode(kind, organisation.vault.document(what, name)) for name in names)

    models = tuple(model for model in own_models(organisation) if model.model in shown.models)
    releases = all_of(Release, RELEASES, shown.releases)
    return Evidence(releases, all_of(Presentation, PRESENTATIONS, shown.presentations), models)


class _Envelopes(NamedTuple):
    """What was found in an export of the ledger when it was final up to `height`."""

    height: int
    ids: tuple[bytes, ...]


_found: WeakKeyDictionary[Organisation, _Envelopes] = WeakKeyDictionary()


async def own_envelopes(organisation: Organisation) -> tuple[bytes, ...]:
    """Ids of the latest envelopes of this organisation in final history, in order.

    The whole ledger is in memory meanwhile: so one search runs at a time, whoever asks, and who comes while the ledger
    stands where it was is given what was found.
    """
    async with organisation.exporting:
        height = (await organisation.account.caught_up()).height
        known = _found.get(organisation)
        if known is not None and known.height == height:
            return known.ids
        export = await organisation.account.export()
        ids = await asyncio.to_thread(_envelopes_of, export, organisation.name)
        _found[organisation] = _Envelopes(height, ids)
        return ids


def _envelopes_of(export: LedgerExport, sender: str) -> tuple[bytes, ...]:
    found = [
        envelope_id(data)
        for block in export.blocks
        for data in block.envelopes
        if open_envelope(data).envelope.sender == sender
    ]
    return tuple(found[-MOST_RECEIPTS:])


async def receipts_of(organisation: Organisation, envelopes: Iterable[bytes]) -> tuple[Receipt, ...]:
    """The checked receipts of envelopes, by id."""
    return tuple([await organisation.account.receipt(one) for one in envelopes])


def batches_until(organisation: Organisation, last: int) -> tuple[AccessBatch, ...]:
    """The anchored batches of its audit trail up to entry `last`. Raises Refused if no batch ends there."""
    found = tuple(batch for batch in organisation.audit.batches() if batch.last <= last)
    if (found[-1].last if found else 0) != last:
        raise Refused("gateway.no_such_entry", organisation=organisation.name, sequence=last)
    return found


async def booked_until(organisation: Organisation, last: int) -> tuple[AccessBatch, ...]:
    """As `batches_until`; a batch that is final for others, and on its way into the own trail, is waited for."""
    try:
        return batches_until(organisation, last)
    except Refused:
        await anchor_audit(organisation)
    return batches_until(organisation, last)


# --- a member -----------------------------------------------------------------------------------


async def answer(organisation: Organisation, peer: str, session: bytes, steps: Steps) -> None:
    """A member's side: show what a supervisor may see. Raises Refused for others, after they were told; Unavailable."""
    if not await steps.kept(_ENDED):
        _, request = await organisation.receive(EvidenceRequest, session, (peer,))
        try:
            await _answer(organisation, peer, session, request, steps)
        except (Exception, FlowCancelled) as error:
            await organisation.send(peer, session, refusal(organisation.name, error))
            raise

    async def ended() -> _End:
        return _End()

    await steps.once(_ENDED, _End, ended)
    await organisation.forget(session, peer)


async def _answer(
    organisation: Organisation, peer: str, session: bytes, request: EvidenceRequest, steps: Steps
) -> None:
    patience = 3 * organisation.patience  # the asker waits for everybody before it goes on

    async def naming() -> _Shown:
        return _named(organisation)

    async def listing() -> _Written:
        return _Written(await own_envelopes(organisation))

    async def send(parts: Sequence[Evidence]) -> None:
        for number, part in enumerate(parts, start=1):
            await organisation.send(peer, session, EvidencePart(part, more=number < len(parts)))

    try:
        if request.session != session:
            raise ProtocolAbort("gateway.misdirected_request", round="request", parties=(peer,))
        check_supervisor(organisation, peer)
    except (Refused, ProtocolAbort) as error:
        await log_denial(organisation, peer, EVIDENCE, EVIDENCE, error, steps)
        raise
    await anchor_audit(organisation)
    written = await steps.once("written", _Written, listing)
    await send(parts_of(Evidence(receipts=await receipts_of(organisation, written.envelopes))))
    wanted = _heard(await answer_of(organisation, AccessWanted, session, peer, steps, patience), peer)
    shown = _results(organisation, await steps.once("shown", _Shown, naming))
    await send(parts_of(shown.joined(Evidence(batches=await booked_until(organisation, wanted.last)))))


def check_supervisor(organisation: Organisation, peer: str) -> None:
    """Raises Refused unless `peer` is a member that may collect evidence."""
    member = organisation.account.state.get(member_key(peer), MemberState)
    if member is None or member.suspended or not set(member.roles) & set(SUPERVISORS):
        raise Refused("organisations.role", organisation=peer, roles=", ".join(SUPERVISORS))


def parts_of(evidence: Evidence) -> list[Evidence]:
    """`evidence` in parts that a message can hold, at least one; always cut in the same places."""
    parts = [Evidence()]
    room = PART_BYTES
    for field in Evidence.__struct_fields__:
        for piece in getattr(evidence, field):
            # A receipt's proof grows with the ledger: its envelope alone says where to cut.
            size = len(piece.envelope) + _PROOF_BYTES if isinstance(piece, Receipt) else len(encode(piece))
            if size > room and parts[-1] != Evidence():
                parts.append(Evidence())
                room = PART_BYTES
            parts[-1] = parts[-1].joined(Evidence(**{field: (piece,)}))
            room -= size
    return parts


def _heard(reply: T | Refusal, peer: str) -> T:
    if isinstance(reply, Refusal):
        raise Refused("gateway.evidence_refused", organisation=peer, **reply.told())
    return reply


# --- the asker ----------------------------------------------------------------------------------


class Gap(Wire, frozen=True, tag="medveil.evidence_gap"):
    """A member whose evidence is not there, and why."""

    organisation: str
    code: str
    words: str


class Asked:
    """One collection: the members that are asked, each in a session of its own, and those that fell out."""

    def __init__(self, organisation: Organisation, sessions: dict[str, bytes], steps: Steps) -> None:
        self.gaps: list[Gap] = []
        self._organisation = organisation
        self._sessions = sessions
        self._steps = steps

    @property
    def present(self) -> tuple[str, ...]:
        """The members that have answered so far."""
        return tuple(self._sessions)

    def keep(self, members: Sequence[str]) -> None:
        """Go on with these alone."""
        self._sessions = {member: self._sessions[member] for member in members}

    async def all(
        self,
        message: Callable[[str, bytes], Wire],
        check: Callable[[str, Evidence], Awaitable[None]],
    ) -> dict[str, Evidence]:
        """What each member answers to its `message(member, session)`, in order; who fails `check` is left out too."""
        members = self.present
        asking = [asyncio.ensure_future(self._one(member, message, check)) for member in members]
        try:
            answers = await asyncio.gather(*asking)
        finally:  # where the flow ends or pauses, nobody goes on reading what the next run is to read
            for one in asking:
                one.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        return {member: found for member, found in zip(members, answers, strict=True) if found is not None}

    async def _one(
        self, member: str, message: Callable[[str, bytes], Wire], check: Callable[[str, Evidence], Awaitable[None]]
    ) -> Evidence | None:
        session = self._sessions[member]
        try:
            await self._organisation.send(member, session, message(member, session))
            found = Evidence()
            for _ in range(MOST_PARTS):
                part = _heard(await answer_of(self._organisation, EvidencePart, session, member, self._steps), member)
                found = found.joined(part.evidence)
                if not part.more:
                    await check(member, found)
                    return found
            raise ProtocolAbort("gateway.evidence_endless", round="evidence", parties=(member,))
        except MedveilError as error:
            self.gaps.append(Gap(member, error.code, error.text()))
            self._sessions.pop(member, None)
            return None
