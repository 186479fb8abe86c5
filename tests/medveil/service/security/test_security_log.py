"""The security log: chained, append-only on both engines, and a cut end shows against a kept head."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from medveil.service.database import Database
from medveil.service.security import security_log
from wire.errors import VerificationError


def _fill(store: Database, number: int = 5) -> None:
    for n in range(number):
        with store.transaction() as connection:
            security_log.append(connection, 1000 + n, "person:ada", "people.added", f"p{n}", "people.manage")


def test_entries_come_back_newest_first_and_the_chain_holds(either: Database) -> None:
    _fill(either)
    with either.reading() as connection:
        entries = security_log.read(connection, limit=2)
        assert [entry.sequence for entry in entries] == [5, 4] and entries[0].subject == "p4"
        assert [entry.sequence for entry in security_log.read(connection, before=3)] == [2, 1]
        assert security_log.verify(connection, security_log.head(connection)) == 5


def test_an_entry_of_a_transaction_that_fails_is_not_there(either: Database) -> None:
    with pytest.raises(RuntimeError), either.transaction() as connection:
        security_log.append(connection, 1, "-", "denied")
        raise RuntimeError
    with either.reading() as connection:
        assert security_log.head(connection) == (0, bytes(32))


@pytest.mark.parametrize("statement", ["UPDATE security_log SET actor = 'x'", "DELETE FROM security_log"])
def test_the_database_refuses_to_change_or_delete(either: Database, statement: str) -> None:
    _fill(either, 1)
    with pytest.raises(ValueError), either.transaction() as connection:
        connection.execute(sa.text(statement))


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE security_log SET actor = 'person:eve' WHERE sequence = 3",
        "UPDATE security_log SET at = at + 1 WHERE sequence = 5",
        "DELETE FROM security_log WHERE sequence = 3",
        "DELETE FROM security_log WHERE sequence = 1",
        "DELETE FROM security_log WHERE sequence = 5",
    ],
)
def test_a_change_made_in_the_file_itself_shows(tmp_path: Path, change: str) -> None:
    store = Database.open(f"sqlite:///{tmp_path}/s.sqlite")
    _fill(store)
    with store.reading() as connection:
        kept = security_log.head(connection)
    store.close()
    db = sqlite3.connect(tmp_path / "s.sqlite")
    for name in ("update", "delete"):
        db.execute(f"DROP TRIGGER security_log_no_{name}")
    db.execute(change)
    db.commit()
    db.close()
    again = Database.open(f"sqlite:///{tmp_path}/s.sqlite")
    with again.reading() as connection, pytest.raises(VerificationError):
        security_log.verify(connection, kept)
    again.close()
