"""What takes long at a gateway keeps nothing waiting that takes a moment."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from medveil.gateway.long_work import AT_ONCE, at_length
from medveil.service.api import evidence_routes, extract_routes
from wire.errors import Refused
from wire.evidence import MANIFEST_NAME

from .working import Consorted

THREADS = min(32, (os.cpu_count() or 1) + 4)
"""Of an event loop, as the standard library has it."""


def test_long_work_waits_for_long_work_alone() -> None:
    working, most = 0, 0
    counting, full, end = threading.Lock(), threading.Event(), threading.Event()

    def long() -> None:
        nonlocal working, most
        with counting:
            working += 1
            most = max(most, working)
            if working == AT_ONCE:
                full.set()
        end.wait(60)
        with counting:
            working -= 1

    async def main() -> None:
        begun = [asyncio.create_task(at_length(long)) for _ in range(THREADS + 1)]
        async with asyncio.timeout(30):
            assert await asyncio.to_thread(full.wait, 30)
            assert await asyncio.to_thread(lambda: "at once") == "at once"
        end.set()
        await asyncio.gather(*begun)

    asyncio.run(main())
    assert most == AT_ONCE


def test_who_looks_at_large_extracts_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as a process has threads for all it does, the ledger's disk and others' sign-ins included."""
    end = threading.Event()

    def slow(*_given: Any) -> Any:
        end.wait(60)
        raise Refused("gateway.extract_empty", dataset="stays")

    monkeypatch.setattr(extract_routes, "wish_of", lambda *_: None)
    monkeypatch.setattr(extract_routes, "preview", slow)
    with (
        Consorted(tmp_path / "consortium") as consorted,
        consorted.service("hospital-1", tmp_path / "service") as service,
        ThreadPoolExecutor(THREADS + 1) as lookers,
    ):
        officer, auditor = service.session("officer"), service.session("auditor")
        body = json.dumps({"grant": "copies"}).encode()
        looking = [
            lookers.submit(service.send, "POST", "/v1/extracts/preview", officer, body=body) for _ in range(THREADS + 1)
        ]
        try:
            until = time.monotonic() + 30
            while service.set.metrics.in_flight._value.get() < len(looking):
                assert time.monotonic() < until
                time.sleep(0.01)
            time.sleep(0.2)
            before = time.monotonic()
            assert service.send("GET", "/v1/people", auditor).status_code == 200
            assert time.monotonic() - before < 20
        finally:
            end.set()
        assert {one.result().json()["code"] for one in looking} == {"gateway.extract_empty"}


def test_evidence_is_packed_in_threads_for_long_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed: list[str] = []
    zipped = evidence_routes._zipped

    def packing(folder: Path) -> Any:
        packed.append(threading.current_thread().name)
        return zipped(folder)

    monkeypatch.setattr(evidence_routes, "_zipped", packing)
    with (
        Consorted(tmp_path / "consortium") as consorted,
        consorted.service("hospital-1", tmp_path / "service") as service,
    ):
        folder = consorted.consortium["hospital-1"].folder / evidence_routes.FOLDER / ("0" * 32)
        folder.mkdir(parents=True)
        (folder / MANIFEST_NAME).write_text("{}")
        answer = service.send("GET", f"/v1/evidence/{folder.name}", service.session("auditor"))
        assert answer.status_code == 200 and answer.content[:2] == b"PK"
    assert [name.startswith("long work") for name in packed] == [True]
