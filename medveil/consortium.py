"""A consortium on one machine: every organisation's running parts in one process, joined to one ledger.

The sequencer's engine is embedded (SQLite); each member has its own replica, which replays every
block before it cosigns. Messages pass through an in-memory channel, signed and sealed as between
machines. What runs here is what runs between processes; only the channel, the engine's door and who keeps a flow's
steps differ.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from ledger.engines import EmbeddedEngine
from ledger.replicas import Replica
from ledger.split_view import SplitView
from medveil.channel import InMemoryPost
from medveil.gateway.ledger_account import LedgerAccount
from medveil.gateway.organisation import Clock, Organisation, Rand
from medveil.gateway.reception import AtHome, Opened, Reception, answer
from medveil.gateway.steps import Passing
from medveil.gateway.tables import VaultTables
from medveil.gateway.wallets import Wallets
from wire.canonical import encode
from wire.checkpoint import TrustFile, trust_of, write_trust
from wire.checkpoint.membership import needed_cosigners
from wire.errors import MedveilError, Unavailable
from wire.keyset import Founding


class Founder(NamedTuple):
    """An organisation that founds the consortium."""

    name: str
    roles: tuple[str, ...]


class LocalConsortium:
    """Organisations of one process by name, what each has at home, their trust file, post and engine."""

    def __init__(
        self,
        organisations: dict[str, Organisation],
        homes: dict[str, AtHome],
        trust: TrustFile,
        post: InMemoryPost,
        engine: EmbeddedEngine,
    ) -> None:
        self.organisations = organisations
        self.homes = homes
        self.trust = trust
        self.post = post
        self.engine = engine

    def __getitem__(self, name: str) -> Organisation:
        return self.organisations[name]

    def with_role(self, role: str) -> list[Organisation]:
        """The organisations that have a role, in founding order."""
        return [organisation for organisation in self.organisations.values() if role in organisation.roles]


@asynccontextmanager
async def local_consortium(
    folder: Path,
    chain: str,
    founders: Sequence[Founder],
    sequencer: str,
    zone: str,
    rand: Rand,
    clock: Clock,
    steady: Clock | None = None,
    answering: bool = True,
) -> AsyncIterator[LocalConsortium]:
    """Found a consortium in `folder` and run it: ``consortium.json`` and ``sites/<organisation>/``.

    Every member re-executes, and k is the least that the rule allows. Each organisation's passphrase is
    drawn here and kept beside its files (mode 600): one person plays all of them. steady: against what the
    sequencer's clock is watched, see `EmbeddedEngine.open`. answering: whether each member answers by itself what the
    others begin (`medveil.gateway.reception`). Raises Unavailable where the disk refuses.
    """
    organisations = {
        founder.name: _create(folder / "sites" / founder.name, founder, rand, clock) for founder in founders
    }
    founding = Founding(
        chain=chain,
        members=tuple(organisation.member(re_executes=True) for organisation in organisations.values()),
        sequencer=sequencer,
        k=needed_cosigners(len(organisations)),
        zone=zone,
        time=clock(),
    )
    homes = {name: AtHome(VaultTables.of(one, clock), Wallets(one)) for name, one in organisations.items()}
    trust = trust_of(founding)
    write_trust(folder / "consortium.json", trust)
    post = InMemoryPost()
    first = organisations[sequencer]
    engine = await EmbeddedEngine.open(first.folder / "ledger.sqlite", founding, first.cosigner, clock, steady=steady)
    failed: Exception | None = None
    try:
        async with asyncio.TaskGroup() as tasks:
            for organisation in organisations.values():
                memory = organisation.folder / "cosigned.note"
                replica = Replica(
                    founding, organisation.name, organisation.cosigner, clock, memory, report=_keep(organisation.folder)
                )
                account = LedgerAccount(organisation.name, organisation.keys.envelopes, engine, replica, trust)
                organisation.connect(post.join(organisation.name), account)
                tasks.create_task(account.attend())
            receptions = [
                tasks.create_task(_reception(organisation, homes[name], tasks, clock).attend())
                for name, organisation in organisations.items()
                if answering
            ]
            try:
                yield LocalConsortium(organisations, homes, trust, post, engine)
            except Exception as error:  # it comes out as it is, not in the group of those who follow the ledger
                failed = error
            for reception in receptions:
                reception.cancel()
            await engine.close()
        if failed is not None:
            raise failed
    finally:
        await engine.close()
        for name, organisation in organisations.items():
            homes[name].wallets.close()
            organisation.close()


def _reception(organisation: Organisation, home: AtHome, tasks: asyncio.TaskGroup, clock: Clock) -> Reception:
    """A member's reception, whose flows are tasks: what they raise, whoever asked was told."""
    begun: set[tuple[str, str, bytes]] = set()

    async def flow(kind: str, opened: Opened) -> None:
        with contextlib.suppress(MedveilError):
            await answer(kind, organisation, home, opened, Passing(), clock)

    async def begin(kind: str, peer: str, session: bytes) -> None:
        if (kind, peer, session) not in begun:
            begun.add((kind, peer, session))
            tasks.create_task(flow(kind, Opened(peer, session)))

    return Reception(organisation, begin, clock=clock)


def _keep(folder: Path) -> Callable[[SplitView], None]:
    """Where a member keeps the evidence that it was shown two histories: ``split-view.evidence``."""

    def keep(split: SplitView) -> None:
        path = folder / "split-view.evidence"
        try:
            path.write_bytes(encode(split))
        except OSError:
            raise Unavailable("ledger.storage", path=str(path)) from None

    return keep


def _create(folder: Path, founder: Founder, rand: Rand, clock: Clock) -> Organisation:
    passphrase = rand(16).hex()
    organisation = Organisation.create(founder.name, founder.roles, folder, passphrase, rand, clock)
    note = folder / "passphrase"
    note.touch(mode=0o600)
    note.write_text(passphrase + "\n", encoding="ascii")
    return organisation
