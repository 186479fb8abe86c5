"""A snapshot: the state at one final head, to start from instead of replaying everything.

`verify_snapshot` restores it only against a checkpoint that k re-executing members cosigned:

    entries --state tree--> state_root of the block header --leaf of the log--> leaves --root--> cosigned checkpoint

Every byte of the file is bound that way or by genesis. What it cannot show is how the state came about:
whoever starts from a snapshot trusts k cosigners for the blocks before, instead of replaying them. It
restores the present, not the past: no receipts, blocks or export of what came before.
"""

from __future__ import annotations

from itertools import pairwise

from ledger.export import Pieces
from ledger.handovers import check_members, extend_by
from ledger.machine import BlockHeader, Machine
from ledger.receipts import ProvenValue
from ledger.trees.log import Log
from ledger.trees.state import StateTree
from wire.canonical import Wire, encode
from wire.checkpoint import Note, TrustFile, leaf_hash, verify_checkpoint
from wire.errors import VerificationError
from wire.evidence import Header, register
from wire.identifiers import Hash
from wire.keyset import Founding


class StateEntry(Wire, frozen=True, tag="ledger.state_entry"):
    """One key of the state with its canonical value."""

    key: bytes
    value: bytes


class LedgerSnapshot(Wire, frozen=True, tag="ledger.snapshot"):
    """Evidence of the state after `block` (height >= 1).

    leaves: the log's leaf hashes from genesis to `block`, 32 bytes each; entries: the whole state in the
    order of keys; handovers: one for each height at which members or keys changed, in order; note: the final
    checkpoint whose last leaf `block` is; pieces: how many files hold leaves and entries, if this one does not
    (`ledger.pieces`); 0 of a snapshot that is whole.
    """

    header: Header
    founding: Founding
    block: BlockHeader
    leaves: tuple[Hash, ...]
    entries: tuple[StateEntry, ...]
    handovers: tuple[ProvenValue, ...]
    note: bytes
    pieces: Pieces = 0


SNAPSHOT = register("ledger-snapshot", 1, LedgerSnapshot)


def take_snapshot(
    founding: Founding,
    block: BlockHeader,
    state: StateTree,
    log: Log,
    handovers: tuple[ProvenValue, ...],
    note: Note,
) -> LedgerSnapshot:
    """The snapshot of `state` after `block`; `log` reaches at least that far, `note` is the final head over it."""
    leaves = tuple(log.leaf(index) for index in range(block.height + 1))
    entries = tuple(StateEntry(key, value) for key, value in state.items())
    return LedgerSnapshot(SNAPSHOT, founding, block, leaves, entries, handovers, note.format())


def verify_snapshot(snapshot: LedgerSnapshot, trust: TrustFile) -> Machine:
    """Check a snapshot against a pinned trust file; returns a machine that stands at its block.

    Raises VerificationError (naming the part that does not hold) or QuorumNotMet.
    """
    if snapshot.header != SNAPSHOT or encode(snapshot.founding) != trust.genesis:
        raise VerificationError("ledger.other_genesis", chain=trust.chain)
    if snapshot.pieces:
        raise VerificationError("ledger.missing_piece", number=1, count=snapshot.pieces)
    known = extend_by(trust, snapshot.handovers, snapshot.block.height)
    checkpoint = verify_checkpoint(snapshot.note, known)
    block = snapshot.block
    log = Log.of(snapshot.leaves)
    if not 1 < checkpoint.size == log.size == block.height + 1 or log.root() != checkpoint.root:
        raise VerificationError("ledger.bad_snapshot", part="leaves", height=block.height)
    if snapshot.leaves[-1] != leaf_hash(encode(block)):
        raise VerificationError("ledger.bad_snapshot", part="block", height=block.height)
    if any(one.key >= other.key for one, other in pairwise(snapshot.entries)):
        raise VerificationError("ledger.bad_snapshot", part="entries", height=block.height)
    state = StateTree().update({entry.key: entry.value for entry in snapshot.entries})
    if state.root != block.state_root:
        raise VerificationError("ledger.bad_snapshot", part="entries", height=block.height)
    machine = Machine(snapshot.founding)
    machine.state, machine.header, machine.log = state, block, log
    check_members(known, machine.trust, block.height)
    return machine
