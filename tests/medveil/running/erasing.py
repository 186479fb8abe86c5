"""A gateway that carries out an erasure as a job, beside readers, until it is killed; run as a script.

    python erasing.py HOME LOG ERASURE STOP

It kills itself with SIGKILL at the STOP-th step or write of the erasure (0: never). LOG gets "saw COUNT" for each new
count of the person's rows that a reader saw in a table, "done" once the job has ended well, and "steps COUNT".
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from medveil.gateway import erasing
from medveil.service.api.flow_requests import EraseRequest
from medveil.service.api.workplace import Workplace
from medveil.service.work.flow_kinds import register_flows
from privacy.erasure import steps
from wire.canonical import encode
from wire.errors import Unavailable

sys.path.append(str(Path(__file__).resolve().parents[3]))

from tests.medveil.running.summing import ended, now, started


async def main(folder: Path, log: int, erasure: str, stop: int) -> None:
    gateway, jobs, home = await started(folder)
    organisation, tables = gateway.organisation, home.tables
    person = steps.erasure(organisation.vault, erasure).plan.person
    counted, looking = [0], threading.Event()
    carried_out = steps.apply

    def fault(_step: str) -> None:
        counted[0] += 1
        if counted[0] == stop:
            os.kill(os.getpid(), signal.SIGKILL)

    def apply(*arguments: Any, **named: Any) -> Any:
        organisation.vault._opened.fault = fault
        try:
            return carried_out(*arguments, **{**named, "fault": fault})
        finally:
            organisation.vault._opened.fault = lambda place: None

    def read() -> None:
        seen: set[int] = set()
        while not looking.is_set():
            try:
                table = tables.snapshots.table("visits", person_column="who")  # type: ignore[attr-defined]
            except Unavailable:
                continue
            count = table["who"].to_pylist().count(person)
            if count not in seen:
                seen.add(count)
                os.write(log, f"saw {count}\n".encode())

    erasing.erasing.apply = apply
    at = Workplace(
        organisation=organisation,
        engine=gateway.engine,
        jobs=jobs,
        tables=tables,
        data=None,
        clock=now,
        rand=secrets.token_bytes,
        snapshots=tables.snapshots,  # type: ignore[attr-defined]
        catching_up=lambda: False,
    )
    register_flows(at, home.wallets)
    readers = [threading.Thread(target=read, daemon=True) for _ in range(2)]
    for reader in readers:
        reader.start()
    await jobs.resume()
    job = await ended(jobs, "erasure.apply", encode(EraseRequest(bytes.fromhex(erasure))), "once")
    looking.set()
    for reader in readers:
        reader.join()
    said = f"done\nsteps {counted[0]}\n" if job.state == "done" else f"failed {job.problem!r}\n"
    os.write(log, said.encode())
    await gateway.stop()


if __name__ == "__main__":
    asyncio.run(
        main(
            Path(sys.argv[1]),
            os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            sys.argv[3],
            int(sys.argv[4]),
        )
    )
