"""What was submitted and is in no block yet, and when it becomes one: group commit, and quotas of senders."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict
from dataclasses import dataclass

from ledger.machine import MOST_ENVELOPES
from wire.errors import Unavailable

MOST_WAITING = 1024
"""Most envelopes of one organisation that may wait for a block: its quota."""
WAITING_BYTES = 16 * 1024 * 1024
"""Most bytes of them."""
BLOCK_BYTES = 16 * 1024 * 1024
"""Most bytes of envelopes in a block: with their results, which can be three times as long, it stays readable."""


@dataclass(frozen=True)
class GroupCommit:
    """When what waits becomes a block: `delay` after the first of it came, or `quiet` to twice that after the last, or
    at once when a block is full.

    delay: seconds, 0 for none beyond the turn of the event loop: while one block is written, the next one
    gathers anyway, so that a delay pays only where a flush costs far more than here. quiet: seconds, 0 for a delay that
    is always waited for. envelopes (1..10,000), size (bytes): what fills a block; a single larger envelope still gets
    its block. A full block is the longest time for which the engine answers nobody. size is at most 16 MiB. not_final:
    blocks that may wait for cosignatures, their states in memory; with so many, nothing new is accepted.
    """

    delay: float = 0.0
    quiet: float = 0.0
    envelopes: int = 1000
    size: int = BLOCK_BYTES
    not_final: int = 1000

    def __post_init__(self) -> None:
        """Raises ValueError for values that make no sense."""
        sizes = 1 <= self.envelopes <= MOST_ENVELOPES and 1 <= self.size <= BLOCK_BYTES and self.not_final >= 1
        if not (0 <= self.quiet <= self.delay <= 10 and sizes):
            raise ValueError(
                "group commit: delay 0..10 s, quiet 0..delay, 1..10,000 envelopes, 1 byte to 16 MiB, not_final >= 1"
            )


GROUP_COMMIT = GroupCommit()
"""The default. See docs/protocols/ledger.md for the measurements it follows from."""


class Waiting:
    """Envelopes in the order in which they came. Use it from one event loop."""

    def __init__(self, group: GroupCommit) -> None:
        self._group = group
        self._envelopes: OrderedDict[bytes, tuple[str, bytes]] = OrderedDict()  # by id: sender, bytes
        self._counts: Counter[str] = Counter()
        self._lengths: Counter[str] = Counter()
        self._length = 0
        self._full = asyncio.Event()  # no need to gather any longer
        self._over = False

    def __contains__(self, identity: bytes) -> bool:
        return identity in self._envelopes

    def __len__(self) -> int:
        return len(self._envelopes)

    def of(self, sender: str) -> int:
        """How many envelopes of `sender` wait."""
        return self._counts[sender]

    def check_room(self, sender: str, envelope: bytes, not_final: int) -> None:
        """Raises Unavailable if `sender` has used its quota up, or so many blocks are not final."""
        if not_final >= self._group.not_final:
            raise Unavailable("ledger.not_final_yet", retry_after=1, blocks=not_final)
        if self._counts[sender] >= MOST_WAITING or self._lengths[sender] + len(envelope) > WAITING_BYTES:
            raise Unavailable("ledger.busy", retry_after=1, organisation=sender)

    def add(self, identity: bytes, sender: str, envelope: bytes) -> None:
        """Let an envelope wait."""
        self._envelopes[identity] = sender, envelope
        self._count(sender, 1, len(envelope))
        if self._fills_a_block():
            self._full.set()

    def remove(self, identity: bytes) -> None:
        """An envelope does not wait any more."""
        sender, envelope = self._envelopes.pop(identity)
        self._count(sender, -1, -len(envelope))
        if not self._over and not self._fills_a_block():
            self._full.clear()

    def clear(self) -> None:
        """Nothing waits any more."""
        for identity in list(self._envelopes):
            self.remove(identity)

    def _count(self, sender: str, envelopes: int, length: int) -> None:
        self._counts[sender] += envelopes
        self._lengths[sender] += length
        self._length += length

    def _fills_a_block(self) -> bool:
        return len(self._envelopes) >= self._group.envelopes or self._length >= self._group.size

    def no_longer(self) -> None:
        """Gather no more: `gather` returns at once."""
        self._over = True
        self._full.set()

    async def gather(self) -> None:
        """Let others share the block that the first envelope opened."""
        await asyncio.sleep(0)  # whoever submits in the same turn of the loop
        if self._group.delay and not self._full.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._group.delay):
                    while not await self._is_quiet():
                        pass

    async def _is_quiet(self) -> bool:
        """Whether nothing more came for so long, or a block is full."""
        before = len(self._envelopes)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._group.quiet or self._group.delay):
                await self._full.wait()
        return self._full.is_set() or len(self._envelopes) == before

    def batch(self) -> list[bytes]:
        """What goes into the next block."""
        found: list[bytes] = []
        room = self._group.size
        for _, envelope in self._envelopes.values():
            if found and (len(envelope) > room or len(found) == self._group.envelopes):
                break
            found.append(envelope)
            room -= len(envelope)
        return found
