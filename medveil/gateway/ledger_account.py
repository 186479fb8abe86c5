"""An organisation's account on the ledger: it writes in its own name, and reads what it replayed itself.

Nothing is read from the sequencer's word. The organisation's replica re-executes every block and
cosigns it; state counts only once a checkpoint that k cosigners signed covers it (`finalised`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from ledger.contracts import Op
from ledger.engines import Engine
from ledger.envelope import VERSION, Envelope, envelope_id, sign_envelope
from ledger.machine import Machine
from ledger.receipts import Receipt, verify_receipt
from ledger.replicas import Replica
from wire.checkpoint import TrustFile, verify_checkpoint
from wire.errors import Unavailable, VerificationError
from wire.signing import Signer

T = TypeVar("T")

_LIFETIME = 1000
"""Blocks after which an envelope that was not taken is void."""
TIMEOUT = 60.0
"""Seconds to wait for a final block."""


class LedgerAccount:
    """One organisation's writing and reading. signer: its envelope key; replica: its own.

    receipts: of every envelope it wrote, in order, refused ones too.
    """

    def __init__(self, organisation: str, signer: Signer, engine: Engine, replica: Replica, trust: TrustFile) -> None:
        self.organisation = organisation
        self.replica = replica
        self.receipts: list[Receipt] = []
        self._signer = signer
        self._engine = engine
        self._trust = trust
        self._final = 0
        self._changed = asyncio.Condition()
        self._writing = asyncio.Lock()

    @property
    def state(self) -> Machine:
        """The ledger as this organisation replayed it, at a final head."""
        return self.replica.machine

    async def submit(self, *ops: Op) -> Receipt:
        """Write `ops` as one envelope: all of them take effect or none. Returns the checked receipt.

        Raises Refused with the contract's reason; Unavailable if no final block carries it in time.
        """
        async with self._writing:
            envelope = Envelope(
                VERSION,
                self._trust.genesis_hash,
                self.organisation,
                self.state.next_nonce(self.organisation),
                self.state.height + _LIFETIME,
                ops,
            )
            transaction = await self._engine.submit(sign_envelope(self._signer, envelope))
            receipt = await self._engine.wait(transaction, TIMEOUT)
            verify_receipt(receipt, self._trust)
            height = receipt.block.height
            await self.until(lambda state: True if state.height >= height else None, f"block {height}")
            self.receipts.append(receipt)
        refusal = None if receipt.result.accepted else await self._engine.refusal(transaction)
        if refusal is not None:
            raise refusal
        return receipt

    async def attend(self) -> None:
        """Follow the engine for as long as it is open: replay each block, cosign it, learn when it is final.

        Raises what the replica raises: then this organisation has stopped cosigning.
        """
        async for block, note in self._engine.subscribe(self.replica.height + 1):
            line = self.replica.follow((block,), note)
            if line is not None:
                await self._engine.add_cosignature(note.checkpoint.size, line)
            receipt = await self._engine.wait(envelope_id(block.envelopes[0]), TIMEOUT)
            await self.finalised(receipt.note)

    async def finalised(self, note: bytes) -> None:
        """A checkpoint that k cosigners signed: wakes those who wait. Raises if it does not hold."""
        checkpoint = verify_checkpoint(note, self._trust)
        log = self.state.log
        if checkpoint.size > log.size:
            return  # the replica will come there
        if log.root(checkpoint.size) != checkpoint.root:
            raise VerificationError("ledger.fork", organisation=self.organisation, size=checkpoint.size)
        async with self._changed:
            self._final = max(self._final, checkpoint.size)
            self._changed.notify_all()

    async def until(self, read: Callable[[Machine], T | None], what: str, timeout: float = TIMEOUT) -> T:
        """What `read` finds in final state, as soon as it finds something.

        `what` says in a few words what is awaited. Raises Unavailable after `timeout` seconds.
        """

        async def found() -> T:
            async with self._changed:
                while True:
                    value = read(self.state) if self._final == self.state.log.size else None
                    if value is not None:
                        return value
                    await self._changed.wait()

        try:
            return await asyncio.wait_for(found(), timeout)
        except TimeoutError:
            raise Unavailable("account.timeout", organisation=self.organisation, what=what) from None
