"""Gathered calls: together, in order, each answered, whoever goes away or fails."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from medveil.service.security import gathered
from medveil.service.security.gathered import Gathered


def test_what_is_asked_while_one_is_served_is_served_together_in_order() -> None:
    served: list[list[int]] = []
    first, go = threading.Event(), threading.Event()

    def serve(items: list[int]) -> int:
        served.append(items)
        first.set()
        go.wait(5)
        return len(served)

    async def main() -> list[int]:
        asked = Gathered(serve, "test", most=3)
        early = asked.ask(0)
        await asyncio.to_thread(first.wait, 5)
        late = [asked.ask(n) for n in range(1, 6)]
        go.set()
        answers = await asyncio.gather(early, *late)
        await asyncio.to_thread(asked.close)
        return answers

    assert asyncio.run(main()) == [1, 2, 2, 2, 3, 3]
    assert served == [[0], [1, 2, 3], [4, 5]]


def test_a_failure_is_told_to_those_of_that_time_alone() -> None:
    def serve(items: list[str]) -> None:
        if "bad" in items:
            raise LookupError("bad")

    async def main() -> None:
        asked = Gathered(serve, "test")
        both = [asked.ask("bad"), asked.ask("good")]
        for future in both:
            with pytest.raises(LookupError):
                await future
        await asked.ask("good")
        await asyncio.to_thread(asked.close)

    asyncio.run(main())


def test_who_goes_away_is_served_and_holds_up_nobody() -> None:
    served: list[int] = []

    async def main() -> None:
        asked = Gathered[int, None](served.extend, "test")
        gone = asyncio.ensure_future(asked.ask(1))
        other = asked.ask(2)
        gone.cancel()
        await other
        await asyncio.to_thread(asked.close)

    asyncio.run(main())
    assert served == [1, 2]


def test_the_thread_ends_by_itself_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathered, "_IDLE_SECONDS", 0.02)
    threads: set[threading.Thread] = set()

    async def main() -> None:
        asked = Gathered[int, None](lambda _: threads.add(threading.current_thread()), "test")
        for _ in range(2):
            await asked.ask(1)
            (thread,) = [thread for thread in threads if thread.is_alive()]
            await asyncio.to_thread(thread.join, 5)
            assert not thread.is_alive()

    asyncio.run(main())
    assert len(threads) == 2


def test_what_can_be_done_at_once_is_done_in_the_loop_and_never_beside_the_thread() -> None:
    served: list[tuple[str, list[int]]] = []
    inside = threading.Lock()

    def serve(items: list[int]) -> None:
        assert inside.acquire(blocking=False)
        time.sleep(0.001)
        served.append((threading.current_thread().name, items))
        inside.release()

    def at_once(items: list[int]) -> bool:
        assert inside.acquire(blocking=False)
        try:
            if 13 in items:
                raise LookupError
            if len(served) % 3 == 2:
                return False
            served.append((threading.current_thread().name, items))
            return True
        finally:
            inside.release()

    async def main() -> None:
        asked = Gathered(serve, "test", at_once=at_once)

        async def one(number: int) -> None:
            for k in range(20):
                await asked.ask(100 * number + 20 + k)

        await asyncio.gather(*(one(n) for n in range(10)))
        with pytest.raises(LookupError):
            await asked.ask(13)
        await asyncio.to_thread(asked.close)

    asyncio.run(main())
    assert {name for name, _ in served} == {"test", threading.current_thread().name}
    everything = [item for _, items in served for item in items]
    assert sorted(everything) == sorted(100 * n + 20 + k for n in range(10) for k in range(20))
    assert max(len(items) for _, items in served) == 10


def test_it_serves_one_loop_after_the_other() -> None:
    asked: Gathered[int, int] = Gathered(sum, "test")

    async def main(number: int) -> int:
        return await asked.ask(number)

    assert [asyncio.run(main(n)) for n in (3, 4)] == [3, 4]
    asked.close()
