"""What a declaration says of keeping reaches the vault's keys, row by row."""

from __future__ import annotations

import secrets
import time
from datetime import date
from pathlib import Path

import pytest

from connectors.dataset import parse_layout
from connectors.files import read_csv
from medveil.gateway import loading
from medveil.service.home.home import Home
from privacy.retention import ZONE, retain_until
from wire.dates import date_of, day_at

PASS = "correct horse battery"
DECLARED = """
version = 1
name = "visits"
population = "visits"
unit = "person"
person = "who"
rows_per_person = 4
record_id = "visit_no"
record_type = "prescription"
date_column = "issued"

[[columns]]
name = "cost"
kind = "number"
low = 0
high = 100
"""
ROWS = """visit_no,who,issued,cost
v-1,wang,2020-02-29,1
v-2,wang,2024-05-06,2
v-3,wang,,3
v-4,li,2024-05-06,4
"""


def now() -> int:
    return time.time_ns() // 1_000_000


@pytest.mark.parametrize("dated", [True, False])
def test_each_row_has_its_own_day(dated: bool, tmp_path: Path) -> None:
    text = DECLARED if dated else DECLARED.replace('date_column = "issued"', 'ignored = ["issued"]')
    layout = parse_layout(text.encode(), "dataset.toml")
    (tmp_path / "visits.csv").write_text(ROWS)
    Home.create(tmp_path / "home", "hospital-1", ("hospital",), PASS, secrets.token_bytes, now)
    with Home.open(tmp_path / "home", PASS, secrets.token_bytes, now) as opened:
        before = day_at(now(), ZONE)
        loading._ingest(
            opened.organisation, "visits", layout, lambda: read_csv(tmp_path / "visits.csv", layout), "s", "visits"
        )
        days = {day_at(now(), ZONE), before}
        vault = opened.organisation.vault
        assert vault.read("visits").column_names == ["who", "cost"]
        wang = {key.retain_until: key.rows for key in vault.keys_of("wang")}
        (li,) = vault.keys_of("li")
    of_loading = {date_of(found) for day in days if (found := retain_until("prescription", None, day)) is not None}
    shown = {date_of(until): rows for until, rows in wang.items() if until is not None}
    if dated:
        ours = {date(2021, 2, 28): 1, date(2025, 5, 6): 1}
        assert {day: rows for day, rows in shown.items() if day in ours} == ours and li.retain_until is not None
        assert set(shown) - set(ours) <= of_loading and len(shown) == 3 and date_of(li.retain_until) == date(2025, 5, 6)
    else:
        assert set(shown) <= of_loading and list(shown.values()) == [3]
