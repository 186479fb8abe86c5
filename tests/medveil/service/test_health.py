"""The checks of readiness against what they check."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from medveil.service import health
from medveil.service.health import Health, database_writable, disk_above_floor, task_running

from .running import Set

Make = Callable[..., Set]


async def passes() -> bool:
    return True


def test_ready_only_if_every_check_passes(make_set: Make) -> None:
    async def fails() -> bool:
        return False

    async def main() -> None:
        own = Health(make_set().log)
        own.add("one", passes)
        assert await own.ready() == {"one": True, "serving": True}
        own.stopping = True
        assert await own.ready() == {"one": True, "serving": False}
        other = Health(make_set().log)
        other.add("one", passes)
        other.add("two", fails)
        assert await other.ready() == {"one": True, "two": False, "serving": True}

    asyncio.run(main())


def test_a_check_that_hangs_fails_and_is_asked_once(make_set: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PATIENCE", 0.05)
    asked = 0

    async def hangs() -> bool:
        nonlocal asked
        asked += 1
        await asyncio.sleep(60)
        return True

    async def main() -> None:
        own = Health(make_set().log)
        own.add("slow", hangs)
        begun = time.monotonic()
        answers = await asyncio.gather(*(own.ready() for _ in range(50)))
        assert time.monotonic() - begun < 2
        assert all(answer == {"slow": False, "serving": True} for answer in answers)
        assert asked == 1

    asyncio.run(main())


def test_a_database_that_takes_no_write_is_not_ready(make_set: Make, tmp_path: Path) -> None:
    own = make_set()

    async def main() -> None:
        checks = Health(own.log)
        checks.add("database", database_writable(own.database))
        assert (await checks.ready())["database"]
        own.database.close()
        for path in tmp_path.glob("service.db*"):
            path.unlink()
        (tmp_path / "service.db").write_bytes(b"this is no database" * 100)
        checks._answer = None
        assert not (await checks.ready())["database"]

    asyncio.run(main())
    assert "no database" not in own.written.getvalue().decode()


def test_a_full_disk_is_not_ready(tmp_path: Path) -> None:
    assert asyncio.run(disk_above_floor(tmp_path, 1)())
    assert not asyncio.run(disk_above_floor(tmp_path, 1 << 62)())


def test_a_task_that_ended_is_not_ready() -> None:
    async def main() -> None:
        task: asyncio.Task[None] | None = None
        check = task_running(lambda: task)
        assert not await check()
        task = asyncio.create_task(asyncio.sleep(60))
        assert await check()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not await check()

    asyncio.run(main())
