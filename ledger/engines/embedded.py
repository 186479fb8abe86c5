"""The embedded engine: one sequencer, one SQLite file, checkpoints cosigned by k of n members.

The sequencer orders envelopes into blocks (all that wait go into the next one: group commit), runs
them on its own machine, writes block and signed head durably, and only then shows them. Members'
replicas follow, replay and cosign; with k cosignatures a head is final.

What this gives, and what not: history is *tamper-evident*. The sequencer can order, delay or stop; it
cannot forge an envelope, alter the state or rewrite final history without k members replaying and
signing the same. It is **not Byzantine-fault-tolerant**: if the sequencer stops, so does the ledger.

Crash safety: data on disk is either before or after a block, never between. Opening replays every
block from genesis and insists on each header, so altered data is found, with its height. Any error
of the disk stops the engine for good: open it again, and what was durable is there. A restored *old
copy* of the file, or an old snapshot, looks fine to the sequencer; replicas that remember a longer
history refuse it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Literal, overload

from filelock import FileLock, Timeout

from ledger.contracts.membership import changes_at, changes_key, keys_at
from ledger.engines.engine import EVERYTHING, START, Cursor, Head, TxId
from ledger.engines.store import Store
from ledger.engines.waiting import GROUP_COMMIT, GroupCommit, Waiting
from ledger.envelope import envelope_id
from ledger.export import EXPORT, LedgerExport
from ledger.faults import Fault, no_fault
from ledger.handovers import check_members, extend
from ledger.machine import Block, BlockHeader, Executed, Machine, Result, check_usable
from ledger.reading import Entry, Selection
from ledger.receipts import PROVEN_VALUE, RECEIPT, ProvenValue, Receipt
from ledger.snapshots import LedgerSnapshot, take_snapshot, verify_snapshot
from ledger.trees.log import Log
from ledger.trees.state import StateTree
from wire.canonical import LARGEST, encode
from wire.checkpoint import Note, SignatureLine, sign_checkpoint, trust_of, verify_checkpoint
from wire.checkpoint.note import verify_cosignature
from wire.errors import MedveilError, Refused, Unavailable, VerificationError
from wire.keyset import Founding, KeySet
from wire.signing import Keyring, Signer

REMEMBERED = 10_000
"""Refusals whose facts are kept in memory; older ones keep their code only."""
MOST_ENTRIES = 1000
"""Most envelopes of one answer to `entries`."""
KEPT = 4
"""Blocks that are kept in memory, decoded, for the receipts of their envelopes."""


class _Readable:
    """A block, its results, and the tree over them."""

    def __init__(self, block: Block, results: tuple[Result, ...]) -> None:
        self.block = block
        self.results = results
        self.tree = Log()
        for result in results:
            self.tree.append(encode(result))


class EmbeddedEngine:
    """See the module. Open it with `open`; use it from one event loop; close it with `close` or ``async with``."""

    def __init__(
        self,
        path: Path,
        founding: Founding,
        signer: Signer | Keyring,
        clock: Callable[[], int],
        group: GroupCommit = GROUP_COMMIT,
        fault: Fault = no_fault,
        snapshot: LedgerSnapshot | None = None,
    ) -> None:
        self._trust = trust_of(founding)  # with the members of the next block, once they are handed over
        self._handovers: tuple[ProvenValue, ...] = ()
        self._founding, self._signer, self._clock = founding, signer, clock
        self._fault = fault
        self._lock = FileLock(path.with_name(path.name + ".lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise Unavailable("ledger.locked", retry_after=5, path=str(path)) from None
        except OSError:
            raise Unavailable("ledger.storage", path=str(path)) from None
        try:
            self._store = Store(path, founding, fault, snapshot)
        except BaseException:
            self._lock.release()
            raise
        self._machine = Machine(founding)
        self._origin = self._machine.header  # what the stored blocks follow
        self._states: dict[int, StateTree] = {}  # by height, from the last final one on
        self._heads: dict[int, Note] = {}  # by size: signed, with cosignatures, above the last final one
        self._final: Note | None = None
        self._refusals: OrderedDict[TxId, Refused] = OrderedDict()
        self._waiting = Waiting(group)
        self._failure: MedveilError | None = None
        self._closing = self._released = False
        self._work = asyncio.Event()  # something waits, or the engine closes: for the writer
        self._executed = asyncio.Condition()  # for subscribers
        self._finality = asyncio.Condition()  # for those who wait for a receipt
        self._blocks: OrderedDict[int, _Readable] = OrderedDict()  # the latest that receipts were asked of
        self._writer: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        path: Path,
        founding: Founding,
        signer: Signer | Keyring,
        clock: Callable[[], int],
        *,
        group: GroupCommit = GROUP_COMMIT,
        fault: Fault = no_fault,
        snapshot: LedgerSnapshot | None = None,
    ) -> EmbeddedEngine:
        """Open or create the ledger at `path` and replay it.

        signer: the sequencer's cosign key, or a keyring with the one to come too; clock: ms UTC; group: when a
        block is closed; fault: see `ledger.faults`; snapshot: what a new ledger starts from (a lost one, restored;
        it must be the newest, see the module).

        Raises Unavailable (locked by another process, disk), DecodeError (damaged, newer or another consortium's
        data), VerificationError naming the height of a block that does not replay.
        """
        if snapshot is not None:
            await asyncio.to_thread(verify_snapshot, snapshot, trust_of(founding))
        elif not path.exists():
            _key_of_sequencer(signer, trust_of(founding).latest.member(founding.sequencer).keys, founding)
        engine = cls(path, founding, signer, clock, group, fault, snapshot)
        try:
            await asyncio.to_thread(engine._replay)
        except BaseException:
            engine._release()
            raise
        engine._writer = asyncio.create_task(engine._write())
        return engine

    async def __aenter__(self) -> EmbeddedEngine:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def machine(self) -> Machine:
        """The sequencer's own machine, at the latest executed block: for reading."""
        return self._machine

    # --- opening ---------------------------------------------------------------------------------

    def _replay(self) -> None:
        final = self._store.final()
        snapshot = self._store.origin()
        if snapshot is not None:
            self._machine = verify_snapshot(snapshot, self._trust)
            self._origin = self._machine.header
        first = self._origin.height + 1
        self._states[first - 1] = self._machine.state
        for height in range(first, self._store.height() + 1):
            block, note = self._store.block(height)
            if block.header.height != height:
                raise VerificationError("ledger.block_differs", height=height)
            outcome = self._machine.replay(block)
            head = note.checkpoint
            same = (head.size, head.root) == (outcome.size, outcome.log_root)
            same = same and self._store.results(height) == outcome.results
            if not same or any(self._store.place(r.envelope) != (height, r.entry) for r in outcome.results):
                raise VerificationError("ledger.block_differs", height=height)
            self._adopted(outcome.size, note, outcome.results, outcome.refusals)
        self._store.check_index(self._store.block(height)[0] for height in range(first, self._machine.height + 1))
        self._handovers = (*(snapshot.handovers if snapshot else ()), *self._store.handovers())
        self._trust = extend(self._trust, self._handovers)
        check_members(self._trust, self._machine.trust, self._machine.height)
        keys = keys_at(self._machine.view(), self._founding.sequencer, self._machine.height + 1)
        assert keys is not None  # the sequencer stays
        _key_of_sequencer(self._signer, keys, self._founding)
        if final is not None:
            log, head = self._machine.log, final.checkpoint
            verify_checkpoint(final.format(), self._trust)
            if not max(first, 2) <= head.size <= log.size or log.root(head.size) != head.root:
                raise VerificationError("ledger.export_head", height=self._machine.height, size=head.size)
            self._make_final(final)

    # --- writing ---------------------------------------------------------------------------------

    async def submit(self, envelope: bytes) -> TxId:
        """See `Engine.submit`."""
        self._check_open()
        tx = envelope_id(envelope)
        if tx in self._waiting or self._store.place(tx) is not None:
            return tx
        view = self._machine.next_view()
        signed = self._machine.authenticate(envelope, view)
        sender = signed.envelope.sender
        self._waiting.check_room(sender, envelope)
        nonce = self._machine.next_nonce(sender) + self._waiting.of(sender)
        check_usable(signed.envelope, self._machine.height + 1, view, nonce)
        self._waiting.add(tx, sender, envelope)
        self._fault("submitted")
        self._work.set()
        return tx

    async def _write(self) -> None:
        """The one writer: what waits becomes the next block, until the engine closes."""
        while True:
            await self._work.wait()
            if not self._waiting:
                return  # closing
            try:
                if not await self._handed_over():
                    return
                await self._waiting.gather()
                await self._next_block()
            except MedveilError as error:
                await self._fail(error)
                return
            except BaseException:
                await self._fail(Unavailable("ledger.stopped"))
                raise

    async def _handed_over(self) -> bool:
        """See to it that the members before vouch for those of the next block, if they change; False when closing.

        Until k of them have cosigned the head so far there is no next block: `ledger.handovers`.
        """
        height = self._machine.height + 1
        if self._trust.latest.from_height == height or changes_at(self._machine.view(), height) is None:
            return True
        async with self._finality:
            while self._final_height + 1 != height:
                if self._closing:
                    self._waiting.clear()
                    return False
                await self._finality.wait()
        handover = self._proven(changes_key(height))
        self._trust = extend(self._trust, (handover,))
        await asyncio.to_thread(self._store.put_handover, height, handover)
        self._handovers = (*self._handovers, handover)
        return True

    async def _fail(self, error: MedveilError) -> None:
        self._failure = error
        await self._announce()

    async def _next_block(self) -> None:
        batch = self._waiting.batch()
        executed = await self._execute(batch)
        if executed is None:
            return
        self._fault("executed")
        block = Block(executed.outcome.header, tuple(batch))
        keys = self._trust.latest.member(self._trust.sequencer).keys
        signer = _key_of_sequencer(self._signer, keys, self._founding)
        note = sign_checkpoint(signer, self._trust.origin, executed.outcome.size, executed.outcome.log_root)
        # Durable before anybody sees it: the sequencer never signs two heads of one size that were shown.
        await asyncio.to_thread(self._store.append, block, executed.outcome.results, note, self._final)
        self._adopt(executed, note)
        self._fault("shown")
        async with self._executed:
            self._executed.notify_all()

    async def _execute(self, batch: list[bytes]) -> Executed | None:
        """Work out the next block, without what was authentic when it came and no longer is; None if nothing is."""
        time = max(self._clock(), self._machine.time)
        while batch:
            try:
                return self._machine.execute(self._machine.height + 1, time, batch)
            except VerificationError as error:
                if error.code != "ledger.bad_entry":
                    raise
                data = batch.pop(int(error.facts["entry"]))
                self._forget(envelope_id(data))
                await self._announce()
        return None

    def _forget(self, tx: TxId) -> None:
        """An envelope does not wait any more."""
        self._waiting.remove(tx)
        if not self._waiting and not self._closing:
            self._work.clear()

    def _adopt(self, executed: Executed, note: Note) -> None:
        outcome = self._machine.adopt(executed)
        for result in outcome.results:
            self._forget(result.envelope)
        self._adopted(outcome.size, note, outcome.results, outcome.refusals)

    def _adopted(
        self, size: int, note: Note, results: tuple[Result, ...], refusals: tuple[Refused | None, ...]
    ) -> None:
        self._states[size - 1] = self._machine.state
        self._heads[size] = note
        for result, refusal in zip(results, refusals, strict=True):
            if refusal is not None:
                self._refusals[result.envelope] = refusal
                if len(self._refusals) > REMEMBERED:
                    self._refusals.popitem(last=False)

    async def add_cosignature(self, size: int, line: SignatureLine) -> None:
        """See `Engine.add_cosignature`. One of a head below the last final one, or after closing, changes nothing."""
        if self._released:
            return
        note = self._heads.get(size)
        if note is None:
            if 1 < size <= self._machine.log.size:
                return
            raise Refused("ledger.unknown_head", size=size)
        members = self._trust.at(size - 1)
        member = members.member(line.name)
        verify_cosignature(member.keys.cosign.key, note, line)
        if any(other.name == line.name for other in note.lines):
            return
        note = self._heads[size] = note.with_line(line)
        counted = sum(members.member(other.name).re_executes for other in note.lines[1:])
        if counted >= members.k:
            self._make_final(note)
            self._fault("final")
            async with self._finality:
                self._finality.notify_all()

    def _make_final(self, note: Note) -> None:
        size = note.checkpoint.size
        self._final = note
        self._heads = {other: head for other, head in self._heads.items() if other > size} | {size: note}
        self._states = {height: state for height, state in self._states.items() if height >= size - 1}

    async def _announce(self) -> None:
        """Wake whoever waits for anything."""
        for condition in (self._executed, self._finality):
            async with condition:
                condition.notify_all()

    # --- reading ---------------------------------------------------------------------------------

    @property
    def _final_height(self) -> int:
        return self._final.checkpoint.size - 1 if self._final else self._origin.height

    async def wait(self, tx: TxId, timeout: float) -> Receipt:
        """See `Engine.wait`."""
        try:
            async with asyncio.timeout(timeout), self._finality:
                while True:
                    self._check_open()
                    place = self._store.place(tx)
                    if place is None and tx not in self._waiting:
                        raise Refused("ledger.unknown_envelope", envelope=tx.hex())
                    if place is not None and place[0] <= self._final_height:
                        return self._receipt(*place)
                    await self._finality.wait()
        except TimeoutError:
            raise Unavailable("ledger.timeout", retry_after=1, envelope=tx.hex()) from None

    def _receipt(self, height: int, entry: int) -> Receipt:
        note = self._final
        assert note is not None  # the caller found the block final
        block = self._readable(height)
        return Receipt(
            header=RECEIPT,
            envelope=block.block.envelopes[entry],
            result=block.results[entry],
            result_path=block.tree.inclusion_proof(entry),
            block=block.block.header,
            block_path=self._machine.log.inclusion_proof(height, note.checkpoint.size),
            note=note.format(),
        )

    def _readable(self, height: int) -> _Readable:
        """A stored block with the tree over its results. All envelopes of a block are asked for at once."""
        found = self._blocks.get(height)
        if found is None:
            found = self._blocks[height] = _Readable(self._store.block(height)[0], self._store.results(height))
            if len(self._blocks) > KEPT:
                self._blocks.popitem(last=False)
        return found

    async def refusal(self, tx: TxId) -> Refused | None:
        """See `Engine.refusal`."""
        self._check_open()
        place = self._store.place(tx)
        if place is None:
            raise Refused("ledger.unknown_envelope", envelope=tx.hex())
        height, entry = place
        result = self._readable(height).results[entry]
        if result.accepted:
            return None
        return self._refusals.get(tx) or Refused(result.code)

    async def next_nonce(self, organisation: str) -> int:
        """See `Engine.next_nonce`."""
        self._check_open()
        return self._machine.next_nonce(organisation) + self._waiting.of(organisation)

    @overload
    async def query(self, key: bytes, prove: Literal[False] = False) -> bytes | None: ...
    @overload
    async def query(self, key: bytes, prove: Literal[True]) -> ProvenValue: ...
    async def query(self, key: bytes, prove: bool = False) -> bytes | ProvenValue | None:
        """See `Engine.query`."""
        self._check_open()
        if not prove:
            return self._states[self._final_height].get(key)
        return self._proven(key)

    def _proven(self, key: bytes) -> ProvenValue:
        """A value of the last final head, or its absence, with the proof."""
        note = self._final
        if note is None:
            raise Unavailable("ledger.not_final", retry_after=1)
        height = self._final_height
        state = self._states[height]
        return ProvenValue(
            header=PROVEN_VALUE,
            key=key,
            value=state.get(key),
            proof=state.prove(key),
            block=self._header(height),
            block_path=self._machine.log.inclusion_proof(height, note.checkpoint.size),
            note=note.format(),
        )

    def _header(self, height: int) -> BlockHeader:
        for known in (self._machine.header, self._origin):
            if known.height == height:
                return known
        return self._store.block(height)[0].header

    async def head(self) -> Head:
        """See `Engine.head`."""
        self._check_open()
        return Head(self._machine.height, self._final_height, self._final.format() if self._final else None)

    async def subscribe(self, cursor: int) -> AsyncIterator[tuple[Block, Note]]:
        """See `Engine.subscribe`. Ends when the engine closes; raises Unavailable if it failed.

        Raises Refused for a height at or below that of the snapshot that this ledger started from.
        """
        self._check_kept(cursor)
        while True:
            async with self._executed:
                while self._machine.height < cursor and not self._released and self._failure is None:
                    await self._executed.wait()
            if self._released:
                return
            if self._failure is not None:
                raise self._failure
            yield self._store.block(cursor)
            cursor += 1

    async def export(self) -> LedgerExport:
        """See `Engine.export`. Raises Unavailable while nothing is final, Refused if one file cannot hold it.

        Refused also for a ledger that started from a snapshot: it has no blocks from before.
        """
        self._check_open()
        self._check_kept(1)
        note = self._final
        if note is None:
            raise Unavailable("ledger.not_final", retry_after=1)
        blocks = tuple(self._store.block(height)[0] for height in range(1, note.checkpoint.size))
        export = LedgerExport(EXPORT, self._founding, blocks, self._handovers, note.format())
        length = len(encode(export))
        if length > LARGEST:
            raise Refused("ledger.export_too_large", length=length, limit=LARGEST)
        return export

    async def handovers(self, after: int = 0) -> tuple[ProvenValue, ...]:
        """See `Engine.handovers`."""
        self._check_open()
        heights = (change.from_height for change in self._trust.changes)
        return tuple(one for height, one in zip(heights, self._handovers, strict=True) if height > after)

    async def snapshot(self) -> LedgerSnapshot:
        """The state at the last final head, for others to start from. Raises Unavailable while nothing is final."""
        self._check_open()
        note = self._final
        if note is None:
            raise Unavailable("ledger.not_final", retry_after=1)
        height = self._final_height
        # The tree is immutable and the log only grows: this may take its time beside the blocks that follow.
        block, state = self._header(height), self._states[height]
        log, handovers = self._machine.log, self._handovers
        return await asyncio.to_thread(take_snapshot, self._founding, block, state, log, handovers, note)

    async def entries(
        self, selection: Selection = EVERYTHING, after: Cursor = START, limit: int = 100
    ) -> tuple[Entry, ...]:
        """See `Engine.entries`."""
        self._check_open()
        if not 1 <= limit <= MOST_ENTRIES:
            raise ValueError(f"limit is 1..{MOST_ENTRIES}")
        if after.height < self._origin.height:
            self._check_kept(after.height + 1)
        found: list[Entry] = []
        height, last = after.height, self._final_height
        while len(found) < limit:
            heights = self._store.heights(selection, height, last, limit)
            for height in heights:
                block, results = self._store.block(height)[0], self._store.results(height)
                found += (entry for entry in selection.entries(block, results) if Cursor.of(entry) > after)
                if len(found) >= limit:
                    break
            if len(heights) < limit:
                break
            height += 1
        return tuple(found[:limit])

    async def watch(self, selection: Selection = EVERYTHING, after: Cursor = START) -> AsyncIterator[Entry]:
        """See `Engine.watch`. Raises Unavailable if the engine failed."""
        while not self._released:
            seen = self._final_height
            found = await self.entries(selection, after, MOST_ENTRIES)
            for entry in found:
                yield entry
                after = Cursor.of(entry)
            if found:
                continue
            if selection.until is not None and self._header(seen).time >= selection.until:
                return
            after = max(after, Cursor(seen))
            async with self._finality:
                while self._final_height == seen and not self._released and self._failure is None:
                    await self._finality.wait()

    def _check_kept(self, height: int) -> None:
        if height <= self._origin.height:
            raise Refused("ledger.before_snapshot", height=height, first=self._origin.height + 1)

    # --- closing ---------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closing:
            raise Unavailable("ledger.closed")

    async def close(self) -> None:
        """See `Engine.close`. What was submitted still gets its block; it may not be final yet.

        Unless that block waits for members to hand over: then it is not made.
        """
        if self._closing:
            return
        self._closing = True
        self._waiting.no_longer()
        self._work.set()
        await self._announce()
        try:
            if self._writer is not None:
                await self._writer
            if self._failure is None:
                self._store.put_final(self._final)
        finally:
            self._release()
            await self._announce()

    def _release(self) -> None:
        self._released = True
        try:
            self._store.close()
        finally:
            self._lock.release()


def _key_of_sequencer(signer: Signer | Keyring, keys: KeySet, founding: Founding) -> Signer:
    """The signer of the sequencer's cosign key, or VerificationError."""
    found = signer.for_key(keys.cosign.key)
    if found is None:
        raise VerificationError("ledger.not_cosigner", organisation=founding.sequencer)
    return found
