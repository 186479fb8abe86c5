"""An organisation's account on the ledger: it writes in its own name, and reads what it replayed itself.

Nothing is read from the sequencer's word. The organisation's replica re-executes every block and
cosigns it; state counts only once a checkpoint that k cosigners signed covers it (`finalised`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple, Protocol, TypeVar

from ledger.contracts import Op
from ledger.contracts.membership import keys_at
from ledger.engines import Engine, followed
from ledger.envelope import VERSION, Envelope, envelope_id, sign_envelope
from ledger.export import LedgerExport
from ledger.handovers import check_members, extend
from ledger.machine import BlockHeader, Mark, StateView
from ledger.receipts import ProvenValue, Receipt, verify_receipt
from ledger.replicas import Replica
from ledger.trees.state import StateTree
from wire.canonical import Wire, decode, encode
from wire.checkpoint import Checkpoint, TrustFile, leaf_hash, verify_checkpoint
from wire.errors import DecodeError, QuorumNotMet, Refused, Unavailable, VerificationError
from wire.signing import Keyring, Signer

T = TypeVar("T")
W = TypeVar("W", bound=Wire)

_LIFETIME = 1000
"""Blocks after which an envelope that was not taken is void."""
TIMEOUT = 60.0
"""Seconds to wait for a final block."""
_AGAIN = 1.0
"""Seconds until a sequencer that did not answer is asked again."""
_LOOK = 0.02
"""Seconds between looks at what the own replica has run."""


@contextlib.contextmanager
def _closed() -> Iterator[None]:
    """Leaves out that the engine was closed."""
    try:
        yield
    except Unavailable as error:
        if error.code != "ledger.closed":
            raise


class LedgerState(Protocol):
    """Replayed state, to be read: a `ledger.machine.Machine`, or an account's final state."""

    def view(self) -> StateView:
        """The state for reading; writes to it stay with it."""

    def get(self, key: bytes, kind: type[W]) -> W | None:
        """The value under a state key, which is a `kind`, or None."""

    def items(self, prefix: bytes, kind: type[W]) -> Iterator[tuple[bytes, W]]:
        """All keys that start with `prefix`, in order, with their values, all of which are of `kind`."""


class FinalState:
    """The ledger at one final head, as the organisation replayed it. Never changes."""

    def __init__(self, mark: Mark) -> None:
        self._mark = mark

    @property
    def height(self) -> int:
        """Height of the head."""
        return self._mark.header.height

    @property
    def header(self) -> BlockHeader:
        """The head's block."""
        return self._mark.header

    def view(self) -> StateView:
        """See `LedgerState.view`."""
        return StateView(self._mark.state)

    def get(self, key: bytes, kind: type[W]) -> W | None:
        """See `LedgerState.get`."""
        return self.view().get(key, kind)

    def items(self, prefix: bytes, kind: type[W]) -> Iterator[tuple[bytes, W]]:
        """See `LedgerState.items`."""
        for key, value in self._mark.state.items(prefix):
            yield key, decode(kind, value)

    def changed(self, since: FinalState | None, prefix: bytes, kind: type[W]) -> Iterator[W]:
        """The values of keys that start with `prefix`, all of which are of `kind`, as far as `since`, an earlier head,
        did not have them; None: all. In no order, and as fast as little was changed."""
        before = StateTree() if since is None else since._mark.state
        for _, value in self._mark.state.changed(before, prefix):
            yield decode(kind, value)


class _Shown(NamedTuple):
    """A block that was replayed: its height, the id of one of its envelopes, and the checkpoint with which its
    cosignature was answered, to be verified; None where it was not final yet."""

    height: int
    envelope: bytes
    final: bytes | None


class LedgerAccount:
    """One organisation's writing and reading. replica: its own.

    signer: its envelope key, or a keyring with the one to come; trust: what it pinned, which follows the members
    through their changes; receipts: of every envelope it wrote, in order, refused ones too. patience: seconds to
    wait for what must become final.
    """

    def __init__(
        self,
        organisation: str,
        signer: Signer | Keyring,
        engine: Engine,
        replica: Replica,
        trust: TrustFile,
        patience: float = TIMEOUT,
    ) -> None:
        self.organisation = organisation
        self.replica = replica
        self.receipts: list[Receipt] = []
        self.patience = patience
        self._signer = signer
        self._engine = engine
        self._trust = trust
        self._final = FinalState(replica.machine.mark())  # genesis, or what was replayed from home
        self._replayed: dict[int, Mark] = {}  # by log size, above the final one
        self._ahead: tuple[Checkpoint, bytes] | None = None  # seems final, larger than what the replica replayed
        self._changed = asyncio.Condition()
        self._writing = asyncio.Lock()
        self._caught_up = False
        self._unsettled: bytes | None = None  # written, and nobody knows what became of it
        self._writes_known = False  # whether the replica has run all that was written in this organisation's name

    @property
    def trust(self) -> TrustFile:
        """Genesis and the changes of members that this organisation has seen handed over."""
        return self._trust

    @property
    def state(self) -> FinalState:
        """The ledger at the latest final head that this organisation replayed."""
        return self._final

    async def submit(self, *ops: Op) -> Receipt:
        """Write `ops` as one envelope: all of them take effect or none. Returns the checked receipt.

        Raises Refused with the contract's reason; Unavailable if no final block carries it in time (it
        may still become final later). Whoever is cancelled while waiting has written all the same: the
        envelope is on its way, and the next one comes after it.
        """
        writing = asyncio.ensure_future(self._write(ops))
        try:
            return await asyncio.shield(writing)
        except asyncio.CancelledError:
            writing.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise

    async def _write(self, ops: tuple[Op, ...]) -> Receipt:
        async with self._writing:
            await self.present()  # or what it writes would expire before it is taken
            if self._unsettled is not None:
                with contextlib.suppress(Refused):  # that one's refusal is not the answer to this one
                    await self._settle(self._unsettled)
            receipt = await self._settle(await self._sealed(ops))
            transaction = envelope_id(receipt.envelope)
        if not receipt.result.accepted:
            # The receipt says that it was refused and by which rule; the engine only adds the facts.
            self._writes_known = False
            said = await self._answered(lambda: self._engine.refusal(transaction))
            if said is None or said.code != receipt.result.code:
                raise Refused(receipt.result.code)
            raise type(said)(said.code, **said.facts)
        return receipt

    async def _sealed(self, ops: tuple[Op, ...]) -> bytes:
        """A signed envelope of `ops`, the organisation's next."""
        nonce, expiry = await self._next_nonce(), self.state.height + _LIFETIME
        envelope = Envelope(VERSION, self._trust.genesis_hash, self.organisation, nonce, expiry, ops)
        return sign_envelope(self._own_signer(), envelope)

    async def _next_nonce(self) -> int:
        """The nonce after all that this organisation wrote, in an earlier life too, as its own replica ran it.

        The engine only says how far to wait: an envelope with a nonce to come could be kept back and played later.
        It is asked once, since what is written after that is settled one after the other, and again after a refusal:
        another process may have written in this organisation's name.
        """
        machine = self.replica.machine
        if self._writes_known:
            return machine.next_nonce(self.organisation)
        try:
            async with asyncio.timeout(self.patience):
                written = await self._answered(lambda: self._engine.next_nonce(self.organisation))
                while machine.next_nonce(self.organisation) < written:
                    await asyncio.sleep(_LOOK)
        except TimeoutError:
            raise Unavailable("account.timeout", organisation=self.organisation, what="its own envelopes") from None
        self._writes_known = True
        return machine.next_nonce(self.organisation)

    async def _settle(self, data: bytes) -> Receipt:
        """Submit an envelope and wait until it is final. One whose fate is unknown comes first the next time.

        So its nonce is not given to another, and nothing is written twice. Raises as `submit`.
        """

        def check(trust: TrustFile) -> TrustFile:
            verify_receipt(receipt, trust)
            return trust

        self._unsettled = data
        try:
            receipt = await self._placed(data)
        except (Refused, DecodeError, VerificationError):
            self._unsettled, self._writes_known = None, False  # it will never be
            raise
        if receipt.envelope != data:
            raise VerificationError("ledger.bad_receipt", part="envelope")
        believed = await self._believe(check)
        height = receipt.block.height
        await self.until(lambda state: True if state.height >= height else None, f"block {height}")
        await self._catch_up()
        if self._trust is not believed:  # by the members as they are known now
            await self._believe(check)
        if self.replica.machine.log.leaf(height) != leaf_hash(encode(receipt.block)):
            raise VerificationError("ledger.fork", organisation=self.organisation, size=height + 1)
        self._unsettled = None
        self.receipts.append(receipt)
        return receipt

    async def _placed(self, data: bytes) -> Receipt:
        """The receipt of an envelope, submitted again if the sequencer forgot it: it died before there was a block.

        One that says so for as long as `patience` lasts is not believed for longer. Raises as `submit`.
        """
        clock = asyncio.get_running_loop().time
        end = clock() + self.patience
        while True:
            await self._answered(lambda: self._engine.submit(data))
            try:
                return await self._answered(lambda: self._engine.wait(envelope_id(data), self.patience))
            except Refused as error:
                if error.code != "ledger.unknown_envelope":
                    raise
            if clock() > end:
                raise Unavailable("account.timeout", organisation=self.organisation, what="its own envelope")
            await asyncio.sleep(_LOOK)

    async def _answered(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What the sequencer answers, asked again for as long as `patience` lasts while it cannot be reached.

        A sequencer that is started again must not end what others do. `ask` must be harmless to repeat.
        """
        clock = asyncio.get_running_loop().time
        end = clock() + self.patience
        while True:
            try:
                return await ask()
            except Unavailable as error:
                if not error.code.startswith("network.") or clock() + _AGAIN > end:
                    raise
            await asyncio.sleep(_AGAIN)

    async def _handovers(self, since: int) -> tuple[ProvenValue, ...]:
        return await self._answered(lambda: self._engine.handovers(since))

    def _own_signer(self) -> Signer:
        """The signer of its envelope key in the next block. Raises Refused if it is no member, or has not the key."""
        keys = keys_at(self.state.view(), self.organisation, self.state.height + 1)
        signer = self._signer.for_key(keys.envelope.key) if keys is not None else None
        if keys is None:
            raise Refused("ledger.unknown_sender", organisation=self.organisation)
        if signer is None:
            raise Refused("account.no_key", organisation=self.organisation)
        return signer

    async def _believe(self, check: Callable[[TrustFile], T]) -> T:
        """What `check` finds; where it fails, once more with the changes of members that the engine can show."""
        await self._catch_up()
        try:
            return check(self._trust)
        except (VerificationError, QuorumNotMet):
            before = self._trust
            shown = extend(before, await self._handovers(before.latest.from_height))
            if not self._keep(shown) and self._trust is before:
                raise
        await self._catch_up()  # the replica may have gone on meanwhile; nothing awaited from here to the check
        return check(self._trust)

    async def _catch_up(self) -> None:
        """Know the changes that the replica has replayed: the rule of before is none any more."""
        while (replayed := self.replica.machine.trust).latest.from_height > self._trust.latest.from_height:
            before = self._trust
            shown = extend(before, await self._handovers(before.latest.from_height))
            check_members(shown, replayed, replayed.latest.from_height)
            self._keep(shown)

    def _keep(self, trust: TrustFile) -> bool:
        """Whether `trust` knows more than what is known by now; then it is what is known."""
        if trust.latest.from_height <= self._trust.latest.from_height:
            return False
        self._trust = trust
        return True

    async def export(self) -> LedgerExport:
        """All final history, whose head this organisation has replayed too. Raises VerificationError, Unavailable."""
        export = await self._answered(self._engine.export)
        checkpoint = await self._believe(lambda trust: verify_checkpoint(export.note, trust))
        await self.until(lambda state: True if state.height + 1 >= checkpoint.size else None, "the ledger's head")
        if self.replica.machine.log.root(checkpoint.size) != checkpoint.root:
            raise VerificationError("ledger.fork", organisation=self.organisation, size=checkpoint.size)
        return export

    async def receipt(self, envelope: bytes) -> Receipt:
        """The checked receipt of an envelope of final history. envelope: its id.

        Raises Refused for one that is not there, Unavailable, VerificationError.
        """
        receipt = await self._answered(lambda: self._engine.wait(envelope, self.patience))
        if envelope_id(receipt.envelope) != envelope:
            raise VerificationError("ledger.bad_receipt", part="envelope")
        await self._believe(lambda trust: verify_receipt(receipt, trust))
        return receipt

    async def attend(self) -> None:
        """Follow the engine for as long as it is open: replay each block, cosign it, learn when it is final.

        Raises what the replica raises: then this organisation has stopped cosigning.
        """
        shown: asyncio.Queue[_Shown | None] = asyncio.Queue()
        # Apart, so that nobody waits for others to make final what they, too, may be waiting for.
        tasks = (asyncio.ensure_future(self._follow(shown)), asyncio.ensure_future(self._learn(shown)))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in tasks:
            if not task.cancelled():
                with _closed():  # while something of it was asked for
                    task.result()

    async def _follow(self, shown: asyncio.Queue[_Shown | None]) -> None:
        """Replay and cosign; `shown` gets each block, and None at the end."""
        machine = self.replica.machine
        async for block, note, line in followed(self._engine, self.replica):
            final: bytes | None = None
            if self._ahead is None or machine.log.size >= self._ahead[0].size:
                self._replayed[machine.log.size] = machine.mark()
            if line is not None:
                final = await self._engine.add_cosignature(note.checkpoint.size, line)
            if block.envelopes:
                shown.put_nowait(_Shown(block.header.height, envelope_id(block.envelopes[0]), final))
            if self._ahead is not None and self._ahead[0].size <= machine.log.size:
                (_, head), self._ahead = self._ahead, None
                await self.finalised(head)  # by the members of its height, who are known only now
            await asyncio.sleep(0)  # however much there is to catch up with
        shown.put_nowait(None)

    async def _learn(self, shown: asyncio.Queue[_Shown | None]) -> None:
        """Learn which of the `shown` blocks are final."""
        while (block := await shown.get()) is not None:
            if block.height <= self.state.height or (self._ahead is not None and block.height < self._ahead[0].size):
                continue
            note = block.final or await self._final_note(block.envelope)
            if note is None:
                return
            await self.finalised(note)

    async def _final_note(self, envelope: bytes) -> bytes | None:
        """The checkpoint that made an envelope's block final, however long it takes; None if the engine closed.

        envelope: its id.
        """
        while True:
            try:
                return (await self._engine.wait(envelope, self.patience)).note
            except Unavailable as error:
                if error.code == "ledger.closed":
                    return None
                if error.code.startswith("network."):
                    await asyncio.sleep(_AGAIN)
                elif error.code != "ledger.timeout":
                    raise

    async def finalised(self, note: bytes) -> None:
        """A checkpoint that k cosigners signed: wakes those who wait. Raises if it does not hold.

        Following goes on after the sequencer was away, however long: nobody's writing waits here.
        """
        while True:
            try:
                checkpoint = await self._believe(lambda trust: verify_checkpoint(note, trust))
                break
            except Unavailable as error:
                if not error.code.startswith("network."):
                    raise
            await asyncio.sleep(_AGAIN)
        if checkpoint.size <= self.replica.machine.log.size:
            await self._reached(checkpoint)
        elif self._ahead is None or checkpoint.size > self._ahead[0].size:
            self._ahead = checkpoint, note  # the replica will come there

    async def _reached(self, checkpoint: Checkpoint) -> None:
        """The replica has replayed what is final."""
        if self.replica.machine.log.root(checkpoint.size) != checkpoint.root:
            raise VerificationError("ledger.fork", organisation=self.organisation, size=checkpoint.size)
        async with self._changed:
            mark = self._replayed.get(checkpoint.size)
            if mark is not None:
                self._final = FinalState(mark)
                self._replayed = {size: mark for size, mark in self._replayed.items() if size > checkpoint.size}
            self._changed.notify_all()

    async def caught_up(self) -> FinalState:
        """The state at the head that the sequencer calls final by now, replayed: what others wrote before is in it.

        Raises Unavailable if the replica does not come there in time.
        """
        height = (await self._answered(self._engine.head)).final_height
        return await self.until(lambda state: state if state.height >= height else None, f"block {height}")

    async def with_own(self) -> FinalState:
        """The state with all in it that this organisation has written; of others' writes, what has come by now.

        The sequencer is asked only where one of its own may be missing: in a process that has just begun, after a
        refusal, while nobody knows what became of one. Raises as `caught_up`.
        """
        if self._writes_known and self._unsettled is None:
            return self.state
        return await self.caught_up()

    async def present(self) -> FinalState:
        """The state, once it has caught up since this process began: it replays all history, revocations last.

        Whoever decides by the state asks this first. Raises as `caught_up`.
        """
        if not self._caught_up:
            await self.caught_up()
            self._caught_up = True
        return self.state

    async def until(self, read: Callable[[FinalState], T | None], what: str, timeout: float | None = None) -> T:
        """What `read` finds in final state, as soon as it finds something.

        `what` says in a few words what is awaited; timeout: seconds, `patience` by default. Raises
        Unavailable after that, and what `read` raises.
        """

        try:
            async with asyncio.timeout(self.patience if timeout is None else timeout), self._changed:
                while (value := read(self.state)) is None:
                    await self._changed.wait()
                return value
        except TimeoutError:
            raise Unavailable("account.timeout", organisation=self.organisation, what=what) from None
