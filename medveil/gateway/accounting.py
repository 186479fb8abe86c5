"""The audit trail's way onto the ledger: batch roots, anchored in order."""

from __future__ import annotations

import asyncio

from ledger.contracts import access as board
from medveil.gateway.ledger_account import LedgerState
from medveil.gateway.organisation import Organisation
from medveil.gateway.steps import Steps
from privacy.audit import LARGEST_BATCH, AccessBatch
from wire.errors import Unavailable

EVERY = 10.0
"""Seconds within which an entry is on its way to the ledger."""
_LOOK = 0.5
_LOOK_AGAIN = 1.0
"""Seconds after which a flow that waits for the ledger asks it again."""


async def anchor_audit(organisation: Organisation) -> tuple[AccessBatch, ...]:
    """Anchor every entry that is not anchored yet; returns the batches of this call.

    A batch that reached the ledger before its receipt did (a crash, a timeout) is found there and not
    sent again. Raises Unavailable, or Refused if the ledger holds another batch in its place.
    """
    done = []
    async with organisation.anchoring:
        while (batch := organisation.audit.batch()) is not None:
            said = (batch.first, batch.last, batch.previous_head, batch.head, batch.root)

            def stands(state: LedgerState, said: tuple[int, int, bytes, bytes, bytes] = said) -> bool:
                found = state.get(board.batch_key(organisation.name, said[0]), board.BatchState)
                return (
                    found is not None and (found.first, found.last, found.previous_head, found.head, found.root) == said
                )

            await organisation.ensure(stands, board.AnchorAccess(*said))
            organisation.audit.anchored(batch)
            done.append(batch)
    return tuple(done)


async def anchor_within_patience(organisation: Organisation, steps: Steps) -> None:
    """Anchor every entry before a flow goes on, however long that takes, up to the last patience.

    Raises Unavailable after that, FlowCancelled where the flow is cancelled meanwhile, Refused as `anchor_audit`.
    """
    clock = asyncio.get_running_loop().time
    end = clock() + organisation.last_patience
    while True:
        await steps.boundary()
        try:
            await anchor_audit(organisation)
            return
        except Unavailable:
            if clock() >= end:
                raise
        await asyncio.sleep(_LOOK_AGAIN)


async def keep_anchoring(organisation: Organisation, every_seconds: float = EVERY, most: int = LARGEST_BATCH) -> None:
    """Anchor the audit trail for as long as this runs: every so many seconds, and as soon as `most` entries wait.

    Where the ledger cannot be reached it tries again. Raises Refused if the ledger holds another batch in the place
    of one of its own: then somebody else writes in this organisation's name, or its trail is an old copy.
    """
    clock = asyncio.get_running_loop().time
    anchored = clock()
    while True:
        await asyncio.sleep(min(_LOOK, every_seconds))
        if clock() - anchored < every_seconds and organisation.audit.waiting() < most:
            continue
        try:
            await anchor_audit(organisation)
        except Unavailable:
            pass
        anchored = clock()
