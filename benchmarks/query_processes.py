"""A whole query over four sites whose gateways are processes of their own: what `benchmarks.sum_queries` measures over
memory, here over TLS.

Five `medveil serve`, founded and started as `medveil up` does it: four hospitals, and the researcher's, which also
orders the ledger. Mutual TLS between them; each writes its steps and its ledger durably. The researcher's colleague
asks over HTTPS, as a signed-in person, and has the release when the client has checked it. That is more than from the
approval to the receipt: the question's own way, the proposal and the client's looks at the job are in it. Five
gateways and the client share the cores of this machine, of which a real site has its own: with two, this is above all
the processor's time of all gateways together.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, time_ns

import msgspec

from benchmarks.demo import DECLARATION, small_folder
from benchmarks.measure import Figure, spread
from benchmarks.sum_queries import BUDGET, CHAIN, RESEARCHER, ROWS, SITES, UNCOUNTED
from connectors.dataset import parse_layout
from connectors.sources import load_sources
from ledger.contracts import RegisterPopulation
from medveil.consortium import Founder
from medveil.demo.desk import Desk
from medveil.demo.grant import PURPOSE, terms
from medveil.demo.query import study_query
from medveil.local.desk import process_desks
from mpc.query import Query


def run(quick: bool) -> Iterator[Figure]:
    """No peer: nothing else does this job. Not in a quick run: to found and start gateways takes half a minute."""
    if quick:
        return
    with TemporaryDirectory(prefix="medveil-bench-") as folder:
        times = asyncio.run(_measured(Path(folder), 15))
    shared = f"{len(SITES) + 1} gateways and a client on {os.cpu_count()} cores"
    yield Figure("query_overhead_processes_ms", median(times), "ms", shared, None, spread(times), len(times))


async def _measured(folder: Path, rounds: int) -> list[float]:
    """Milliseconds from a question to its checked release."""
    data = small_folder(folder / "data", ("east", "north", "south", "west"))
    founders = (Founder(RESEARCHER, ("researcher",)), *(Founder(name, ("hospital",)) for name in SITES))
    running = process_desks(
        folder / "consortium", founders, RESEARCHER, CHAIN, "Asia/Shanghai", data, lambda sentence: None
    )
    times = []
    async with running as (desks, _):
        query = await _prepared(desks, data)
        for number in range(UNCOUNTED + rounds):
            # Another question each time: one that was answered is not asked again.
            other = msgspec.structs.replace(query, minimum_group=query.minimum_group + number)
            began = perf_counter()
            await desks[RESEARCHER].ask(other)
            if number >= UNCOUNTED:
                times.append((perf_counter() - began) * 1e3)
    return times


async def _prepared(desks: dict[str, Desk], data: Path) -> Query:
    """Tables loaded and granted to the researcher, and a budget; the layout's own study as a query."""
    layout = parse_layout(DECLARATION.encode(), "dataset.toml")
    population = layout.population
    await desks[SITES[0]].register_population(
        RegisterPopulation(population, layout.unit, layout.rows_per_person, layout.colluders, SITES)
    )
    for site in SITES:
        await desks[site].vote(population, BUDGET)
    datasets = {site: f"{layout.name}-{site}" for site in SITES}
    for site, (source, _, table) in zip(SITES, load_sources(data), strict=True):
        await desks[site].load(datasets[site], layout, table, source)
        granted = terms(
            f"study-{site}", site, RESEARCHER, datasets[site], ("sex", "visits"), PURPOSE, "query", time_ns() // 10**6
        )
        await desks[site].issue(granted)
    return study_query(layout, CHAIN, datasets, ROWS, PURPOSE)
