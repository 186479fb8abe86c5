"""A small declared dataset for the tests of connectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from connectors.dataset import parse_layout
from connectors.layout import Layout

SMALL = """
version = 1
name = "small"
population = "small"
unit = "row"
record_id = "visit_no"
ignored = ["notes"]

[[columns]]
name = "age"
kind = "number"
low = 0
high = 120

[[columns]]
name = "cost"
kind = "number"
low = -5
high = 1000
scale = 100
missing = ["NA", -1, 99999]

[[columns]]
name = "sex"
kind = "category"
values = ["female", "male"]
codes = { 0 = "female", 1 = "male" }
missing = [9]

[[columns]]
name = "age_band"
kind = "category"
values = ["under-40", "40-64", "65-up"]
cases = [
  { column = "age", at_least = 65, value = "65-up" },
  { column = "age", at_least = 40, value = "40-64" },
]
otherwise = "under-40"

[study]
title = "Cost by age and sex"
measure = "cost"
groups = ["age_band", "sex"]
edges = [-5, 0, 9.5, 1000]
minimum = 10
"""


@pytest.fixture
def small_toml() -> str:
    """A dataset.toml with a record id, an ignored column, missing markers and a derived column."""
    return SMALL


@pytest.fixture
def small() -> Layout:
    """The layout of `small_toml`."""
    return parse_layout(SMALL.encode(), "dataset.toml")


@pytest.fixture
def csv_file(tmp_path: Path) -> Callable[[bytes], Path]:
    """Writes bytes to site.csv and returns its path."""

    def write(data: bytes) -> Path:
        path = tmp_path / "site.csv"
        path.write_bytes(data)
        return path

    return write
