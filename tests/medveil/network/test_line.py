"""The line to a peer: a question that is given up leaves nothing open, at whatever point it is given up; a hostile
answer is none."""

from __future__ import annotations

import asyncio
import gc
import gzip
import secrets
import socket
import warnings
from typing import Any

import pytest
import uvloop
from starlette.requests import Request
from starlette.routing import Route

from medveil.network.answers import write_answer
from medveil.network.certificates import PeerTls
from medveil.network.ledger_door import Done, answering
from medveil.network.line import PeerLine
from medveil.network.peers import PeerLines, identify, peers_app
from medveil.network.protocol import PeerServer
from wire.canonical import LARGEST
from wire.errors import MedveilError, Unavailable

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


class _Answering:
    """A peer under TLS that answers each question with what it is given, byte for byte."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.asked: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while self.answers:
                self.asked.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(self.answers.pop(0))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the line had enough
        finally:
            writer.close()


def _told(scene: Any, *answers: bytes) -> tuple[list[str], list[bytes]]:
    """What a line says of each of these answers, and what it had asked."""

    async def whole() -> tuple[list[str], list[bytes]]:
        peer, said = _Answering(*answers), list[str]()
        server = await asyncio.start_server(peer, "127.0.0.1", 0, ssl=scene.tls)
        line = PeerLine("bureau", f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", [scene.context()])
        for _ in answers:
            try:
                await line.ask("GET", "/head?after=1&wait=%2F", Done, timeout=10.0)
                said.append("done")
            except MedveilError as error:
                said.append(error.code)
        await line.close()
        with pytest.raises(Unavailable):
            await line.ask("GET", "/", Done)
        server.close()
        return said, peer.asked

    try:
        return asyncio.run(whole())
    finally:
        scene.server._server._sock.close()


def _answer(body: bytes, more: bytes = b"", status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\n%scontent-length: %d\r\n\r\n%s" % (status, more, len(body), body)


def test_a_peers_answers_are_taken_as_they_are(scene_of: Any, field: Any) -> None:
    """No redirect is followed, nothing unpacked, no cookie kept; what is asked is asked as it was written."""
    done = _answer(write_answer(Done()))
    said, asked = _told(
        scene_of(field, "httptools"),
        _answer(write_answer(Done()), b"set-cookie: a=b; Path=/\r\n"),
        done,
        _answer(gzip.compress(write_answer(Done())), b"content-encoding: gzip\r\n"),
        _answer(b"", b"location: https://127.0.0.1/elsewhere\r\n", b"302 Found"),
        _answer(write_answer(Done()), status=b"500 No"),
    )
    assert said == ["done", "done", "network.bad_answer", "network.transport", "network.transport"]
    assert all(one.startswith(b"GET /head?after=1&wait=%2F HTTP/1.1\r\n") for one in asked)
    assert not any(b"cookie" in one.lower() or b"user-agent" in one.lower() for one in asked)


HOSTILE = {
    "no HTTP": b"\x00\x01\x02 hello\r\n\r\n",
    "cut short": b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nabc",
    "long head": b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000 + b"\r\n\r\n",
    "many fields": b"HTTP/1.1 200 OK\r\n" + b"".join(b"x%d: y\r\n" % n for n in range(5_000)) + b"\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
    "bad length": b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    "bad chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_answer_is_no_answer(scene_of: Any, field: Any, what: str) -> None:
    said, _ = _told(scene_of(field, "httptools"), HOSTILE[what])
    assert said == ["network.unreachable"]


def test_an_answer_without_end_is_left(scene_of: Any, field: Any) -> None:
    piece = b"%x\r\n%s\r\n" % (2**20, bytes(2**20))
    endless = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + piece * (LARGEST // 2**20 + 2)
    said, _ = _told(scene_of(field, "httptools"), endless)
    assert said == ["network.bad_answer"]


def test_a_connection_in_constant_use_does_not_outlive_its_certificate(field: Any) -> None:
    """As that of a member that waits for blocks: it is never idle, so nothing else would end it."""

    async def whole() -> None:
        both, at = field.members(bureau=0, insurer=0), [field.now() - 21 * field.DAY]
        folders = [field.folder / name for name in ("bureau", "insurer")]
        for folder in folders:
            folder.mkdir()
        bureau = PeerTls(folders[0], "bureau", field.HOSTS, field.now, secrets.token_bytes)
        bureau.refresh(both, field.seed("bureau"))
        insurer = PeerTls(folders[1], "insurer", field.HOSTS, lambda: at[0], secrets.token_bytes)
        insurer.refresh(both, field.seed("insurer"))
        ports, judged = list[int](), [field.now()]

        async def take(request: Request, sender: str) -> Done:
            assert sender == "insurer" and request.client is not None
            ports.append(request.client.port)
            return Done()

        route = Route("/", answering(identify(lambda: both, lambda: judged[0]), take))
        server = PeerServer(peers_app([route]), socket.create_server(("127.0.0.1", 0)), bureau.listening)
        async with server:
            lines = PeerLines(insurer, {"bureau": f"https://127.0.0.1:{server.address[1]}"})
            line = lines.following("bureau")
            await line.ask("GET", "/", Done)
            await line.ask("GET", "/", Done)
            at[0] = field.now()
            assert insurer.refresh(both, field.seed("insurer"))  # nine days are left of thirty
            await line.ask("GET", "/", Done)
            assert not insurer.refresh(both, field.seed("insurer"))
            await line.ask("GET", "/", Done)
            judged[0] += 10 * field.DAY
            await line.ask("GET", "/", Done)
            await lines.close()
        assert [ports.index(port) for port in ports] == [0, 0, 2, 2, 2]

    asyncio.run(whole())
