"""A gateway that writes until it is killed; run as a script, imported by nobody.

    python writing.py HOME LOG

It serves the home and writes envelopes one after the other, each an op with a name of its own: LOG gets a line
"writing NAME" before and "written NAME HEIGHT" once the receipt is there. "serving" comes first.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import time
from pathlib import Path

from ledger.contracts import AnchorGrant
from medveil.service.gateway import Gateway
from medveil.service.home.home import Home
from wire.errors import MedveilError

PASS = "a passphrase of tests"


def now() -> int:
    return time.time_ns() // 1_000_000


async def main(folder: Path, log: int) -> None:
    gateway = await Gateway.start(Home.open(folder, PASS, secrets.token_bytes, now), now)
    os.write(log, b"serving\n")
    name = gateway.organisation.name
    while True:
        one = f"{name}-{secrets.token_hex(6)}"
        op = AnchorGrant(one, bytes(32), now() - 1000, now() + 10**9, 0)
        os.write(log, f"writing {one}\n".encode())
        try:
            receipt = await gateway.account.submit(op)
        except MedveilError as error:
            os.write(log, f"failed {one} {error.code}\n".encode())
            continue
        os.write(log, f"written {one} {receipt.block.height}\n".encode())
        await asyncio.sleep(0.05)  # four of them would fill any machine


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)))
