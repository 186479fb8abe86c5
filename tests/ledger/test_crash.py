"""kill -9 at any moment: what was acknowledged is there, and the ledger opens to the roots of a plain replay."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ledger.engines import EmbeddedEngine, attend, commit
from ledger.export import verify_export
from ledger.machine import Machine
from ledger.replicas import Replica
from wire.canonical import decode, encode
from wire.keyset import Founding

_ROOT = Path(__file__).resolve().parents[2]

_CHILD = """
import asyncio, sys
from pathlib import Path
from hashlib import sha256
from ledger.contracts import AnchorGrant
from ledger.engines import EmbeddedEngine, attend
from ledger.envelope import Envelope, envelope_id, sign_envelope
from ledger.replicas import Replica
from wire.canonical import decode
from wire.checkpoint import founding_hash
from wire.keyset import Founding
from wire.signing import Signer

folder = Path(sys.argv[1])
founding = decode(Founding, (folder / "founding").read_bytes())
signer = lambda name, use: Signer(sha256(f"{name}/{use}".encode()).digest())
clock = lambda: founding.time

async def main():
    engine = await EmbeddedEngine.open(folder / "ledger.sqlite", founding, signer("bureau", "cosign"), clock)
    names = [member.organisation for member in founding.members][:founding.k]
    replicas = [Replica(founding, name, signer(name, "cosign"), clock, folder / f"{name}.note") for name in names]
    tasks = [asyncio.create_task(attend(engine, replica)) for replica in replicas]

    async def client(sender):
        nonce = await engine.next_nonce(sender)
        while True:
            op = AnchorGrant(f"{sender}.{nonce}", bytes(32), founding.time, founding.time + 1, 0)
            chain = founding_hash(founding)
            data = sign_envelope(signer(sender, "envelope"), Envelope(1, chain, sender, nonce, 10**9, (op,)))
            receipt = await engine.wait(await engine.submit(data), 30)
            print(envelope_id(data).hex(), receipt.block.height, flush=True)
            nonce += 1

    await asyncio.gather(*(client(name) for name in names))

asyncio.run(main())
"""


@pytest.mark.parametrize("acknowledged", [1, 7, 30])
def test_killed_and_reopened(world: Any, tmp_path: Path, acknowledged: int) -> None:
    (tmp_path / "founding").write_bytes(encode(world.founding))
    assert decode(Founding, (tmp_path / "founding").read_bytes()) == world.founding
    seen: dict[bytes, int] = {}
    for _ in range(2):  # killed, and killed again after it came back
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(tmp_path)], stdout=subprocess.PIPE, cwd=_ROOT, text=True
        )
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(acknowledged)]
        time.sleep(0.003 * acknowledged)
        os.kill(child.pid, signal.SIGKILL)
        lines += child.stdout.read().splitlines(keepends=True)
        child.stdout.close()
        child.wait(30)
        for line in lines:
            if line.endswith("\n"):
                identity, height = line.split()
                seen[bytes.fromhex(identity)] = int(height)
        asyncio.run(_reopen(world, tmp_path, seen))
    assert len(seen) >= 2 * acknowledged


async def _reopen(world: Any, folder: Path, seen: dict[bytes, int]) -> None:
    def clock() -> int:
        return int(world.start)

    engine = await EmbeddedEngine.open(
        folder / "ledger.sqlite", world.founding, world.signer("bureau", "cosign"), clock
    )
    names = [member.organisation for member in world.founding.members][: world.founding.k]
    tasks = [
        asyncio.create_task(
            attend(engine, Replica(world.founding, name, world.signer(name, "cosign"), clock, folder / f"{name}.note"))
        )
        for name in names
    ]
    for tx, height in seen.items():
        receipt = await engine.wait(tx, 30)
        assert receipt.result.accepted and receipt.block.height == height
    nonce = await engine.next_nonce("regulator")
    await commit(engine, world.envelope("regulator", _op(world, nonce), nonce=nonce, expiry=10**9), 30)
    export = await engine.export()
    plain = Machine(world.founding)
    for block in export.blocks:
        plain.apply_block(block.header.height, block.header.time, block.envelopes)
    assert plain.log.root() == engine.machine.log.root() and plain.state.root == engine.machine.state.root
    verify_export(export, world.trust)
    await engine.close()
    await asyncio.gather(*tasks)


def _op(world: Any, nonce: int) -> Any:
    from ledger.contracts import AnchorGrant

    return AnchorGrant(f"regulator.{nonce}", bytes(32), world.start, world.start + 1, 0)
