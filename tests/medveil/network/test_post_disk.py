"""The post while its database is away: what others began is found when it is there again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from medveil.network.post import NetworkPost, PeerMessage
from medveil.service.database import Database
from wire.errors import Unavailable


def nobody(organisation: str) -> Any:
    raise Unavailable("network.unreachable", organisation=organisation)


def test_a_disk_that_is_away_for_a_moment_ends_no_openings(tmp_path: Path) -> None:
    """Whoever attends to them would end, and the gateway's process with it."""

    async def story(post: NetworkPost) -> None:
        look, away = post._look, [3]

        async def trouble(what: Any) -> Any:
            if away[0]:
                away[0] -= 1
                raise Unavailable("database.unreachable", place="here")
            return await look(what)

        post._look = trouble  # type: ignore[method-assign]
        openings = post.openings()
        async with asyncio.timeout(30):
            await post.take("a", PeerMessage(b"first", 0, b"hello"))
            assert await anext(openings) == (b"first", ("a", 0, b"hello"))
            assert away == [0]
            away[0] = 2
            await post.take("a", PeerMessage(b"second", 0, b"hello again"))
            found = await anext(openings)
            while found[0] == b"first":  # it had come by the time of the first look
                found = await anext(openings)
        assert found == (b"second", ("a", 0, b"hello again")) and away == [0]

    async def whole() -> None:
        database = Database.open(f"sqlite:///{tmp_path / 'b'}.sqlite", owner="b")
        post = NetworkPost("b", database, nobody, lambda: 1_000_000_000_000)
        await post.start()
        try:
            await story(post)
        finally:
            await post.close()
            database.close()

    asyncio.run(whole())
