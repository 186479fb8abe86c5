"""Wallets: where insured persons keep their bills, and the wallets that a hospital's gateway hosts for its persons.

A wallet is a small vault of its own, under the person's passphrase. A gateway that hosts it keeps that passphrase in
its own vault, beside who holds which bill; a person who hosts the wallet elsewhere gives it to nobody. Folder and vault
of a hosted wallet bear a random name: no file, and no file's name, says whose it is.

Passphrases and notes of bills are documents of the person, under data keys of their own: an erasure plans, restricts
and destroys them with the person's records.

    document.wallet   passphrase of a wallet     no duty to keep it: destroyed at once, and the folder is noise
    document.bill     who holds which bill       an accounting voucher, by which the hospital's accounts find whose bill
                                                 a handle on the ledger is: restricted while that duty runs

A wallet whose passphrase is restricted or gone proves nothing from that moment on, also where it was open. Whoever is
billed after an erasure gets another wallet: a visit of later is not what was asked to be erased.
"""

from __future__ import annotations

import errno
import io
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Annotated

import msgspec

from medveil.gateway.organisation import Clock, Organisation, Rand
from privacy.keys import FileKeyProvider
from privacy.retention import ZONE, retain_until
from privacy.vault import Vault
from wire.canonical import Wire, decode, encode
from wire.dates import day_at
from wire.domains import BILL
from wire.durable import put_in_place
from wire.errors import Refused, Unavailable
from wire.signing import Signature, VerifyKey, verify
from zkp import bill_limit
from zkp.bill_limit import Bill, BillOpening, LimitRequest, Presentation

MOST_OPEN = 16
"""Wallets that are kept open when nobody uses them: each holds four files."""

LONGEST_PERSON = 200
"""Characters of an identifier."""
_PASSPHRASE, _HELD_BY = "wallet", "bill"
DATASETS = (f"document.{_PASSPHRASE}", f"document.{_HELD_BY}")
"""What an erasure calls a person's wallet, and the notes of the person's bills."""
RECORD_TYPE = "accounting-voucher"
"""As what a bill is kept: `privacy.retention`."""
_FOLDER, _BEGUN = "wallet-", ".wallet-"


def _now() -> int:
    return time.time_ns() // 1_000_000


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

    person: Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_PERSON)]
    bill: Bill

    def __repr__(self) -> str:
        return f"HeldBill({self.bill.handle.hex()})"


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
    """The wallets that an organisation hosts, each in a folder of ``wallets`` below its own. Threads may share it.

    clock: instants; a bill must be kept from its day on.
    """

    def __init__(self, organisation: Organisation, clock: Clock = _now) -> None:
        self._organisation = organisation
        self._folder = organisation.folder / "wallets"
        self._clock = clock
        self._open: dict[str, Wallet] = {}  # the one that was used last comes last
        self._users: Counter[str] = Counter()
        self._guard = Lock()

    def of(self, person: str) -> Wallet:
        """The wallet of a person, opened; made where there is none.

        person: the identifier (private) as the hospital's tables have it, in any spelling, so that an erasure finds the
        wallet. It is open until `MOST_OPEN` others were used: `opened` keeps it for longer. Opening one stretches its
        passphrase: tenths of a second, best in a thread. Raises Refused for what names nobody, Unavailable (disk, in
        use).
        """
        with self.opened(person) as wallet:
            return wallet

    @contextmanager
    def opened(self, person: str, bill: bytes = b"") -> Iterator[Wallet]:
        """The wallet of a person for as long as it is used: see `of`.

        bill: the handle of a bill that it is opened for. Then none is made: Refused where none may be used.
        """
        _check(person)
        with self._guard:
            name = self._name(person, bill)
            wallet = self._open.pop(name, None) or self._opened(name)
            self._open[name] = wallet
            self._users[name] += 1
        try:
            yield wallet
        finally:
            with self._guard:
                self._users[name] -= 1
                if self._open.get(name) is not wallet and not self._users[name]:  # an erasure took it away meanwhile
                    wallet.close()
                idle = [one for one in self._open if not self._users[one]]
                for one in idle[: max(len(self._open) - MOST_OPEN, 0)]:
                    self._open.pop(one).close()
                self._users = +self._users

    def keep(self, person: str, slip: BillSlip, hospital_key: VerifyKey) -> None:
        """Take a bill into a person's wallet. Raises as `of` and `Wallet.keep`."""
        with self.opened(person) as wallet:
            wallet.keep(slip, hospital_key)

    def prove(self, person: str, request: LimitRequest) -> Presentation:
        """Let a person's wallet answer a request. Raises as `opened` and `Wallet.prove`."""
        with self.opened(person, request.handle) as wallet:
            return wallet.prove(request, self._organisation.rand)

    def note(self, held: HeldBill) -> None:
        """Remember in whose wallet a bill is. Again it changes nothing; what is restricted stays as it is."""
        vault, name, content = self._organisation.vault, held.bill.handle.hex(), encode(held)
        usable = vault.streams_there(_HELD_BY, [name]).get(name)
        if usable is False or (usable and self._content(_HELD_BY, name) == content):
            return
        until = retain_until(RECORD_TYPE, None, day_at(self._clock(), ZONE))
        vault.put_stream(_HELD_BY, name, io.BytesIO(content), person=held.person, retain_until=until)

    def bill(self, handle: bytes) -> HeldBill:
        """A bill that was noted. Raises Refused: there is none, or it is restricted."""
        try:
            return decode(HeldBill, self._content(_HELD_BY, handle.hex()))
        except Refused as error:
            gone = error.code == "privacy.no_document"
            raise Refused("gateway.no_such_bill" if gone else "gateway.bill_closed", handle=handle.hex()) from None

    def bills(self) -> tuple[HeldBill, ...]:
        """The bills that were noted and may be used, by handle."""
        vault = self._organisation.vault
        names = vault.streams(_HELD_BY)
        usable = vault.streams_there(_HELD_BY, names)
        return tuple(decode(HeldBill, self._content(_HELD_BY, name)) for name in names if usable.get(name))

    def sweep(self) -> None:
        """Close what is open of wallets that may not be used any more, and remove the folders of those that nobody can
        open again: their passphrase was erased, or was never kept. Raises Unavailable (disk).
        """
        with self._guard:
            usable = self._organisation.vault.streams_there(_PASSPHRASE, tuple(self._open))
            for name in [name for name in self._open if not usable.get(name)]:
                wallet = self._open.pop(name)
                if not self._users[name]:  # else whoever uses it closes it
                    wallet.close()
            for path in self._lost():
                try:
                    shutil.rmtree(path)
                except OSError:
                    raise Unavailable("home.unwritable", folder=str(path)) from None

    def lost(self) -> tuple[Path, ...]:
        """Folders of wallets that nobody can open again, and that are there all the same."""
        with self._guard:
            return tuple(self._lost())

    def adopt(self, person: str, passphrase: str) -> None:
        """Take over a wallet of an earlier version, whose folder bears the keyed id of the person's spelling (`Vault.
        spelling_id`) or, before that, the name itself. Bills of a second spelling come into the wallet of the first."""
        vault, rand = self._organisation.vault, self._organisation.rand
        name = _FOLDER + vault.spelling_id(person).hex()
        folder, begun, older = self._folder / name, self._folder / f".{name}", self._folder / person
        with self._guard:
            if older.name == person and older.parent == self._folder and person != ".." and _is_there(older):
                if not folder.exists():
                    shutil.rmtree(begun, ignore_errors=True)
                    wallet = Wallet.create(begun, name, passphrase, rand)
                    wallet.take(older, person, passphrase, rand)
                    wallet.close()
                    put_in_place(begun, folder)
                shutil.rmtree(older)
            found = vault.streams_of(_PASSPHRASE, person)
            if not found and not vault.streams_there(_PASSPHRASE, [name]):
                vault.put_stream(_PASSPHRASE, name, io.BytesIO(passphrase.encode("ascii")), person=person)
            elif found and found[0].name != name and folder.exists():
                wallet = self._opened(found[0].name)
                try:
                    wallet.take(folder, name, passphrase, rand)
                finally:
                    wallet.close()
                gone = folder.with_name(_BEGUN + rand(16).hex())  # one that was removed by half could not be taken
                folder.rename(gone)
                shutil.rmtree(gone)

    def close(self) -> None:
        """Close the wallets that were opened."""
        with self._guard:
            for wallet in self._open.values():
                wallet.close()
            self._open.clear()

    # ---- inside

    def _name(self, person: str, bill: bytes) -> str:
        """The name of the one wallet of a person that may be used.

        The passphrase of a new one is kept before its folder is there: `sweep` never meets one that is being made.
        """
        vault, rand = self._organisation.vault, self._organisation.rand
        found = vault.streams_of(_PASSPHRASE, person)
        if found:
            return found[0].name
        if bill:
            raise Refused("gateway.bill_closed", handle=bill.hex())
        name = _FOLDER + rand(16).hex()
        vault.put_stream(_PASSPHRASE, name, io.BytesIO(rand(16).hex().encode("ascii")), person=person)
        return name

    def _opened(self, name: str) -> Wallet:
        rand = self._organisation.rand
        folder, begun = self._folder / name, self._folder / f".{name}"
        passphrase = self._content(_PASSPHRASE, name).decode("ascii")
        if not folder.exists():
            shutil.rmtree(begun, ignore_errors=True)  # of a process that was killed while it made one
            Wallet.create(begun, name, passphrase, rand).close()
            put_in_place(begun, folder)
        return Wallet.open(folder, name, passphrase, rand)

    def _content(self, kind: str, name: str) -> bytes:
        with self._organisation.vault.open_stream(kind, name) as stream:
            return stream.read()

    def _lost(self) -> Iterator[Path]:
        if not self._folder.is_dir() or self._organisation.vault.documents(_PASSPHRASE):  # not taken over yet
            return
        found = [path for path in self._folder.iterdir() if path.name.startswith((_FOLDER, _BEGUN))]
        there = self._organisation.vault.streams_there(_PASSPHRASE, [path.name.removeprefix(".") for path in found])
        yield from (path for path in sorted(found) if path.name.removeprefix(".") not in there)


def _is_there(folder: Path) -> bool:
    """Whether there is a folder of that name, which may be none: too long a name is no folder's."""
    try:
        return folder.exists()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise Unavailable("home.unwritable", folder=str(folder.parent)) from None  # its own name says whose it is


def _check(person: str) -> None:
    """Raises Refused for what is no identifier of a person."""
    try:
        person.encode()
    except UnicodeEncodeError:  # bytes of a terminal that are no text
        person = ""
    if not 0 < len(person.strip()) <= len(person) <= LONGEST_PERSON:
        raise Refused("gateway.bad_person", most=LONGEST_PERSON)


def take_over(organisation: Organisation, clock: Clock = _now) -> None:
    """Make documents of the persons out of what earlier versions kept of bills and wallets, before either is used.

    A bill counts as of today: its duty ends later than it would have, never sooner. Raises what the vault raises.
    """
    vault = organisation.vault
    earlier = vault.documents(_HELD_BY), vault.documents(_PASSPHRASE)
    if not any(earlier):
        return
    wallets = Wallets(organisation, clock)
    for name in earlier[0]:
        wallets.note(decode(HeldBill, vault.document(_HELD_BY, name)))
        vault.remove_document(_HELD_BY, name)
    for person in earlier[1]:
        wallets.adopt(person, vault.document(_PASSPHRASE, person).decode("ascii"))
        vault.remove_document(_PASSPHRASE, person)
