"""kill -9 at every write boundary: what was acknowledged is there, the rest is absent or whole, equal roots.

The process under test is `crashing.py`. A SIGKILL leaves to the kernel what was written; what a loss of
power may leave, a write-ahead log that ends anywhere, is tried by cutting and spoiling it.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger.contracts import AnchorGrant
from ledger.contracts.grants import GrantState, grant_key
from ledger.engines import EmbeddedEngine, attend, commit
from ledger.engines.store import Store
from ledger.export import verify_export
from ledger.faults import BOUNDARIES, MIGRATION_BOUNDARIES
from ledger.handovers import extend
from ledger.machine import Machine
from ledger.receipts import verify_receipt
from ledger.replicas import Replica
from wire.canonical import encode
from wire.checkpoint import Note, sign_checkpoint

_ROOT = Path(__file__).resolve().parents[2]
KILLS = 20
"""Of every run; `test_killed_five_hundred_times` is the campaign."""
_GENERATIONS = 5
"""Kills of one ledger in a row, each after it was opened again."""
_FIRST = ("create:opened", "create:written", "create:committed", "memory:emptied")
"""Reached only while there is no file yet."""
_MOST = {"submitted": 20, "final": 3, "memory:made": 15, "memory:written": 15, "memory:flushed": 15}
_MOST |= {"handover:begun": 1, "handover:committed": 1}
"""How often a boundary is surely reached by a run of its own: 3 times, unless said here."""


class Killer:
    """The process that forks and kills."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("crashing.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
            text=True,
        )

    def kill(self, folder: Path, boundary: str, nth: int) -> None:
        """Work in `folder` until killed at the nth `boundary`; the test fails if that is never reached."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{folder} {boundary} {nth}\n")
        process.stdin.flush()
        status = int(process.stdout.readline())
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (boundary, nth, status)

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)


@pytest.fixture
def killer() -> Iterator[Killer]:
    made = Killer()
    yield made
    made.close()


def _cases(count: int, seed: int) -> Iterator[list[tuple[str, int]]]:
    """`count` kills, a ledger's own in one list; each boundary is the turn of somebody in the first few."""
    chance = random.Random(seed)
    later = [name for name in BOUNDARIES if name not in _FIRST and name != "final:committed"]
    turn = later.copy()
    for number in range(-(-count // _GENERATIONS)):
        first = [(_FIRST[number % len(_FIRST)], 1)]
        rest = []
        for _ in range(min(_GENERATIONS, count - number * _GENERATIONS) - 1):
            if not turn:
                turn = later.copy()
                chance.shuffle(turn)
            name = turn.pop(0)
            rest.append((name, chance.randint(1, _MOST.get(name, 3))))
        if number % 4 == 3 and rest:
            rest[-1] = ("final:committed", 1)
        yield first + rest


def _campaign(world: Any, killer: Killer, tmp_path: Path, count: int) -> None:
    done = acknowledged = 0
    for number, kills in enumerate(_cases(count, seed=4)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "founding").write_bytes(encode(world.founding))
        for boundary, nth in kills:
            killer.kill(folder, boundary, nth)
            acknowledged += asyncio.run(_check(world, folder))
            done += 1
        shutil.rmtree(folder)
    assert done == count and acknowledged > count
    print(f"{done} kills, {acknowledged} acknowledged envelopes checked")


def test_killed_at_every_boundary(world: Any, killer: Killer, tmp_path: Path) -> None:
    assert {name for kills in _cases(KILLS, seed=4) for name, _ in kills} == set(BOUNDARIES)
    _campaign(world, killer, tmp_path, KILLS)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_killed_five_hundred_times(world: Any, killer: Killer, tmp_path: Path) -> None:
    _campaign(world, killer, tmp_path, 500)


def test_killed_while_older_data_is_migrated(
    world: Any, killer: Killer, version_1: Callable[[Any, Path], None], tmp_path: Path
) -> None:
    for number in range(8):
        world.act("insurer", AnchorGrant(f"g{number}", bytes(32), world.start, world.start + 10**9, 0))
    version_1(world, tmp_path / "old.sqlite")
    for number, boundary in enumerate(MIGRATION_BOUNDARIES):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "founding").write_bytes(encode(world.founding))
        shutil.copyfile(tmp_path / "old.sqlite", folder / "ledger.sqlite")
        killer.kill(folder, boundary, 1)
        assert asyncio.run(_open_prefix(world, folder, world.machine)) == 8
        assert (folder / "ledger.sqlite.version-1").exists()


async def _check(world: Any, folder: Path) -> int:
    """Open the ledger again and check all that was ever said of it; how many envelopes had been acknowledged."""

    def clock() -> int:
        return int(world.start)

    submitted, acknowledged = set(), {}
    log = folder / "log"
    for line in log.read_text().splitlines() if log.exists() else ():
        what, identity, *height = line.split()
        if what == "submitted":
            submitted.add(bytes.fromhex(identity))
        else:
            acknowledged[bytes.fromhex(identity)] = int(height[0])
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
    for tx, height in acknowledged.items():
        receipt = await engine.wait(tx, 60)
        assert receipt.result.accepted and receipt.block.height == height
        verify_receipt(receipt, extend(world.trust, await engine.handovers()))
    nonce = await engine.next_nonce("regulator")
    op = AnchorGrant(f"regulator.{nonce}", bytes(32), world.start, world.start + 1, 0)
    await commit(engine, world.envelope("regulator", op, nonce=nonce, expiry=10**9), 60)
    export = await engine.export()
    plain = Machine(world.founding)
    stored = {}
    for block in export.blocks:
        outcome = plain.apply_block(block.header.height, block.header.time, block.envelopes)
        stored.update({result.envelope: result for result in outcome.results})
    assert plain.log.root() == engine.machine.log.root() and plain.state.root == engine.machine.state.root
    own = {result.envelope for result in stored.values() if result.sender == "regulator"}  # of this check
    assert acknowledged.keys() <= stored.keys() <= submitted | own
    made = [len(result.events) for result in stored.values() if result.events[0].name.startswith("grants.")]
    assert set(made) <= {1, 3}  # whole
    assert sum(1 for _ in plain.items(grant_key(""), GrantState)) == sum(made)  # and nothing of those that are absent
    verify_export(export, world.trust)
    await engine.close()
    await asyncio.gather(*tasks)
    return len(acknowledged)


@pytest.mark.parametrize("fault", ["cut", "spoilt"])
def test_a_write_ahead_log_that_ends_anywhere(world: Any, tmp_path: Path, fault: str) -> None:
    """Whatever the disk kept of it, what opens is a prefix of history, block by block."""
    store = Store(tmp_path / "ledger.sqlite", world.founding)
    kept = tmp_path / "kept"
    kept.mkdir()
    for number in range(12):
        world.act("hospital-1", AnchorGrant(f"g{number}", bytes(32), world.start, world.start + 10**9, 0))
    replayed = Machine(world.founding)
    for block in world.blocks:
        outcome = replayed.replay(block)
        store.append(block, outcome.results, _head(world, replayed), None)
    for name in ("ledger.sqlite", "ledger.sqlite-wal"):
        shutil.copyfile(tmp_path / name, kept / name)
    store.close()
    wal = (kept / "ledger.sqlite-wal").read_bytes()
    heights = set()
    chance = random.Random(7)
    for at in [*sorted(chance.sample(range(len(wal)), 60)), len(wal)]:
        folder = tmp_path / str(at)
        shutil.copytree(kept, folder)
        data = (
            wal[:at] if fault == "cut" else wal[:at] + bytes(byte ^ 0x5A for byte in wal[at : at + 9]) + wal[at + 9 :]
        )
        (folder / "ledger.sqlite-wal").write_bytes(data)
        height = asyncio.run(_open_prefix(world, folder, replayed))
        heights.add(height)
        shutil.rmtree(folder)
    assert max(heights) == 12 and len(heights) > 4


def _head(world: Any, machine: Machine) -> Note:
    log = machine.log
    return sign_checkpoint(world.signer("bureau", "cosign"), world.trust.origin, log.size, log.root())


async def _open_prefix(world: Any, folder: Path, whole: Machine) -> int:
    signer = world.signer("bureau", "cosign")
    engine = await EmbeddedEngine.open(folder / "ledger.sqlite", world.founding, signer, lambda: world.time)
    height = engine.machine.height
    assert engine.machine.log.root() == whole.log.root(height + 1)
    await engine.close()
    return height
