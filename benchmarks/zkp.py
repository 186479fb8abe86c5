"""The proof that a bill is within a limit, beside the bare multi-scalar multiplications it consists of."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from py_arkworks_bls12381 import G1Point, Scalar

from benchmarks.machine import peer
from benchmarks.measure import Figure, compare
from wire.money import Amount
from zkp.bill_limit import BITS, PROOF_BYTES, LimitRequest, commit_bill, prove, verify
from zkp.groups import R

Step = tuple[list[G1Point], list[Scalar]]


def bare(sizes: list[int]) -> list[Step]:
    """Random points and full-length scalars for multiplications of these sizes."""
    base = G1Point()
    points = [base * Scalar(secrets.randbelow(R)) for _ in range(max(sizes))]
    return [(points[:size], [Scalar(secrets.randbelow(R)) for _ in range(size)]) for size in sizes]


def run(quick: bool) -> Iterator[Figure]:
    """Prove, verify, size: one aggregated range proof of 2 x 64 bits."""
    bill, opening = commit_bill(bytes(16), Amount(123_456, "CNY"), secrets.token_bytes)
    request = LimitRequest(
        "bench", bill.handle, 500_000, "CNY", "insurer-1", secrets.token_bytes(32), "HPAYMT", "grant-1"
    )
    presentation = prove(request, bill, opening, secrets.token_bytes)
    size, rounds = 2 * BITS, (2 * BITS).bit_length() - 1

    # The prover: A and S over 2 size + 1 points, then L and R over size + 1 in each round.
    proving = bare([2 * size + 1] * 2 + [size + 1] * 2 * rounds)
    # The verifier: one multiplication over 2 size + 2 rounds + 2 + 6 points.
    verifying = bare([2 * size + 2 * rounds + 8])

    def multiply(steps: list[Step]) -> None:
        for points, scalars in steps:
            G1Point.multiexp_unchecked(points, scalars)

    arkworks = peer("py-arkworks-bls12381", "bare msm")
    yield compare(
        "bill-limit.prove",
        "ms",
        arkworks,
        lambda: prove(request, bill, opening, secrets.token_bytes),
        lambda: multiply(proving),
        quick,
    )
    yield compare(
        "bill-limit.verify",
        "ms",
        arkworks,
        lambda: verify(presentation, request, bill),
        lambda: multiply(verifying),
        quick,
    )
    yield Figure("bill-limit.proof", PROOF_BYTES, "bytes")
