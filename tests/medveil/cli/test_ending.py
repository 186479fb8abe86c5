"""Rows in the clear that are being written when the process is told to end."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pytest

from medveil.cli.ending import ending_tidily
from medveil.extracts import opening


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_nothing_stays_beside_the_file(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(number, signal.SIG_DFL)
    beside: list[list[str]] = []

    def killed(_table: Any, file: BinaryIO) -> None:
        file.write(b"ward,cost\neast,7\n")
        beside.append([path.name for path in tmp_path.iterdir()])
        os.kill(os.getpid(), number)
        file.write(b"west,9\n")

    monkeypatch.setitem(opening.FORMATS, ".csv", killed)
    try:
        with pytest.raises(SystemExit) as ended, ending_tidily():
            opening.write_plain(pa.table({"ward": ["east"]}), tmp_path / "rows.csv")
        assert ended.value.code == 128 + number
        assert len(beside) == 1 and len(beside[0]) == 1 and not list(tmp_path.iterdir())
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending_tidily():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
