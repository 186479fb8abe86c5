"""An open stream of events is a call that goes on: what its reader loses meanwhile ends it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Request

from medveil.service.api.callers import May
from medveil.service.api.events import StreamLimits
from wire.canonical import Wire

from ..staffed import ROOT, Staffed


class Nothing(Wire, frozen=True, tag="test.withdrawn_nothing"):
    """What a step gives that gives nothing."""


async def _nothing() -> Nothing:
    return Nothing()


class Working:
    """A service with one kind of job, which goes on when the gate is open."""

    def __init__(self, folder: Path) -> None:
        self.gate, router = threading.Event(), APIRouter()

        @router.post("/v1/begin", status_code=202)
        async def start(request: Request) -> Any:
            who = await May("jobs.read")(request)
            return {"job": (await self.service.set.jobs.start("steps", who.id, b"", None)).id}

        async def steps(journal: Any) -> str:
            while not self.gate.is_set():
                await asyncio.sleep(0.005)
            await journal.once("told-to-nobody", Nothing, _nothing)
            return "/v1/about"

        settings = {"stream_limits": StreamLimits(heartbeat=1.1)}
        self.service = Staffed(folder, routers=[router], settings=settings)
        self.service.set.jobs.register("steps", steps, steps=1)


@pytest.fixture
def working(tmp_path: Path) -> Iterator[Working]:
    made = Working(tmp_path)
    with made.service:
        yield made
        made.gate.set()


def _told(working: Working, bearer: str, job: str, withdraw: Callable[[], object]) -> str:
    """All that a stream tells that was opened before `withdraw`."""
    fields = {"authorization": f"Bearer {bearer}"}
    with (
        httpx.Client(timeout=20, trust_env=False) as http,
        http.stream("GET", f"{working.service.address}/v1/jobs/{job}/events", headers=fields) as answer,
    ):
        assert answer.status_code == 200
        chunks = answer.iter_text()
        told = next(chunks)
        withdraw()
        threading.Timer(1.5, working.gate.set).start()
        return told + "".join(chunks)


def _begin(working: Working, bearer: str) -> str:
    began = working.service.send("POST", "/v1/begin", bearer)
    return str(began.json()["job"])


@pytest.mark.parametrize("how", ["disabled", "signed out", "nothing"])
def test_a_session_that_is_withdrawn_hears_nothing_more(working: Working, how: str) -> None:
    service, people = working.service, working.service.staff.people
    secret = service.session("officer")
    withdraw = {
        "disabled": lambda: people.set_disabled(ROOT, "officer", True),
        "signed out": lambda: service.send("POST", "/v1/sign-out", secret),
        "nothing": lambda: None,
    }[how]
    told = _told(working, secret, _begin(working, secret), withdraw)
    assert ("told-to-nobody" in told) is (how == "nothing")


def test_a_token_that_is_revoked_hears_nothing_more(working: Working) -> None:
    service = working.service
    secret, name = service.token("officer", ["jobs.read"])
    who = service.staff.tokens.principal(secret)[0]
    job = service.running.do(service.set.jobs.start("steps", who.id, b""))
    told = _told(working, secret, job.id, lambda: service.staff.tokens.revoke(ROOT, name))
    assert "told-to-nobody" not in told
