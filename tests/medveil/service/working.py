"""A staffed service before an organisation of a real consortium in this process: ledger, vault, audit trail and all."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from fastapi import APIRouter

from medveil.consortium import Founder, LocalConsortium, local_consortium
from medveil.gateway.organisation import Organisation
from medveil.gateway.wallets import Wallets
from medveil.service.api.backup_routes import backup_routes
from medveil.service.api.workplace import Workplace
from medveil.service.work.flow_kinds import flow_routers, register_flows
from wire.checkpoint import TrustFile

from .running import Set
from .staffed import Staffed

T = TypeVar("T")

FOUNDERS = [
    Founder("hospital-1", ("hospital",)),
    Founder("hospital-2", ("hospital",)),
    Founder("hospital-3", ("hospital",)),
    Founder("bureau", ("bureau",)),
    Founder("insurer-1", ("insurer",)),
    Founder("researcher-1", ("researcher",)),
    Founder("regulator", ("regulator",)),
]


def now() -> int:
    return time.time_ns() // 1_000_000


class Consorted:
    """A consortium that runs in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._stack = AsyncExitStack()
        self.consortium: LocalConsortium
        self.catching_up = False

    @property
    def trust(self) -> TrustFile:
        """The trust file of all of them, as the bureau has it."""
        return self.consortium["bureau"].trust

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine where the consortium runs."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def __enter__(self) -> Consorted:
        self._thread.start()

        async def enter() -> LocalConsortium:
            return await self._stack.enter_async_context(
                local_consortium(
                    self.folder, "test-chain", FOUNDERS, "bureau", "Asia/Shanghai", secrets.token_bytes, now
                )
            )

        try:
            self.consortium = self.do(enter())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_given: object) -> None:
        try:
            self.do(self._stack.aclose())
        except TimeoutError:
            left = [(task.get_name(), task.get_stack(limit=3)) for task in asyncio.all_tasks(self.loop)]
            raise AssertionError(left) from None
        finally:
            self._stop()

    def _stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(20)
        self.loop.close()

    def wallets(self, name: str) -> Wallets:
        """The wallets that an organisation hosts."""
        return self.consortium.homes[name].wallets

    def service(self, name: str, folder: Path, data: Path | None = None, **others: Any) -> Staffed:
        """The service of one organisation, to be entered. data: its folder of tables."""

        def routers(own: Set) -> list[APIRouter]:
            at = Workplace(
                organisation=self.consortium[name],
                engine=self.consortium.engine,
                jobs=own.jobs,
                tables=self.consortium.homes[name].tables,
                data=data,
                clock=now,
                rand=secrets.token_bytes,
                snapshots=self.consortium.homes[name].tables.snapshots,
                catching_up=lambda: self.catching_up,
            )
            register_flows(at, self.wallets(name))
            return [*flow_routers(at), backup_routes(at, None)]

        folder.mkdir(parents=True, exist_ok=True)
        return Staffed(folder, routers=routers, loop=self.loop, organisation=name, **others)


@contextmanager
def applicant(folder: Path, name: str, roles: tuple[str, ...]) -> Iterator[Organisation]:
    """An organisation that is no member."""
    organisation = Organisation.create(name, roles, folder, "a passphrase of tests", secrets.token_bytes, now)
    try:
        yield organisation
    finally:
        organisation.close()
