"""Homes of a small consortium, and gateways that run in them with real TLS between them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from medveil.local.free_ports import free_ports
from medveil.service.gateway import Gateway
from medveil.service.home.cards import found_consortium
from medveil.service.home.config import FILE, write_config
from medveil.service.home.home import Home
from wire.checkpoint import TrustFile, trust_of

MEMBERS = {"bureau": "bureau", "hospital-1": "hospital", "insurer": "insurer", "regulator": "regulator"}
PASS = "a passphrase of tests"


def now() -> int:
    return time.time_ns() // 1_000_000


_given: set[int] = set()


def free_port() -> int:
    """One that neither the system nor another test of this process gives to somebody else before it is used."""
    while True:
        with free_ports(1) as (port,):
            if port not in _given:
                _given.add(port)
                return port


class Consortium:
    """Homes of four organisations, founded and joined; `bureau` orders the blocks."""

    def __init__(self, folder: Path, members: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.members = members or MEMBERS
        cards = [
            Home.create(folder / name, name, (role,), PASS, secrets.token_bytes, now)
            for name, role in self.members.items()
        ]
        self.trust: TrustFile = trust_of(found_consortium("test-chain", "bureau", "Asia/Shanghai", cards, now()))
        ports = {name: free_port() for name in self.members}
        self.addresses = {name: f"https://127.0.0.1:{port}" for name, port in ports.items()}
        for name, port in ports.items():
            with self.home(name) as home:
                home.join(self.trust)
                peers = msgspec.structs.replace(home.config.peers, listen=f"127.0.0.1:{port}", addresses=self.addresses)
                write_config(home.folder / FILE, msgspec.structs.replace(home.config, peers=peers))

    def home(self, name: str) -> Home:
        return Home.open(self.folder / name, PASS, secrets.token_bytes, now)

    async def start(self, name: str) -> Gateway:
        return await Gateway.start(self.home(name), now)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[dict[str, Gateway]]:
        """All gateways, the sequencer first."""
        async with AsyncExitStack() as stack:
            yield {name: await stack.enter_async_context(await self.start(name)) for name in self.members}


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return Consortium(tmp_path)


@pytest.fixture
def run() -> Callable[..., None]:
    return asyncio.run
