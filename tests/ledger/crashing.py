"""The process that the crash campaign kills; run as a script, imported by nobody.

It imports the ledger once and then forks a child for each line "FOLDER BOUNDARY NTH" of its standard
input, which works in FOLDER until the NTH time that BOUNDARY is reached, and sends itself SIGKILL there.
For each it answers with the child's wait status. FOLDER/log gets a line "submitted ID" before an
envelope is handed to the engine, and "acknowledged ID HEIGHT" once its receipt is there.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path

from ledger.contracts import AnchorGrant
from ledger.engines import EmbeddedEngine, attend
from ledger.envelope import Envelope, envelope_id, sign_envelope
from ledger.replicas import Replica
from wire.canonical import decode
from wire.checkpoint import founding_hash
from wire.keyset import Founding
from wire.signing import Signer

ENVELOPES = 4
"""Of each client, in a row."""


def _signer(name: str, use: str) -> Signer:
    return Signer(sha256(f"{name}/{use}".encode()).digest())


async def _work(folder: Path, boundary: str, nth: int) -> None:
    founding = decode(Founding, (folder / "founding").read_bytes())
    chain = founding_hash(founding)
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    reached: Counter[str] = Counter()

    def clock() -> int:
        return founding.time

    def fault(name: str) -> None:
        reached[name] += 1
        if name == boundary and reached[name] == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    names = [member.organisation for member in founding.members][: founding.k]
    engine = await EmbeddedEngine.open(
        folder / "ledger.sqlite", founding, _signer("bureau", "cosign"), clock, fault=fault
    )
    replicas = [Replica(founding, n, _signer(n, "cosign"), clock, folder / f"{n}.note", fault) for n in names]
    tasks = [asyncio.create_task(attend(engine, replica)) for replica in replicas]

    async def client(sender: str) -> None:
        for _ in range(ENVELOPES):
            nonce = await engine.next_nonce(sender)
            ops = tuple(
                AnchorGrant(f"{sender}.{nonce}.{part}", bytes(32), founding.time, founding.time + 1, 0)
                for part in range(3)
            )
            data = sign_envelope(_signer(sender, "envelope"), Envelope(1, chain, sender, nonce, 10**9, ops))
            os.write(log, f"submitted {envelope_id(data).hex()}\n".encode())
            receipt = await engine.wait(await engine.submit(data), 60)
            os.write(log, f"acknowledged {envelope_id(data).hex()} {receipt.block.height}\n".encode())

    await asyncio.gather(*(client(name) for name in names))
    await engine.close()
    await asyncio.gather(*tasks)


def main() -> None:
    """Serve the lines of standard input."""
    for line in sys.stdin:
        folder, boundary, nth = line.split()
        child = os.fork()
        if child == 0:
            try:
                asyncio.run(_work(Path(folder), boundary, int(nth)))
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(status, flush=True)


if __name__ == "__main__":
    main()
