"""How long rows must be kept is said by the declaration, and read from a column that is not kept."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from connectors.dataset import parse_layout
from connectors.files import read_csv
from connectors.layout import Layout, kept_layout, schema_hash
from connectors.quality import prepare
from privacy.retention import RECORD_TYPES
from wire.canonical import encode
from wire.dates import day_of
from wire.errors import DecodeError

DECLARED = """
version = 1
name = "visits"
population = "visits"
unit = "row"
record_id = "visit_no"
record_type = "outpatient"
date_column = "seen"

[[columns]]
name = "cost"
kind = "number"
low = 0
high = 100
"""


def declared(change: Callable[[str], str] = lambda text: text) -> Layout:
    return parse_layout(change(DECLARED).encode(), "dataset.toml")


@pytest.mark.parametrize(
    ("cell", "day"),
    [
        ("2026-03-02", date(2026, 3, 2)),
        ("2026/03/02", date(2026, 3, 2)),
        ("20260302", date(2026, 3, 2)),
        (" 2026-03-02 ", date(2026, 3, 2)),
        ("2026-03-02 23:59:59", date(2026, 3, 2)),
        ("2026-03-02T00:00:00+08:00", date(2026, 3, 2)),
        ("2024-02-29", date(2024, 2, 29)),
        ("2025-02-29", None),
        ("1899-12-31", None),
        ("2079-06-06", None),
        ("0000-00-00", None),
        ("2026-3-2", None),
        ("02.03.2026", None),
        ("2026-03-021", None),
        ("", None),
        ("?", None),
        ("unknown", None),
    ],
)
def test_a_day_is_read_or_there_is_none(cell: str, day: date | None, csv_file: Callable[[bytes], Path]) -> None:
    table = read_csv(csv_file(f"seen,cost,visit_no\n{cell},5,v-1\n".encode()), declared())
    assert table.column_names == ["visit_no", "seen", "cost"]
    assert table["seen"].to_pylist() == [day]
    prepared = prepare(table, declared())
    assert prepared.days == (None if day is None else day_of(day),)
    assert prepared.table.column_names == ["cost"]


def test_days_follow_the_rows_that_stay(csv_file: Callable[[bytes], Path]) -> None:
    rows = b"visit_no,seen,cost\nv-1,2026-01-01,1\nv-1,2026-01-02,2\nv-2,,3\nv-3,2026-01-03,4\n"
    prepared = prepare(read_csv(csv_file(rows), declared()), declared())
    assert prepared.record_ids == ("v-1", "v-2", "v-3")
    assert prepared.days == (day_of(date(2026, 1, 1)), None, day_of(date(2026, 1, 3)))
    assert [column.column for column in prepared.report.columns] == ["cost"]


def test_without_a_header_the_day_comes_after_the_identifiers(csv_file: Callable[[bytes], Path]) -> None:
    layout = declared(lambda text: text.replace("record_id", 'person = "who"\nheader = false\nrecord_id'))
    table = read_csv(csv_file(b"v-1,p-1,2026-01-01,1\n"), layout)
    assert table.to_pylist() == [{"visit_no": "v-1", "who": "p-1", "seen": date(2026, 1, 1), "cost": 1.0}]


def test_without_a_date_column_there_are_no_days(csv_file: Callable[[bytes], Path]) -> None:
    layout = declared(lambda text: text.replace('date_column = "seen"\n', ""))
    assert prepare(read_csv(csv_file(b"visit_no,cost\nv-1,1\n"), layout), layout).days is None


def test_retention_does_not_change_what_a_cell_means() -> None:
    plain = declared(
        lambda text: text.replace('date_column = "seen"\n', "").replace('record_type = "outpatient"\n', "")
    )
    assert schema_hash(plain) == schema_hash(declared())
    assert (plain.record_type, plain.date_column) == ("", "")


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("outpatient", "x-ray", "connectors.toml_record_type"),
        ("outpatient", "none", "connectors.toml_date_column"),
        ('record_type = "outpatient"', "", "connectors.toml_date_column"),
        ('"seen"', '"cost"', "connectors.toml_repeated"),
        ('"seen"', '"visit_no"', "connectors.toml_repeated"),
        ('"seen"', '"has space"', "connectors.toml_shape"),
    ],
)
def test_declarations_that_do_not_fit(old: str, new: str, code: str) -> None:
    with pytest.raises(DecodeError) as raised:
        declared(lambda text: text.replace(old, new))
    assert raised.value.code == code


def test_every_record_type_can_be_declared() -> None:
    for name in RECORD_TYPES:
        layout = declared(
            lambda text, name=name: text.replace("outpatient", name).replace('date_column = "seen"\n', "")
        )
        assert layout.record_type == name


def test_a_layout_kept_before_is_still_read() -> None:
    """Its bytes end where the two new fields begin."""
    plain = declared(
        lambda text: text.replace('date_column = "seen"\n', "").replace('record_type = "outpatient"\n', "")
    )
    data = encode(plain)
    assert data.endswith(b"\xa0\xa0") and data[:1] == b"\xdc"
    older = b"\xdc" + (int.from_bytes(data[1:3], "big") - 2).to_bytes(2, "big") + data[3:-2]
    assert kept_layout(older) == kept_layout(data) == plain
    assert kept_layout(encode(declared())) == declared()
    for cut in (older[:-1], older + b"\xa0", b""):
        with pytest.raises(DecodeError):
            kept_layout(cut)
