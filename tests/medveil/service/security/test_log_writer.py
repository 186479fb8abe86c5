"""The log writer: one chain whoever else writes, on the disk before it is said, and nobody is kept out."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from medveil.service.database import Database, mark
from medveil.service.security import log_writer, security_log
from medveil.service.security.log_writer import LogWriter
from medveil.service.security.security_log import Noted
from medveil.service.security.security_trail import SecurityTrail
from privacy.store import engine
from wire.errors import MedveilError, Unavailable


def _noted(name: str, count: int = 1) -> list[Noted]:
    return [Noted(1000 + n, f"person:{name}", "use.decided", f"dataset:{n}", "x" * 400) for n in range(count)]


def _whole(store: Database) -> int:
    with store.reading() as connection:
        return security_log.verify(connection, security_log.head(connection))


def test_entries_are_those_of_a_transaction_and_the_chain_holds(either: Database) -> None:
    writer = LogWriter(either)
    for count in (1, 3, 2, 100):
        writer.write([_noted("ada", count), _noted("bob")])
    with either.transaction() as connection:
        security_log.append_all(connection, _noted("eve"))
    writer.write([_noted("ada")])
    assert _whole(either) == 1 + 3 + 2 + 100 + 4 + 1 + 1
    with either.reading() as connection:
        last, before = security_log.read(connection, limit=2)
    assert (before.actor, last.actor, len(last.reason)) == ("person:eve", "person:ada", 300)


def test_many_writers_in_threads_and_in_another_store_object_make_one_chain(either: Database) -> None:
    url = f"sqlite:///{either.path}" if either.path else str(either._engine.url.render_as_string(hide_password=False))
    other = Database.open(url)  # as another process would: it shares no turn with the first
    failed: list[BaseException] = []

    def write(store: Database, quick: bool) -> None:
        writer = LogWriter(store)
        try:
            for n in range(25):
                if quick:
                    writer.write([_noted(f"q{n}", 3)])
                else:
                    with store.transaction() as connection:
                        security_log.append_all(connection, _noted("slow", 3))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(s, q)) for s in (either, other) for q in (True, True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert not failed
    assert _whole(either) == 6 * 25 * 3


def test_others_write_while_the_log_is_never_still(either: Database) -> None:
    """A transaction of this process, and one of another, come in within a time, against a writer that never rests."""
    url = f"sqlite:///{either.path}" if either.path else str(either._engine.url.render_as_string(hide_password=False))
    other, ended, waits = Database.open(url), threading.Event(), []

    def never_still() -> None:
        writer = LogWriter(either)
        while not ended.is_set():
            writer.write([_noted("ada", 5)])

    thread = threading.Thread(target=never_still)
    thread.start()
    try:
        for store in (either, other):
            for n in range(10):
                began = time.monotonic()
                with store.transaction() as connection:
                    connection.execute(mark.update().values(owner=f"{n}"))
                waits.append(time.monotonic() - began)
    finally:
        ended.set()
        thread.join()
        other.close()
    assert max(waits) < 4, waits  # busy is said after five
    assert _whole(either) > 0


def test_what_is_acknowledged_outlives_a_kill(tmp_path: Path) -> None:
    """kill -9 while entries are written: every number that was said to be kept is there, and the chain is whole."""
    program = """
import asyncio, sys
from medveil.service.database import Database
from medveil.service.security.security_trail import SecurityTrail
async def main():
    trail = SecurityTrail(Database.open(sys.argv[1]), lambda: 1)
    async def write(n):
        for k in range(10**6):
            await trail.note(f"person:p{n}", "use.decided", f"dataset:{k}")
            print(n, k, flush=True)
    await asyncio.gather(*(write(n) for n in range(8)))
asyncio.run(main())
"""
    url = f"sqlite:///{tmp_path}/s.sqlite"
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", program, url], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(200)]
        process.send_signal(signal.SIGKILL)
        said += process.stdout.read().splitlines(keepends=True)
        process.wait()
        process.stdout.close()
        store = Database.open(url)
        assert _whole(store) >= len(said) - 1
        with store.reading() as connection:
            kept = {(e.actor, e.subject) for e in security_log.read(connection, limit=1000)}
            total = security_log.head(connection)[0]
        store.close()
        if total <= 1000:
            told = [line.split() for line in said if line.endswith("\n")]
            assert {(f"person:p{n}", f"dataset:{k}") for n, k in told} <= kept


def test_nothing_is_acknowledged_before_it_can_be_read_by_another(tmp_path: Path) -> None:
    store = Database.open(f"sqlite:///{tmp_path}/s.sqlite")

    async def main() -> None:
        trail = SecurityTrail(store, lambda: 1)
        other = sqlite3.connect(tmp_path / "s.sqlite")

        async def write(name: int) -> None:
            for n in range(20):
                await trail.note("person:ada", "use.decided", f"{name} {n}")
                row = other.execute("SELECT 1 FROM security_log WHERE subject = ?", (f"{name} {n}",)).fetchone()
                assert row == (1,)

        await asyncio.gather(*(write(n) for n in range(10)))
        await trail.close()
        other.close()

    asyncio.run(main())
    assert _whole(store) == 200
    store.close()


def test_a_locked_store_is_said_and_the_writer_goes_on_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BUSY_SECONDS", 0.05)
    store = Database.open(f"sqlite:///{tmp_path}/s.sqlite")
    writer = LogWriter(store)
    writer.write([_noted("ada")])
    other = sqlite3.connect(tmp_path / "s.sqlite", isolation_level=None)
    for state in ("known head", "unknown head"):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable) as raised:
            writer.write([_noted(state)])
        assert raised.value.code == "database.busy"
        other.execute("ROLLBACK")
    writer.write([_noted("bob")])
    other.close()
    assert _whole(store) == 2
    store.close()


@pytest.mark.postgres
def test_a_postgresql_server_that_ends_the_connection_is_unavailable_once_at_most(postgres_url: str) -> None:
    import psycopg

    store = Database.open(postgres_url)
    writer = LogWriter(store)
    writer.write([_noted("ada")])
    writer.write([_noted("ada")])
    with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    written = 2
    for _ in range(2):
        try:
            writer.write([_noted("bob")])
            written += 1
        except MedveilError as error:
            assert isinstance(error, Unavailable)
    assert written >= 3 and _whole(store) == written
    store.close()


def test_a_statement_leaves_its_connection_as_it_was(either: Database) -> None:
    """A pooled connection that ran one statement runs whole transactions again, and undoes them."""
    for _ in range(10):
        assert either.statement("SELECT 1") == [(1,)]
    with pytest.raises(RuntimeError), either.transaction() as connection:
        connection.execute(mark.update().values(owner="never"))
        raise RuntimeError
    with either.reading() as connection:
        assert connection.execute(sa.select(mark.c.owner)).scalar_one() == ""


def _ready(store: Database) -> LogWriter:
    """A writer that has written, on a quick disk."""
    writer = LogWriter(store)
    for _ in range(2):
        writer.write([_noted("ada")])
    writer._took.append(0.0)
    return writer


@pytest.fixture
def any_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy this machine is, its disk counts as quick."""
    monkeypatch.setattr(log_writer, "_SLOW_SECONDS", 60.0)


def test_at_once_it_writes_what_a_thread_would(tmp_path: Path, any_disk: None) -> None:
    store = Database.open(f"sqlite:///{tmp_path}/s.sqlite")
    writer = _ready(store)
    for count in (1, 5, 100):
        assert writer.write_at_once([_noted("bob", count), _noted("eve")])
    writer.write([_noted("ada")])
    assert writer.write_at_once([_noted("bob")])
    assert _whole(store) == 2 + 106 + 3 + 2
    with store.transaction() as connection:
        security_log.append_all(connection, _noted("slow"))
    assert not writer.write_at_once([_noted("late")]), "somebody appended: the thread looks where the chain stands"
    assert not writer.write_at_once([_noted("late")])
    writer.write([_noted("late")])
    assert writer.write_at_once([_noted("bob")]) and _whole(store) == 116
    store.close()


def test_at_once_it_waits_for_no_other_writer(tmp_path: Path, any_disk: None) -> None:
    store = Database.open(f"sqlite:///{tmp_path}/s.sqlite")
    writer = _ready(store)
    other = sqlite3.connect(tmp_path / "s.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    assert not writer.write_at_once([_noted("bob")])
    other.execute("ROLLBACK")
    other.close()
    writer.write([_noted("ada")])
    with store.transaction():  # of another thread, as far as the writer knows
        assert not writer.write_at_once([_noted("bob")])
    assert time.monotonic() - began < 2  # seconds of patience are `write`'s
    assert _whole(store) == 3
    store.close()


def test_a_slow_disk_is_a_threads_matter_until_it_is_quick_again(tmp_path: Path) -> None:
    store = Database.open(f"sqlite:///{tmp_path}/s.sqlite")
    writer = _ready(store)
    writer._took.extend([0.01] * 4)
    assert not writer.write_at_once([_noted("bob")])
    writer._took.append(0.0001)
    assert writer.write_at_once([_noted("bob")])
    assert not LogWriter(store).write_at_once([_noted("bob")]), "nothing is known yet"
    store.close()


@pytest.mark.postgres
def test_a_server_is_a_threads_matter(postgres_url: str) -> None:
    store = Database.open(postgres_url)
    assert not _ready(store).write_at_once([_noted("bob")])
    assert _whole(store) == 2
    store.close()


def test_the_journal_does_not_grow_however_long_the_loop_writes(tmp_path: Path, any_disk: None) -> None:
    store = Database.open(f"sqlite:///{tmp_path}/s.sqlite")

    async def main() -> None:
        trail = SecurityTrail(store, lambda: 1)
        for n in range(3000):
            await trail.note("person:ada", "use.decided", f"{n}")
        await trail.close()

    asyncio.run(main())
    assert _whole(store) == 3000
    assert (tmp_path / "s.sqlite-wal").stat().st_size < 16 * 1024 * 1024
    store.close()
