"""A question's whole way over real gateways: loaded, granted, asked and read over HTTPS by the organisations' people.

One `medveil serve` an organisation, mutual TLS between them, sign-in with one-time codes before each. The release and
the evidence folder are checked with the trust file that was pinned at founding. Then a grant is revoked while its
site takes part in a query.
"""

from __future__ import annotations

import csv
import io
import json
import os
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger.export import LedgerExport, verify_export
from ledger.pieces import read_whole
from medveil.gateway.query_board import read_board
from medveil.verification import verify
from mpc.release import Release, verify_release
from tests.medveil.conftest import DATASET_TOML, rows
from wire.canonical import decode
from wire.checkpoint.trust_file import parse_trust

from .conftest import PASS, Consortium, now
from .staff import Colleague, Office
from .test_serve_process import ROOT, Served

HOSPITALS = ("hospital-1", "hospital-2", "hospital-3")
MEMBERS = {"bureau": "bureau", **dict.fromkeys(HOSPITALS, "hospital"), "researcher": "researcher"}
RHO = 10_000_000
DAY = 86_400_000
QUESTION = {
    "population": "stays",
    "measures": [{"column": "cost", "low": "0", "high": "100", "edges": ["0", "50", "100"]}],
    "groups": [{"column": "ward", "other": False}],
    "purpose": "HMB",
    "rho": "0.01",
    "minimum_group": 10,
}


def data_folder(folder: Path, site: int) -> Path:
    """A data folder with one table."""
    source = folder / "exports"
    source.mkdir(parents=True)
    (source / "dataset.toml").write_bytes(DATASET_TOML)
    table = rows(site)
    with (source / "stays.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["id", *table.column_names])
        for number, row in enumerate(table.to_pylist()):
            out.writerow([f"r{number}", *row.values()])
    return folder


class Story:
    """A consortium as its people see it."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.consortium = Consortium(folder / "homes", MEMBERS)
        self.trust = self.consortium.trust
        self.folder = folder
        self._environment = environment
        self.offices = {
            name: Office(self.consortium, name, ("officer", "auditor"), data_folder(folder / f"data-{name}", number))
            for number, name in enumerate(HOSPITALS, start=1)
        }
        self.offices["researcher"] = Office(self.consortium, "researcher", ("researcher", "auditor"))
        self.offices["bureau"] = Office(self.consortium, "bureau", ("auditor",))
        self.served: dict[str, Served] = {}
        self.people: dict[tuple[str, str], Colleague] = {}

    def start(self, *names: str) -> None:
        for name in names:
            self.served[name] = Served(self.consortium.folder / name, self._environment)
        for name in names:
            self.offices[name].ready()

    def stop(self, name: str) -> None:
        assert self.served.pop(name).end() == 0

    def at(self, name: str, role: str) -> Colleague:
        if (name, role) not in self.people:
            self.people[name, role] = self.offices[name].person(role)
        return self.people[name, role]

    def close(self) -> None:
        for person in self.people.values():
            person.close()
        for one in self.served.values():
            one.process.kill()
            one.process.wait(30)


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    secret = tmp_path / "passphrase"
    secret.write_text(PASS)
    secret.chmod(0o600)
    story = Story(tmp_path, {**os.environ, "PYTHONPATH": str(ROOT), "MEDVEIL_PASSPHRASE_FILE": str(secret)})
    try:
        yield story
    finally:
        story.close()


def terms(hospital: str) -> dict[str, Any]:
    at = now() - 1000
    return {
        "grant": f"study-{hospital}",
        "recipient": "researcher",
        "dataset": f"stays-{hospital}",
        "fields": ["cost", "ward"],
        "filter": {"column": "cost", "at_least": "0.0"},
        "purposes": ["HMB"],
        "uses": ["query"],
        "legal_basis": "separate-consent",
        "consent_ref": "consents/1",
        "pia_ref": "assessments/1",
        "not_before": at,
        "expires": at + DAY,
        "delete_by": at + 2 * DAY,
    }


def prepare(story: Story) -> None:
    """The hospitals' officers open a population, vote its budget, load their tables and grant their use."""
    first = story.at(HOSPITALS[0], "officer")
    population = {"population": "stays", "unit": "row", "rows_per_person": 1, "owners": list(HOSPITALS)}
    first.write("/v1/populations", population, story.trust)
    for name in HOSPITALS:
        officer = story.at(name, "officer")
        officer.write("/v1/populations/stays/votes", {"budget_nano": 10 * RHO}, story.trust)
        (source,) = officer.get("/v1/sources")["sources"]
        assert source == {"source": "exports", "table": "stays", "layout": "stays", "population": "stays"}
        loading = {"source": "exports", "table": "stays", "dataset": f"stays-{name}"}
        loaded = officer.get(officer.done("/v1/datasets", loading))
        assert loaded["own"] and loaded["current"] and loaded["quality"]["rows"] == 60 and loaded["row_class"] == 100
        use = {"fields": ["cost", "ward"], "kind": "query", "purpose": "HMB"}
        for other, allowed, rule in (({"fields": ["age"]}, False, "fields"), ({}, True, "granted")):
            tried = officer.client.post("/v1/grants/preview", json={"terms": terms(name), "use": use | other}).json()
            assert (tried["allowed"], tried["rule"]) == (allowed, rule) and tried["decision"]
        assert officer.done("/v1/grants", terms(name)) == "/v1/grants"
        (issued,) = officer.get("/v1/grants")["grants"]
        assert issued["status"] == "in-force" and issued["terms"]["grant"] == f"study-{name}"


def until(look: Any, seconds: float = 60) -> Any:
    """What `look` finds, once it finds something."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


@pytest.mark.timeout(280)
def test_a_question_is_granted_asked_and_read(story: Story) -> None:
    story.start(*MEMBERS)
    prepare(story)
    researcher = story.at("researcher", "researcher")
    held = until(lambda: len(found := researcher.get("/v1/grants/held")["grants"]) == 3 and found)
    assert {grant["status"] for grant in held} == {"in-force"}

    explained = researcher.client.post("/v1/queries/explain", json=QUESTION).json()
    assert explained["query"]["roster"] == list(HOSPITALS) and explained["enough"]
    assert (explained["before"], explained["after"]) == (10 * RHO, 9 * RHO)
    for changes, code, status in (
        ({"rho": "-1"}, "rho", 422),
        ({"measure": "cost"}, "unknown", 422),
        ({"roster": ["a", "b"]}, "roster_size", 409),
    ):
        for path in ("/v1/queries", "/v1/queries/explain"):
            wrong = researcher.client.post(path, json=QUESTION | changes)
            assert (wrong.status_code, wrong.json()["code"]) == (status, f"query_document.{code}")
    job = researcher.begin("/v1/queries", QUESTION, key="the-first-one")
    assert researcher.begin("/v1/queries", QUESTION, key="the-first-one") == job
    told = researcher.follow(job)
    assert [one["steps"] for one in told] == sorted(one["steps"] for one in told) and told[-1]["state"] == "done"
    result = told[-1]["result"]
    found = researcher.get(result)
    assert found["status"] == "released" and found["approvals"] and found["rho_nano"] == RHO
    release = found["release"]
    assert release["noise"] == explained["noise"] and release["epsilons"] == explained["epsilons"]
    assert (release["budget_before_nano"], release["budget_after_nano"]) == (10 * RHO, 9 * RHO)
    (east,) = [group for group in release["results"][0]["groups"] if group["values"] == ["east"]]
    assert float(east["count"]["low"]) - 40 < 120 < float(east["count"]["high"]) + 40  # 40 of 60 rows at each site

    evidence = decode(Release, researcher.bytes_of(f"{result}/evidence"))
    auditor = story.at("bureau", "auditor")
    where = auditor.done("/v1/evidence", {"collect": True})
    folder = story.folder / "evidence"
    zipfile.ZipFile(io.BytesIO(auditor.bytes_of(where))).extractall(folder)
    report = verify(folder, trust=story.trust)
    assert report.pinned and report.exporter == "bureau"
    ledger = read_whole(folder / "ledger.evidence")
    assert isinstance(ledger, LedgerExport)
    board = read_board(verify_export(ledger, story.trust), evidence.handle)
    verify_release(evidence, board)
    assert evidence.handle.hex() == found["query"] and len(researcher.get(f"{result}/receipts")["receipts"]) >= 5
    assert parse_trust(researcher.bytes_of("/v1/members/trust")) == story.trust

    for name in HOSPITALS:
        auditor = story.at(name, "auditor")
        (part,) = until(
            lambda auditor=auditor: [
                one for one in auditor.get("/v1/queries/served")["served"] if one["outcome"] == "released"
            ]
        )
        assert (part["query"], part["use"]["recipient"], part["use"]["grant"]) == (
            found["query"],
            "researcher",
            f"study-{name}",
        )


@pytest.mark.timeout(280)
def test_a_revoked_grant_stops_what_runs_under_it(story: Story) -> None:
    story.start(*MEMBERS)
    prepare(story)
    researcher, officer = story.at("researcher", "researcher"), story.at("hospital-1", "officer")
    until(lambda: len(researcher.get("/v1/grants/held")["grants"]) == 3)
    story.stop("hospital-3")
    job = researcher.begin("/v1/queries", QUESTION)

    def approved() -> Any:
        asked = researcher.get("/v1/queries")["queries"]
        return asked and set(asked[0]["approvals"]) == {"hospital-1", "hospital-2"} and asked[0]

    asked = until(approved)
    assert asked["status"] == "proposed"
    officer.write("/v1/grants/study-hospital-1/revoke", {}, story.trust)
    assert officer.get("/v1/grants")["grants"][0]["status"] == "revoked"
    ended = until(lambda: [one for one in officer.get("/v1/queries/served")["served"] if one["outcome"] == "aborted"])
    assert [(one["query"], one["use"]["grant"]) for one in ended] == [(asked["query"], "study-hospital-1")]

    def failed() -> list[dict[str, Any]]:  # after the outcome is written, and the query closed
        lines = (story.consortium.folder / "hospital-1" / "serve.log").read_text().splitlines()
        return [line for line in map(json.loads, filter(is_json, lines)) if line["event"].startswith("job.failed")]

    jobs = until(failed)
    assert [(line["kind"], line["reason"]) for line in jobs] == [("query.serve", "gateway.grant_gone")]
    closed = until(lambda: (one := researcher.get(f"/v1/queries/{asked['query']}"))["status"] == "closed" and one)
    assert closed["release"] is None

    story.start("hospital-3")  # the researcher's own part ends with everybody's answer
    assert researcher.follow(job)[-1]["state"] == "failed"
    assert researcher.get(job)["problem"]["code"] in ("gateway.stopped", "gateway.site_refused", "gateway.query_closed")
    (population,) = researcher.get("/v1/populations")["populations"]
    assert population["budget"] == {"voted": 10 * RHO, "reserved": 0, "spent": 0, "available": 10 * RHO}
    assert researcher.client.get(f"/v1/queries/{asked['query']}/evidence").status_code == 404


def is_json(line: str) -> bool:
    return line.startswith("{")
