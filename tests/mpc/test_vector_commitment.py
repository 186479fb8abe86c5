"""mpc.vector_commitment: pinned generators, additivity, strict points, two curve libraries."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.generator_table import blinding_generator, generators
from mpc.vector_commitment import check_sum, commit
from wire.errors import DecodeError, MedveilError, VerificationError
from zkp.groups import R, backend

VECTORS = ((1, 2, 3), (2**62, 0, 5), (7, 2**50, 0))
BLINDINGS = (11, R - 1, 2**200)


def committed() -> list[bytes]:
    return [commit(values, blinding) for values, blinding in zip(VECTORS, BLINDINGS, strict=True)]


def totals() -> tuple[list[int], int]:
    return [sum(column) for column in zip(*VECTORS, strict=True)], sum(BLINDINGS) % R


def test_the_generators_are_pinned():
    curve = backend()
    table = b"".join(curve.encode(point) for point in (*generators(64), blinding_generator()))
    assert hashlib.sha256(table).hexdigest() == "347e6034aefd29cb661869a63c966b8f2f48fadf6c0b92cfb5f983b11820df6b"
    assert len({table[i : i + 48] for i in range(0, len(table), 48)}) == 65


def test_generators_grow_without_changing():
    short = generators(3)
    assert generators(80)[:3] == short
    with pytest.raises(ValueError, match="at most"):
        generators(2**17 + 1)


@pytest.mark.parametrize("name", ["arkworks", "reference"])
def test_the_sum_of_commitments_commits_to_the_sum(name):
    values, blinding = totals()
    check_sum(committed(), values, blinding, name)
    check_sum(committed()[::-1], values, blinding, name)


def test_two_libraries_agree():
    for values, blinding in zip(VECTORS, BLINDINGS, strict=True):
        assert commit(values, blinding, "reference") == commit(values, blinding)


@pytest.mark.parametrize("name", ["arkworks", "reference"])
def test_any_other_total_is_refused(name):
    values, blinding = totals()
    for wrong in (
        ([values[0] + 1, *values[1:]], blinding),
        (values, blinding + 1),
        ([values[1], values[0], values[2]], blinding),
        (values[:2], blinding),
        ([values[0] - R, *values[1:]], blinding),
        ([values[0] + R, *values[1:]], blinding),
        (values, blinding + R),
    ):
        with pytest.raises(VerificationError):
            check_sum(committed(), wrong[0], wrong[1], name)
    with pytest.raises(VerificationError):
        check_sum(committed()[:2], values, blinding, name)


def test_trailing_zero_cells_do_not_change_a_commitment_so_lengths_are_checked_elsewhere():
    values, blinding = totals()
    check_sum(committed(), [*values, 0], blinding)  # sound as algebra: check_opening counts the cells


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2), st.integers(0, 47), st.integers(0, 7))
def test_one_flipped_bit_in_a_point_is_refused(which, byte, bit):
    points = committed()
    changed = bytearray(points[which])
    changed[byte] ^= 1 << bit
    points[which] = bytes(changed)
    values, blinding = totals()
    with pytest.raises(MedveilError):
        check_sum(points, values, blinding)


def test_the_identity_and_foreign_bytes_are_no_commitment():
    values, blinding = totals()
    for point in (b"\xc0" + bytes(47), b"", bytes(48), b"\xff" * 48):
        with pytest.raises(DecodeError):
            check_sum([*committed(), point], values, blinding)


def test_secrets_out_of_range_are_a_bug():
    for values, blinding in (((-1,), 1), ((R,), 1), ((1,), R), ((1,), -1)):
        with pytest.raises(ValueError, match="scalars"):
            commit(values, blinding)


def test_equal_values_hide_behind_their_blinding():
    assert commit((1, 2, 3), 5) != commit((1, 2, 3), 6)
    assert commit((), 5) != commit((), 6)
