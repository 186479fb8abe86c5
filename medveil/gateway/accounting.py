"""The audit trail's way onto the ledger: batch roots, anchored in order."""

from __future__ import annotations

from ledger.contracts import access as board
from medveil.gateway.organisation import Organisation
from privacy.audit import AccessBatch


async def anchor_audit(organisation: Organisation) -> tuple[AccessBatch, ...]:
    """Anchor every entry that is not anchored yet; returns the batches of this call.

    A batch that reached the ledger before its receipt did (a crash, a timeout) is found there and not
    sent again. Raises Unavailable, or Refused if the ledger holds another batch in its place.
    """
    done = []
    while (batch := organisation.audit.batch()) is not None:
        said = (batch.first, batch.last, batch.previous_head, batch.head, batch.root)
        state = await organisation.account.caught_up()
        found = state.get(board.batch_key(organisation.name, batch.first), board.BatchState)
        if found is None or (found.first, found.last, found.previous_head, found.head, found.root) != said:
            await organisation.submit(board.AnchorAccess(*said))
        organisation.audit.anchored(batch)
        done.append(batch)
    return tuple(done)
