"""The trail's file: an older one is brought forward with a copy beside it, and its entries stay what they were."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from privacy.audit import AuditTrail, Use
from privacy.audit.file import APPLICATION
from privacy.audit.views import of_recipient
from wire.errors import DecodeError, MedveilError, Refused


def older(path: Path, version: int = 1) -> None:
    """As version 1 wrote it: no index, no notes, nothing pruned; or as version 2: no nonces in the index."""
    with sqlite3.connect(path) as database:
        if version == 1:
            for table in ("uses", "touched", "pruned"):
                database.execute(f"DROP TABLE {table}")
        else:
            database.execute("DROP INDEX uses_by_nonce")
            database.execute("ALTER TABLE uses DROP COLUMN nonce")
        database.execute(f"PRAGMA user_version = {version}")
    database.close()


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_file_is_brought_forward(
    version: int, trail: AuditTrail, use: Use, reopen: Callable[[], AuditTrail], tmp_path: Path
) -> None:
    trail.outcome(trail.intent(use), "released")
    batch = trail.batch()
    assert batch is not None
    trail.anchored(batch)
    trail.intent(use)
    entries = trail.entries()
    trail.close()
    path = tmp_path / "audit.sqlite"
    older(path, version)
    before = shutil.copy(path, tmp_path / "before.sqlite")
    with reopen() as again:
        assert again.entries() == entries and again.batches() == (batch,)
        assert [seen.intent.sequence for seen in of_recipient(again, "university")] == [1, 3]
        assert [again.intents("nonce", entries[place].nonce) for place in (0, 2)] == [(entries[0],), (entries[2],)]
        assert again.intents("nonce", entries[1].nonce) == (), "an outcome is not an intent"
        again.verify()
        again.intent(use, persons=[b"w" * 16])
    kept = tmp_path / f"audit.sqlite.v{version}"
    assert kept.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(kept) as old, sqlite3.connect(before) as new:
        assert list(old.iterdump()) == list(new.iterdump())
    old.close()
    new.close()
    with reopen() as again:
        assert again.last == 4


def test_a_damaged_older_file_stays_as_it_is(
    trail: AuditTrail, use: Use, reopen: Callable[[], AuditTrail], tmp_path: Path
) -> None:
    trail.intent(use)
    trail.close()
    path = tmp_path / "audit.sqlite"
    older(path)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE entries SET entry = x'00'")
    database.close()
    for _ in range(2):
        with pytest.raises(MedveilError):
            reopen()
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (1,)
        assert database.execute("SELECT COUNT(*) FROM sqlite_schema WHERE name = 'uses'").fetchone() == (0,)
    database.close()


@pytest.mark.parametrize(("version", "kind"), [(0, DecodeError), (4, Refused)])
def test_versions_that_nobody_knows(
    version: int, kind: type[MedveilError], trail: AuditTrail, reopen: Callable[[], AuditTrail], tmp_path: Path
) -> None:
    trail.close()
    with sqlite3.connect(tmp_path / "audit.sqlite") as database:
        database.execute(f"PRAGMA user_version = {version}")
        assert database.execute("PRAGMA application_id").fetchone() == (int.from_bytes(APPLICATION, "big"),)
    database.close()
    with pytest.raises(kind):
        reopen()
