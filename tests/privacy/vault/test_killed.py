"""kill -9 at every step of what writes to a vault: as before or as after, nobody half erased, and it goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("killed_writer.py")
STEPS = {
    "load": 15,
    "replace": 8,
    "append": 7,
    "destroy": 8,
    "rotate": 13,
    "document": 2,
    "hold": 6,
    "opt_out": 5,
    "restrict": 5,
}
"""Steps of each operation, at least."""


@pytest.mark.parametrize("operation", STEPS)
def test_killed_at_every_step(operation: str, tmp_path: Path) -> None:
    _killed(operation, tmp_path, "")


@pytest.mark.postgres
@pytest.mark.parametrize("operation", ["replace", "destroy", "rotate", "restrict"])
def test_killed_at_every_step_on_postgresql(operation: str, tmp_path: Path, postgres_url: str) -> None:
    _killed(operation, tmp_path, postgres_url)


def _killed(operation: str, folder: Path, url: str) -> None:
    command = [sys.executable, str(PROGRAM), operation, str(folder / "home"), *([url] if url else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert done.returncode == 0 and len(lines) >= STEPS[operation], done.stdout + done.stderr
    assert [line for line in lines if line[-1:] != ["ok"]] == [], done.stdout
    assert lines[-1][0] == "ended" and all(line[0] != "ended" for line in lines[:-1])
