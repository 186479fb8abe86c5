"""Data of an older version is backed up and migrated; what cannot be is left as it was."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger.contracts import AnchorGrant
from ledger.engines import EmbeddedEngine
from ledger.engines.migration import DATA_VERSION
from wire.errors import DecodeError, MedveilError, Unavailable

Old = Callable[[Any, Path], None]


def grown(world: Any, blocks: int = 5) -> Any:
    for number in range(blocks):
        world.act("hospital-1", AnchorGrant(f"g{number}", bytes(32), world.start, world.start + 10**9, 0))
    return world


async def opened(world: Any, path: Path) -> EmbeddedEngine:
    return await EmbeddedEngine.open(path, world.founding, world.signer("bureau", "cosign"), lambda: world.time)


def version(path: Path) -> int:
    db = sqlite3.connect(path)
    (found,) = db.execute("PRAGMA user_version").fetchone()
    db.close()
    return int(found)


def open_and_close(world: Any, path: Path) -> bytes:
    async def test() -> bytes:
        engine = await opened(world, path)
        await engine.close()
        return engine.machine.log.root()

    return asyncio.run(test())


def test_version_1_becomes_the_present_one(world: Any, version_1: Old, tmp_path: Path) -> None:
    path, backup = tmp_path / "ledger.sqlite", tmp_path / "ledger.sqlite.version-1"
    version_1(grown(world), path)
    assert version(path) == 1
    assert open_and_close(world, path) == world.machine.log.root()
    assert (version(path), version(backup)) == (DATA_VERSION, 1)
    kept = backup.read_bytes()
    assert open_and_close(world, path) == world.machine.log.root()
    assert backup.read_bytes() == kept  # made once
    backup.rename(tmp_path / "again.sqlite")  # a backup is a whole ledger of its version
    assert open_and_close(world, tmp_path / "again.sqlite") == world.machine.log.root()


def test_migrated_and_new_data_are_alike(world: Any, version_1: Old, tmp_path: Path) -> None:
    version_1(grown(world), tmp_path / "old")
    open_and_close(world, tmp_path / "old")
    old = sqlite3.connect(tmp_path / "old")
    tables = "SELECT type, name, sql FROM sqlite_master ORDER BY name"
    found = old.execute(tables).fetchall()
    assert old.execute("SELECT count(*) FROM times").fetchone() == (5,)
    words = {what for (what,) in old.execute("SELECT what FROM activity")}
    assert words == {"sender/hospital-1", "kind/grants", "kind/grants.anchor"}
    old.close()
    open_and_close(world, tmp_path / "new")
    new = sqlite3.connect(tmp_path / "new")
    assert new.execute(tables).fetchall() == found
    new.close()


@pytest.mark.parametrize("number", [-1, 0, DATA_VERSION + 1, 99])
def test_an_unknown_version_is_left_alone(world: Any, version_1: Old, tmp_path: Path, number: int) -> None:
    path = tmp_path / "ledger.sqlite"
    version_1(grown(world), path)
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version={number}")
    db.close()
    before = path.read_bytes()
    with pytest.raises(DecodeError) as caught:
        open_and_close(world, path)
    assert caught.value.code == "ledger.data_version" and path.read_bytes() == before
    assert not (tmp_path / "ledger.sqlite.version-1").exists()


@pytest.mark.parametrize("statement", ["UPDATE blocks SET block = x'00' WHERE height = 3", "DROP TABLE blocks"])
def test_damaged_old_data_stays_as_it_was(world: Any, version_1: Old, tmp_path: Path, statement: str) -> None:
    path = tmp_path / "ledger.sqlite"
    version_1(grown(world), path)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(statement)
    db.close()
    with pytest.raises(MedveilError):
        open_and_close(world, path)
    assert version(path) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE genesis SET founding = x'00'",
        "DELETE FROM genesis",
        "UPDATE blocks SET block = 'text' WHERE height = 3",
        "UPDATE blocks SET block = 5 WHERE height = 3",
        "UPDATE blocks SET note = 'text' WHERE height = 3",
        "UPDATE blocks SET results = (SELECT results FROM blocks WHERE height = 2) WHERE height = 3",
        "UPDATE blocks SET block = (SELECT block FROM blocks WHERE height = 2) WHERE height = 3",
        "UPDATE blocks SET note = (SELECT note FROM blocks WHERE height = 2) WHERE height = 3",
    ],
)
def test_old_data_that_does_not_replay_says_so_and_stays(
    world: Any, version_1: Old, tmp_path: Path, statement: str
) -> None:
    """Damaged, or of a time when this version was encoded otherwise."""
    path = tmp_path / "ledger.sqlite"
    version_1(grown(world), path)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(statement)
    db.close()
    with pytest.raises(DecodeError) as caught:
        open_and_close(world, path)
    assert caught.value.code == "ledger.old_data" and caught.value.facts["version"] == 1
    assert version(path) == 1 and not (tmp_path / "ledger.sqlite.version-1").exists()


def test_another_consortiums_old_data_is_not_touched(
    world: Any, make_world: Callable[[], Any], version_1: Old, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.sqlite"
    other = make_world()
    other.founding = msgspec.structs.replace(other.founding, chain="other-chain")
    version_1(other, path)
    with pytest.raises(DecodeError) as caught:
        open_and_close(world, path)
    assert caught.value.code == "ledger.other_data" and version(path) == 1


def test_no_backup_no_migration(world: Any, version_1: Old, tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    version_1(grown(world), path)
    (tmp_path / "ledger.sqlite.version-1").mkdir()  # in the way
    (tmp_path / "ledger.sqlite.version-1" / "x").touch()
    with pytest.raises(Unavailable):
        open_and_close(world, path)
    assert version(path) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM activity WHERE what = 'sender/hospital-1' AND height = 2",
        "INSERT INTO activity VALUES ('sender/insurer', 2)",
        "UPDATE times SET time = time - 1 WHERE height = 2",
        "DROP TABLE times",
    ],
)
def test_an_altered_index_is_found_on_opening(world: Any, version_1: Old, tmp_path: Path, statement: str) -> None:
    path = tmp_path / "ledger.sqlite"
    version_1(grown(world), path)
    open_and_close(world, path)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(statement)
    db.close()
    with pytest.raises((DecodeError, Unavailable)):
        open_and_close(world, path)
