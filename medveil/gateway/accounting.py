"""The audit trail's way onto the ledger: batch roots, anchored in order."""

from __future__ import annotations

from ledger.contracts import access as board
from medveil.gateway.organisation import Organisation
from privacy.audit import AccessBatch


async def anchor_audit(organisation: Organisation) -> tuple[AccessBatch, ...]:
    """Anchor every entry that is not anchored yet; returns the batches of this call."""
    done = []
    while (batch := organisation.audit.batch()) is not None:
        await organisation.submit(
            board.AnchorAccess(batch.first, batch.last, batch.previous_head, batch.head, batch.root)
        )
        organisation.audit.anchored(batch)
        done.append(batch)
    return tuple(done)
