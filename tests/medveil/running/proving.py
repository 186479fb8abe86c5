"""A gateway that asks for proofs or collects evidence until it is killed; run as a script, imported by nobody.

    python proving.py HOME LOG [limits WISH | evidence FOLDER]

It serves the home and answers what others ask. `limits`: asks whether the bill of WISH (a canonical LimitRequest) is
within its limit, and every second time within 1; `evidence`: writes one evidence folder after the other into FOLDER.
LOG gets "asking NUMBER", then "released NUMBER RESULT", "refused NUMBER" or "failed NUMBER WHY". "serving" comes first.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import msgspec

from medveil.gateway.eligibility import check_limit
from medveil.gateway.exporting import export_folder
from medveil.service.work.journal import Journal
from medveil.service.work.receiving import receiving
from tests.medveil.running.summing import ended, now, started
from wire.canonical import decode
from zkp.bill_limit import LimitRequest


async def main(folder: Path, log: int, what: str, wish: Path) -> None:
    gateway, jobs, home = await started(folder)
    organisation = gateway.organisation
    reception = receiving(organisation, home, jobs, now)

    async def limits(journal: Journal) -> str:
        request = decode(LimitRequest, wish.read_bytes())
        request = msgspec.structs.replace(request, nonce=journal.rand("nonce")(32), limit=int(journal.request))
        await check_limit(organisation, "hospital-1", request, journal)
        return request.nonce.hex()

    async def evidence(journal: Journal) -> str:
        name = journal.request.decode()
        exported = await export_folder(organisation, wish / name, journal, now)
        return " ".join([name, *(f"{gap.organisation}:{gap.code}" for gap in exported.gaps)])

    jobs.register("test.limits", limits)
    jobs.register("test.evidence", evidence)
    await jobs.resume()
    receiving_all = asyncio.create_task(reception.attend())
    os.write(log, b"serving\n")
    number = 0
    while what:
        os.write(log, f"asking {number}\n".encode())
        request = {"limits": ("500000", "1")[number % 2], "evidence": f"evidence-{number}"}[what]
        job = await ended(jobs, f"test.{what}", request.encode(), f"{what}-{number}")
        said = f"released {number} {job.result}" if job.state == "done" else f"failed {number} {job.problem!r}"
        if job.problem is not None and job.problem.code == "gateway.proof_refused":
            said = f"refused {number}"
        os.write(log, said.encode() + b"\n")
        number += 1
    await receiving_all


if __name__ == "__main__":
    asyncio.run(
        main(
            Path(sys.argv[1]),
            os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            sys.argv[3] if len(sys.argv) > 3 else "",
            Path(sys.argv[-1]),
        )
    )
