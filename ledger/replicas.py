"""A member's replica: replays every block itself, and cosigns only a head that it reached itself.

This is what makes a cosignature worth counting. A replica refuses a block that is not valid, a header
that differs from its own, a head that is not its own log's, and any head that contradicts one it
cosigned before: with `memory`, also before it was restarted. A sequencer that shows two members two
histories gets both cosigned by at most one of them each, and k of n makes one of them final at most. A
replica that is shown both keeps the evidence (`ledger.split_view`) and stops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ledger.faults import Fault, no_fault
from ledger.head_memory import HeadMemory
from ledger.machine import Block, Machine
from ledger.snapshots import LedgerSnapshot, verify_snapshot
from ledger.split_view import SplitView, find_split
from ledger.trees.log import Log
from wire.canonical import encode
from wire.checkpoint import Note, SignatureLine, cosign_checkpoint
from wire.checkpoint.note import verify_cosignature, verify_log_signature
from wire.checkpoint.trust import trust_of
from wire.errors import VerificationError
from wire.keyset import Founding
from wire.signing import Signer

FUTURE = 300_000
"""How far a block's time may be ahead of the replica's own clock, in ms."""


class Replica:
    """The replica of one re-executing member.

    signer: its cosign key; clock: ms UTC; memory: file that keeps the last cosigned
    head across restarts; without one, a restarted replica has forgotten what it signed; fault: see `ledger.faults`;
    snapshot: where to start, instead of genesis: then k other members vouch for what was before;
    report: is handed the evidence when the sequencer shows two histories.
    """

    def __init__(
        self,
        founding: Founding,
        organisation: str,
        signer: Signer,
        clock: Callable[[], int],
        memory: Path | None = None,
        fault: Fault = no_fault,
        snapshot: LedgerSnapshot | None = None,
        report: Callable[[SplitView], None] | None = None,
    ) -> None:
        """Raises VerificationError if `organisation` is no member, `signer` not its cosign key, or `snapshot` wrong."""
        self._trust = trust_of(founding)
        self.machine = Machine(founding) if snapshot is None else verify_snapshot(snapshot, self._trust)
        self.organisation = organisation
        self.split_view: SplitView | None = None
        """Evidence that the sequencer showed this member two histories; it cosigns nothing any more."""
        self._report = report
        self._signer = signer
        self._clock = clock
        self._memory = HeadMemory(memory, fault) if memory is not None else None
        if self._trust.member(organisation).keys.cosign.key != signer.key:
            raise VerificationError("ledger.not_cosigner", organisation=organisation)
        self._cosigned = self._recall()

    @property
    def height(self) -> int:
        """Height it has replayed."""
        return self.machine.height

    def follow(self, blocks: Sequence[Block], note: Note) -> SignatureLine | None:
        """Replay `blocks` (those it already has are skipped) and cosign `note`, which must be their head.

        None while a restarted replica is still below the head it cosigned before: a cosignature says that
        no larger head was seen, and only at that size can the two histories be compared. Raises
        VerificationError, stays where it was and does not cosign, if anything is not as it found itself. If the
        sequencer's signature is under two heads that contradict each other, `split_view` is the evidence.
        """
        if self.split_view is not None:
            raise VerificationError("ledger.fork", organisation=self.organisation, size=note.checkpoint.size)
        self._check_note(note)
        mark = self.machine.mark()
        try:
            self._replay(blocks, note)
        except BaseException:
            self.machine.rewind(mark)
            self._look_for_split(blocks, note)
            raise
        if self._cosigned is not None and note.checkpoint.size < self._cosigned.checkpoint.size:
            return None
        line = cosign_checkpoint(self._signer, self.organisation, note, max(self._clock(), 0) // 1000)
        self._remember(note.with_line(line))
        return line

    def _replay(self, blocks: Sequence[Block], note: Note) -> None:
        for block in blocks:
            if block.header.height <= self.height:
                continue
            if block.header.time > self._clock() + FUTURE:
                raise VerificationError("ledger.future_block", height=block.header.height)
            self.machine.replay(block)
        log, head = self.machine.log, note.checkpoint
        if head.size != log.size or head.root != log.root():
            raise VerificationError("ledger.other_head", organisation=self.organisation, size=head.size)
        if self._cosigned is not None:
            before = self._cosigned.checkpoint
            if before.size <= log.size and log.root(before.size) != before.root:
                raise VerificationError("ledger.fork", organisation=self.organisation, size=before.size)

    def _look_for_split(self, blocks: Sequence[Block], note: Note) -> None:
        """Report, and raise, if the refused `note` contradicts the head that was cosigned last."""
        if self._cosigned is None:
            return
        split = find_split(self._cosigned, note, self.machine.log)
        if split is None and blocks and blocks[0].header.height <= self.machine.log.size:
            shown = Log.of(self.machine.log.leaf(index) for index in range(blocks[0].header.height))
            for block in blocks:  # the history that it was shown, as far as its headers go
                shown.append(encode(block.header))
            split = find_split(self._cosigned, note, shown)
        if split is None:
            return
        self.split_view = split
        if self._report is not None:
            self._report(split)
        size = min(self._cosigned.checkpoint.size, note.checkpoint.size)
        raise VerificationError("ledger.fork", organisation=self.organisation, size=size) from None

    def _check_note(self, note: Note) -> None:
        """The sequencer's head of this chain, and nobody else's signature under it."""
        if note.checkpoint.origin != self._trust.origin or len(note.lines) != 1:
            raise VerificationError("ledger.other_head", organisation=self.organisation, size=note.checkpoint.size)
        if note.lines[0].name != self._trust.origin:
            raise VerificationError("checkpoint.no_sequencer", sequencer=self._trust.sequencer)
        sequencer = self._trust.member(self._trust.sequencer)
        verify_log_signature(sequencer.keys.cosign.key, note, note.lines[0])

    def _recall(self) -> Note | None:
        """The larger of the remembered heads that is signed by the sequencer and by this member."""
        if self._memory is None:
            return None
        notes = self._memory.recall()
        for last, note in enumerate(notes, 1):
            try:
                self._check_note(Note(note.checkpoint, note.lines[:-1]))
                verify_cosignature(self._signer.key, note, note.lines[-1])
            except VerificationError:
                if last == len(notes):
                    raise
                continue
            return note
        return None

    def _remember(self, note: Note) -> None:
        if self._memory is not None:
            self._memory.remember(note)
        self._cosigned = note
