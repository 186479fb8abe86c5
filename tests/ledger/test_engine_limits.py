"""The embedded engine at its limits: a clock that jumps, blocks that nobody cosigns, rows too long, odd files."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger.contracts import AnchorGrant
from ledger.engines import Cursor, EmbeddedEngine, GroupCommit, attend, commit
from ledger.engines.clock import JUMP, WatchedClock, steady
from ledger.engines.embedded import IDLE
from ledger.engines.history import History
from ledger.engines.store import Store
from ledger.reading import Selection
from ledger.replicas import Replica
from wire.checkpoint import parse_note
from wire.errors import DecodeError, MedveilError, Refused, Unavailable

K = ("bureau", "hospital-1", "hospital-2", "hospital-3", "hospital-4", "insurer")


def grant(world: Any, name: str) -> AnchorGrant:
    return AnchorGrant(name, bytes(32), world.start, world.start + 10**9, 0)


async def opened(world: Any, path: Path, clock: Callable[[], int] | None = None, **options: Any) -> EmbeddedEngine:
    signer = world.signer("bureau", "cosign")
    return await EmbeddedEngine.open(path, world.founding, signer, clock or (lambda: int(world.start)), **options)


def follow(world: Any, engine: EmbeddedEngine) -> list[asyncio.Task[None]]:
    return [
        asyncio.create_task(
            attend(engine, Replica(world.founding, name, world.signer(name, "cosign"), lambda: int(world.start)))
        )
        for name in K
    ]


async def executed(world: Any, engine: EmbeddedEngine, number: int) -> None:
    """A block of one envelope, which nobody cosigns yet."""
    await engine.submit(world.envelope("hospital-1", grant(world, f"g{number}"), nonce=number, expiry=10**6))
    while engine.machine.height <= number:
        await asyncio.sleep(0)


# --- opening ------------------------------------------------------------------------------------


def test_a_cancelled_opening_closes_the_file_after_the_thread_that_reads_it(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, torn = threading.Event(), list[bool]()
    block, close = Store.block, Store.close

    def slow(self: Store, height: int) -> Any:
        reading.set()
        time.sleep(0.01)
        found = block(self, height)
        reading.clear()
        return found

    def closing(self: Store) -> None:
        torn.append(reading.is_set())
        if not torn[-1]:
            close(self)

    async def test() -> None:
        engine = await opened(world, tmp_path / "l")
        for number in range(20):
            await executed(world, engine, number)
        await engine.close()
        with monkeypatch.context() as patch:
            patch.setattr(Store, "block", slow)
            patch.setattr(Store, "close", closing)
            for delay in (0, 0.001, 0.02, 0.05, 0.1):
                reading.clear()
                opening = asyncio.create_task(opened(world, tmp_path / "l"))
                await asyncio.sleep(delay)
                opening.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await opening
        assert torn and not any(torn)
        engine = await opened(world, tmp_path / "l")
        assert engine.machine.height == 20
        await engine.close()

    asyncio.run(test())


def test_opening_holds_no_state_of_before_the_final_head(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = list[int]()

    def counting(self: History, note: Any) -> None:
        executed_(self, note)
        held.append(max(len(self._states), len(self._heads)))

    executed_ = History.executed

    async def test() -> None:
        engine = await opened(world, tmp_path / "l")
        tasks = follow(world, engine)
        for number in range(12):
            await commit(engine, world.envelope("hospital-1", grant(world, f"g{number}"), nonce=number), 10)
        await engine.close()
        await asyncio.gather(*tasks)
        monkeypatch.setattr(History, "executed", counting)
        engine = await opened(world, tmp_path / "l")
        assert (await engine.head()).final_height == 12 and len(held) == 12 and max(held) <= 2
        await engine.close()

    asyncio.run(test())


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE final SET note = 'text'",
        "UPDATE blocks SET note = 'text'",
        "UPDATE blocks SET note = 7",
        "UPDATE blocks SET block = 'text'",
        "UPDATE blocks SET results = 5",
        "DROP TABLE times",
        "DROP TABLE final",
    ],
)
def test_values_of_another_type_and_missing_tables_are_damage(world: Any, tmp_path: Path, statement: str) -> None:
    async def test() -> None:
        engine = await opened(world, tmp_path / "l")
        tasks = follow(world, engine)
        await commit(engine, world.envelope("hospital-1", grant(world, "g"), nonce=0), 10)
        await engine.close()
        await asyncio.gather(*tasks)
        db = sqlite3.connect(tmp_path / "l", isolation_level=None)
        db.execute(statement)
        db.close()
        with pytest.raises(DecodeError) as caught:
            await opened(world, tmp_path / "l")
        assert caught.value.code == "ledger.damaged"

    asyncio.run(test())


def test_a_link_is_the_file_it_leads_to(world: Any, tmp_path: Path) -> None:
    async def test() -> None:
        engine = await opened(world, tmp_path / "l")
        (tmp_path / "link").symlink_to(tmp_path / "l")
        with pytest.raises(Unavailable) as caught:
            await opened(world, tmp_path / "link")
        assert caught.value.code == "ledger.locked"
        await engine.close()

    asyncio.run(test())


# --- writing ------------------------------------------------------------------------------------


def test_what_became_final_is_written_when_nothing_follows(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And with the next block, in its transaction, where one follows soon: no flush of its own."""
    alone = list[Any]()
    put_final = Store.put_final

    def counting(self: Store, final: Any) -> None:
        alone.append(final)
        put_final(self, final)

    monkeypatch.setattr(Store, "put_final", counting)
    monkeypatch.setattr("ledger.engines.embedded.IDLE", 20 * IDLE)

    def stored() -> int | None:
        db = sqlite3.connect(tmp_path / "l")
        row = db.execute("SELECT note FROM final").fetchone()
        db.close()
        return None if row is None else parse_note(row[0]).checkpoint.size

    async def test() -> None:
        engine = await opened(world, tmp_path / "l")
        tasks = follow(world, engine)
        for number in range(10):
            await commit(engine, world.envelope("hospital-1", grant(world, f"g{number}"), nonce=number), 10)
        assert not alone and stored() == 10
        async with asyncio.timeout(10):
            while stored() != 11:
                await asyncio.sleep(0.01)
        assert len(alone) == 1
        await engine.close()
        assert len(alone) == 1
        await asyncio.gather(*tasks)

    asyncio.run(test())


def test_nothing_new_while_too_many_blocks_are_not_final(world: Any, tmp_path: Path) -> None:
    async def test() -> None:
        engine = await opened(world, tmp_path / "l", group=GroupCommit(not_final=3))
        for number in range(3):
            await executed(world, engine, number)
        data = world.envelope("hospital-1", grant(world, "more"), nonce=3)
        with pytest.raises(Unavailable) as caught:
            await engine.submit(data)
        assert caught.value.code == "ledger.not_final_yet" and caught.value.facts["blocks"] == 3
        tasks = follow(world, engine)
        while (await engine.head()).final_height < 3:
            await asyncio.sleep(0.001)
        assert (await commit(engine, data, 10)).block.height == 4
        await engine.close()
        await asyncio.gather(*tasks)

    asyncio.run(test())


def test_a_block_that_could_not_be_read_again_is_not_written(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        engine = await opened(world, tmp_path / "l")
        await executed(world, engine, 0)
        with monkeypatch.context() as patch:
            patch.setattr("ledger.engines.store.LARGEST", 1000)
            ops = (grant(world, f"large-{number}") for number in range(64))
            tx = await engine.submit(world.envelope("hospital-1", *ops, nonce=1))
            with pytest.raises(Refused) as caught:
                await engine.wait(tx, 10)
            assert caught.value.code == "ledger.block_too_large"
            await engine.close()
        engine = await opened(world, tmp_path / "l")
        assert engine.machine.height == 1
        await executed(world, engine, 1)
        await engine.close()

    asyncio.run(test())


def test_a_block_is_never_larger_than_can_be_read() -> None:
    assert GroupCommit(size=16 * 2**20).size == GroupCommit().size
    for change in ({"size": 16 * 2**20 + 1}, {"size": 256 * 2**20}, {"not_final": 0}):
        with pytest.raises(ValueError, match="group commit"):
            GroupCommit(**change)


# --- the clock ----------------------------------------------------------------------------------


def test_a_clock_that_jumps_ahead_is_not_believed() -> None:
    now, passed = 1_000_000_000, 5_000
    clock = WatchedClock(lambda: now, lambda: passed)
    for _ in range(50):  # time passes; it gains a little; it is set back, and forth again
        now, passed = now + 10_000_000, passed + 10_000_000
        assert clock() == now
        now += 1000
        assert clock() == now
        now -= 5_000_000
        assert clock() == now
        now += 5_000_000
        assert clock() == now
    now += JUMP + 1
    for _ in range(3):
        with pytest.raises(Unavailable) as caught:
            clock()
        assert caught.value.code == "ledger.clock_jumped" and caught.value.facts["seconds"] == JUMP // 1000
    now -= JUMP
    assert clock() == now
    before = steady()
    assert before > 0 and steady() >= before


def test_no_block_is_made_while_the_clock_is_ahead(world: Any, tmp_path: Path) -> None:
    ahead = 0

    async def test() -> None:
        nonlocal ahead
        engine = await opened(world, tmp_path / "l", lambda: world.start + ahead, steady=lambda: 0)
        await executed(world, engine, 0)
        ahead = 3_600_000
        with pytest.raises(Unavailable) as caught:
            await executed(world, engine, 1)
        assert caught.value.code == "ledger.clock_jumped" and "clock" in str(caught.value)
        ahead = 1000
        data = world.envelope("hospital-1", grant(world, "g"), nonce=1)
        tx = await engine.submit(data)  # right again; and wrong again before the block is made
        ahead = 3_600_000
        with pytest.raises(Unavailable) as caught:
            await engine.wait(tx, 3 * IDLE)
        assert caught.value.code == "ledger.timeout" and engine.machine.height == 1
        ahead = 2000
        while engine.machine.height == 1:
            await asyncio.sleep(IDLE)
        assert engine.machine.time == world.start + 2000
        await engine.submit(world.envelope("hospital-1", grant(world, "h"), nonce=2))
        ahead = 3_600_000
        await engine.close()  # nothing is written with a wrong time
        assert engine.machine.height == 2

    asyncio.run(test())


# --- reading ------------------------------------------------------------------------------------


def test_a_subscription_ends_while_the_engine_closes(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = Store.append

    def slow(self: Store, *block: Any) -> None:
        time.sleep(0.2)
        append(self, *block)

    async def test() -> None:
        engine = await opened(world, tmp_path / "l")
        tasks = follow(world, engine)
        for number in range(3):
            await commit(engine, world.envelope("hospital-1", grant(world, f"g{number}"), nonce=number), 10)
        seen = list[int]()

        async def read_slowly() -> None:
            async for entry in engine.watch():
                seen.append(entry.height)
                await asyncio.sleep(0.02)

        reading = asyncio.create_task(read_slowly())
        await asyncio.sleep(0.03)
        monkeypatch.setattr(Store, "append", slow)
        await engine.submit(world.envelope("hospital-1", grant(world, "last"), nonce=3))
        await engine.close()
        await asyncio.wait_for(reading, 10)
        assert seen == [1, 2, 3]
        await asyncio.gather(*tasks)

    asyncio.run(test())


def test_selections_that_nothing_can_match(world: Any, tmp_path: Path) -> None:
    async def test() -> None:
        engine = await opened(world, tmp_path / "l")
        tasks = follow(world, engine)
        await commit(engine, world.envelope("hospital-1", grant(world, "g"), nonce=0), 10)
        far = 2**70
        for some in (Selection(since=-far), Selection(until=far), Selection(since=-far, until=far)):
            assert len(await engine.entries(some)) == 1
        for none in (Selection(since=far), Selection(until=-far), Selection("\ud800"), Selection(kind="\udfff")):
            assert await engine.entries(none) == ()
        assert await engine.entries(after=Cursor(far, 0)) == ()
        await engine.close()
        await asyncio.gather(*tasks)

    asyncio.run(test())


def test_a_long_search_lets_others_have_their_turn(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.engines.embedded.PAGE", 2)
    monkeypatch.setattr("ledger.engines.history.PAGE", 2)

    async def test() -> None:
        engine = await opened(world, tmp_path / "l")
        tasks = follow(world, engine)
        for number in range(9):
            await commit(engine, world.envelope("hospital-1", grant(world, f"g{number}"), nonce=number), 10)
        searching = asyncio.create_task(engine.entries(Selection(since=0), limit=9))
        turns = 0
        while not searching.done():
            await asyncio.sleep(0)
            turns += 1
        assert turns >= 4 and len(await searching) == 9
        searching = asyncio.create_task(engine.entries())
        await asyncio.sleep(0)
        await engine.close()  # meanwhile
        with pytest.raises(MedveilError) as caught:
            await searching
        assert caught.value.code == "ledger.closed"
        await asyncio.gather(*tasks)

    asyncio.run(test())
