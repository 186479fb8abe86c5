"""Opt-outs and snapshots: who is left out of which copy, and that nobody else is."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from privacy.copies import snapshots as module
from privacy.copies.snapshots import KIND, OptedOut, SnapshotIndex, Snapshots
from privacy.grants.opt_outs import ALL
from privacy.suites import SM4_GCM
from privacy.vault import Vault
from wire.canonical import decode
from wire.errors import Refused


def behind(objecting: set[bytes], scope: str = ALL) -> OptedOut:
    """Those who object to all secondary use, or in another scope."""
    return lambda scopes: frozenset(objecting) if scope in scopes else frozenset()


@pytest.fixture
def objecting() -> set[bytes]:
    return set()


@pytest.fixture
def snaps(vault: Vault, tmp_path: Path, objecting: set[bytes]) -> Snapshots:
    return Snapshots(vault, tmp_path / "snapshots", opted_out=behind(objecting))


def files(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "snapshots").glob("*")}


def index_of(vault: Vault) -> SnapshotIndex:
    return decode(SnapshotIndex, vault.document(KIND, "claims-1"))


def same(one: pa.Table, other: pa.Table) -> bool:
    """Cell by cell, NaN and -0.0 as they are."""
    return one.schema == other.schema and repr(one.to_pylist()) == repr(other.to_pylist())


def test_who_objects_is_left_out_until_it_is_withdrawn(
    vault: Vault, snaps: Snapshots, objecting: set[bytes], table: pa.Table, people: list[str]
) -> None:
    vault.ingest("claims-1", table, people)
    assert snaps.table("claims-1", excluded=[ALL]).num_rows == 6
    objecting.add(vault.person_id("wang-wu"))
    assert snaps.table("claims-1", "id", excluded=[ALL])["id"].to_pylist() == ["li-si", "zhao-liu", "li-si"]
    vault.ingest("claims-1", table, people, append=True)
    assert snaps.table("claims-1", excluded=[ALL]).num_rows == 6
    objecting.add(vault.person_id("li-si"))
    assert snaps.table("claims-1", "id", excluded=[ALL])["id"].to_pylist() == ["zhao-liu"] * 2
    objecting.clear()
    assert same(snaps.table("claims-1", "id", excluded=[ALL]), vault.read("claims-1", "id"))


def test_who_objects_and_is_then_erased(
    vault: Vault, snaps: Snapshots, objecting: set[bytes], table: pa.Table, people: list[str]
) -> None:
    vault.ingest("claims-1", table, people)
    objecting.add(vault.person_id("wang-wu"))
    assert snaps.table("claims-1", excluded=[ALL]).num_rows == 3
    vault.destroy([key.key for key in vault.keys_of("wang-wu")], bytes(32))
    assert same(snaps.table("claims-1", "id", excluded=[ALL]), vault.read("claims-1", "id"))
    objecting.add(vault.person_id("li-si"))
    vault.restrict([key.key for key in vault.keys_of("li-si")])
    assert snaps.table("claims-1", "id", excluded=[ALL])["id"].to_pylist() == ["zhao-liu"]


def test_one_who_objects_is_erased_while_another_is_let_go(
    vault: Vault, snaps: Snapshots, objecting: set[bytes], table: pa.Table
) -> None:
    """As many rows go from those left out as come back to the others: the total alone would not tell."""

    def shown() -> list[str]:
        return snaps.table("claims-1", "id", excluded=[ALL])["id"].to_pylist()  # type: ignore[no-any-return]

    vault.ingest("claims-1", table, ["wang", "wang", "li", "li", "zhao", "zhao"])
    objecting.add(vault.person_id("wang"))
    vault.restrict([key.key for key in vault.keys_of("li")])
    assert shown() == ["zhao", "zhao"]
    vault.destroy([key.key for key in vault.keys_of("wang")], bytes(32))
    vault.unrestrict([key.key for key in vault.keys_of("li")])
    assert shown() == ["li", "li", "zhao", "zhao"]


def test_objections_hold_where_there_is_no_snapshot(
    vault: Vault, snaps: Snapshots, objecting: set[bytes], table: pa.Table, people: list[str], tmp_path: Path
) -> None:
    vault.ingest("claims-1", table, people, suites={"health": SM4_GCM})
    assert same(snaps.table("claims-1", "id", "who"), vault.read("claims-1", "id", person_column="who"))
    objecting.add(vault.person_id("wang-wu"))
    assert snaps.table("claims-1", "id", excluded=[ALL])["id"].to_pylist() == ["li-si", "zhao-liu", "li-si"]
    assert files(tmp_path) == set()
    assert snaps.table("claims-1", "id").num_rows == 6
    with pytest.raises(Refused) as raised:
        snaps.refresh("claims-1")
    assert raised.value.code == "snapshots.suite"


def test_a_use_that_no_opt_out_binds_sees_everybody(
    vault: Vault, snaps: Snapshots, objecting: set[bytes], table: pa.Table, people: list[str], tmp_path: Path
) -> None:
    vault.ingest("claims-1", table, people)
    whole = vault.read("claims-1", "id", person_column="who")
    assert same(snaps.table("claims-1", "id", "who"), whole)
    objecting.add(vault.person_id("wang-wu"))
    assert same(snaps.table("claims-1", "id", "who"), whole)
    assert index_of(vault).left_out == tuple(objecting), "it was cut all the same, and did not serve"
    assert snaps.read("claims-1").num_rows == 3
    assert snaps.table("claims-1", excluded=["use:extract"]).num_rows == 6
    assert snaps.table("claims-1", excluded=["use:extract", ALL]).column_names == table.column_names
    objecting.clear()
    assert same(snaps.table("claims-1", "id", "who"), whole)
    assert index_of(vault).left_out == ()


def test_opt_outs_of_a_scope_are_left_out_of_what_is_read(
    vault: Vault, tmp_path: Path, table: pa.Table, people: list[str]
) -> None:
    vault.ingest("claims-1", table, people)
    scoped = {vault.person_id("wang-wu")}
    snaps = Snapshots(vault, tmp_path / "snapshots", opted_out=behind(scoped, "use:extract"))
    for _ in range(2):  # from a snapshot that is made, and from one that is there
        assert snaps.table("claims-1", "id", excluded=["use:extract"])["id"].to_pylist() == [
            "li-si",
            "zhao-liu",
            "li-si",
        ]
        assert snaps.table("claims-1", "id").num_rows == snaps.table("claims-1", excluded=[ALL]).num_rows == 6
    assert index_of(vault).left_out == () and snaps.read("claims-1").num_rows == 6


def test_an_objection_that_is_withdrawn_while_it_is_cut_out(
    vault: Vault,
    snaps: Snapshots,
    objecting: set[bytes],
    table: pa.Table,
    people: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cut short after any of its parts: nobody stays left out who does not object."""
    monkeypatch.setattr(module, "PART_ROWS", 2)
    vault.ingest("claims-1", table, people)
    whole = vault.read("claims-1", "id")
    for parts in range(4):
        snaps.refresh("claims-1")
        objecting.add(vault.person_id("wang-wu"))
        steps = snaps.refreshing("claims-1")
        for _ in range(parts):
            next(steps)
        steps.close()
        objecting.clear()
        assert same(snaps.table("claims-1", "id"), whole), parts
        objecting.add(vault.person_id("wang-wu"))
        steps = snaps.refreshing("claims-1")
        for _ in range(parts):
            next(steps)
        steps.close()
        assert snaps.table("claims-1", "id", excluded=[ALL]).num_rows == 3, parts
        objecting.clear()
