"""`access`: batch roots of every organisation's own access chain.

Who used what stays in the organisation's audit trail; its hash chain is anchored here batch by batch.
A batch must continue the sender's last one (next number, same head), so that entries can neither be
left out nor rewritten once anchored; the first starts with entry 1 after 32 zero bytes. Entries go
into evidence with inclusion proofs under `root`.

State keys: ``access/<organisation>`` -> ChainState; ``access/<organisation>/<first>`` -> BatchState.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from ledger.contracts.contract import Context, Contract, Event, View, state_key
from wire.canonical import Wire
from wire.dates import Instant
from wire.errors import Refused
from wire.identifiers import Hash, Name
from wire.keyset import Height

NAME = "access"
MOST_ENTRIES = 100_000
"""Most entries of one batch."""
START = bytes(32)
"""The head before entry 1."""

Number = Annotated[int, msgspec.Meta(ge=1, le=2**53)]


class AnchorAccess(Wire, frozen=True, tag="access.anchor"):
    """Entries first..last of the sender's chain. previous_head, head: chain hashes around them; root: their tree."""

    first: Number
    last: Number
    previous_head: Hash
    head: Hash
    root: Hash


class ChainState(Wire, frozen=True, tag="access.chain"):
    """The anchored end of an organisation's chain. last: number of its last entry; batches: how many."""

    organisation: Name
    last: Number
    head: Hash
    batches: Number


class BatchState(Wire, frozen=True, tag="access.batch"):
    """An anchored batch. height, time: of the block that carries it."""

    organisation: Name
    first: Number
    last: Number
    previous_head: Hash
    head: Hash
    root: Hash
    height: Height
    time: Instant


def chain_key(organisation: str) -> bytes:
    """State key of an organisation's chain."""
    return state_key(NAME, organisation)


def batch_key(organisation: str, first: int) -> bytes:
    """State key of the batch that starts with entry `first`."""
    return state_key(NAME, organisation, first)


def anchor(op: AnchorAccess, sender: str, context: Context, view: View) -> tuple[Event, ...]:
    """Anchor the next batch of the sender."""
    if not op.first <= op.last < op.first + MOST_ENTRIES:
        raise Refused("access.range", organisation=sender, first=op.first, last=op.last)
    chain = view.get(chain_key(sender), ChainState)
    if chain is None:
        if op.first != 1:
            raise Refused("access.gap", organisation=sender, first=op.first, expected=1)
        if op.previous_head != START:
            raise Refused("access.rewritten", organisation=sender, first=op.first)
    elif op.first != chain.last + 1:
        raise Refused("access.gap", organisation=sender, first=op.first, expected=chain.last + 1)
    elif op.previous_head != chain.head:
        raise Refused("access.rewritten", organisation=sender, first=op.first)
    batch = BatchState(sender, op.first, op.last, op.previous_head, op.head, op.root, context.height, context.time)
    view.put(batch_key(sender, op.first), batch)
    view.put(chain_key(sender), ChainState(sender, op.last, op.head, chain.batches + 1 if chain else 1))
    return (Event("access.anchored", sender, (op.first, op.last)),)


CONTRACT = Contract(NAME, 1, {AnchorAccess: anchor})
