"""A gateway that drips: it sends a byte now and then, so that no single read ever waits long, and never ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from medveil.client import AsyncClient, Client, Session
from wire.errors import MedveilError, Unavailable

from .test_tls import Authority

DEADLINE = 0.6
JOB = "a" * 32
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
FAILED = b"HTTP/1.1 503 Busy\r\ncontent-type: application/problem+json\r\ncontent-length: 5000\r\n\r\n"


class Dripping:
    """Answers every request with `first` at once and then `drips`, one each 50 ms. asked: how many requests came."""

    def __init__(self, first: bytes, drips: Iterable[bytes], tls: ssl.SSLContext | None = None) -> None:
        self.first, self.drips, self.tls = first, [*drips], tls
        self.asked = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._drip, args=(connection,)))
            self._threads[-1].start()

    def _drip(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
        with connection, contextlib.suppress(OSError):
            if not connection.recv(65536):
                return
            self.asked += 1
            connection.sendall(self.first)
            for drip in self.drips:
                if self._ending.wait(0.05):
                    return
                connection.sendall(drip)

    def close(self) -> None:
        self._ending.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(10)


@contextlib.contextmanager
def dripping(first: bytes, drips: Iterable[bytes], tls: ssl.SSLContext | None = None) -> Iterator[Dripping]:
    made = Dripping(first, drips, tls)
    try:
        yield made
    finally:
        made.close()


FOR_EVER = [b"x"] * 200
"""Ten seconds of it."""
KINDS = {"head": b"HTTP/1.1 200 OK\r\nx-long: ", "body": HEAD, "refusal": FAILED, "silence": b""}


def drips(kind: str) -> list[bytes]:
    return [b""] * len(FOR_EVER) if kind == "silence" else FOR_EVER


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_drips_ends_with_the_deadline(kind: str) -> None:
    with dripping(KINDS[kind], drips(kind)) as server:
        began = time.monotonic()
        with Client(f"http://127.0.0.1:{server.port}", Session("s"), deadline=DEADLINE) as client:
            with pytest.raises(Unavailable) as late:
                client.account.me()
            with pytest.raises(Unavailable) as unknown:
                client.people.disable("mei")
            with pytest.raises(MedveilError) as stream:
                client.jobs.wait(JOB)
        taken = time.monotonic() - began
        waited = (2 if kind == "body" else 3) * DEADLINE  # a 200 that is no stream is seen by its head
        assert server.asked == 3 and waited <= taken < waited + 3  # each once, and not again
    assert late.value.code == "client.too_slow" and late.value.facts["seconds"] == 1
    assert stream.value.code == ("client.unexpected_answer" if kind == "body" else "client.too_slow")
    assert unknown.value.code == "client.unknown_outcome"


@pytest.mark.parametrize("kind", KINDS)
def test_in_an_event_loop(kind: str) -> None:
    async def test(address: str) -> None:
        async with AsyncClient(address, Session("s"), deadline=DEADLINE) as client:
            for call in (client.account.me(), client.jobs.get(JOB)):
                with pytest.raises(Unavailable) as late:
                    await call
                assert late.value.code == "client.too_slow"

    with dripping(KINDS[kind], drips(kind)) as server:
        began = time.monotonic()
        asyncio.run(test(f"http://127.0.0.1:{server.port}"))
        assert server.asked == 2 and 2 * DEADLINE <= time.monotonic() - began < 2 * DEADLINE + 3


def test_over_tls(tmp_path: Path) -> None:
    ours = Authority(tmp_path, "ours")
    with dripping(HEAD, FOR_EVER, ours.server()) as server:
        began = time.monotonic()
        address = f"https://127.0.0.1:{server.port}"
        with Client(address, ca=ours.file, deadline=DEADLINE) as client, pytest.raises(Unavailable) as late:
            client.account.organisation()
        assert late.value.code == "client.too_slow" and time.monotonic() - began < DEADLINE + 3


def told(state: str) -> bytes:
    return f"id: 1\ndata: {json.dumps({'job': JOB, 'state': state, 'steps': 1, 'at': 1})}\n\n".encode()


def test_a_job_is_followed_for_as_long_as_it_goes_on() -> None:
    """Signs of life, longer than one answer may take, and then its end."""
    alive: list[Any] = [b": here\n\n"] * int(2 * DEADLINE / 0.05)

    async def later(address: str) -> list[str]:
        async with AsyncClient(address, Session("s"), deadline=DEADLINE) as client:
            return [progress.state async for progress in client.jobs.follow(JOB)]

    with dripping(STREAM, [*alive, told("done")]) as server:
        address = f"http://127.0.0.1:{server.port}"
        with Client(address, Session("s"), deadline=DEADLINE) as client:
            assert [progress.state for progress in client.jobs.follow(JOB)] == ["done"]
        assert asyncio.run(later(address)) == ["done"]


@pytest.mark.parametrize("deadline", [0, -1, float("inf"), float("nan")])
def test_what_is_no_deadline(deadline: float) -> None:
    with pytest.raises(ValueError, match="deadline"):
        Client("https://gateway.example", deadline=deadline)
