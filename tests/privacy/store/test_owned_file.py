"""One SQLite file owned by one process: durable settings, versions, disks that fail."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from privacy.store import Store
from wire.errors import DecodeError, Refused, Unavailable

SCHEMA = "CREATE TABLE t (a INTEGER) STRICT; CREATE TABLE u (b BLOB) STRICT"


def opened(path: Path, version: int = 1, create: bool | None = None) -> Store:
    return Store(path, b"test", SCHEMA, version, create)


def test_every_commit_is_on_disk_and_deleted_content_is_overwritten(tmp_path: Path) -> None:
    store = opened(tmp_path / "s")
    pragmas = {name: store.rows(f"PRAGMA {name}")[0][0] for name in ("synchronous", "secure_delete", "journal_mode")}
    assert pragmas == {"synchronous": 2, "secure_delete": 1, "journal_mode": "wal"}
    store.close()


def test_an_aborted_transaction_changes_nothing(tmp_path: Path) -> None:
    store = opened(tmp_path / "s")
    with pytest.raises(RuntimeError), store.transaction() as database:
        database.execute("INSERT INTO t VALUES (1)")
        raise RuntimeError
    assert store.rows("SELECT * FROM t") == []
    store.close()


def test_reopening_keeps_content(tmp_path: Path) -> None:
    store = opened(tmp_path / "s")
    with store.transaction() as database:
        database.execute("INSERT INTO t VALUES (1)")
    store.close()
    store.close()
    store = opened(tmp_path / "s", create=False)
    assert store.rows("SELECT * FROM t") == [(1,)]
    store.close()
    with pytest.raises(ValueError, match="closed"):
        store.rows("SELECT * FROM t")


def test_an_interrupted_creation_does_not_block_the_next(tmp_path: Path) -> None:
    (tmp_path / "s").touch()
    store = opened(tmp_path / "s", create=True)
    assert store.rows("SELECT * FROM t") == []
    store.close()


def test_what_one_thread_opened_another_closes(tmp_path: Path) -> None:
    """Its lock, too: else nobody in this process could open it again."""
    with ThreadPoolExecutor(1) as other:
        store = other.submit(opened, tmp_path / "s").result()
    store.close()
    opened(tmp_path / "s", create=False).close()


def test_newer_other_and_damaged_files(tmp_path: Path) -> None:
    opened(tmp_path / "s", version=2).close()
    with pytest.raises(Refused) as refused:
        opened(tmp_path / "s", version=1)
    assert refused.value.code == "privacy.store_newer"
    with pytest.raises(DecodeError):
        opened(tmp_path / "s", version=3)
    with pytest.raises(DecodeError):
        Store(tmp_path / "s", b"othr", SCHEMA, 2, None)
    with sqlite3.connect(tmp_path / "foreign") as database:
        database.execute("CREATE TABLE x (y)")
    database.close()
    with pytest.raises(DecodeError):
        opened(tmp_path / "foreign")
    (tmp_path / "text").write_text("this is not a database, whatever its name says" * 100)
    with pytest.raises(DecodeError):
        opened(tmp_path / "text")
    opened(tmp_path / "s", version=2).close()  # no failed opening kept the lock


def test_a_full_disk_is_unavailable_and_nothing_is_half_written(tmp_path: Path) -> None:
    store = opened(tmp_path / "s")
    store.rows("PRAGMA max_page_count = 8")
    with pytest.raises(Unavailable) as raised, store.transaction() as database:
        for _ in range(1000):
            database.execute("INSERT INTO u VALUES (?)", (bytes(1000),))
    assert raised.value.facts["reason"] == "SQLITE_FULL"
    assert store.rows("SELECT COUNT(*) FROM u") == [(0,)]
    store.close()


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable):
        opened(tmp_path / "file" / "s")
    (tmp_path / "folder").mkdir()
    with pytest.raises(Unavailable):
        opened(tmp_path / "folder")
    with pytest.raises(Unavailable) as raised:
        opened(tmp_path / "none", create=False)
    assert raised.value.code == "privacy.store_missing"
