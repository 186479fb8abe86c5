"""A gateway that makes extracts or takes them until it is killed; run as a script, imported by nobody.

    python extracting.py HOME LOG POINT [make]

It serves the home and answers what others ask. `make`: makes and delivers one extract after the other. At the POINT-th
step of its own that is durable it kills itself (kill -9); 0: never. LOG gets "serving", then "making NUMBER POINTS" and
"made NUMBER EXTRACT" or "failed NUMBER WHY"; "taken" for each extract that came. POINTS: how many steps there were so
far.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from functools import partial
from pathlib import Path

from medveil.gateway import extract_delivery, extract_taking, extracting, made_extracts, reception
from medveil.service.work.journal import Journal
from medveil.service.work.receiving import receiving
from tests.medveil.gateway.extracts_world import wish
from tests.medveil.running.summing import ended, now, started
from wire.errors import MedveilError


class Steps:
    """The steps of this process, counted."""

    def __init__(self, point: int) -> None:
        self.passed = 0
        self._point = point

    def __call__(self, _name: str) -> None:
        self.passed += 1
        if self.passed == self._point:
            os.kill(os.getpid(), signal.SIGKILL)


async def main(folder: Path, log: int, point: int, makes: bool) -> None:
    extract_delivery.PIECE, extract_delivery.WINDOW = 1500, 3000
    steps = Steps(point)
    gateway, jobs, home = await started(folder)
    organisation = gateway.organisation
    extracting.tidy(organisation)
    taking = extract_taking.take_extract

    async def taken(*given: object) -> object:
        found = await taking(*given, fault=steps)  # type: ignore[arg-type]
        os.write(log, f"taken {steps.passed}\n".encode())
        return found

    reception.extract_taking.take_extract = taken  # type: ignore[assignment]
    receiver = receiving(organisation, home, jobs, now)

    async def make(journal: Journal) -> str:
        wanted = wish(recipient="insurer")
        try:
            facts = await extracting.make_extract(organisation, home.tables, wanted, journal, now, steps)
            await extract_delivery.deliver(organisation, facts.cover.extract, journal, now, steps)
        except MedveilError as error:  # of a job that was taken up again, too
            os.write(log, f"failed {error!r}\n".encode())
            raise
        return facts.cover.extract.hex()

    jobs.register("test.make", make)
    await jobs.resume()
    receiving_all = asyncio.create_task(receiver.attend())
    os.write(log, b"serving\n")
    number = len(made_extracts.made(organisation))
    while makes:
        os.write(log, f"making {number} {steps.passed}\n".encode())
        job = await ended(jobs, "test.make", b"", f"extract-{number}")
        said = f"made {number} {job.result}" if job.state == "done" else f"failed {number} {job.problem!r}"
        os.write(log, said.encode() + b"\n")
        number += 1
    await receiving_all


if __name__ == "__main__":
    asyncio.run(
        partial(main, Path(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))(
            int(sys.argv[3]), len(sys.argv) > 4
        )
    )
