"""The post under much at once: a member that sends more than it may waits for itself; listeners share what comes."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.applications import Starlette
from starlette.requests import Request

from medveil.network import post as module
from medveil.network.answers import Told
from medveil.network.ledger_door import Done
from medveil.network.post import AT_ONCE, NetworkPost, PeerMessage
from medveil.service.database import Database
from wire.canonical import decode, encode
from wire.errors import DecodeError, Unavailable

SESSION = b"s" * 16
NOW = 1_000_000_000_000


@contextmanager
def opened(folder: Path) -> Iterator[tuple[NetworkPost, Database]]:
    database = Database.open(f"sqlite:///{folder / 'b'}.sqlite", owner="b")
    try:
        yield NetworkPost("b", database, _nobody, lambda: NOW), database
    finally:
        database.close()


def _nobody(organisation: str) -> Any:
    raise Unavailable("network.no_address", organisation=organisation)


def counts(database: Database) -> Counter[str]:
    """How often messages are counted on the disk, from now on."""
    found: Counter[str] = Counter()

    def heard(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        found["count"] += "count(" in statement and "post_in" in statement

    sa.event.listen(database._engine, "before_cursor_execute", heard)
    return found


def test_what_is_kept_of_a_sender_is_not_counted_for_each_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither while there is room nor once there is none; what was thrown away makes room again, to the message."""
    monkeypatch.setattr(module, "MOST_WAITING", 5)
    monkeypatch.setattr(module, "WAITING_BYTES", 100)

    async def story() -> None:
        with opened(tmp_path) as (post, database):
            counted = counts(database)

            async def takes(session: bytes, sequence: int, size: int = 1) -> bool:
                try:
                    await post.take("a", PeerMessage(session, sequence, bytes(size)))
                except Unavailable as error:
                    assert error.code == "network.full"
                    return False
                return True

            assert [await takes(SESSION, number) for number in range(8)] == [True] * 5 + [False] * 3
            assert counted["count"] == 1
            await post.forget(SESSION, ("a",))
            assert [await takes(b"other", number) for number in range(8)] == [True] * 5 + [False] * 3
            assert counted["count"] == 2
            await post.forget(b"nothing", ("a",))
            assert [await takes(SESSION, number) for number in range(3)] == [False] * 3
            assert counted["count"] == 3
            await post.end(b"other", ("a",))
            assert await takes(b"other", 9), "dropped: the session is over"
            assert await takes(SESSION, 0, 60)
            assert not await takes(SESSION, 1, 41)
            assert [await takes(SESSION, number, 10) for number in range(1, 6)] == [True] * 4 + [False]

    asyncio.run(story())


def test_what_may_not_have_been_written_takes_no_room_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 3)

    async def story() -> None:
        with opened(tmp_path) as (post, _database):
            real = post._insert

            def fails(db: sa.Connection, *row: Any) -> int | None:
                real(db, *row)
                db.rollback()
                return 1

            def committing(work: Callable[[sa.Connection], Any]) -> Awaitable[Any]:
                async def failed() -> Any:
                    await run(work)
                    raise Unavailable("database.full", place="here", retry_after=1)

                return failed()

            run = post._run
            post._insert, post._run = fails, committing  # type: ignore[method-assign, assignment]
            for number in range(6):
                with pytest.raises(Unavailable, match=r"(?i)space|full|here"):
                    await post.take("a", PeerMessage(SESSION, number, b"x"))
            post._insert, post._run = real, run  # type: ignore[method-assign]
            for number in range(3):
                await post.take("a", PeerMessage(SESSION, number, b"x"))
            assert await post._look(lambda db: db.scalar(sa.select(sa.func.count()).select_from(module.incoming))) == 3

    asyncio.run(story())


class Caller:
    """One request of a member, whose body comes when the test says so."""

    def __init__(self, app: Any, member: str) -> None:
        self.asked = 0
        self._pieces: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._answer = bytearray()
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": "/peer/v1/messages",
            "raw_path": b"/peer/v1/messages",
            "query_string": b"",
            "headers": [(b"member", member.encode())],
        }
        self.done = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        self.asked += 1
        return await self._pieces.get()

    async def _send(self, message: Any) -> None:
        self._answer += message.get("body", b"")

    def gives(self, message: PeerMessage) -> None:
        self._pieces.put_nowait({"type": "http.request", "body": encode(message), "more_body": False})

    def leaves(self) -> None:
        self._pieces.put_nowait({"type": "http.disconnect"})

    async def answer(self) -> Any:
        await asyncio.wait_for(self.done, 10)
        try:
            return decode(Done, bytes(self._answer))
        except DecodeError:
            return decode(Told, bytes(self._answer))


def _member(request: Request) -> str:
    return request.headers["member"]


def test_a_members_bodies_are_read_a_few_at_a_time_and_the_others_at_once(tmp_path: Path) -> None:
    """Each may be sixteen megabytes: hundreds of slow ones of one member were gigabytes of memory."""

    async def story() -> None:
        with opened(tmp_path) as (post, _database):
            app = Starlette(routes=post.routes(_member))
            slow = [Caller(app, "a") for _ in range(AT_ONCE + 20)]
            await asyncio.sleep(0.05)
            assert sum(one.asked for one in slow) == AT_ONCE
            other = Caller(app, "c")
            other.gives(PeerMessage(SESSION, 0, b"of another"))
            assert await other.answer() == Done()
            for number, one in enumerate(slow):
                one.gives(PeerMessage(SESSION, number, b"x"))
            assert [await one.answer() for one in slow] == [Done()] * len(slow)

    asyncio.run(story())


def test_who_hangs_up_in_the_middle_of_a_message_leaves_no_trace(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No fault of this program, nothing kept, and the place is free again."""

    async def story() -> None:
        with opened(tmp_path) as (post, _database):
            app = Starlette(routes=post.routes(_member))
            for _ in range(AT_ONCE + 2):
                gone = Caller(app, "a")
                gone.leaves()
                await asyncio.wait_for(gone.done, 5)
            stays = Caller(app, "a")
            stays.gives(PeerMessage(SESSION, 0, b"x"))
            assert await stays.answer() == Done()
            assert post.traffic.received == 1

    with caplog.at_level(logging.WARNING):
        asyncio.run(story())
    assert not caplog.records


def test_listeners_of_one_session_share_what_is_there(tmp_path: Path) -> None:
    """Each message is one listener's, whoever looked at the disk at the same time, and none is passed over."""

    async def story() -> None:
        with opened(tmp_path) as (post, _database):
            for number in range(6):
                await post.take("a", PeerMessage(SESSION, number, b"%d" % number))
            got = await asyncio.gather(*(post.receive(SESSION, 10, ("a",)) for _ in range(6)))
            assert sorted(one.sequence for one in got) == list(range(6))

    asyncio.run(story())


class Line:
    """A line to one other that takes what comes when it is told to."""

    organisation = "a"

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.took: list[PeerMessage] = []

    async def ask(self, method: str, path: str, kind: type[Any], body: bytes = b"", timeout: float = 30.0) -> Any:
        await self.open.wait()
        self.took.append(decode(PeerMessage, body))
        return Done()


def test_of_what_is_forgotten_while_it_waits_nothing_stays_once_it_is_taken(tmp_path: Path) -> None:
    """It is carried all the same, through a restart; who makes others answer in ever new sessions fills no disk."""

    async def rows(post: NetworkPost) -> list[tuple[bytes, int]]:
        kept = sa.select(module.outgoing.c.session, module.outgoing.c.sequence).order_by(module.outgoing.c.place)
        return await post._look(lambda db: [(row[0], row[1]) for row in db.execute(kept)])

    async def all_taken(post: NetworkPost) -> None:
        async with asyncio.timeout(10):
            while await post.waiting() or post._loads["a"].messages:
                await asyncio.sleep(0.01)

    async def story() -> None:
        with opened(tmp_path) as (post, database):
            for number in range(3):
                session = b"session %d" % number
                await post.send("a", session, 0, b"no")
                if number < 2:
                    await post.forget(session, ("a",) if number else ())
            assert await post.waiting() == {"a": 3}
            await post.close()
            line = Line()
            again = NetworkPost("b", database, lambda _: line, lambda: NOW)
            await again.start()
            await again.send("a", b"session 3", 0, b"late")
            assert again._loads["a"].messages == 4
            await again.forget(b"session 3", ("c",))
            line.open.set()
            await all_taken(again)
            assert [one.session[-1:] for one in line.took] == [b"0", b"1", b"2", b"3"]
            assert await rows(again) == [(b"session 2", 0), (b"session 3", 0)], "known until they are forgotten"
            await again.forget(b"session 2")
            await again.end(b"session 3", ("a",))
            assert await rows(again) == []
            await again.close()

    asyncio.run(story())
