"""The keeper of a snapshot is killed at each of its steps: what is used afterwards is whole, without the erased."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from tests.privacy.copies.killed_snapshots import Look


def test_killed_at_any_step(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "tests.privacy.copies.killed_snapshots", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert answer.returncode == 0 and answer.stderr == "", answer.stderr
    looks = [msgspec.json.decode(line, type=Look) for line in answer.stdout.splitlines()]
    steps = {"open", "fsync", "unlink", "put_document", "remove_document"}
    assert {f"{when} {step}" for when in ("before", "after") for step in steps} <= {look.point for look in looks}
    for look in looks:
        assert look.same and not look.held and look.orphans == 0, look
