"""The whole API against its own description, as each role and as nobody: no fault, no undocumented answer.

The service stands before an organisation of a real consortium in this process: what is well said is written to a
ledger, and begins jobs.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("schemathesis", reason="install the test group")

from medveil.gateway import problems
from medveil.service.accounts.rights import RIGHTS, ROLES
from mpc.query_document import COMPONENT

from ..api.test_access import routes
from ..staffed import Staffed
from ..working import Consorted

ENDS_THE_SESSION = "^/v1/(sign-out|me/password|members/departure)"
"""And the membership: what would be left to try?"""


def _operations(service: Staffed, role: str) -> list[str]:
    """Ids of the operations that are this role's part: each is some role's that may call it, the first's of them."""
    description = service.running.app.openapi()["paths"]
    found = []
    for route in routes(service.running.app):
        able = next((one for one in ROLES for right in route.asks if right is None or one in RIGHTS[right].roles), "")
        if able == role or (not route.asks and role == ROLES[-1]):
            operation = description.get(route.path, {}).get(route.method.lower())
            found += [operation["operationId"]] if operation is not None else []
    return found


def _of_query_documents(service: Staffed) -> list[str]:
    """Ids of the operations that take a query document."""
    taken = {"$ref": f"#/components/schemas/{COMPONENT}"}
    return [
        operation["operationId"]
        for path in service.running.app.openapi()["paths"].values()
        for operation in path.values()
        if taken in operation.get("requestBody", {}).get("content", {}).get("application/json", {}).values()
    ]


def _campaign(folder: Path, caller: str, *settings: str, everything: bool = False) -> set[int]:
    """Run the tool as a person of that name, or as nobody. Returns the statuses it met. Fails on a broken promise.

    everything: every operation, and query documents changed in each way that the tool counts up (a thousand requests
    an operation); else these are changed at random.
    """
    refusals = [*problems.GENERAL[:-2], 404, 405, 409]  # 414 is a rejection too, which the tool's own list lacks
    accepted = ["2xx", 401, 403, 404, 409, 429]
    text = f"[checks.negative_data_rejection]\nexpected-statuses = {sorted(refusals)}\n"
    text += f"[checks.positive_data_acceptance]\nexpected-statuses = {accepted}\n".replace("'", '"')
    with (
        Consorted(folder / "consortium") as consorted,
        consorted.service("hospital-1", folder / "service", folder, issuer="http://127.0.0.1:9") as service,
    ):
        documents = _of_query_documents(service)
        assert documents
        if not everything:
            for operation in documents:
                text += f'[[operations]]\ninclude-operation-id = "{operation}"\nphases.coverage.enabled = false\n'
        (folder / "schemathesis.toml").write_text(text)
        command = [sys.executable, "-c", "from schemathesis.cli import schemathesis as run; run()", "run"]
        command += [service.address + "/v1/openapi.json", "--checks", "all", *settings]
        command += ["--seed", "7", "--generation-database", "none", "--workers", "1", "--no-color"]
        command += ["--request-timeout", "20", "--exclude-path", "/v1/sign-in/provider"]  # nobody answers there: 503
        if caller:
            command += ["--header", f"Authorization: Bearer {service.session(caller)}"]
            command += ["--exclude-path-regex", ENDS_THE_SESSION]
        if caller and not everything:
            for operation in _operations(service, caller):
                command += ["--include-operation-id", operation]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=3000, cwd=folder, check=False)
        assert answer.returncode == 0, answer.stdout[-40000:] + answer.stderr[-2000:]
        assert re.search(r"[0-9]+ generated", answer.stdout), answer.stdout[-3000:]
        lines = service.set.lines()
    statuses = {line["status"] for line in lines if line["event"] == "request"}
    assert not {status for status in statuses if status >= 500} and not [
        line for line in lines if line["event"] == "fault"
    ]
    return statuses


@pytest.mark.parametrize("role", ROLES)
def test_a_person_meets_no_fault_and_nothing_undocumented(tmp_path: Path, role: str) -> None:
    statuses = _campaign(tmp_path, role, "--max-examples", "3")
    assert {200, 401, 405, 422} <= statuses
    assert role == "auditor" or 404 in statuses


def test_nobody_meets_no_fault_and_nothing_undocumented(tmp_path: Path) -> None:
    statuses = _campaign(tmp_path, "", "--phases", "examples,fuzzing", "--max-examples", "2")
    assert {401, 422} <= statuses and 204 not in statuses


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("role", ROLES)
def test_a_person_meets_no_fault_for_long(tmp_path: Path, role: str) -> None:
    assert {200, 401, 403, 404, 422} <= _campaign(tmp_path, role, "--max-examples", "100", everything=True)
