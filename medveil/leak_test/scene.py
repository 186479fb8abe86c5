"""The consortium that the test runs in: real gateways, a process each, in a folder of its own.

    consortium/     what `medveil up` makes: homes, logs, passphrases, tables to load, backups
    answers/        what the gateways answered
    evidence/       evidence folders that were fetched, an erasure's receipt
    printed/        what commands printed
    credentials/    credentials and proofs on files: `medveil.leak_test.credential_flow`
    restored/       a backup made by a command, and a home made of it
    temp/           the processes' folder for temporary files
    kept/           a link to each of those as it was made, so that one that is gone can still be read
    work/           the processes' working folder: where a core would be dumped

Every planted word stands in the tables to load, in the calls that bring it, and in the test's own process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx

from medveil.client import AsyncClient, Session
from medveil.demo.join_and_load import founders
from medveil.demo.play import BUREAU, ZONE
from medveil.leak_test.patients import (
    PASSPHRASE,
    PASSWORD,
    SEED,
    SESSION,
    Marker,
    Planted,
    insured,
    plant,
    typed,
    write_broken,
    write_tables,
)
from medveil.leak_test.recording import Recorder, recording
from medveil.local.founding import AUTHORITY, CONSORTIUM, LocalMember, found_local
from medveil.local.processes import Processes
from medveil.local.seeding import Seeding
from wire.errors import Refused, Unavailable

CHAIN = "medveil-leak-test"
HOSPITALS = 3
_LOOK = 0.004
"""Seconds between looks at the folder of temporary files."""


class RecordedSeeding(Seeding):
    """Seeding through clients whose answers are kept."""

    recorder: Recorder

    def client(self, member: LocalMember, session: str = "", language: str = "en") -> AsyncClient:
        """See `Seeding.client`."""
        self.recorder.gateway(member.people, member.organisation)
        return recording(self.recorder)(
            member.people,
            Session(session) if session else None,
            trust=self.folder / CONSORTIUM,
            ca=self.folder / AUTHORITY,
            organisation=member.organisation,
            language=language,
        )

    async def session(self, member: LocalMember, name: str) -> str:
        """The session (secret) of one of an organisation's people."""
        person = self.people.get(member.organisation, name)
        if person is None:
            raise Refused("local.nobody", organisation=member.organisation, person=name)
        return await self._session(member, person)

    def sessions(self) -> list[tuple[str, str]]:
        """The open sessions (secrets), each with its organisation."""
        return [(organisation, session) for (organisation, _), session in self._sessions.items()]


class Scene:
    """A running consortium. planted: of each hospital, in order; typed: what callers type, by organisation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.consortium = folder / "consortium"
        self.planted = tuple(plant(f"hospital-{number}", secrets.token_bytes) for number in range(1, HOSPITALS + 1))
        self.insured = insured(secrets.token_bytes)
        self.recorder = Recorder(folder / "answers")
        self.typed: dict[str, Marker] = {}
        self.ended: list[str] = []
        self.seeding: RecordedSeeding
        self.processes: Processes

    def markers(self) -> list[Marker]:
        """Everything that is searched for, once people are enrolled: what is planted, and secrets of organisations."""
        planted = [marker for one in self.planted for marker in one.markers()]
        return [*planted, *self.insured.markers(), *self.typed.values(), *self._secrets()]

    def _secrets(self) -> Iterator[Marker]:
        for member in self.seeding.state.members:
            name = member.organisation
            passphrase = (self.consortium / "passphrases" / name).read_text(encoding="ascii").strip()
            yield Marker(PASSPHRASE, name, 0, passphrase)
        for person in self.seeding.people.all():
            yield Marker(PASSWORD, person.organisation, 0, person.password)
            (seed,) = parse_qs(urlsplit(person.codes).query)["secret"]
            yield Marker(SEED, person.organisation, 0, seed)
        for organisation, session in self.seeding.sessions():
            yield Marker(SESSION, organisation, 0, session)

    @property
    def environment(self) -> dict[str, str]:
        """What every process is started with besides: where temporary files go."""
        return {name: str(self.folder / "temp") for name in ("TMPDIR", "TEMP", "TMP")}

    def member(self, organisation: str) -> LocalMember:
        """A member."""
        return self.seeding.state.member(organisation)

    def with_role(self, role: str) -> str:
        """The first organisation of a role."""
        return self.seeding.state.with_role(role)[0].organisation

    def at(self, hospital: str) -> Planted:
        """What is planted at a hospital."""
        return next(one for one in self.planted if one.hospital == hospital)

    def acting(self, organisation: str, person: str = "staff") -> contextlib.AbstractAsyncContextManager[AsyncClient]:
        """A client of an organisation's gateway as one of its people."""
        return self.seeding.acting(self.member(organisation), person)

    @contextlib.asynccontextmanager
    async def calls(self, organisation: str, session: str) -> AsyncIterator[httpx.AsyncClient]:
        """Calls of one's own making at a gateway. session: of whom, or empty."""
        address = self.member(organisation).people
        self.recorder.gateway(address, organisation)
        tls = ssl.create_default_context(cafile=self.consortium / AUTHORITY)
        headers = {"authorization": f"Bearer {session}"} if session else {}
        transport = self.recorder.transport(tls)
        async with httpx.AsyncClient(transport=transport, base_url=address, headers=headers, timeout=60) as client:
            yield client

    async def crash(self, organisation: str, number: signal.Signals) -> None:
        """End a process by a signal; returns when it is gone."""
        process = self.processes.all[organisation]
        process.signal(number)
        await process.ended()


def found(scene: Scene) -> None:
    """Write the tables and found the consortium. Raises Refused, Unavailable."""
    for name in ("temp", "kept", "work", "evidence", "answers"):
        (scene.folder / name).mkdir(mode=0o700)
    tables = scene.folder / "tables"
    write_tables(tables, scene.planted)
    state = found_local(scene.consortium, founders(HOSPITALS), BUREAU, CHAIN, ZONE, tables)
    for one in scene.planted:
        write_broken(scene.consortium / "data" / one.hospital / "broken", one)
    scene.typed = {one.organisation: typed(one.organisation, secrets.token_bytes) for one in state.members}
    scene.seeding = RecordedSeeding(scene.consortium, state, lambda sentence: None)
    scene.seeding.recorder = scene.recorder


@contextlib.asynccontextmanager
async def running(scene: Scene, said: Callable[[str], None]) -> AsyncIterator[None]:
    """Run the founded consortium's processes. said: told what they write for people.

    Raises Unavailable where one does not start, or ends by itself.
    """
    task = asyncio.current_task()
    assert task is not None  # a coroutine runs in a task

    def ended(organisation: str, code: int) -> None:
        scene.ended.append(f"{organisation} (exit {code})")
        task.cancel()

    scene.processes = Processes(
        scene.consortium,
        scene.seeding.state,
        lambda organisation, line: said(f"{organisation} | {line}"),
        ended,
        scene.environment,
        scene.folder / "work",
    )
    try:
        await scene.processes.start(lambda member: None)
        yield
    except asyncio.CancelledError:
        if scene.ended:
            raise Unavailable("leak_test.died", organisation=", ".join(scene.ended)) from None
        raise
    finally:
        await scene.processes.stop()


@contextlib.asynccontextmanager
async def watching(scene: Scene) -> AsyncIterator[None]:
    """Link what is written into the folder of temporary files, meanwhile."""
    keeping = asyncio.create_task(_keep(scene.folder / "temp", scene.folder / "kept"))
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def _keep(temp: Path, kept: Path) -> None:
    """Link each temporary file as soon as it is seen."""
    seen: set[int] = set()
    while True:
        for folder, _, names in os.walk(temp):
            for name in names:
                path = Path(folder) / name
                with contextlib.suppress(OSError):
                    inode = path.stat().st_ino
                    if inode not in seen:
                        os.link(path, kept / str(inode))
                        seen.add(inode)
        await asyncio.sleep(_LOOK)
