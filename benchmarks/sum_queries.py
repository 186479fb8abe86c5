"""A whole query over four sites: what it takes from the first approval to the release, with next to nothing to compute.

Four hospitals and a researcher, whose gateway also orders the ledger, in one process: five members that replay every
block, write their files durably, cosign, and answer each other over a channel in memory, signed and sealed. This is
what the protocol takes, not what gateways take: between processes HTTP over TLS, the steps that each keeps and the
cosigners' ways to the ledger come on top, which `benchmarks.query_processes` measures. 40 rows a hospital, so that
the time is the protocol's: approvals, both phases with their announcements, parties, contributions, survivors and sums
on the ledger, and the checked release.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import msgspec
import pyarrow as pa

from benchmarks.demo import DECLARATION
from benchmarks.measure import Figure, spread
from connectors.dataset import parse_layout
from connectors.layout import Layout, row_class, schema_hash
from ledger.contracts import Column, RegisterDataset, RegisterPopulation, VoteBudget
from ledger.contracts.queries import ApproveQuery
from medveil.consortium import Founder, LocalConsortium, local_consortium
from medveil.demo.grant import PURPOSE, terms
from medveil.demo.query import study_query
from medveil.gateway import granting
from medveil.gateway.asking import ask
from medveil.gateway.query_run import request_session
from medveil.gateway.serving import serve_query
from medveil.gateway.steps import Passing
from medveil.gateway.tables import VaultTables, keep_layout
from mpc.query import Query
from mpc.release import Release
from privacy.grants.terms import SignedGrant

SITES = ("hospital-1", "hospital-2", "hospital-3", "hospital-4")
RESEARCHER = "researcher"
CHAIN = "bench"
ROWS = 40
BUDGET = 10**12
UNCOUNTED = 3
"""Queries before those that are counted: what a process does once."""


def run(quick: bool) -> Iterator[Figure]:
    """No peer: nothing else does this job."""
    with TemporaryDirectory(prefix="medveil-bench-") as folder:
        overheads, wholes = asyncio.run(_measured(Path(folder) / "consortium", 2 if quick else 15))
    yield Figure("query_overhead_ms", median(overheads), "ms", spread=spread(overheads), rounds=len(overheads))
    yield Figure("query_whole_ms", median(wholes), "ms", spread=spread(wholes), rounds=len(wholes))


def _now() -> int:
    return time.time_ns() // 1_000_000


async def _measured(folder: Path, rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds from the first approval to the release, and from the proposal on."""
    founders = (*(Founder(name, ("hospital",)) for name in SITES), Founder(RESEARCHER, ("researcher",)))
    founded = local_consortium(
        folder, CHAIN, founders, RESEARCHER, "Asia/Shanghai", secrets.token_bytes, _now, answering=False
    )
    overheads, wholes = [], []
    async with founded as consortium:
        query = await _prepared(consortium, parse_layout(DECLARATION.encode(), "dataset.toml"))
        approved = _watched(consortium)
        for number in range(UNCOUNTED + rounds):
            # Another question each time: one that was answered is not asked again.
            other = msgspec.structs.replace(query, minimum_group=query.minimum_group + number)
            began = perf_counter()
            await _asked(consortium, other)
            ended = perf_counter()
            if number >= UNCOUNTED:
                overheads.append((ended - approved[0]) * 1e3)
                wholes.append((ended - began) * 1e3)
            approved.clear()
    return overheads, wholes


async def _prepared(consortium: LocalConsortium, layout: Layout) -> Query:
    """Tables in the vaults, declared and granted to the researcher, a budget; the layout's own study as a query."""
    columns = tuple(Column(c.name, c.kind, c.low, c.high, c.scale, c.values) for c in layout.columns)
    sites = [consortium[name] for name in SITES]
    population = layout.population
    await sites[0].submit(RegisterPopulation(population, layout.unit, layout.rows_per_person, layout.colluders, SITES))
    for site in sites:
        dataset = _dataset(site.name)
        site.vault.ingest(dataset, _table(), schema_hash=schema_hash(layout))
        keep_layout(site.vault, dataset, layout)
        rows = row_class(ROWS)
        await site.submit(
            RegisterDataset(dataset, population, schema_hash(layout), columns, rows, secrets.token_bytes(32))
        )
    await asyncio.gather(*(site.submit(VoteBudget(population, BUDGET)) for site in sites))
    for site in sites:
        name, fields = f"study-{site.name}", ("sex", "visits")
        granted = terms(name, site.name, RESEARCHER, _dataset(site.name), fields, PURPOSE, "query", _now())
        await granting.issue(site, granted, Passing())
        async for sender, session, signed in consortium[RESEARCHER].openings(SignedGrant):
            if isinstance(signed, SignedGrant) and signed.terms.grant == name:
                await consortium[RESEARCHER].forget(session, sender)
                await granting.take(consortium[RESEARCHER], sender, signed)
                break
    return study_query(layout, CHAIN, {site.name: _dataset(site.name) for site in sites}, ROWS, PURPOSE)


def _dataset(site: str) -> str:
    return f"visits-{site}"


def _table() -> pa.Table:
    drawn = secrets.token_bytes(ROWS)
    return pa.table(
        {
            "visits": pa.array([one % 61 for one in drawn], pa.int64()),
            "age": pa.array([one % 100 for one in drawn], pa.int64()),
            "sex": pa.array([("female", "male")[one & 1] for one in drawn]),
        }
    )


def _watched(consortium: LocalConsortium) -> list[float]:
    """When sites began to write their approvals, in order."""
    moments: list[float] = []
    for name in SITES:
        site = consortium[name]

        async def submit(*ops: Any, before: Any = site.submit) -> Any:
            if isinstance(ops[0], ApproveQuery):
                moments.append(perf_counter())
            return await before(*ops)

        site.submit = submit  # type: ignore[method-assign]
    return moments


async def _asked(consortium: LocalConsortium, query: Query) -> None:
    handle, salt = secrets.token_bytes(16), secrets.token_bytes(32)
    parts = (
        serve_query(
            consortium[name],
            RESEARCHER,
            request_session(handle),
            VaultTables.of(consortium[name], _now),
            Passing(),
            _now,
        )
        for name in SITES
    )
    release, *_ = await asyncio.gather(ask(consortium[RESEARCHER], query, handle, salt, Passing()), *parts)
    if not isinstance(release, Release):
        raise AssertionError("the query was not released")
