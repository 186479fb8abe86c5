"""Strict CSV: what is data, what is a fault, and that a fault never shows a cell."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.dataset import load_layout, parse_layout
from connectors.files import LONGEST_ROW, read_csv, read_lines
from connectors.layout import Layout
from wire.errors import DecodeError, MedveilError, Unavailable

HEADER = b"visit_no,age,cost,sex,notes\n"
SECRET = "Wang-Xiaoming-110101"

Writer = Callable[[bytes], Path]


def fault(path: Path, layout: Layout) -> MedveilError:
    with pytest.raises(MedveilError) as caught:
        read_csv(path, layout)
    error = caught.value
    for language in ("en", "zh"):
        text = error.text(language)
        assert path.name in text and SECRET not in text and "{" not in text and "\n" not in text
    # Nor does the chain of exceptions hold the cell.
    seen: BaseException | None = error
    while seen is not None:
        assert SECRET not in str(seen) and SECRET.encode() not in repr(getattr(seen, "object", b"")).encode()
        seen = seen.__cause__ or seen.__context__
    return error


def test_columns_come_in_declared_order_whatever_the_header(small: Layout, csv_file: Writer) -> None:
    table = read_csv(csv_file(b"notes,sex,cost,visit_no,age\nx,1,2.5,v1,64\n,0,.5,v2,65\n"), small)
    assert table.to_pydict() == {
        "visit_no": ["v1", "v2"],
        "age": [64.0, 65.0],
        "cost": [2.5, 0.5],
        "sex": ["male", "female"],
        "age_band": ["40-64", "65-up"],
    }
    assert [field.type for field in table.schema] == [pa.string(), pa.float64(), pa.float64(), pa.string(), pa.string()]


def test_a_byte_order_mark_crlf_quotes_blank_lines_and_a_missing_last_break(small: Layout, csv_file: Writer) -> None:
    text = b'\xef\xbb\xbf"visit_no",age,cost,sex,notes\r\n\r\n"v""1", 40 ,1,1,"a, b"\r\n  \r\nv2,1,2,0,"two\r\nlines"'
    table = read_csv(csv_file(text), small)
    assert table["visit_no"].to_pylist() == ['v"1', "v2"] and table["age"].to_pylist() == [40.0, 1.0]


@pytest.mark.parametrize("marker", [b"", b"?", b" ? ", b"NA", b"-1", b"-1.00", b"99999", b"NaN", b"nan", b"-nan"])
def test_missing_numbers(small: Layout, csv_file: Writer, marker: bytes) -> None:
    assert read_csv(csv_file(HEADER + b"v,1," + marker + b",1,\n"), small)["cost"].to_pylist() == [None]


@pytest.mark.parametrize("cell", [b"1", b"1.0", b"01", b"+1", b" 1 ", b"male"])
def test_a_code_is_known_in_every_spelling(small: Layout, csv_file: Writer, cell: bytes) -> None:
    assert read_csv(csv_file(HEADER + b"v,1,1," + cell + b",\n"), small)["sex"].to_pylist() == ["male"]


@pytest.mark.parametrize(
    ("cell", "value"),
    [(b"2", "other"), (SECRET.encode(), "other"), (b"-1", "other"), (b"9", None), (b"9.0", None), (b"?", None)],
)
def test_an_undeclared_category_is_other_and_is_not_kept(
    small: Layout, csv_file: Writer, cell: bytes, value: str | None
) -> None:
    assert read_csv(csv_file(HEADER + b"v,1,1," + cell + b",\n"), small)["sex"].to_pylist() == [value]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        (b"1e400", float("inf")),
        (b"-1e400", float("-inf")),
        (b"9" * 5000, float("inf")),
        (b"inf", float("inf")),
        (b"-Infinity", float("-inf")),
        (b"1e5", 1e5),
        (b"-2.6", -2.6),
        (b".7", 0.7),
        (b"5.", 5.0),
    ],
)
def test_huge_and_infinite_numbers_are_data(small: Layout, csv_file: Writer, cell: bytes, value: float) -> None:
    assert read_csv(csv_file(HEADER + b"v,1," + cell + b",1,\n"), small)["cost"].to_pylist() == [value]


@pytest.mark.parametrize(
    "cell", [SECRET, "1_000", "1,5", "１２", "0x10", "1 2", "--1", "1e", "e5", ".", "12 mg", "infinit", "=1+1", "٣"]
)
def test_text_in_a_number_column_is_a_fault_with_its_place(small: Layout, csv_file: Writer, cell: str) -> None:
    error = fault(csv_file(HEADER + f'v0,1,1,1,\nv1,40,"{cell}",1,\n'.encode()), small)
    assert isinstance(error, DecodeError) and error.code == "connectors.not_a_number"
    assert (error.facts["line"], error.facts["column"]) == (3, "cost")


def test_the_line_named_is_where_the_row_begins(small: Layout, csv_file: Writer) -> None:
    error = fault(csv_file(HEADER + b'v0,1,1,1,"a\nb\nc"\n\nv1,x,1,1,\n'), small)
    assert (error.facts["line"], error.facts["column"]) == (6, "age")


def test_an_empty_identifier(small: Layout, csv_file: Writer) -> None:
    error = fault(csv_file(HEADER + b"v0,1,1,1,\n ,1,1,1,\n"), small)
    assert (error.code, error.facts["line"], error.facts["column"]) == ("connectors.no_identifier", 3, "visit_no")


RAGGED_AND_BROKEN = {
    "short row": (HEADER + b"v0,1,1\n", "ragged_row", 2),
    "long row": (HEADER + b"v0,1,1,1,,\n", "ragged_row", 2),
    "unclosed quote": (HEADER + b'v0,1,1,1,\nv1,1,1,1,"a\nv2,1,1,1,\n', "broken_row", 3),
    "text after a quote": (HEADER + b'v0,1,1,1,"a"b\n', "broken_row", 2),
    "old Mac line ends": (HEADER.replace(b"\n", b"\r") + b"v0,1,1,1,\r", "broken_row", 1),
    "NUL": (HEADER + b"v0,1,1,1,a\x00b\n", "nul_byte", 2),
    "not UTF-8": (HEADER + b"v0,1,1,1," + SECRET.encode() + b"\xc4\xe3\n", "not_utf8", 2),
    "UTF-16": ("visit_no,age,cost,sex,notes\n".encode("utf-16"), "not_utf8", 1),
    "GBK header": ("编号,年龄\n".encode("gbk"), "not_utf8", 1),
    "a field beyond the reader's limit": (HEADER + b"v0,1,1,1," + b"a" * 200_000 + b"\n", "broken_row", 2),
    "many quoted line breaks": (HEADER + b"v0,1,1,1" + b',"\n\n\n\n\n\n\n\n"' * 110_000, "row_too_long", 2),
}


@pytest.mark.parametrize("name", RAGGED_AND_BROKEN)
def test_broken_form(small: Layout, csv_file: Writer, name: str) -> None:
    data, code, line = RAGGED_AND_BROKEN[name]
    error = fault(csv_file(data), small)
    assert isinstance(error, DecodeError)
    assert (error.code, error.facts["line"]) == (f"connectors.{code}", line)


def test_a_line_of_50_mb_is_refused_without_being_read(small: Layout, csv_file: Writer) -> None:
    path = csv_file(HEADER)
    with path.open("ab") as stream:
        stream.truncate(50_000_000)  # a hole: zeros
    assert fault(path, small).code == "connectors.row_too_long"
    path.write_bytes(HEADER + b"7" * 50_000_000)
    error = fault(path, small)
    assert (error.code, error.facts["line"], error.facts["limit"]) == ("connectors.row_too_long", 2, LONGEST_ROW)


def test_wrong_columns_are_named_by_place_not_by_their_text(small: Layout, csv_file: Writer) -> None:
    extra = fault(csv_file(HEADER[:-1] + b"," + SECRET.encode() + b"\n"), small)
    assert (extra.code, extra.facts["position"]) == ("connectors.undeclared_column", 6)
    repeated = fault(csv_file(b"visit_no,age,age,cost,sex\n"), small)
    assert (repeated.code, repeated.facts["position"]) == ("connectors.repeated_column", 3)
    absent = fault(csv_file(b"visit_no,sex\n"), small)
    assert (absent.code, absent.facts["columns"]) == ("connectors.missing_columns", "age, cost")


def test_a_file_without_its_header_does_not_show_its_first_patient(small: Layout, csv_file: Writer) -> None:
    assert fault(csv_file(f"{SECRET},63,1,1,\n".encode()), small).code == "connectors.undeclared_column"


def test_an_ignored_column_may_be_absent(small: Layout, csv_file: Writer) -> None:
    assert read_csv(csv_file(b"visit_no,age,cost,sex\nv,1,1,1\n"), small).num_rows == 1


def test_an_empty_file_is_a_fault_and_a_header_alone_is_an_empty_site(small: Layout, csv_file: Writer) -> None:
    for data in (b"", b"\n\n", b"\xef\xbb\xbf"):
        assert fault(csv_file(data), small).code == "connectors.file_empty"
    table = read_csv(csv_file(HEADER), small)
    assert table.num_rows == 0 and table.column_names == ["visit_no", "age", "cost", "sex", "age_band"]
    assert table["age_band"].type == pa.string()


def test_what_is_not_a_file(small: Layout, tmp_path: Path) -> None:
    missing = fault(tmp_path / "site.csv", small)
    assert isinstance(missing, Unavailable) and missing.code == "connectors.file_missing"
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    assert fault(folder, small).code == "connectors.not_a_file"
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    assert fault(pipe, small).code == "connectors.not_a_file"
    loop = tmp_path / "loop.csv"
    loop.symlink_to(loop)
    assert fault(loop, small).code == "connectors.unreadable"
    below_a_file = tmp_path / "a"
    below_a_file.write_bytes(b"")
    assert isinstance(fault(below_a_file / "site.csv", small), Unavailable)


def test_no_permission(small: Layout, csv_file: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests may run as root, who may read everything: the refusal itself is played.
    path = csv_file(HEADER)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(Path, "open", refuse)
    error = fault(path, small)
    assert isinstance(error, Unavailable) and error.code == "connectors.unreadable"


def test_a_file_name_is_shown_on_one_line(small: Layout, tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        read_csv(tmp_path / "a\n\x1b[31m\udcff.csv", small)
    assert caught.value.message.isprintable()


def test_more_rows_than_may_be(small: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.files.MOST_ROWS", 2)
    lines = [HEADER, *(f"v{i},1,1,1,\n".encode() for i in range(3))]
    assert read_lines(lines[:3], "site.csv", small).num_rows == 2
    with pytest.raises(DecodeError) as caught:
        read_lines(lines, "site.csv", small)
    assert caught.value.code == "connectors.too_many_rows"


def test_many_rows_in_batches_and_more_distinct_cells_than_are_remembered(
    small: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.files._BATCH", 7)
    monkeypatch.setattr("connectors.files._MOST_REMEMBERED", 3)
    lines = [HEADER, *(f"v{i},{i % 90},{i}.25,{i % 2},\n".encode() for i in range(700))]
    table = read_lines(lines, "site.csv", small)
    assert table["cost"].to_pylist() == [i + 0.25 for i in range(700)]
    assert table["visit_no"].to_pylist() == [f"v{i}" for i in range(700)]


def test_derived_columns_use_clamped_cells_and_pass_missing_on(small: Layout, csv_file: Writer) -> None:
    rows = b"a,39.6,1,1,\nb,-3,1,1,\nc,1e400,1,1,\nd,?,1,1,\ne,64,1,1,\n"
    table = read_csv(csv_file(HEADER + rows), small)
    assert table["age_band"].to_pylist() == ["40-64", "under-40", "65-up", None, "40-64"]
    assert table["age"].to_pylist() == [39.6, -3.0, float("inf"), None, 64.0]  # as read: not clamped


def test_the_first_case_that_holds_wins() -> None:
    layout = load_layout("randhie")
    header = ",".join(column.name for column in layout.read_columns) + "\n"
    lines = [header.encode(), b"1,0,1,0,0,0,0,1,1,1\n", b"1,0,0,0,0,0,0,1,0,0\n", b"1,0,0,0,0,0,0,0,0,7\n"]
    table = read_lines(lines, "site.csv", layout)
    assert table["health"].to_pylist() == ["poor", "good", "poor"]
    assert table["plan"].to_pylist() == ["deductible", "no-deductible", "no-deductible"]


def test_a_person_column_is_kept_as_text(small_toml: str) -> None:
    text = small_toml.replace('unit = "row"', 'unit = "person"\nperson = "card"\nrows_per_person = 3')
    layout = parse_layout(text.encode(), "x")
    table = read_lines([b"visit_no,card,age,cost,sex\n", b"v,007,1,1,1\n"], "site.csv", layout)
    assert table.column_names[:2] == ["visit_no", "card"] and table["card"].to_pylist() == ["007"]
    assert layout.rows_per_person == 3


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_any_bytes_are_a_table_or_one_clear_error(lines: list[bytes]) -> None:
    layout = load_layout("heart")
    try:
        table = read_lines(lines, "site.csv", layout)
    except MedveilError as error:
        assert isinstance(error, DecodeError) and error.message and error.fix
    else:
        assert table.num_rows <= len(lines)


@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), min_size=1, max_size=6))
def test_any_text_in_two_cells_never_shows_in_an_error(rows: list[tuple[str, str]]) -> None:
    layout = load_layout("heart")
    quoted = [[f"{SECRET} {cell}".replace('"', '""') for cell in row] for row in rows]
    lines = [(f'63,1,1,"{a}",233,1,2,150,0,2.3,3,0,"{b}",0\n').encode("utf-8", "replace") for a, b in quoted]
    with pytest.raises(DecodeError) as caught:
        read_lines(iter("".join(line.decode() for line in lines).encode().splitlines(keepends=True)), "s.csv", layout)
    assert SECRET not in caught.value.text() + caught.value.text("zh")
