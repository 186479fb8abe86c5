"""kill -9 of any gateway while all of them write to the ledger: nothing acknowledged is lost, nothing stands twice.

One process an organisation, real TLS between them; the sequencer too is killed, and started again.
"""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import pytest

from ledger.contracts.grants import GrantState, grant_key
from ledger.envelope import open_envelope
from ledger.export import verify_export

from .processes import Running

_SCRIPT = Path(__file__).with_name("writing.py")


def _campaign(consortium: Any, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    names = list(consortium.members)
    logs = {name: consortium.folder / f"{name}.log" for name in names}
    running = {name: Running(_SCRIPT, consortium.folder / name, logs[name]) for name in names}
    try:
        for one in running.values():
            one.until("written")
        for number in range(kills):
            name = names[number % len(names)]
            time.sleep(chance.random() * 0.3)
            running[name].kill()
            time.sleep(chance.random() * 0.2)
            running[name] = Running(_SCRIPT, consortium.folder / name, logs[name])
            running[name].until("written", 2)
        for one in running.values():
            one.until("written", 1)
    finally:
        for one in running.values():
            one.kill()
    asyncio.run(_check(consortium, logs))


async def _check(consortium: Any, logs: dict[str, Path]) -> None:
    written: dict[str, int] = {}
    begun = set()
    for log in logs.values():
        for line in log.read_text().splitlines():
            what, *rest = line.split()
            if what == "writing":
                begun.add(rest[0])
            elif what == "written":
                written[rest[0]] = int(rest[1])
            elif what == "failed":
                raise AssertionError(line)
    async with consortium.running() as gateways:
        async with asyncio.timeout(60):  # the members cosign again what the sequencer's last moments kept to itself
            while (await gateways["bureau"].engine.head()).final_height < max(written.values()):
                await asyncio.sleep(0.05)
        export = await gateways["bureau"].engine.export()
        machine = verify_export(export, consortium.trust)
        found: dict[str, int] = {}
        for block in export.blocks:
            for data in block.envelopes:
                for op in open_envelope(data).envelope.ops:
                    assert op.grant not in found, "written twice"  # type: ignore[union-attr]
                    found[op.grant] = block.header.height  # type: ignore[union-attr]
        assert {name: found.get(name) for name in written} == written
        assert found.keys() <= begun
        for name in found:
            assert machine.get(grant_key(name), GrantState) is not None
        for gateway in gateways.values():
            await gateway.account.caught_up()
            assert gateway.account.replica.machine.log.root(machine.log.size) == machine.log.root()


def test_killed_and_started_again(consortium: Any) -> None:
    _campaign(consortium, 5, seed=3)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_killed_a_hundred_times(consortium: Any) -> None:
    _campaign(consortium, 100, seed=5)
