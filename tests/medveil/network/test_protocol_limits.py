"""The listener on real sockets: what a slow or hostile client can do, and how it starts and stops."""

from __future__ import annotations

import asyncio
import signal
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from medveil.network import certificates
from medveil.network.protocol import Limits, Listener
from wire.errors import Unavailable

Scene = Any  # of conftest.py
QUICK = Limits(handshake_seconds=0.4, head_seconds=0.4, body_seconds=0.4, idle_seconds=1, grace_seconds=1)
POST = b"POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n"


# --- slow and hostile clients


def test_a_handshake_has_its_time(play: Callable[..., None]) -> None:
    """Nothing is said, or half a hello: the connection ends. Others are served meanwhile."""

    async def story(scene: Scene) -> None:
        silent = await asyncio.open_connection("127.0.0.1", scene.port)
        half = await asyncio.open_connection("127.0.0.1", scene.port)
        half[1].write(b"\x16\x03\x01\x02\x00\x01\x00")
        await scene.check_up()
        for reader, writer in (silent, half):
            assert await asyncio.wait_for(_rest(reader), 5) == b""
            writer.close()

    play(story, QUICK)


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nhost: x\r\nx-a",
        b"POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nab",
    ],
    ids=["nothing", "line", "head", "body"],
)
def test_a_request_has_its_time(play: Callable[..., None], start: bytes) -> None:
    """Also where a byte comes now and then, also as the second request of a connection."""

    async def story(scene: Scene) -> None:
        for before in (b"", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n") if start else (b"",):
            reader, writer = await scene.open()
            if before:
                writer.write(before)
                await reader.readuntil(b'"insurer"')
            writer.write(start)
            ended = asyncio.create_task(_rest(reader))
            began = asyncio.get_running_loop().time()
            while not ended.done() and start:
                writer.write(b"a")
                await asyncio.wait((ended,), timeout=0.15)
                assert asyncio.get_running_loop().time() - began < 5
                if start.endswith(b"ab"):
                    break
            assert b" 200 " not in await asyncio.wait_for(ended, 5)
            writer.close()
        if b"POST" in start:
            while len(scene.ended) < 2:
                await asyncio.sleep(0.01)
            assert scene.ended == ["disconnected"] * 2

    play(story, QUICK)


def test_a_request_behind_another_has_its_time(play: Callable[..., None]) -> None:
    """Half a request comes at once with the one before it, and then nothing."""

    async def story(scene: Scene) -> None:
        reader, writer = await scene.open()
        writer.write(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n" + POST + b"ab")
        said = await asyncio.wait_for(_rest(reader), 5)
        assert said.count(b" 200 ") == 1
        while not scene.ended:
            await asyncio.sleep(0.01)
        writer.close()

    play(story, QUICK)


def test_deadlines_end_when_the_request_is_there(play: Callable[..., None]) -> None:
    """A request that takes longer than any deadline for its arrival is answered, and so is the one after it."""

    async def story(scene: Scene) -> None:
        async with scene.client() as client:
            assert (await client.get("/slow")).json() == "insurer"
            assert (await client.post("/body", content=b"a" * 1_000_000)).json() == "insurer"
            await asyncio.sleep(0.6)
            assert (await client.get("/slow")).json() == "insurer"
            assert (await client.post("/late", content=b"a" * 1_000_000)).json() == "insurer"
        assert len({scope["client"] for scope in scene.scopes}) == 1

    play(story, QUICK)


@pytest.mark.parametrize("kind", ["path", "header", "headers", "second", "trailer"])
def test_a_head_has_its_size(play: Callable[..., None], kind: str) -> None:
    """2 MB of head, in any part of it: 400 or the end of the connection, long before all of it is read."""

    async def story(scene: Scene) -> None:
        reader, writer = await scene.open()
        many = b"x-a: " + b"a" * 1000 + b"\r\n"
        first = b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n"
        start, piece = {
            "path": (b"GET /", b"a" * 1000),
            "header": (b"GET / HTTP/1.1\r\nhost: x\r\nx-a: ", b"a" * 1000),
            "headers": (b"GET / HTTP/1.1\r\nhost: x\r\n", many),
            "second": (first + b"GET / HTTP/1.1\r\nhost: x\r\nx-a: ", b"a" * 1000),
            "trailer": (b"POST /body HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n", many),
        }[kind]
        writer.write(start)
        answer = asyncio.create_task(_rest(reader))
        try:
            for _ in range(2000):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
                if answer.done():
                    break
        except OSError:
            pass
        said = await asyncio.wait_for(answer, 10)
        assert b" 200 " not in said or kind == "second"
        writer.close()

    play(story, Limits(head_bytes=20_000, head_seconds=600, body_seconds=600, idle_seconds=600))


def test_noise_is_answered_with_400(play: Callable[..., None]) -> None:
    async def story(scene: Scene) -> None:
        for noise in (b"\0" * 50, b"NO SUCH\r\n\r\n", b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n"):
            reader, writer = await scene.open()
            writer.write(noise)
            assert b" 400 " in await asyncio.wait_for(_rest(reader), 5)
            writer.close()

    play(story)


def test_a_connection_that_breaks_off_harms_nobody(play: Callable[..., None]) -> None:
    """Reset in the handshake, in a request and in an answer."""

    async def story(scene: Scene) -> None:
        for said in (
            b"",
            b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n",
            b"POST /body HTTP/1.1\r\ncontent-length: 9\r\n\r\n",
        ):
            plain = socket.create_connection(("127.0.0.1", scene.port))
            plain.setblocking(False)
            if said:
                _, writer = await asyncio.open_connection(sock=plain, ssl=scene.context(), server_hostname="x")
                kept = writer.get_extra_info("socket")
                kept.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.write(said)
                await asyncio.sleep(0.1)
                writer.transport.abort()
            else:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                plain.close()

    play(story)


def test_more_connections_than_allowed_are_told_so(play: Callable[..., None]) -> None:
    async def story(scene: Scene) -> None:
        idle = [await scene.open() for _ in range(3)]
        async with scene.client() as client:
            assert (await client.get("/")).status_code == 503
        for _, writer in idle:
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(0.1)

    play(story, Limits(connections=4))


@pytest.mark.parametrize("how", ["not at all", "a little at a time", "and asks on"])
def test_an_answer_that_is_not_read_has_its_time(play: Callable[..., None], how: str) -> None:
    """What was written to the peer is let go of; others are served meanwhile."""

    async def story(scene: Scene) -> None:
        _, writer = await scene.open()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET /much HTTP/1.1\r\nhost: x\r\n\r\n" * (3 if how == "and asks on" else 1))
        await asyncio.sleep(0.3)
        (connection,) = scene.server._server.server_state.connections
        await scene.check_up()
        clock = asyncio.get_running_loop().time
        began = clock()
        while connection in scene.server._server.server_state.connections:
            assert clock() - began < 10
            if how == "a little at a time":
                writer.transport.resume_reading()  # type: ignore[attr-defined]
                await asyncio.sleep(0.001)
                writer.transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.sleep(0.05)
        writer.transport.abort()

    play(story, Limits(answer_seconds=1))


def test_an_answer_that_is_read_slowly_but_in_time_comes_whole(play: Callable[..., None]) -> None:
    async def story(scene: Scene) -> None:
        async with scene.client() as client:
            for _ in range(2):  # the time of the first is not counted for the second
                length = 0
                async with client.stream("GET", "/much") as response:
                    async for piece in response.aiter_raw(20_000_000):
                        length += len(piece)
                        await asyncio.sleep(0.1)
                assert length == 100_000_000

    play(story, Limits(answer_seconds=20))


def test_one_peer_leaves_room_for_the_others(play: Callable[..., None]) -> None:
    async def story(scene: Scene) -> None:
        own = [await scene.open() for _ in range(3)]
        await asyncio.sleep(0.1)
        reader, writer = await scene.open()
        assert await asyncio.wait_for(_rest(reader), 5) == b""
        writer.close()
        for name in ("INSURER", "insureR", " insurer "):  # TLS finds its authority under any of these
            with pytest.MonkeyPatch.context() as spelled:
                spelled.setattr(certificates, "_name", lambda _, name=name: _named(name))
                context = scene.context("insurer", name=name)
            reader, writer = await scene.open(context)
            assert await asyncio.wait_for(_rest(reader), 5) == b"", name
            writer.close()
        assert await scene.ask(scene.context("hospital")) == (200, "hospital")
        for _, writer in own:
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(0.1)

    play(story, Limits(each=3))


# --- start and stop


def test_stop_lets_running_requests_end(play: Callable[..., None]) -> None:
    async def story(scene: Scene) -> None:
        client = scene.client()
        running = asyncio.create_task(client.get("/slow"))
        idle = await scene.open()
        await scene.arrived()
        await scene.server.stop()
        assert running.done()
        response = await running
        assert response.json() == "insurer"
        assert await idle[0].read() == b""
        idle[1].close()
        await client.aclose()
        assert not scene.ended

    play(story, check=False)


def test_who_comes_while_it_stops_is_not_served(play: Callable[..., None]) -> None:
    """The TCP connection was there in time, the handshake was not."""

    async def story(scene: Scene) -> None:
        client = scene.client()
        running = asyncio.create_task(client.get("/slow"))
        plain = socket.create_connection(("127.0.0.1", scene.port))
        await scene.arrived()
        stopping = asyncio.create_task(scene.server.stop())
        await asyncio.sleep(0.2)
        try:
            reader, writer = await asyncio.open_connection(sock=plain, ssl=scene.context(), server_hostname="x")
            writer.write(b"GET /after HTTP/1.1\r\nhost: x\r\n\r\n")
            assert await asyncio.wait_for(_rest(reader), 5) == b""
            writer.close()
        except OSError:
            plain.close()
        await stopping
        assert (await running).json() == "insurer"
        await client.aclose()
        assert [scope["path"] for scope in scene.scopes] == ["/slow"]

    play(story, check=False)


def test_stop_ends_every_connection(play: Callable[..., None]) -> None:
    """A client that asks for much and reads nothing, not even the goodbye."""

    async def story(scene: Scene) -> None:
        _, writer = await scene.open()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET /much HTTP/1.1\r\nhost: x\r\n\r\n")
        await scene.arrived()
        connections = scene.server._server.server_state.connections
        assert len(connections) == 1
        await asyncio.wait_for(scene.server.stop(), 10)
        await asyncio.sleep(0.05)
        assert not connections
        writer.transport.abort()

    play(story, Limits(grace_seconds=1, closing_seconds=8), check=False)


def test_stop_does_not_wait_for_ever(play: Callable[..., None]) -> None:
    """A body that never comes, and a handshake that never ends."""

    async def story(scene: Scene) -> None:
        reader, writer = await scene.open()
        writer.write(POST)
        _, silent = await asyncio.open_connection("127.0.0.1", scene.port)
        await asyncio.sleep(0.1)
        began = asyncio.get_running_loop().time()
        await asyncio.wait_for(scene.server.stop(), 10)
        assert asyncio.get_running_loop().time() - began > 0.9
        assert b" 200 " not in await _rest(reader)
        writer.close()
        silent.close()

    play(story, Limits(grace_seconds=1, handshake_seconds=3), check=False)


def test_signals_stay_the_process_s(play: Callable[..., None]) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    async def story(scene: Scene) -> None:
        during = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
        assert during[0] is before[0]
        assert during[1] is before[1] or "Runner" in repr(during[1])  # the test's own runner has one for SIGINT

    play(story)


@pytest.mark.parametrize("fails", [True, False])
def test_an_app_may_be_told_of_start_and_stop(field: Any, fails: bool) -> None:
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        for step in ("startup", "shutdown"):
            told.append((await receive())["type"])
            await send({"type": f"lifespan.{step}.{'failed' if fails else 'complete'}"})
            if fails:
                return

    async def whole() -> None:
        sock = socket.create_server(("127.0.0.1", 0))
        listener = Listener(app, sock, None, lifespan="on")
        if fails:
            with pytest.raises(Unavailable) as caught:
                await listener.start()
            assert caught.value.code == "network.no_start"
            assert sock.fileno() == -1
        else:
            async with listener:
                assert told == ["lifespan.startup"]
            assert told == ["lifespan.startup", "lifespan.shutdown"]

    asyncio.run(whole())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


async def _rest(reader: asyncio.StreamReader) -> bytes:
    """What is said until the connection ends, in whichever way."""
    said = b""
    try:
        while more := await reader.read(65_536):
            said += more
    except OSError:
        pass
    return said
