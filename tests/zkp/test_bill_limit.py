"""zkp.bill_limit: what an insured person can and cannot show an insurer about a bill."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire import canonical, evidence
from wire.errors import DecodeError, MedveilError, Refused, VerificationError
from wire.money import LARGEST, Amount
from zkp import bill_limit, pedersen, range_proof
from zkp.bill_limit import Bill, BillOpening, LimitRequest, Presentation
from zkp.groups import BACKENDS, R, backend, encode_scalar
from zkp.range_proof import Bound

Seeded = Callable[[int], Callable[[int], bytes]]

HANDLE = bytes(range(16))
BLINDING = 2**200 + 12345


def rand(length: int) -> bytes:
    return hashlib.shake_256(b"fixed").digest(length)


def bill_of(amount: int, blinding: int = BLINDING, currency: str = "CNY") -> tuple[Bill, BillOpening]:
    """A bill of any amount mod R, also those that no honest hospital commits to."""
    commitment = backend().encode(pedersen.commit(amount % R, blinding))
    return Bill(HANDLE, commitment, currency), BillOpening(amount, encode_scalar(blinding))


def request_for(limit: int, **changes: object) -> LimitRequest:
    request = LimitRequest("demo", HANDLE, limit, "CNY", "insurer", bytes(32), "ELIGVER", "grant-7")
    return msgspec.structs.replace(request, **changes)


def assembled(request: LimitRequest, bill: Bill, proof: bytes) -> Presentation:
    """A presentation as a cheating prover would write it."""
    fields = {name: getattr(request, name) for name in LimitRequest.__struct_fields__}
    return Presentation(header=bill_limit.HEADER, commitment=bill.commitment, proof=proof, **fields)


@pytest.fixture(scope="module")
def shown() -> tuple[Presentation, LimitRequest, Bill]:
    bill, opening = bill_of(128_50)
    request = request_for(200_00)
    return bill_limit.prove(request, bill, opening, rand), request, bill


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_within_the_limit(data: st.DataObject) -> None:
    limit = data.draw(st.integers(0, LARGEST) | st.sampled_from([0, 1, LARGEST]))
    amount = data.draw(st.integers(0, limit) | st.sampled_from([0, limit]))
    bill, opening = bill_limit.commit_bill(HANDLE, Amount(amount, "CNY"), rand)
    bill_limit.check_bill(bill, opening)
    presentation = bill_limit.prove(request_for(limit), bill, opening, rand)
    bill_limit.verify(presentation, request_for(limit), bill)


def test_as_evidence(shown: tuple[Presentation, LimitRequest, Bill]) -> None:
    presentation, request, bill = shown
    data = canonical.encode(presentation)
    assert len(data) < 1400
    again = evidence.read(data)
    assert again == presentation and again.request == request
    bill_limit.verify(again, again.request, bill)


def test_both_backends_accept(shown: tuple[Presentation, LimitRequest, Bill]) -> None:
    presentation, request, bill = shown
    bill_limit.verify(presentation, request, bill, backend("arkworks"))
    bill_limit.verify(presentation, request, bill, backend("reference"))
    wrong = msgspec.structs.replace(presentation, limit=presentation.limit - 1)
    for name in BACKENDS:
        with pytest.raises(VerificationError):
            bill_limit.verify(wrong, wrong.request, bill, backend(name))


def test_both_backends_commit_alike() -> None:
    bills = {
        bill_limit.commit_bill(HANDLE, Amount(5, "CNY"), rand, backend(name))[0] for name in ("arkworks", "reference")
    }
    assert len(bills) == 1


# ------------------------------------------------------------------------------------- false statements


@pytest.mark.parametrize("amount, limit", [(77, 0), (200_01, 200_00), (LARGEST, LARGEST - 1), (LARGEST, 0)])
def test_over_the_limit_is_refused(amount: int, limit: int) -> None:
    bill, opening = bill_of(amount)
    with pytest.raises(Refused) as caught:
        bill_limit.prove(request_for(limit), bill, opening, rand)
    assert caught.value.code == "zkp.over_limit"
    assert str(amount) not in caught.value.text() and str(amount) not in caught.value.text("zh")


@pytest.mark.parametrize("amount", [R - 1, R - 200_00, R // 2, 2**64, 2**64 + 5, LARGEST + 1])
def test_huge_amounts_are_refused(amount: int) -> None:
    bill, opening = bill_of(amount)
    with pytest.raises(Refused) as caught:
        bill_limit.prove(request_for(200_00), bill, opening, rand)
    assert caught.value.code == "zkp.over_limit"


@pytest.mark.parametrize("amount", [-1, -200_00, R, R + 5])
def test_amounts_that_are_no_scalar(amount: int) -> None:
    bill, _ = bill_of(amount)
    with pytest.raises(VerificationError) as caught:
        bill_limit.prove(request_for(200_00), bill, BillOpening(amount, encode_scalar(BLINDING)), rand)
    assert caught.value.code == "zkp.wrong_opening"


@pytest.mark.parametrize(
    "amount, limit",
    [
        (R - 1, 200_00),  # -1: a wraps
        (R - 2**63, LARGEST),
        (200_01, 200_00),  # L - a wraps to R - 1
        (LARGEST, 0),
        (2**64 + 5, 200_00),  # low 64 bits look small
        (2**64, 0),
        ((R + 1) // 2, 1),  # 2 a = 1 mod R
    ],
)
def test_wrapping_gets_nowhere(amount: int, limit: int) -> None:
    """A cheating prover runs the honest steps on the residues: the verifier refuses."""
    bill, _ = bill_of(amount)
    request = request_for(limit)
    for shown in (amount & limit, limit, 0):
        proof = range_proof._prove(
            bill_limit._statement(request, bill),
            [[(1, backend().decode(bill.commitment))]],
            [amount % R],
            [BLINDING],
            [Bound(0, limit)],
            Bound(0, limit).bits_of(shown),
            rand,
            backend(),
        )
        presentation = assembled(request, bill, proof)
        with pytest.raises(VerificationError) as caught:
            bill_limit.verify(presentation, request, bill)
        assert caught.value.code == "zkp.bad_proof"


def test_a_looser_bound_of_the_same_length() -> None:
    """A true proof that 300 is at most 300, of the same length, does not pass for at most 200."""
    bill, opening = bill_of(300_00)
    request = request_for(200_00)
    proof = range_proof.prove(
        bill_limit._statement(request, bill),
        [[(1, backend().decode(bill.commitment))]],
        [opening.amount],
        [BLINDING],
        [Bound(0, 300_00)],
        rand,
    )
    assert len(proof) == range_proof.proof_bytes([Bound(0, 200_00)])
    with pytest.raises(VerificationError) as caught:
        bill_limit.verify(assembled(request, bill, proof), request, bill)
    assert caught.value.code == "zkp.bad_proof"


# ------------------------------------------------------------------------------------ replay, exchange


CHANGES: dict[str, object] = {
    "chain": "other",
    "handle": bytes(16),
    "limit": 199_99,
    "currency": "USD",
    "audience": "insurer-2",
    "nonce": bytes(31) + b"\1",
    "purpose": "FRAUD",
    "grant": "grant-8",
}


def test_changes_are_complete() -> None:
    assert set(CHANGES) == set(LimitRequest.__struct_fields__)


@pytest.mark.parametrize("field", CHANGES)
def test_another_request(shown: tuple[Presentation, LimitRequest, Bill], field: str) -> None:
    """The presentation answers one request only, and saying otherwise in it breaks the proof."""
    presentation, request, bill = shown
    other = msgspec.structs.replace(request, **{field: CHANGES[field]})
    with pytest.raises(VerificationError) as caught:
        bill_limit.verify(presentation, other, bill)
    assert caught.value.code == "zkp.not_as_asked" and caught.value.facts["field"] == field

    relabelled = msgspec.structs.replace(presentation, **{field: CHANGES[field]})
    if field in Bill.__struct_fields__:
        with pytest.raises(VerificationError) as caught:
            bill_limit.verify(relabelled, other, bill)
        assert caught.value.code == "zkp.not_the_bill"
        bill = msgspec.structs.replace(bill, **{field: CHANGES[field]})
    with pytest.raises(VerificationError) as caught:
        bill_limit.verify(relabelled, other, bill)
    assert caught.value.code == "zkp.bad_proof"


def test_all_that_is_public_is_in_the_transcript() -> None:
    bill, request = bill_of(5)[0], request_for(10)
    replace = msgspec.structs.replace
    statements = [(request, bill), (request, bill_of(6)[0])]
    statements += [(replace(request, **{field: value}), bill) for field, value in CHANGES.items()]
    statements += [(request, replace(bill, **{field: CHANGES[field]})) for field in ("handle", "currency")]
    challenges = {bill_limit._statement(asked, shown).challenge(b"c") for asked, shown in statements}
    assert len(challenges) == len(statements) == 12


def test_another_bill_of_the_same_person(shown: tuple[Presentation, LimitRequest, Bill]) -> None:
    """The ledger's commitment counts, not the prover's: a cheap bill cannot stand in for a dear one."""
    presentation, request, _ = shown
    dear, _ = bill_of(900_00)
    with pytest.raises(VerificationError) as caught:
        bill_limit.verify(presentation, request, dear)
    assert caught.value.code == "zkp.not_the_bill"
    swapped = msgspec.structs.replace(presentation, commitment=dear.commitment)
    with pytest.raises(VerificationError) as caught:
        bill_limit.verify(swapped, request, dear)
    assert caught.value.code == "zkp.bad_proof"


def test_a_limit_plus_the_order(shown: tuple[Presentation, LimitRequest, Bill]) -> None:
    """A public input x + R must not pass for x."""
    presentation, _, bill = shown
    for limit in (200_00 + R, 200_00 - R, LARGEST + 1, -1, 2**64):
        changed = msgspec.structs.replace(presentation, limit=limit)
        with pytest.raises(DecodeError):
            bill_limit.verify(changed, changed.request, bill)
        with pytest.raises(DecodeError):
            bill_limit.prove(request_for(limit), *bill_of(5), rand)


def test_prover_checks_what_it_is_asked() -> None:
    bill, opening = bill_of(5)
    for changes, code in [({"handle": bytes(16)}, "zkp.other_bill"), ({"currency": "USD"}, "zkp.other_currency")]:
        with pytest.raises(Refused) as caught:
            bill_limit.prove(request_for(10, **changes), bill, opening, rand)
        assert caught.value.code == code


def test_prover_checks_its_opening() -> None:
    bill, opening = bill_of(5)
    for wrong in (BillOpening(6, opening.blinding), BillOpening(5, encode_scalar(BLINDING + 1))):
        with pytest.raises(VerificationError) as caught:
            bill_limit.prove(request_for(10), bill, wrong, rand)
        assert caught.value.code == "zkp.wrong_opening"
    with pytest.raises(DecodeError):
        bill_limit.check_bill(bill, BillOpening(5, b"\xff" * 32))


@pytest.mark.parametrize("point", [bytes(48), bytes([0xC0]) + bytes(47), b"\xff" * 48])
def test_a_commitment_that_is_no_point(shown: tuple[Presentation, LimitRequest, Bill], point: bytes) -> None:
    presentation, request, bill = shown
    with pytest.raises(DecodeError):
        bill_limit.verify(
            msgspec.structs.replace(presentation, commitment=point),
            request,
            msgspec.structs.replace(bill, commitment=point),
        )


def test_unknown_suites(shown: tuple[Presentation, LimitRequest, Bill]) -> None:
    presentation, request, bill = shown
    for header in (
        evidence.Header("presentation", 2, 2),
        evidence.Header("presentation", 1, 1),
        evidence.Header("presentation", 3, 1),
        evidence.Header("bill", 1, 1),
    ):
        with pytest.raises(VerificationError) as caught:
            bill_limit.verify(msgspec.structs.replace(presentation, header=header), request, bill)
        assert caught.value.code == "zkp.unknown_suite"


# -------------------------------------------------------------------------------------------- mutations


def mutations(data: bytes, count: int, seed: int = 20261122) -> list[bytes]:
    """`count` different changes of `data`: a byte, a bit, a swap, a cut, an insertion, a repetition."""
    dice = random.Random(seed)
    found: dict[bytes, None] = {}
    while len(found) < count:
        changed = bytearray(data)
        at = dice.randrange(len(data))
        kind = dice.randrange(8)
        if kind < 3:
            changed[at] ^= 1 << dice.randrange(8)
        elif kind < 5:
            changed[at] = dice.randrange(256)
        elif kind == 5:
            other = dice.randrange(len(data) - 48)
            at = dice.randrange(len(data) - 48)
            changed[at : at + 48], changed[other : other + 48] = data[other : other + 48], data[at : at + 48]
        elif kind == 6:
            del changed[at : at + dice.randrange(1, 60)]
        else:
            changed[at:at] = dice.randbytes(dice.randrange(1, 60))
        if bytes(changed) != data:
            found[bytes(changed)] = None
    return list(found)


def test_500_mutations(shown: tuple[Presentation, LimitRequest, Bill]) -> None:
    kinds = refused(shown, 500, 20261122)
    assert {
        "wire.not_canonical",
        "zkp.not_as_asked",
        "zkp.not_the_bill",
        "zkp.malformed_proof",
        "zkp.bad_proof",
    } <= kinds


@pytest.mark.long
def test_10_000_mutations(shown: tuple[Presentation, LimitRequest, Bill]) -> None:
    assert refused(shown, 10_000, 5)


def refused(shown: tuple[Presentation, LimitRequest, Bill], count: int, seed: int) -> set[str]:
    """Each is refused with VerificationError or DecodeError and nothing else, also when the request follows."""
    presentation, request, bill = shown
    data = canonical.encode(presentation)
    kinds = set()
    for changed in mutations(data, count, seed):
        for own in (True, False):
            try:
                decoded = canonical.decode(Presentation, changed)
                bill_limit.verify(decoded, request if own else decoded.request, bill)
            except MedveilError as error:
                assert type(error) in (VerificationError, DecodeError)
                assert error.message and error.fix and error.message != error.code
                kinds.add(error.code)
            else:
                pytest.fail("a changed presentation was accepted")
    return kinds


# --------------------------------------------------------------------------------------------- secrecy


def test_nothing_secret_is_shown(shown: tuple[Presentation, LimitRequest, Bill]) -> None:
    presentation, _, _ = shown
    data = canonical.encode(presentation)
    assert encode_scalar(BLINDING) not in data and encode_scalar(-BLINDING % R) not in data
    assert encode_scalar(128_50) not in data
    assert canonical.encode(BillOpening(128_50, encode_scalar(BLINDING)))[-40:] not in data


def test_openings_do_not_print() -> None:
    _, opening = bill_of(31337)
    for text in (repr(opening), str(opening), f"{opening!r}"):
        assert text == "BillOpening(...)"


def test_two_answers_share_nothing(seeded: Seeded) -> None:
    bill, opening = bill_of(5)
    first, second = (bill_limit.prove(request_for(10), bill, opening, seeded(seed)).proof for seed in (1, 2))
    assert not {first[i : i + 32] for i in range(len(first) - 31)} & {
        second[i : i + 32] for i in range(len(second) - 31)
    }


def test_amounts_out_of_range_are_a_callers_bug() -> None:
    for minor in (-1, LARGEST + 1):
        with pytest.raises(ValueError, match="amount"):
            bill_limit.commit_bill(HANDLE, Amount(minor, "CNY"), rand)
