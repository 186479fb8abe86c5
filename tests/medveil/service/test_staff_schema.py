"""The whole API against its own description, as an admin and as nobody: no fault, no undocumented answer."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("schemathesis", reason="install the test group")

from medveil.gateway import problems

from .staffed import Staffed

ENDS_THE_SESSION = "^/v1/(sign-out|me/password)"


def _campaign(folder: Path, examples: int, admin: bool) -> set[int]:
    """Run the tool. Returns the statuses it met. Fails on a broken promise."""
    refusals = [*problems.GENERAL[:-2], 404, 405, 409]  # 414 is a rejection too, which the tool's own list lacks
    accepted = ["2xx", 401, 403, 404, 409, 429]
    settings = f"[checks.negative_data_rejection]\nexpected-statuses = {sorted(refusals)}\n"
    settings += f"[checks.positive_data_acceptance]\nexpected-statuses = {accepted}\n".replace("'", '"')
    (folder / "schemathesis.toml").write_text(settings)
    with Staffed(folder, issuer="http://127.0.0.1:9") as service:
        command = [sys.executable, "-c", "from schemathesis.cli import schemathesis as run; run()", "run"]
        command += [service.address + "/v1/openapi.json", "--checks", "all", "--max-examples", str(examples)]
        command += ["--seed", "7", "--generation-database", "none", "--workers", "1", "--no-color"]
        command += ["--request-timeout", "20", "--exclude-path", "/v1/sign-in/provider"]  # nobody answers there: 503
        if admin:
            command += ["--header", f"Authorization: Bearer {service.session('root')}"]
            command += ["--exclude-path-regex", ENDS_THE_SESSION]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=1100, cwd=folder, check=False)
        assert answer.returncode == 0, answer.stdout[-8000:] + answer.stderr[-2000:]
        assert re.search(r"[0-9]+ generated", answer.stdout), answer.stdout[-3000:]
        statuses = {line["status"] for line in service.set.lines() if line["event"] == "request"}
    assert not {status for status in statuses if status >= 500}
    return statuses


def test_an_admin_meets_no_fault_and_nothing_undocumented(tmp_path: Path) -> None:
    assert {200, 201, 204, 401, 403, 404, 405, 409, 422} <= _campaign(tmp_path, 10, admin=True)


def test_nobody_meets_no_fault_and_nothing_undocumented(tmp_path: Path) -> None:
    statuses = _campaign(tmp_path, 5, admin=False)
    assert {401, 405, 422} <= statuses and 204 not in statuses


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_an_admin_meets_no_fault_for_long(tmp_path: Path) -> None:
    assert {200, 201, 204, 401, 404, 409, 422} <= _campaign(tmp_path, 300, admin=True)
