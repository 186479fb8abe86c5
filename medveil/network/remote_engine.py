"""The sequencer's engine as another member's gateway sees it: the same `Engine`, over the network.

A question that finds nobody is asked again for as long as its asker is patient; a subscription goes on where it was
when the line broke. Nothing here is believed: whoever uses it replays blocks and verifies receipts.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator
from itertools import islice
from typing import Literal, Protocol, TypeVar, overload

from ledger.engines.block_copy import BlockCopy
from ledger.engines.embedded import MOST_ENTRIES
from ledger.engines.engine import EVERYTHING, START, Cursor, Head, TxId
from ledger.export import EXPORT, LedgerExport
from ledger.machine import Block, Machine
from ledger.reading import Entry, Selection
from ledger.receipts import ProvenValue, Receipt
from ledger.snapshots import LedgerSnapshot, take_snapshot
from medveil.network.answers import told
from medveil.network.ledger_door import (
    LONGEST_WAIT,
    Blocks,
    Bytes,
    Cosigned,
    FinalIs,
    Handovers,
    HeadIs,
    Number,
    Value,
    Why,
)
from wire.canonical import Wire, encode
from wire.checkpoint import Note, SignatureLine, parse_note
from wire.errors import DecodeError, Refused, Unavailable
from wire.keyset import Founding

W = TypeVar("W", bound=Wire)

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
"""Seconds between attempts to reach the sequencer: doubled each time, up to the longest."""
PATIENCE = 30.0
"""Seconds for which a sequencer that does not answer is asked again."""


class Line(Protocol):
    """A line to one other gateway."""

    organisation: str

    async def ask(self, method: str, path: str, kind: type[W], body: bytes = b"", timeout: float = 30.0) -> W:
        """The answer, which is a `kind`. Raises what was told, or Unavailable."""


class RemoteEngine:
    """See `ledger.engines.Engine`. founding: the genesis that this member pinned; copy: its own blocks.

    patience: seconds for which one question is asked again while nobody answers.
    """

    def __init__(self, line: Line, founding: Founding, copy: BlockCopy, patience: float = PATIENCE) -> None:
        self._line = line
        self._patience = patience
        self._copy = copy
        self._founding = founding
        self._closed = asyncio.Event()
        self._taking: tuple[Block, Note] | None = None  # shown to the replica, which asked for no more yet
        self._reading = asyncio.Lock()
        self._read: Machine | None = None
        self._entries: list[Entry] = []

    async def submit(self, envelope: bytes) -> TxId:
        """See `Engine.submit`. Where nobody answers it is offered again for a while: that is harmless."""
        return (await self._insist("POST", "envelopes", Bytes, envelope)).value

    async def wait(self, tx: TxId, timeout: float) -> Receipt:
        """See `Engine.wait`."""
        clock = asyncio.get_running_loop().time
        end, pause = clock() + timeout, FIRST_PAUSE
        while True:
            left = max(end - clock(), 0.0)
            wait = min(left, LONGEST_WAIT)
            try:
                return await self._ask(
                    "GET", f"receipts/{tx.hex()}?wait={int(wait * 1000)}", Receipt, timeout=wait + 10
                )
            except Unavailable as error:
                if error.code == "ledger.closed" or clock() + pause >= end:
                    raise
                if error.code != "ledger.timeout":
                    await self._pause(pause)
                    pause = min(pause * 2, LONGEST_PAUSE)

    async def refusal(self, tx: TxId) -> Refused | None:
        """See `Engine.refusal`."""
        why = (await self._insist("GET", f"refusals/{tx.hex()}", Why)).told
        if why is None:
            return None
        error = told(why, self._line.organisation)
        if not isinstance(error, Refused):
            raise self._bad_answer()
        return error

    async def next_nonce(self, organisation: str) -> int:
        """See `Engine.next_nonce`."""
        return (await self._insist("GET", f"nonces/{organisation}", Number)).value

    @overload
    async def query(self, key: bytes, prove: Literal[False] = False) -> bytes | None: ...
    @overload
    async def query(self, key: bytes, prove: Literal[True]) -> ProvenValue: ...
    async def query(self, key: bytes, prove: bool = False) -> bytes | ProvenValue | None:
        """See `Engine.query`. Without a proof the value is the sequencer's word."""
        if prove:
            return await self._insist("GET", f"values/{key.hex()}?prove=1", ProvenValue)
        return (await self._insist("GET", f"values/{key.hex()}", Value)).value

    async def head(self) -> Head:
        """See `Engine.head`."""
        head = await self._insist("GET", "head", HeadIs)
        return Head(head.height, head.final_height, head.note)

    async def subscribe(self, cursor: int) -> AsyncIterator[tuple[Block, Note]]:
        """See `Engine.subscribe`: from the copy at home first. A broken line is mended; ends when `close` is called.

        A block is kept at home once the next one is asked for, or the cosignature of its head is handed in: then the
        replica has taken it.
        """
        while cursor <= self._copy.height and not self._closed.is_set():
            yield await asyncio.to_thread(self._copy.block, cursor)
            cursor += 1
        pause = FIRST_PAUSE
        while not self._closed.is_set():
            try:
                found, closed = await self._blocks(cursor - 1, LONGEST_WAIT)
            except Unavailable:
                await self._pause(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
                continue
            pause = FIRST_PAUSE
            for block, note in found:
                self._taking = block, note
                yield block, note
                await asyncio.to_thread(self._copy.append, block, note)
                cursor += 1
            if closed:
                await self._pause(LONGEST_PAUSE)  # it may come back: a gateway that restarts is no end

    async def _blocks(self, after: int, wait: float) -> tuple[list[tuple[Block, Note]], bool]:
        """The blocks that follow height `after`, and whether the sequencer closes. Raises Unavailable."""
        path = f"blocks?after={after}&wait={int(wait * 1000)}"
        answer = await self._ask("GET", path, Blocks, timeout=wait + 10)
        try:
            found = [(one.block, parse_note(one.note)) for one in answer.blocks]
        except DecodeError:
            raise self._bad_answer() from None
        if any(block.header.height != after + place for place, (block, _) in enumerate(found, 1)):
            raise self._bad_answer()
        return found, answer.closed

    def _bad_answer(self) -> Unavailable:
        return Unavailable("network.bad_answer", organisation=self._line.organisation)

    async def add_cosignature(self, size: int, line: SignatureLine) -> bytes | None:
        """See `Engine.add_cosignature`. Where nobody answers it is offered again until it is taken, or `close`.

        The block is kept at home before: a sequencer that lost its own gets back all that was cosigned.
        """
        if self._taking is not None and self._taking[1].checkpoint.size == size:
            await asyncio.to_thread(self._copy.append, *self._taking)
        body = encode(Cosigned(size, line.name, line.key_id, line.signature))
        return (await self._insist("POST", "cosignatures", FinalIs, body, for_ever=True)).note

    async def handovers(self, after: int = 0) -> tuple[ProvenValue, ...]:
        """See `Engine.handovers`. Where nobody answers it is asked again for a while: a writer waits for it."""
        return (await self._insist("GET", f"handovers?after={after}", Handovers)).handovers

    async def export(self) -> LedgerExport:
        """See `Engine.export`: put together from the sequencer's blocks up to its last final head."""
        head = await self.head()
        if head.note is None:
            raise Unavailable("ledger.not_final", retry_after=1)
        blocks = [block async for block in self._history(head.final_height)]
        return LedgerExport(EXPORT, self._founding, tuple(blocks), await self.handovers(), head.note)

    async def _history(self, last: int, height: int = 1) -> AsyncIterator[Block]:
        """Blocks `height` to `last`, from home as far as they are there."""
        while height <= min(last, self._copy.height):
            yield (await asyncio.to_thread(self._copy.block, height))[0]
            height += 1
        while height <= last:
            found, _ = await self._blocks(height - 1, 0.0)
            if not found:
                raise self._bad_answer()
            for block, _ in found[: last - height + 1]:
                yield block
                height += 1

    async def snapshot(self) -> LedgerSnapshot:
        """See `Engine.snapshot`: replayed."""
        export = await self.export()
        machine = Machine(self._founding)
        for block in export.blocks:
            await asyncio.to_thread(machine.replay, block)
        note = parse_note(export.note)
        return take_snapshot(self._founding, machine.header, machine.state, machine.log, export.handovers, note)

    async def entries(
        self, selection: Selection = EVERYTHING, after: Cursor = START, limit: int = 100
    ) -> tuple[Entry, ...]:
        """See `Engine.entries`: replayed, from where the last call came to; all that was replayed stays in memory."""
        if not 1 <= limit <= MOST_ENTRIES:
            raise ValueError(f"limit is 1..{MOST_ENTRIES}")
        last = (await self.head()).final_height
        async with self._reading:
            machine = self._read = self._read or Machine(self._founding)
            async for block in self._history(last, machine.height + 1):
                outcome = await asyncio.to_thread(machine.replay, block)
                self._entries += EVERYTHING.entries(block, outcome.results)
        begin = bisect_right(self._entries, after, key=Cursor.of)
        found = (entry for entry in islice(self._entries, begin, None) if selection.holds(entry))
        return tuple(islice(found, limit))

    async def watch(self, selection: Selection = EVERYTHING, after: Cursor = START) -> AsyncIterator[Entry]:
        """See `Engine.watch`: replayed."""
        machine, final = Machine(self._founding), 0
        async for block, _ in self.subscribe(1):
            outcome = await asyncio.to_thread(machine.replay, block)
            while final < block.header.height:
                final = (await self.head()).final_height
                if final < block.header.height:
                    await self._pause(FIRST_PAUSE)
                if self._closed.is_set():
                    return
            for entry in selection.entries(block, outcome.results):
                if Cursor.of(entry) > after:
                    yield entry
            if selection.until is not None and block.header.time >= selection.until:
                return

    async def close(self) -> None:
        """Ask nothing more: what is being asked is given up, subscriptions end. The line stays its owner's."""
        self._closed.set()

    async def _ask(self, method: str, path: str, kind: type[W], body: bytes = b"", timeout: float = 30.0) -> W:
        if self._closed.is_set():
            raise Unavailable("ledger.closed")
        asking = asyncio.ensure_future(self._line.ask(method, f"/peer/v1/ledger/{path}", kind, body, timeout))
        closing = asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait((asking, closing), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise Unavailable("ledger.closed")
            return asking.result()
        except Unavailable as error:
            if error.code != "ledger.closed" or self._closed.is_set():
                raise
            # It is the sequencer's engine that closes; this one is open, and the sequencer may come back.
            raise Unavailable("network.unreachable", retry_after=5, organisation=self._line.organisation) from None
        finally:
            asking.cancel()
            closing.cancel()
            await asyncio.gather(asking, closing, return_exceptions=True)

    async def _insist(self, method: str, path: str, kind: type[W], body: bytes = b"", for_ever: bool = False) -> W:
        """Ask until somebody answers, patience ends, or `close`. Raises what was told, or Unavailable."""
        clock = asyncio.get_running_loop().time
        end, pause = clock() + (float("inf") if for_ever else self._patience), FIRST_PAUSE
        while True:
            try:
                return await self._ask(method, path, kind, body)
            except Unavailable as error:
                if not error.code.startswith("network.") or clock() + pause > end:
                    raise
            await self._pause(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        except TimeoutError:
            return
