"""A member's replica: replays every block itself, and cosigns only a head that it reached itself.

This is what makes a cosignature worth counting. A replica refuses a block that is not valid, a header
that differs from its own, a head that is not its own log's, and any head that contradicts one it
cosigned before: with `memory`, also before it was restarted. A sequencer that shows two members two
histories gets both cosigned by at most one of them each, and k of n makes one of them final at most. A
replica that is shown both keeps the evidence (`ledger.split_view`) and stops.

Who the members are, and with which keys, it knows from what it replayed: that of an organisation that is no member
yet follows and signs nothing; from the block on with which it joined, it cosigns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ledger.faults import Fault, no_fault
from ledger.head_memory import HeadMemory
from ledger.machine import Block, BlockHeader, Machine
from ledger.snapshots import LedgerSnapshot, verify_snapshot
from ledger.split_view import SplitView, find_split
from ledger.trees.log import Log
from wire.canonical import encode
from wire.checkpoint import Note, SignatureLine, TrustFile, cosign_checkpoint, trust_of
from wire.checkpoint.membership import Membership
from wire.checkpoint.note import COSIGNATURE, key_id, verify_cosignature, verify_log_signature
from wire.errors import VerificationError
from wire.keyset import Founding
from wire.signing import Keyring, Signer

FUTURE = 300_000
"""How far a block's time may be ahead of the replica's own clock, in ms."""


class Replica:
    """The replica of one re-executing member, or of an organisation that is to become one.

    signer: its cosign key, or a keyring with the one to come and those it signed with before; clock: ms UTC;
    memory: file that keeps the last cosigned head across restarts; without one, a restarted replica has forgotten
    what it signed; fault: see `ledger.faults`; snapshot: where to start, instead of genesis: then k other members
    vouch for what was before; report: is handed the evidence when the sequencer shows two histories; silent: it
    replays and cosigns nothing until `silent` is False again: its memory was restored, and may be behind what it
    signed.
    """

    def __init__(
        self,
        founding: Founding,
        organisation: str,
        signer: Signer | Keyring,
        clock: Callable[[], int],
        memory: Path | None = None,
        fault: Fault = no_fault,
        snapshot: LedgerSnapshot | None = None,
        report: Callable[[SplitView], None] | None = None,
        silent: bool = False,
    ) -> None:
        """Raises VerificationError if `signer` has not the cosign key of the member it is, or `snapshot` is wrong."""
        self.machine = Machine(founding) if snapshot is None else verify_snapshot(snapshot, trust_of(founding))
        self.organisation = organisation
        self.start = self.machine.height
        """Height it started from: 0, or that of its snapshot."""
        self.refused: Note | None = None
        """The last head that it refused without evidence of a split view; the sequencer signed it."""
        self.split_view: SplitView | None = None
        """Evidence that the sequencer showed this member two histories; it cosigns nothing any more."""
        self.silent = silent
        self._report = report
        self._signer = signer
        self._clock = clock
        self._memory = HeadMemory(memory, fault) if memory is not None else None
        self._cosigned = self._recall()
        if self._cosigned is None:  # else it signs nothing up to there, and need not have a key that is retired
            self._own_signer(self.machine.trust.latest)

    @property
    def height(self) -> int:
        """Height it has replayed."""
        return self.machine.height

    @property
    def cosigned(self) -> Note | None:
        """The last head that it cosigned, as far as it remembers."""
        return self._cosigned

    def follow(self, blocks: Sequence[Block], note: Note) -> SignatureLine | None:
        """Replay `blocks` (those it already has are skipped) and cosign `note`, which must be their head.

        What `cosign` gives, once it is remembered. Raises as that does, and Unavailable where the disk refuses.
        """
        line = self.cosign(blocks, note)
        if line is not None:
            self.remember(note.with_line(line))
        return line

    def cosign(self, blocks: Sequence[Block], note: Note) -> SignatureLine | None:
        """As `follow`, but for whoever calls `remember` before the line is shown to anybody or the next one is asked
        for.

        None while its organisation is no member, while it is `silent`, and while a restarted replica is still below
        the head it cosigned before: a cosignature says that no larger head was seen, and only at that size can the two
        histories be compared. Raises VerificationError, stays where it was and does not cosign, if anything is not as
        it found itself. If the sequencer signed two heads that contradict each other, `split_view` is the evidence.
        """
        if self.split_view is not None:
            raise VerificationError("ledger.fork", organisation=self.organisation, size=note.checkpoint.size)
        mark, known = self.machine.mark(), self.machine.trust
        signed = self._is_signed(note, known)
        try:
            self._replay(blocks, note)
            if not signed or self.machine.trust is not known:  # these blocks change the sequencer's key, perhaps
                self._check_note(note, self.machine.trust)
            behind = self._cosigned is not None and note.checkpoint.size < self._cosigned.checkpoint.size
            signer = None if behind or self.silent else self._own_signer(self.machine.trust.latest)
        except BaseException:
            reached = self.machine.trust
            self.machine.rewind(mark)
            if signed or self._is_signed(note, reached):  # by the key of its height, as far as it got
                self.look_for_split([block.header for block in blocks], note, reached)
                self.refused = note
            raise
        if signer is None:
            return None
        # Never much later than the block: whoever cosigns an old head now does not say that nothing has changed since.
        time = max(0, min(self._clock(), self.machine.time + FUTURE))
        return cosign_checkpoint(signer, self.organisation, note, time // 1000)

    def _own_signer(self, members: Membership) -> Signer | None:
        """Its own cosign key among `members`; None if it is none of them. VerificationError if it does not hold it."""
        member = members.find(self.organisation)
        if member is None:
            return None
        signer = self._signer.for_key(member.keys.cosign.key)
        if signer is None:
            raise VerificationError("ledger.not_cosigner", organisation=self.organisation)
        return signer

    def _is_signed(self, note: Note, trust: TrustFile) -> bool:
        try:
            self._check_note(note, trust)
        except VerificationError as error:
            if error.code in ("checkpoint.bad_signature", "checkpoint.unknown_signer"):
                return False
            raise
        return True

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

    def look_for_split(self, headers: Sequence[BlockHeader], note: Note, trust: TrustFile | None = None) -> None:
        """Report, and raise, if `note`, which was refused or shown, contradicts the head that was cosigned last.

        headers: of the history under it, in a row, as far as there are any. Raises VerificationError also if
        the sequencer did not sign it.
        """
        self._check_note(note, trust or self.machine.trust)
        if self._cosigned is None:
            return
        split = find_split(self._cosigned, note, self.machine.log)
        if split is None and headers and headers[0].height <= self.machine.log.size:
            shown = Log.of(self.machine.log.leaf(index) for index in range(headers[0].height))
            for header in headers:  # the history that it was shown, as far as its headers go
                shown.append(encode(header))
            split = find_split(self._cosigned, note, shown)
        if split is None:
            return
        self.split_view = split
        if self._report is not None:
            self._report(split)
        size = min(self._cosigned.checkpoint.size, note.checkpoint.size)
        raise VerificationError("ledger.fork", organisation=self.organisation, size=size) from None

    def _check_note(self, note: Note, trust: TrustFile) -> None:
        """The sequencer's head of this chain, and nobody else's signature under it."""
        if note.checkpoint.origin != trust.origin or len(note.lines) != 1:
            raise VerificationError("ledger.other_head", organisation=self.organisation, size=note.checkpoint.size)
        if note.lines[0].name != trust.origin:
            raise VerificationError("checkpoint.no_sequencer", sequencer=trust.sequencer)
        sequencer = trust.at(note.checkpoint.size - 1).member(trust.sequencer)
        verify_log_signature(sequencer.keys.cosign.key, note, note.lines[0])

    def _recall(self) -> Note | None:
        """The larger of the remembered heads that carries this member's own signature.

        The sequencer's is looked at only if it can be of the key it has now: after a restart the machine stands at
        genesis and does not know later ones. The head is this member's own word either way.
        """
        if self._memory is None:
            return None
        notes = self._memory.recall()
        for last, note in enumerate(notes, 1):
            try:
                self._check_own(note)
            except VerificationError:
                if last == len(notes):
                    raise
                continue
            return note
        return None

    def _check_own(self, note: Note) -> None:
        *others, own = note.lines
        signed = Note(note.checkpoint, tuple(others))
        try:
            self._check_note(signed, self.machine.trust)
        except VerificationError as error:
            if error.code != "checkpoint.unknown_signer":
                raise
        for key in self._signer.keys:
            if own.key_id == key_id(own.name, COSIGNATURE, key.public):
                verify_cosignature(key, note, own)
                return
        raise VerificationError("checkpoint.unknown_signer", name=own.name)

    def remember(self, note: Note) -> None:
        """Put a head with its own line on the disk: it waits for that, so whoever has other things to do calls it in a
        thread. Raises Unavailable."""
        if self._memory is not None:
            self._memory.remember(note)
        self._cosigned = note
