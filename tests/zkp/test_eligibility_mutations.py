"""zkp.eligibility: whatever is changed in an answer or its request, it is refused, and never by another error."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import combinations
from typing import Any

import msgspec
import pytest

from tests.zkp import holders
from tests.zkp.holders import DAY, rand_of
from tests.zkp.test_eligibility import asked, held, proved, whole_set
from wire import canonical
from wire.dates import NO_END
from wire.errors import DecodeError, VerificationError
from zkp import eligibility
from zkp.credentials import PERSON, issuer
from zkp.eligibility import Conditions, Eligibility, EligibilityRequest
from zkp.groups import POINT_BYTES, SCALAR_BYTES, R
from zkp.membership import SetKey
from zkp.policy import Diagnoses

KINDS = (None, "covered", "filed")
IDENTITY = bytes([0xC0]) + bytes(POINT_BYTES - 1)
WIDTHS = {"points": POINT_BYTES, "commitments": POINT_BYTES, "responses": SCALAR_BYTES, "ranges": POINT_BYTES}
"""The proof's own fields, and how wide what stands in them is."""

replace = msgspec.structs.replace

Mutation = Callable[[Eligibility, random.Random], bytes | Eligibility]


def of_request(request: EligibilityRequest) -> dict[str, Any]:
    """Another value for each field of the request but its conditions."""
    diagnoses = request.diagnoses
    return {
        "chain": "other",
        "person_key": issuer(bytes(32), PERSON).of.issuer,
        "encounter_key": holders.OTHER_HOSPITAL.of.issuer,
        "active": whole_set("active", 8).key,
        "diagnoses": whole_set("covered").key if diagnoses is None else replace(diagnoses, version=8),
        "bill": bytes(16),
        "hospital": "hospital-2",
        "service_day": DAY + 1,
        "audience": "insurer-2",
        "nonce": bytes(31) + b"\1",
        "purpose": "TREAT",
        "grant": "grant-2",
    }


def of_conditions(conditions: Conditions) -> dict[str, Any]:
    """Another value for each field of the conditions."""
    return {
        "policy": "better",
        "version": conditions.version + 1,
        "row": bytes(31) + b"\1",
        "scheme": "390",
        "insutype": "390",
        "psn_type": "21",
        "region": "",
        "sex": "2",
        "med_type": "11",
        "level": "",
        "youngest": conditions.youngest - 1,
        "oldest": conditions.oldest + 1,
        "diagnoses": Diagnoses("covered", "other"),
    }


def flip(proof: Eligibility, chance: random.Random) -> bytes:
    data = bytearray(canonical.encode(proof))
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def flip_in_proof(proof: Eligibility, chance: random.Random) -> Eligibility:
    field = chance.choice(list(WIDTHS))
    data = bytearray(getattr(proof, field))
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return replace(proof, **{field: bytes(data)})


def cut(proof: Eligibility, chance: random.Random) -> bytes | Eligibility:
    if chance.random() < 0.3:
        data = canonical.encode(proof)
        return data[: chance.randrange(len(data))]
    field = chance.choice(list(WIDTHS))
    data = getattr(proof, field)
    return replace(proof, **{field: data[: chance.randrange(len(data))]})


def extend(proof: Eligibility, chance: random.Random) -> bytes | Eligibility:
    more = chance.choice([bytes(1), bytes(32), IDENTITY, chance.randbytes(chance.randrange(1, 50))])
    if chance.random() < 0.3:
        return canonical.encode(proof) + more
    field = chance.choice(list(WIDTHS))
    return replace(proof, **{field: getattr(proof, field) + more})


def swap(proof: Eligibility, chance: random.Random) -> Eligibility:
    """Two points or scalars change places, in one field or between two."""
    one, two = chance.choice([(field, field) for field in WIDTHS] + [("points", "commitments"), ("points", "ranges")])
    fields = {one: bytearray(getattr(proof, one)), two: bytearray(getattr(proof, two))}
    width = WIDTHS[one]
    at, other = (width * chance.randrange(len(fields[field]) // width) for field in (one, two))
    piece, its = fields[one][at : at + width], fields[two][other : other + width]
    fields[one][at : at + width], fields[two][other : other + width] = its, piece
    return replace(proof, **{field: bytes(data) for field, data in fields.items()})


def identity(proof: Eligibility, chance: random.Random) -> Eligibility:
    field = chance.choice(["points", "commitments", "ranges"])
    data = getattr(proof, field)
    at = POINT_BYTES * chance.randrange(len(data) // POINT_BYTES)
    return replace(proof, **{field: data[:at] + IDENTITY + data[at + POINT_BYTES :]})


def negated(proof: Eligibility, chance: random.Random) -> Eligibility:
    """A point P becomes -P, which is a point as well."""
    field = chance.choice(["points", "commitments", "ranges"])
    data = bytearray(getattr(proof, field))
    data[POINT_BYTES * chance.randrange((len(data) - (288 if field == "ranges" else 0)) // POINT_BYTES)] ^= 0x20
    return replace(proof, **{field: bytes(data)})


def plus_r(proof: Eligibility, chance: random.Random) -> Eligibility:
    """A scalar x becomes x + r, the same residue; so does a number of the request."""
    if chance.random() < 0.2:
        name = chance.choice(["service_day", "version", "youngest", "oldest"])
        request, conditions = proof.request, proof.request.conditions
        if name == "service_day":
            return replace(proof, request=replace(request, service_day=DAY + R))
        more = replace(conditions, **{name: getattr(conditions, name) + R})
        return replace(proof, request=replace(request, conditions=more))
    while True:
        field = chance.choice(["responses", "ranges"])
        data = getattr(proof, field)
        at = len(data) - SCALAR_BYTES * chance.randrange(1, 10)
        value = int.from_bytes(data[at : at + SCALAR_BYTES], "big") + R
        if value < 2**256:
            changed = data[:at] + value.to_bytes(SCALAR_BYTES, "big") + data[at + SCALAR_BYTES :]
            return replace(proof, **{field: changed})


def another_request(proof: Eligibility, chance: random.Random) -> Eligibility:
    """The proof under another request: a replay."""
    request = proof.request
    if chance.random() < 0.5:
        changes = of_request(request)
        changes["nonce"] = chance.randbytes(32)
        field = chance.choice(sorted(changes))
        return replace(proof, request=replace(request, **{field: changes[field]}))
    changes = of_conditions(request.conditions)
    field = chance.choice(sorted(changes))
    return replace(proof, request=replace(request, conditions=replace(request.conditions, **{field: changes[field]})))


MUTATIONS: tuple[Mutation, ...] = (
    flip, flip_in_proof, flip_in_proof, cut, extend, swap, identity, negated, plus_r, another_request, another_request,
)  # fmt: skip


def refused(seed: int) -> str:
    """Mutate one answer; returns how it was refused. Both as its asker checks it and as an auditor does."""
    chance = random.Random(seed)
    kind = KINDS[seed % 3]
    proof, request = proved(kind), asked(kind)
    mutation = chance.choice(MUTATIONS)
    mutated = mutation(proof, chance)
    try:
        read = canonical.decode(Eligibility, mutated) if isinstance(mutated, bytes) else mutated
        if read == proof:
            return "same"
        for stated in (request, read.request):
            try:
                eligibility.verify(read, stated)
            except (VerificationError, DecodeError) as error:
                code = error.code
            else:
                raise AssertionError(f"accepted: {mutation}, seed {seed}")
    except DecodeError as error:
        return error.code
    return code


def test_five_hundred_mutations() -> None:
    codes = [refused(seed) for seed in range(500)]
    assert codes.count("same") < 20
    assert {"zkp.bad_proof", "zkp.malformed_proof", "zkp.proof_length", "wire.not_canonical"} <= set(codes)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(20))
def test_ten_thousand_mutations(part: int) -> None:
    for seed in range(500 * (part + 1), 500 * (part + 2)):
        refused(seed)


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_the_request_is_bound(kind: str | None) -> None:
    """A true answer to a request of which one field is another, whichever it is."""
    proof, request = proved(kind), asked(kind)
    fields, inner = of_request(request), of_conditions(request.conditions)
    assert {*fields, "conditions"} == set(EligibilityRequest.__struct_fields__)
    assert set(inner) == set(Conditions.__struct_fields__)
    others = [(name, replace(request, **{name: value})) for name, value in fields.items()]
    others += [
        ("conditions", replace(request, conditions=replace(request.conditions, **{name: value})))
        for name, value in inner.items()
    ]
    for field, other in others:
        assert other != request
        with pytest.raises(VerificationError) as caught:
            eligibility.verify(proof, other)
        assert (caught.value.code, caught.value.facts["field"]) == ("zkp.not_as_asked", field)
        with pytest.raises(VerificationError):
            eligibility.verify(replace(proof, request=other), other)


@pytest.mark.parametrize("kind", KINDS)
def test_every_point_and_scalar_counts(kind: str | None) -> None:
    """One bit in each piece of 32 bytes: nothing in the proof is idle."""
    proof, request = proved(kind), asked(kind)
    for field in WIDTHS:
        data = getattr(proof, field)
        for at in range(0, len(data), 32):
            changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            with pytest.raises(VerificationError):
                eligibility.verify(replace(proof, **{field: changed}), request)


def test_parts_of_two_true_answers_do_not_mix() -> None:
    """Two answers to one request: whatever one lends the other, nothing of it holds."""
    one, other = proved(), eligibility.prove(asked(), held(), rand_of("another"))
    eligibility.verify(other, asked())
    for size in (1, 2, 3):
        for fields in combinations(WIDTHS, size):
            mixed = replace(one, **{field: getattr(other, field) for field in fields})
            with pytest.raises(VerificationError):
                eligibility.verify(mixed, asked())


def test_a_set_of_the_same_name_under_another_key() -> None:
    own = SetKey("active", "set-active", 7, whole_set("active", 8).key.key)
    other = asked(active=own)
    with pytest.raises(VerificationError):
        eligibility.verify(replace(proved(), request=other), other)


@pytest.mark.parametrize("day", [-1, NO_END, R, DAY + R, 2**64])
def test_numbers_that_no_request_has(day: int) -> None:
    other = asked(service_day=day)
    with pytest.raises((DecodeError, VerificationError)):
        eligibility.verify(replace(proved(), request=other), other)
