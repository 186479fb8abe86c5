"""One organisation as it runs: its keys, its place on the ledger, its end of the channel, its files.

Private things live under ``folder`` (mode 700): the key provider's file, the vault (records, grant
terms, the organisation's own secret keys) and the audit trail. Secret keys are kept in the vault,
never in a file of their own.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

from ledger.contracts import Op
from ledger.receipts import Receipt
from medveil.channel import Channel
from medveil.gateway.ledger_account import LedgerAccount
from medveil.gateway.parcels import Address, pack, unpack
from privacy.audit import AuditTrail
from privacy.keys import FileKeyProvider
from privacy.vault import Vault
from wire.canonical import Wire, decode, encode
from wire.checkpoint import TrustFile
from wire.errors import DecodeError, ProtocolAbort, Refused, Unavailable, VerificationError
from wire.keyset import KeySet, Member, SealingKey, SignatureKey
from wire.sealing import OpenKey
from wire.signing import Signer

M = TypeVar("M", bound=Wire)

Rand = Callable[[int], bytes]
Clock = Callable[[], int]

TIMEOUT = 120.0
"""Seconds an organisation waits for another's message before it gives up."""


class Secrets(Wire, frozen=True, tag="medveil.secrets"):
    """The organisation's secret keys: 32 bytes each. salt: derives the salts of its commitments."""

    envelope: bytes
    cosign: bytes
    http: bytes
    tls: bytes
    seal: bytes
    salt: bytes

    def __repr__(self) -> str:
        return "Secrets()"


class Refusal(Wire, frozen=True, tag="medveil.refusal"):
    """What one gateway sends another instead of an answer: why not, in words."""

    code: str
    words: str


def refusal(organisation: str, error: BaseException) -> Refusal:
    """What another organisation is told of `error`: a rule's or a protocol's no in its own words.

    Of trouble at home (disk, damaged files, a fault of the program) it learns only that there is some.
    """
    if isinstance(error, (Refused, ProtocolAbort)):
        return Refusal(error.code, error.text())
    trouble = Unavailable("gateway.trouble", organisation=organisation)
    return Refusal(trouble.code, trouble.text())


class Organisation:
    """One member: what it owns and what it can do. Make it with `create`.

    patience: seconds it waits for another's message. scoring: held while records are being scored, so
    that the book of what was scored is read and written by one evaluation at a time.
    """

    def __init__(
        self,
        name: str,
        roles: tuple[str, ...],
        folder: Path,
        secrets: Secrets,
        vault: Vault,
        audit: AuditTrail,
        rand: Rand,
    ) -> None:
        self.name = name
        self.roles = roles
        self.folder = folder
        self.rand = rand
        self.patience = TIMEOUT
        self.scoring = asyncio.Lock()
        self.vault = vault
        self.audit = audit
        self.salt_key = secrets.salt
        self.signer = Signer(secrets.envelope)
        self.cosigner = Signer(secrets.cosign)
        self.open_key = OpenKey(1, secrets.seal)
        self._http = Signer(secrets.http)
        self._tls = Signer(secrets.tls)
        self.tls_seed = secrets.tls  # secret: signs its certificates
        self._sent: dict[tuple[str, bytes], int] = defaultdict(int)
        self._channel: Channel | None = None
        self._account: LedgerAccount | None = None

    @classmethod
    def create(
        cls, name: str, roles: tuple[str, ...], folder: Path, passphrase: str, rand: Rand, clock: Clock
    ) -> Organisation:
        """A new organisation with fresh keys in `folder`, which must not exist. rand: fresh secret bytes."""
        folder.mkdir(mode=0o700, parents=True)
        provider = FileKeyProvider.create(folder / "keys", passphrase, rand=rand)
        vault = Vault.create(folder / "vault", provider, name, rand=rand)
        secrets = Secrets(*(rand(32) for _ in Secrets.__struct_fields__))
        vault.put_document("secrets", "keys", encode(secrets))
        audit = AuditTrail(folder / "audit.sqlite", name, rand=rand, clock=clock)
        return cls(name, roles, folder, secrets, vault, audit, rand)

    @classmethod
    def open(
        cls, name: str, roles: tuple[str, ...], folder: Path, passphrase: str, rand: Rand, clock: Clock
    ) -> Organisation:
        """The organisation that `create` made in `folder`.

        Raises what its parts raise: Unavailable (in use, disk), DecodeError (damaged), VerificationError (another
        passphrase, another organisation's vault).
        """
        provider = FileKeyProvider(folder / "keys", passphrase)
        vault = Vault.open(folder / "vault", provider, name, rand=rand)
        try:
            secrets = decode(Secrets, vault.document("secrets", "keys"))
            audit = AuditTrail(folder / "audit.sqlite", name, rand=rand, clock=clock)
        except BaseException:
            vault.close()
            raise
        return cls(name, roles, folder, secrets, vault, audit, rand)

    @property
    def signers(self) -> tuple[Signer, Signer, Signer, Signer]:
        """The signers of its envelope, cosign, http and tls keys."""
        return self.signer, self.cosigner, self._http, self._tls

    def member(self, re_executes: bool) -> Member:
        """What genesis says of this organisation."""

        def signature_key(signer: Signer) -> SignatureKey:
            return SignatureKey(signer.key, 0)

        return Member(
            self.name,
            self.roles,
            KeySet(
                signature_key(self.signer),
                signature_key(self.cosigner),
                signature_key(self._http),
                signature_key(self._tls),
                SealingKey(self.open_key.key, 0),
            ),
            re_executes,
        )

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

    async def send(self, recipient: str, session: bytes, message: Wire) -> None:
        """Send a message (secret): signed by this organisation, sealed to the recipient."""
        if self._channel is None:
            raise ValueError(f"{self.name} has no channel yet")
        sequence = self._sent[recipient, session]
        self._sent[recipient, session] += 1
        address = Address(self.name, recipient, session, sequence)
        key = self.trust.member(recipient).keys.seal.key
        await self._channel.send(recipient, session, sequence, pack(address, encode(message), self.signer, key))

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

        senders: whose message is awaited; those of others are dropped unread, so that nobody else can
        spoil the session. Empty: anybody's. timeout: seconds, `patience` by default. Raises ProtocolAbort
        naming the sender if the message is not one of `kind`, properly signed and sealed; Unavailable
        after the time is up.
        """
        if self._channel is None:
            raise ValueError(f"{self.name} has no channel yet")
        clock = asyncio.get_running_loop().time
        end = clock() + (self.patience if timeout is None else timeout)
        while True:
            delivery = await self._channel.receive(session, max(end - clock(), 0.0))
            if not senders or delivery.sender in senders:
                break
        try:
            member = self.trust.member(delivery.sender)
            address = Address(delivery.sender, self.name, session, delivery.sequence)
            body = unpack(delivery.payload, address, self.open_key, member.keys.envelope.key)
            return delivery.sender, decode(kind, body)
        except (DecodeError, VerificationError):
            raise ProtocolAbort("channel.bad_message", round="receive", parties=(delivery.sender,)) from None

    def close(self) -> None:
        """Close the files."""
        self.audit.close()
        self.vault.close()

    def __repr__(self) -> str:
        return f"Organisation({self.name!r})"
