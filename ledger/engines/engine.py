"""What every engine offers, whatever orders its blocks.

An envelope is *executed* when a block carries it, and *final* when k re-executing members have
cosigned a checkpoint over that block. Only final history is shown, proven and receipted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeVar, overload

from ledger.export import LedgerExport
from ledger.machine import MOST_ENVELOPES, Block
from ledger.reading import Entry, Selection
from ledger.receipts import ProvenValue, Receipt
from ledger.snapshots import LedgerSnapshot
from wire.canonical import Wire, decode
from wire.checkpoint import Note, SignatureLine
from wire.errors import Refused, VerificationError

TxId = bytes
"""Id of a submitted envelope: `ledger.envelope.envelope_id` of its bytes."""

T = TypeVar("T", bound=Wire)


@dataclass(frozen=True)
class Head:
    """Where an engine is. height: latest executed block; final_height: latest final one; note: its checkpoint."""

    height: int
    final_height: int
    note: bytes | None


class Cursor(NamedTuple):
    """A place in history, to go on after: that of an envelope that was read. The default is before all.

    Two integers: keep them anywhere, and a subscription resumes where it ended.
    """

    height: int = 0
    entry: int = MOST_ENVELOPES

    @classmethod
    def of(cls, entry: Entry) -> Cursor:
        """The place of `entry`."""
        return cls(entry.height, entry.entry)


START = Cursor()
EVERYTHING = Selection()


class Engine(Protocol):
    """Orders envelopes, keeps blocks, collects cosignatures, answers with proofs."""

    async def submit(self, envelope: bytes) -> TxId:
        """Accept a signed envelope for a coming block; submitting it again is harmless.

        Raises DecodeError, VerificationError or Refused if it could not take effect now, Unavailable.
        """

    async def wait(self, tx: TxId, timeout: float) -> Receipt:
        """The receipt, once final, also of a refused envelope. Raises Unavailable after `timeout` seconds."""

    async def refusal(self, tx: TxId) -> Refused | None:
        """Why an executed envelope did not take effect; None if it did. Raises Refused for an unknown one."""

    async def next_nonce(self, organisation: str) -> int:
        """The nonce of the organisation's next envelope, those still waiting counted."""

    @overload
    async def query(self, key: bytes, prove: Literal[False] = False) -> bytes | None: ...
    @overload
    async def query(self, key: bytes, prove: Literal[True]) -> ProvenValue: ...
    async def query(self, key: bytes, prove: bool = False) -> bytes | ProvenValue | None:
        """The final value of a state key (canonical bytes, None for absence), or evidence of it."""

    async def head(self) -> Head:
        """Where the engine is."""

    def subscribe(self, cursor: int) -> AsyncIterator[tuple[Block, Note]]:
        """Blocks from height `cursor` (>= 1) on, each with its head as the sequencer signed it; waits for more."""

    async def add_cosignature(self, size: int, line: SignatureLine) -> bytes | None:
        """Add a member's cosignature of the head of that size. Raises VerificationError or Refused.

        Returns the checkpoint of a final head of at least that size, if there is one by now: to be verified.
        """

    async def export(self) -> LedgerExport:
        """All final history."""

    async def handovers(self, after: int = 0) -> tuple[ProvenValue, ...]:
        """Evidence of the changes of members and keys that hold from a block above `after` on: `ledger.handovers`."""

    async def snapshot(self) -> LedgerSnapshot:
        """The state at the last final head, for another engine or replica to start from."""

    async def entries(
        self, selection: Selection = EVERYTHING, after: Cursor = START, limit: int = 100
    ) -> tuple[Entry, ...]:
        """The first `limit` (1..1,000) selected envelopes of final history after a place, in order.

        Each is final, and `wait` gives its receipt. Raises Refused if the engine holds no history from there on.
        """

    def watch(self, selection: Selection = EVERYTHING, after: Cursor = START) -> AsyncIterator[Entry]:
        """Selected envelopes after a place as they become final, none left out, none twice; waits for more.

        Ends when the engine closes, or once final history has passed `selection.until`.
        """

    async def close(self) -> None:
        """Finish what is being written and let go of the data."""


async def commit(engine: Engine, envelope: bytes, timeout: float) -> Receipt:
    """Submit, wait until final, and raise the `Refused` of an envelope that did not wholly take effect.

    Whether it did is the receipt's word; the engine's own only adds the facts. The receipt is not
    verified here (`ledger.receipts.verify_receipt`). Raises VerificationError if it is of another envelope.
    """
    tx = await engine.submit(envelope)
    receipt = await engine.wait(tx, timeout)
    if receipt.envelope != envelope:
        raise VerificationError("ledger.bad_receipt", part="envelope")
    if not receipt.result.accepted:
        refusal = await engine.refusal(tx)
        raise refusal if refusal is not None and refusal.code == receipt.result.code else Refused(receipt.result.code)
    return receipt


async def read(engine: Engine, key: bytes, kind: type[T]) -> T | None:
    """The final value of a state key as a struct."""
    value = await engine.query(key)
    return None if value is None else decode(kind, value)
