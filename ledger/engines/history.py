"""What the embedded engine shows of its ledger: heads, final state, blocks, and the evidence of each.

It reads the engine's store and machine, and decides nothing: what is final, the engine says.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial

from ledger.engines.engine import Cursor
from ledger.engines.store import Store
from ledger.export import EXPORT, LedgerExport
from ledger.machine import Block, BlockHeader, Machine, Result
from ledger.reading import Entry, Selection
from ledger.receipts import PROVEN_VALUE, RECEIPT, ProvenValue, Receipt
from ledger.snapshots import LedgerSnapshot, take_snapshot
from ledger.trees.log import Log
from ledger.trees.state import StateTree
from wire.canonical import encode
from wire.checkpoint import Note
from wire.errors import Refused, Unavailable
from wire.keyset import Founding

KEPT = 4
"""Blocks that are kept in memory, decoded, for the receipts of their envelopes."""
PAGE = 100
"""Blocks that are looked up at a time while history is searched."""


class _Readable:
    """A block, its results, and the tree over them."""

    def __init__(self, block: Block, results: tuple[Result, ...]) -> None:
        self.block = block
        self.results = results
        self.tree = Log()
        for result in results:
            self.tree.append(encode(result))


class History:
    """The ledger in `store`, up to the block that `machine` has executed. It starts where `machine` stands now."""

    def __init__(self, store: Store, founding: Founding, machine: Machine) -> None:
        self.machine = machine
        self.origin = machine.header  # what the stored blocks follow
        self.final: Note | None = None
        self.handovers: tuple[ProvenValue, ...] = ()
        self._store, self._founding = store, founding
        self._states: dict[int, StateTree] = {self.origin.height: machine.state}  # by height, from the final one on
        self._heads: dict[int, Note] = {}  # by size: signed, with cosignatures, above the last final one
        self._blocks: OrderedDict[int, _Readable] = OrderedDict()  # the latest that receipts were asked of

    @property
    def final_height(self) -> int:
        """Height of the last final block."""
        return self.final.checkpoint.size - 1 if self.final else self.origin.height

    def executed(self, note: Note) -> None:
        """The machine has executed another block; `note`: the head over it, as the sequencer signed it."""
        self._states[self.machine.height] = self.machine.state
        self._heads[note.checkpoint.size] = note

    def head(self, size: int) -> Note | None:
        """The head of a size with the cosignatures so far; None below the last final one, and where there is none."""
        return self._heads.get(size)

    def cosigned(self, note: Note) -> None:
        """A head has one cosignature more."""
        self._heads[note.checkpoint.size] = note

    def make_final(self, note: Note) -> None:
        """The head of the last final block."""
        self.final = note
        self.forget(note.checkpoint.size - 1)
        self._heads[note.checkpoint.size] = note

    def forget(self, height: int) -> None:
        """Let go of states and heads of before `height`: nobody asks for them any more."""
        self._states = {other: state for other, state in self._states.items() if other >= height}
        self._heads = {size: head for size, head in self._heads.items() if size > height}

    def final_note(self) -> Note:
        """The last final head. Raises Unavailable while nothing is final."""
        if self.final is None:
            raise Unavailable("ledger.not_final", retry_after=1)
        return self.final

    def value(self, key: bytes) -> bytes | None:
        """A value of the last final head."""
        return self._states[self.final_height].get(key)

    def proven(self, key: bytes) -> ProvenValue:
        """A value of the last final head, or its absence, with the proof."""
        note, height = self.final_note(), self.final_height
        state = self._states[height]
        return ProvenValue(
            header=PROVEN_VALUE,
            key=key,
            value=state.get(key),
            proof=state.prove(key),
            block=self.header(height),
            block_path=self.machine.log.inclusion_proof(height, note.checkpoint.size),
            note=note.format(),
        )

    def receipt(self, height: int, entry: int) -> Receipt:
        """The receipt of an envelope of a final block."""
        note = self.final_note()
        block = self._readable(height)
        return Receipt(
            header=RECEIPT,
            envelope=block.block.envelopes[entry],
            result=block.results[entry],
            result_path=block.tree.inclusion_proof(entry),
            block=block.block.header,
            block_path=self.machine.log.inclusion_proof(height, note.checkpoint.size),
            note=note.format(),
        )

    def results(self, height: int) -> tuple[Result, ...]:
        """The results of a block."""
        return self._readable(height).results

    def _readable(self, height: int) -> _Readable:
        """A stored block with the tree over its results. All envelopes of a block are asked for at once."""
        found = self._blocks.get(height)
        if found is None:
            found = self._blocks[height] = _Readable(self._store.block(height)[0], self._store.results(height))
            if len(self._blocks) > KEPT:
                self._blocks.popitem(last=False)
        return found

    def header(self, height: int) -> BlockHeader:
        """The header of a block, or of that before the first stored one."""
        for known in (self.machine.header, self.origin):
            if known.height == height:
                return known
        return self._store.block(height)[0].header

    def export(self) -> LedgerExport:
        """See `Engine.export`."""
        self.check_kept(1)
        note = self.final_note()
        blocks = tuple(self._store.block(height)[0] for height in range(1, note.checkpoint.size))
        return LedgerExport(EXPORT, self._founding, blocks, self._handed_over(), note.format())

    def search(self, selection: Selection, after: Cursor) -> Iterator[list[Entry]]:
        """What is selected of final history after a place, block by block: of each one that is looked at."""
        height, last = after.height, self.final_height
        while True:
            heights = self._store.heights(selection, height, last, PAGE)
            for height in heights:
                block, results = self._store.block(height)[0], self._store.results(height)
                yield [entry for entry in selection.entries(block, results) if Cursor.of(entry) > after]
            if len(heights) < PAGE:
                return
            height += 1

    def check_kept(self, height: int) -> None:
        """Raises Refused for a block that a ledger which started from a snapshot does not have."""
        if height <= self.origin.height:
            raise Refused("ledger.before_snapshot", height=height, first=self.origin.height + 1)

    def snapshot(self) -> Callable[[], LedgerSnapshot]:
        """What takes the snapshot of the last final head, of now: it may take its time beside the blocks that follow.

        The tree is immutable and the log only grows.
        """
        note, height = self.final_note(), self.final_height
        block, state = self.header(height), self._states[height]
        return partial(take_snapshot, self._founding, block, state, self.machine.log, self._handed_over(), note)

    def _handed_over(self) -> tuple[ProvenValue, ...]:
        """The handovers up to the last final head: it may be older than the last of them after a restart."""
        return tuple(one for one in self.handovers if one.block.height <= self.final_height)
