"""What a local consortium begins with: people at each organisation, a budget, loaded tables; all through the client.

Each organisation has two accounts: ``admin``, who runs the service, and ``staff``, who does everything else there.
Passwords and the seeds of one-time codes are drawn here and written to ``people.json`` (mode 600) before they count.
Seeding that was cut short goes on where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from medveil.client import AsyncClient, Session
from medveil.client.accounts import SignedIn
from medveil.local.founding import ADMIN, AUTHORITY, CONSORTIUM, LocalConsortium, LocalMember, write_state
from wire.errors import DecodeError, Refused, Unavailable
from wire.evidence import write_file

PEOPLE_FILE = "people.json"
STAFF = "staff"
STAFF_ROLES = ("officer", "researcher", "clerk", "auditor")
BUDGET_NANO = 1_000_000_000
"""The population's whole budget: rho = 1."""

STEP = 30
"""Seconds of a one-time code."""


class LocalPerson(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An account. invitation: until the password is set; codes: address of its one-time codes, empty before they are
    set up. All of it is secret but the names."""

    organisation: str
    name: str
    password: str
    codes: str = ""
    invitation: str = ""

    def __repr__(self) -> str:
        return f"LocalPerson({self.organisation!r}, {self.name!r})"


class LocalPeople:
    """``people.json``."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / PEOPLE_FILE
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=list[LocalPerson])
        except FileNotFoundError:
            found = []
        except OSError:
            raise Unavailable("home.unwritable", folder=str(folder)) from None
        except (msgspec.MsgspecError, UnicodeError):
            raise DecodeError("local.bad_state", file=str(self._path)) from None
        self._all = {(person.organisation, person.name): person for person in found}

    def get(self, organisation: str, name: str) -> LocalPerson | None:
        """An account, if it is there."""
        return self._all.get((organisation, name))

    def keep(self, person: LocalPerson) -> LocalPerson:
        """Write an account down, durably. Raises Unavailable."""
        self._all[person.organisation, person.name] = person
        try:
            self._path.touch(mode=0o600)
            write_file(self._path, msgspec.json.format(msgspec.json.encode(list(self._all.values())), indent=2))
            self._path.chmod(0o600)
        except OSError:
            raise Unavailable("home.unwritable", folder=str(self._path.parent)) from None
        return person

    def all(self) -> tuple[LocalPerson, ...]:
        """Every account, in the order in which they were made."""
        return tuple(self._all.values())


class Seeding:
    """The seeding of one folder. Its gateways run. say: told what is done, a sentence each."""

    def __init__(self, folder: Path, state: LocalConsortium, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.state = state
        self.people = LocalPeople(folder)
        self._say = say
        self._sessions: dict[tuple[str, str], str] = {}  # secrets

    async def seed(self) -> LocalConsortium:
        """Everything; returns the state after it. Raises what the gateways answer."""
        if self.state.seeded:
            return self.state
        await self.enrol()
        async with contextlib.AsyncExitStack() as stack:
            members = self.state.with_role("hospital")
            hospitals = [(member, await stack.enter_async_context(self.acting(member))) for member in members]
            await self._vote(hospitals)
            await each(self._load(member, client) for member, client in hospitals)
        self.state = msgspec.structs.replace(self.state, seeded=True)
        try:
            await asyncio.to_thread(write_state, self.folder, self.state)
        except OSError:
            raise Unavailable("home.unwritable", folder=str(self.folder)) from None
        return self.state

    async def enrol(self) -> None:
        """The people of every organisation."""
        await each(self._enrol(member) for member in self.state.members)
        self._say(f"people: {ADMIN} and {STAFF} at each organisation")

    def client(self, member: LocalMember, session: str = "", language: str = "en") -> AsyncClient:
        """A client of an organisation's gateway. language: of sentences."""
        return AsyncClient(
            member.people,
            Session(session) if session else None,
            trust=self.folder / CONSORTIUM,
            ca=self.folder / AUTHORITY,
            organisation=member.organisation,
            language=language,
        )

    @contextlib.asynccontextmanager
    async def acting(self, member: LocalMember, name: str = STAFF, language: str = "en") -> AsyncIterator[AsyncClient]:
        """An organisation's gateway as somebody of ``people.json``, who signs in if need be."""
        person = self.people.get(member.organisation, name)
        if person is None:
            raise Refused("local.nobody", organisation=member.organisation, person=name)
        async with self.client(member, await self._session(member, person), language) as client:
            yield client

    async def _session(self, member: LocalMember, person: LocalPerson) -> str:
        """The session of this run: the one that was begun, or a new one."""
        who = person.organisation, person.name
        if who not in self._sessions:
            self._sessions[who] = (await self._sign_in(member, person)).session
        return self._sessions[who]

    async def _sign_in(self, member: LocalMember, person: LocalPerson) -> SignedIn:
        async with self.client(member) as client:
            for again in (True, False):
                code = code_at(person.codes, time.time()) if person.codes else ""
                try:
                    return await client.account.sign_in(person.name, person.password, code=code)
                except Refused:
                    if not code or not again:
                        raise
                    await asyncio.sleep(STEP - time.time() % STEP)  # each code works once
        raise AssertionError  # the second try returns or raises

    async def _enrol(self, member: LocalMember) -> None:
        """The two accounts of an organisation, with passwords and one-time codes."""
        admin = self.people.get(member.organisation, ADMIN)
        if admin is None:
            admin = self.people.keep(_drawn(member.organisation, ADMIN, member.invitation))
        await self._settle(member, admin)
        await self.add(member, STAFF, STAFF_ROLES)

    async def add(self, member: LocalMember, name: str, roles: Sequence[str]) -> None:
        """An account of an organisation, invited by its admin, with a password and one-time codes."""
        person = self.people.get(member.organisation, name)
        if person is None:
            async with self.acting(member, ADMIN) as client:
                try:
                    invited = await client.people.add(name, roles)
                except Refused as error:
                    if error.code != "accounts.exists":
                        raise
                    invited = await client.people.reset(name)  # it was invited, and nobody wrote that down
            person = self.people.keep(_drawn(member.organisation, name, invited.invitation))
        await self._settle(member, person)

    async def _settle(self, member: LocalMember, person: LocalPerson) -> None:
        """Set up an account's password and one-time codes. What is drawn is kept before it counts."""
        if person.invitation:
            async with self.client(member) as client:
                try:
                    await client.account.accept(person.invitation, person.password)
                except Refused as error:
                    if error.code != "accounts.no_invitation":  # else it was used, and nobody wrote that down
                        raise
            person = self.people.keep(msgspec.structs.replace(person, invitation=""))
        signed_in = await self._sign_in(member, person)
        self._sessions[person.organisation, person.name] = signed_in.session
        if signed_in.enrolling:
            async with self.client(member, signed_in.session) as client:
                codes = await client.account.begin_codes(person.password)
                self.people.keep(msgspec.structs.replace(person, codes=codes))
                await client.account.confirm_codes(code_at(codes, time.time()))

    async def _vote(self, hospitals: list[tuple[LocalMember, AsyncClient]]) -> None:
        state, names = self.state, [member.organisation for member, _ in hospitals]
        _, first = hospitals[0]
        there = {one.population: one for one in (await first.populations.list()).populations}
        if state.population not in there:
            await first.populations.register(
                state.population,
                unit="person" if state.unit == "person" else "row",
                owners=names,
                rows_per_person=state.rows_per_person,
                colluders=state.colluders,
            )
        voted = {vote.owner for vote in there[state.population].votes} if state.population in there else set()
        for member, client in hospitals:
            if member.organisation not in voted:
                await client.populations.vote(state.population, BUDGET_NANO)
        self._say(f"population {state.population}: a privacy budget of rho 1, voted by {', '.join(names)}")

    async def _load(self, member: LocalMember, client: AsyncClient) -> None:
        dataset = f"{self.state.layout}-{member.organisation}"
        there = {one.dataset for one in (await client.datasets.list()).datasets}
        if dataset not in there:
            await client.datasets.load(member.source, member.table, dataset, key=dataset)
        self._say(f"{member.organisation} loaded {member.table} as {dataset}")


async def each(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all at once; raises the first error as it is, when all have ended."""
    found = await asyncio.gather(*works, return_exceptions=True)
    for one in found:
        if one is not None:
            raise one


def code_at(address: str, when: float) -> str:
    """The one-time code (secret) of a moment. address: of the seed, secret; when: s UTC. Raises DecodeError."""
    import pyotp

    try:
        generator = pyotp.parse_uri(address)
    except ValueError:
        generator = None
    if not isinstance(generator, pyotp.TOTP):
        raise DecodeError("local.bad_state", file=PEOPLE_FILE)
    return generator.at(int(when))


def _drawn(organisation: str, name: str, invitation: str) -> LocalPerson:
    return LocalPerson(organisation, name, secrets.token_urlsafe(15), invitation=invitation)
