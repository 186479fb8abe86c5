"""A gateway that asks or answers queries until it is killed; run as a script, imported by nobody.

    python summing.py HOME LOG [QUERY] [--dies-before KIND] [--patience SECONDS] [--tells]

It serves the home and answers what others ask. With QUERY (a file with a canonical query) it asks it, again and
again: LOG gets "asking NUMBER", then "released NUMBER HANDLE" or "failed NUMBER CODE". "serving" comes first. It ends
on the spot, as if killed, before it sends its first message of KIND; it waits for others for so many seconds. With
--tells, LOG gets "ended" for each outcome in its trail.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
import time
from pathlib import Path

import msgspec

from medveil.gateway.asking import ask
from medveil.gateway.organisation import Organisation
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
from wire.canonical import Wire, decode, encode

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


def dying(organisation: Organisation, kind: str) -> None:
    """End the process before it sends a message of that kind."""
    send = organisation.send

    async def last(recipient: str, session: bytes, message: Wire) -> None:
        if type(message).__name__ == kind:
            os.kill(os.getpid(), signal.SIGKILL)
        await send(recipient, session, message)

    organisation.send = last  # type: ignore[method-assign]


async def tell(organisation: Organisation, log: int) -> None:
    """Tell of the outcomes in its trail."""
    told = 0
    while True:
        outcomes = sum(entry.intent != 0 for entry in organisation.audit.entries())
        os.write(log, b"ended\n" * (outcomes - told))
        told = outcomes
        await asyncio.sleep(0.1)


async def main(
    folder: Path, log: int, question: Path | None, dies_before: str, patience: float, tells: bool = False
) -> None:
    gateway, jobs, home = await started(folder)
    organisation = gateway.organisation
    if dies_before:
        dying(organisation, dies_before)
    if patience:
        organisation.patience = patience
    reception = receiving(organisation, home, jobs, now)

    async def work(journal: Journal) -> str:
        rand = journal.rand("handle")
        release = await ask(organisation, decode(Query, journal.request), rand(16), rand(32), journal)
        return release.handle.hex()

    jobs.register("test.ask", work)
    await jobs.resume()
    receiving_all = asyncio.create_task(reception.attend())
    os.write(log, b"serving\n")
    telling = [asyncio.create_task(tell(organisation, log))] if tells else []
    number = 0
    while question is not None:
        os.write(log, f"asking {number}\n".encode())
        query = decode(Query, question.read_bytes())
        other = msgspec.structs.replace(query, max_rows=query.max_rows + number)  # the same would get the same answer
        job = await ended(jobs, "test.ask", encode(other), f"query-{number}")
        said = f"released {number} {job.result}" if job.state == "done" else f"failed {number} {job.problem!r}"
        os.write(log, said.encode() + b"\n")
        number += 1
    await asyncio.gather(receiving_all, *telling)


if __name__ == "__main__":
    given = argparse.ArgumentParser()
    given.add_argument("home", type=Path)
    given.add_argument("log")
    given.add_argument("query", type=Path, nargs="?")
    given.add_argument("--dies-before", default="")
    given.add_argument("--patience", type=float, default=0.0)
    given.add_argument("--tells", action="store_true")
    said = given.parse_args()
    log = os.open(said.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    asyncio.run(main(said.home, log, said.query, said.dies_before, said.patience, said.tells))
