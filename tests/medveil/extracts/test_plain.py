"""Rows in the clear: in a file that is new and whole, on whatever disk."""

from __future__ import annotations

import csv
import errno
import io
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from medveil.extracts.opening import FORMATS, write_plain
from wire.errors import Refused

ROWS = pa.table({"ward": ["east", "west"]})


def without_links(source: Any, target: Any) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("ending", sorted(FORMATS))
def test_a_disk_without_hard_links(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", without_links)
    out = tmp_path / f"rows{ending}"
    write_plain(ROWS, out)
    assert list(tmp_path.iterdir()) == [out] and out.stat().st_mode & 0o777 == 0o600
    before = out.read_bytes()
    with pytest.raises(Refused) as raised:
        write_plain(ROWS.slice(1), out)
    assert raised.value.code == "client.file_exists" and out.read_bytes() == before
    assert list(tmp_path.iterdir()) == [out]


def test_the_folder_is_put_on_disk_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flush, kinds = os.fsync, list[bool]()

    def flushing(descriptor: int) -> None:
        kinds.append(Path(f"/proc/self/fd/{descriptor}").is_dir())
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", flushing)
    write_plain(ROWS, tmp_path / "rows.csv")
    assert kinds == [False, True]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_no_cell_of_a_csv_is_a_formula(kind: pa.DataType) -> None:
    """Whoever opens a copy in a spreadsheet carries out nothing that somebody typed into a patient's record."""
    formulas = ["=1+1", "+1+cmd", "-1+1", "@SUM(A1)", " =1", "\t=1", "\r=1", "\n1", "=\n1", '=1",2']
    formulas += ["＝1", "＋x", "－x", "＠x"]
    plain = ["east", "-12.5", "+3", "-", "20-29", "a=b", "", None, "王－明", "'=1"]
    rows = pa.table({"=name": pa.array([*formulas, *plain], kind), "cost": [-1] * len([*formulas, *plain])})
    written = io.BytesIO()
    FORMATS[".csv"](rows, written)
    names, *cells = csv.reader(io.StringIO(written.getvalue().decode(), newline=""))
    assert names == ["'=name", "cost"]
    assert [one for one, _ in cells] == [*("'" + one for one in formulas), *(one or "" for one in plain)]
    assert {one for _, one in cells} == {"-1"}


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
def test_the_other_formats_have_every_cell_as_it_is(ending: str, tmp_path: Path) -> None:
    rows = pa.table({"=name": ["=1+1", "@x"]})
    write_plain(rows, tmp_path / f"rows{ending}")
    read = parquet.read_table if ending == ".parquet" else lambda path: pa.ipc.open_file(path).read_all()
    assert read(tmp_path / f"rows{ending}").equals(rows)
