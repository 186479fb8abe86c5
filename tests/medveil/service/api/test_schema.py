"""The API against its own description: schemathesis sends what fits and what does not, over a real socket."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("schemathesis", reason="install the test group")

from medveil.gateway import problems
from medveil.service.work.journal import Journal

from ..running import ANNA, Running, Set

Make = Callable[..., Set]
Run = Callable[..., Running]


async def idle(journal: Journal) -> str:
    """A job that is done as soon as it runs, so that its stream ends."""
    await asyncio.sleep(0)
    return "/v1/about"


def _campaign(make_set: Make, run: Run, folder: Path, examples: int) -> tuple[int, str]:
    """Run the tool against a service. Returns how many requests it sent, and its report. Fails on a broken promise."""
    own = make_set()
    own.jobs.register("idle", idle)
    service = run(own)
    for number in range(3):
        service.do(own.jobs.start("idle", "anna", b"", key=str(number)))
    refusals = [*problems.GENERAL[:-2], 404, 405]  # 414 is a rejection too, which the tool's own list lacks
    settings = f"[checks.negative_data_rejection]\nexpected-statuses = {sorted(refusals)}\n"
    (folder / "schemathesis.toml").write_text(settings)
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis as run; run()", "run"]
    command += [service.address + "/v1/openapi.json", "--header", f"Authorization: {ANNA['authorization']}"]
    command += ["--checks", "all", "--max-examples", str(examples), "--seed", "7", "--generation-database", "none"]
    command += ["--workers", "1", "--no-color", "--request-timeout", "20"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=1100, cwd=folder, check=False)
    assert answer.returncode == 0, answer.stdout[-8000:] + answer.stderr[-2000:]
    found = re.search(r"([0-9]+) generated, [0-9]+ (?:found|passed)|([0-9]+) generated", answer.stdout)
    assert found is not None, answer.stdout[-3000:]
    time.sleep(0.2)  # the last line is written after its answer
    statuses = {line["status"] for line in own.lines() if line["event"] == "request"}
    assert not {status for status in statuses if status >= 500}
    assert {200, 401, 404, 405, 422} <= statuses  # it came past the door, and further
    return int(found[1] or found[2]), answer.stdout


def test_every_answer_is_documented(make_set: Make, run: Run, tmp_path: Path) -> None:
    sent, report = _campaign(make_set, run, tmp_path, 20)
    assert sent > 200, report


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_every_answer_is_documented_for_long(make_set: Make, run: Run, tmp_path: Path) -> None:
    sent, report = _campaign(make_set, run, tmp_path, 1000)
    assert sent > 2000, report
