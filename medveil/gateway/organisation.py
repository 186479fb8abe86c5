"""One organisation as it runs: its keys, its place on the ledger, its end of the channel, its files.

Private things live under ``folder`` (mode 700): the key provider's file, the vault (records, grant
terms, the organisation's own secret keys) and the audit trail. Secret keys are kept in the vault,
never in a file of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
from pyarrow.fs import FileSystem

from ledger.contracts import Op
from ledger.receipts import Receipt
from medveil.channel import Channel, Delivery
from medveil.gateway.extract_shares import ExtractShares
from medveil.gateway.ledger_account import FinalState, LedgerAccount
from medveil.gateway.near_sites import NearSites
from medveil.gateway.own_keys import Generation, OwnKeys
from medveil.gateway.parcels import Address, pack, unpack
from medveil.gateway.problems import public_facts
from medveil.gateway.steps import FlowCancelled
from privacy.audit import AuditTrail
from privacy.keys import FileKeyProvider, Guarded
from privacy.vault import Vault
from privacy.vault.backup import take_away
from wire import messages
from wire.canonical import Wire, decode, encode
from wire.checkpoint import TrustFile
from wire.checkpoint.membership import Membership
from wire.errors import (
    MOST_CHARACTERS,
    DecodeError,
    Fact,
    MedveilError,
    ProtocolAbort,
    Refused,
    Unavailable,
    VerificationError,
)
from wire.keyset import Member
from wire.signing import Keyring, Signer, VerifyKey

M = TypeVar("M", bound=Wire)

Rand = Callable[[int], bytes]
Clock = Callable[[], int]

TIMEOUT = 120.0
"""Seconds an organisation waits for another's message before it gives up."""
LAST_TIMEOUT = 3600.0
"""Seconds it waits where giving up would waste what was paid for."""
_UNKNOWN = "channel.other_key"
"""What a message under a key that its sender is not known to have is refused with."""
_NEWS = 5.0
"""Seconds that a message under unknown keys waits for the ledger to say whose they are, and until it may again."""
_NEWS_OF_OPENINGS = 2.5
"""Seconds that the first message of a session waits so: those of all others come after it."""
MOST_UNHEARD = 1000
"""First messages of one sender that are put off until it is known whose their key is."""
UNWRAPS, UNWRAPS_AT_ONCE = 10_000, 50_000
"""Data keys a second, and at once, that are unwrapped without a declared job, unless gateway.toml says otherwise."""
MOST_PERCENT = 100
"""Of a population's budget: no recipient has a share of its own."""
MOST_LIMITS = 3
"""Different limits of one bill about which an organisation is answered: an eighth of what it could be, at best."""


_LONGEST_NAME = 64
_MOST_FACTS = 32
FactName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]*\Z", max_length=_LONGEST_NAME)]
FactText = Annotated[str, msgspec.Meta(max_length=MOST_CHARACTERS)]
ToldFacts = Annotated[tuple[tuple[FactName, FactText], ...], msgspec.Meta(max_length=_MOST_FACTS)]
"""What a sentence names, for a reader who has it in another language."""


class Refusal(Wire, frozen=True, tag="medveil.refusal"):
    """What one gateway sends another instead of an answer: why not.

    code, facts: by which the reader's own gateway words it; words: the sentence in English, for a code unknown there.
    """

    code: str
    words: str
    facts: ToldFacts = ()

    def told(self) -> dict[str, str]:
        """Facts of the error that repeats it to this organisation's own people: see `messages.told`."""
        return messages.told(self.code, self.words, dict(self.facts))


def _guarded(provider: FileKeyProvider) -> Guarded:
    return Guarded(provider, rate=UNWRAPS, burst=UNWRAPS_AT_ONCE)


class Opening(NamedTuple):
    """The first message of a session, from whom it is."""

    sender: str
    session: bytes
    message: Wire


class _Unheard(NamedTuple):
    """Sessions whose first message is under none of the keys that its sender had when it was read."""

    keys: tuple[VerifyKey, ...]
    sessions: list[bytes]


def refusal(organisation: str, error: BaseException) -> Refusal:
    """What another organisation is told of `error`: a rule's or a protocol's no in its own words.

    Of trouble at home (disk, damaged files, a fault of the program) it learns only that there is some.
    """
    if isinstance(error, FlowCancelled):
        error = ProtocolAbort("gateway.cancelled", round="run", parties=(organisation,))
    if not isinstance(error, (Refused, ProtocolAbort)):
        error = Unavailable("gateway.trouble", organisation=organisation)
    return said(error)


def said(error: MedveilError) -> Refusal:
    """An error as another organisation is told of it."""
    facts = public_facts(error)
    return Refusal(error.code, messages.text(error.code, facts), told_facts(facts))


def told_facts(facts: Mapping[str, Fact]) -> ToldFacts:
    """Facts as they are sent; those of what was retold too often are left out, and then the words are shown."""
    fitting = ((name, str(fact)[:MOST_CHARACTERS]) for name, fact in facts.items() if len(name) <= _LONGEST_NAME)
    return tuple(fitting)[:_MOST_FACTS]


class Organisation:
    """One member: what it owns and what it can do. Make it with `create`.

    guard: its key provider, behind the limit on unwraps; `alert` of it is told what happens there.
    patience: seconds it waits for another's message; last_patience: the same where giving up would waste what was
    paid for. most_limits: different limits of one bill about which it answers one organisation. extract_shares: what
    extracts of others may take of its disk. scoring: held while records are being scored, so that the book of what was
    scored is read and written by one evaluation at a time; anchoring: while a batch of its audit trail is on its way to
    the ledger; exporting: while the whole ledger is in memory.
    """

    def __init__(
        self,
        name: str,
        roles: tuple[str, ...],
        folder: Path,
        keys: OwnKeys,
        vault: Vault,
        audit: AuditTrail,
        rand: Rand,
        guard: Guarded,
    ) -> None:
        self.name = name
        self.roles = roles
        self.folder = folder
        self.rand = rand
        self.patience = TIMEOUT
        self.last_patience = LAST_TIMEOUT
        self.most_limits = MOST_LIMITS
        self.near = NearSites()
        self.recipient_percent = MOST_PERCENT
        self.extract_shares = ExtractShares()
        self.scoring = asyncio.Lock()
        self.anchoring = asyncio.Lock()
        self.exporting = asyncio.Lock()
        self._asked_whose: dict[str, float] = {}  # by sender: when the ledger was last asked whose its key is, in vain
        self._unheard: dict[str, _Unheard] = {}  # by sender
        self._again: asyncio.TimerHandle | None = None
        self.vault = vault
        self.guard = guard
        self.audit = audit
        self.keys = keys
        self._sent: dict[bytes, Counter[str]] = defaultdict(Counter)  # by session: how many to whom
        self._channel: Channel | None = None
        self._account: LedgerAccount | None = None

    @classmethod
    def create(
        cls,
        name: str,
        roles: tuple[str, ...],
        folder: Path,
        passphrase: str | Guarded,
        rand: Rand,
        clock: Clock,
        *,
        database: str = "",
        blobs: FileSystem | None = None,
    ) -> Organisation:
        """A new organisation with fresh keys in `folder`, which must not exist. rand: fresh secret bytes.

        passphrase: of a new key file in `folder`, or who keeps its epochs' keys (closed with the organisation).
        database (secret), blobs: where the vault lies, as in `Vault.create`.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=isinstance(passphrase, Guarded))
        if isinstance(passphrase, str):
            guard = _guarded(FileKeyProvider.create(folder / "keys", passphrase, rand=rand))
        else:
            guard = passphrase
        vault = Vault.create(folder / "vault", guard, name, rand=rand, database=database, blobs=blobs)
        try:
            keys = OwnKeys.create(vault, rand)
            audit = AuditTrail(folder / "audit.sqlite", name, rand=rand, clock=clock)
        except BaseException:
            vault.close()
            take_away(database, blobs)
            raise
        return cls(name, roles, folder, keys, vault, audit, rand, guard)

    @classmethod
    def open(
        cls,
        name: str,
        roles: tuple[str, ...],
        folder: Path,
        passphrase: str | Guarded,
        rand: Rand,
        clock: Clock,
        *,
        database: str = "",
        blobs: FileSystem | None = None,
    ) -> Organisation:
        """The organisation that `create` made in `folder`. passphrase, database, blobs: as there.

        Raises what its parts raise: Unavailable (in use, disk), DecodeError (damaged), VerificationError (another
        passphrase, another organisation's vault).
        """
        if isinstance(passphrase, str):
            guard = _guarded(FileKeyProvider(folder / "keys", passphrase, rand=rand))
        else:
            guard = passphrase
        vault = Vault.open(folder / "vault", guard, name, rand=rand, database=database, blobs=blobs)
        try:
            keys = OwnKeys.open(vault, rand)
            audit = AuditTrail(folder / "audit.sqlite", name, rand=rand, clock=clock)
        except BaseException:
            vault.close()
            raise
        return cls(name, roles, folder, keys, vault, audit, rand, guard)

    @property
    def salt_key(self) -> bytes:
        """What the salts of its commitments are derived from (secret)."""
        return self.keys.salt

    @property
    def signer(self) -> Signer:
        """The signer of its present envelope key; of its first one until it is a member."""
        return self._present().envelope

    def signer_at(self, height: int) -> Signer:
        """The signer of its envelope key in block `height`. Raises VerificationError where it was no member."""
        return self.keys.of(self.trust.at(height).member(self.name).keys.envelope.key).envelope

    @property
    def cosigner(self) -> Keyring:
        """The signers of its cosign keys, for the replica and the engine, which know which of them is due."""
        return self.keys.cosigners

    def tls_seed(self, members: Membership) -> bytes:
        """The secret (32 bytes) of its tls key among `members`, which signs its certificates.

        Of the first one where it is no member. Raises Refused where the key is not its own.
        """
        member = members.find(self.name)
        return self.keys.first.tls_seed if member is None else self.keys.tls_seed(member.keys.tls.key)

    def _present(self) -> Generation:
        member = None if self._account is None else self._account.trust.latest.find(self.name)
        return self.keys.first if member is None else self.keys.of(member.keys.envelope.key)

    def member(self, re_executes: bool) -> Member:
        """What genesis, or an application, says of this organisation."""
        return Member(self.name, self.roles, self.keys.first.key_set(), re_executes)

    def connect(self, channel: Channel, account: LedgerAccount) -> None:
        """Join: a channel to the others, an account on the ledger."""
        self._channel, self._account = channel, account

    @property
    def account(self) -> LedgerAccount:
        """This organisation's account on the ledger; only after `connect`."""
        if self._account is None:
            raise ValueError(f"{self.name} has not joined a ledger yet")
        return self._account

    @property
    def trust(self) -> TrustFile:
        """The trust file this organisation pinned, with the members as they are now; only after `connect`."""
        return self.account.trust

    async def submit(self, *ops: Op) -> Receipt:
        """One signed envelope of `ops`; returns its receipt once it is final. Raises Refused."""
        return await self.account.submit(*ops)

    async def ensure(self, stands: Callable[[FinalState], bool], *ops: Op) -> None:
        """Write `ops` unless they stand on the ledger: for a flow that may have written them before it was cut short.

        stands: whether final state shows their effect. Raises as `submit`.
        """
        if stands(await self.account.with_own()):
            return
        try:
            await self.submit(*ops)
        except Refused:  # where it stands it was another's, or an envelope of before it was cut short got there
            if not stands(await self.account.caught_up()):
                raise

    async def send(self, recipient: str, session: bytes, message: Wire) -> None:
        """Send a message (secret): signed by this organisation, sealed to the recipient."""
        channel, sent = self._end(), self._sent[session]
        sequence = sent[recipient]
        address = Address(self.name, recipient, session, sequence)
        key = self.trust.member(recipient).keys.seal.key
        parcel = pack(address, encode(message), self.signer, key)
        sent[recipient] += 1
        try:
            await channel.send(recipient, session, sequence, parcel)
        except MedveilError:
            if sent[recipient] == sequence + 1:  # the place is free: else whoever receives would wait for it
                sent[recipient] = sequence
            raise

    async def receive_answer(
        self, kind: type[M], session: bytes, senders: Collection[str] = ()
    ) -> tuple[str, M | Refusal]:
        """Like `receive`, where the other may also send a `Refusal`."""
        either: Any = kind | Refusal
        sender, reply = await self.receive(either, session, senders)
        return sender, reply

    async def receive(
        self, kind: type[M], session: bytes, senders: Collection[str] = (), timeout: float | None = None
    ) -> tuple[str, M]:
        """The next message of `session` and who sent it.

        senders: whose message is awaited; those of others are left alone, so that nobody else can
        spoil the session. Empty: anybody's. timeout: seconds, `patience` by default. Raises ProtocolAbort
        naming the sender if the message is not one of `kind`, properly signed and sealed; Unavailable
        after the time is up.
        """
        delivery = await self._end().receive(session, self.patience if timeout is None else timeout, senders)
        return delivery.sender, await self._opened(kind, session, delivery)

    async def _opened(self, kind: type[M], session: bytes, delivery: Delivery) -> M:
        """The message. Raises ProtocolAbort."""
        try:
            return await self._known(kind, session, delivery, _NEWS)
        except (DecodeError, VerificationError):
            raise ProtocolAbort("channel.bad_message", round="receive", parties=(delivery.sender,)) from None

    async def _known(self, kind: type[M], session: bytes, delivery: Delivery, news: float) -> M:
        """The message, once more after `news` seconds at most if its key is unknown: who changed its keys knows of it
        before the others do. Raises DecodeError, VerificationError."""
        sender = delivery.sender
        try:
            return self._read(kind, session, delivery)
        except VerificationError as error:
            if error.code != _UNKNOWN or not await self._heard_of_keys(sender, news):
                raise
        message = self._read(kind, session, delivery)
        self._asked_whose.pop(sender, None)
        return message

    async def _heard_of_keys(self, sender: str, news: float) -> bool:
        """Whether the ledger was asked whose a key is: not again soon for a sender for whom that was in vain, so that
        nobody makes the others' messages wait for it. What is wrong with the ledger is not the message's fault."""
        now = asyncio.get_running_loop().time()
        if now < self._asked_whose.get(sender, now - _NEWS) + _NEWS:
            return False
        self._asked_whose[sender] = now
        with contextlib.suppress(MedveilError, TimeoutError):
            async with asyncio.timeout(news):
                await self.account.caught_up()
        return True

    def _read(self, kind: type[M], session: bytes, delivery: Delivery) -> M:
        address = Address(delivery.sender, self.name, session, delivery.sequence)
        body = unpack(delivery.payload, address, self.keys.unseal, self.envelope_keys(delivery.sender))
        return decode(kind, body)

    def envelope_keys(self, member: str) -> tuple[VerifyKey, ...]:
        """A member's present envelope key and those before: what was sent under one may be read after it changed.

        Who sends is checked by the channel besides, under present keys.
        """
        self.trust.member(member)
        found = (epoch.find(member) for epoch in reversed(self.trust.epochs))
        return tuple(dict.fromkeys(one.keys.envelope.key for one in found if one is not None))

    def _end(self) -> Channel:
        if self._channel is None:
            raise ValueError(f"{self.name} has no channel yet")
        return self._channel

    async def openings(self, kinds: Any) -> AsyncIterator[Opening]:
        """The first message of each session that another organisation begins, before a flow takes it; for ever.

        kinds: a union of structs. What is none of them, or does not hold, is passed over: a flow that waits in that
        session complains of it. An opening may come more than once. One under a key that nobody knows yet, and of which
        the ledger does not soon say whose it is, is put off until its sender's keys are others.
        """
        async for session, delivery in self._end().openings():
            try:
                message = await self._known(kinds, session, delivery, _NEWS_OF_OPENINGS)
            except VerificationError as error:
                if error.code == _UNKNOWN:
                    self._put_off(delivery.sender, session)
                continue
            except DecodeError:
                continue
            yield Opening(delivery.sender, session, message)

    def _put_off(self, sender: str, session: bytes) -> None:
        """Keep in mind which opening it is, unless there are too many of its sender: they come again when the gateway
        starts anew."""
        unheard = self._unheard.setdefault(sender, _Unheard(self.envelope_keys(sender), []))
        if len(unheard.sessions) < MOST_UNHEARD:
            unheard.sessions.append(session)
        if self._again is None:
            self._again = asyncio.get_running_loop().call_later(_NEWS, self._hear_again)

    def _hear_again(self) -> None:
        """Have come again what was put off of those whose keys are others by now."""
        for sender, unheard in tuple(self._unheard.items()):
            try:
                changed = self.envelope_keys(sender) != unheard.keys
            except VerificationError:  # it has left
                changed = True
            if changed:
                del self._unheard[sender]
                for session in unheard.sessions:
                    self._end().open_again(session, sender)
        self._again = asyncio.get_running_loop().call_later(_NEWS, self._hear_again) if self._unheard else None

    async def forget(self, session: bytes, *peers: str) -> None:
        """The session with `peers` is over: nothing of it is kept. Others may have one of that name, with this or
        another flow."""
        await self._end().forget(session, peers)
        self._over(session, peers)

    async def end(self, session: bytes, *peers: str) -> None:
        """Forget the session with `peers` for good: what they still send in it is taken off them and dropped.

        For a session that no flow begins again; else whoever began it again would wait in vain.
        """
        await self._end().end(session, peers)
        self._over(session, peers)

    def _over(self, session: bytes, peers: Collection[str]) -> None:
        for peer in peers:
            self._sent[session].pop(peer, None)
        if not self._sent[session]:
            del self._sent[session]

    def close(self) -> None:
        """Close the files, and let go of who keeps the keys."""
        if self._again is not None:
            self._again.cancel()
        self.audit.close()
        self.vault.close()
        self.guard.close()

    def __repr__(self) -> str:
        return f"Organisation({self.name!r})"
