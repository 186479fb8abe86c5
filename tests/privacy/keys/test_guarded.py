"""The limit on unwraps: ordinary use passes, a hoard does not, declared jobs do, and somebody is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from privacy.keys import Argon2Cost, FileKeyProvider, Guarded, KeyEvent
from privacy.vault import Vault
from wire.errors import Refused, Unavailable, VerificationError

KEY = b"k" * 32


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


class Desk:
    """A guarded provider, its clock, and what was told."""

    def __init__(self, folder: Path, rate: int = 10, burst: int = 20) -> None:
        self.clock = Clock()
        self.told: list[KeyEvent] = []
        self.file = FileKeyProvider.create(folder / "keys", "correct horse", cost=Argon2Cost(1, 8, 1))
        self.keys = Guarded(self.file, rate=rate, burst=burst, alert=self.told.append, clock=self.clock)
        self.wrapped = self.keys.wrap(1, KEY, b"")

    def unwrap(self, count: int = 1) -> None:
        for _ in range(count):
            assert self.keys.unwrap(1, self.wrapped, b"") == KEY

    def many(self, count: int) -> None:
        assert self.keys.unwrap_many(1, [(self.wrapped, b"")] * count) == [KEY] * count


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def refused(call: Callable[[], Any]) -> Unavailable:
    with pytest.raises(Unavailable) as raised:
        call()
    assert raised.value.code == "privacy.unwrap_rate"
    return raised.value


def test_as_many_as_burst_at_once_then_rate_a_second(desk: Desk) -> None:
    desk.unwrap(20)
    assert refused(desk.unwrap).retry_after == 1
    assert desk.told == [KeyEvent("refused", 1)]
    desk.clock.now += 0.5
    desk.unwrap(5)
    refused(desk.unwrap)
    desk.clock.now += 3600
    desk.many(20)
    refused(desk.unwrap)


def test_waiting_as_long_as_it_says_is_enough(desk: Desk) -> None:
    desk.unwrap(20)
    wait = refused(lambda: desk.many(15)).retry_after
    assert wait == 2
    desk.clock.now += wait
    desk.many(15)
    desk.unwrap(5)
    refused(desk.unwrap)


def test_more_than_ever_passes_at_once_is_no_matter_of_waiting(desk: Desk) -> None:
    with pytest.raises(Refused) as raised:
        desk.many(21)
    assert raised.value.code == "privacy.unwrap_bulk" and raised.value.facts == {"count": 21, "burst": 20}
    desk.many(20)  # and nothing was taken for it


def test_a_clock_that_goes_back_gives_nothing(desk: Desk) -> None:
    desk.unwrap(20)
    desk.clock.now -= 10
    refused(desk.unwrap)
    desk.clock.now += 1
    desk.unwrap(10)
    refused(desk.unwrap)


def test_a_declared_job_passes_and_is_told(desk: Desk) -> None:
    with desk.keys.batch("snapshot of claims-1", 1000, who="upkeep"):
        assert desk.told == [KeyEvent("batch", 1000, "snapshot of claims-1", "upkeep")]
        desk.many(900)
        desk.unwrap(100)
    assert desk.told[1:] == [KeyEvent("batch_done", 1000, "snapshot of claims-1", "upkeep")]
    desk.unwrap(20)  # what ordinary use may was not used up
    refused(desk.unwrap)


def test_beyond_what_was_declared_the_limit_holds(desk: Desk) -> None:
    with desk.keys.batch("job", 100, "mei"):
        desk.many(110)
        assert desk.told[1:] == [KeyEvent("exceeded", 10, "job", "mei")]
        desk.unwrap(10)
        refused(desk.unwrap)
        assert desk.told[-1] == KeyEvent("refused", 1, "job", "mei")
    assert desk.told[-1] == KeyEvent("batch_done", 120, "job", "mei")


def test_a_batch_is_for_its_own_block(desk: Desk) -> None:
    errors: list[Exception] = []

    def other() -> None:
        try:
            desk.unwrap(21)
        except Unavailable as error:
            errors.append(error)

    with desk.keys.batch("job", 1000):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        desk.many(100)
    assert len(errors) == 1

    async def tasks() -> None:
        ready = asyncio.Event()

        async def declared() -> None:
            with desk.keys.batch("job", 1000):
                ready.set()
                await asyncio.sleep(0)
                await asyncio.to_thread(desk.many, 500)

        async def stranger() -> None:
            await ready.wait()
            refused(desk.unwrap)

        await asyncio.gather(declared(), stranger())

    asyncio.run(tasks())


def test_a_batch_ends_with_its_block_for_what_was_started_in_it(desk: Desk) -> None:
    """A task takes along what was declared around it: not beyond the end."""

    async def tasks() -> None:
        ended = asyncio.Event()

        async def left_behind() -> None:
            desk.many(50)
            await ended.wait()
            desk.unwrap(20)  # as anybody may
            refused(desk.unwrap)
            with pytest.raises(Refused):
                await asyncio.to_thread(desk.many, 500)

        with desk.keys.batch("job", 1000):
            task = asyncio.create_task(left_behind())
            await asyncio.sleep(0)
        ended.set()
        await task

    asyncio.run(tasks())
    assert desk.told[1] == KeyEvent("batch_done", 50, "job")


def test_a_batch_is_of_one_provider(tmp_path: Path, desk: Desk) -> None:
    (tmp_path / "other").mkdir()
    other = Desk(tmp_path / "other")
    with desk.keys.batch("outer", 100), other.keys.batch("inner", 30):
        desk.many(100)
        other.many(30)
        with desk.keys.batch("innermost", 50):
            desk.many(50)


def test_a_batch_that_fails_is_over(desk: Desk) -> None:
    with pytest.raises(RuntimeError), desk.keys.batch("job", 1000):
        desk.many(30)
        raise RuntimeError
    assert desk.told[-1] == KeyEvent("batch_done", 30, "job")
    with pytest.raises(Refused):
        desk.many(30)


def test_nobody_to_tell_no_batch(desk: Desk) -> None:
    def deaf(event: KeyEvent) -> None:
        raise OSError

    desk.keys.alert = deaf
    with pytest.raises(OSError), desk.keys.batch("job", 1000):
        pytest.fail("it began")
    desk.unwrap(20)
    refused(desk.unwrap)  # and an alert that fails elsewhere hides no refusal


def test_alerts_do_not_flood(desk: Desk) -> None:
    desk.unwrap(20)
    for _ in range(500):
        refused(desk.unwrap)
    assert desk.told == [KeyEvent("refused", 1)]
    desk.clock.now += 61
    desk.unwrap(20)
    refused(desk.unwrap)
    assert desk.told == [KeyEvent("refused", 1), KeyEvent("refused", 500)]


def test_what_does_not_open_is_told(desk: Desk) -> None:
    for data, context in ((desk.wrapped, b"elsewhere"), (bytes(60), b"")):
        with pytest.raises(VerificationError):
            desk.keys.unwrap(1, data, context)
    assert desk.told == [KeyEvent("altered", 1)]


def test_a_provider_that_is_away_is_told(desk: Desk) -> None:
    FileKeyProvider(desk.file.path, "correct horse").new_epoch()
    with pytest.raises(Unavailable):
        desk.keys.new_epoch()
    assert desk.told == [KeyEvent("unavailable", 1)]


def test_the_rest_is_the_providers(desk: Desk) -> None:
    assert desk.keys.new_epoch() == 2
    assert desk.keys.epochs() == desk.file.epochs() == (1, 2)
    assert len(desk.keys.wrap_many(2, [(KEY, b"")] * 500)) == 500  # what goes in is not limited
    desk.keys.destroy(1)
    assert desk.keys.epochs() == (2,)
    for rate, burst in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            Guarded(desk.file, rate=rate, burst=burst)
    with pytest.raises(ValueError, match="not negative"), desk.keys.batch("job", -1):
        pass


def test_threads_take_no_more_than_there_is(tmp_path: Path) -> None:
    desk = Desk(tmp_path, rate=1, burst=100)
    passed = [0] * 8

    def taking(place: int) -> None:
        for _ in range(50):
            try:
                desk.unwrap()
                passed[place] += 1
            except Unavailable:
                pass

    threads = [threading.Thread(target=taking, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(passed) == 100


def test_a_vault_behind_it(desk: Desk, tmp_path: Path) -> None:
    table = pa.table({"visits": pa.array(range(200), pa.int64())})
    with Vault.create(tmp_path / "vault", desk.keys, "hospital-1") as vault:
        vault.ingest("claims-1", table, [str(number) for number in range(200)])
        desk.clock.now += 60
        assert vault.record("claims-1", "7")["visits"].to_pylist() == [7]
        desk.told.clear()
        assert vault.read("claims-1").equals(table)  # it declares itself, and somebody is told
        assert desk.told == [KeyEvent("batch", 200, "read claims-1"), KeyEvent("batch_done", 200, "read claims-1")]
        assert vault.rotate() == 2
        desk.clock.now += 60
        for number in range(5):
            vault.record("claims-1", str(number))
        refused(lambda: [vault.record("claims-1", str(number)) for number in range(200)])
