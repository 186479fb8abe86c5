"""A gateway that asks or answers queries until it is killed; run as a script, imported by nobody.

    python summing.py HOME LOG [QUERY]

It serves the home and answers what others ask. With QUERY (a file with a canonical query) it asks it, again and
again: LOG gets "asking NUMBER", then "released NUMBER HANDLE" or "failed NUMBER CODE". "serving" comes first.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import time
from pathlib import Path

from medveil.gateway.asking import ask
from medveil.gateway.reception import AtHome
from medveil.gateway.tables import VaultTables
from medveil.gateway.wallets import Wallets
from medveil.service.api.events import Streams
from medveil.service.gateway import Gateway
from medveil.service.home.home import Home
from medveil.service.logs import Vocabulary, make_log
from medveil.service.metrics import Metrics
from medveil.service.traces import make_traces
from medveil.service.work.job_tables import ENDED, Job, JobStore
from medveil.service.work.jobs import Jobs
from medveil.service.work.journal import Journal
from medveil.service.work.receiving import receiving
from medveil.service.work.record_sealer import RecordSealer
from mpc.query import Query
from wire.canonical import decode

PASS = "a passphrase of tests"


def now() -> int:
    return time.time_ns() // 1_000_000


async def started(folder: Path) -> tuple[Gateway, Jobs, AtHome]:
    """A gateway whose jobs are not resumed yet."""
    gateway = await Gateway.start(Home.open(folder, PASS, secrets.token_bytes, now), now)
    organisation = gateway.organisation
    vocabulary = Vocabulary()
    own_log, metrics = make_log(organisation.name, vocabulary, now), Metrics(organisation.name, "0", vocabulary)
    jobs = Jobs(
        JobStore(gateway.database),
        Streams(own_log, metrics),
        sealer=RecordSealer(gateway.home.record_key),
        clock=now,
        rand=secrets.token_bytes,
        log=own_log,
        metrics=metrics,
        traces=make_traces(organisation.name, "0", None),
        vocabulary=vocabulary,
    )
    return gateway, jobs, AtHome(VaultTables.of(organisation), Wallets(organisation))


async def ended(jobs: Jobs, kind: str, request: bytes, key: str) -> Job:
    """A job of that key, once it has ended."""
    job = await jobs.start(kind, "tests", request, key)
    while job.state not in ENDED:
        await asyncio.sleep(0.02)
        job = await jobs.get(job.id, "tests")
    return job


async def main(folder: Path, log: int, question: Path | None) -> None:
    gateway, jobs, home = await started(folder)
    organisation = gateway.organisation
    reception = receiving(organisation, home, jobs, now)

    async def work(journal: Journal) -> str:
        rand = journal.rand("handle")
        release = await ask(organisation, decode(Query, journal.request), rand(16), rand(32), journal)
        return release.handle.hex()

    jobs.register("test.ask", work)
    await jobs.resume()
    receiving_all = asyncio.create_task(reception.attend())
    os.write(log, b"serving\n")
    number = 0
    while question is not None:
        os.write(log, f"asking {number}\n".encode())
        job = await ended(jobs, "test.ask", question.read_bytes(), f"query-{number}")
        said = f"released {number} {job.result}" if job.state == "done" else f"failed {number} {job.problem!r}"
        os.write(log, said.encode() + b"\n")
        number += 1
    await receiving_all


if __name__ == "__main__":
    asyncio.run(
        main(
            Path(sys.argv[1]),
            os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            Path(sys.argv[3]) if len(sys.argv) > 3 else None,
        )
    )
