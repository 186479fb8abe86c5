"""The settlement contract played on one file: what everybody can read of bills, payments, spent serials and vouchers.

    agree       keys, sets, hospitals' levels and the policy table from now on
    register    hospital    a bill: handle and C_total, once
    ask_claim, ask_redemption                       V -> H
    post        holder      a settlement or redemption: checked against this state, never against the sender's words
    reverse, cancel         from the top down; a bill turns red while nothing stands, and another can stand for it

For trying out credentials without a gateway. Everything in it is public, and whoever can write the file is the ledger:
nothing is signed, one copy is all there is. An op is final once it stands here. The rules are `zkp.payments`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from medveil.credentials import files
from medveil.credentials.claiming import (
    REDEMPTION_QUESTION,
    SETTLEMENT_QUESTION,
    RedemptionQuestion,
    SettlementQuestion,
    claim_of,
    redemption_of,
)
from medveil.credentials.files import Answer, CredentialKey, EncodedKey, SetFile
from medveil.credentials.folder import Rand, locked
from medveil.credentials.issuing import total_commitment
from medveil.credentials.policy_table import PolicyTable
from wire import evidence
from wire.canonical import Wire, decode, encode
from wire.domains import CLAIM_OP, digest
from wire.errors import DecodeError, Refused, Unavailable
from wire.evidence import Header
from wire.identifiers import Handle, Name, check_name
from zkp import payments, reversal, settlement
from zkp.claim import Purpose, check_bill
from zkp.groups import backend
from zkp.membership import SetKey
from zkp.payments import BillPayments, Voucher
from zkp.policy import KeyCode, Row
from zkp.settlement import Settlement
from zkp.wallet import Op, Posted


class Hospital(Wire, frozen=True, tag="medveil.contract_hospital"):
    """A hospital as the registry has it: its level, and its key for encounters."""

    name: Name
    level: KeyCode
    key: EncodedKey


class Replacement(Wire, frozen=True, tag="medveil.contract_replacement"):
    """A bill that was registered in the place of a red one: both handles."""

    handle: Handle
    red: Handle


class Contract(Wire, frozen=True, tag="medveil.contract"):
    """All of it, public. sets: the newest version of each; ops: final, in order, with the bureau's answers."""

    header: Header
    chain: Name
    person_key: EncodedKey
    account_key: EncodedKey
    hospitals: tuple[Hospital, ...]
    active: SetKey
    diagnoses: tuple[SetKey, ...]
    rows: tuple[Row, ...]
    bills: tuple[BillPayments, ...]
    replacements: tuple[Replacement, ...]
    vouchers: tuple[Voucher, ...]
    ops: tuple[Posted, ...]


CONTRACT = evidence.register("settlement-contract", 1, Contract)


def op_id(op: Op) -> bytes:
    """32 bytes that name an op: a hash of all of it."""
    return digest(CLAIM_OP, encode(op))


def read(path: Path) -> Contract:
    """The contract in a file. Raises Unavailable, DecodeError, Refused."""
    return files.read(path, Contract)


class Kept:
    """An open contract. `opened` makes one."""

    def __init__(self, path: Path, state: Contract) -> None:
        self._path, self.state = path, state

    def save(self, state: Contract) -> None:
        """Put the next state in the file's place, durably. Raises DecodeError, Unavailable."""
        data = encode(state)
        decode(Contract, data)
        try:
            evidence.write_file(self._path, data)
        except OSError:
            raise Unavailable("client.unwritable", file=str(self._path)) from None
        self.state = state


@contextmanager
def opened(path: Path) -> Iterator[Kept]:
    """The contract in a file, locked while it is used. Raises Unavailable (none, in use), DecodeError, Refused."""
    if not path.is_file():
        raise Unavailable("wire.unreadable", file=str(path))
    with locked(path.with_name(path.name + ".lock")):
        yield Kept(path, read(path))


def agree(
    path: Path,
    chain: str,
    keys: Sequence[CredentialKey],
    sets: Sequence[SetFile],
    levels: Mapping[str, str],
    table: PolicyTable,
) -> Contract:
    """What the contract goes by from now on; the file is made if it is not there, bills, payments and unnamed sets of
    diagnoses stay.

    keys: one of a bureau for people and one for accounts, and each hospital's, whose level `levels` gives. Raises
    Refused: a key too many or missing, a set older than the one known, active credentials under another name,
    another chain.
    """
    check_name(chain, "chain")
    of_kind = {kind: [one for one in keys if one.kind == kind] for kind in files.SCHEMAS}
    hospitals = {one.issuer: one for one in of_kind["encounter"]}
    named = {(one.published.key.kind, one.published.key.name): one.published.key for one in sets}
    active = [key for key in named.values() if key.kind == "active"]
    whole = (len(of_kind["person"]), len(of_kind["account"]), len(active), len(hospitals)) == (
        1,
        1,
        1,
        len(of_kind["encounter"]),
    )
    if not whole or not hospitals or set(levels) != set(hospitals) or len(named) != len(sets):
        raise Refused("credential_files.terms")
    fresh = Contract(
        CONTRACT,
        chain,
        of_kind["person"][0].key,
        of_kind["account"][0].key,
        tuple(Hospital(name, levels[name], one.key) for name, one in sorted(hospitals.items())),
        active[0],
        tuple(key for _, key in sorted(named.items()) if key.kind != "active"),
        table.rows,
        (),
        (),
        (),
        (),
    )
    if not path.exists():
        decode(Contract, encode(fresh))
        files.write(path, fresh)
        return fresh
    with opened(path) as kept:
        before = kept.state
        if before.chain != chain:
            raise Refused("credential_files.other_contract", chain=before.chain)
        if active[0].name != before.active.name:
            raise Refused("credential_files.other_active_set", set=before.active.name, given=active[0].name)
        for key in (before.active, *before.diagnoses):
            now = named.get((key.kind, key.name))
            if now is not None and (now.version < key.version or (now.version == key.version and now != key)):
                raise Refused("credential_files.older_set", set=key.name, version=key.version)
        stays = {name: getattr(before, name) for name in ("bills", "replacements", "vouchers", "ops")}
        unnamed = (key for key in before.diagnoses if (key.kind, key.name) not in named)  # its version stays known
        diagnoses = tuple(sorted((*fresh.diagnoses, *unnamed), key=lambda key: (key.kind, key.name)))
        kept.save(msgspec.structs.replace(fresh, diagnoses=diagnoses, **stays))
        return kept.state


# ------------------------------------------------------------------------------------------- hospital


def register(path: Path, answer: Answer, currency: str, replaces: bytes | None = None) -> BillPayments:
    """Hospital: register the bill of the encounter that it answers with: handle and C_total, nothing else of it.

    replaces: the handle of a red bill of this hospital, in whose place it stands: what was reversed there goes back
    into its account before this one is paid. The same again changes nothing. Raises Refused: another total or
    replacement under this handle, a hospital that is not there, a bill that is not red or has its replacement.
    """
    if answer.offer.bill is None or answer.total_blinding is None:
        raise Refused("credential_files.no_encounter", kind=answer.offer.kind)
    fresh = payments.registered(answer.offer.bill, answer.offer.occasion.issuer, total_commitment(answer), currency)
    with opened(path) as kept:
        state = kept.state
        found = _hospital(state, fresh.hospital)
        if (found.key, state.chain) != (answer.offer.key, answer.offer.occasion.chain):
            raise Refused("credential_files.no_hospital", hospital=fresh.hospital)
        for bill in state.bills:
            if bill.handle == fresh.handle:
                before = msgspec.structs.replace(bill, standing=(), reversals=0, red=False)
                if (before, _replaced(state, fresh.handle)) != (fresh, replaces):
                    raise Refused("credential_files.other_bill", handle=fresh.handle.hex())
                return bill
        following = msgspec.structs.replace(state, bills=(*state.bills, fresh))
        if replaces is not None:
            old = _bill(state, replaces)
            if old.hospital != fresh.hospital or not old.red or any(one.red == replaces for one in state.replacements):
                raise Refused("credential_files.not_replaced", handle=replaces.hex())
            placed = (*state.replacements, Replacement(fresh.handle, replaces))
            following = msgspec.structs.replace(following, replacements=placed)
        kept.save(following)
    return fresh


def _replaced(state: Contract, handle: bytes) -> bytes | None:
    return next((one.red for one in state.replacements if one.handle == handle), None)


def _vouchers(state: Contract, handle: bytes) -> list[Voucher]:
    """All that were posted under a bill, and under those in whose place it stands."""
    place: bytes | None = handle
    found: list[Voucher] = []
    while place is not None:  # ends: a bill is registered after the one that it replaces
        found += [one for one in state.vouchers if one.handle == place]
        place = _replaced(state, place)
    return found


def cancel(path: Path, handle: bytes) -> None:
    """Hospital: turn a bill red. Raises Refused while a payment stands under it."""
    with opened(path) as kept:
        _put(kept, payments.turn_red(_bill(kept.state, handle)))


def _put(kept: Kept, bill: BillPayments, vouchers: Sequence[Voucher] = ()) -> None:
    bills = tuple(bill if one.handle == bill.handle else one for one in kept.state.bills)
    kept.save(msgspec.structs.replace(kept.state, bills=bills, vouchers=(*kept.state.vouchers, *vouchers)))


def _hospital(state: Contract, name: str) -> Hospital:
    for one in state.hospitals:
        if one.name == name:
            return one
    raise Refused("credential_files.no_hospital", hospital=name)


def _bill(state: Contract, handle: bytes) -> BillPayments:
    for one in state.bills:
        if one.handle == handle:
            return one
    raise Refused("credential_files.no_bill", handle=handle.hex())


def _voucher(state: Contract, handle: bytes, number: int) -> Voucher:
    for one in state.vouchers:
        if (one.handle, one.number) == (handle, number):
            return one
    raise Refused("credential_files.no_voucher", handle=handle.hex(), number=number)


# ---------------------------------------------------------------------------------------------- payer


def ask_claim(
    path: Path, handle: bytes, payer: str, layer: int, purpose: str, grant: str, rand: Rand
) -> SettlementQuestion:
    """Payer: ask for the claim of one bill. Raises Refused: no such bill, no row of this payer and layer."""
    _check_terms(purpose, grant)
    return _claim_question(read(path), handle, payer, layer, purpose, grant, rand(32))


def _check_terms(purpose: str, grant: str) -> None:
    for name, value, kind in (("purpose", purpose, Purpose), ("grant", grant, Name)):
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError:
            raise DecodeError("credential_files.term", term=name) from None


def _claim_question(
    state: Contract, handle: bytes, payer: str, layer: int, purpose: str, grant: str, nonce: bytes
) -> SettlementQuestion:
    bill = _bill(state, handle)
    hospital = _hospital(state, bill.hospital)
    rows = tuple(row for row in state.rows if (row.payer, row.layer) == (payer, layer))
    if not rows:
        raise Refused("policy.no_row", payer=payer, layer=layer)
    made = SettlementQuestion(
        SETTLEMENT_QUESTION,
        state.chain,
        state.person_key,
        hospital.key,
        state.account_key,
        state.active,
        state.diagnoses,
        rows,
        bill,
        tuple(_vouchers(state, handle)),
        hospital.level,
        purpose,
        grant,
        nonce,
    )
    return decode(SettlementQuestion, encode(made))


def ask_redemption(path: Path, handle: bytes, number: int, purpose: str, grant: str, rand: Rand) -> RedemptionQuestion:
    """Payer: ask for the redemption of a posted voucher. Raises Refused: no such one, or redeemed."""
    _check_terms(purpose, grant)
    return _redemption_question(read(path), handle, number, purpose, grant, rand(32))


def _redemption_question(
    state: Contract, handle: bytes, number: int, purpose: str, grant: str, nonce: bytes
) -> RedemptionQuestion:
    voucher = _voucher(state, handle, number)
    payments.check_redeemable(voucher)
    bill = _bill(state, handle)
    key = _hospital(state, bill.hospital).key
    made = RedemptionQuestion(
        REDEMPTION_QUESTION, state.chain, key, state.account_key, voucher, bill.hospital, purpose, grant, nonce
    )
    return decode(RedemptionQuestion, encode(made))


def reverse(path: Path, handle: bytes, payer: str, layer: int) -> Voucher:
    """Payer: take its payment back, and post the voucher. Raises Refused: none stands, or a higher layer does."""
    with opened(path) as kept:
        bill, voucher = payments.reverse(_bill(kept.state, handle), layer, payer, backend())
        _put(kept, bill, [voucher])
    return voucher


# -------------------------------------------------------------------------------------------- any op


def post(path: Path, op: Op) -> bytes:
    """Contract: take an op, which is final then; returns its id. The same again changes nothing.

    The statement is made here, from this state; of the op's own words only purpose, grant, nonce, service day and
    serial are taken, and which row. Raises VerificationError, DecodeError; Refused: a serial that was spent, a payment
    that the bill does not take, a voucher that was redeemed.
    """
    known = op_id(op)
    with opened(path) as kept:
        state = kept.state
        if any(one.op_id == known for one in state.ops):
            return known
        serial = op.claim.serial if isinstance(op, Settlement) else op.redemption.serial
        if spent(state, serial) is not None:
            raise Refused("credential_files.spent")
        following = _settled(state, op) if isinstance(op, Settlement) else _redeemed(state, op)
        kept.save(msgspec.structs.replace(following, ops=(*state.ops, Posted(op, known, None))))
    return known


def _settled(state: Contract, op: Settlement) -> Contract:
    said, row = op.claim, op.claim.row
    asked = _claim_question(state, said.bill, row.payer, row.layer, said.purpose, said.grant, said.nonce)
    claim = claim_of(asked, row, said.service_day, said.serial)
    check_bill(claim, asked.bill, asked.vouchers)
    settlement.verify(op, claim)
    paid = payments.pay(asked.bill, op.payment, row.currency)
    bills = tuple(paid if one.handle == paid.handle else one for one in state.bills)
    return msgspec.structs.replace(state, bills=bills)


def _redeemed(state: Contract, op: reversal.Redeemed) -> Contract:
    said = op.redemption
    place = said.voucher.handle, said.voucher.number
    asked = _redemption_question(state, *place, said.purpose, said.grant, said.nonce)
    reversal.verify(op, redemption_of(asked, said.serial))
    done = payments.redeem(asked.voucher)
    vouchers = tuple(done if (one.handle, one.number) == place else one for one in state.vouchers)
    return msgspec.structs.replace(state, vouchers=vouchers)


def spent(state: Contract, serial: bytes) -> Posted | None:
    """The final op that spent a serial, or None."""
    for one in state.ops:
        statement = one.op.claim if isinstance(one.op, Settlement) else one.op.redemption
        if statement.serial == serial:
            return one
    return None
