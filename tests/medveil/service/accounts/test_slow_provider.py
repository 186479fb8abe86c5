"""A provider that takes its time: whoever signs in by it waits, and nobody else does."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

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
        assert time.monotonic() - before < 2
        silent.close()  # who waits hears at once
        answers = [one.result() for one in begun]
        codes = [answer.json()["code"] for answer in answers]
        assert {answer.status_code for answer in answers} == {503}
        assert set(codes) == {"oidc.unreachable", "accounts.busy"} and codes.count("accounts.busy") >= STRANGERS - 16
