"""Flows begun by an organisation's people: bills proven, models reviewed, records scored, uses audited, evidence shown.

Each of four organisations of a real consortium has a service; what they begin runs as jobs, the others answer.
"""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ledger.contracts.datasets import RegisterPopulation
from medveil.verification import verify
from tests.medveil.conftest import DATASET_TOML
from wire.canonical import decode
from zkp.bill_limit import Presentation

from ..api.test_flow_routes import SITES, ask, refused
from ..staffed import Staffed
from ..working import Consorted, now

pytest.importorskip("phe", reason="install medveil[scoring]")

DAY = 86_400_000
NAMES = ("hospital-1", "insurer-1", "bureau", "regulator")
COSTS = (10, 90, 30, 70)
SHOWN_OF_A_BILL = {"handle", "hospital", "currency", "commitment", "height"}  # neither person nor amount


@pytest.fixture(scope="module")
def consorted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consorted]:
    with Consorted(tmp_path_factory.mktemp("consortium")) as consorted:
        yield consorted


@pytest.fixture(scope="module")
def services(consorted: Consorted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Staffed]]:
    data = tmp_path_factory.mktemp("data")
    (data / "exports").mkdir()
    (data / "exports" / "dataset.toml").write_bytes(DATASET_TOML)
    rows = "".join(f"r{number},{cost},40,east\n" for number, cost in enumerate(COSTS))
    (data / "exports" / "stays.csv").write_text("id,cost,age,ward\n" + rows)
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(consorted.service(name, tmp_path_factory.mktemp(name), data)) for name in NAMES
        }


def ended(service: Staffed, role: str, job: dict[str, Any]) -> dict[str, Any]:
    """The job once it has ended."""
    end = time.monotonic() + 60
    while True:
        found: dict[str, Any] = ask(service, role, "GET", f"/v1/jobs/{job['job']}")
        if found["state"] in ("done", "failed", "cancelled"):
            return found
        assert time.monotonic() < end, found
        time.sleep(0.05)


def done(service: Staffed, role: str, path: str, body: Any) -> str:
    """Where the result of a job is that ends well."""
    found = ended(service, role, ask(service, role, "POST", path, body))
    assert found["state"] == "done", found["problem"]
    return str(found["result"])


def terms(grant: str, recipient: str, dataset: str, fields: list[str], purpose: str, use: str) -> dict[str, Any]:
    at = now() - 1000
    return {
        "grant": grant,
        "recipient": recipient,
        "dataset": dataset,
        "fields": fields,
        "purposes": [purpose],
        "uses": [use],
        "legal_basis": "separate-consent",
        "consent_ref": "consents/1",
        "pia_ref": "assessments/1",
        "not_before": at,
        "expires": at + DAY,
        "delete_by": at + 2 * DAY,
    }


def test_a_bill_is_issued_and_proven_to_be_within_a_limit(services: dict[str, Staffed]) -> None:
    hospital, insurer = services["hospital-1"], services["insurer-1"]
    granted = terms("proofs", "insurer-1", "bills", ["amount"], "ELIGVER", "proof")
    assert done(hospital, "officer", "/v1/grants", granted) == "/v1/grants"
    result = done(hospital, "clerk", "/v1/bills", {"person": "p-1", "amount": "128.50", "currency": "CNY"})
    bill = ask(hospital, "clerk", "GET", result)
    assert bill["hospital"] == "hospital-1" and bill["currency"] == "CNY" and bill.keys() == SHOWN_OF_A_BILL
    assert ask(hospital, "clerk", "GET", "/v1/bills")["bills"] == [bill]
    asked = {"hospital": "hospital-1", "handle": bill["handle"], "currency": "CNY", "purpose": "ELIGVER"}
    shown = done(insurer, "clerk", "/v1/eligibility", asked | {"limit": "200", "grant": "proofs"})
    proof = ask(insurer, "clerk", "GET", shown)
    assert (proof["limit"], proof["handle"], proof["audience"]) == ("200.00", bill["handle"], "insurer-1")
    evidence = insurer.send("GET", f"{shown}/evidence", insurer.session("clerk"))
    assert decode(Presentation, evidence.content).nonce.hex() == proof["nonce"]
    for limit, grant in (("128.49", "proofs"), ("200", "another")):
        job = ask(insurer, "clerk", "POST", "/v1/eligibility", asked | {"limit": limit, "grant": grant})
        found = ended(insurer, "clerk", job)
        assert (found["state"], found["problem"]["code"]) == ("failed", "gateway.proof_refused")
    for other, code in (("insurer-1", "peers.oneself"), ("nobody", "organisations.unknown")):
        body = asked | {"limit": "200", "grant": "proofs", "hospital": other}
        assert refused(insurer, "clerk", "POST", "/v1/eligibility", body)[1]["code"] == code
    status, problem = refused(
        hospital, "clerk", "POST", "/v1/bills", {"person": "p-1", "amount": "1.5", "currency": "JPY"}
    )
    assert (status, problem["code"]) == (409, "money.no_amount")


def test_a_model_is_reviewed_by_a_person_and_scores_records(consorted: Consorted, services: dict[str, Staffed]) -> None:
    hospital, bureau, regulator = services["hospital-1"], services["bureau"], services["regulator"]
    model = {
        "model": "over-use",
        "features": [{"name": name, "low": 0, "high": 100} for name in ("cost", "age")],
        "weights": [2, -1],
        "weight_low": -10,
        "weight_high": 10,
        "limit": 60,
        "regulator": "regulator",
    }
    status, problem = refused(bureau, "officer", "POST", "/v1/models", model | {"weights": [2]})
    assert (status, problem["code"]) == (409, "gateway.model_weights")
    proposed = ask(bureau, "officer", "POST", "/v1/models", model)
    end = time.monotonic() + 60
    while not (shown := ask(regulator, "officer", "GET", "/v1/models/shown")["models"]):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert (shown[0]["owner"], shown[0]["weights"], shown[0]["status"]) == ("bureau", [2, -1], "waiting")
    review = f"/v1/models/shown/{shown[0]['review']}/review"
    assert done(regulator, "officer", review, {"approve": True}) == "/v1/models/shown"
    assert ended(bureau, "officer", proposed)["state"] == "done"
    (listed,) = ask(bureau, "officer", "GET", "/v1/models")["models"]
    assert (listed["model"], listed["owner"], listed["reviewer"]) == ("over-use", "bureau", "regulator")

    population = RegisterPopulation("stays", "row", 1, 1, tuple(SITES))
    consorted.do(consorted.consortium["hospital-1"].submit(population))
    loading = {"source": "exports", "table": "stays", "dataset": "stays-1"}
    loaded = ask(hospital, "auditor", "GET", done(hospital, "officer", "/v1/datasets", loading))
    for role, sees in (("officer", True), ("researcher", False), ("clerk", False)):  # exact counts are no colleague's
        assert (ask(hospital, role, "GET", "/v1/datasets/stays-1")["quality"] is not None) == sees
    assert loaded["quality"]["rows"] == len(COSTS) and loaded["columns"][0]["high"] == "100"
    scores = {"hospital": "hospital-1", "model": "over-use", "dataset": "stays-1", "purpose": "FRAUD"}
    denied = ended(bureau, "clerk", ask(bureau, "clerk", "POST", "/v1/scores", scores))
    assert denied["problem"]["code"] == "gateway.score_refused" and "deny_no_grant" in denied["problem"]["detail"]
    done(hospital, "officer", "/v1/grants", terms("scores", "bureau", "stays-1", ["cost", "age"], "FRAUD", "score"))
    found = ask(bureau, "clerk", "GET", done(bureau, "clerk", "/v1/scores", scores))
    assert sorted(flag["reached"] for flag in found["flags"]) == sorted(2 * cost - 40 >= 60 for cost in COSTS)


def test_uses_are_audited_anchored_and_shown_to_outsiders(
    consorted: Consorted, services: dict[str, Staffed], tmp_path: Path
) -> None:
    hospital, regulator = services["hospital-1"], services["regulator"]
    uses = ask(hospital, "auditor", "GET", "/v1/audit/flows")["flows"]
    assert [use["outcome"] for use in uses] == ["released", "aborted", "aborted", "denied", "released"]
    assert [use["use"]["kind"] for use in uses] == ["proof"] * 3 + ["score"] * 2
    page = ask(hospital, "auditor", "GET", "/v1/audit/entries?limit=3")
    assert page["next"] == 4 and page["anchored"] == 0 and len(page["entries"]) == 3
    rest = ask(hospital, "auditor", "GET", f"/v1/audit/entries?first={page['next']}")
    assert rest["next"] is None and len(rest["entries"]) == 7
    later = ask(hospital, "officer", "GET", f"/v1/audit/flows?first={uses[3]['intent']}&limit=1")
    assert later["flows"] == [uses[3]] and later["next"] == uses[4]["intent"]
    for name, value in (("recipient", "bureau"), ("grant", "scores"), ("dataset", "stays-1"), ("recipient", "nobody")):
        named = ask(hospital, "auditor", "GET", f"/v1/audit/flows?{name}={value}")
        assert named == {"flows": [use for use in uses if use["use"][name] == value], "next": None}
    both = ask(hospital, "auditor", "GET", "/v1/audit/flows?recipient=bureau&grant=scores&limit=1")
    assert [use["use"]["grant"] for use in both["flows"]] == ["scores"]
    (batch,) = ask(hospital, "officer", "POST", "/v1/audit/anchor", {})["batches"]
    assert (batch["first"], batch["last"], batch["head"]) == (1, 10, rest["entries"][-1]["head"])
    assert ask(hospital, "officer", "POST", "/v1/audit/anchor", {}) == {"batches": []}
    assert ask(hospital, "auditor", "GET", "/v1/audit/entries")["anchored"] == 10

    denied = ended(hospital, "officer", ask(hospital, "officer", "POST", "/v1/evidence", {"collect": True}))
    assert denied["problem"]["code"] == "organisations.role"  # only who supervises collects from others
    where = done(regulator, "auditor", "/v1/evidence", {"collect": True})
    (kept,) = ask(regulator, "officer", "GET", "/v1/evidence")["evidence"]
    assert where == f"/v1/evidence/{kept['evidence']}"
    whole = regulator.send("GET", where, regulator.session("auditor"))
    assert whole.headers["content-type"] == "application/zip"
    archive = zipfile.ZipFile(io.BytesIO(whole.content))
    assert len(archive.namelist()) == kept["files"]
    archive.extractall(tmp_path / "evidence")
    report = verify(tmp_path / "evidence", trust=consorted.trust)
    assert report.pinned and len([flow for flow in report.flows if flow.owner == "hospital-1"]) == 5
    assert refused(regulator, "auditor", "GET", f"/v1/evidence/{'0' * 32}")[0] == 404
    shown = ask(hospital, "admin", "GET", "/v1/service")
    assert shown["jobs"] == {"running": 0, "waiting": 0} and shown["catching_up"] is False
    consorted.catching_up = True  # as in a home that came back from a backup
    assert ask(hospital, "admin", "GET", "/v1/service")["catching_up"] is True
    consorted.catching_up = False


def test_keys_are_rotated_by_an_admin(consorted: Consorted, services: dict[str, Staffed]) -> None:
    insurer = services["insurer-1"]

    def envelope_key() -> str:
        members = ask(insurer, "auditor", "GET", "/v1/members")["members"]
        return str(next(one for one in members if one["organisation"] == "insurer-1")["keys"]["envelope"])

    before = envelope_key()
    job = ask(insurer, "admin", "POST", "/v1/members/rotation", {"notice": 2})
    result = ended(insurer, "admin", job)["result"]
    assert ask(insurer, "auditor", "GET", result)["handovers"] == []  # it does not hold yet
    for budget in (1, 2, 3):  # blocks pass
        service = services["hospital-1"]
        ask(service, "officer", "POST", "/v1/populations/stays/votes", {"budget_nano": budget})
    assert envelope_key() != before
    (evidence,) = ask(insurer, "auditor", "GET", "/v1/members/handovers")["handovers"]
    assert evidence and ask(insurer, "auditor", "GET", result)["handovers"] == [evidence]
    assert result.startswith("/v1/members/handovers?after=")
