"""What a gateway calls the rows of its own tables: a name stands for one row, whatever becomes of the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from medveil.gateway.tables import SNAPSHOTS, VaultTables
from privacy.copies.snapshots import Snapshots
from privacy.grants import opt_outs
from privacy.keys import Argon2Cost, FileKeyProvider
from privacy.local import RowFilter
from privacy.predicate import Compare
from privacy.suites import SM4_GCM
from privacy.vault import Vault

COSTS = [10, 20, 30, 40, 50]
PEOPLE = ["wang", "li", "wang", "zhao", "li"]
VISITS = pa.table({"cost": COSTS})


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    provider = FileKeyProvider.create(tmp_path / "keys", "a passphrase", cost=Argon2Cost(time=1, memory=8, lanes=1))
    with Vault.create(tmp_path / "vault", provider, "hospital-1") as made:
        yield made


def names(vault: Vault, rows: RowFilter = RowFilter(None), without: frozenset[bytes] = frozenset()) -> dict[str, int]:  # noqa: B008
    """The cost of each record, by its name. without: who objects to all secondary use."""
    folder = vault.path.parent / SNAPSHOTS
    tables = VaultTables(vault, Snapshots(vault, folder, opted_out=lambda scopes: without if scopes else frozenset()))
    excluded = (opt_outs.ALL,) if without else ()
    return {name: cost for name, (cost,) in tables.records("visits", ("cost",), rows, excluded)}


def erase(vault: Vault, person: str) -> None:
    vault.destroy([key.key for key in vault.keys_of(person)], bytes(32))


ALL = {f"visits/{number}": cost for number, cost in enumerate(COSTS, start=1)}


@pytest.mark.parametrize("suites", [{}, {"cost": SM4_GCM}])
def test_a_name_outlives_the_erasure_of_others(vault: Vault, suites: dict[str, int]) -> None:
    vault.ingest("visits", VISITS, persons=PEOPLE, suites=suites)
    assert names(vault) == ALL
    left = {name: cost for name, cost in ALL.items() if cost not in (10, 30)}
    assert names(vault, without=frozenset([vault.person_id("wang")])) == left
    erase(vault, "wang")
    assert names(vault) == left
    assert names(vault, RowFilter(Compare("cost", "ge", 40))) == {"visits/4": 40, "visits/5": 50}


def test_rows_that_come_later_have_names_of_their_own(vault: Vault) -> None:
    vault.ingest("visits", VISITS, persons=PEOPLE)
    erase(vault, "li")
    vault.ingest("visits", VISITS, persons=PEOPLE, append=True)
    assert list(names(vault)) == [f"visits/{number}" for number in (1, 3, 4, 6, 7, 8, 9, 10)]
    vault.ingest("visits", VISITS, persons=PEOPLE, replace=True)
    assert list(names(vault)) == [f"visits/{number}" for number in range(11, 16)]


def test_where_each_row_is_its_own_person(vault: Vault) -> None:
    vault.ingest("visits", VISITS)
    assert names(vault) == ALL
    vault.destroy([next(vault.data_keys("visits")).key], bytes(32))
    assert names(vault) == {name: cost for name, cost in ALL.items() if cost != 10}


def test_record_ids_are_names(vault: Vault) -> None:
    vault.ingest("visits", VISITS, ["a", "b", "c", "d", "e"], persons=PEOPLE)
    erase(vault, "wang")
    assert names(vault) == {"record/b": 20, "record/d": 40, "record/e": 50}
