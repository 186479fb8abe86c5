"""The position of each row goes through snapshots, whatever is erased; and snapshots of before had none."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest

from privacy.copies import snapshots as module
from privacy.copies.snapshots import KIND, SnapshotIndex, Snapshots
from privacy.vault import Vault
from wire.canonical import decode
from wire.errors import Refused


@pytest.fixture
def snaps(vault: Vault, tmp_path: Path) -> Snapshots:
    return Snapshots(vault, tmp_path / "snapshots")


def files(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "snapshots").glob("*")}


def index_of(vault: Vault) -> SnapshotIndex:
    return decode(SnapshotIndex, vault.document(KIND, "claims-1"))


def many(count: int, people: int) -> tuple[pa.Table, list[str]]:
    draw = random.Random(count)
    names = [f"person-{draw.randrange(people)}" for _ in range(count)]
    return pa.table({"visits": list(range(count)), "health": [f"h{number % 5}" for number in range(count)]}), names


def test_each_row_keeps_its_position(vault: Vault, snaps: Snapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART_ROWS", 4)
    table, names = many(10, 3)
    vault.ingest("claims-1", table, names)
    snaps.refresh("claims-1")
    gone = names[1]
    vault.destroy([key.key for key in vault.keys_of(gone)], bytes(32))
    vault.ingest("claims-1", table.slice(0, 2), names[:2], append=True)
    left = [place for place, name in enumerate([*names, *names[:2]]) if name != gone or place > 9]
    for read in (snaps.table, vault.read):
        found = read("claims-1", position_column="place")
        assert found["place"].to_pylist() == left
        assert found["visits"].to_pylist() == [place % 10 for place in left]
    vault.ingest("claims-1", table, names, replace=True)
    assert snaps.table("claims-1", position_column="place")["place"].to_pylist() == list(range(12, 22))


def test_one_without_positions_is_made_anew(
    vault: Vault, snaps: Snapshots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, names = many(10, 3)
    vault.ingest("claims-1", table, names)
    keys = {key.key for key in vault.data_keys("claims-1")}
    read, beside = Snapshots._read, module._BESIDE
    with monkeypatch.context() as older:
        older.setattr(module, "VERSION", 1)
        older.setattr(module, "_BESIDE", beside[:3])
        older.setattr(Snapshots, "_read", lambda self, *given: read(self, *given).drop_columns([module.POSITION]))
        snaps.refresh("claims-1")
    before = files(tmp_path)
    assert index_of(vault).version == 1 and snaps.data_keys("claims-1") == keys
    with pytest.raises(Refused) as raised:
        snaps.read("claims-1")
    assert raised.value.code == "snapshots.none"
    assert snaps.table("claims-1", position_column="place")["place"].to_pylist() == list(range(10))
    assert index_of(vault).version == 2 and not before & files(tmp_path)
