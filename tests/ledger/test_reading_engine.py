"""Reading the engine's history by organisation, time and kind, and a subscription that resumes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from ledger.contracts import AnchorGrant, RegisterPopulation, RevokeGrant
from ledger.engines import Cursor, EmbeddedEngine, GroupCommit, attend, commit
from ledger.machine import Machine
from ledger.reading import Selection
from ledger.receipts import verify_receipt
from ledger.replicas import Replica
from wire.errors import Refused, Unavailable

ALL = ("bureau", "hospital-1", "hospital-2", "hospital-3", "hospital-4", "insurer", "researcher", "regulator")


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())


def grant(world: Any, name: str) -> AnchorGrant:
    return AnchorGrant(name, bytes(32), world.start, world.start + 10**9, 0)


class Clock:
    """One second a block."""

    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        self.now += 1000
        return self.now


@asynccontextmanager
async def running(world: Any, folder: Path, **options: Any) -> AsyncIterator[EmbeddedEngine]:
    engine = await EmbeddedEngine.open(
        folder / "ledger.sqlite", world.founding, world.signer("bureau", "cosign"), Clock(world.start), **options
    )
    tasks = [
        asyncio.create_task(
            attend(engine, Replica(world.founding, name, world.signer(name, "cosign"), lambda: world.start + 10**9))
        )
        for name in ALL
    ]
    try:
        yield engine
    finally:
        await engine.close()
        await asyncio.gather(*tasks)


async def send(world: Any, engine: EmbeddedEngine, sender: str, *ops: Any) -> None:
    nonce = await engine.next_nonce(sender)
    with suppress(Refused):  # a refusal is history too
        await commit(engine, world.envelope(sender, *ops, nonce=nonce), 10)


async def lived(world: Any, engine: EmbeddedEngine) -> None:
    """Twelve blocks of five kinds of envelopes by four senders."""
    for number in range(4):
        await send(world, engine, "hospital-1", grant(world, f"a{number}"))
        await asyncio.gather(
            send(world, engine, "hospital-2", grant(world, f"b{number}"), RevokeGrant(f"b{number}")),
            send(world, engine, "hospital-3", RegisterPopulation(f"p{number}", "row", 1, 1, ("hospital-3",))),
        )
        await send(world, engine, "insurer", RevokeGrant("none"))


async def plainly(engine: EmbeddedEngine, selection: Selection) -> list[Any]:
    """The same answer from every block."""
    export = await engine.export()
    machine = Machine(export.founding)
    return [entry for block in export.blocks for entry in selection.entries(block, machine.replay(block).results)]


def test_every_selection_against_a_plain_search(world: Any, tmp_path: Path) -> None:
    async def test() -> None:
        async with running(world, tmp_path) as engine:
            await lived(world, engine)
            everything = await engine.entries()
            assert [Cursor.of(entry) for entry in everything] == sorted(Cursor.of(entry) for entry in everything)
            assert len(everything) == 16 and engine.machine.height == 12
            times = sorted({entry.time for entry in everything})
            organisations = ("", "hospital-1", "hospital-2", "insurer", "regulator")
            kinds = ("", "grants", "grants.anchor", "grants.revoke", "datasets", "bills", "gra")
            spans = (
                (None, None),
                (times[3], None),
                (None, times[7]),
                (times[3], times[7]),
                (times[-1] + 1, None),
                (1, 2),
            )
            for organisation, kind, (since, until) in product(organisations, kinds, spans):
                selection = Selection(organisation, since, until, kind)
                assert list(await engine.entries(selection)) == await plainly(engine, selection), selection

    run(test)


def test_pages(world: Any, tmp_path: Path) -> None:
    async def test() -> None:
        async with running(world, tmp_path) as engine:
            await lived(world, engine)
            for selection in (
                Selection(),
                Selection(kind="grants"),
                Selection("hospital-2"),
                Selection("hospital-2", kind="grants"),
            ):
                whole = list(await engine.entries(selection))
                for limit in (1, 2, 3, 5, 100):
                    after, pages = Cursor(), []
                    while page := await engine.entries(selection, after, limit):
                        assert len(page) <= limit
                        pages += page
                        after = Cursor.of(page[-1])
                    assert pages == whole
            for limit in (0, 1001):
                with pytest.raises(ValueError, match="limit"):
                    await engine.entries(limit=limit)

    run(test)


def test_what_is_not_final_is_not_read(world: Any, tmp_path: Path) -> None:
    async def test() -> None:
        engine = await EmbeddedEngine.open(
            tmp_path / "l", world.founding, world.signer("bureau", "cosign"), Clock(world.start)
        )
        await engine.submit(world.envelope("insurer", grant(world, "g")))
        while engine.machine.height == 0:
            await asyncio.sleep(0.001)
        assert await engine.entries() == ()
        await engine.close()
        with pytest.raises(Unavailable):
            await engine.entries()
        assert [entry async for entry in engine.watch()] == []

    run(test)


def test_each_entry_has_its_receipt(world: Any, tmp_path: Path) -> None:
    async def test() -> None:
        async with running(world, tmp_path) as engine:
            await lived(world, engine)
            for entry in await engine.entries():
                receipt = await engine.wait(entry.result.envelope, 1)
                assert receipt.result == entry.result and receipt.block.time == entry.time
                verify_receipt(receipt, world.trust)

    run(test)


@pytest.mark.parametrize("selection", [Selection(), Selection(kind="grants.revoke"), Selection("hospital-3")])
def test_a_subscription_resumes(world: Any, tmp_path: Path, selection: Selection) -> None:
    """It is dropped after every second entry, also over a restart of the engine: none is missed, none comes twice."""

    async def test() -> None:
        seen: list[Any] = []
        after = Cursor()

        async def two(engine: EmbeddedEngine) -> None:
            nonlocal after
            async for entry in engine.watch(selection, after):
                seen.append(entry)
                after = Cursor(*map(int, ",".join(map(str, Cursor.of(entry))).split(",")))  # as kept in any file
                if len(seen) % 2 == 0:
                    return

        async with running(world, tmp_path, group=GroupCommit(delay=0.005)) as engine:
            reading = asyncio.create_task(two(engine))
            await lived(world, engine)
            await asyncio.wait_for(reading, 10)
        async with running(world, tmp_path) as engine:
            writing = asyncio.create_task(lived_again(world, engine))
            total = len(await plainly(engine, selection)) * 2
            while len(seen) < total:
                await asyncio.wait_for(two(engine), 10)
            await writing
            assert seen == await plainly(engine, selection) and len(seen) == total

    async def lived_again(world: Any, engine: EmbeddedEngine) -> None:
        for number in range(4):
            await send(world, engine, "hospital-1", grant(world, f"c{number}"))
            await send(world, engine, "hospital-2", grant(world, f"d{number}"), RevokeGrant(f"d{number}"))
            await send(world, engine, "hospital-3", RegisterPopulation(f"q{number}", "row", 1, 1, ("hospital-3",)))
            await send(world, engine, "insurer", RevokeGrant("none"))

    run(test)


def test_a_subscription_ends_with_its_time_and_with_the_engine(world: Any, tmp_path: Path) -> None:
    async def test() -> None:
        async with running(world, tmp_path) as engine:
            await lived(world, engine)
            until = (await engine.entries())[5].time
            early = [entry async for entry in engine.watch(Selection(until=until))]
            assert early == list(await engine.entries(Selection(until=until))) and early

            async def all_of_it() -> int:
                return len([entry async for entry in engine.watch()])

            watching = asyncio.create_task(all_of_it())
            await asyncio.sleep(0.01)
            assert not watching.done()
        assert await asyncio.wait_for(watching, 10) == 16

    run(test)


def test_a_ledger_from_a_snapshot_says_where_its_history_begins(world: Any, tmp_path: Path) -> None:
    async def test() -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        async with running(world, tmp_path / "a") as engine:
            await lived(world, engine)
            snapshot = await engine.snapshot()
        engine = await EmbeddedEngine.open(
            tmp_path / "b" / "l",
            world.founding,
            world.signer("bureau", "cosign"),
            Clock(world.start),
            snapshot=snapshot,
        )
        with pytest.raises(Refused) as caught:
            await engine.entries()
        assert caught.value.code == "ledger.before_snapshot" and caught.value.facts["first"] == 13
        assert await engine.entries(after=Cursor(12)) == ()
        await engine.close()

    run(test)
