"""The holder's wallet: a seed, credentials, accounts with the step each is in, and the openings of payments.

Everything that a wallet chooses follows from its 32-byte seed: what it asks credentials with (`randomness`), and
for each op the blindings of C_R and C_d, its share of the next serial and blind (`deriver`, from the claim's hash).
So a wallet that was lost, or fell behind, is brought up to date by walking the ledger: from an account's serial to
the op that spent it, to the account that this op made, to the next (`catch_up`). What the wallet remembers of a step
only keeps it from taking another one meanwhile; what happened, the ledger says.

    idle --prepare--> Prepared --submitted--> Submitted --final--> Final --updated--> idle, with the next account
                          |                       |
                          +------- abandoned -----+--> idle, with the same account (the op was refused or expired)

Each function returns the next wallet: save it *before* doing what it is for. A crash at any place then costs
nothing: the message of a `Prepared` step is sent again as it is, and the bureau answers a retry alike.

Secret whole. No I/O: files are `zkp.wallet_file`'s, messages the caller's. docs/protocols/settlement.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from wire.canonical import Wire
from wire.domains import WALLET, keyed
from wire.errors import Refused, VerificationError
from wire.identifiers import Handle, Hash, Name
from zkp import account, membership, pedersen, reversal, settlement
from zkp.attributes import Credential
from zkp.bbs_presentation import Issued
from zkp.blind_issuance import BlindSignature, Scalar32
from zkp.claim import Claim, claim_id
from zkp.credentials import ACCOUNT, ENCOUNTER
from zkp.groups import Backend, Rand, backend, decode_scalar, encode_scalar
from zkp.payments import EncodedPoint, PaymentOpening
from zkp.policy import Layer, Minor, Year
from zkp.reversal import Redeemed, Redemption, redemption_id
from zkp.settlement import Derive, Settlement

VERSION = 1

Op = Settlement | Redeemed


class _Secret:
    """The wallet's own structs do not show what they hold."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class Bill(_Secret, Wire, frozen=True, tag="zkp.wallet_bill"):
    """A bill of the holder: its encounter credential, and the blinding of C_total from the hospital."""

    encounter: Credential
    total_blinding: Scalar32


class Booking(_Secret, Wire, frozen=True, tag="zkp.booking"):
    """A payment of the holder's, opened. amount, deductible: C_R and C_d; the rest their values and blindings."""

    bill: Handle
    payer: Name
    layer: Layer
    year: Year
    amount: EncodedPoint
    deductible: EncodedPoint | None
    paid: Minor
    paid_blinding: Scalar32
    deducted: Minor
    deducted_blinding: Scalar32
    owner_blinding: Scalar32


class Prepared(_Secret, Wire, frozen=True, tag="zkp.step_prepared"):
    """Proved and kept; perhaps sent, perhaps not."""

    op: Op


class Submitted(_Secret, Wire, frozen=True, tag="zkp.step_submitted"):
    """The ledger has it under `op_id`; not final yet."""

    op: Op
    op_id: Hash


class Final(_Secret, Wire, frozen=True, tag="zkp.step_final"):
    """It is final; the bureau's answer is not there yet."""

    op: Op
    op_id: Hash


Step = Prepared | Submitted | Final


class Account(_Secret, Wire, frozen=True, tag="zkp.wallet_account"):
    """An account as far as the wallet knows it. step: the op that spends `current`, if there is one."""

    current: Credential
    step: Step | None

    @property
    def place(self) -> tuple[str, int, int]:
        """Payer, layer, year."""
        own = self.current.named(ACCOUNT)
        payer, layer, year = own["payer"], own["layer"], own["year"]
        assert isinstance(payer, str) and isinstance(layer, int) and isinstance(year, int)
        return payer, layer, year


class Wallet(_Secret, Wire, frozen=True, tag="zkp.wallet"):
    """Everything. seed: 32 random bytes, from which all else is found again."""

    version: Annotated[int, msgspec.Meta(ge=VERSION, le=VERSION)]
    chain: Name
    seed: Hash
    person: Credential | None
    bills: tuple[Bill, ...]
    accounts: tuple[Account, ...]
    bookings: tuple[Booking, ...]


class Posted(Wire, frozen=True, tag="zkp.posted"):
    """What the ledger shows of a final op: public. answer: the bureau's, or None as long as it has not signed."""

    op: Op
    op_id: Hash
    answer: BlindSignature | None


Spent = Callable[[bytes], Posted | None]
"""Reads the ledger: the *final* op that spent a serial (32 bytes), or None."""


# ---------------------------------------------------------------------------------------- what the seed gives


def new(chain: str, rand: Rand) -> Wallet:
    """An empty wallet with a fresh seed."""
    return restored(chain, rand(32))


def restored(chain: str, seed: bytes) -> Wallet:
    """An empty wallet of a known seed: get the credentials anew (with `randomness`), then `catch_up`."""
    if len(seed) != 32:
        raise ValueError("a wallet's seed has 32 bytes")
    return Wallet(VERSION, chain, seed, None, (), (), ())


def randomness(wallet: Wallet, *what: str) -> Rand:
    """The `rand` to ask for a credential with, such as ("account", payer, layer, year): always the same bytes.

    So a restored wallet makes the same commitment, and the issuer, who signs one, gives the same answer. Proofs made
    with it stay safe: their nonces depend on the whole transcript (`Transcript.prover_randomness`).
    """
    key = keyed(wallet.seed, WALLET, b"ask", wallet.chain.encode(), *(part.encode() for part in what))
    drawn = 0

    def rand(length: int) -> bytes:
        nonlocal drawn
        drawn += 1
        return hashlib.shake_256(key + drawn.to_bytes(8, "big")).digest(length)

    return rand


def deriver(wallet: Wallet, statement: Claim | Redemption) -> Derive:
    """The secret bytes for the op about `statement`, by label. Another statement, were it different in a nonce only,
    gets others: two commitments under one blinding would give their difference away."""
    of = claim_id(statement) if isinstance(statement, Claim) else redemption_id(statement)

    def derive(label: str) -> bytes:
        halves = (keyed(wallet.seed, WALLET, b"op", of, label.encode(), bytes([half])) for half in (0, 1))
        return b"".join(halves)

    return derive


# ------------------------------------------------------------------------------------------ what it holds


def with_person(wallet: Wallet, person: Credential) -> Wallet:
    """With a (new) person credential."""
    return msgspec.structs.replace(wallet, person=person)


def with_bill(wallet: Wallet, encounter: Credential, total_blinding: int) -> Wallet:
    """With a bill; one of the same handle is replaced."""
    handle = encounter.get(ENCOUNTER, "bill")
    others = (one for one in wallet.bills if one.encounter.get(ENCOUNTER, "bill") != handle)
    return msgspec.structs.replace(wallet, bills=(*others, Bill(encounter, encode_scalar(total_blinding))))


def with_account(wallet: Wallet, first: Credential) -> Wallet:
    """With an account as the bureau opened it. Raises Refused if the wallet has one of its payer, layer and year."""
    fresh = Account(first, None)
    if any(one.place == fresh.place for one in wallet.accounts):
        payer, layer, year = fresh.place
        raise Refused("wallet.account_there", payer=payer, layer=layer, year=year)
    return msgspec.structs.replace(wallet, accounts=(*wallet.accounts, fresh))


def account_of(wallet: Wallet, payer: str, layer: int, year: int) -> Account:
    """The account of that place. Raises Refused if there is none."""
    for one in wallet.accounts:
        if one.place == (payer, layer, year):
            return one
    raise Refused("wallet.no_account", payer=payer, layer=layer, year=year)


def bill_of(wallet: Wallet, handle: bytes) -> Bill:
    """The bill of that handle. Raises Refused if there is none."""
    for one in wallet.bills:
        if one.encounter.get(ENCOUNTER, "bill") == handle:
            return one
    raise Refused("wallet.no_bill", handle=handle.hex())


def booking_of(wallet: Wallet, amount: bytes) -> Booking:
    """The opened payment whose C_R is `amount`. Raises Refused for one that the wallet did not make."""
    for one in wallet.bookings:
        if one.amount == amount:
            return one
    raise Refused("wallet.unknown_payment", amount=amount.hex())


def opening_for(booking: Booking) -> PaymentOpening:
    """What a commercial payer may know of a payment: seal it to that payer. Secret."""
    return PaymentOpening(booking.amount, booking.paid, booking.paid_blinding)


def _with(wallet: Wallet, changed: Account, *bookings: Booking) -> Wallet:
    accounts = tuple(changed if one.place == changed.place else one for one in wallet.accounts)
    known = {one.amount for one in wallet.bookings}
    fresh = (one for one in bookings if one.amount not in known)
    return msgspec.structs.replace(wallet, accounts=accounts, bookings=(*wallet.bookings, *fresh))


# ------------------------------------------------------------------------------------------------- steps


def _statement(op: Op) -> Claim | Redemption:
    return op.claim if isinstance(op, Settlement) else op.redemption


def _free(account_: Account, statement: Claim | Redemption) -> Op | None:
    """The op that was prepared for just this statement, or None if the account is idle. Raises Refused."""
    if account.spent_serial(account_.current) != statement.serial:
        raise Refused("wallet.behind")
    if account_.step is None:
        return None
    if isinstance(account_.step, Prepared) and _statement(account_.step.op) == statement:
        return account_.step.op
    raise Refused("wallet.step_open")


def prepare_settlement(
    wallet: Wallet,
    claim: Claim,
    active: membership.Row,
    diagnosis: membership.Row | None,
    rand: Rand,
    group: Backend | None = None,
) -> tuple[Wallet, Settlement]:
    """idle -> Prepared: prove `claim`. Asked again for the same claim, it gives the same message.

    active, diagnosis: rows of the sets that the claim names. Raises Refused: another step of the account is open, the
    account has moved on (`catch_up` first), something of the claim is not in the wallet or not true.
    """
    row = claim.row
    own = account_of(wallet, row.payer, row.layer, row.year)
    done = _free(own, claim)
    if isinstance(done, Settlement):
        return wallet, done
    if wallet.person is None:
        raise Refused("wallet.no_person")
    bill = bill_of(wallet, claim.bill)
    paid = [booking_of(wallet, amount) for amount in claim.standing]
    holdings = settlement.Holdings(
        wallet.person,
        bill.encounter,
        own.current,
        active,
        diagnosis,
        decode_scalar(bill.total_blinding),
        [(one.paid, decode_scalar(one.paid_blinding)) for one in paid],
    )
    message, _ = settlement.prove(claim, holdings, deriver(wallet, claim), rand, group)
    return _with(wallet, Account(own.current, Prepared(message))), message


def prepare_redemption(
    wallet: Wallet, redemption: Redemption, rand: Rand, group: Backend | None = None
) -> tuple[Wallet, Redeemed]:
    """idle -> Prepared: redeem the voucher of a reversed payment. As `prepare_settlement`."""
    payment = redemption.voucher.payment
    own = account_of(wallet, payment.payer, payment.layer, payment.year)
    done = _free(own, redemption)
    if isinstance(done, Redeemed):
        return wallet, done
    encounter = bill_of(wallet, redemption.voucher.handle).encounter
    holdings = _redeeming(wallet, redemption, own.current, encounter)
    message, _ = reversal.prove(redemption, holdings, deriver(wallet, redemption), rand, group)
    return _with(wallet, Account(own.current, Prepared(message))), message


def _redeeming(wallet: Wallet, redemption: Redemption, current: Credential, encounter: Credential) -> reversal.Holdings:
    booking = booking_of(wallet, redemption.voucher.payment.amount)
    paid = booking.paid, decode_scalar(booking.paid_blinding)
    deducted = booking.deducted, decode_scalar(booking.deducted_blinding)
    return reversal.Holdings(encounter, current, paid, deducted, decode_scalar(booking.owner_blinding))


def _step(wallet: Wallet, op: Op, *kinds: type[Step]) -> Account:
    """The account whose open step is `op`, and in one of these states. Raises Refused."""
    for one in wallet.accounts:
        if one.step is not None and one.step.op == op:
            if isinstance(one.step, kinds):
                return one
            break
    raise Refused("wallet.other_step")


def submitted(wallet: Wallet, op: Op, op_id: bytes) -> Wallet:
    """Prepared -> Submitted: the ledger has taken the op, under `op_id`."""
    own = _step(wallet, op, Prepared, Submitted)
    return _with(wallet, Account(own.current, Submitted(op, op_id)))


def abandoned(wallet: Wallet, op: Op) -> Wallet:
    """Prepared or Submitted -> idle: the ledger has refused the op, or its time is over. If it has not, after all,
    `catch_up` finds that out."""
    return _with(wallet, Account(_step(wallet, op, Prepared, Submitted).current, None))


def final(wallet: Wallet, posted: Posted) -> Wallet:
    """Submitted (or Prepared, after a crash) -> Final."""
    own = _step(wallet, posted.op, Prepared, Submitted, Final)
    return _with(wallet, Account(own.current, Final(posted.op, posted.op_id)))


def updated(wallet: Wallet, posted: Posted, group: Backend | None = None) -> Wallet:
    """Final -> idle, with the next account, from the bureau's answer; signature and share are checked.

    Raises Refused without an answer, VerificationError if the answer or the op is not what it should be.
    """
    own = _step(wallet, posted.op, Prepared, Submitted, Final)
    return _advance(wallet, own, posted, group or backend())


# ---------------------------------------------------------------------------------------- from the ledger


def catch_up(wallet: Wallet, spent: Spent, group: Backend | None = None) -> Wallet:
    """Bring every account to where the ledger has it, whatever the wallet remembers: after a crash, with an older
    copy of the file, or from nothing but seed and first accounts.

    An op that is final and not yet answered leaves its account in `Final`; a step that the ledger does not show stays
    as it is. Raises VerificationError for an op that spent the holder's serial and was not made from this seed.
    """
    group = group or backend()
    for place in [one.place for one in wallet.accounts]:
        while True:
            own = account_of(wallet, *place)
            posted = spent(account.spent_serial(own.current))
            if posted is None:
                break
            if posted.answer is None:
                wallet = _with(wallet, Account(own.current, Final(posted.op, posted.op_id)))
                break
            wallet = _advance(wallet, own, posted, group)
    return wallet


def _advance(wallet: Wallet, own: Account, posted: Posted, group: Backend) -> Wallet:
    """The wallet with the account that `posted` made of `own`, and with the payment opened."""
    if posted.answer is None:
        raise Refused("wallet.not_signed")
    op, bookings = posted.op, list[Booking]()
    derive = deriver(wallet, _statement(op))
    if isinstance(op, Settlement):
        following, booking = _settled(own.current, op, derive, group)
        bookings.append(booking)
    else:
        # the encounter credential proves, but has no part in the next account's numbers
        holdings = _redeeming(wallet, op.redemption, own.current, own.current)
        following = reversal.following_of(op.redemption, holdings, derive, group)
    if following.commitment != op.following:
        raise VerificationError("wallet.not_ours")
    renewed = account.finish_update(Issued(ACCOUNT, own.current.issuer), following, posted.answer, group)
    return _with(wallet, Account(renewed, None), *bookings)


def _settled(current: Credential, op: Settlement, derive: Derive, group: Backend) -> tuple[account.Next, Booking]:
    """What a settlement of this seed made: the next account, and the payment opened, all checked against the op."""
    paid, deducted = settlement.read_note(derive, op.note)
    payment = op.payment
    blindings = settlement.secrets_of(derive, current, paid, deducted)
    pedersen.check_opening(group.decode(op.paid), paid, blindings["paid"], group)
    if op.deducted is not None:
        pedersen.check_opening(group.decode(op.deducted), deducted, blindings["deducted"], group)
    following = settlement.following_of(op.claim, current, paid, deducted, blindings, group)
    booking = Booking(
        op.claim.bill,
        payment.payer,
        payment.layer,
        payment.year,
        op.paid,
        op.deducted,
        paid,
        encode_scalar(blindings["paid"]),
        deducted,
        encode_scalar(blindings["deducted"]),
        encode_scalar(blindings["owner"]),
    )
    return following, booking
