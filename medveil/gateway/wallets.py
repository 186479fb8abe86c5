"""Wallets: where insured persons keep their bills, and the wallets that a hospital's gateway hosts for its persons.

A wallet is a small vault of its own, under the person's passphrase. A gateway that hosts it keeps that passphrase in
its own vault, beside who holds which bill; a person who hosts the wallet elsewhere gives it to nobody. Folder and vault
of a hosted wallet bear the person's keyed id: no file, and no file's name, says whose it is.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from medveil.gateway.organisation import Organisation, Rand
from privacy.keys import FileKeyProvider
from privacy.vault import Vault
from wire.canonical import Wire, decode, encode
from wire.domains import BILL
from wire.errors import Refused
from wire.identifiers import Name, check_name
from wire.signing import Signature, VerifyKey, verify
from zkp import bill_limit
from zkp.bill_limit import Bill, BillOpening, LimitRequest, Presentation

MOST_OPEN = 16
"""Wallets that are kept open when nobody uses them: each holds four files."""

_PASSPHRASE = "wallet"
_HELD_BY = "bill"


class BillSlip(Wire, frozen=True, tag="medveil.bill_slip"):
    """What the person gets from the hospital. Secret: it holds the opening."""

    bill: Bill
    opening: BillOpening
    hospital: str
    signature: Signature

    def __repr__(self) -> str:
        return f"BillSlip({self.bill.handle.hex()})"


class HeldBill(Wire, frozen=True, tag="medveil.held_bill"):
    """A bill that this organisation issued, and in whose wallet it is. Private."""

    person: Name
    bill: Bill


class Wallet:
    """An insured person's wallet: a small vault of its own. One process at a time."""

    def __init__(self, folder: Path, vault: Vault) -> None:
        self.folder = folder
        self._vault = vault

    @classmethod
    def create(cls, folder: Path, name: str, passphrase: str, rand: Rand) -> Wallet:
        """A new wallet in `folder`, which must not exist. name: stands there in the clear. passphrase: the person's."""
        folder.mkdir(mode=0o700, parents=True)
        provider = FileKeyProvider.create(folder / "keys", passphrase, rand=rand)
        return cls(folder, Vault.create(folder / "vault", provider, name, rand=rand))

    @classmethod
    def open(cls, folder: Path, name: str, passphrase: str, rand: Rand) -> Wallet:
        """The wallet that `create` made in `folder`. Raises as `FileKeyProvider` and `Vault.open`."""
        provider = FileKeyProvider(folder / "keys", passphrase)
        return cls(folder, Vault.open(folder / "vault", provider, name, rand=rand))

    def keep(self, slip: BillSlip, hospital_key: VerifyKey) -> None:
        """Take a bill in, after checking the hospital's signature and that the opening is the bill's."""
        verify(hospital_key, BILL, encode(slip.bill), slip.signature)
        bill_limit.check_bill(slip.bill, slip.opening)
        self._vault.put_document("bill", slip.bill.handle.hex(), encode(slip))

    def bills(self) -> tuple[bytes, ...]:
        """Handles of the bills in this wallet."""
        return tuple(bytes.fromhex(name) for name in self._vault.documents("bill"))

    def prove(self, request: LimitRequest, rand: Rand) -> Presentation:
        """Answer a request from this wallet. Raises Refused: no such bill, or its amount is over the limit."""
        if request.handle not in self.bills():
            raise Refused("gateway.no_such_bill", handle=request.handle.hex())
        slip = decode(BillSlip, self._vault.document("bill", request.handle.hex()))
        return bill_limit.prove(request, slip.bill, slip.opening, rand)

    def take(self, folder: Path, name: str, passphrase: str, rand: Rand) -> None:
        """Take over the bills of another wallet. Raises as `open`."""
        other = Wallet.open(folder, name, passphrase, rand)
        try:
            for handle in other.bills():
                self._vault.put_document("bill", handle.hex(), other._vault.document("bill", handle.hex()))
        finally:
            other.close()

    def close(self) -> None:
        """Close the files."""
        self._vault.close()


class Wallets:
    """The wallets that an organisation hosts, each in ``wallets/wallet-<keyed id>`` below its folder. Threads may share
    it."""

    def __init__(self, organisation: Organisation) -> None:
        self._organisation = organisation
        self._folder = organisation.folder / "wallets"
        self._open: dict[str, Wallet] = {}  # the one that was used last comes last
        self._users: Counter[str] = Counter()
        self._guard = Lock()

    def of(self, person: str) -> Wallet:
        """The wallet of a person, opened; made where there is none. person: a name, as the hospital knows it.

        It is open until `MOST_OPEN` others were used: `opened` keeps it for longer. Opening one stretches its
        passphrase: tenths of a second, best in a thread. Raises DecodeError for what is no name, Unavailable (disk, in
        use).
        """
        with self.opened(person) as wallet:
            return wallet

    @contextmanager
    def opened(self, person: str) -> Iterator[Wallet]:
        """The wallet of a person for as long as it is used: see `of`."""
        check_name(person, "person")
        with self._guard:
            wallet = self._open.pop(person, None) or self._opened(person)
            self._open[person] = wallet
            self._users[person] += 1
        try:
            yield wallet
        finally:
            with self._guard:
                self._users[person] -= 1
                idle = [one for one in self._open if not self._users[one]]
                for one in idle[: max(len(self._open) - MOST_OPEN, 0)]:
                    self._open.pop(one).close()
                    del self._users[one]

    def keep(self, person: str, slip: BillSlip, hospital_key: VerifyKey) -> None:
        """Take a bill into a person's wallet. Raises as `of` and `Wallet.keep`."""
        with self.opened(person) as wallet:
            wallet.keep(slip, hospital_key)

    def prove(self, person: str, request: LimitRequest) -> Presentation:
        """Let a person's wallet answer a request. Raises as `of` and `Wallet.prove`."""
        with self.opened(person) as wallet:
            return wallet.prove(request, self._organisation.rand)

    def note(self, held: HeldBill) -> None:
        """Remember in whose wallet a bill is."""
        self._organisation.vault.put_document(_HELD_BY, held.bill.handle.hex(), encode(held))

    def bill(self, handle: bytes) -> HeldBill:
        """A bill that was noted. Raises Refused where there is none."""
        try:
            return decode(HeldBill, self._organisation.vault.document(_HELD_BY, handle.hex()))
        except Refused:
            raise Refused("gateway.no_such_bill", handle=handle.hex()) from None

    def bills(self) -> tuple[HeldBill, ...]:
        """The bills that were noted, by handle."""
        vault = self._organisation.vault
        return tuple(decode(HeldBill, vault.document(_HELD_BY, name)) for name in vault.documents(_HELD_BY))

    def close(self) -> None:
        """Close the wallets that were opened."""
        with self._guard:
            for wallet in self._open.values():
                wallet.close()
            self._open.clear()

    def _opened(self, person: str) -> Wallet:
        vault, rand = self._organisation.vault, self._organisation.rand
        name = f"wallet-{vault.person_id(person).hex()}"
        folder, begun, older = self._folder / name, self._folder / f".{name}", self._folder / person
        if not folder.exists():
            shutil.rmtree(begun, ignore_errors=True)  # of a process that was killed while it made one
            passphrase = rand(16).hex()
            if older.exists():
                passphrase = vault.document(_PASSPHRASE, person).decode("ascii")
            wallet = Wallet.create(begun, name, passphrase, rand)
            if older.exists():
                wallet.take(older, person, passphrase, rand)
            wallet.close()
            vault.put_document(_PASSPHRASE, person, passphrase.encode("ascii"))
            begun.rename(folder)
        if older.exists():  # what an earlier version made, under the person's name
            shutil.rmtree(older)
        return Wallet.open(folder, name, vault.document(_PASSPHRASE, person).decode("ascii"), rand)
