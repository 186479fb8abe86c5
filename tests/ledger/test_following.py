"""How replicas follow an engine: over its crashes, over a clock that is wrong, and where two histories are shown."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ledger.contracts import AnchorGrant
from ledger.contracts.grants import grant_key
from ledger.engines import EmbeddedEngine, attend, commit, following
from ledger.envelope import envelope_id
from ledger.machine import Block
from ledger.replicas import FUTURE, Replica
from ledger.split_view import SplitView, verify_split_view
from wire.checkpoint import Note, sign_checkpoint
from wire.errors import Unavailable, VerificationError

K = ("bureau", "hospital-1", "hospital-2", "hospital-3", "hospital-4", "insurer")


def grant(world: Any, name: str) -> AnchorGrant:
    return AnchorGrant(name, bytes(32), world.start, world.start + 10**9, 0)


async def opened(world: Any, path: Path, **options: Any) -> EmbeddedEngine:
    return await EmbeddedEngine.open(
        path, world.founding, world.signer("bureau", "cosign"), lambda: int(world.start), **options
    )


def replica(world: Any, name: str, **options: Any) -> Replica:
    return Replica(world.founding, name, world.signer(name, "cosign"), lambda: int(world.start), **options)


async def died(engine: EmbeddedEngine, tasks: list[asyncio.Task[None]]) -> None:
    """The sequencer's process is gone, without having closed anything."""
    assert engine._writer is not None
    for task in (engine._writer, *tasks):
        task.cancel()
    await asyncio.gather(engine._writer, *tasks, return_exceptions=True)
    engine._release()


def test_what_was_final_is_final_again_after_a_crash(world: Any, tmp_path: Path) -> None:
    """The file knows the head, but not yet who cosigned it; the members' replicas lived on, and nothing new comes."""

    async def test() -> None:
        path = tmp_path / "l"
        engine = await opened(world, path)
        replicas = [replica(world, name, memory=tmp_path / name) for name in K]
        tasks = [asyncio.create_task(attend(engine, one)) for one in replicas]
        receipt = await commit(engine, world.envelope("hospital-1", grant(world, "g"), nonce=0), 10)
        await died(engine, tasks)
        engine = await opened(world, path)
        assert (await engine.head()).final_height == 0
        tasks = [asyncio.create_task(attend(engine, one)) for one in replicas]
        again = await engine.wait(envelope_id(receipt.envelope), 10)
        assert again.block == receipt.block and await engine.query(grant_key("g")) is not None
        await engine.close()
        await asyncio.gather(*tasks)

    asyncio.run(test())


def test_a_replica_stands_where_a_restored_ledger_starts(world: Any, tmp_path: Path) -> None:
    """The engine has no block of the replica's own head, only the snapshot; it goes on after it."""

    async def test() -> None:
        engine = await opened(world, tmp_path / "old")
        replicas = [replica(world, name) for name in K]
        tasks = [asyncio.create_task(attend(engine, one)) for one in replicas]
        await commit(engine, world.envelope("hospital-1", grant(world, "a"), nonce=0), 10)
        snapshot = await engine.snapshot()
        await engine.close()
        await asyncio.gather(*tasks)
        engine = await opened(world, tmp_path / "new", snapshot=snapshot)
        tasks = [asyncio.create_task(attend(engine, one)) for one in replicas]
        receipt = await commit(engine, world.envelope("hospital-1", grant(world, "b"), nonce=1), 10)
        assert receipt.block.height == 2
        await engine.close()
        await asyncio.gather(*tasks)

    asyncio.run(test())


def test_a_sequencer_that_goes_on_from_an_older_copy_is_convicted(world: Any, tmp_path: Path) -> None:
    async def test() -> None:
        path, reported = tmp_path / "l", list[SplitView]()
        engine = await opened(world, path)
        one = replica(world, "insurer", memory=tmp_path / "memory", report=reported.append)
        tasks = [asyncio.create_task(attend(engine, one))]
        for number in range(5):
            await executed(engine, world.envelope("hospital-1", grant(world, f"g{number}"), nonce=number))
            if number == 1:
                await engine.close()
                await asyncio.gather(*tasks)
                shutil.copy(path, tmp_path / "old")
                engine = await opened(world, path)
                tasks = [asyncio.create_task(attend(engine, one))]
        while one.height < 5:
            await asyncio.sleep(0.001)
        await engine.close()
        await asyncio.gather(*tasks)
        engine = await opened(world, tmp_path / "old")
        for number in range(2, 9):
            await executed(engine, world.envelope("hospital-1", grant(world, f"other-{number}"), nonce=number))
        with pytest.raises(VerificationError) as caught:
            await attend(engine, one)
        assert caught.value.code == "ledger.fork" and one.split_view is not None and reported == [one.split_view]
        verify_split_view(one.split_view, world.trust)
        await engine.close()

    asyncio.run(test())


async def executed(engine: EmbeddedEngine, envelope: bytes) -> None:
    height = engine.machine.height
    await engine.submit(envelope)
    while engine.machine.height == height:
        await asyncio.sleep(0)


class Shown:
    """An engine that goes over to another history while a replica follows it, and answers questions by `answers`."""

    def __init__(self, world: Any, true: Any, other: Any, answers: Any) -> None:
        self.world, self.true, self.other, self.answers = world, true, other, answers
        self.following = True

    def pair(self, of: Any, height: int) -> tuple[Block, Note]:
        log, signer = of.machine.log, self.world.signer("bureau", "cosign")
        note = sign_checkpoint(signer, self.world.trust.origin, height + 1, log.root(height + 1))
        return of.blocks[height - 1], note

    async def subscribe(self, cursor: int) -> AsyncIterator[tuple[Block, Note]]:
        if self.following:
            self.following = False
            for height in range(cursor, len(self.true.blocks) + 1):
                yield self.pair(self.true, height)
            yield self.pair(self.other, len(self.true.blocks) + 1)
        elif self.answers is None:
            await asyncio.sleep(60)
        else:
            for height in range(cursor, len(self.answers.blocks) + 1):
                yield self.pair(self.answers, height)

    async def add_cosignature(self, size: int, line: Any) -> None:
        pass


@pytest.mark.parametrize("honest", ["heads", "headers", "silent"])
def test_two_histories_in_one_subscription(
    world: Any, make_world: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, honest: str
) -> None:
    """The other history parts three blocks before the head that was cosigned; only its newest block was shown."""
    monkeypatch.setattr(following, "SEEKING", 0.2)
    other = make_world()
    for number in range(5):
        world.act("hospital-1", grant(world, f"g{number}"))
    for number in range(6):
        other.act("hospital-1", grant(other, f"g{number}" if number < 2 else f"other-{number}"))
    engine = Shown(world, world, other, {"heads": other, "headers": other, "silent": None}[honest])
    if honest == "headers":  # it shows its history, but not its head of the size that was cosigned
        pair = engine.pair

        def hidden(of: Any, height: int) -> tuple[Block, Note]:
            return pair(of, height)[0], pair(world, height)[1] if height <= 5 else pair(of, height)[1]

        engine.pair = hidden  # type: ignore[method-assign]
    one = Replica(world.founding, "insurer", world.signer("insurer", "cosign"), lambda: world.time)
    with pytest.raises(VerificationError) as caught:
        asyncio.run(attend(engine, one))  # type: ignore[arg-type]
    if honest == "silent":
        assert caught.value.code != "ledger.fork" and one.split_view is None
        assert one.refused is not None and one.refused.checkpoint.size == 7  # for others to compare
        return
    assert caught.value.code == "ledger.fork" and one.split_view is not None
    verify_split_view(one.split_view, world.trust)
    assert one.height == 5


def test_a_block_from_the_future_is_awaited(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PAUSE", 0.01)
    world.act("hospital-1", grant(world, "g"))
    log, now = world.machine.log, world.time - FUTURE - 50
    note = sign_checkpoint(world.signer("bureau", "cosign"), world.trust.origin, log.size, log.root())
    cosigned, closed = list[Any](), False

    def clock() -> int:
        nonlocal now
        now += 10
        return now

    async def subscribe(cursor: int) -> AsyncIterator[tuple[Block, Note]]:
        yield world.blocks[0], note

    async def add_cosignature(size: int, line: Any) -> None:
        cosigned.append(size)

    async def head() -> None:
        if closed:
            raise Unavailable("ledger.closed")

    engine: Any = SimpleNamespace(subscribe=subscribe, add_cosignature=add_cosignature, head=head)
    asyncio.run(attend(engine, Replica(world.founding, "insurer", world.signer("insurer", "cosign"), clock)))
    assert cosigned == [2] and now > world.time - FUTURE
    closed, now = True, 0  # it closes while somebody waits
    asyncio.run(attend(engine, Replica(world.founding, "insurer", world.signer("insurer", "cosign"), clock)))
    assert cosigned == [2]
