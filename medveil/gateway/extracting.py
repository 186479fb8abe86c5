"""Making an extract: decided, written and released at its holder, under a grant of its data officer.

    holder                decides, audit intent, encrypted body: its key is in this process alone
    holder -> ledger      AnchorAccess    the batch with the intent, pushed now
    holder                decides again; the end with the sealed key; the file appears; outcome "released"
    holder -> recipient   the file: `medveil.gateway.extract_delivery`

A body without its end is noise. So whoever is cut short before the file has appeared begins it anew under the same
extract id: the trail shows one intent and one outcome, and one file can ever stand there. Whoever is cut short after
that goes on with the delivery. What the file says is kept in the vault before it appears, since it is sealed to the
recipient and cannot be read here any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal
from weakref import WeakKeyDictionary

import msgspec

from medveil.gateway.accounting import anchor_audit
from medveil.gateway.extract_drafts import Draft, RiskChoice, draft, mask_key
from medveil.gateway.extract_wanted import check_request, note_wanted, wanted_of
from medveil.gateway.granting import end_use, judge
from medveil.gateway.organisation import Clock, Organisation
from medveil.gateway.steps import FlowCancelled, Steps
from medveil.gateway.tables import PERSON, Tables
from medveil.gateway.use_state import anchored, opt_outs
from privacy.audit import use_of
from privacy.copies.extract_file import ExtractFacts
from privacy.copies.extracts import SUFFIX, ExtractWanted, StagedExtract, clear_leftovers, stage_extract, was_released
from privacy.decide import Decision, UseRequest
from privacy.grants.opt_outs import ScopeId
from wire.canonical import Wire, decode, encode
from wire.dates import Instant
from wire.domains import QUERY, keyed
from wire.errors import ConsentDenied, Refused, Unavailable
from wire.identifiers import Handle

FOLDER = "extracts"
MADE = "made"
"""Folders of an organisation's home: extracts it made, until they are delivered, beside those it holds."""

_MADE = "extract-made"
_LOOK = 1.0

_answering: WeakKeyDictionary[Organisation, set[bytes]] = WeakKeyDictionary()
"""Requests that flows of this process are answering."""

Fault = Callable[[str], None]


def no_fault(_step: str) -> None:
    """Nothing happens at a step."""


class ExtractWish(Wire, frozen=True, tag="medveil.extract_wish"):
    """What the data officer has made. ask: the request that it answers, or b"". grant: on which it must rest, or ""."""

    ask: Annotated[bytes, msgspec.Meta(max_length=16)]
    grant: Annotated[str, msgspec.Meta(max_length=64)]
    request: UseRequest
    choice: RiskChoice


class MadeExtract(Wire, frozen=True, tag="medveil.made_extract"):
    """An extract of this organisation. at: of its latest state.

    staged: its body stands on disk, nobody has its key; released: the file is here, to be delivered; delivered: the
    recipient has it, nothing is left here; withdrawn: it was released and never left, and is gone. code: why, or "".
    cut: keyed hash of columns and row filter that were wished.
    """

    ask: Annotated[bytes, msgspec.Meta(max_length=16)]
    facts: ExtractFacts
    state: Literal["staged", "released", "delivered", "withdrawn"]
    at: Instant
    code: Annotated[str, msgspec.Meta(max_length=100)] = ""
    cut: Annotated[bytes, msgspec.Meta(max_length=32)] = b""

    @property
    def extract(self) -> bytes:
        """Its id."""
        return self.facts.cover.extract

    def brings(self, dataset: str, recipient: str) -> bool:
        """Whether it brought rows of that dataset to that recipient, or is to."""
        whose = (self.facts.dataset, self.facts.cover.recipient)
        return whose == (dataset, recipient) and self.state in ("released", "delivered")


class _Begun(Wire, frozen=True, tag="medveil.extract_begun"):
    """The id under which it is made, whatever happens."""

    extract: Handle


class _Released(Wire, frozen=True, tag="medveil.extract_released"):
    """What was released."""

    facts: ExtractFacts


def made_folder(holder: Organisation) -> Path:
    """Where extracts stand that this organisation made; it is there when this returns. Raises Unavailable."""
    folder = holder.folder / FOLDER / MADE
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable("privacy.store_failed", path=str(folder), reason=error.strerror or "I/O") from None
    return folder


def made_path(holder: Organisation, extract: bytes) -> Path:
    """Where the file of an extract stands until it is delivered."""
    return made_folder(holder) / f"{extract.hex()}{SUFFIX}"


def made(holder: Organisation) -> tuple[MadeExtract, ...]:
    """What this organisation made, the oldest first."""
    found = (decode(MadeExtract, holder.vault.document(_MADE, name)) for name in holder.vault.documents(_MADE))
    return tuple(sorted(found, key=lambda one: (one.facts.made, one.extract)))


def made_of(holder: Organisation, extract: bytes) -> MadeExtract:
    """One of them. Raises Refused where there is none."""
    if extract.hex() not in holder.vault.documents(_MADE):
        raise Refused("extracts.unknown", extract=extract.hex())
    return decode(MadeExtract, holder.vault.document(_MADE, extract.hex()))


def keep_made(holder: Organisation, one: MadeExtract) -> None:
    """Keep how an extract stands."""
    holder.vault.put_document(_MADE, one.extract.hex(), encode(one))


def tidy(holder: Organisation) -> int:
    """Remove bodies whose keys nobody has, while none is being made: when a process begins. How many there were."""
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

    return (await steps.once("released", _Released, releasing)).facts


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
        self._read_as_of: tuple[int, int] | None = None

    async def run(self) -> ExtractFacts:
        """Make it, or find that it was made."""
        if await asyncio.to_thread(was_released, self._path, self._extract):
            return await self._ended()
        answering = _answering.setdefault(self._holder, set())
        try:
            self._claim(answering)
        except Refused:
            await self._let_go()
            raise
        try:
            return await self._made()
        finally:
            answering.discard(self._wish.ask)

    async def _made(self) -> ExtractFacts:
        try:
            await self._holder.account.present()
            staged = await asyncio.to_thread(self._stage)
            self._fault("staged")
            try:
                await self._anchor()
                self._fault("anchored")
                await asyncio.to_thread(self._release, staged)
            except (Exception, FlowCancelled):
                if not await asyncio.to_thread(was_released, self._path, self._extract):
                    await asyncio.to_thread(self._abandon, staged)
                raise
        except (Exception, FlowCancelled):
            if not await asyncio.to_thread(was_released, self._path, self._extract):
                await self._let_go()
                raise
        return await self._ended()

    def _claim(self, answering: set[bytes]) -> None:
        """Take the request that is answered, so that it is answered once. answering: those that are being answered.

        One that nobody answers any more, such as of a job that a restore ended, may be taken anew.
        """
        if not self._wish.ask:
            return
        one = wanted_of(self._holder, self._wish.ask)
        taken = one.ask in answering or one.state in ("declined", "delivered")
        if taken or one.request.recipient != self._wish.request.recipient:
            raise Refused("gateway.extract_answered", ask=one.ask.hex())
        note_wanted(self._holder, one.ask, "making", self._extract)
        answering.add(one.ask)  # not before it is noted: a full disk would have it answered for ever

    def _decide(self) -> Decision:
        return judge(self._holder, self._wish.request, self._clock(), self._wish.grant)

    def _persons_of(self, scopes: tuple[ScopeId, ...]) -> frozenset[bytes]:
        return opt_outs(self._holder).persons(scopes, self._clock()) if scopes else frozenset()

    def _salted(self) -> bytes:
        return keyed(self._holder.salt_key, QUERY, self._extract, encode(self._wish.request))

    def _cut(self) -> bytes:
        request = self._wish.request
        rows = b"" if request.predicate is None else encode(request.predicate)
        return keyed(self._holder.salt_key, QUERY, b"cut", rows, *sorted(name.encode() for name in request.fields))

    def _check_cut(self, grant: str) -> None:
        """All extracts of a grant have one cut: each keeps to its limits alone, and what two of them tell together, of
        whoever is in the one and not in the other, nobody has measured."""
        for one in made(self._holder):
            other = one.extract != self._extract and one.facts.grant == grant and one.cut not in (b"", self._cut())
            if other and one.state in ("released", "delivered"):
                raise Refused("gateway.extract_other_cut", grant=grant, extract=one.extract.hex())

    def _erased(self) -> tuple[int, int] | None:
        """Changes when rows are erased, restricted or let go again, or the table is loaded anew; None: no table."""
        try:
            info = self._holder.vault.info(self._wish.request.dataset)
        except Refused:
            return None
        return info.number, info.changes

    def _stage(self) -> StagedExtract:
        """Decide, write the intent, then the body. In a thread."""
        holder, wish = self._holder, self._wish
        self._read_as_of = self._erased()
        found = draft(holder, self._tables, wish.request, wish.choice, self._clock, wish.grant)
        if not isinstance(found, Draft):
            holder.audit.outcome(holder.audit.intent(use_of(wish.request, found, self._salted())), "denied")
            raise ConsentDenied(found.code, **found.facts())
        self._check_cut(found.decision.grant)
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

        def as_measured() -> Decision:
            """The decision of now, as long as it is the one by which the risk was measured."""
            again = self._decide()
            if again.allowed and _said(again) != _said(found.decision):
                raise Refused("extracts.changed", grant=found.decision.grant)
            return again

        staged = stage_extract(
            self._path,
            found.leaving,
            wanted,
            as_measured,
            holder.audit,
            self._clock(),
            persons_of=self._persons_of,
            rand=holder.rand,
        )
        keep_made(holder, MadeExtract(wish.ask, staged.facts, "staged", self._clock(), cut=self._cut()))
        return staged

    async def _anchor(self) -> None:
        """Have the batch with the intent on the ledger, however long that takes, up to the last patience."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._holder.last_patience
        while True:
            await self._steps.boundary()
            try:
                await anchor_audit(self._holder)
                return
            except Unavailable:
                if loop.time() >= end:
                    raise
            await asyncio.sleep(_LOOK)

    def _release(self, staged: StagedExtract) -> None:
        if self._erased() != self._read_as_of:  # somebody may be in it who is in the table no more
            raise Refused("extracts.changed", grant=staged.facts.grant)
        staged.release(self._holder.audit, self._holder.signer, self._decide, self._persons_of)

    def _abandon(self, staged: StagedExtract) -> None:
        if self._holder.audit.ending(staged.intent) == "":  # else the release has said so itself
            staged.abandon(self._holder.audit)

    async def _ended(self) -> ExtractFacts:
        """The file stands here: say so wherever that is not said yet."""
        one = made_of(self._holder, self._extract)
        self._fault("linked")
        await end_use(self._holder, one.facts.audit, "released")
        self._fault("outcome")
        if one.state == "staged":
            keep_made(self._holder, msgspec.structs.replace(one, state="released", at=self._clock()))
        self._fault("noted")
        return one.facts

    async def _let_go(self) -> None:
        """Nothing was released: no intent of it stays open, and who asked may be answered again."""
        trail = self._holder.audit
        for intent in trail.unfinished():
            (entry,) = trail.entries(intent, intent)
            if entry.nonce == self._extract:
                trail.outcome(intent, "aborted")
        self._holder.vault.remove_document(_MADE, self._extract.hex())
        if self._wish.ask:
            one = wanted_of(self._holder, self._wish.ask)
            if (one.state, one.extract) == ("making", self._extract):
                note_wanted(self._holder, one.ask, "waiting")


def _said(decision: Decision) -> tuple[object, ...]:
    """What of a decision the measured rows depend on."""
    return decision.grant, decision.rows, decision.columns, decision.excluded, decision.min_group


def still_allowed(holder: Organisation, facts: ExtractFacts, clock: Clock) -> bool:
    """Whether the grant of a released extract still stands: asked before anything of it leaves."""
    (found,) = anchored(holder, [facts.grant]) or (None,)
    now = clock()
    return (
        found is not None
        and not found.revoked
        and (found.issuer, found.commitment) == (holder.name, facts.commitment)
        and now < found.expires
        and now < facts.delete_by
    )
