"""A gateway that recalls extracts, or deletes those that are recalled, until it is killed; run as a script, imported by
nobody.

    python recalling.py HOME LOG POINT [GRANT ...]

It serves the home, revokes the grants that are named, and looks round all the time. At the POINT-th step of a recall
that is durable it kills itself (kill -9); 0: never. LOG gets "serving", and "heard COUNT" when there are more answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from functools import partial
from pathlib import Path

from medveil.gateway import granting, recalling, reception
from medveil.gateway.recalled_extracts import ExtractsHere
from medveil.service.work.receiving import receiving
from privacy.erasure.recalls import recalls
from tests.medveil.running.extracting import Steps
from tests.medveil.running.summing import now, started
from wire.errors import Refused, Unavailable


async def main(folder: Path, log: int, point: int, grants: list[str]) -> None:
    steps = Steps(point)
    gateway, jobs, home = await started(folder)
    organisation = gateway.organisation
    reception.take_notice = partial(recalling.take_notice, fault=steps)  # type: ignore[assignment]
    reception.take_deletion = partial(recalling.take_deletion, fault=steps)  # type: ignore[assignment]
    receiver = receiving(organisation, home, jobs, now)
    await jobs.resume()
    attending = asyncio.create_task(receiver.attend())
    os.write(log, b"serving\n")
    for grant in grants:
        with contextlib.suppress(Refused):  # it was revoked before a kill
            await granting.revoke(organisation, grant)
    heard = 0
    while not attending.done():
        with contextlib.suppress(Unavailable):
            await recalling.keep_up(organisation, ExtractsHere(organisation, now), now, steps)
        count = sum(one.heard is not None for one in recalls(organisation.vault))
        if count > heard:
            os.write(log, f"heard {count}\n".encode())
        heard = count
        await asyncio.sleep(0.1)
    attending.result()


if __name__ == "__main__":
    asyncio.run(
        main(
            Path(sys.argv[1]),
            os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            int(sys.argv[3]),
            sys.argv[4:],
        )
    )
