"""Rows in the clear: in a file that is new and whole, on whatever disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

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
