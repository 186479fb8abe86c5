"""The whole ledger as one piece of evidence, and its verification from genesis.

`verify_export` trusts nothing in the file: it replays every block (each envelope's signature, each
contract), compares every header, and checks that the final checkpoint, cosigned as the trust file
demands, has exactly the root and size it got itself. It follows the members through their changes: each must be
handed over by the members before. A fault is named by block height and entry.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec

from ledger.handovers import check_members, extend_by
from ledger.machine import Block, BlockOutcome, Machine
from ledger.receipts import ProvenValue
from wire.canonical import Wire, encode
from wire.checkpoint import TrustFile, verify_checkpoint
from wire.errors import VerificationError
from wire.evidence import Header, register
from wire.keyset import Founding

Pieces = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class LedgerExport(Wire, frozen=True, tag="ledger.export"):
    """Evidence of all history. blocks: from height 1 on, no gap; note: the final checkpoint that covers them all.

    handovers: one for each height at which members or keys changed, in order; pieces: how many files hold
    the blocks, if this one does not (`ledger.pieces`); 0 of an export that is whole.
    """

    header: Header
    founding: Founding
    blocks: tuple[Block, ...]
    handovers: tuple[ProvenValue, ...]
    note: bytes
    pieces: Pieces = 0


EXPORT = register("ledger-export", 1, LedgerExport)


def verify_export(
    export: LedgerExport, trust: TrustFile, replayed: Callable[[Block, BlockOutcome], None] | None = None
) -> Machine:
    """Replay and check everything; returns the machine at the final head, for reading its state.

    What is signed by members that came later than `trust` knows verifies against `extend(trust, export.handovers)`.

    replayed: is shown each block with its outcome as it is replayed. Nothing is verified until this function
    returns: the head's cosignatures are checked last.

    Raises VerificationError (naming height and entry where one is at fault) or QuorumNotMet.
    """
    if export.header != EXPORT or encode(export.founding) != trust.genesis:
        raise VerificationError("ledger.other_genesis", chain=trust.chain)
    if export.pieces:
        raise VerificationError("ledger.missing_piece", number=1, count=export.pieces)
    known = extend_by(trust, export.handovers, len(export.blocks))
    machine = Machine(export.founding)
    for block in export.blocks:
        outcome = machine.replay(block)
        if replayed is not None:
            replayed(block, outcome)
    check_members(known, machine.trust, machine.height)
    checkpoint = verify_checkpoint(export.note, known)
    if (checkpoint.size, checkpoint.root) != (machine.log.size, machine.log.root()):
        raise VerificationError("ledger.export_head", height=machine.height, size=checkpoint.size)
    return machine
