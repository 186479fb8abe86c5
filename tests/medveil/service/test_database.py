"""The store: whose data, which version, one writer, what survives a crash, and what an error may say."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine.interfaces import CacheStats

from medveil.service import database as module
from medveil.service.database import SERVICE, Database, Schema, mark, restore
from privacy.store import engine, sqlite_file
from privacy.store.engine import _trust
from wire.errors import DecodeError, MedveilError, Refused, Unavailable

OLD = sa.MetaData()
NEW = sa.MetaData()
things = sa.Table("things", OLD, sa.Column("name", sa.Text, primary_key=True))
new_things = sa.Table(
    "things", NEW, sa.Column("name", sa.Text, primary_key=True), sa.Column("weight", sa.Integer, nullable=True)
)


def _to_2(connection: sa.Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE things ADD COLUMN weight INTEGER")
    connection.exec_driver_sql("UPDATE things SET weight = 7")


VERSION_1 = Schema(version=1, tables=OLD, parts=())
VERSION_2 = Schema(version=2, tables=NEW, steps={1: _to_2}, parts=())


class _Crash(BaseException):
    pass


def _at(place: str) -> Callable[[str], None]:
    def fault(reached: str) -> None:
        if reached == place:
            raise _Crash

    return fault


def _url(folder: Path) -> str:
    return f"sqlite:///{folder}/service.sqlite"


def _filled(url: str) -> None:
    store = Database.open(url, schema=VERSION_1)
    with store.transaction() as connection:
        connection.execute(things.insert().values(name="kept"))
    store.close()


def _code(raised: pytest.ExceptionInfo[MedveilError]) -> str:
    return raised.value.code


def test_a_new_file_is_durable_wal_its_owners_alone_and_has_every_table(tmp_path: Path) -> None:
    store = Database.open(_url(tmp_path), owner="hospital-a@chain")
    with store.reading() as connection:
        pragmas = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
        assert pragmas == ["wal", 2, 1]
        assert set(module.metadata.tables) <= set(sa.inspect(connection).get_table_names())
    for file in tmp_path.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file
    store.close()
    again = Database.open(_url(tmp_path), owner="hospital-a@chain")
    again.check()
    again.close()


def test_another_owners_data_is_refused(tmp_path: Path) -> None:
    Database.open(_url(tmp_path), owner="hospital-a@chain").close()
    with pytest.raises(Refused) as raised:
        Database.open(_url(tmp_path), owner="hospital-b@chain")
    assert _code(raised) == "database.other_owner"


def test_a_transaction_is_whole_or_nothing(either: Database) -> None:
    with pytest.raises(_Crash), either.transaction() as connection:
        connection.execute(mark.update().values(owner="half"))
        raise _Crash
    with either.reading() as connection:
        assert connection.execute(sa.select(mark.c.owner)).scalar_one() == ""
    with either.transaction() as connection:
        connection.execute(mark.update().values(owner="whole"))
    with either.reading() as connection:
        assert connection.execute(sa.select(mark.c.owner)).scalar_one() == "whole"


def test_one_writer_at_a_time_so_that_nothing_is_lost(either: Database) -> None:
    """Look, then write: without the lock, two threads would both read the old number."""
    with either.transaction() as connection:
        connection.execute(mark.update().values(owner="0"))

    def count() -> None:
        for _ in range(25):
            with either.transaction() as connection:
                number = int(connection.execute(sa.select(mark.c.owner)).scalar_one())
                connection.execute(mark.update().values(owner=str(number + 1)))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with either.reading() as connection:
        assert connection.execute(sa.select(mark.c.owner)).scalar_one() == "100"


def test_a_reader_sees_one_state_whatever_is_written(either: Database) -> None:
    with either.reading() as reader:
        before = reader.execute(sa.select(mark.c.owner)).scalar_one()
        with either.transaction() as writer:
            writer.execute(mark.update().values(owner="later"))
        assert reader.execute(sa.select(mark.c.owner)).scalar_one() == before


def test_a_store_that_stays_locked_is_busy_not_an_error_of_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BUSY_SECONDS", 0.05)
    store = Database.open(_url(tmp_path))
    other = sqlite3.connect(tmp_path / "service.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable) as raised, store.transaction():
        pass
    assert _code(raised) == "database.busy" and raised.value.retry_after == 1
    other.execute("ROLLBACK")
    with store.transaction():
        pass
    other.close()
    store.close()


def test_a_full_disk_is_said_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    _filled(_url(tmp_path))
    store = Database.open(_url(tmp_path), schema=VERSION_1)
    with pytest.raises(Unavailable) as raised, store.transaction() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        for number in range(1000):
            connection.execute(things.insert().values(name=f"{number:0200}"))
    assert _code(raised) == "database.full"
    with store.reading() as connection:
        assert connection.execute(sa.select(things.c.name)).scalars().all() == ["kept"]
    store.close()


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("text", "database.other_application"),
        ("other application", "database.other_application"),
        ("somebody's tables", "database.other_application"),
        ("newer", "database.newer"),
        ("a table is gone", "database.damaged"),
        ("overwritten page", "database.damaged"),
    ],
)
def test_a_file_that_is_not_ours_or_not_whole_is_refused_and_left_as_it_is(
    tmp_path: Path, fault: str, code: str
) -> None:
    path = tmp_path / "service.sqlite"
    if fault == "text":
        path.write_text("a letter, and no database at all\n" * 200)
    elif fault in ("other application", "somebody's tables"):
        db = sqlite3.connect(path)
        db.execute("CREATE TABLE letters (a)")
        if fault == "other application":
            db.execute("PRAGMA application_id = 99")
        db.commit()
        db.close()
    else:
        Database.open(_url(tmp_path)).close()
        db = sqlite3.connect(path)
        if fault == "newer":
            db.execute("UPDATE medveil_data SET version = 99")
        elif fault == "a table is gone":
            db.execute("DROP TABLE security_log")
        db.commit()
        db.execute("PRAGMA journal_mode=DELETE")
        db.close()
        if fault == "overwritten page":
            data = bytearray(path.read_bytes())
            data[100:200] = b"\xff" * 100
            path.write_bytes(data)
    before = path.read_bytes()
    with pytest.raises(DecodeError) as raised:
        Database.open(_url(tmp_path))
    assert _code(raised) == code
    if code == "database.other_application":
        assert path.read_bytes() == before


@pytest.mark.parametrize("place", ["create:begun", "create:written"])
def test_a_creation_that_crashes_is_made_again(tmp_path: Path, place: str) -> None:
    with pytest.raises(_Crash):
        Database.open(_url(tmp_path), schema=VERSION_1, fault=_at(place))
    _filled(_url(tmp_path))


@pytest.mark.parametrize("place", ["", "migrate:copied", "migrate:begun", "migrate:written", "migrate:committed"])
def test_a_migration_is_backed_up_whole_and_survives_a_crash_anywhere(tmp_path: Path, place: str) -> None:
    _filled(_url(tmp_path))
    if place:
        with pytest.raises(_Crash):
            Database.open(_url(tmp_path), schema=VERSION_2, fault=_at(place))
    store = Database.open(_url(tmp_path), schema=VERSION_2)
    with store.reading() as connection:
        assert connection.execute(sa.select(new_things)).all() == [("kept", 7)]
        assert connection.execute(sa.select(mark.c.version)).scalar_one() == 2
    store.close()
    copy = sqlite3.connect(tmp_path / "service.sqlite.version-1")
    assert copy.execute("SELECT * FROM things").fetchall() == [("kept",)]
    copy.close()
    with pytest.raises(DecodeError) as raised:
        Database.open(_url(tmp_path), schema=VERSION_1)
    assert _code(raised) == "database.newer"


def test_a_version_with_no_way_on_is_refused(tmp_path: Path) -> None:
    _filled(_url(tmp_path))
    with pytest.raises(DecodeError) as raised:
        Database.open(_url(tmp_path), schema=Schema(version=3, steps={1: _to_2}, tables=NEW, parts=()))
    assert _code(raised) == "database.too_old"


def test_a_backup_is_whole_while_the_store_is_written_and_comes_back(tmp_path: Path) -> None:
    store = Database.open(_url(tmp_path))
    with store.transaction() as connection:
        connection.execute(mark.update().values(owner="before"))
    copy = tmp_path / "copy.sqlite"
    with store.reading():
        store.backup(copy)
    assert copy.stat().st_mode & 0o077 == 0
    with pytest.raises(Refused):
        store.backup(copy)
    with store.transaction() as connection:
        connection.execute(mark.update().values(owner="after"))
    target = tmp_path / "service.sqlite"
    with pytest.raises(Refused):
        restore(copy, target)
    with pytest.raises(Unavailable):  # the store is still open
        restore(copy, target, replace=True)
    store.close()
    restore(copy, target, replace=True)
    again = Database.open(_url(tmp_path), owner="before")
    again.close()
    assert (tmp_path / "service.sqlite.before-restore").exists()


def test_the_journal_of_a_killed_process_is_not_replayed_into_a_restored_file(tmp_path: Path) -> None:
    store = Database.open(_url(tmp_path))
    store.backup(tmp_path / "copy.sqlite")
    with store.transaction() as connection:
        connection.execute(mark.update().values(owner="after"))
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for file in tmp_path.glob("service.sqlite*"):  # as kill -9 leaves them
        (crashed / file.name).write_bytes(file.read_bytes())
    assert (crashed / "service.sqlite-wal").stat().st_size > 0
    store.close()
    restore(tmp_path / "copy.sqlite", crashed / "service.sqlite", replace=True)
    again = Database.open(_url(crashed))
    with again.reading() as connection:
        assert connection.execute(sa.select(mark.c.owner)).scalar_one() == ""
    again.close()


def test_a_damaged_file_is_put_aside_and_replaced(tmp_path: Path) -> None:
    store = Database.open(_url(tmp_path))
    store.backup(tmp_path / "copy.sqlite")
    store.close()
    (tmp_path / "service.sqlite").write_bytes(b"ruined" * 1000)
    (tmp_path / "service.sqlite-wal").write_bytes(b"ruined too")
    restore(tmp_path / "copy.sqlite", tmp_path / "service.sqlite", replace=True)
    assert not (tmp_path / "service.sqlite-wal").exists()
    Database.open(_url(tmp_path)).close()
    assert (tmp_path / "service.sqlite.before-restore").read_bytes() == b"ruined" * 1000


@pytest.mark.parametrize("fault", ["gone", "text", "other", "torn"])
def test_what_is_no_sound_backup_is_not_restored(tmp_path: Path, fault: str) -> None:
    copy = tmp_path / "copy.sqlite"
    if fault == "text":
        copy.write_text("nothing of the kind" * 500)
    elif fault == "other":
        sqlite3.connect(copy).execute("CREATE TABLE letters (a)").connection.close()
    elif fault == "torn":
        store = Database.open(_url(tmp_path))
        store.backup(copy)
        store.close()
        data = bytearray(copy.read_bytes())
        data[4096 * 2 :] = b"\x00" * len(data[4096 * 2 :])
        copy.write_bytes(data)
    with pytest.raises(DecodeError):
        restore(copy, tmp_path / "target.sqlite")
    with pytest.raises(DecodeError):  # nor copied, as for a backup
        sqlite_file.copy(copy, tmp_path / "target.sqlite", SERVICE.file)
    assert not (tmp_path / "target.sqlite").exists()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense with hunter2-secret",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:x?uri=true&mode=memory",
        "mysql://me:hunter2-secret@localhost/x",
        "postgresql+psycopg2://me:hunter2-secret@localhost/x",
        "postgresql+psycopg://me:hunter2-secret@localhost",
    ],
)
def test_an_address_that_is_not_known_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(Refused) as raised:
        Database.open(url)
    assert _code(raised) == "database.url"
    assert "hunter2" not in f"{raised.value}{raised.value!r}{raised.value.text('zh')}"


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("postgresql+psycopg://me@db.example/medveil", "verify-full"),
        ("postgresql+psycopg://me@192.0.2.7/medveil", "verify-full"),
        ("postgresql+psycopg://me@db.example/medveil?sslmode=require", None),
        ("postgresql+psycopg://me@/medveil?host=/run/postgresql", None),
        ("postgresql+psycopg://me@127.0.0.1/medveil", None),
    ],
)
def test_a_database_on_another_machine_is_reached_by_checked_tls(url: str, mode: str | None) -> None:
    assert _trust(sa.make_url(url)).get("sslmode") == mode


def test_a_folder_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as raised:
        Database.open(_url(tmp_path / "nowhere"))
    assert _code(raised) == "database.unreachable"


def test_no_error_holds_a_statement_or_a_parameter(either: Database) -> None:
    with pytest.raises(ValueError) as raised, either.transaction() as connection:
        connection.execute(mark.insert().values(one=1, application="hunter2-secret", version=1, owner=""))
    assert "hunter2" not in str(raised.value)
    assert raised.value.__cause__ is None and raised.value.__suppress_context__


@pytest.mark.postgres
def test_a_postgresql_password_is_never_shown(postgres_server: str) -> None:
    url = f"postgresql+psycopg://nobody:hunter2-secret@/nowhere?host={postgres_server}&password=hunter2-secret"
    with pytest.raises(Unavailable) as raised:
        Database.open(url)
    assert "hunter2" not in f"{raised.value}{raised.value!r}" and _code(raised) == "database.unreachable"


@pytest.mark.postgres
def test_older_postgresql_data_needs_the_operators_word(postgres_url: str) -> None:
    _filled(postgres_url)
    with pytest.raises(Refused) as raised:
        Database.open(postgres_url, schema=VERSION_2)
    assert _code(raised) == "database.no_backup"
    for place in ("migrate:begun", "migrate:written"):
        with pytest.raises(_Crash):
            Database.open(postgres_url, schema=VERSION_2, backed_up=True, fault=_at(place))
    store = Database.open(postgres_url, schema=VERSION_2, backed_up=True)
    with store.reading() as connection:
        assert connection.execute(sa.select(new_things)).all() == [("kept", 7)]
    with pytest.raises(Refused):
        store.backup(Path("copy"))
    store.close()
    with pytest.raises(DecodeError) as newer:
        Database.open(postgres_url, schema=VERSION_1)
    assert _code(newer) == "database.newer"


@pytest.mark.postgres
def test_another_applications_postgresql_database_is_refused(postgres_url: str) -> None:
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE letters (a INTEGER)")
    engine.dispose()
    with pytest.raises(DecodeError) as raised:
        Database.open(postgres_url)
    assert _code(raised) == "database.other_application"


@pytest.mark.postgres
def test_a_connection_that_the_server_ends_is_unavailable_and_the_next_one_works(postgres_url: str) -> None:
    store = Database.open(postgres_url)
    with pytest.raises(Unavailable) as raised, store.transaction() as connection:
        number = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        engine = sa.create_engine(postgres_url)
        with engine.begin() as other:
            other.exec_driver_sql(f"SELECT pg_terminate_backend({number})")
        engine.dispose()
        connection.execute(sa.select(mark)).all()
    assert _code(raised) == "database.unreachable"
    store.check()
    store.close()


@pytest.mark.postgres
def test_a_reading_transaction_of_postgresql_cannot_write(postgres_url: str) -> None:
    store = Database.open(postgres_url)
    with pytest.raises(ValueError), store.reading() as connection:
        connection.execute(mark.update().values(owner="no"))
    store.close()


def test_every_file_is_as_its_tables_make_it(tmp_path: Path) -> None:
    made = sa.create_engine(f"sqlite:///{tmp_path}/made.sqlite")
    with made.begin() as connection:
        module.metadata.create_all(connection)
        mark.create(connection)
    made.dispose()
    for name in ("one", "two"):
        Database.open(f"sqlite:///{tmp_path}/{name}.sqlite").close()

    def whole(name: str) -> list[str]:
        with contextlib.closing(sqlite3.connect(tmp_path / f"{name}.sqlite")) as db:
            return [line for line in db.iterdump() if "medveil_data" not in line]

    assert whole("one") == whole("two") == whole("made")
    assert any("TRIGGER" in line for line in whole("two")) and any("INSERT" in line for line in whole("two"))


def test_a_statement_is_compiled_once_for_all_files(tmp_path: Path) -> None:
    stores = [Database.open(f"sqlite:///{tmp_path}/{name}.sqlite", owner=name) for name in ("one", "two", "three")]
    for number, store in enumerate(stores):
        with store.reading() as connection:
            said = connection.execute(sa.select(mark.c.owner, sa.literal(number).label("asked")))
            assert said.one() == (("one", "two", "three")[number], number)
            assert (said.context.cache_hit is CacheStats.CACHE_HIT) == (number > 0)
        store.close()
