"""ledger.proof_verifier: proofs of every kind in one batch; the bad ones are named, and spoil no other."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from itertools import permutations

import msgspec
import pytest

from ledger.proof_verifier import Proof, Statement, verify_batch
from tests.zkp.claims import ROW, row, settled
from tests.zkp.holders import rand_of
from tests.zkp.test_eligibility import asked, proved
from tests.zkp.test_reversal import redeemed
from wire.errors import VerificationError
from wire.money import Amount
from zkp import bill_limit, groups
from zkp.batch import BadProofs
from zkp.bill_limit import BillLimit
from zkp.groups import Backend

Pair = tuple[Statement, Proof]


@cache
def limited() -> Pair:
    rand = rand_of("limit")
    bill, opening = bill_limit.commit_bill(bytes(16), Amount(123_456, "CNY"), rand)
    request = bill_limit.LimitRequest("demo", bill.handle, 500_000, "CNY", "insurer-1", bytes(32), "HPAYMT", "grant-1")
    return BillLimit(request, bill), bill_limit.prove(request, bill, opening, rand)


@cache
def every_kind() -> tuple[Pair, ...]:
    """One true proof of each kind, and a second settlement of another shape."""
    plain, _ = settled(row(deductible=0, band_1=0, band_2=0))
    full, _ = settled(ROW)
    taken_back, _ = redeemed()
    return (
        (asked(), proved()),
        (plain.claim, plain),
        (taken_back.redemption, taken_back),
        limited(),
        (full.claim, full),
    )


def verify(pairs: Sequence[Pair], group: Backend | None = None) -> None:
    verify_batch([statement for statement, _ in pairs], [proof for _, proof in pairs], group)


def bad_places(pairs: Sequence[Pair], group: Backend | None = None) -> list[int]:
    try:
        verify(pairs, group)
    except BadProofs as error:
        assert error.code == "zkp.bad_proofs"
        assert error.facts["count"] == len(error.places)
        return list(error.places)
    return []


def false(pair: Pair) -> Pair:
    """A well-formed proof that does not hold: a bit of its last scalar is another."""
    statement, proof = pair
    field = "ranges" if hasattr(proof, "ranges") else "proof"
    data: bytes = getattr(proof, field)
    return statement, msgspec.structs.replace(proof, **{field: data[:-1] + bytes([data[-1] ^ 1])})


def torn(pair: Pair) -> Pair:
    """A proof that cannot be read to its end."""
    statement, proof = pair
    field = "ranges" if hasattr(proof, "ranges") else "proof"
    return statement, msgspec.structs.replace(proof, **{field: getattr(proof, field)[:-1]})


def elsewhere(pair: Pair) -> Pair:
    """A true proof of another statement: the verifier's has another nonce, or limit."""
    statement, proof = pair
    if isinstance(statement, BillLimit):
        request = msgspec.structs.replace(statement.request, limit=statement.request.limit - 1)
        return BillLimit(request, statement.bill), proof
    return msgspec.structs.replace(statement, nonce=b"\7" * 32), proof


def test_all_kinds_together() -> None:
    verify(every_kind())


def test_nothing_to_verify() -> None:
    verify_batch([], [])


def test_by_the_other_backend() -> None:
    pairs = [every_kind()[2], limited(), false(limited())]
    assert bad_places(pairs, groups.backend("reference")) == [2]


@pytest.mark.parametrize("spoil", [false, torn, elsewhere])
@pytest.mark.parametrize("place", range(5))
def test_one_bad_proof_of_each_kind(spoil: object, place: int) -> None:
    assert callable(spoil)
    pairs = list(every_kind())
    pairs[place] = spoil(pairs[place])
    assert bad_places(pairs) == [place]


def test_a_proof_of_another_kind() -> None:
    """Each proof under each statement but its own."""
    pairs = every_kind()
    mixed = [(statement, proof) for at, (statement, _) in enumerate(pairs) for other, (_, proof) in enumerate(pairs)]
    own = [at * (len(pairs) + 1) for at in range(len(pairs))]
    assert bad_places(mixed) == [at for at in range(len(mixed)) if at not in own]


def test_all_are_named_though_the_sentence_names_ten() -> None:
    many = [false(limited()), limited()] * 13
    with pytest.raises(VerificationError) as caught:
        verify(many)
    assert isinstance(caught.value, BadProofs)
    assert caught.value.places == tuple(range(0, 26, 2))
    assert "..." in caught.value.message


def test_the_verdict_does_not_depend_on_order() -> None:
    pairs = [limited(), false(limited()), torn(every_kind()[0]), every_kind()[2]]
    for order in permutations(range(4)):
        assert bad_places([pairs[at] for at in order]) == sorted([order.index(1), order.index(2)])


def test_random_batches() -> None:
    """Any mixture of true, false, torn and misplaced proofs: just those that are not true are named."""
    chance = random.Random(20261122)
    for _ in range(20):
        pairs: list[Pair] = []
        bad: list[int] = []
        for at in range(chance.randrange(1, 12)):
            pair = chance.choice(every_kind())
            spoil = chance.choice([None, None, false, torn, elsewhere])
            if spoil is not None:
                bad.append(at)
                pair = spoil(pair)
            pairs.append(pair)
        assert bad_places(pairs) == bad


def test_errors_of_two_proofs_do_not_cancel() -> None:
    """The last responses of two proofs, off by +1 and -1: their unweighted equations would add up."""
    statement, proof = limited()
    assert isinstance(proof, bill_limit.Presentation)
    other = []
    for step in (1, groups.R - 1):
        scalar = (int.from_bytes(proof.proof[-32:], "big") + step) % groups.R
        changed = proof.proof[:-32] + scalar.to_bytes(32, "big")
        other.append((statement, msgspec.structs.replace(proof, proof=changed)))
    assert bad_places(other) == [0, 1]


def test_as_many_proofs_as_statements() -> None:
    statement, proof = limited()
    with pytest.raises(ValueError, match="1 statements but 0 proofs"):
        verify_batch([statement], [])
    with pytest.raises(ValueError, match="1 statements but 2 proofs"):
        verify_batch([statement], [proof, proof])


def test_a_contract_can_import_it() -> None:
    """No engine's I/O comes with it, nor the reference backend, which is loaded when it is asked for."""
    program = (
        "import sys, ledger.proof_verifier\n"
        "print(sorted({'asyncio', 'sqlite3', 'duckdb', 'py_ecc'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
