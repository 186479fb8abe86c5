"""The one deterministic machine: blocks of envelopes in, results and roots out.

    apply_block(height, time, envelopes) -> results, state_root, results_root, log_root

Every member that replays the same blocks gets the same bytes, on any interpreter, locale and zone:
integers only, no clock, no randomness, no sets, no floats, no exception text. What a block holds:

* An envelope that is not authentic (not canonical, other chain, not a member, bad signature) makes the
  whole *block* invalid: `VerificationError` naming height and entry, and nothing has changed. A
  sequencer that puts one into a block gets no cosignature. Members and keys are those that the block begins with.
* An authentic envelope that cannot take effect (suspended sender, wrong nonce, expired, refused by a
  contract) stands in the block with the refusal's code as its result. A contract's refusal uses the
  nonce up; the others do not.
* Changes of members and keys that were agreed for a height hold before anything in that block happens.
* Of one organisation, a block takes at most `MOST_FROM_ONE` envelopes of `BYTES_FROM_ONE` together; what is
  beyond is refused and uses no nonce up. So one member cannot fill blocks, whatever the sequencer does.
* Which version of a contract runs an op depends on the block's height and the schedule that members
  voted for (`ledger.contracts.versions`). An op that no version in force has is not authentic.
* An atomic envelope takes effect wholly or not at all. Of one that is not atomic, each op takes effect
  or is refused by itself, and sees what those before it did; its result has a code for each.

Each result is a leaf of the block's results tree, each block's header
``{height, time, state_root, results_root, count}`` a leaf of the log: leaf `h` is block `h`, leaf 0 is
genesis. The state itself holds height and time (key ``machine/clock``) and every sender's next nonce,
so a changed time shows at its own block. A receipt is a path from an envelope to a cosigned head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

import msgspec

from ledger.contracts import CONTRACTS
from ledger.contracts.contract import Context, Contract, Event, state_key
from ledger.contracts.membership import MemberState, begin_block, changes_at, consortium, found, member_key
from ledger.envelope import (
    Envelope,
    Nonce,
    SignedEnvelope,
    check_chain,
    check_signature,
    envelope_id,
    keep_open,
    open_envelope,
)
from ledger.rules import InForce, Rules
from ledger.trees.log import Log
from ledger.trees.state import StateTree
from wire.canonical import Wire, decode, encode
from wire.checkpoint import TrustFile, founding_hash, leaf_hash, tree_root, trust_of
from wire.dates import Instant
from wire.errors import MedveilError, Refused, VerificationError
from wire.identifiers import Hash, Name
from wire.keyset import Founding, Height, MembershipChanges

MOST_ENVELOPES = 10_000
"""Most envelopes of one block."""
MOST_FROM_ONE = 1024
"""Most envelopes of one organisation in a block: its quota."""
BYTES_FROM_ONE = 16 * 1024 * 1024
"""Most bytes of them."""

T = TypeVar("T", bound=Wire)

Entry = Annotated[int, msgspec.Meta(ge=0, lt=MOST_ENVELOPES)]


class BlockHeader(Wire, frozen=True, tag="ledger.block_header"):
    """A leaf of the log. time: ms UTC, never before the block before; count: envelopes of the block."""

    height: Height
    time: Instant
    state_root: Hash
    results_root: Hash
    count: Annotated[int, msgspec.Meta(ge=0, le=MOST_ENVELOPES)]


class Block(Wire, frozen=True, tag="ledger.block"):
    """A block as it is stored and exported. envelopes: bytes of signed envelopes, in order."""

    header: BlockHeader
    envelopes: tuple[bytes, ...]


class OpResult(Wire, frozen=True, tag="ledger.op_result"):
    """What became of one op. code: empty if it took effect, otherwise why not; events: empty if it did not."""

    code: str
    events: tuple[Event, ...]


class Result(Wire, frozen=True, tag="ledger.result"):
    """What became of one envelope. entry: its place in the block.

    code: empty if all of it took effect, otherwise of the first refusal; op: index of the op that was
    refused first, 0 where none was reached; ops: one for each op, in order, and none at all if nothing of the
    envelope took effect for a reason of the whole: its own (nonce, expiry, sender), or that it is atomic.
    """

    height: Height
    entry: Entry
    envelope: Hash
    sender: Name
    nonce: Nonce
    code: str
    op: int
    ops: tuple[OpResult, ...]

    @property
    def accepted(self) -> bool:
        """Whether every op of the envelope took effect."""
        return self.code == ""

    @property
    def took_effect(self) -> bool:
        """Whether any op of the envelope took effect."""
        return any(not op.code for op in self.ops)

    @property
    def refused_ops(self) -> tuple[int, ...]:
        """Indices of the ops that were refused while the others had their chance: of a non-atomic envelope."""
        return tuple(index for index, op in enumerate(self.ops) if op.code)

    def in_words(self) -> str:
        """What became of it, for a list: ``accepted``, the code of the refusal, or how many ops were refused."""
        if self.accepted or not self.ops:
            return self.code or "accepted"
        return f"{len(self.refused_ops)} of {len(self.ops)} ops refused: {self.code}"

    @property
    def events(self) -> tuple[Event, ...]:
        """The events of all ops, in order."""
        return tuple(event for op in self.ops for event in op.events)


class Clock(Wire, frozen=True, tag="ledger.clock"):
    """Height and time of the latest block."""

    height: Height
    time: Instant


class Account(Wire, frozen=True, tag="ledger.account"):
    """A sender's next nonce."""

    nonce: Nonce


@dataclass(frozen=True)
class BlockOutcome:
    """What a block does. refusals: for each envelope its first one, with facts, for the sender only; not agreed on."""

    header: BlockHeader
    results: tuple[Result, ...]
    log_root: bytes
    size: int
    refusals: tuple[Refused | None, ...]

    @property
    def state_root(self) -> bytes:
        """Root of the state after the block."""
        return self.header.state_root

    @property
    def results_root(self) -> bytes:
        """Root of the block's results."""
        return self.header.results_root


@dataclass(frozen=True)
class Executed:
    """A block worked out and not yet adopted: its outcome and the state after it."""

    outcome: BlockOutcome
    state: StateTree


@dataclass(frozen=True)
class Mark:
    """A point in a machine's history."""

    state: StateTree
    header: BlockHeader


class StateView:
    """Typed reading and writing over a state tree: the `View` of the contracts.

    What is written stays in the view as structs, and is read back from it, until `tree` writes all of it at once:
    however often an op writes a key, its value is encoded once.
    """

    def __init__(self, tree: StateTree) -> None:
        self._tree = tree
        self._known: dict[bytes, Wire | None] = {}  # what was read or written, as structs
        self._written: dict[bytes, Wire | None] = {}
        self._undone_by: list[tuple[bytes, Wire | None, bool]] = []

    def get(self, key: bytes, kind: type[T]) -> T | None:
        """The value under `key`, which is a `kind`, or None."""
        if key in self._known:
            known = self._known[key]
            return known if known is None or isinstance(known, kind) else decode(kind, encode(known))
        value = self._tree.get(key)
        struct = None if value is None else decode(kind, value)
        self._known[key] = struct
        return struct

    def put(self, key: bytes, value: Wire) -> None:
        """Set the value under `key`."""
        self._write(key, value)

    def delete(self, key: bytes) -> None:
        """Remove `key`."""
        self._write(key, None)

    def _write(self, key: bytes, struct: Wire | None) -> None:
        self._undone_by.append((key, self._written.get(key), key in self._written))
        self._known[key] = self._written[key] = struct

    def settle(self) -> None:
        """Keep all that was written: nothing before this is undone any more."""
        self._undone_by.clear()

    def mark(self) -> int:
        """A point to `undo` to."""
        return len(self._undone_by)

    def undo(self, mark: int) -> None:
        """Forget all that was written since `mark`."""
        while len(self._undone_by) > mark:
            key, struct, before = self._undone_by.pop()
            if before:
                self._known[key] = self._written[key] = struct
            else:
                del self._known[key], self._written[key]

    def tree(self) -> StateTree:
        """The state with all that was written."""
        written = {key: None if struct is None else encode(struct) for key, struct in self._written.items()}
        return self._tree.update(written)


CLOCK_KEY = state_key("machine", "clock")


def account_key(organisation: str) -> bytes:
    """State key of a sender's next nonce."""
    return state_key("machine", "account", organisation)


class Machine:
    """The state, the log, and the one way both change."""

    def __init__(self, founding: Founding, contracts: Sequence[Contract] = CONTRACTS) -> None:
        """Genesis: block 0. contracts: every version of each. Raises DecodeError if `founding` breaks a rule."""
        self._trust = trust_of(founding)
        self.founding = founding
        self._rules = Rules(contracts)
        self._in_force: tuple[StateTree, InForce] | None = None
        self.genesis = founding_hash(founding)
        self.log = Log()
        view = StateView(StateTree())
        found(founding, self.genesis, view)
        view.put(CLOCK_KEY, Clock(0, founding.time))
        self.state = view.tree()
        self.header = BlockHeader(0, founding.time, self.state.root, tree_root(()), 0)
        self.log.append(encode(self.header))

    @property
    def height(self) -> int:
        """Height of the latest block."""
        return self.header.height

    @property
    def time(self) -> int:
        """Time of the latest block, ms UTC."""
        return self.header.time

    def view(self) -> StateView:
        """The state for reading; writes to it stay with it."""
        return StateView(self.state)

    def next_view(self) -> StateView:
        """The state with which the next block begins; writes to it stay with it."""
        view = self.view()
        begin_block(view, self.height + 1)
        return view

    @property
    def trust(self) -> TrustFile:
        """Genesis and the changes of members in force at the latest block, as this machine replayed them."""
        view = self.view()
        height, missing = consortium(view).latest, list[MembershipChanges]()
        while height > self._trust.latest.from_height:
            changes = changes_at(view, height)
            assert changes is not None  # every height of a change keeps it
            missing.append(changes)
            height = changes.previous
        if missing:
            self._trust = self._trust.with_changes(reversed(missing))
        return self._trust

    def get(self, key: bytes, kind: type[T]) -> T | None:
        """The value under a state key, which is a `kind`, or None."""
        return self.view().get(key, kind)

    def items(self, prefix: bytes, kind: type[T]) -> Iterator[tuple[bytes, T]]:
        """All keys that start with `prefix`, in order, with their values, all of which are of `kind`."""
        for key, value in self.state.items(prefix):
            yield key, decode(kind, value)

    def next_nonce(self, organisation: str) -> int:
        """The nonce that `organisation`'s next envelope must have."""
        account = self.get(account_key(organisation), Account)
        return 0 if account is None else account.nonce

    def authenticate(self, data: bytes, view: StateView | None = None) -> SignedEnvelope:
        """The envelope that `data` is, if it is authentic now: this chain, ops in force, a member, its signature.

        view: the state with which the next block begins. Raises DecodeError, Refused (no member, an op not in
        force), VerificationError, or Unavailable if this program does not know the rules of the next block.
        """
        signed = open_envelope(data)
        check_chain(signed, self.genesis)
        in_force = self.in_force()
        for op in signed.envelope.ops:
            if type(op) not in in_force:
                raise Refused("ledger.op_not_in_force", op=str(op.__struct_config__.tag), height=self.height + 1)
        member = (view or self.next_view()).get(member_key(signed.envelope.sender), MemberState)
        if member is None:
            raise Refused("ledger.unknown_sender", organisation=signed.envelope.sender)
        check_signature(signed, member.keys.envelope.key)
        keep_open(data, signed)
        return signed

    def in_force(self) -> InForce:
        """The contracts of the next block. Raises Unavailable if this program does not know a version of one."""
        if self._in_force is None or self._in_force[0] is not self.state:
            self._in_force = (self.state, self._rules.in_force(self.view(), self.height + 1))
        return self._in_force[1]

    def execute(self, height: int, time: int, envelopes: Sequence[bytes]) -> Executed:
        """Work a block out without adopting it. Raises VerificationError if it cannot follow the latest block.

        Unavailable if this program does not know the version of a contract that holds in it.
        """
        if height != self.height + 1:
            raise VerificationError("ledger.block_height", height=height, expected=self.height + 1)
        if time < self.time or len(envelopes) > MOST_ENVELOPES:
            raise VerificationError("ledger.bad_block", height=height)
        in_force = self.in_force()
        view = self.next_view()
        for entry, data in enumerate(envelopes):
            try:
                self.authenticate(data, view)
            except MedveilError as error:
                raise VerificationError("ledger.bad_entry", height=height, entry=entry, reason=error.code) from None
        context = Context(self.genesis, height, time)
        view.put(CLOCK_KEY, Clock(height, time))
        results: list[Result] = []
        refusals: list[Refused | None] = []
        quotas: dict[str, tuple[int, int]] = {}  # envelopes and bytes so far, by sender
        for entry, data in enumerate(envelopes):
            signed = open_envelope(data)  # again: a whole block's, opened, may take many times its length
            sender = signed.envelope.sender
            count, length = quotas.get(sender, (0, 0))
            quotas[sender] = count, length = count + 1, length + len(data)
            over = count > MOST_FROM_ONE or length > BYTES_FROM_ONE
            result, refusal = _run(signed.envelope, envelope_id(data), entry, context, view, in_force, over)
            view.settle()
            results.append(result)
            refusals.append(refusal)
        results_root = tree_root([leaf_hash(encode(result)) for result in results])
        state = view.tree()
        header = BlockHeader(height, time, state.root, results_root, len(results))
        log_root = self.log.root_with(encode(header))
        outcome = BlockOutcome(header, tuple(results), log_root, self.log.size + 1, tuple(refusals))
        return Executed(outcome, state)

    def adopt(self, executed: Executed) -> BlockOutcome:
        """Make a block that `execute` worked out the latest one."""
        if executed.outcome.size != self.log.size + 1:
            raise ValueError("the block was worked out on another head")
        self.state, self.header = executed.state, executed.outcome.header
        self.log.append(encode(self.header))
        return executed.outcome

    def apply_block(self, height: int, time: int, envelopes: Sequence[bytes]) -> BlockOutcome:
        """Run the next block. Raises VerificationError, and then nothing has changed."""
        return self.adopt(self.execute(height, time, envelopes))

    def mark(self) -> Mark:
        """Where the machine is now, to `rewind` to. Costs nothing: the state tree is immutable."""
        return Mark(self.state, self.header)

    def rewind(self, mark: Mark) -> None:
        """Go back to where the machine was: forget the blocks since."""
        self.state, self.header = mark.state, mark.header
        self.log.truncate(mark.header.height + 1)
        self._trust = self._trust.until(mark.header.height)

    def replay(self, block: Block) -> BlockOutcome:
        """Run a block that others made, and insist on its header. Raises VerificationError naming the height."""
        executed = self.execute(block.header.height, block.header.time, block.envelopes)
        if executed.outcome.header != block.header:
            raise VerificationError("ledger.block_differs", height=block.header.height)
        return self.adopt(executed)


def _run(
    envelope: Envelope, identity: bytes, entry: int, context: Context, view: StateView, in_force: InForce, over: bool
) -> tuple[Result, Refused | None]:
    """Let one authentic envelope take effect in `view`: wholly or not at all if atomic, otherwise op by op.

    over: whether the sender has used its quota of the block up.
    """
    at, ops = 0, list[OpResult]()
    refusal: Refused | None = None
    try:
        if over:
            raise Refused("ledger.quota", organisation=envelope.sender, envelopes=MOST_FROM_ONE, bytes=BYTES_FROM_ONE)
        check_usable(envelope, context.height, view)
    except Refused as error:
        refusal = _without_frames(error)
    else:
        view.put(account_key(envelope.sender), Account(envelope.nonce + 1))
        first = view.mark()
        for index, op in enumerate(envelope.ops):
            before = view.mark()
            try:
                ops.append(OpResult("", in_force[type(op)].apply(op, envelope.sender, context, view)))
            except Refused as error:
                if refusal is None:
                    at, refusal = index, _without_frames(error)
                if envelope.atomic:
                    view.undo(first)
                    ops = []
                    break
                view.undo(before)
                ops.append(OpResult(error.code, ()))
    result = Result(
        height=context.height,
        entry=entry,
        envelope=identity,
        sender=envelope.sender,
        nonce=envelope.nonce,
        code=refusal.code if refusal else "",
        op=at,
        ops=tuple(ops),
    )
    return result, refusal


def _without_frames(error: Refused) -> Refused:
    """A copy of `error` that does not hold old state alive."""
    return type(error)(error.code, **error.facts)


def check_usable(envelope: Envelope, height: int, view: StateView, nonce: int | None = None) -> None:
    """Check that an authentic envelope may take effect in block `height`. Raises Refused.

    nonce: the one it must have, if not the state's (several of one sender may wait together).
    """
    member = view.get(member_key(envelope.sender), MemberState)
    if member is None or member.suspended:
        raise Refused("ledger.suspended", organisation=envelope.sender)
    if nonce is None:
        account = view.get(account_key(envelope.sender), Account)
        nonce = account.nonce if account else 0
    if envelope.nonce != nonce:
        raise Refused("ledger.nonce", organisation=envelope.sender, nonce=envelope.nonce, expected=nonce)
    if envelope.expiry_height < height:
        raise Refused("ledger.expired", organisation=envelope.sender, expiry=envelope.expiry_height, height=height)
