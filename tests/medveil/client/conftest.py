"""Clients of running services: real uvicorn on a socket, real accounts, the test's clock."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medveil.client import AsyncClient, Client, Program, Session

sys.path.append(str(Path(__file__).parent.parent))  # the services of tests/medveil/service

from service.staffed import KEY, Staffed

from .world import World, running


@pytest.fixture
def staffed(tmp_path: Path) -> Iterator[Staffed]:
    with Staffed(tmp_path) as service:
        yield service


class Callers:
    """Clients of one service, closed when the test ends."""

    def __init__(self, service: Staffed) -> None:
        self.service = service
        self._made: list[Client] = []

    def person(self, role: str, **more: Any) -> Client:
        return self._kept(Session(self.service.session(role)), more)

    def program(self, role: str, *scopes: str, **more: Any) -> Client:
        secret, _ = self.service.token(role, scopes)
        return self._kept(Program(secret, KEY), more)

    def nobody(self, **more: Any) -> Client:
        return self._kept(None, more)

    def later(self, role: str, **more: Any) -> AsyncClient:
        return AsyncClient(self.service.address, Session(self.service.session(role)), **self._usual(more))

    def _kept(self, who: Any, more: dict[str, Any]) -> Client:
        self._made.append(Client(self.service.address, who, **self._usual(more)))
        return self._made[-1]

    def _usual(self, more: dict[str, Any]) -> dict[str, Any]:
        return {"clock": self.service.clock, "rand": self.service.rand, **more}

    def close(self) -> None:
        for client in self._made:
            client.close()


@pytest.fixture
def callers(staffed: Staffed) -> Iterator[Callers]:
    made = Callers(staffed)
    yield made
    made.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp, "researcher-1", "insurer-1", "bureau", "regulator") as made:
        yield made
