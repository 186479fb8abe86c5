"""zkp.settlement: whatever is changed in a message or its claim, it is refused, and never by another error."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.zkp import claims, holders
from tests.zkp.claims import ROW, row, settled
from tests.zkp.holders import rand_of
from wire import canonical
from wire.errors import DecodeError, VerificationError
from zkp import settlement
from zkp.claim import Claim
from zkp.groups import POINT_BYTES, SCALAR_BYTES, R
from zkp.policy import Diagnoses, Row
from zkp.settlement import Settlement

IDENTITY = bytes([0xC0]) + bytes(POINT_BYTES - 1)
SMALL = row(deductible=0, band_1=0, band_2=0)
BASES = (SMALL, ROW, row(remainder=True, diagnoses=Diagnoses("filed", "chronic")))
POINTS = ("following", "paid", "deducted", "owner")

Mutation = Callable[[bytes, Settlement, random.Random], bytes | Settlement]


def _proof(message: Settlement, changed: bytes) -> Settlement:
    return msgspec.structs.replace(message, proof=changed)


def flip(data: bytes, message: Settlement, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def flip_in_proof(data: bytes, message: Settlement, chance: random.Random) -> Settlement:
    return _proof(message, flip(message.proof, message, chance))


def cut(data: bytes, message: Settlement, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def cut_proof(data: bytes, message: Settlement, chance: random.Random) -> Settlement:
    return _proof(message, message.proof[: chance.randrange(len(message.proof))])


def extend(data: bytes, message: Settlement, chance: random.Random) -> bytes:
    return data + chance.randbytes(chance.randrange(1, 50))


def extend_proof(data: bytes, message: Settlement, chance: random.Random) -> Settlement:
    return _proof(message, message.proof + chance.randbytes(chance.choice([1, 32, 48, 100])))


def swap(data: bytes, message: Settlement, chance: random.Random) -> Settlement:
    """Two points or scalars of the proof change places."""
    width = chance.choice([POINT_BYTES, SCALAR_BYTES])
    proof = message.proof
    pieces = len(proof) // width
    first, second = sorted(chance.sample(range(pieces), 2))
    offset = chance.choice([0, len(proof) - pieces * width])
    a, b = offset + first * width, offset + second * width
    return _proof(
        message, proof[:a] + proof[b : b + width] + proof[a + width : b] + proof[a : a + width] + proof[b + width :]
    )


def swap_fields(data: bytes, message: Settlement, chance: random.Random) -> Settlement:
    """Two of the message's own points change places."""
    fields = [name for name in POINTS if getattr(message, name) is not None]
    one, two = chance.sample(fields, 2)
    return msgspec.structs.replace(message, **{one: getattr(message, two), two: getattr(message, one)})


def identity(data: bytes, message: Settlement, chance: random.Random) -> Settlement:
    fields = [name for name in POINTS if getattr(message, name) is not None]
    if chance.random() < 0.3:
        return msgspec.structs.replace(message, **{chance.choice(fields): IDENTITY})
    at = POINT_BYTES * chance.randrange(len(message.proof) // POINT_BYTES)
    return _proof(message, message.proof[:at] + IDENTITY + message.proof[at + POINT_BYTES :])


def negated(data: bytes, message: Settlement, chance: random.Random) -> Settlement:
    """A point P becomes -P, which is a point as well: a payment of -R among them."""
    fields = [name for name in POINTS if getattr(message, name) is not None]
    field = chance.choice([*fields, "proof"])
    changed = bytearray(getattr(message, field))
    points = 1 if field != "proof" else 40  # the first that are sent
    changed[POINT_BYTES * chance.randrange(points)] ^= 0x20
    return msgspec.structs.replace(message, **{field: bytes(changed)})


def plus_r(data: bytes, message: Settlement, chance: random.Random) -> Settlement:
    """A scalar x becomes x + r: the same residue."""
    proof = message.proof
    if chance.random() < 0.1:
        serial = int.from_bytes(message.claim.serial, "big") + R
        changed = msgspec.structs.replace(message.claim, serial=(serial % 2**256).to_bytes(32, "big"))
        return msgspec.structs.replace(message, claim=changed)
    while True:
        at = len(proof) - SCALAR_BYTES * chance.randrange(1, 10)
        value = int.from_bytes(proof[at : at + SCALAR_BYTES], "big") + R
        if value < 2**256:
            return _proof(message, proof[:at] + value.to_bytes(SCALAR_BYTES, "big") + proof[at + SCALAR_BYTES :])


def another_claim(data: bytes, message: Settlement, chance: random.Random) -> Settlement:
    """The proof under another claim: a replay."""
    claim = message.claim
    if chance.random() < 0.5:
        changes = claim_changes(message, chance)
        field = chance.choice(sorted(changes))
        return msgspec.structs.replace(message, claim=msgspec.structs.replace(claim, **{field: changes[field]}))
    changes = row_changes(claim.row)
    field = chance.choice(sorted(changes))
    other = msgspec.structs.replace(claim.row, **{field: changes[field]})
    return msgspec.structs.replace(message, claim=msgspec.structs.replace(claim, row=other))


def claim_changes(message: Settlement, chance: random.Random) -> dict[str, Any]:
    """Another value for each field of the claim but its row."""
    claim = message.claim
    other = claims.published("active", "active", (bytes(15) + b"\1", bytes(15) + b"\4"), 8).key
    named = claims.published("covered", "other", ("E11.900",)).key
    return {
        "nonce": chance.randbytes(32),
        "audience": "insurer-9",
        "chain": "other",
        "bill": chance.randbytes(16),
        "hospital": "hospital-2",
        "level": "2",
        "diagnoses": named if claim.diagnoses is None else msgspec.structs.replace(claim.diagnoses, version=99),
        "service_day": claim.service_day + chance.choice([-1, 1]),
        "purpose": "ELIGVER",
        "grant": "grant-2",
        "active": chance.choice([other, msgspec.structs.replace(claim.active, version=chance.randrange(8, 99))]),
        "standing": (message.paid,),
        "serial": chance.randbytes(31).rjust(32, b"\0"),
        "total": message.paid,
        "person_key": claim.account_key,
        "encounter_key": claim.person_key,
        "account_key": claim.encounter_key,
    }


def row_changes(row: Row) -> dict[str, Any]:
    """Another value for each field of the row."""
    return {
        "payer": "bureau-2",
        "layer": row.layer + 1,
        "version": row.version + 1,
        "policy": "other",
        "rates": (1000, 1000, 1000),
        "weights": (1000,) * 8,
        "deductible": 1,
        "band_2": row.band_2 + 1,
        "half_up": True,
        "region": "330200",
        "visit": 2,
        "last_visit": 4,
        "counts_visit": False,
        "statutory": False,
        "remainder": not row.remainder,
        "youngest": 1,
        "oldest": 99,
        "first_day": row.first_day + 1,
        "year": 2024,
        "currency": "EUR",
        "diagnoses": Diagnoses("covered", "other"),
        "last_day": row.last_day - 1,
        "scheme": "390",
        "insutype": "390",
        "psn_type": "21",
        "sex": "1",
        "med_type": "11",
        "level": "2",
        "band_1": row.band_1 + 1,
    }


MUTATIONS: tuple[Mutation, ...] = (
    flip, flip_in_proof, flip_in_proof, cut, cut_proof, extend, extend_proof, swap, swap_fields, identity, negated,
    plus_r, another_claim, another_claim,
)  # fmt: skip


def refused(seed: int) -> str:
    """Mutate one message; returns how it was refused. Both as the ledger checks it and as an auditor does."""
    chance = random.Random(seed)
    base = BASES[0] if seed % 10 else chance.choice(BASES)
    message, _ = settled(base)
    claim = message.claim
    mutation = chance.choice(MUTATIONS)
    mutated = mutation(canonical.encode(message), message, chance)
    try:
        read = canonical.decode(Settlement, mutated) if isinstance(mutated, bytes) else mutated
        if read == message:
            return "same"
        for stated in (claim,) if read.claim == claim else (claim, read.claim):
            try:
                settlement.verify(read, stated)
            except (VerificationError, DecodeError) as error:
                code = error.code
            else:
                raise AssertionError(f"accepted: {mutation.__name__}, seed {seed}")
    except DecodeError as error:
        return error.code
    return code


def test_five_hundred_mutations() -> None:
    codes = [refused(seed) for seed in range(500)]
    assert codes.count("same") < 10
    assert {"zkp.bad_proof", "zkp.malformed_proof", "zkp.proof_length", "wire.not_canonical"} <= set(codes)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(20))
def test_ten_thousand_mutations(part: int) -> None:
    for seed in range(500 * (part + 1), 500 * (part + 2)):
        refused(seed)


@pytest.mark.parametrize("base", BASES, ids=range(3))
def test_every_field_of_the_claim_and_the_row_is_bound(base: Row) -> None:
    """A true proof under a statement in which one field is another, whichever it is."""
    message, _ = settled(base)
    claim, replace = message.claim, msgspec.structs.replace
    fields, of_row = claim_changes(message, random.Random(1)), row_changes(claim.row)
    assert {*fields, "row"} == set(Claim.__struct_fields__)
    assert set(of_row) == set(Row.__struct_fields__)
    others = [replace(claim, **{name: value}) for name, value in fields.items()]
    others += [replace(claim, row=replace(claim.row, **{name: value})) for name, value in of_row.items()]
    for other in others:
        assert other != claim
        with pytest.raises(VerificationError) as caught:
            settlement.verify(message, other)
        assert caught.value.code == "zkp.not_as_asked"
        with pytest.raises((VerificationError, DecodeError)):
            settlement.verify(replace(message, claim=other), other)


@pytest.mark.parametrize("base", BASES, ids=range(3))
def test_every_point_and_scalar_counts(base: Row) -> None:
    """One bit every 61 bytes of the proof: nothing in it is idle."""
    message, _ = settled(base)
    for at in range(0, len(message.proof), 61):
        changed = message.proof[:at] + bytes([message.proof[at] ^ 1]) + message.proof[at + 1 :]
        with pytest.raises(VerificationError):
            settlement.verify(_proof(message, changed), message.claim)


def test_parts_of_two_true_settlements_do_not_mix() -> None:
    """Two proofs of one claim, from other blindings: cut anywhere and joined, they do not hold."""
    message, _ = settled(SMALL)
    holder, claim = holders.holder(), message.claim
    other, _ = settlement.prove(claim, claims.holdings_of(holder, claim), claims.derive_of("anna", claim), rand_of("2"))
    settlement.verify(other, claim)
    assert (other.paid, other.following) == (message.paid, message.following) and other.proof != message.proof
    for cut_at in range(POINT_BYTES, len(message.proof), 5 * POINT_BYTES):
        for joined in (message.proof[:cut_at] + other.proof[cut_at:], other.proof[:cut_at] + message.proof[cut_at:]):
            with pytest.raises(VerificationError):
                settlement.verify(_proof(message, joined), claim)


@pytest.mark.parametrize("suite", [0, 2])
def test_another_suite(suite: int) -> None:
    message, _ = settled(SMALL)
    header = msgspec.structs.replace(message.header, suite=suite)
    with pytest.raises(VerificationError) as caught:
        settlement.verify(msgspec.structs.replace(message, header=header), message.claim)
    assert caught.value.code == "zkp.unknown_suite"
