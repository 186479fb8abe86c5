"""A member's copy of the blocks: kept in order, of one chain, thrown away rather than believed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger.contracts import AnchorGrant
from ledger.engines.block_copy import BlockCopy
from ledger.machine import Machine
from wire.errors import DecodeError, Unavailable


def grown(world: Any, count: int = 4) -> Any:
    for number in range(count):
        world.act("insurer", AnchorGrant(f"g{number}", bytes(32), world.start, world.start + 10**9, 0))
    return world


def test_kept_and_replayed(world: Any, tmp_path: Path) -> None:
    grown(world)
    note = world.note(())
    copy = BlockCopy(tmp_path / "blocks.sqlite", world.founding)
    assert copy.height == 0
    for block in (*world.blocks[:3], *world.blocks[:2]):  # again is harmless
        copy.append(block, note)
    copy.close()
    again = BlockCopy(tmp_path / "blocks.sqlite", world.founding)
    assert again.height == 3 and again.block(2) == (world.blocks[1], note)
    machine = Machine(world.founding)
    for height in range(1, 4):
        machine.replay(again.block(height)[0])
    again.append(world.blocks[3], note)
    assert again.height == 4
    with pytest.raises(DecodeError):
        again.block(5)
    again.close()


def test_a_gap_is_a_bug_of_the_caller(world: Any, tmp_path: Path) -> None:
    grown(world)
    copy = BlockCopy(tmp_path / "blocks.sqlite", world.founding)
    with pytest.raises(ValueError, match="follow"):
        copy.append(world.blocks[1], world.note(()))
    assert copy.height == 0
    copy.close()


@pytest.mark.parametrize(
    "spoil",
    [
        "UPDATE blocks SET block = x'00' WHERE height = 1",
        "UPDATE blocks SET note = 'text' WHERE height = 1",
        "UPDATE blocks SET block = 7, note = NULL WHERE height = 1",
    ],
    ids=range(3),
)
def test_damage_is_told(world: Any, tmp_path: Path, spoil: str) -> None:
    path = tmp_path / "blocks.sqlite"
    copy = BlockCopy(path, grown(world, 1).founding)
    copy.append(world.blocks[0], world.note(()))
    copy.close()
    database = sqlite3.connect(path, isolation_level=None)
    if "NULL" in spoil:
        database.execute("DROP TABLE blocks")
        database.execute("CREATE TABLE blocks (height INTEGER PRIMARY KEY, block, note)")
        database.execute("INSERT INTO blocks VALUES (1, 7, NULL)")
    else:
        database.execute(spoil)
    database.close()
    again = BlockCopy(path, world.founding)
    with pytest.raises(DecodeError) as caught:
        again.block(1)
    assert caught.value.code == "ledger.damaged"
    again.close()


def test_data_of_others(world: Any, make_world: Callable[[], Any], tmp_path: Path) -> None:
    path = tmp_path / "blocks.sqlite"
    BlockCopy(path, world.founding).close()
    with pytest.raises(DecodeError) as caught:
        BlockCopy(path, msgspec.structs.replace(world.founding, time=world.start + 1))
    assert caught.value.code == "ledger.other_data"
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version=9")
    database.close()
    with pytest.raises(DecodeError) as newer:
        BlockCopy(path, world.founding)
    assert newer.value.code == "ledger.data_version"
    (tmp_path / "junk").write_bytes(b"junk" * 2000)
    with pytest.raises(DecodeError):
        BlockCopy(tmp_path / "junk", world.founding)
    foreign = sqlite3.connect(tmp_path / "foreign")
    foreign.execute("CREATE TABLE x (y)")
    foreign.close()
    with pytest.raises(DecodeError):
        BlockCopy(tmp_path / "foreign", world.founding)
    with pytest.raises(Unavailable):
        BlockCopy(tmp_path / "none" / "x", world.founding)
