"""A consortium's folder on one machine: homes, trust file, passphrases, certificates, tables; made once.

    local.json          what this is, and how far it is seeded
    consortium.json     the trust file that every home has pinned
    ca.pem              whom the people's listeners are certified by
    homes/NAME/         each organisation's home
    passphrases/NAME    mode 600: here one person plays all of them
    data/NAME/          a hospital's tables, for it to load
    people.json         names, first passwords and seeds of one-time codes, mode 600 (`medveil.local.seeding`)
    logs/NAME.log       what each process says
    backups/            of the homes, when a gateway is asked for one

Ports are free ones, taken when it is founded and written into each gateway.toml.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec

from medveil.consortium import Founder
from medveil.local.free_ports import free_ports
from medveil.local.tables import PlacedTable, place_tables
from medveil.local.web_certificates import issue
from medveil.service.accounts.people import People as Accounts
from medveil.service.home.cards import MemberCard, found_consortium
from medveil.service.home.config import FILE, Data, People, check_config, read_config, write_config
from medveil.service.home.home import Home
from wire.checkpoint import trust_of, write_trust
from wire.durable import put_in_place
from wire.errors import DecodeError, Refused, Unavailable
from wire.evidence import write_file
from wire.identifiers import NAME_PATTERN

STATE = "local.json"
VERSION = 1
CONSORTIUM = "consortium.json"
AUTHORITY = "ca.pem"
ADMIN = "admin"
"""The account that runs each organisation's service."""

Name = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN, max_length=64)]


class LocalMember(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One organisation. people: address of its people's listener. source, table: what it loads, of a hospital.

    invitation: the first administrator's, until it is used; secret.
    """

    organisation: Name
    roles: tuple[Name, ...]
    people: str
    source: str = ""
    table: str = ""
    invitation: str = ""

    def __repr__(self) -> str:
        return f"LocalMember({self.organisation!r})"


class LocalConsortium(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``local.json``. members: in the order of their start, the sequencer first. seeded: people, votes, tables."""

    version: int
    chain: Name
    sequencer: Name
    population: Name
    unit: str
    rows_per_person: int
    colluders: int
    layout: Name
    members: tuple[LocalMember, ...]
    seeded: bool = False

    def with_role(self, role: str) -> list[LocalMember]:
        """The members that have a role, in founding order."""
        return [member for member in self.members if role in member.roles]

    def member(self, organisation: str) -> LocalMember:
        """One member, by name."""
        return next(member for member in self.members if member.organisation == organisation)


def now() -> int:
    """The time, ms UTC."""
    return time.time_ns() // 1_000_000


def found_local(
    folder: Path, founders: Sequence[Founder], sequencer: str, chain: str, zone: str, data: Path | None
) -> LocalConsortium:
    """Make the folder, whole or not at all. It must not be there, or be empty.

    founders: hospitals get the tables of `data` in order (`connectors.sources`). Raises Refused, Unavailable, what
    bad data raises.
    """
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Refused("local.not_ours", folder=str(folder))
    part = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(part, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir(mode=0o700)
        state = _found(part, folder, founders, sequencer, chain, zone, data)
        write_state(part, state)
        if folder.exists():
            folder.rmdir()
        put_in_place(part, folder)
    except OSError:
        raise Unavailable("home.unwritable", folder=str(folder)) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return state


def _found(
    part: Path, final: Path, founders: Sequence[Founder], sequencer: str, chain: str, zone: str, data: Path | None
) -> LocalConsortium:
    names = [founder.name for founder in founders]
    hospitals = [founder.name for founder in founders if "hospital" in founder.roles]
    for name in ("homes", "passphrases", "logs", "data"):
        (part / name).mkdir(mode=0o700)
    layout, placed = place_tables(data, [part / "data" / name for name in hospitals])
    tables = dict(zip(hospitals, placed, strict=True))
    cards, passphrases = [], {}
    for founder in founders:
        passphrases[founder.name] = secrets.token_hex(16)
        _write_private(part / "passphrases" / founder.name, passphrases[founder.name].encode() + b"\n")
        cards.append(_home(part, founder, passphrases[founder.name]))
    trust = trust_of(found_consortium(chain, sequencer, zone, cards, now()))
    write_trust(part / CONSORTIUM, trust)
    authority, certificates = issue(names, datetime.now(UTC))
    (part / AUTHORITY).write_bytes(authority)
    with free_ports(2 * len(names)) as ports:
        peers = {name: f"https://localhost:{port}" for name, port in zip(names, ports, strict=False)}
        people = {name: f"localhost:{port}" for name, port in zip(names, ports[len(names) :], strict=True)}
    members = []
    for founder in sorted(founders, key=lambda founder: founder.name != sequencer):
        name = founder.name
        home = part / "homes" / name
        for file, content in zip(("web.pem", "web.key"), certificates[name], strict=True):
            _write_private(home / file, content)
        config = read_config(home / FILE)
        listen = peers[name].removeprefix("https://")
        config = msgspec.structs.replace(
            config,
            passphrase_file=str(final / "passphrases" / name),
            backups=str(final / "backups"),
            data=Data(str(final / "data" / name)) if name in tables else Data(),
            people=People(people[name], "web.pem", "web.key"),
            peers=msgspec.structs.replace(config.peers, listen=listen, addresses=peers),
        )
        with Home.open(home, passphrases[name], secrets.token_bytes, now) as opened:
            opened.join(trust)
            write_config(home / FILE, check_config(config))
            database = opened.database()
            try:
                accounts = Accounts(database, name, clock=now, rand=secrets.token_bytes)
                invitation = accounts.invite_first_admin(ADMIN)
            finally:
                database.close()
        table = tables.get(name, PlacedTable("", ""))
        members.append(LocalMember(name, founder.roles, f"https://{people[name]}", *table, invitation))
    return LocalConsortium(
        VERSION,
        chain,
        sequencer,
        layout.population,
        layout.unit,
        layout.rows_per_person,
        layout.colluders,
        layout.name,
        tuple(members),
    )


def _home(part: Path, founder: Founder, passphrase: str) -> MemberCard:
    folder = part / "homes" / founder.name
    return Home.create(folder, founder.name, founder.roles, passphrase, secrets.token_bytes, now)


def _write_private(path: Path, content: bytes) -> None:
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(content)


def read_state(folder: Path) -> LocalConsortium | None:
    """What stands in the folder; None where nothing does. Raises DecodeError (another version, damaged), Refused
    (something else), Unavailable."""
    path = folder / STATE
    try:
        if not path.exists():
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise Refused("local.not_ours", folder=str(folder))
            return None
        state = msgspec.json.decode(path.read_bytes(), type=LocalConsortium)
    except OSError:
        raise Unavailable("home.unwritable", folder=str(folder)) from None
    except (msgspec.MsgspecError, UnicodeError):
        raise DecodeError("local.bad_state", file=str(path)) from None
    if state.version != VERSION:
        raise DecodeError("local.bad_state", file=str(path))
    return state


def write_state(folder: Path, state: LocalConsortium) -> None:
    """Write ``local.json``, whole or not at all. Raises OSError."""
    write_file(folder / STATE, msgspec.json.format(msgspec.json.encode(state), indent=2) + b"\n")
    (folder / STATE).chmod(0o600)
