"""The routes of the audit trail: who used what here, for which purpose, and its anchoring on the ledger."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel

from ledger.contracts import access
from medveil.gateway import problems
from medveil.gateway.accounting import anchor_audit
from medveil.service.accounts.rights import Principal
from medveil.service.api.callers import May
from medveil.service.api.fields import Number, PageLimit
from medveil.service.api.member_routes import Nothing
from medveil.service.api.path_router import PathRouter
from medveil.service.api.workplace import Workplace
from privacy.audit import AccessBatch, AuditTrail, Entry

Reader = Annotated[Principal, Depends(May("audit.read"))]
Anchorer = Annotated[Principal, Depends(May("audit.anchor"))]

Named = Annotated[str, Query(max_length=64)]

_CHUNK = 2000
"""Entries read at a time."""


class UseView(BaseModel):
    """A use: by whom, of what, for what, under which grant. query: its salted hash, or empty."""

    recipient: str
    dataset: str
    kind: str
    purpose: str
    grant: str
    query: str
    allowed: bool
    rule: str


class AuditEntryView(BaseModel):
    """One entry of the chain. intent: 0 in an intent, otherwise the number of the one that this outcome ends."""

    sequence: int
    time: int
    use: UseView
    intent: int
    outcome: str
    head: str


class AuditPage(BaseModel):
    """Entries in order. next: number of the next page's first entry, or null. anchored: last entry on the ledger."""

    entries: list[AuditEntryView]
    next: int | None
    anchored: int


class FlowView(BaseModel):
    """A use from intent to outcome. outcome: empty while it is under way, or where the process was killed."""

    intent: int
    began: int
    ended: int | None
    use: UseView
    outcome: str


class FlowList(BaseModel):
    """Uses, the oldest first. next: number of the first entry to go on from, or null."""

    flows: list[FlowView]
    next: int | None


class BatchView(BaseModel):
    """Entries first to last, anchored by `root`."""

    first: int
    last: int
    head: str
    root: str


class Batches(BaseModel):
    """What was anchored by this call."""

    batches: list[BatchView]


def use_view(entry: Entry) -> UseView:
    """An entry's use."""
    use = entry.use
    return UseView(
        recipient=use.recipient,
        dataset=use.dataset,
        kind=use.kind,
        purpose=use.purpose,
        grant=use.grant,
        query=use.query.hex(),
        allowed=use.allowed,
        rule=use.rule,
    )


def _view(entry: Entry) -> AuditEntryView:
    return AuditEntryView(
        sequence=entry.sequence,
        time=entry.time,
        use=use_view(entry),
        intent=entry.intent,
        outcome=entry.outcome,
        head=entry.head().hex(),
    )


def _batch(batch: AccessBatch) -> BatchView:
    return BatchView(first=batch.first, last=batch.last, head=batch.head.hex(), root=batch.root.hex())


def uses_by(trail: AuditTrail, first: int, limit: int, recipient: str, grant: str, dataset: str) -> list[FlowView]:
    """Up to `limit` uses whose intent is entry `first` or later, of all that is named of the three; by an index."""
    wanted = {"grant_id": grant, "recipient": recipient, "dataset": dataset}
    column, value = next((name, value) for name, value in wanted.items() if value)
    found: list[FlowView] = []
    while len(found) < limit and (intents := trail.intents(column, value, first, limit)):
        for entry in intents:
            use = entry.use
            if all(
                said in ("", has)
                for said, has in zip(wanted.values(), (use.grant, use.recipient, use.dataset), strict=True)
            ):
                ended = trail.end(entry.sequence)
                found.append(
                    FlowView(
                        intent=entry.sequence,
                        began=entry.time,
                        ended=ended.time if ended else None,
                        use=use_view(entry),
                        outcome=ended.outcome if ended else "",
                    )
                )
        first = intents[-1].sequence + 1
    return found[:limit]


def uses(trail: AuditTrail, first: int, limit: int, kind: str = "") -> list[FlowView]:
    """Up to `limit` uses whose intent is entry `first` or later, each with its outcome if that is there.

    kind: only uses of this kind. Entries are read until there are enough; where one of these ends later, by an index.
    """
    found: dict[int, FlowView] = {}
    first = max(first, trail.pruned.last + 1)
    while len(found) < limit:
        entries = trail.entries(first, first + _CHUNK - 1)
        for entry in entries:
            begun = found.get(entry.intent)
            if begun is not None:
                begun.ended, begun.outcome = entry.time, entry.outcome
            elif not entry.intent and len(found) < limit and kind in ("", entry.use.kind):
                use = use_view(entry)
                found[entry.sequence] = FlowView(
                    intent=entry.sequence, began=entry.time, ended=None, use=use, outcome=""
                )
        if len(entries) < _CHUNK:
            break
        first += _CHUNK
    for one in found.values():
        if not one.outcome and (end := trail.end(one.intent)) is not None:
            one.ended, one.outcome = end.time, end.outcome
    return list(found.values())


def audit_routes(at: Workplace) -> APIRouter:
    """The router of ``/v1/audit``."""
    router = PathRouter(tags=["audit"])
    trail = at.organisation.audit
    anchoring = asyncio.Lock()  # the batch that waits is one

    @router.get("/v1/audit/entries", summary="Read the audit trail")
    async def entries(_who: Reader, first: Number = 1, limit: PageLimit = 100) -> AuditPage:
        """Entries of this organisation's own chain, in order."""
        first = max(first, trail.pruned.last + 1)
        found = await asyncio.to_thread(trail.entries, first, first + limit)
        chain = at.organisation.account.state.get(access.chain_key(at.organisation.name), access.ChainState)
        page = found[:limit]
        return AuditPage(
            entries=[_view(entry) for entry in page],
            next=found[limit].sequence if len(found) > limit else None,
            anchored=chain.last if chain is not None else 0,
        )

    @router.get("/v1/audit/flows", summary="Who used what")
    async def used(
        _who: Reader,
        first: Number = 1,
        limit: PageLimit = 100,
        recipient: Named = "",
        grant: Named = "",
        dataset: Named = "",
    ) -> FlowList:
        """Uses of this organisation's data from intent to outcome, those whose intent is entry `first` or later.

        recipient, grant, dataset: only those of these names.
        """
        if recipient or grant or dataset:
            found = await asyncio.to_thread(uses_by, trail, first, limit + 1, recipient, grant, dataset)
        else:
            found = await asyncio.to_thread(uses, trail, first, limit + 1)
        return FlowList(flows=found[:limit], next=found[limit].intent if len(found) > limit else None)

    @router.post("/v1/audit/anchor", summary="Anchor the audit trail", responses=problems.documented(404, 409))
    async def anchor(_who: Anchorer, body: Nothing) -> Batches:
        """Put the roots of all entries that are not there yet on the ledger. The gateway does so by itself, too."""
        async with anchoring:
            return Batches(batches=[_batch(batch) for batch in await anchor_audit(at.organisation)])

    return router
