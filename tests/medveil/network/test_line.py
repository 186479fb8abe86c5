"""The line to a peer: a question that is given up leaves nothing open, at whatever point it is given up."""

from __future__ import annotations

import asyncio
import gc
import warnings
from typing import Any

import pytest
import uvloop

from medveil.network.ledger_door import Done
from medveil.network.line import PeerLine

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("after", [0.0, 0.01, 0.2])
def test_a_question_given_up_in_the_handshake_closes_its_connection(
    scene_of: Any, field: Any, loop: str, after: float
) -> None:
    """The peer takes connections and says nothing, as one that is starting."""

    async def whole() -> None:
        ended: list[asyncio.Task[bytes]] = []

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            ended.append(asyncio.current_task())  # type: ignore[arg-type]
            while await reader.read(65_536):
                pass
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        scene = scene_of(field, "httptools")
        line = PeerLine("bureau", f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", [scene.context()])
        asking = asyncio.create_task(line.ask("GET", "/", Done))
        await asyncio.sleep(after)
        if after > 0.1:
            assert len(ended) == 1 and not ended[0].done()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await line.close()
        scene.server._server._sock.close()
        async with asyncio.timeout(
            5
        ):  # the peer sees the end while the line is still held: it was closed, not collected
            await asyncio.gather(*ended)
        server.close()
        await server.wait_closed()

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ResourceWarning)
        gc.disable()
        try:
            with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
                runner.run(whole())
        finally:
            gc.enable()
        gc.collect()
    assert [str(one.message) for one in said if issubclass(one.category, ResourceWarning)] == []
