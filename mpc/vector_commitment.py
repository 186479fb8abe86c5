"""Pedersen commitments to vectors: one point for all cells of a contribution.

    Com(u, r) = sum_j u_j G_j + r H

over G1 of BLS12-381, with G_0, G_1, ... and H from `mpc.generator_table`. Perfectly hiding while r is
uniform and secret; binding under discrete logarithms. Commitments add up: the sum of all sites'
points commits to the sum of their vectors under the sum of their blindings.

Cells are integers below the group's order: the commitment is to the integer itself, not to its
lane mod 2^64. Public: generators, points. Secret: u, r.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpc.generator_table import blinding_generator, generators
from wire.errors import VerificationError
from zkp.groups import ARKWORKS, R
from zkp.groups import backend as group


def commit(values: Sequence[int], blinding: int, backend: str = ARKWORKS) -> bytes:
    """The 48-byte commitment (public) to `values` under `blinding` (both secret), ints in [0, R)."""
    if not 0 <= blinding < R or any(not 0 <= value < R for value in values):
        raise ValueError("values and blinding are scalars in [0, R)")
    curve = group(backend)
    points = (*generators(len(values), backend), blinding_generator(backend))
    return curve.encode(curve.msm(points, (*values, blinding)))


def check_sum(points: Sequence[bytes], totals: Sequence[int], blinding: int, backend: str = ARKWORKS) -> None:
    """Check sum_i C_i = Com(totals, blinding). Anyone can. Raises VerificationError or DecodeError.

    points: the sites' commitments as the ledger has them; a point off the curve, outside the
    subgroup, not canonically encoded or the identity is a DecodeError.
    """
    curve = group(backend)
    pooled = curve.identity()
    for point in points:
        pooled = curve.add(pooled, curve.decode(point))
    if not 0 <= blinding < R or any(not 0 <= total < R for total in totals):
        raise VerificationError("mpc.sum_mismatch")
    if curve.encode(pooled) != commit(totals, blinding, backend):
        raise VerificationError("mpc.sum_mismatch")
