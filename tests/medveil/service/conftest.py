"""A store of each engine, a clock that the test turns, randomness that replays."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from medveil.service.database import Database

from .running import Running, Set


class Clock:
    """Milliseconds UTC; `pass_time` in seconds."""

    def __init__(self) -> None:
        self.now = 1_760_000_000_000

    def __call__(self) -> int:
        return self.now

    def pass_time(self, seconds: float) -> None:
        self.now += int(seconds * 1000)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rand() -> Callable[[int], bytes]:
    return random.Random(5).randbytes


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database.open(f"sqlite:///{tmp_path}/service.sqlite")
    yield opened
    opened.close()


def _as_server_user(*command: str) -> list[str]:
    """PostgreSQL refuses to run as root: then the commands run as the account of Debian's package."""
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else list(command)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server of its own, on a unix socket; yields the socket's folder."""
    found = shutil.which("initdb") or next(map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)
    if found is None:
        pytest.fail("initdb is not here although postgres is: install Debian's package postgresql")
    programs = Path(found).resolve().parent
    folder = Path("/tmp") / f"medveil-pg-{os.getpid()}"  # short: a socket's path has 107 bytes
    folder.mkdir(mode=0o700)
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        data, log = folder / "data", folder / "log"
        start = [f"{programs}/initdb", "-D", f"{data}", "-A", "trust", "-U", "medveil", "--no-sync", "-E", "UTF8"]
        subprocess.run(_as_server_user(*start), check=True, capture_output=True, cwd="/")
        options = f"-c listen_addresses='' -c fsync=off -k {folder}"
        control = [f"{programs}/pg_ctl", "-D", f"{data}", "-w"]
        run = [*control, "-l", f"{log}", "-o", options, "start"]
        subprocess.run(_as_server_user(*run), check=True, stdout=subprocess.DEVNULL, cwd="/")
        try:
            yield str(folder)
        finally:
            subprocess.run(
                _as_server_user(*control, "-m", "immediate", "stop"), check=True, capture_output=True, cwd="/"
            )
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """The server's database, emptied."""
    import psycopg

    with psycopg.connect(f"host={postgres_server} user=medveil dbname=postgres", autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return f"postgresql+psycopg://medveil@/postgres?host={postgres_server}"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """The store on SQLite and on PostgreSQL, one after the other."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/service.sqlite"
    else:
        url = request.getfixturevalue("postgres_url")
    opened = Database.open(url)
    yield opened
    opened.close()


@pytest.fixture
def make_set(tmp_path: Path) -> Iterator[Callable[..., Set]]:
    """Make a set of parts in the test's folder."""
    made: list[Set] = []

    def make(**others: Any) -> Set:
        made.append(Set(tmp_path, **others))
        return made[-1]

    yield make
    for each in made:
        each.database.close()


@pytest.fixture
def run() -> Iterator[Callable[..., Running]]:
    """Run a set of parts as a service; it is stopped when the test ends."""
    running: list[Running] = []

    def started(own: Set, **others: Any) -> Running:
        running.append(Running(own, **others).__enter__())
        return running[-1]

    yield started
    for each in running:
        each.__exit__()
