"""One organisation's gateway as it runs: its home, its place on the ledger, its post, its listener for peers.

    home -> engine (its own at the sequencer, else through the door) -> replica -> account
         -> database -> post
         -> certificate -> listener for peers

Parts start in this order and stop in the reverse. What the gateway knows of the members follows the ledger while it
runs: certificates and lines are renewed with the membership, without a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Self

from ledger.engines import EmbeddedEngine, Engine, GroupCommit
from ledger.engines.block_copy import BlockCopy
from ledger.replicas import Replica
from ledger.split_view import SplitView
from medveil.gateway.ledger_account import LedgerAccount
from medveil.gateway.organisation import Organisation
from medveil.network.certificates import PeerTls
from medveil.network.ledger_door import ledger_routes
from medveil.network.peers import PeerLines, identify, peers_app
from medveil.network.post import NetworkPost
from medveil.network.protocol import PeerServer
from medveil.network.remote_engine import RemoteEngine
from medveil.network.replica_door import replica_routes
from medveil.service.database import Database
from medveil.service.home.config import address
from medveil.service.home.home import Home
from medveil.service.home.returned import Return, audit_trouble
from medveil.service.serve import bind
from wire.canonical import encode
from wire.checkpoint.membership import Membership
from wire.errors import MedveilError, Unavailable

REFRESH_SECONDS = 600.0
"""How often the certificate is looked at, besides every change of members."""
_LOOK_SECONDS = 1.0
HOLD_SECONDS = 5.0
"""How often it is looked whether the database is still this process's alone."""
_GATHERED, _QUIET = 0.02, 0.008
"""Seconds that the sequencer lets envelopes gather before it makes a block of them, at most and without another: those
of one step of a flow come within that, and every member pays for a block with requests, a signature and a flush of its
own. A step that one organisation takes alone waits for the shorter time."""
_LONGEST_WITHOUT = 60.0
"""Seconds for which another process may hold it: the server takes 25 to notice that our own old connection is gone."""


class Gateway:
    """A running gateway. Make it with `start`; `stop` it, or use it as a context manager.

    home: open, and its own from here on; it has joined a consortium.
    """

    def __init__(self, home: Home, clock: Callable[[], int]) -> None:
        self.home = home
        self.clock = clock
        self.organisation: Organisation = home.organisation
        self._parts = contextlib.AsyncExitStack()
        self._steady: Callable[[], int] | None = None
        self._following: asyncio.Task[None]
        self._holding: asyncio.Task[None]
        self._seen: Membership | None = None
        self.engine: Engine
        self.account: LedgerAccount
        self.returning: Return | None = None
        """What is left to do for a home that came back from a backup; see `medveil.service.home.returned`."""
        self.post: NetworkPost
        self.database: Database
        self.peers: tuple[str, int]
        self.tls: PeerTls

    @classmethod
    async def start(cls, home: Home, clock: Callable[[], int], steady: Callable[[], int] | None = None) -> Gateway:
        """Start every part. Raises what the parts raise; then all that was started has stopped, the home is closed.

        steady: what the sequencer's clock is watched by (`ledger.engines.clock`).
        """
        gateway = cls(home, clock)
        gateway._steady = steady
        try:
            await gateway._start()
        except BaseException:
            await gateway.stop()
            raise
        return gateway

    async def _start(self) -> None:
        home, name = self.home, self.organisation.name
        self._parts.callback(home.close)
        trust = home.trust
        hosts = home.config.peers.hosts
        self.tls = tls = PeerTls(_private(home.folder / "tls"), name, hosts, self.clock, self.organisation.rand)
        await asyncio.to_thread(self._renew, tls, trust.latest)
        self.returning = Return.of(home, self.clock)
        self._seen = trust.latest
        lines = PeerLines(tls, home.config.peers.addresses)
        self._parts.push_async_callback(lines.close)
        self.database = await asyncio.to_thread(home.database)
        self._parts.callback(self.database.close)
        self._holding = asyncio.create_task(self._hold(), name=f"{name} holds its database")
        self._parts.push_async_callback(_cancelled, self._holding)
        founding, returning, copy = trust.founding, self.returning, None
        if returning is not None:
            await asyncio.to_thread(returning.settle, self.database)
        if trust.sequencer == name:
            path = home.folder / "ledger.sqlite"
            if returning is not None:
                await returning.recover_ledger(path, founding, lines.to)
            signer = self.organisation.cosigner
            group = GroupCommit(delay=_GATHERED, quiet=_QUIET)
            self.engine = await EmbeddedEngine.open(
                path, founding, signer, self.clock, group=group, steady=self._steady
            )
        else:
            copy = await asyncio.to_thread(BlockCopy, home.folder / "blocks.sqlite", founding)
            self._parts.callback(copy.close)
            self.engine = RemoteEngine(lines.following(trust.sequencer), founding, copy)
        replica = await asyncio.to_thread(self._replica)
        self.account = LedgerAccount(name, self.organisation.keys.envelopes, self.engine, replica, trust)
        self.post = NetworkPost(name, self.database, lines.to, self.clock)
        await self.post.start()
        self._parts.push_async_callback(self.post.close)
        self.organisation.connect(self.post, self.account)
        self._following = asyncio.create_task(self.account.attend(), name=f"{name} follows the ledger")
        self._parts.push_async_callback(_ended, self._following)
        who = identify(lambda: self.account.trust.latest, self.clock)
        routes = self.post.routes(who) + replica_routes(replica, copy, who)
        if trust.sequencer == name:
            routes += ledger_routes(self.engine, who)
        server = PeerServer(peers_app(routes), bind(*address(home.config.peers.listen)), tls.listening)
        await server.start()
        self._parts.push_async_callback(server.stop)
        self._parts.push_async_callback(self.engine.close)  # what waits at its door, and `following`, end with it
        self.peers = server.address
        refreshing = asyncio.create_task(self._refresh(tls), name=f"{name} keeps its certificate fresh")
        self._parts.push_async_callback(_cancelled, refreshing)
        looking = asyncio.create_task(self._look_back(lines), name=f"{name} looks at what it may have forgotten")
        self._parts.push_async_callback(_cancelled, looking)

    async def _look_back(self, lines: PeerLines) -> None:
        """See whether the ledger knows more of this organisation than its home does; let a restored home sign again."""
        organisation = self.organisation
        if self.returning is not None:
            await self.returning.wait(self.account, lines.to)
            self.account.replica.silent = False
        while True:
            try:
                state = await self.account.caught_up()
                break
            except Unavailable:
                await asyncio.sleep(REFRESH_SECONDS / 60)
        trouble = audit_trouble(organisation, state)
        organisation.audit.hold(trouble)
        if trouble is not None:
            print(f"medveil: {trouble().text()}", file=sys.stderr, flush=True)
        if self.returning is not None:
            self.returning = await asyncio.to_thread(self.returning.done)

    def _replica(self) -> Replica:
        return Replica(
            self.home.trust.founding,
            self.organisation.name,
            self.organisation.cosigner,
            self.clock,
            self.home.folder / "cosigned.note",
            report=self._keep_split_view,
            silent=self.returning is not None,
        )

    def _keep_split_view(self, split: SplitView) -> None:
        path = self.home.folder / "split-view.evidence"
        try:
            path.write_bytes(encode(split))
        except OSError:
            raise Unavailable("home.unwritable", folder=str(self.home.folder)) from None

    async def followed(self) -> None:
        """Returns when it follows the ledger no more, or its database is another process's. Raises what stopped it."""
        done, _ = await asyncio.wait((self._following, self._holding), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def _hold(self) -> None:
        """Hold the database. Another process may have it for a moment after a broken connection, and no longer."""
        without = 0.0
        while True:
            await asyncio.sleep(HOLD_SECONDS)
            try:
                await asyncio.to_thread(self.database.keep_held)
                await asyncio.to_thread(self.organisation.vault.keep_held)
                without = 0.0
            except Unavailable as error:
                without += HOLD_SECONDS if error.code == "database.in_use" else 0.0
                if without >= _LONGEST_WITHOUT:
                    raise

    async def follows(self) -> bool:
        """Whether it follows the ledger: a check of readiness."""
        return not self._following.done()

    def _renew(self, tls: PeerTls, members: Membership) -> None:
        keys = self.organisation.keys
        tls.refresh(members, self.organisation.tls_seed(members), keys.newest.tls_seed)

    async def _refresh(self, tls: PeerTls) -> None:
        """Follow the members with the certificate and the lines, as changes become final."""
        looked, newest = asyncio.get_running_loop().time(), self.organisation.keys.newest
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            present, at = self.account.trust.latest, asyncio.get_running_loop().time()
            drawn, newest = newest is not self.organisation.keys.newest, self.organisation.keys.newest
            if present is self._seen and not drawn and at - looked < REFRESH_SECONDS:
                continue
            with contextlib.suppress(MedveilError):  # it left: nobody listens to it any more
                await asyncio.to_thread(self._renew, tls, present)
            if present is not self._seen:
                with contextlib.suppress(MedveilError):  # readiness tells of a disk that takes nothing
                    await asyncio.to_thread(self.home.follow, self.account.trust)
            self._seen, looked = present, at

    async def stop(self) -> None:
        """Stop every part, in reverse order. Nothing that was acknowledged is lost."""
        await self._parts.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def _private(folder: Path) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


async def _ended(task: asyncio.Task[None]) -> None:
    await asyncio.gather(task, return_exceptions=True)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await _ended(task)
