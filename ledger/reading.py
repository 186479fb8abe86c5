"""Reading history: which envelopes stood in which block, by organisation, time and kind of op.

The same selection serves an export, a store and a subscription: whoever has blocks and their results can
ask it. It proves nothing by itself: results are those of a replay, or come with a receipt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ledger.contracts import CONTRACTS
from ledger.envelope import open_envelope
from ledger.machine import Block, Result


@dataclass(frozen=True)
class Entry:
    """One envelope of history. kinds: the tags of its ops, in order; result: what became of it."""

    height: int
    time: int
    kinds: tuple[str, ...]
    result: Result

    @property
    def entry(self) -> int:
        """Its place in the block."""
        return self.result.entry

    @property
    def sender(self) -> str:
        """Who sent it."""
        return self.result.sender


@dataclass(frozen=True)
class Selection:
    """What to show. An empty or None field selects everything.

    organisation: the sender; since, until: block time in ms UTC, from `since` on and before `until`;
    kind: an op's tag (``grants.anchor``) or a contract's name (``grants``), matched by any op.
    """

    organisation: str = ""
    since: int | None = None
    until: int | None = None
    kind: str = ""

    def holds(self, entry: Entry) -> bool:
        """Whether `entry` is selected."""
        return (
            (not self.organisation or entry.sender == self.organisation)
            and (self.since is None or entry.time >= self.since)
            and (self.until is None or entry.time < self.until)
            and (not self.kind or any(_is_of(kind, self.kind) for kind in entry.kinds))
        )

    def entries(self, block: Block, results: Sequence[Result]) -> Iterator[Entry]:
        """The selected envelopes of one block whose results are `results`, in order."""
        time = block.header.time
        if (self.since is not None and time < self.since) or (self.until is not None and time >= self.until):
            return
        for data, result in zip(block.envelopes, results, strict=True):
            if self.organisation and result.sender != self.organisation:
                continue
            entry = Entry(block.header.height, time, kinds_of(data), result)
            if self.holds(entry):
                yield entry


def kinds_of(envelope: bytes) -> tuple[str, ...]:
    """The tags of an envelope's ops, in order. Raises DecodeError."""
    return tuple(str(op.__struct_config__.tag) for op in open_envelope(envelope).envelope.ops)


def known_kinds() -> tuple[str, ...]:
    """What `Selection.kind` may name: each contract, and the tag of each op."""
    tags = {str(op.__struct_config__.tag) for contract in CONTRACTS for op in contract.ops}
    return tuple(sorted({contract.name for contract in CONTRACTS} | tags))


def _is_of(tag: str, kind: str) -> bool:
    return tag == kind or tag.partition(".")[0] == kind
