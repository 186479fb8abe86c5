"""Pedersen commitments in G1: ``C = v G + b H``.

Perfectly hiding while the blinding b is secret and uniform; binding under discrete logarithms, since
H is hashed to the curve and nobody knows its logarithm to the standard generator G. Additively
homomorphic: the sum of commitments opens to the sums.

Binding holds mod `R` only: a commitment to R - 1 is one to -1. Whoever needs an integer adds a range
proof (`zkp.range_proof`).

Spec: Pedersen 1991; H is RFC 9380 hash-to-curve of ``H`` under domain PEDERSEN_GENERATOR.
"""

from __future__ import annotations

from typing import Final

from wire.domains import PEDERSEN_GENERATOR
from wire.errors import VerificationError
from zkp.batch import Family
from zkp.groups import Backend, Point, R, backend


def _make(group: Backend, index: int) -> Point:
    if index > 1:
        raise ValueError("Pedersen commitments have two generators")
    return group.hash_to_point(PEDERSEN_GENERATOR, b"H") if index else group.generator()


GENERATORS: Final = Family("pedersen/v1", _make)

G: Final = (GENERATORS, 0)
"""The base of values, for formal sums: the standard generator."""

H: Final = (GENERATORS, 1)
"""The base of blindings, for formal sums."""


def generator_g(group: Backend) -> Point:
    """G as a point."""
    return GENERATORS.point(group, 0)


def generator_h(group: Backend) -> Point:
    """H as a point."""
    return GENERATORS.point(group, 1)


def commit(value: int, blinding: int, group: Backend | None = None) -> Point:
    """The commitment to `value` (secret, 0..R-1) under `blinding` (secret, 0..R-1, uniform).

    ValueError outside these ranges: reduction would commit to another integer.
    """
    if not (0 <= value < R and 0 <= blinding < R):
        raise ValueError("value and blinding of a commitment are in 0..R-1")
    group = group or backend()
    return group.msm([generator_g(group), generator_h(group)], [value, blinding])


def check_opening(commitment: Point, value: int, blinding: int, group: Backend | None = None) -> None:
    """Check that `commitment` opens to `value` under `blinding` (both secret). Raises VerificationError."""
    if not (0 <= value < R and 0 <= blinding < R) or commit(value, blinding, group) != commitment:
        raise VerificationError("zkp.wrong_opening")
