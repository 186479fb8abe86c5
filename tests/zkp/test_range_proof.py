"""zkp.range_proof: complete, exact, sound against the attacks we know, strict about every byte."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.errors import Refused, VerificationError
from zkp import pedersen, range_proof
from zkp.batch import Check, settle
from zkp.groups import POINT_BYTES, Backend, Point, R, backend
from zkp.range_proof import HIGHEST, Bound
from zkp.sigma import Sum
from zkp.transcript import Transcript

Seeded = Callable[[int], Callable[[int], bytes]]

GROUP = backend()
BYTE = Bound(0, 255)


def transcript(statement: bytes = b"statement") -> Transcript:
    result = Transcript(b"test")
    result.append_bytes(b"statement", statement)
    return result


def commitments(values: list[int], blindings: list[int], group: Backend = GROUP) -> list[Sum]:
    return [[(1, pedersen.commit(v % R, b % R, group))] for v, b in zip(values, blindings, strict=True)]


def prove(
    values: list[int], blindings: list[int], bounds: list[Bound], rand: Callable[[int], bytes], group: Backend = GROUP
) -> bytes:
    return range_proof.prove(
        transcript(), commitments(values, blindings, group), values, blindings, bounds, rand, group
    )


def verify(sums: list[Sum], bounds: list[Bound], proof: bytes, group: Backend = GROUP) -> None:
    check = Check(group)
    range_proof.verify(transcript(), sums, bounds, proof, check)
    settle([check], group)


def forged(values: list[int], bounds: list[Bound], bits: list[int], rand: Callable[[int], bytes]) -> None:
    """A cheating prover runs the honest steps on any `bits`; its commitments are to `values`. Must be refused."""
    blindings = list(range(11, 11 + len(values)))
    sums = commitments(values, blindings)
    proof = range_proof._prove(transcript(), sums, values, blindings, bounds, bits, rand, GROUP)
    with pytest.raises(VerificationError) as caught:
        verify(sums, bounds, proof)
    assert caught.value.code == "zkp.bad_proof"


# ------------------------------------------------------------------------------------------- true statements


@st.composite
def bounds_and_values(draw: st.DrawFn) -> tuple[list[Bound], list[int]]:
    bounds, values = [], []
    for _ in range(draw(st.integers(1, 4))):
        low = draw(st.integers(0, 2**40) | st.sampled_from([0, 1]))
        high = low + draw(st.integers(0, 2**45) | st.sampled_from([0, 1, 2, 3, 254, 255, 256]))
        bounds.append(Bound(low, high))
        values.append(draw(st.integers(low, high) | st.sampled_from([low, high])))
    return bounds, values


@settings(max_examples=25)
@given(bounds_and_values(), st.lists(st.integers(0, R - 1), min_size=4, max_size=4))
def test_true_statements_hold(drawn: tuple[list[Bound], list[int]], blindings: list[int]) -> None:
    bounds, values = drawn
    blindings = [blinding or 1 for blinding in blindings[: len(values)]]
    proof = prove(values, blindings, bounds, bytes)
    assert len(proof) == range_proof.proof_bytes(bounds)
    verify(commitments(values, blindings), bounds, proof)


@pytest.mark.parametrize("span", [*range(40), 255, 256, 999])
def test_subset_sums_are_just_the_bound(span: int) -> None:
    """Exhaustively: the weights reach 0..span and nothing else, and `bits_of` names a subset for each value."""
    bound = Bound(7, 7 + span)
    assert len(bound.weights) == bound.bits == span.bit_length()
    sums = {0}
    for weight in bound.weights:
        sums |= {known + weight for known in sums}
    assert sums == set(range(span + 1))
    for value in range(7, 8 + span):
        bits = bound.bits_of(value)
        assert set(bits) <= {0, 1}
        assert sum(bit * weight for bit, weight in zip(bits, bound.weights, strict=True)) == value - 7


@given(st.integers(0, HIGHEST), st.integers(0, HIGHEST), st.data())
def test_weights_of_any_bound(one: int, other: int, data: st.DataObject) -> None:
    bound = Bound(min(one, other), max(one, other))
    assert sum(bound.weights) == bound.high - bound.low
    assert all(w >= 1 for w in bound.weights)
    value = data.draw(st.integers(bound.low, bound.high))
    bits = bound.bits_of(value)
    assert sum(bit * weight for bit, weight in zip(bits, bound.weights, strict=True)) == value - bound.low


@pytest.mark.parametrize(
    "bounds, length",
    [
        ([Bound(5, 5)], 432),
        ([BYTE], 528),
        ([Bound(0, HIGHEST)], 816),
        ([Bound(0, 2**32 - 1)] * 4, 912),
        ([Bound(0, 2**45 - 1)] * 11, 1104),
        ([Bound(0, HIGHEST)] * 16, 1200),
    ],
)
def test_sizes(bounds: list[Bound], length: int, seeded: Seeded) -> None:
    values = [bound.high - place % 2 * (bound.high > bound.low) for place, bound in enumerate(bounds)]
    blindings = list(range(1, len(bounds) + 1))
    proof = prove(values, blindings, bounds, seeded(1))
    assert len(proof) == length == range_proof.proof_bytes(bounds)
    verify(commitments(values, blindings), bounds, proof)


def test_a_commitment_that_nobody_computes(seeded: Seeded) -> None:
    """1000 k + e - 17 as a formal sum of points and fixed generators: the range is that of the sum."""
    k, e = (pedersen.commit(v, b) for v, b in [(5, 111), (999, 222)])
    formal: Sum = [(1000, k), (1, e), (-17, pedersen.G), (3, pedersen.H)]
    value, blinding = 1000 * 5 + 999 - 17, 1000 * 111 + 222 + 3
    for bound in (Bound(5982, 5982), Bound(0, 5982), Bound(0, 8191)):
        proof = range_proof.prove(transcript(), [formal], [value], [blinding], [bound], seeded(1))
        verify([formal], [bound], proof)
    with pytest.raises(Refused):
        range_proof.prove(transcript(), [formal], [value], [blinding], [Bound(0, 5981)], seeded(1))


# ------------------------------------------------------------------------------------------ false statements


@pytest.mark.parametrize("value", [-1, 2, 256, R - 1, R, R + 5, 2**64])
def test_the_prover_refuses_false_statements(value: int, seeded: Seeded) -> None:
    with pytest.raises(Refused) as caught:
        range_proof.prove(
            transcript(), commitments([7, value], [1, 2]), [7, value], [1, 2], [BYTE, Bound(3, 255)], seeded(1)
        )
    assert caught.value.code == "zkp.out_of_bounds" and caught.value.facts == {"place": 1, "low": 3, "high": 255}


@pytest.mark.parametrize("value", [-1, 256, 257, 511, R - 1, R - 256, 2**64, R // 2])
def test_low_bits_do_not_pass_for_the_value(value: int, seeded: Seeded) -> None:
    forged([7, value], [BYTE, BYTE], BYTE.bits_of(7) + [value >> i & 1 for i in range(8)], seeded(1))


@pytest.mark.parametrize("low, high, value", [(0, 4, 5), (0, 4, 7), (0, 999, 1000), (3, 9, 2), (3, 9, 10), (5, 5, 6)])
def test_bounds_are_exact(low: int, high: int, value: int, seeded: Seeded) -> None:
    """One beyond a bound that is no power of two: whatever subset of the weights the prover shows, it is refused."""
    bound = Bound(low, high)
    for bits in itertools.islice(itertools.product((0, 1), repeat=bound.bits), 8):
        forged([value], [bound], list(bits), seeded(1))


@pytest.mark.parametrize("digit", [2, -1, 3, R - 1, (R + 1) // 2])
def test_a_bit_is_0_or_1(digit: int, seeded: Seeded) -> None:
    """Weights times other digits would reach values outside: a_R = a_L - 1 and a_L a_R = 0 refuse them."""
    bits = [0] * 8
    bits[7] = digit
    forged([128 * digit], [BYTE], bits, seeded(1))


def test_padding_bits_weigh_nothing(seeded: Seeded) -> None:
    """Five bits stand in eight places: the three others cannot carry a value beyond the bound."""
    bound = Bound(0, 31)
    assert range_proof._size([bound]) == 8
    for bits in ([0, 0, 0, 0, 0, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1]):
        forged([sum(bit << i for i, bit in enumerate(bits))], [bound], bits, seeded(1))


def test_values_do_not_trade(seeded: Seeded) -> None:
    """One value too high, the other too low by as much: each has its own power of z."""
    forged([256 + 5, 5 - 256], [BYTE, BYTE], BYTE.bits_of(5) * 2, seeded(1))


def test_other_bounds_of_the_same_length(seeded: Seeded) -> None:
    proof = prove([700], [5], [Bound(0, 2**16 - 1)], seeded(1))
    verify(commitments([700], [5]), [Bound(0, 2**16 - 1)], proof)
    for bounds in ([Bound(0, 2**16 - 2)], [Bound(1, 2**16 - 1)], [Bound(0, 2**15)]):
        assert range_proof.proof_bytes(bounds) == len(proof)
        with pytest.raises(VerificationError):
            verify(commitments([700], [5]), bounds, proof)
    with pytest.raises(VerificationError):
        verify(commitments([700 % 256, 700 // 256], [5, 1]), [BYTE, BYTE], proof)


def test_statement_is_bound(seeded: Seeded) -> None:
    proof = prove([1, 2], [3, 4], [BYTE, BYTE], seeded(1))
    (one,), (two,) = commitments([1, 2], [3, 4])
    verify([[one], [two]], [BYTE, BYTE], proof)
    said = Transcript(b"test")
    said.append_bytes(b"statement", b"another")
    check = Check(GROUP)
    range_proof.verify(said, [[one], [two]], [BYTE, BYTE], proof, check)
    with pytest.raises(VerificationError):
        settle([check], GROUP)
    for sums in [
        [[two], [one]],
        [[one], [one]],
        [[one], [(-1, two[1])]],
        [[one], [(2, two[1])]],
        [[one], [two, (0, one[1])]],  # the same point, said in another way: another statement
        commitments([1, 2], [3, 5]),
        commitments([1, 3], [3, 4]),
    ]:
        with pytest.raises(VerificationError) as caught:
            verify(sums, [BYTE, BYTE], proof)
        assert caught.value.code == "zkp.bad_proof"


def test_commitments_shifted_after_the_challenge(seeded: Seeded) -> None:
    """Weak Fiat-Shamir: the equation fixes z^2 V_1 + z^4 V_2 only. Were V not in the transcript, the
    proof would hold as well for V_1 + z^2 D and V_2 - D with any D, that is for amounts of any size."""
    sums = commitments([1, 2], [3, 4])
    proof = prove([1, 2], [3, 4], [BYTE, BYTE], seeded(1))
    replay = transcript()
    range_proof._start(replay, [BYTE, BYTE], sums)
    replay.append_point(b"A", proof[:48])
    replay.challenge(b"y")
    square = replay.challenge(b"z") ** 2
    shift: Point = GROUP.generator()
    shifted = [[*sums[0], (square, shift)], [*sums[1], (-1, shift)]]
    with pytest.raises(VerificationError) as caught:
        verify(shifted, [BYTE, BYTE], proof)
    assert caught.value.code == "zkp.bad_proof"


def test_bounds_and_commitments_are_in_the_transcript() -> None:
    one, two = commitments([1, 2], [3, 4])
    challenges = set()
    statements: list[tuple[list[Bound], list[Sum]]] = [
        ([BYTE], [one]),
        ([Bound(0, 254)], [one]),
        ([Bound(1, 255)], [one]),
        ([BYTE], [two]),
        ([BYTE] * 2, [one, two]),
        ([BYTE] * 2, [two, one]),
        ([BYTE], [[*one, *two]]),
        ([BYTE], [[(2, one[0][1])]]),
        ([BYTE], [[(1, pedersen.G)]]),
        ([BYTE], [[(1, pedersen.H)]]),
    ]
    for bounds, sums in statements:
        said = transcript()
        range_proof._start(said, bounds, sums)
        challenges.add(said.challenge(b"y"))
    assert len(challenges) == len(statements)


def test_identity_is_no_commitment(seeded: Seeded) -> None:
    """Value 0 under blinding 0 hides nothing: refused by both sides."""
    with pytest.raises(VerificationError) as caught:
        prove([0], [0], [BYTE], seeded(1))
    assert caught.value.code == "zkp.identity_point"
    proof = prove([0], [1], [BYTE], seeded(1))
    with pytest.raises(VerificationError) as caught:
        verify([[(1, GROUP.identity())]], [BYTE], proof)
    assert caught.value.code == "zkp.identity_point"


# ------------------------------------------------------------------------------------------------- bytes


def test_a_checks_digest_covers_the_last_byte(seeded: Seeded) -> None:
    """A batch's weights hang on it: bounds, commitments, every point and every response."""

    def digest(proof: bytes, high: int = 255) -> bytes:
        check = Check(GROUP)
        range_proof.verify(transcript(), commitments([1, 2], [3, 4]), [BYTE, Bound(0, high)], proof, check)
        return check.digest

    proof = prove([1, 2], [3, 4], [BYTE, BYTE], seeded(1))
    digests = {digest(proof), digest(proof, 254)}
    points = len(proof) - 9 * 32
    for at in range(0, points, 48):
        digests.add(digest(proof[:at] + GROUP.encode(GROUP.generator()) + proof[at + 48 :]))
    for at in range(points, len(proof), 32):
        digests.add(digest(proof[:at] + bytes(32) + proof[at + 32 :]))
    assert len(digests) == 2 + points // 48 + 9 and digest(proof) in digests


def test_every_byte_counts(seeded: Seeded) -> None:
    proof = prove([1, 2], [3, 4], [BYTE, BYTE], seeded(1))
    sums = commitments([1, 2], [3, 4])
    for at in range(len(proof)):
        changed = bytearray(proof)
        changed[at] ^= 1 << at % 8
        with pytest.raises(VerificationError):
            verify(sums, [BYTE, BYTE], bytes(changed))


def test_malformed_proofs(seeded: Seeded) -> None:
    proof = prove([1, 2], [3, 4], [BYTE, BYTE], seeded(1))
    sums = commitments([1, 2], [3, 4])

    def refused(changed: bytes, code: str) -> None:
        with pytest.raises(VerificationError) as caught:
            verify(sums, [BYTE, BYTE], changed)
        assert caught.value.code == code

    for length in (0, 1, len(proof) - 48, len(proof) - 1):
        refused(proof[:length], "zkp.proof_length")
    refused(proof + b"\0", "zkp.proof_length")
    identity = bytes([0xC0]) + bytes(47)
    points = (len(proof) - 9 * 32) // 48
    assert points * 48 + 9 * 32 == len(proof) and points == 7
    for at in range(0, 48 * points, 48):
        for other in (identity, bytes([0xE0]) + bytes(47), b"\xff" * 48, bytes(48)):
            refused(proof[:at] + other + proof[at + POINT_BYTES :], "zkp.malformed_proof")
    for at in range(48 * points, len(proof), 32):
        value = int.from_bytes(proof[at : at + 32], "big")
        refused(proof[:at] + b"\xff" * 32 + proof[at + 32 :], "zkp.malformed_proof")
        refused(proof[:at] + R.to_bytes(32, "big") + proof[at + 32 :], "zkp.malformed_proof")
        if value + R < 2**256:  # the same scalar in another encoding
            refused(proof[:at] + (value + R).to_bytes(32, "big") + proof[at + 32 :], "zkp.malformed_proof")
        refused(proof[:at] + (-value % R).to_bytes(32, "big") + proof[at + 32 :], "zkp.bad_proof")


def test_backends_write_and_accept_the_same_bytes(arkworks: Backend, reference: Backend, seeded: Seeded) -> None:
    values, blindings, bounds = [0, 1000], [5, R - 1], [BYTE, Bound(3, 1000)]
    proof = prove(values, blindings, bounds, seeded(1), arkworks)
    assert proof == prove(values, blindings, bounds, seeded(1), reference)
    sums = commitments(values, blindings, reference)
    verify(sums, bounds, proof, reference)
    changed = proof[:-1] + bytes([proof[-1] ^ 1])
    with pytest.raises(VerificationError):
        verify(sums, bounds, changed, reference)


def test_fresh_randomness_fresh_proof(seeded: Seeded) -> None:
    """No part of two proofs of one statement is equal; a `rand` that repeats itself repeats the proof only."""
    first, second = (prove([9], [8], [BYTE], seeded(seed)) for seed in (1, 2))
    pieces = [{proof[i : i + 48] for i in range(0, 240, 48)} for proof in (first, second)]
    assert not pieces[0] & pieces[1]
    assert prove([9], [8], [BYTE], seeded(1)) == first
    other = range_proof.prove(transcript(b"other"), commitments([9], [8]), [9], [8], [BYTE], seeded(1))
    assert other[:48] != first[:48]


# -------------------------------------------------------------------------------------------- callers' bugs


@pytest.mark.parametrize("low, high", [(-1, 5), (6, 5), (0, 2**64), (-5, -1), (R, R + 1)])
def test_bounds_are_a_callers_bug(low: int, high: int) -> None:
    with pytest.raises(ValueError, match="a bound has"):
        Bound(low, high)


@pytest.mark.parametrize("bounds", [[], [Bound(0, HIGHEST)] * 17, [Bound(1, 1)] * 65])
def test_shapes_are_a_callers_bug(bounds: list[Bound]) -> None:
    sums: list[Sum] = [[(1, GROUP.generator())]] * len(bounds)
    with pytest.raises(ValueError, match="a range proof is over"):
        range_proof.proof_bytes(bounds)
    with pytest.raises(ValueError, match="a range proof is over"):
        values = [bound.low for bound in bounds]
        range_proof.prove(transcript(), sums, values, [1] * len(bounds), bounds, bytes)
    with pytest.raises(ValueError, match="a range proof is over"):
        range_proof.verify(transcript(), sums, bounds, b"", Check(GROUP))


def test_one_commitment_and_one_blinding_a_value() -> None:
    with pytest.raises(ValueError, match="blindings"):
        range_proof.prove(transcript(), commitments([1, 2], [3, 4]), [1, 2], [3], [BYTE] * 2, bytes)
    with pytest.raises(ValueError, match="commitments"):
        range_proof.prove(transcript(), commitments([1], [3]), [1, 2], [3, 4], [BYTE] * 2, bytes)
    proof = prove([1, 2], [3, 4], [BYTE] * 2, bytes)
    with pytest.raises(ValueError, match="commitments"):
        range_proof.verify(transcript(), commitments([1], [3]), [BYTE] * 2, proof, Check(GROUP))


def test_generators_are_independent(either: Backend) -> None:
    bases = [*range_proof.BITS_G.points(either, 16), *range_proof.BITS_H.points(either, 16)]
    encoded = {either.encode(point) for point in bases}
    encoded |= {either.encode(pedersen.generator_g(either)), either.encode(pedersen.generator_h(either))}
    assert len(encoded) == 34
