"""zkp.range_proof: complete, sound against the attacks we know, strict about every byte."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.errors import Refused, VerificationError
from zkp import pedersen, range_proof
from zkp.groups import POINT_BYTES, Backend, Point, R, backend
from zkp.transcript import Transcript

Seeded = Callable[[int], Callable[[int], bytes]]

GROUP = backend()


def transcript(statement: bytes = b"statement") -> Transcript:
    result = Transcript(b"test")
    result.append_bytes(b"statement", statement)
    return result


def commitments(values: list[int], blindings: list[int], group: Backend = GROUP) -> list[Point]:
    return [pedersen.commit(v % R, b, group) for v, b in zip(values, blindings, strict=True)]


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_true_statements_hold(data: st.DataObject) -> None:
    bits = data.draw(st.sampled_from([8, 16, 32]))
    count = data.draw(st.sampled_from([1, 2]))
    edge = st.sampled_from([0, 1, 2**bits - 1])
    values = data.draw(st.lists(st.integers(0, 2**bits - 1) | edge, min_size=count, max_size=count))
    blindings = data.draw(st.lists(st.integers(0, R - 1), min_size=count, max_size=count))
    if (0, 0) in zip(values, blindings, strict=True):
        return  # the identity is no commitment: see below
    proof = range_proof.prove(transcript(), values, blindings, bits, bytes)
    assert len(proof) == range_proof.proof_bytes(bits, count)
    range_proof.verify(transcript(), commitments(values, blindings), bits, proof)


@pytest.mark.parametrize("bits, count, length", [(64, 1, 928), (64, 2, 1024), (32, 8, 1120), (8, 16, 1024)])
def test_sizes(bits: int, count: int, length: int, seeded: Seeded) -> None:
    values, blindings = [2**bits - 1 - i for i in range(count)], list(range(1, count + 1))
    proof = range_proof.prove(transcript(), values, blindings, bits, seeded(1))
    assert len(proof) == length == range_proof.proof_bytes(bits, count)
    range_proof.verify(transcript(), commitments(values, blindings), bits, proof)


@pytest.mark.parametrize("value", [-1, 256, R - 1, R, R + 5, 2**64])
def test_the_prover_refuses_false_statements(value: int, seeded: Seeded) -> None:
    with pytest.raises(Refused) as caught:
        range_proof.prove(transcript(), [7, value], [1, 2], 8, seeded(1))
    assert caught.value.code == "zkp.out_of_range"
    assert str(value) not in caught.value.message.replace("8 bits", "")


@pytest.mark.parametrize("value", [-1, 256, 257, 511, R - 1, R - 256, 2**64, R // 2])
def test_a_cheating_prover_gets_nowhere(value: int, seeded: Seeded) -> None:
    """The honest steps on a value out of range (its low bits, or R - 1 for -1): the verifier refuses."""
    values, blindings = [7, value], [11, 12]
    proof = range_proof._prove(transcript(), values, blindings, 8, seeded(1), GROUP)
    with pytest.raises(VerificationError) as caught:
        range_proof.verify(transcript(), commitments(values, blindings), 8, proof)
    assert caught.value.code == "zkp.bad_range_proof"


def test_a_value_of_another_width(seeded: Seeded) -> None:
    """A 16-bit proof does not pass for two of 8 bits, or the other way round (the same length)."""
    proof = range_proof.prove(transcript(), [700], [5], 16, seeded(1))
    assert range_proof.proof_bytes(16, 1) == range_proof.proof_bytes(8, 2) == len(proof)
    range_proof.verify(transcript(), commitments([700], [5]), 16, proof)
    with pytest.raises(VerificationError):
        range_proof.verify(transcript(), commitments([700 % 256, 700 // 256], [5, 0]), 8, proof)


def test_statement_is_bound(seeded: Seeded) -> None:
    proof = range_proof.prove(transcript(b"one"), [1, 2], [3, 4], 8, seeded(1))
    one, two = commitments([1, 2], [3, 4])
    range_proof.verify(transcript(b"one"), [one, two], 8, proof)
    for said, points in [
        (b"two", [one, two]),
        (b"one", [two, one]),
        (b"one", [one, one]),
        (b"one", [one, GROUP.neg(two)]),
        (b"one", commitments([1, 2], [3, 5])),
        (b"one", commitments([1, 3], [3, 4])),
    ]:
        with pytest.raises(VerificationError) as caught:
            range_proof.verify(transcript(said), points, 8, proof)
        assert caught.value.code == "zkp.bad_range_proof"


def test_commitments_shifted_after_the_challenge(seeded: Seeded) -> None:
    """Weak Fiat-Shamir: the equation fixes z^2 V_1 + z^3 V_2 only. Were V not in the transcript, the
    proof would hold as well for V_1 + z D and V_2 - D with any D, that is for amounts of any size."""
    proof = range_proof.prove(transcript(), [1, 2], [3, 4], 8, seeded(1))
    one, two = commitments([1, 2], [3, 4])
    replay = transcript()
    range_proof._start(replay, 8, [GROUP.encode(one), GROUP.encode(two)])
    replay.append_point(b"A", proof[:48])
    replay.append_point(b"S", proof[48:96])
    replay.challenge(b"y")
    z = replay.challenge(b"z")
    shift = GROUP.generator()
    forged = [GROUP.add(one, GROUP.mul(shift, z)), GROUP.add(two, GROUP.neg(shift))]
    with pytest.raises(VerificationError) as caught:
        range_proof.verify(transcript(), forged, 8, proof)
    assert caught.value.code == "zkp.bad_range_proof"


def test_shape_and_commitments_are_in_the_transcript() -> None:
    one, two = (GROUP.encode(point) for point in commitments([1, 2], [3, 4]))
    challenges = set()
    for bits, encoded in [(8, [one]), (16, [one]), (8, [two]), (8, [one, two]), (8, [two, one]), (8, [one, one])]:
        said = transcript()
        range_proof._start(said, bits, encoded)
        challenges.add(said.challenge(b"y"))
    assert len(challenges) == 6


def test_identity_is_no_commitment(seeded: Seeded) -> None:
    """Value 0 under blinding 0 hides nothing: refused by both sides."""
    with pytest.raises(VerificationError) as caught:
        range_proof.prove(transcript(), [0], [0], 8, seeded(1))
    assert caught.value.code == "zkp.identity_point"
    proof = range_proof.prove(transcript(), [0], [1], 8, seeded(1))
    with pytest.raises(VerificationError) as caught:
        range_proof.verify(transcript(), [GROUP.identity()], 8, proof)
    assert caught.value.code == "zkp.identity_point"


def refused(proof: bytes, code: str) -> None:
    with pytest.raises(VerificationError) as caught:
        range_proof.verify(transcript(), commitments([1, 2], [3, 4]), 8, proof)
    assert caught.value.code == code


def test_every_byte_counts(seeded: Seeded) -> None:
    proof = range_proof.prove(transcript(), [1, 2], [3, 4], 8, seeded(1))
    for at in range(len(proof)):
        changed = bytearray(proof)
        changed[at] ^= 1 << at % 8
        with pytest.raises(VerificationError):
            range_proof.verify(transcript(), commitments([1, 2], [3, 4]), 8, bytes(changed))


def test_malformed_proofs(seeded: Seeded) -> None:
    proof = range_proof.prove(transcript(), [1, 2], [3, 4], 8, seeded(1))
    for length in (0, 1, len(proof) - 48, len(proof) - 1):
        refused(proof[:length], "zkp.proof_length")
    refused(proof + b"\0", "zkp.proof_length")
    identity = bytes([0xC0]) + bytes(47)
    points = [0, 48, 96, 144] + [4 * 48 + 3 * 32 + 48 * i for i in range(8)]
    for at in points:
        for other in (identity, bytes([0xE0]) + bytes(47), b"\xff" * 48, bytes(48)):
            refused(proof[:at] + other + proof[at + POINT_BYTES :], "zkp.malformed_proof")
    scalars = [4 * 48 + 32 * i for i in range(3)] + [len(proof) - 64, len(proof) - 32]
    for at in scalars:
        value = int.from_bytes(proof[at : at + 32], "big")
        refused(proof[:at] + b"\xff" * 32 + proof[at + 32 :], "zkp.malformed_proof")
        refused(proof[:at] + R.to_bytes(32, "big") + proof[at + 32 :], "zkp.malformed_proof")
        if value + R < 2**256:  # the same scalar in another encoding
            refused(proof[:at] + (value + R).to_bytes(32, "big") + proof[at + 32 :], "zkp.malformed_proof")
        refused(proof[:at] + (-value % R).to_bytes(32, "big") + proof[at + 32 :], "zkp.bad_range_proof")


def test_backends_write_and_accept_the_same_bytes(arkworks: Backend, reference: Backend, seeded: Seeded) -> None:
    values, blindings = [0, 255], [5, R - 1]
    proof = range_proof.prove(transcript(), values, blindings, 8, seeded(1), arkworks)
    assert proof == range_proof.prove(transcript(), values, blindings, 8, seeded(1), reference)
    range_proof.verify(transcript(), commitments(values, blindings, reference), 8, proof, reference)
    changed = proof[:-1] + bytes([proof[-1] ^ 1])
    with pytest.raises(VerificationError):
        range_proof.verify(transcript(), commitments(values, blindings, reference), 8, changed, reference)


def test_fresh_randomness_fresh_proof(seeded: Seeded) -> None:
    """No part of two proofs of one statement is equal; a `rand` that repeats itself repeats the proof only."""
    first, second = (range_proof.prove(transcript(), [9], [8], 8, seeded(seed)) for seed in (1, 2))
    assert not {first[i : i + 48] for i in range(0, 192, 48)} & {second[i : i + 48] for i in range(0, 192, 48)}
    assert range_proof.prove(transcript(), [9], [8], 8, seeded(1)) == first
    other = range_proof.prove(transcript(b"other"), [9], [8], 8, seeded(1))
    assert other[:48] != first[:48]


@pytest.mark.parametrize("bits, count", [(7, 1), (0, 1), (65, 1), (128, 1), (8, 0), (8, 3), (8, 32)])
def test_shapes_are_a_callers_bug(bits: int, count: int) -> None:
    with pytest.raises(ValueError, match="a range proof is over"):
        range_proof.proof_bytes(bits, count)
    with pytest.raises(ValueError, match="a range proof is over"):
        range_proof.prove(transcript(), [0] * count, [1] * count, bits, bytes)
    with pytest.raises(ValueError, match="a range proof is over"):
        range_proof.verify(transcript(), [GROUP.generator()] * count, bits, b"")


def test_one_blinding_a_value() -> None:
    with pytest.raises(ValueError, match="blindings"):
        range_proof.prove(transcript(), [1, 2], [3], 8, bytes)


def test_generators_are_independent(either: Backend) -> None:
    bases_g, bases_h = range_proof._generators(either.name, 16)
    encoded = {either.encode(point) for point in [*bases_g, *bases_h]}
    encoded |= {either.encode(pedersen.generator_g(either)), either.encode(pedersen.generator_h(either))}
    assert len(encoded) == 34
