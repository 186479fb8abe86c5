"""A table that was classified before it is loaded is sealed by its levels: SM4 where a cell names or harms a person."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from connectors.dataset import parse_layout
from connectors.files import read_csv
from medveil.gateway import loading, use_state
from medveil.gateway.tables import VaultTables
from medveil.service.home.home import Home
from privacy.grants.levels import ColumnFacts, DatasetFacts
from privacy.suites import AES_256_GCM, SM4_GCM
from wire.errors import Refused

PASS = "correct horse battery"
LAYOUT = parse_layout(
    b"""
version = 1
name = "visits"
population = "visits"
unit = "person"
person = "id_number"
rows_per_person = 4

[[columns]]
name = "cost"
kind = "number"
low = 0
high = 100

[[columns]]
name = "illness"
kind = "category"
values = ["flu", "hiv"]
""",
    "dataset.toml",
)
ROWS = "id_number,cost,illness\n330106199105230178,1,flu\n330106199105230178,2,hiv\n110101201501010248,3,flu\n"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    def now() -> int:
        return time.time_ns() // 1_000_000

    (tmp_path / "visits.csv").write_text(ROWS)
    Home.create(tmp_path / "home", "hospital-1", ("hospital",), PASS, secrets.token_bytes, now)
    with Home.open(tmp_path / "home", PASS, secrets.token_bytes, now) as opened:
        yield opened


def load(home: Home, folder: Path) -> None:
    path = folder / "visits.csv"
    loading._ingest(home.organisation, "visits", LAYOUT, lambda: read_csv(path, LAYOUT), "s", "visits")


def suites(home: Home) -> dict[str, int]:
    return {column.name: column.suite for column in home.organisation.vault.info("visits").columns}


def classify(home: Home, *columns: ColumnFacts, age_column: str = "") -> None:
    use_state.classify(home.organisation, DatasetFacts("visits", columns, age_column=age_column))


def test_what_nobody_classified_is_under_aes(home: Home, tmp_path: Path) -> None:
    load(home, tmp_path)
    assert set(suites(home).values()) == {AES_256_GCM}
    classify(home, ColumnFacts("illness", 5))
    load(home, tmp_path)  # again: rows that are sealed stay as they are
    assert set(suites(home).values()) == {AES_256_GCM}


def test_levels_decide_on_the_suite(home: Home, tmp_path: Path) -> None:
    classify(home, ColumnFacts("id_number", 4, "identity-number"), ColumnFacts("illness", 5), ColumnFacts("cost", 3))
    load(home, tmp_path)
    assert suites(home) == {"id_number": SM4_GCM, "illness": SM4_GCM, "cost": AES_256_GCM}
    table = VaultTables.of(home.organisation).engine("visits", ())._table  # type: ignore[attr-defined]
    rows = pa.table({"cost": [1, 2, 3], "illness": ["flu", "hiv", "flu"]})
    assert table.select(["cost", "illness"]).to_pydict() == rows.to_pydict()
    assert not list((tmp_path / "home" / "snapshots").glob("*.snapshot")), "Parquet knows no SM4"


def test_a_column_that_was_left_out_counts_as_the_highest(home: Home, tmp_path: Path) -> None:
    classify(home, ColumnFacts("illness", 3), ColumnFacts("id_number", 3))
    load(home, tmp_path)
    assert suites(home) == {"id_number": AES_256_GCM, "illness": AES_256_GCM, "cost": SM4_GCM}


@pytest.mark.parametrize(("column", "age"), [("illnes", ""), ("illness", "years")])
def test_a_classification_of_other_columns_is_refused(home: Home, tmp_path: Path, column: str, age: str) -> None:
    classify(home, ColumnFacts(column, 5), age_column=age)
    with pytest.raises(Refused) as refused:
        load(home, tmp_path)
    assert refused.value.code == "gateway.no_column"
    assert home.organisation.vault.datasets() == ()
