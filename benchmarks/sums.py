"""Secure sums: commitments beside the bare multi-scalar multiplication, a whole sum beside adding in the clear."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator

import numpy
from py_arkworks_bls12381 import G1Point, Scalar

from benchmarks.machine import peer
from benchmarks.measure import Figure, compare
from mpc import secure_aggregation as sums
from mpc.vector_commitment import blinding_generator, commit, generators
from wire.signing import Signer
from zkp.groups import R, backend

SITES = ("hospital-1", "hospital-2", "hospital-3", "hospital-4")


def secure_sum(signers: dict[str, Signer], vectors: dict[str, list[int]], query: bytes) -> tuple[int, ...]:
    """One whole phase among all parties in this process, without ledger and channel."""
    members = {site: signer.key for site, signer in signers.items()}
    session = sums.SumSession("bench", query, bytes(32), 1, SITES, bytes(32), len(vectors[SITES[0]]))
    started = {
        site: sums.start(session, site, vectors[site], signers[site], members, secrets.token_bytes) for site in SITES
    }
    keys = [key for _, key in started.values()]
    collecting = sums.collect(session, members, keys)
    announced = {site: state.receive(keys) for site, (state, _) in started.items()}
    announcements = [announcement for _, announcement in announced.values()]
    contributed = {site: state.receive(announcements) for site, (state, _) in announced.items()}
    contributions = tuple(contribution for _, contribution in contributed.values())
    survivors = sums.Survivors(session.query, 1, SITES, contributions)
    for state, _ in contributed.values():
        collecting = collecting.receive(state.receive(survivors)[1])
    return collecting.finish(survivors).totals


def run(quick: bool) -> Iterator[Figure]:
    """Four sites; 64 cells, about what the demo's query has, and 4,096."""
    for cells in (64, 256) if quick else (64, 4096):
        vectors = {site: [secrets.randbelow(2**40) for _ in range(cells)] for site in SITES}
        # The generators are made once a process: not part of either side.
        same = (*generators(cells), blinding_generator())
        points = [G1Point.from_compressed_bytes(backend().encode(point)) for point in same]
        values = vectors[SITES[0]]
        blinding = secrets.randbelow(R)
        scalars = [Scalar(value) for value in (*values, blinding)]

        def bare(points: list[G1Point] = points, scalars: list[Scalar] = scalars) -> None:
            G1Point.multiexp_unchecked(points, scalars)

        def ours(values: list[int] = values, blinding: int = blinding) -> None:
            commit(values, blinding)

        arkworks = peer("py-arkworks-bls12381", "bare msm")
        yield compare(f"commit-{cells}", "ms", arkworks, ours, bare, quick)

        signers = {site: Signer(hashlib.sha256(site.encode()).digest()) for site in SITES}
        arrays = [numpy.array(vectors[site], dtype=numpy.int64) for site in SITES]
        plain = tuple(int(total) for total in sum(arrays))  # type: ignore[union-attr]
        assert secure_sum(signers, vectors, secrets.token_bytes(16)) == plain

        def whole(signers: dict[str, Signer] = signers, vectors: dict[str, list[int]] = vectors) -> None:
            secure_sum(signers, vectors, secrets.token_bytes(16))

        def in_the_clear(arrays: list[numpy.ndarray[tuple[int], numpy.dtype[numpy.int64]]] = arrays) -> None:
            sum(arrays)

        clear = peer("numpy", "adding in the clear")
        yield compare(f"four-sites-{cells}", "ms", clear, whole, in_the_clear, quick)
