"""Quality: what is counted, what is clamped, which row of a record id stays."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.dataset import load_layout, parse_layout
from connectors.files import read_csv, read_lines
from connectors.layout import Layout
from connectors.quality import clamp, prepare, quality
from connectors.sources import load_sources

HEADER = b"visit_no,age,cost,sex\n"


def read(layout: Layout, *rows: bytes) -> pa.Table:
    return read_lines([HEADER, *rows], "site.csv", layout)


def test_counts(small: Layout) -> None:
    rows = (b"a,30,1,0\n", b"b,?,1e400,1\n", b"c,121,-6,7\n", b"a,30,NA,0\n", b"d,120,1000,?\n", b"e,0,-5,1\n")
    report = quality(read(small, *rows), small)
    assert (report.rows, report.cells, report.duplicates) == (6, 18, 1)
    assert report.missing == {"age": 1, "cost": 1, "sex": 1}
    assert report.out_of_range == {"age": 1, "cost": 2, "sex": 1}
    # b: age, cost; c: all three; the second a: all three, its missing cost once; d: sex
    assert report.dirty_cells == 9 and report.dirty_rate == 0.5 and report.duplicates_judged


def test_prepare_clamps_and_keeps_the_first_row_of_a_record(small: Layout) -> None:
    rows = (b"a,30,1,0\n", b"b,121,1e400,1\n", b"a,31,2,1\n", b"c,?,-inf,8\n", b"b,1,1,1\n")
    prepared = prepare(read(small, *rows), small)
    assert prepared.record_ids == ("a", "b", "c")
    assert prepared.table.to_pydict() == {
        "age": [30.0, 120.0, None],
        "cost": [1.0, 1000.0, -5.0],
        "sex": ["female", "male", "other"],
        "age_band": ["under-40", "65-up", None],
    }
    assert prepared.report.duplicates == 2 and prepared.report.rows == 5


def test_without_a_record_id_duplicates_are_not_judged(small_toml: str) -> None:
    layout = parse_layout(small_toml.replace('record_id = "visit_no"', "").encode(), "x")
    table = read_lines([b"age,cost,sex\n", b"1,1,1\n", b"1,1,1\n"], "site.csv", layout)
    prepared = prepare(table, layout)
    assert prepared.record_ids is None and prepared.table.num_rows == 2
    assert prepared.report.duplicates is None and not prepared.report.duplicates_judged
    assert prepared.report.dirty_rate == 0.0


def test_a_record_id_that_names_the_person_stays_in_the_table(small_toml: str) -> None:
    text = small_toml.replace('unit = "row"', 'unit = "person"\nperson = "visit_no"')
    layout = parse_layout(text.encode(), "x")
    prepared = prepare(read(layout, b"a,1,1,1\n", b"a,2,2,0\n"), layout)
    assert prepared.record_ids == ("a",) and prepared.table["visit_no"].to_pylist() == ["a"]


def test_an_empty_table(small: Layout) -> None:
    prepared = prepare(read(small), small)
    assert prepared.record_ids == () and prepared.table.num_rows == 0
    assert prepared.report.dirty_rate == 0.0 and prepared.report.duplicates == 0


def test_a_report_is_plain_numbers(small: Layout) -> None:
    report = asdict(quality(read(small, b"a,1,1,1\n"), small))
    assert set(report) == {"rows", "columns", "duplicates", "dirty_cells"}


numbers = st.one_of(st.just("?"), st.just("inf"), st.floats(allow_nan=False).map(repr), st.integers().map(str))


@given(st.lists(numbers, max_size=20))
def test_clamping_bounds_everything_and_is_idempotent(cells: list[str]) -> None:
    layout = _heart_like()
    table = read_lines([b"x\n", *(f"{cell}\n".encode() for cell in cells)], "site.csv", layout)
    once = clamp(table, layout)
    values = once["x"].to_pylist()
    assert [value is None for value in values] == [value is None for value in table["x"].to_pylist()]
    assert all(-2.6 <= value <= 7.0 for value in values if value is not None)
    assert clamp(once, layout).equals(once)
    assert sum(quality(once, layout).out_of_range.values()) == 0


def _heart_like() -> Layout:
    text = 'version = 1\nname = "a"\npopulation = "a"\nunit = "row"\n'
    text += '[[columns]]\nname = "x"\nkind = "number"\nlow = -2.6\nhigh = 7\nscale = 10\n'
    return parse_layout(text.encode(), "x")


# the pitfalls of the real data


def test_heart_cholesterol_zero_is_missing(shared_data: Path) -> None:
    layout = load_layout("heart")
    reports = {site: quality(table, layout) for site, _, table in load_sources(shared_data / "heart")}
    assert {site: report.rows for site, report in reports.items()} == {
        "cleveland": 303,
        "hungarian": 294,
        "switzerland": 123,
        "va": 200,
    }
    assert {site: report.missing["chol"] for site, report in reports.items()} == {
        "cleveland": 0,
        "hungarian": 23,
        "switzerland": 123,
        "va": 49 + 7,
    }
    assert reports["va"].missing["trestbps"] == 56 + 1  # and one blood pressure of 0
    assert reports["cleveland"].missing["ca"] == 4 and reports["cleveland"].missing["thal"] == 2  # "?"
    assert all(report.duplicates is None for report in reports.values())


def test_heart_oldpeak_goes_down_to_minus_2_6(shared_data: Path) -> None:
    layout = load_layout("heart")
    table = read_csv(shared_data / "heart" / "switzerland.csv", layout)
    assert min(value for value in table["oldpeak"].to_pylist() if value is not None) == -2.6
    assert quality(table, layout).out_of_range["oldpeak"] == 0


def test_heart_groups_are_always_known(shared_data: Path) -> None:
    for _, layout, table in load_sources(shared_data / "heart"):
        assert layout.study is not None
        for name in layout.study.groups:
            assert table[name].null_count == 0 and set(table[name].to_pylist()) <= set(layout.column(name).values)


def test_randhie_repeats_rows_and_nothing_is_dropped() -> None:
    tables = [table for _, _, table in load_sources()]
    whole = pa.concat_tables(tables)
    assert whole.num_rows == 20_190
    assert whole.num_rows - whole.group_by(whole.column_names).aggregate([]).num_rows == 11_065
    layout = load_layout("randhie")
    prepared = prepare(whole, layout)
    assert prepared.table.num_rows == 20_190 and prepared.report.duplicates is None
    assert prepared.report.out_of_range["mdvis"] == 8 and sum(prepared.report.missing.values()) == 0
    assert max(prepared.table["mdvis"].to_pylist()) == 60.0


@pytest.mark.parametrize("name", ["health", "plan"])
def test_randhie_groups_are_always_known(name: str) -> None:
    for _, layout, table in load_sources():
        assert table[name].null_count == 0 and set(table[name].to_pylist()) <= set(layout.column(name).values)
