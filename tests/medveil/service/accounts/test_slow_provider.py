"""A provider that takes its time: whoever signs in by it waits, and nobody else does."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from medveil.service.accounts.passwords import HashingThreads
from wire.errors import Unavailable

from ..staffed import Staffed

STRANGERS = 40


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """One that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listening:
        yield listening


def test_who_waits_for_a_provider_keeps_nobody_waiting(tmp_path: Path, silent: socket.socket) -> None:
    issuer = f"http://127.0.0.1:{silent.getsockname()[1]}"
    with Staffed(tmp_path, issuer=issuer) as service, ThreadPoolExecutor(STRANGERS) as strangers:
        auditor = service.session("auditor")
        asked = threading.Semaphore(0)

        def begin() -> httpx.Response:
            asked.release()
            return httpx.post(f"{service.address}/v1/sign-in/provider", timeout=30, trust_env=False)

        begun = [strangers.submit(begin) for _ in range(STRANGERS)]
        for _ in begun:
            asked.acquire()
        time.sleep(0.3)
        before = time.monotonic()
        assert service.send("GET", "/v1/people", auditor).status_code == 200
        assert time.monotonic() - before < 8
        silent.close()  # who waits hears at once
        answers = [one.result() for one in begun]
        codes = [answer.json()["code"] for answer in answers]
        assert {answer.status_code for answer in answers} == {503}
        assert "oidc.unreachable" in codes and set(codes) <= {"oidc.unreachable", "accounts.busy"}


def test_all_addresses_of_one_host_have_the_places_of_one() -> None:
    async def main() -> None:
        threads, end = HashingThreads(most=8, each=2, threads=3), threading.Event()
        waiting = [asyncio.create_task(threads.run(f"2001:db8::{number}", end.wait, 20)) for number in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable) as busy:
            await threads.run("2001:db8::3", int)
        assert busy.value.code == "accounts.busy"
        assert await threads.run("2001:db8:0:1::3", lambda: 7) == 7
        end.set()
        assert await asyncio.gather(*waiting) == [True, True]
        assert await threads.run("2001:db8::3", lambda: 8) == 8
        threads.close()

    asyncio.run(main())
