"""The post: kept before it is said, carried until it is acknowledged, once and in order, through restarts."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from medveil.network import post as module
from medveil.network.ledger_door import Done
from medveil.network.post import LARGEST_PAYLOAD, NetworkPost, PeerMessage
from medveil.service.database import Database
from wire.canonical import decode
from wire.errors import Refused, Unavailable

SESSION = b"s" * 16


class Wire:
    """A line to another post of this process, which can be cut, and can lose an acknowledgement."""

    def __init__(self, town: Town, sender: str, organisation: str) -> None:
        self.town, self.sender, self.organisation = town, sender, organisation

    async def ask(self, method: str, path: str, kind: type[Any], body: bytes = b"", timeout: float = 30.0) -> Any:
        self.town.asked += 1
        if self.organisation in self.town.away:
            raise Unavailable("network.unreachable", organisation=self.organisation)
        await self.town.posts[self.organisation].take(self.sender, decode(PeerMessage, body))
        if self.town.losing.random() < self.town.loss:
            raise Unavailable("network.unreachable", organisation=self.organisation)
        return Done()


class Town:
    """Posts with databases of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.posts: dict[str, NetworkPost] = {}
        self.databases: dict[str, Database] = {}
        self.away: set[str] = set()
        self.loss, self.losing, self.asked, self.now = 0.0, random.Random(4), 0, 1_000_000_000_000

    async def open(self, name: str) -> NetworkPost:
        self.databases[name] = Database.open(f"sqlite:///{self.folder / name}.sqlite", owner=name)
        made = NetworkPost(name, self.databases[name], lambda to: Wire(self, name, to), lambda: self.now)
        self.posts[name] = made
        await made.start()
        return made

    async def stop(self, name: str) -> None:
        await self.posts.pop(name).close()
        self.databases.pop(name).close()


def run(folder: Path, test: Callable[[Town], Awaitable[None]]) -> None:
    async def whole() -> None:
        town = Town(folder)
        try:
            await test(town)
        finally:
            for name in list(town.posts):
                with contextlib.suppress(Exception):
                    await town.stop(name)

    asyncio.run(whole())


async def take(post: NetworkPost, count: int, timeout: float = 10) -> list[tuple[str, int, bytes]]:
    return [tuple(await post.receive(SESSION, timeout)) for _ in range(count)]  # type: ignore[misc]


def test_once_and_in_order_over_a_line_that_loses_acknowledgements(tmp_path: Path) -> None:
    async def test(town: Town) -> None:
        a, b = await town.open("a"), await town.open("b")
        town.loss = 0.4
        for number in range(20):
            await a.send("b", SESSION, number, b"%d" % number)
        assert await take(b, 20) == [("a", number, b"%d" % number) for number in range(20)]
        assert town.asked > 20
        assert a.traffic.sent == 30
        with pytest.raises(Unavailable):
            await b.receive(SESSION, 0.2)
        assert b.traffic.sessions == 1  # now it waited: had all been there before, it would not have listened
        town.loss = 0.0
        async with asyncio.timeout(20):
            while await a.waiting():
                await asyncio.sleep(0.05)

    run(tmp_path, test)


def test_what_was_sent_before_a_restart_arrives_after_it(tmp_path: Path) -> None:
    async def test(town: Town) -> None:
        a = await town.open("a")
        town.away.add("b")
        for number in range(3):
            await a.send("b", SESSION, number, b"m%d" % number)
        assert await a.waiting() == {"b": 3}
        await town.stop("a")
        b = await town.open("b")
        town.away.clear()
        await town.open("a")
        assert [payload for _, _, payload in await take(b, 3)] == [b"m0", b"m1", b"m2"]

    run(tmp_path, test)


def test_a_session_begins_anew_after_a_restart_until_it_is_forgotten(tmp_path: Path) -> None:
    async def test(town: Town) -> None:
        a, b = await town.open("a"), await town.open("b")
        for number in range(3):
            await a.send("b", SESSION, number, b"m%d" % number)
        first = await take(b, 3)
        await town.stop("b")
        b = await town.open("b")
        assert await take(b, 3) == first
        await b.forget(SESSION)
        assert b.traffic.sessions == 0
        await town.stop("b")
        b = await town.open("b")
        with pytest.raises(Unavailable):
            await b.receive(SESSION, 0.2)

    run(tmp_path, test)


def test_a_place_that_is_taken_keeps_what_it_holds(tmp_path: Path) -> None:
    """A job that is played again seals its messages anew: the first ones stay."""

    async def test(town: Town) -> None:
        a, b = await town.open("a"), await town.open("b")
        town.away.add("b")
        await a.send("b", SESSION, 0, b"first")
        await a.send("b", SESSION, 0, b"second")
        town.away.clear()
        assert await take(b, 1) == [("a", 0, b"first")]
        await a.send("b", SESSION, 0, b"third")
        with pytest.raises(Unavailable):
            await b.receive(SESSION, 0.3)

    run(tmp_path, test)


def test_later_messages_wait_for_earlier_ones(tmp_path: Path) -> None:
    async def test(town: Town) -> None:
        a, b = await town.open("a"), await town.open("b")
        await a.send("b", SESSION, 1, b"later")
        with pytest.raises(Unavailable):
            await b.receive(SESSION, 0.3)
        await a.send("b", SESSION, 0, b"earlier")
        assert [payload for _, _, payload in await take(b, 2)] == [b"earlier", b"later"]

    run(tmp_path, test)


def test_quotas_and_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 3)

    async def test(town: Town) -> None:
        a, b = await town.open("a"), await town.open("b")
        with pytest.raises(Refused):
            await a.send("b", SESSION, 0, bytes(LARGEST_PAYLOAD + 1))
        for number in range(5):
            await a.send("b", SESSION, number, b"x")
        await take(b, 3)
        await asyncio.sleep(0.3)
        assert await a.waiting() == {"b": 2}  # they wait at the sender
        await b.forget(SESSION)
        async with asyncio.timeout(20):
            while await a.waiting():
                await asyncio.sleep(0.05)

    run(tmp_path, test)


def test_what_waits_for_one_that_is_away_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 20)
    monkeypatch.setattr(module, "WAITING_BYTES", 1000)
    monkeypatch.setattr(module, "PATIENCE", 0.5)

    async def test(town: Town) -> None:
        a, b = await town.open("a"), await town.open("b")
        await town.open("c")
        town.away.add("b")

        async def refused(sequence: int, size: int = 1) -> str:
            with pytest.raises(Unavailable) as full:
                await a.send("b", SESSION, sequence, bytes(size))
            assert full.value.facts["organisation"] == "b"
            return full.value.code

        await a.send("b", SESSION, 0, bytes(900))
        assert await refused(1, 101) == "network.undelivered", "too many bytes"
        for number in range(1, 20):
            await a.send("b", SESSION, number, b"%d" % number)
        assert await refused(20) == "network.undelivered", "too many messages"
        await a.send("b", SESSION, 3, b"again")
        await a.send("c", SESSION, 0, b"for another")
        assert (await a.waiting())["b"] == 20
        await town.stop("a")
        a = await town.open("a")
        assert await refused(20) == "network.undelivered", "also after a restart"
        town.away.clear()
        got = [payload for _, _, payload in await take(b, 20)]
        assert got == [bytes(900), *(b"%d" % number for number in range(1, 20))]
        await b.forget(SESSION)
        await a.send("b", SESSION, 20, b"there is room")
        async with asyncio.timeout(20):
            while await a.waiting():
                await asyncio.sleep(0.05)
        assert (a._loads["b"].messages, a._loads["b"].size) == (0, 0)

    run(tmp_path, test)


@pytest.mark.postgres
def test_what_waits_is_counted_by_a_server_too(tmp_path: Path, postgres_url: str) -> None:
    database = Database.open(postgres_url, owner="a")

    async def test(town: Town) -> None:
        async def opened() -> NetworkPost:
            made = NetworkPost("a", database, lambda to: Wire(town, "a", to), lambda: town.now)
            await made.start()
            return made

        town.away.add("b")
        a = await opened()
        for number in range(3):
            await a.send("b", SESSION, number, bytes(100))
        await a.close()
        a = await opened()
        assert (a._loads["b"].messages, a._loads["b"].size) == (3, 300)
        town.now += module.KEPT_MS + 1
        await a.prune()
        assert (a._loads["b"].messages, a._loads["b"].size) == (0, 0)
        await a.close()

    run(tmp_path, test)
    database.close()  # no thread uses a connection any more


def test_who_takes_its_messages_is_sent_any_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module._Load, "has_room", lambda load, size: load.size + size <= 3000)  # the sender's limit

    async def test(town: Town) -> None:
        a, b = await town.open("a"), await town.open("b")

        async def reading() -> None:
            for number in range(40):
                assert (await b.receive(bytes([number]), 20)).payload == bytes(1000)
                await b.forget(bytes([number]))

        read = asyncio.ensure_future(reading())
        await asyncio.gather(*(a.send("b", bytes([number]), 0, bytes(1000)) for number in range(40)))
        await read

    run(tmp_path, test)


def test_what_was_thrown_away_counts_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 2)

    async def test(town: Town) -> None:
        a = await town.open("a")
        town.away.add("b")
        for number in range(2):
            await a.send("b", SESSION, number, b"x")
        town.now += module.KEPT_MS + 1
        await a.prune()
        assert await a.waiting() == {}
        for number in range(2, 4):
            await a.send("b", SESSION, number, b"x")
        await a.forget(SESSION)
        await asyncio.sleep(0.1)
        assert (a._loads["b"].messages, a._loads["b"].size) == (2, 2)

    run(tmp_path, test)


def test_what_nobody_asks_for_is_thrown_away_in_the_end(tmp_path: Path) -> None:
    async def test(town: Town) -> None:
        a, b = await town.open("a"), await town.open("b")
        await a.send("b", SESSION, 0, b"x")
        await take(b, 1)
        await town.stop("b")
        town.now += module.KEPT_MS + 1
        b = await town.open("b")
        with pytest.raises(Unavailable):
            await b.receive(SESSION, 0.2)
        await a.send("b", b"another", 0, b"y")
        assert (await b.receive(b"another", 10)).payload == b"y"
        town.now += module.KEPT_MS + 1
        await b.prune()  # without a restart
        assert await b._run(lambda db: db.execute(select(module.incoming)).all()) == []

    run(tmp_path, test)


def test_what_others_send_in_a_session_is_theirs_alone(tmp_path: Path) -> None:
    """Whoever listens to one sender neither takes nor drops what another sent, nor forgets it."""

    async def test(town: Town) -> None:
        a, b, c = await town.open("a"), await town.open("b"), await town.open("c")
        await a.send("b", SESSION, 0, b"from a")
        await c.send("b", SESSION, 0, b"from c")
        await b.send("a", SESSION, 0, b"to a")
        assert (await b.receive(SESSION, 10, ("c",))).payload == b"from c"
        await b.forget(SESSION, ("c",))
        await b.send("a", SESSION, 0, b"another")
        assert (await a.receive(SESSION, 10)).payload == b"to a"
        assert (await b.receive(SESSION, 10, ("a",))).payload == b"from a"
        for nobody in ((), ("c",)):
            with pytest.raises(Unavailable):
                await b.receive(SESSION, 0.2, nobody)

    run(tmp_path, test)


def test_two_that_listen_in_one_session_both_hear(tmp_path: Path) -> None:
    async def test(town: Town) -> None:
        a, b, c = await town.open("a"), await town.open("b"), await town.open("c")
        for number in range(10):
            listening = [asyncio.ensure_future(b.receive(SESSION, 10, (sender,))) for sender in ("a", "c")]
            await asyncio.sleep(0.01 * (number % 3))
            await a.send("b", SESSION, number, b"a")
            await c.send("b", SESSION, number, b"c")
            assert [one.payload for one in await asyncio.gather(*listening)] == [b"a", b"c"]

    run(tmp_path, test)


def test_openings_come_again_after_a_restart_until_they_are_forgotten(tmp_path: Path) -> None:
    async def test(town: Town) -> None:
        a, b, c = await town.open("a"), await town.open("b"), await town.open("c")
        await a.send("b", SESSION, 0, b"from a")
        await c.send("b", SESSION, 0, b"from c")
        async with asyncio.timeout(20):
            openings, both = b.openings(), set[str]()
            while both != {"a", "c"}:
                both.add((await anext(openings))[1].sender)
            await town.stop("b")
            b = await town.open("b")
            openings = b.openings()
            assert (await anext(openings))[0] == SESSION
            assert (await anext(openings))[0] == SESSION
            b.open_again(SESSION, "c")
            assert await anext(openings) == (SESSION, ("c", 0, b"from c"))
            b.open_again(SESSION, "a")
            await b.forget(SESSION, ("a", "c"))
            await a.send("b", b"another", 0, b"more")
            assert await anext(openings) == (b"another", ("a", 0, b"more"))

    run(tmp_path, test)


async def carried(post: NetworkPost) -> None:
    async with asyncio.timeout(20):
        while await post.waiting():
            await asyncio.sleep(0.02)


async def kept(post: NetworkPost) -> list[tuple[str, bytes, int]]:
    into = module.incoming.c
    rows = await post._run(lambda db: db.execute(select(module.incoming).order_by(into.place)).all())
    return [(row.sender, row.session, row.sequence) for row in rows]


def test_what_comes_of_a_session_that_is_over_is_taken_and_dropped(tmp_path: Path) -> None:
    """From those with whom it is over, also after a restart, for as long as somebody could still carry it."""

    async def test(town: Town) -> None:
        a, b, c = await town.open("a"), await town.open("b"), await town.open("c")
        await a.send("b", SESSION, 0, b"first")
        await take(b, 1)
        await b.end(SESSION, ("a",))
        for restart in (False, True):
            if restart:
                await town.stop("b")
                b = await town.open("b")
            await a.send("b", SESSION, 1 + restart, b"late")
            await carried(a)
            assert await kept(b) == [("a", SESSION, -1)]
        with pytest.raises(Unavailable):
            await b.receive(SESSION, 0.1)
        await c.send("b", SESSION, 0, b"of another")
        await a.send("b", b"another", 0, b"of the same")
        assert (await b.receive(SESSION, 10)).payload == b"of another"
        assert (await b.receive(b"another", 10)).payload == b"of the same"
        await b.forget(SESSION)
        assert await kept(b) == [("a", SESSION, -1), ("a", b"another", 0)], "it stays over"
        town.now += module.KEPT_MS + 1
        await b.prune()
        assert await kept(b) == [("a", SESSION, -1)]
        await a.send("b", SESSION, 5, b"sent in the first week, carried in the second")
        await carried(a)
        assert await kept(b) == [("a", SESSION, -1)]
        town.now += module.KEPT_MS
        await b.prune()
        assert await kept(b) == []

    run(tmp_path, test)


def test_sessions_that_are_over_take_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 3)

    async def test(town: Town) -> None:
        a, b = await town.open("a"), await town.open("b")
        for number in range(5):
            await b.end(bytes([number]), ("a", "c"))
            await b.end(bytes([number]), ("a", "c"))  # again
        assert [(sender, session[0]) for sender, session, _ in await kept(b)] == [
            (sender, number) for number in (2, 3, 4) for sender in ("a", "c")
        ], "the oldest give way, of each sender"
        for number in range(3):
            await a.send("b", SESSION, number, b"x")
        assert len(await take(b, 3)) == 3

    run(tmp_path, test)


# --- what the disk is asked for


def test_a_message_on_its_way_is_written_and_acknowledged_and_not_looked_for(tmp_path: Path) -> None:
    """One transaction each, and no look at the disk, as long as the recipient takes what comes."""

    async def test(town: Town) -> None:
        a, b = await town.open("a"), await town.open("b")
        await a.send("b", SESSION, 0, b"first")
        await take(b, 1)
        await all_carried(a)
        done = counted(a)
        for number in (1, 2):
            await a.send("b", SESSION, number, b"x")
            assert await take(b, 1) == [("a", number, b"x")]
            await all_carried(a)
        assert done == {"transaction": 4}
        town.away.add("b")
        await a.send("b", SESSION, 3, b"late")
        await asyncio.sleep(0.1)
        town.away.clear()
        assert await take(b, 1) == [("a", 3, b"late")], "one that was not taken is found again on the disk"
        await all_carried(a)
        looks = done["reading"]
        assert looks > 0
        await a.send("b", SESSION, 4, bytes(module._FRESH_BYTES + 1))
        await take(b, 1)
        await all_carried(a)
        assert done["reading"] > looks, "a long one is not held in memory"
        assert not any(a._fresh.values())

    run(tmp_path, test)


def counted(post: NetworkPost) -> Counter[str]:
    """How often the post begins to write and to read, from now on."""
    found: Counter[str] = Counter()
    database: Any = post._database
    for name in ("transaction", "reading"):
        setattr(database, name, partial(_begin, found, name, getattr(database, name)))
    return found


def _begin(found: Counter[str], name: str, real: Callable[[], Any]) -> Any:
    found[name] += 1
    return real()


async def all_carried(post: NetworkPost) -> None:
    async with asyncio.timeout(5):
        while post._loads["b"].messages:
            await asyncio.sleep(0.005)
    assert post._loads["b"].size == 0


def test_who_is_cancelled_while_sending_has_sent_all_the_same(tmp_path: Path) -> None:
    """Nothing is counted that does not wait, and nothing waits that is not counted."""

    async def test(town: Town) -> None:
        a, b = await town.open("a"), await town.open("b")
        held, insert = threading.Event(), a._insert

        def slow(*row: Any) -> int | None:
            held.wait(5)
            return insert(*row)

        a._insert = slow  # type: ignore[method-assign, assignment]
        sending = asyncio.create_task(a.send("b", SESSION, 0, b"given up"))
        await asyncio.sleep(0.05)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        held.set()
        assert await take(b, 1, 5) == [("a", 0, b"given up")]
        await all_carried(a)

    run(tmp_path, test)


def test_a_message_of_which_nobody_knows_whether_it_was_written_is_carried_if_it_was(tmp_path: Path) -> None:
    async def test(town: Town) -> None:
        a, b = await town.open("a"), await town.open("b")
        real = a._run

        async def lost(work: Callable[[Any], Any]) -> Any:
            a._run = real  # type: ignore[method-assign]
            await real(work)
            raise Unavailable("database.unreachable", place="here")

        a._run = lost  # type: ignore[method-assign]
        with pytest.raises(Unavailable):
            await a.send("b", SESSION, 0, b"perhaps")
        assert await take(b, 1) == [("a", 0, b"perhaps")]
        await a.send("b", SESSION, 1, b"surely")
        assert await take(b, 1) == [("a", 1, b"surely")]

    run(tmp_path, test)


def test_a_disk_that_is_busy_for_a_moment_ends_no_carrying(tmp_path: Path) -> None:
    async def test(town: Town) -> None:
        a, b = await town.open("a"), await town.open("b")
        real, failed = a._acknowledge, list[int]()

        def busy(db: Any, place: int) -> bool:
            if len(failed) < 2:
                failed.append(place)
                raise Unavailable("database.busy", place="here", retry_after=1)
            return real(db, place)

        a._acknowledge = busy  # type: ignore[method-assign]
        for number in range(3):
            await a.send("b", SESSION, number, b"x")
        assert len(await take(b, 3)) == 3
        await all_carried(a)
        assert len(failed) == 2

    run(tmp_path, test)


def test_who_reads_waits_for_nobody_who_writes(tmp_path: Path) -> None:
    async def test(town: Town) -> None:
        a, b = await town.open("a"), await town.open("b")
        await a.send("b", SESSION, 0, b"there")
        await all_carried(a)
        with town.databases["b"].transaction():
            assert await take(b, 1, 2) == [("a", 0, b"there")]
            assert await b.waiting() == {}

    run(tmp_path, test)


def test_what_comes_while_somebody_listens_is_not_looked_for(tmp_path: Path) -> None:
    """It is on the disk before he has it, and his who is meant: once, in order, of the senders that he named."""

    async def test(town: Town) -> None:
        a, c, b = await town.open("a"), await town.open("c"), await town.open("b")
        listening = asyncio.create_task(b.receive(SESSION, 10, ("a",)))
        await asyncio.sleep(0.1)
        done = counted(b)
        await a.send("b", SESSION, 0, b"first")
        assert tuple(await listening) == ("a", 0, b"first")
        assert done == {"transaction": 1}
        assert len(await kept(b)) == 1

        others = [asyncio.create_task(b.receive(SESSION, 10, ("a",))) for _ in range(2)]
        await asyncio.sleep(0.1)
        await c.send("b", SESSION, 0, b"of another")
        await a.send("b", SESSION, 2, b"third")
        await asyncio.sleep(0.1)
        assert not any(one.done() for one in others)
        await a.send("b", SESSION, 1, b"second")
        assert sorted([tuple(one) for one in await asyncio.gather(*others)]) == [
            ("a", 1, b"second"), ("a", 2, b"third")
        ]  # fmt: skip
        assert tuple(await b.receive(SESSION, 10)) == ("c", 0, b"of another")
        await b.take("a", PeerMessage(SESSION, 1, b"again"))
        with pytest.raises(Unavailable):
            await b.receive(SESSION, 0.2)

    run(tmp_path, test)
