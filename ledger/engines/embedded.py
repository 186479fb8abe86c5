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
import os
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Literal, overload

from filelock import FileLock, Timeout

from ledger.contracts.membership import changes_at, changes_key, keys_at
from ledger.engines.clock import WatchedClock
from ledger.engines.engine import EVERYTHING, START, Cursor, Head, TxId
from ledger.engines.history import PAGE, History
from ledger.engines.store import Store
from ledger.engines.waiting import GROUP_COMMIT, GroupCommit, Waiting
from ledger.envelope import envelope_id
from ledger.export import LedgerExport
from ledger.faults import Fault, no_fault
from ledger.handovers import check_members, extend
from ledger.machine import Block, Executed, Machine, Result, check_usable
from ledger.reading import Entry, Selection
from ledger.receipts import ProvenValue, Receipt
from ledger.snapshots import LedgerSnapshot, verify_snapshot
from wire.checkpoint import Note, SignatureLine, sign_checkpoint, trust_of, verify_checkpoint
from wire.checkpoint.note import verify_cosignature
from wire.errors import MedveilError, Refused, Unavailable, VerificationError
from wire.keyset import Founding, KeySet
from wire.signing import Keyring, Signer

REMEMBERED = 10_000
"""Refusals whose facts are kept in memory; older ones keep their code only."""
MOST_ENTRIES = 1000
"""Most envelopes of one answer to `entries`."""
IDLE = 0.05
"""Seconds without anything to write after which the last final head is written by itself; it comes with each block."""


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
        steady: Callable[[], int] | None = None,
    ) -> None:
        path = Path(os.path.realpath(path))  # the lock is that of the file, whatever link leads to it
        self._trust = trust_of(founding)  # with the members of the next block, once they are handed over
        self._founding, self._signer = founding, signer
        self._clock = clock if steady is None else WatchedClock(clock, steady)
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
        self._history = History(self._store, founding, Machine(founding))
        self._stored: Note | None = None  # the last final head on disk
        self._refusals: OrderedDict[TxId, Refused] = OrderedDict()
        self._waiting = Waiting(group)
        self._failure: MedveilError | None = None
        self._closing = self._released = False
        self._work = asyncio.Event()  # something waits, or the engine closes: for the writer
        self._executed = asyncio.Condition()  # for subscribers
        self._finality = asyncio.Condition()  # for those who wait for a receipt
        self._replaying = threading.Lock()  # while a thread reads the store to open it
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
        steady: Callable[[], int] | None = None,
    ) -> EmbeddedEngine:
        """Open or create the ledger at `path` and replay it.

        signer: the sequencer's cosign key, or a keyring with the one to come too; clock: ms UTC; group: when a
        block is closed; fault: see `ledger.faults`; snapshot: what a new ledger starts from (a lost one, restored;
        it must be the newest, see the module); steady: a clock that nobody sets, in ms, against which `clock` is
        watched (`ledger.engines.clock`), or None.

        Raises Unavailable (locked by another process, disk), DecodeError (damaged, newer or another consortium's
        data), VerificationError naming the height of a block that does not replay.
        """
        if snapshot is not None:
            await asyncio.to_thread(verify_snapshot, snapshot, trust_of(founding))
        elif not path.exists():
            _key_of_sequencer(signer, trust_of(founding).latest.member(founding.sequencer).keys, founding)
        engine = cls(path, founding, signer, clock, group, fault, snapshot, steady)
        try:
            await asyncio.to_thread(engine._replay)
        except BaseException:
            engine._closing = True  # whoever is cancelled leaves a thread behind: it stops, and only then is released
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
        return self._history.machine

    # --- opening ---------------------------------------------------------------------------------

    def _replay(self) -> None:
        with self._replaying:
            self._open_history()

    def _open_history(self) -> None:
        self._check_open()
        final, snapshot = self._store.final(), self._store.origin()
        if snapshot is not None:
            self._history = History(self._store, self._founding, verify_snapshot(snapshot, self._trust))
        machine, first = self.machine, self.machine.height + 1
        shown = 0 if final is None else final.checkpoint.size - 1
        for block, note in self._stored_blocks(first):
            outcome = machine.replay(block)
            height, head = block.header.height, note.checkpoint
            same = (head.size, head.root) == (outcome.size, outcome.log_root)
            same = same and self._store.results(height) == outcome.results
            if not same or any(self._store.place(r.envelope) != (height, r.entry) for r in outcome.results):
                raise VerificationError("ledger.block_differs", height=height)
            self._adopted(note, outcome.results, outcome.refusals)
            if height <= shown:
                self._history.forget(height)
        self._store.check_index(block for block, _ in self._stored_blocks(first))
        self._history.handovers = (*(snapshot.handovers if snapshot else ()), *self._store.handovers())
        self._trust = extend(self._trust, self._history.handovers)
        check_members(self._trust, machine.trust, machine.height)
        keys = keys_at(machine.view(), self._founding.sequencer, machine.height + 1)
        assert keys is not None  # the sequencer stays
        _key_of_sequencer(self._signer, keys, self._founding)
        if final is not None:
            log, head = machine.log, final.checkpoint
            verify_checkpoint(final.format(), self._trust)
            if not max(first, 2) <= head.size <= log.size or log.root(head.size) != head.root:
                raise VerificationError("ledger.export_head", height=machine.height, size=head.size)
            self._history.make_final(final)
            self._stored = final

    def _stored_blocks(self, first: int) -> Iterator[tuple[Block, Note]]:
        """All stored blocks from height `first` on. Raises Unavailable if nobody wants them any more."""
        for height in range(first, self._store.height() + 1):
            self._check_open()
            block, note = self._store.block(height)
            if block.header.height != height:
                raise VerificationError("ledger.block_differs", height=height)
            yield block, note

    # --- writing ---------------------------------------------------------------------------------

    async def submit(self, envelope: bytes) -> TxId:
        """See `Engine.submit`."""
        self._check_open()
        tx = envelope_id(envelope)
        if tx in self._waiting or self._store.place(tx) is not None:
            return tx
        self._clock()  # no block is made while it is wrong
        machine = self.machine
        view = machine.next_view()
        signed = machine.authenticate(envelope, view)
        sender = signed.envelope.sender
        self._waiting.check_room(sender, envelope, machine.height - self._history.final_height)
        nonce = machine.next_nonce(sender) + self._waiting.of(sender)
        check_usable(signed.envelope, machine.height + 1, view, nonce)
        self._waiting.add(tx, sender, envelope)
        self._fault("submitted")
        self._work.set()
        return tx

    async def _write(self) -> None:
        """The one writer: what waits becomes the next block, until the engine closes."""
        try:
            while True:
                self._work.clear()
                if self._waiting:
                    await self._waiting.gather()
                    if await self._handed_over() and await self._is_timely():  # nothing awaited from here to the clock
                        await self._next_block()
                elif self._history.final is not self._stored:  # it comes with the next block, if there is one soon
                    if self._closing or await self._is_idle():
                        final = self._history.final
                        await asyncio.to_thread(self._store.put_final, final)
                        self._stored = final
                elif self._closing:
                    return
                else:
                    await self._work.wait()
        except MedveilError as error:
            await self._fail(error)
        except BaseException:
            await self._fail(Unavailable("ledger.stopped"))
            raise

    async def _is_idle(self) -> bool:
        """Whether nothing happens for a while."""
        try:
            async with asyncio.timeout(IDLE):
                await self._work.wait()
        except TimeoutError:
            return True
        return False

    async def _handed_over(self) -> bool:
        """See to it that the members before vouch for those of the next block, if they change; False when closing.

        Until k of them have cosigned the head so far there is no next block: `ledger.handovers`.
        """
        height = self.machine.height + 1
        if self._trust.latest.from_height == height or changes_at(self.machine.view(), height) is None:
            return True
        async with self._finality:
            while self._history.final_height + 1 != height:
                if self._closing:
                    self._waiting.clear()
                    return False
                await self._finality.wait()
        handover = self._history.proven(changes_key(height))
        trust = extend(self._trust, (handover,))
        await asyncio.to_thread(self._store.put_handover, height, handover)
        self._trust, self._history.handovers = trust, (*self._history.handovers, handover)  # both at once
        return True

    async def _is_timely(self) -> bool:
        """Wait until the clock is right, if it is watched and jumped; False when closing."""
        while True:
            try:
                self._clock()
            except Unavailable:
                if self._closing:
                    self._waiting.clear()
                    return False
                await asyncio.sleep(IDLE)
            else:
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
        final = self._history.final
        await asyncio.to_thread(self._store.append, block, executed.outcome.results, note, final)
        self._stored = final
        self._adopt(executed, note)
        self._fault("shown")
        async with self._executed:
            self._executed.notify_all()

    async def _execute(self, batch: list[bytes]) -> Executed | None:
        """Work out the next block, without what was authentic when it came and no longer is; None if nothing is."""
        machine = self.machine
        time = max(self._clock(), machine.time)
        while batch:
            try:
                return machine.execute(machine.height + 1, time, batch)
            except VerificationError as error:
                if error.code != "ledger.bad_entry":
                    raise
                data = batch.pop(int(error.facts["entry"]))
                self._waiting.remove(envelope_id(data))
                await self._announce()
        return None

    def _adopt(self, executed: Executed, note: Note) -> None:
        outcome = self.machine.adopt(executed)
        for result in outcome.results:
            self._waiting.remove(result.envelope)
        self._adopted(note, outcome.results, outcome.refusals)

    def _adopted(self, note: Note, results: tuple[Result, ...], refusals: tuple[Refused | None, ...]) -> None:
        self._history.executed(note)
        for result, refusal in zip(results, refusals, strict=True):
            if refusal is not None:
                self._refusals[result.envelope] = refusal
                if len(self._refusals) > REMEMBERED:
                    self._refusals.popitem(last=False)

    async def add_cosignature(self, size: int, line: SignatureLine) -> bytes | None:
        """See `Engine.add_cosignature`. One of a head below the last final one, or after closing, changes nothing."""
        if self._released:
            return None
        note = self._history.head(size)
        if note is None:
            if 1 < size <= self.machine.log.size:
                return self._final_from(size)
            raise Refused("ledger.unknown_head", size=size)
        members = self._trust.at(size - 1)
        member = members.member(line.name)
        verify_cosignature(member.keys.cosign.key, note, line)
        if any(other.name == line.name for other in note.lines):
            return self._final_from(size)
        note = note.with_line(line)
        self._history.cosigned(note)
        counted = sum(members.member(other.name).re_executes for other in note.lines[1:])
        if counted >= members.k:
            self._history.make_final(note)
            self._work.set()
            self._fault("final")
            async with self._finality:
                self._finality.notify_all()
        return self._final_from(size)

    def _final_from(self, size: int) -> bytes | None:
        """The latest final checkpoint, if it is of `size` or larger."""
        final = self._history.final
        return None if final is None or final.checkpoint.size < size else final.format()

    async def _announce(self) -> None:
        """Wake whoever waits for anything."""
        for condition in (self._executed, self._finality):
            async with condition:
                condition.notify_all()

    # --- reading ---------------------------------------------------------------------------------

    async def wait(self, tx: TxId, timeout: float) -> Receipt:
        """See `Engine.wait`."""
        try:
            async with asyncio.timeout(timeout), self._finality:
                while True:
                    self._check_open()
                    place = self._store.place(tx)
                    if place is None and tx not in self._waiting:
                        raise Refused("ledger.unknown_envelope", envelope=tx.hex())
                    if place is not None and place[0] <= self._history.final_height:
                        return self._history.receipt(*place)
                    await self._finality.wait()
        except TimeoutError:
            raise Unavailable("ledger.timeout", retry_after=1, envelope=tx.hex()) from None

    async def refusal(self, tx: TxId) -> Refused | None:
        """See `Engine.refusal`."""
        self._check_open()
        place = self._store.place(tx)
        if place is None:
            raise Refused("ledger.unknown_envelope", envelope=tx.hex())
        height, entry = place
        result = self._history.results(height)[entry]
        if result.accepted:
            return None
        return self._refusals.get(tx) or Refused(result.code)

    async def next_nonce(self, organisation: str) -> int:
        """See `Engine.next_nonce`."""
        self._check_open()
        return self.machine.next_nonce(organisation) + self._waiting.of(organisation)

    @overload
    async def query(self, key: bytes, prove: Literal[False] = False) -> bytes | None: ...
    @overload
    async def query(self, key: bytes, prove: Literal[True]) -> ProvenValue: ...
    async def query(self, key: bytes, prove: bool = False) -> bytes | ProvenValue | None:
        """See `Engine.query`."""
        self._check_open()
        return self._history.proven(key) if prove else self._history.value(key)

    async def head(self) -> Head:
        """See `Engine.head`."""
        self._check_open()
        history = self._history
        return Head(history.machine.height, history.final_height, history.final.format() if history.final else None)

    async def subscribe(self, cursor: int) -> AsyncIterator[tuple[Block, Note]]:
        """See `Engine.subscribe`. Ends when the engine closes; raises Unavailable if it failed.

        Raises Refused for a height at or below that of the snapshot that this ledger started from.
        """
        self._history.check_kept(cursor)
        while True:
            async with self._executed:
                while self.machine.height < cursor and not self._released and self._failure is None:
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
        return self._history.export()

    async def handovers(self, after: int = 0) -> tuple[ProvenValue, ...]:
        """See `Engine.handovers`."""
        self._check_open()
        heights = (change.from_height for change in self._trust.changes)
        return tuple(one for height, one in zip(heights, self._history.handovers, strict=True) if height > after)

    async def snapshot(self) -> LedgerSnapshot:
        """The state at the last final head, for others to start from. Raises Unavailable while nothing is final."""
        self._check_open()
        return await asyncio.to_thread(self._history.snapshot())

    async def entries(
        self, selection: Selection = EVERYTHING, after: Cursor = START, limit: int = 100
    ) -> tuple[Entry, ...]:
        """See `Engine.entries`."""
        self._check_open()
        if not 1 <= limit <= MOST_ENTRIES:
            raise ValueError(f"limit is 1..{MOST_ENTRIES}")
        history = self._history
        if after.height < history.origin.height:
            history.check_kept(after.height + 1)
        found: list[Entry] = []
        for number, some in enumerate(history.search(selection, after), 1):
            found += some
            if len(found) >= limit:
                break
            if number % PAGE == 0:  # others have their turn
                await asyncio.sleep(0)
                self._check_open()
        return tuple(found[:limit])

    async def watch(self, selection: Selection = EVERYTHING, after: Cursor = START) -> AsyncIterator[Entry]:
        """See `Engine.watch`. Raises Unavailable if the engine failed."""
        history = self._history
        while not self._closing:
            seen = history.final_height
            try:
                found = await self.entries(selection, after, MOST_ENTRIES)
            except Unavailable as error:
                if error.code == "ledger.closed":
                    return
                raise
            for entry in found:
                yield entry
                after = Cursor.of(entry)
            if found:
                continue
            if selection.until is not None and history.header(seen).time >= selection.until:
                return
            after = max(after, Cursor(seen))
            async with self._finality:
                while history.final_height == seen and not self._closing and self._failure is None:
                    await self._finality.wait()

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
        finally:
            self._release()
            await self._announce()

    def _release(self) -> None:
        self._released = True
        try:
            with self._replaying:
                self._store.close()
        finally:
            self._lock.release()


def _key_of_sequencer(signer: Signer | Keyring, keys: KeySet, founding: Founding) -> Signer:
    """The signer of the sequencer's cosign key, or VerificationError."""
    found = signer.for_key(keys.cosign.key)
    if found is None:
        raise VerificationError("ledger.not_cosigner", organisation=founding.sequencer)
    return found
