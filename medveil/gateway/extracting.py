"""Making an extract: decided, written and released at its holder, under a grant of its data officer.

    holder                takes request and cut, decides, audit intent, encrypted body: its key is in this process alone
    holder -> ledger      AnchorAccess    the batch with the intent, pushed now
    holder                decides again; the end with the sealed key; the file appears; outcome "released"
    holder -> recipient   the file: `medveil.gateway.extract_delivery`

A body without its end is noise. So whoever is cut short before the file has appeared begins it anew under the same
extract id: the trail shows one intent and one outcome, and one file can ever stand there. Whoever is cut short after
that goes on with the delivery. What the file says is kept in the vault before it appears, since it is sealed to the
recipient and cannot be read here any more. What nobody goes on with is closed by the rounds: `close_unfinished`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Annotated, NamedTuple
from weakref import WeakKeyDictionary

import msgspec

from medveil.gateway.accounting import anchor_within_patience
from medveil.gateway.extract_drafts import Draft, RiskChoice, draft, mask_key
from medveil.gateway.extract_leaving import (
    CHANGED,
    as_it_stands,
    basis_of,
    decided,
    finish_ended,
    note_released,
    objecting_since,
    said,
)
from medveil.gateway.extract_wanted import check_request, note_wanted, settle_wanted, wanted, wanted_of
from medveil.gateway.granting import judge
from medveil.gateway.long_work import at_length
from medveil.gateway.made_extracts import (
    MadeExtract,
    find_made,
    forget_made,
    keep_made,
    made,
    made_folder,
    made_path,
    settling,
    stands,
)
from medveil.gateway.organisation import Clock, Organisation
from medveil.gateway.steps import FlowCancelled, Steps
from medveil.gateway.tables import PERSON, Tables
from medveil.gateway.use_state import opt_outs
from privacy.audit import use_of
from privacy.copies.extract_file import ExtractFacts
from privacy.copies.extracts import ExtractWanted, StagedExtract, clear_leftovers, stage_extract
from privacy.decide import Decision, UseRequest
from privacy.grants.opt_outs import ScopeId
from wire.canonical import Wire, encode
from wire.domains import QUERY, keyed
from wire.errors import ConsentDenied, Refused
from wire.identifiers import Handle

_EXTRACT = "extract"
_PIECE = 500
"""Intents of the trail read at a time."""


class _Claim(NamedTuple):
    """What an extract that is being made has taken: the request that it answers, and the cut of its grant."""

    ask: bytes
    grant: str = ""
    cut: bytes = b""


_making: WeakKeyDictionary[Organisation, dict[bytes, _Claim]] = WeakKeyDictionary()
"""By extract, those that flows of this process are making. What another process has released is in the vault."""

Fault = Callable[[str], None]


def no_fault(_step: str) -> None:
    """Nothing happens at a step."""


class ExtractWish(Wire, frozen=True, tag="medveil.extract_wish"):
    """What the data officer has made. ask: the request that it answers, or b"". grant: on which it must rest, or ""."""

    ask: Annotated[bytes, msgspec.Meta(max_length=16)]
    grant: Annotated[str, msgspec.Meta(max_length=64)]
    request: UseRequest
    choice: RiskChoice


class _Begun(Wire, frozen=True, tag="medveil.extract_begun"):
    """The id under which it is made, whatever happens."""

    extract: Handle


class _Released(Wire, frozen=True, tag="medveil.extract_released"):
    """What was released."""

    facts: ExtractFacts


def tidy(holder: Organisation) -> int:
    """Remove bodies whose keys nobody has, while none is being made: when a process begins. How many there were."""
    finish_ended(holder)
    return clear_leftovers(made_folder(holder))


async def make_extract(
    holder: Organisation, tables: Tables, wish: ExtractWish, steps: Steps, clock: Clock, fault: Fault = no_fault
) -> ExtractFacts:
    """Data officer: make an extract and release it; it is to be delivered then (`extract_delivery.deliver`).

    fault: told each step that is durable. Raises ConsentDenied (the denial is in the trail), Refused (a risk that is
    not within the limits, a wish that does not fit, a request that is answered), Unavailable (ledger, disk): then
    nothing was released, and a request waits for its answer as before.
    """

    async def beginning() -> _Begun:
        check_request(wish.request)
        if wish.request.holder != holder.name:
            raise Refused("gateway.extract_request", dataset=wish.request.dataset)
        if holder.trust.latest.find(wish.request.recipient) is None:
            raise Refused("organisations.unknown", organisation=wish.request.recipient)
        return _Begun(holder.rand(16))

    extract = (await steps.once("begun", _Begun, beginning)).extract
    making = _Making(holder, tables, wish, extract, steps, clock, fault)

    async def releasing() -> _Released:
        return _Released(await making.run())

    try:
        return (await steps.once("released", _Released, releasing)).facts
    except FlowCancelled:  # it may be of a job that was killed before, and hears of it before it goes on
        await asyncio.to_thread(_close, holder, extract, clock)
        raise


class _Making:
    """One extract on its way to its release."""

    def __init__(
        self,
        holder: Organisation,
        tables: Tables,
        wish: ExtractWish,
        extract: bytes,
        steps: Steps,
        clock: Clock,
        fault: Fault,
    ) -> None:
        self._holder, self._tables, self._wish, self._extract = holder, tables, wish, extract
        self._steps, self._clock, self._fault = steps, clock, fault
        self._path = made_path(holder, extract)

    async def run(self) -> ExtractFacts:
        """Make it, or find that it was made."""
        known = await asyncio.to_thread(find_made, self._holder, self._extract)
        if known is not None and known.state != "staged":  # delivered by now, or taken back, which delivering says
            return known.facts
        if await asyncio.to_thread(stands, self._holder, self._extract):
            return await asyncio.to_thread(self._ended)
        try:
            await asyncio.to_thread(self._claim)
        except Refused:
            await asyncio.to_thread(_let_go, self._holder, self._extract, self._wish.ask)
            raise
        try:
            return await self._made()
        finally:
            _making[self._holder].pop(self._extract, None)

    async def _made(self) -> ExtractFacts:
        try:
            await self._holder.account.present()
            staged = await at_length(self._stage)
            self._fault("staged")
            try:
                await anchor_within_patience(self._holder, self._steps)
                self._fault("anchored")
                return await asyncio.to_thread(self._release, staged)
            except (Exception, FlowCancelled):
                if not await asyncio.to_thread(stands, self._holder, self._extract):
                    await asyncio.to_thread(self._abandon, staged)
                raise
        except (Exception, FlowCancelled):
            if not await asyncio.to_thread(stands, self._holder, self._extract):
                await asyncio.to_thread(_let_go, self._holder, self._extract, self._wish.ask)
                raise
        return await asyncio.to_thread(self._ended)

    def _claim(self) -> None:
        """Take the request that is answered, so that it is answered once.

        One that was begun to be answered, and that nobody released, may be taken anew; its own job, if there is one
        that waits, finds it taken then.
        """
        holder, ask = self._holder, self._wish.ask
        with settling:
            making = _making.setdefault(holder, {})
            if ask:
                one = wanted_of(holder, ask)
                taken = one.state not in ("waiting", "making") or any(other.ask == ask for other in making.values())
                if one.state == "making" and one.extract != self._extract:
                    taken = taken or _out(holder, find_made(holder, one.extract))
                if taken or one.request.recipient != self._wish.request.recipient:
                    raise Refused("gateway.extract_answered", ask=ask.hex())
                note_wanted(holder, ask, "making", self._extract)
            making[self._extract] = _Claim(ask)  # not before it is noted: a full disk would have it taken for ever

    def _claim_cut(self, grant: str) -> None:
        """Take the cut of a grant. All extracts of one have the same: each keeps to its limits alone, and what two of
        them tell together, of whoever is in the one and not in the other, nobody has measured."""
        holder, cut = self._holder, cut_of(self._holder, self._wish.request)
        with settling:
            making = _making[holder]
            for extract, claim in making.copy().items():  # another may end meanwhile
                if extract != self._extract and claim.grant == grant and claim.cut != cut:
                    raise Refused("gateway.extract_other_cut", grant=grant, extract=extract.hex())
            before = other_cut(holder, grant, cut, self._extract)
            if before:
                raise Refused("gateway.extract_other_cut", grant=grant, extract=before.hex())
            making[self._extract] = _Claim(self._wish.ask, grant, cut)

    def _decide(self) -> Decision:
        return judge(self._holder, self._wish.request, self._clock(), self._wish.grant)

    def _denied(self, decision: Decision) -> ConsentDenied:
        """Write a denial, once; returns what is raised."""
        trail = self._holder.audit
        trail.outcome(trail.intent(use_of(self._wish.request, decision, self._salted())), "denied")
        return ConsentDenied(decision.code, **decision.facts())

    def _persons_of(self, scopes: tuple[ScopeId, ...]) -> frozenset[bytes]:
        return opt_outs(self._holder).persons(scopes, self._clock()) if scopes else frozenset()

    def _objecting(self, scopes: tuple[ScopeId, ...]) -> frozenset[bytes]:
        """Who objects to it since it was begun, of those in the table."""
        return objecting_since(self._holder, self._basis, scopes, self._clock)

    def _salted(self) -> bytes:
        return keyed(self._holder.salt_key, QUERY, self._extract, encode(self._wish.request))

    def _stage(self) -> StagedExtract:
        """Decide, write the intent, then the body. In a thread."""
        holder, wish = self._holder, self._wish
        decision = self._decide()
        if not decision.allowed:
            raise self._denied(decision)
        self._claim_cut(decision.grant)
        self._basis = basis_of(holder, wish.request, decision, self._clock)
        found = draft(holder, self._tables, wish.request, wish.choice, self._clock, decision.grant)
        if not isinstance(found, Draft):
            raise self._denied(found)
        if said(found.decision) != said(decision):
            raise Refused(CHANGED, grant=decision.grant)
        report = found.report
        if not report.within:
            raise Refused("extracts.risk", persons=report.persons, least=report.policy.persons)
        wanted = ExtractWanted(
            self._extract,
            found.grant,
            wish.request,
            self._tables.layout(wish.request.dataset).kinds(),
            holder.trust.member(wish.request.recipient).keys.seal.key,
            report,
            mask_key(holder, found.decision.grant),
            found.on,
            PERSON,
            self._salted(),
        )
        staged = stage_extract(
            self._path,
            found.leaving,
            wanted,
            self._still,
            holder.audit,
            self._clock(),
            persons_of=self._persons_of,
            rand=holder.rand,
        )
        facts, cut = staged.facts, cut_of(self._holder, self._wish.request)
        keep_made(holder, MadeExtract(wish.ask, facts, "staged", self._clock(), cut=cut, basis=self._basis))
        return staged

    def _still(self) -> Decision:
        """The decision of now, as long as it is one by which these very rows may leave."""
        return decided(self._holder, self._basis, self._clock)

    def _release(self, staged: StagedExtract) -> ExtractFacts:
        """Whoever erases somebody in this moment finds it released, or has it found changed."""
        with settling:
            staged.release(self._holder.audit, self._holder.signer, self._still, self._objecting)
            return self._ended()

    def _abandon(self, staged: StagedExtract) -> None:
        if self._holder.audit.ending(staged.intent) == "":  # else the release has said so itself
            staged.abandon(self._holder.audit)

    def _ended(self) -> ExtractFacts:
        """The file stands here, and that is said."""
        self._fault("linked")
        one = note_released(self._holder, self._extract, self._clock, self._fault)
        self._fault("noted")
        return one.facts


def cut_of(holder: Organisation, request: UseRequest) -> bytes:
    """The cut of a request: which columns and rows, as a keyed digest."""
    rows = b"" if request.predicate is None else encode(request.predicate)
    return keyed(holder.salt_key, QUERY, b"cut", rows, *sorted(name.encode() for name in request.fields))


def other_cut(holder: Organisation, grant: str, cut: bytes, besides: bytes = b"") -> bytes:
    """The id of an extract of another cut, not `besides`, that has left under the grant or is to leave; b"" for none.

    Also of one whose cut nobody knows: the trail has it alone, since the home came back from a backup or the extract
    was made beside the gateway, or a medveil of before noted no cut.
    """
    known = {one.extract: one for one in made(holder)}
    for one in known.values():
        if one.extract != besides and one.facts.grant == grant and one.cut != cut and _out(holder, one):
            return one.extract
    here = {besides, *known, *_making.get(holder, {})}
    return next((extract for extract in _released(holder, grant) if extract not in here), b"")


def _released(holder: Organisation, grant: str) -> Iterator[bytes]:
    """The ids of the extracts that were released under a grant, by the trail."""
    trail, first = holder.audit, 1
    while some := trail.intents("grant_id", grant, first, _PIECE):
        for intent in some:
            if intent.use.kind == _EXTRACT and intent.use.allowed:
                end = trail.end(intent.sequence)
                if end is not None and end.outcome == "released":
                    yield intent.nonce
        first = some[-1].sequence + 1


def _out(holder: Organisation, one: MadeExtract | None) -> bool:
    """Whether an extract has its recipient, or is to have it: a file that stands counts before that is noted, and so
    does what the trail says of one that a restored home knows as it was before its release."""
    if one is None or one.state != "staged":
        return one is not None and one.out
    end = holder.audit.end(one.facts.audit)
    return stands(holder, one.extract) or (end is not None and end.outcome == "released")


# --- what was cut short -------------------------------------------------------------------------


def close_unfinished(holder: Organisation, clock: Clock, going_on: Callable[[], bool]) -> int:
    """Holder: end what was begun and nobody goes on with: intents, bodies that were not released, requests that are
    "making". Returns how much there was.

    going_on: whether there are flows that make extracts and are to be taken up again. Raises what trail and vault do.
    """
    trail = holder.audit
    found = {one.extract for one in made(holder) if one.state == "staged"}
    found |= {one.extract for one in wanted(holder) if one.state == "making"}
    for intent in trail.unfinished():
        found |= {entry.nonce for entry in trail.entries(intent, intent) if entry.use.kind == _EXTRACT}
    if not found or going_on():
        return 0
    return sum(_close(holder, extract, clock) for extract in sorted(found))


def _close(holder: Organisation, extract: bytes, clock: Clock) -> bool:
    """One that no flow of this process is making: it was released, and that is said; or it is let go."""
    with settling:
        if extract in _making.get(holder, {}):
            return False
        one = as_it_stands(holder, extract, clock)
        asks = [ask.ask for ask in wanted(holder) if (ask.state, ask.extract) == ("making", extract)]
        if one is not None and one.state != "staged":
            note_released(holder, extract, clock)
        else:
            _let_go(holder, extract, asks[0] if asks else b"")
        return True


def _let_go(holder: Organisation, extract: bytes, ask: bytes) -> None:
    """Nothing was released: no intent of it stays open, and who asked may be answered again."""
    trail = holder.audit
    with settling:
        for intent in trail.unfinished():
            (entry,) = trail.entries(intent, intent)
            if entry.nonce == extract:
                trail.outcome(intent, "aborted" if entry.use.allowed else "denied")
        forget_made(holder, extract)
        settle_wanted(holder, ask, extract, "waiting")
