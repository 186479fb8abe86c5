"""Sigma and range proofs in one transcript and one check, as the protocols above use them: mutations, batches."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.errors import DecodeError, MedveilError, VerificationError
from zkp import pedersen, range_proof, sigma
from zkp.batch import Check, Sum, bad_ones, settle
from zkp.groups import Backend, Point, R, backend
from zkp.range_proof import Bound
from zkp.sigma import OneOf, Relation, SigmaProof, Statement
from zkp.transcript import Transcript

GROUP = backend()
CAP = 1000
BOUNDS = [Bound(0, 5000), Bound(0, 5000)]


def rand_of(seed: int) -> Callable[[int], bytes]:
    count = 0

    def rand(length: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"{seed}/{count}".encode()).digest(length)

    return rand


def started(nonce: bytes, group: Backend, points: list[Point]) -> Transcript:
    transcript = Transcript(b"test/min")
    transcript.append_bytes(b"nonce", nonce)
    transcript.append_integer(b"cap", CAP)
    for point in points:
        transcript.append_point(b"C", group.encode(point))
    return transcript


def rules(value: Point, paid: Point) -> tuple[Statement, list[Sum]]:
    """paid = min(value, cap): two openings, one of two zeros, both differences in range."""
    differences: list[Sum] = [[(1, value), (-1, paid)], [(CAP, pedersen.G), (-1, paid)]]
    statement = [
        Relation(b"value", [("v", [(1, pedersen.G)]), ("rv", [(1, pedersen.H)])], [(1, value)]),
        Relation(b"paid", [("m", [(1, pedersen.G)]), ("rm", [(1, pedersen.H)])], [(1, paid)]),
        OneOf(b"min", [Relation(b"zero", [("b", [(1, pedersen.H)])], difference) for difference in differences]),
    ]
    return statement, differences


def made(value: int, paid: int, nonce: bytes, seed: int = 1, group: Backend = GROUP) -> bytes:
    """What crosses: two commitments, the sigma proof (4 points, 7 scalars), the range proof."""
    rv, rm = 111 + seed, 222 + seed
    points = [pedersen.commit(value, rv, group), pedersen.commit(paid, rm, group)]
    statement, differences = rules(*points)
    transcript = started(nonce, group, points)
    true = int(value > CAP)
    witness = {"v": value, "rv": rv, "m": paid, "rm": rm, "b": [rv - rm, -rm][true]}
    proof = sigma.prove(transcript, statement, witness, rand_of(seed), group, {b"min": true})
    shown = range_proof.prove(
        transcript, differences, [value - paid, CAP - paid], [rv - rm, -rm], BOUNDS, rand_of(seed), group
    )
    return b"".join(map(group.encode, points)) + proof.commitments + proof.responses + shown


def taken_apart(data: bytes, nonce: bytes, group: Backend = GROUP) -> Check:
    points = [group.decode(data[:48]), group.decode(data[48:96])]
    statement, differences = rules(*points)
    commitments, responses = sigma.proof_bytes(statement)
    at = 96 + commitments + responses
    transcript, check = started(nonce, group, points), Check(group)
    sigma.verify(transcript, statement, SigmaProof(data[96 : 96 + commitments], data[96 + commitments : at]), check)
    range_proof.verify(transcript, differences, BOUNDS, data[at:], check)
    return check


@pytest.mark.parametrize("value", [0, 1, CAP - 1, CAP, CAP + 1, 4000])
def test_min(value: int) -> None:
    data = made(value, min(value, CAP), b"")
    settle([taken_apart(data, b"")], GROUP)
    with pytest.raises(VerificationError):
        settle([taken_apart(data, b"another")], GROUP)


def test_the_reference_accepts_the_same_proofs(reference: Backend) -> None:
    proofs = [made(value, min(value, CAP), b"") for value in (CAP - 1, CAP + 1)]
    settle([taken_apart(data, b"", reference) for data in proofs], reference)
    mixed = [taken_apart(proofs[0], b"", reference), taken_apart(proofs[1], b"another", reference)]
    assert bad_ones(mixed, reference) == [1]


@pytest.mark.parametrize("value, paid", [(500, 499), (500, 0), (4000, 999), (CAP, CAP - 1)])
def test_less_than_the_minimum(value: int, paid: int) -> None:
    """Both differences are in range, but neither is zero: the OR refuses."""
    with pytest.raises(VerificationError):
        settle([taken_apart(made(value, paid, b""), b"")], GROUP)


def test_parts_of_two_proofs_do_not_mix() -> None:
    one, two = made(500, 500, b"", seed=1), made(500, 500, b"", seed=2)
    same = made(500, 500, b"", seed=1)
    assert one == same
    for cut in (48, 96, 96 + 4 * 48, 96 + 4 * 48 + 7 * 32, len(one) - 9 * 32):
        with pytest.raises(VerificationError):
            settle([taken_apart(one[:cut] + two[cut:], b"")], GROUP)


def mutations(data: bytes, count: int) -> Iterator[bytes]:
    """Bit flips, other bytes, swapped fields, cuts, extensions, x + R, negations, identities."""
    dice = random.Random(20261122)
    scalars = [96 + 4 * 48 + 32 * i for i in range(7)] + [len(data) - 32 * i for i in range(1, 10)]
    points = [48 * i for i in range(6)]
    for _ in range(count):
        changed = bytearray(data)
        at = dice.randrange(len(data))
        kind = dice.randrange(9)
        if kind == 0:
            changed[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            changed[at] = (changed[at] + dice.randrange(1, 256)) % 256
        elif kind == 2:
            one, other = dice.sample(points, 2)
            changed[one : one + 48], changed[other : other + 48] = data[other : other + 48], data[one : one + 48]
        elif kind == 3:
            one, other = dice.sample(scalars, 2)
            changed[one : one + 32], changed[other : other + 32] = data[other : other + 32], data[one : one + 32]
        elif kind == 4:
            del changed[at : at + dice.randrange(1, 60)]
        elif kind == 5:
            changed[at:at] = dice.randbytes(dice.randrange(1, 60))
        elif kind == 6:
            place = dice.choice(scalars)
            scalar = int.from_bytes(data[place : place + 32], "big")
            other = dice.choice([(-scalar) % R, (scalar + 1) % R, R, scalar + R if scalar + R < 2**256 else R + 1])
            changed[place : place + 32] = other.to_bytes(32, "big")
        elif kind == 7:
            place = dice.choice(points)
            changed[place : place + 48] = bytes([dice.choice([0xC0, 0xE0, 0x80, 0])]) + bytes(47)
        else:
            place = dice.choice(points)
            changed[place] ^= 0x20  # the sign of y: -P
        if bytes(changed) != data:
            yield bytes(changed)


def test_500_mutations() -> None:
    data = made(700, 700, b"nonce")
    codes = set()
    for changed in mutations(data, 500):
        try:
            settle([taken_apart(changed, b"nonce")], GROUP)
        except MedveilError as error:
            assert type(error) in (VerificationError, DecodeError)
            codes.add(error.code)
        else:
            pytest.fail("a changed proof was accepted")
    assert codes == {
        "zkp.bad_proof",
        "zkp.proof_length",
        "zkp.malformed_proof",
        "zkp.bad_point",
        "zkp.identity_point",
    }


def test_a_batch_names_the_bad_proofs() -> None:
    proofs = [made(200 * i, min(200 * i, CAP), bytes([i]), seed=i) for i in range(8)]
    checks = [taken_apart(data, bytes([i])) for i, data in enumerate(proofs)]
    settle(checks, GROUP)
    for bad in ([3], [0, 7], [1, 2, 3]):
        mixed = [taken_apart(proofs[i], bytes([i + (i in bad)])) for i in range(8)]
        assert bad_ones(mixed, GROUP) == bad
    assert bad_ones([checks[0], checks[0]], GROUP) == [], "the same proof twice is no error of the batch"


@settings(max_examples=25)
@given(st.data())
def test_random_linear_statements(data: st.DataObject) -> None:
    """Any relations over any formal sums hold for their witness, and for no other target."""
    number = st.integers(0, R - 1) | st.sampled_from([0, 1, R - 1])
    names = [f"w{i}" for i in range(data.draw(st.integers(1, 4)))]
    witness = {name: data.draw(number) for name in names}
    points = [GROUP.mul(GROUP.generator(), i + 2) for i in range(3)]
    bases = [pedersen.G, pedersen.H, *points]
    statement, targets = [], []
    for place in range(data.draw(st.integers(1, 4))):
        used = data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=4))
        terms = [
            (name, [(data.draw(st.integers(1, 5) | number), data.draw(st.sampled_from(bases))) for _ in range(2)])
            for name in used
        ]
        total = GROUP.identity()
        for name, formal in terms:
            for coefficient, base in formal:
                point = base[0].point(GROUP, base[1]) if isinstance(base, tuple) else base
                total = GROUP.add(total, GROUP.mul(point, witness[name] * coefficient))
        if GROUP.is_identity(total):
            return
        targets.append(total)
        statement.append(Relation(b"r%d" % place, terms, [(1, total)]))
    transcript, check = Transcript(b"random"), Check(GROUP)
    try:
        proof = sigma.prove(transcript, statement, witness, bytes)
    except VerificationError:
        return  # a T that is the identity: coefficients that cancel
    sigma.verify(Transcript(b"random"), statement, proof, check)
    settle([check], GROUP)
    off = data.draw(st.integers(0, len(statement) - 1))
    wrong = [*statement]
    wrong[off] = Relation(wrong[off].label, wrong[off].terms, [(1, targets[off]), (1, pedersen.H)])
    forged = sigma.prove(Transcript(b"random"), wrong, witness, bytes)
    check = Check(GROUP)
    sigma.verify(Transcript(b"random"), wrong, forged, check)
    with pytest.raises(VerificationError):
        settle([check], GROUP)
