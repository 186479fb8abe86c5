"""A database outside of the home is one process's and one home's: a restored home and its original never share it."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

import msgspec
import psycopg
import pytest
import sqlalchemy as sa

from medveil.service.database import SERVICE, Claim, Database, mark
from medveil.service.home.backup import make_backup
from medveil.service.home.config import FILE, read_config, write_config
from medveil.service.home.home import HOME_ID, Home
from medveil.service.home.restore import restore
from wire.errors import DecodeError, MedveilError, Refused, Unavailable

PASS = "a passphrase of tests"
ONE, OTHER = Claim(b"1" * 16, False), Claim(b"2" * 16, False)


def clock() -> int:
    return 1_760_000_000_000


@pytest.fixture(params=["file", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a database that lies outside of every home."""
    if request.param == "file":
        return f"sqlite:///{tmp_path}/outside.sqlite"
    return str(request.getfixturevalue("postgres_url"))


def _code(url: str, claim: Claim) -> str:
    with pytest.raises(MedveilError) as caught:
        Database.open(url, owner="hospital-a", home=claim)
    return caught.value.code


def test_one_process_at_a_time(url: str) -> None:
    first = Database.open(url, owner="hospital-a", home=ONE)
    assert _code(url, ONE) == _code(url, OTHER) == _code(url, Claim(b"3" * 16, True)) == "database.in_use"
    first.check()
    first.keep_held()
    first.close()
    Database.open(url, owner="hospital-a", home=ONE).close()


def test_one_home_until_another_takes_over(url: str) -> None:
    Database.open(url, owner="hospital-a", home=ONE).close()
    assert _code(url, OTHER) == "database.other_home"
    Database.open(url, owner="hospital-a", home=Claim(OTHER.id, True)).close()
    assert _code(url, ONE) == "database.other_home"
    Database.open(url, owner="hospital-a", home=OTHER).close()


def test_a_refused_home_changes_nothing(url: str) -> None:
    """What was written by the home that runs is as it was; so it is where versions differ."""
    first = Database.open(url, owner="hospital-a", home=ONE)
    assert _code(url, OTHER) == "database.in_use"
    with first.reading() as connection:
        before = connection.execute(sa.select(mark)).all()
    first.close()
    assert _code(url, OTHER) == "database.other_home"
    again = Database.open(url, owner="hospital-a", home=ONE)
    with again.reading() as connection:
        assert connection.execute(sa.select(mark)).all() == before
    again.close()


def _cut(url: str) -> None:
    """The server ends the connection that holds the lock, as a restart of it does."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        query = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s"
        assert connection.execute(query, (SERVICE.holder,)).fetchall() == [(True,)]
    time.sleep(0.2)


@pytest.mark.postgres
def test_a_broken_connection_is_made_again(postgres_url: str) -> None:
    held = Database.open(postgres_url, owner="hospital-a", home=ONE)
    _cut(postgres_url)
    held.keep_held()
    with held.transaction() as connection:
        connection.execute(sa.select(mark))
    assert _code(postgres_url, ONE) == "database.in_use"
    held.close()


@pytest.mark.postgres
def test_nothing_is_written_while_another_process_has_it(postgres_url: str) -> None:
    first = Database.open(postgres_url, owner="hospital-a", home=ONE)
    _cut(postgres_url)
    second = Database.open(postgres_url, owner="hospital-a", home=ONE)
    for attempt in (first.keep_held, first.transaction().__enter__, lambda: first.statement("SELECT 1")):
        with pytest.raises(Unavailable) as caught:
            attempt()
        assert caught.value.code == "database.in_use"
    second.close()
    first.keep_held()
    assert first.statement("SELECT 1") == [(1,)]
    first.close()


def _home(folder: Path, url: str) -> None:
    Home.create(folder, "hospital-1", ("hospital",), PASS, secrets.token_bytes, clock)
    write_config(folder / FILE, msgspec.structs.replace(read_config(folder / FILE), database=url))


def _open(folder: Path) -> Home:
    return Home.open(folder, PASS, secrets.token_bytes, clock)


@pytest.mark.parametrize("moved", [False, True])
def test_a_restored_home_takes_the_database_over(url: str, tmp_path: Path, moved: bool) -> None:
    original, again = tmp_path / "original", tmp_path / "again"
    _home(original, url)
    with _open(original) as home:
        running = home.database()
        make_backup(home, tmp_path / "out", clock)
        restore(tmp_path / "out", again, PASS, secrets.token_bytes, clock, moved=moved)
        assert not (again / HOME_ID).exists()
        with _open(again) as other, pytest.raises(Unavailable) as held:  # the original runs
            other.database()
        assert held.value.code == "database.in_use"
        running.close()
        home.database().close()  # and was not harmed
    for _ in range(2):
        with _open(again) as other:
            other.database().close()
    with _open(original) as home, pytest.raises(Refused) as caught:
        home.database()
    assert caught.value.code == "database.other_home"
    (original / HOME_ID).unlink()  # as its words say: this is the one to go on with
    with _open(original) as home:
        home.database().close()
    with _open(again) as other, pytest.raises(Refused):
        other.database()


def test_a_new_home_takes_nothing_over(url: str, tmp_path: Path) -> None:
    for name in ("first", "second"):
        _home(tmp_path / name, url)
    with _open(tmp_path / "first") as home:
        home.database().close()
    with _open(tmp_path / "second") as home, pytest.raises(Refused) as caught:
        home.database()
    assert caught.value.code == "database.other_home"
    (tmp_path / "first" / HOME_ID).write_text("not an id")
    with _open(tmp_path / "first") as home, pytest.raises(DecodeError) as damaged:
        home.database()
    assert damaged.value.code == "home.bad_id"
