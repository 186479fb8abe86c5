"""A sequencer's ledger file that was restored from a backup, brought back to what the sequencer had shown since.

The members hold the blocks that they followed, each with the head over it as the sequencer signed it. Blocks that
bear its own signature are replayed and stored as if they had just been made; nothing else is believed. A sequencer
that went on from the older file would sign a second history instead, and every member would stop.
"""

from __future__ import annotations

from pathlib import Path

from ledger.engines.store import Store
from ledger.machine import Block, Machine
from ledger.snapshots import verify_snapshot
from wire.checkpoint import Note, trust_of
from wire.checkpoint.membership import Membership
from wire.checkpoint.note import verify_log_signature
from wire.errors import Refused, VerificationError
from wire.keyset import Founding


class Recovery:
    """The file at `path`, replayed. Use it while no engine has the file open; close it before one does.

    Raises what opening the ledger raises.
    """

    def __init__(self, path: Path, founding: Founding) -> None:
        self._store = Store(path, founding)
        try:
            snapshot = self._store.origin()
            trust = trust_of(founding)
            self._origin = trust.origin
            self._machine = Machine(founding) if snapshot is None else verify_snapshot(snapshot, trust)
            for height in range(self._machine.height + 1, self._store.height() + 1):
                self._machine.replay(self._store.block(height)[0])
        except BaseException:
            self._store.close()
            raise
        self._sequencer = founding.sequencer

    @property
    def height(self) -> int:
        """Height of the last block."""
        return self._machine.height

    @property
    def members(self) -> Membership:
        """The members as of the last block."""
        return self._machine.trust.latest

    def check_shown(self, note: Note) -> None:
        """Check that the sequencer signed a head: only then is it one to come back to. Raises VerificationError."""
        if note.checkpoint.origin != self._origin or not note.lines:
            raise VerificationError("ledger.other_head", organisation=self._sequencer, size=note.checkpoint.size)
        key = self.members.member(self._sequencer).keys.cosign.key
        verify_log_signature(key, Note(note.checkpoint, note.lines[:1]), note.lines[0])

    def append(self, block: Block, note: Note) -> None:
        """Store the next block as the sequencer had shown it. Raises VerificationError where it is not that.

        Refused for one from which on the members are others: whoever vouched for that change is not in the blocks.
        """
        self.check_shown(note)
        before, mark = self._machine.trust, self._machine.mark()
        outcome = self._machine.replay(block)
        if (note.checkpoint.size, note.checkpoint.root) != (outcome.size, outcome.log_root):
            self._machine.rewind(mark)
            raise VerificationError("ledger.other_head", organisation=self._sequencer, size=note.checkpoint.size)
        if self._machine.trust is not before:
            self._machine.rewind(mark)
            raise Refused("recovery.members_changed", height=block.header.height)
        self._store.append(block, outcome.results, Note(note.checkpoint, note.lines[:1]), None)

    def check_reached(self, note: Note) -> bool:
        """Whether a shown head is in this history. Raises VerificationError if it is of another: two were signed."""
        size = note.checkpoint.size
        if size > self._machine.log.size:
            return False
        if self._machine.log.root(size) != note.checkpoint.root:
            raise VerificationError("ledger.fork", organisation=self._sequencer, size=size)
        return True

    def close(self) -> None:
        """Let go of the file."""
        self._store.close()
