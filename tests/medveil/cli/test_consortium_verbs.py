"""The main job from the command line, at the gateways' own services: members, budgets, grants, a question, evidence."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from client.world import LAYOUT, SITES, World, running, terms

from medveil.cli.terms import MEANINGS
from medveil.client import Terms
from medveil.service.home.cards import fingerprint, make_card
from wire.canonical import encode
from wire.checkpoint import read_trust, trust_of, write_trust
from wire.errors import MedveilError, Refused
from wire.keyset import MembershipChange, MembershipChanges

from .conftest import Person

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folders: dict[str, Path] = {}

    def make(name: str) -> Path:
        return folders.setdefault(name, tmp_path_factory.mktemp(name))

    with running(make, "researcher-1", "insurer-1") as made:
        made.folders = folders  # type: ignore[attr-defined]
        write_trust(tmp_path_factory.getbasetemp() / "pinned.json", made.trust)
        made.file = tmp_path_factory.getbasetemp() / "pinned.json"  # type: ignore[attr-defined]
        yield made


class At(Person):
    """Somebody at the command line who is signed in to one organisation's gateway."""

    def __init__(self, world: World, name: str, role: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder.mkdir()
        super().__init__(folder, monkeypatch)
        self.folder = folder
        service = world.services[name]
        self.said = self.sign_in(service.address, role, "--trust", world.file).output  # type: ignore[attr-defined]

    def json(self, *arguments: object) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)

    def refused(self, *arguments: object, code: int = 1) -> str:
        error = self.run(*arguments, code=code).exception
        assert isinstance(error, MedveilError), error
        return error.code


@pytest.fixture
def at(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], At]:
    def sign_in(name: str, role: str) -> At:
        return At(world, name, role, tmp_path / f"{name}-{role}", monkeypatch)

    return sign_in


def test_members_and_trust(world: World, at: Any, tmp_path: Path) -> None:
    officer = at("hospital-1", "officer")
    genesis = world.trust.genesis_hash[:16].hex()
    assert "Pinned chain test-chain" in officer.said and genesis in officer.said.replace(" ", "")
    listed = officer.json("members", "list")
    assert {"hospital-1", "bureau"} <= {member["organisation"] for member in listed["members"]}
    assert "bureau orders" in officer.run("members", "list").output
    assert officer.json("members", "trust")["chain"] == "test-chain"
    (pinned,) = (officer.config / "trust").iterdir()
    assert read_trust(pinned).genesis_hash == world.trust.genesis_hash
    from service.working import applicant

    with applicant(tmp_path / "maker", "maker-1", ("maker",)) as maker:
        card = make_card(maker.member(False), world.trust.genesis_hash, maker.keys.first.signers)
    (tmp_path / "card.evidence").write_bytes(encode(card))
    assert officer.refused("members", "admit", tmp_path / "card.evidence", "--fingerprint", "0") == (
        "cards.other_fingerprint"
    )
    voted = officer.run("members", "admit", tmp_path / "card.evidence", typed=fingerprint(card) + "\n").output
    assert "by a receipt that holds" in voted
    (vote,) = officer.json("members", "list")["votes"]
    assert (vote["about"], vote["organisation"], vote["voters"]) == ("admission", "maker-1", ["hospital-1"])
    assert f"admission of maker-1: 1 of {vote['needed']} votes (hospital-1)" in officer.run("members", "list").output
    other = at("hospital-2", "officer")
    other.run("members", "remove", "insurer-1")
    removal = next(one for one in other.json("members", "list")["votes"] if one["about"] == "removal")
    assert (removal["organisation"], removal["voters"], removal["application"]) == ("insurer-1", ["hospital-2"], "")
    assert officer.refused("members", "admit", tmp_path / "nothing", "--fingerprint", "0") == "client.unreadable"
    assert officer.refused("members", "remove", "nobody") in ("organisations.unknown", "organisations.not_member")
    officer.run("members", "leave", typed="n\n", code=1)
    block = at("hospital-3", "admin").json("members", "rotate", "--notice", "60")["block"]
    (change,) = officer.json("members", "list")["changes"]
    assert change == {"about": "rotation", "organisation": "hospital-3", "block": block}
    assert f"rotation of hospital-3: decided, takes effect in block {block}\n" in officer.run("members", "list").output


def test_budgets_and_tables(at: Any) -> None:
    officer = at("hospital-2", "officer")
    (population,) = officer.json("populations", "list")["populations"]
    assert population["budget"]["voted"] == 10**9
    assert "hospital-2 1" in officer.run("populations", "list").output
    assert officer.json("populations", "vote", "stays", "1")["height"] > 0
    assert officer.json("populations", "list")["populations"][0]["awaited"] == []
    officer.run("populations", "vote", "stays", "2")  # 1 stays in force until the others say so, too
    (population,) = officer.json("populations", "list")["populations"]
    others = [owner for owner in population["owners"] if owner != "hospital-2"]
    assert (population["budget"]["voted"], population["awaited"]) == (10**9, others)
    shown = officer.run("populations", "list").output
    assert all(shown.count(owner) > 1 for owner in others)  # among the owners, and among those who are awaited
    officer.run("populations", "vote", "stays", "1")
    for wrong in ("0", "-1", "x", "0.0000000001", "NaN"):
        officer.run("populations", "vote", "stays", "--", wrong, code=2)
    assert officer.refused("populations", "vote", "nobodys", "1") == "datasets.unknown_population"
    registered = ("populations", "register", "later", "--unit", "person", "--rows-per-person", "2")
    assert "on the ledger" in officer.run(*registered, *(f"--owner={site}" for site in SITES)).output.lower()
    assert (
        "counts persons, 2 rows each, who may be at every site, 1 colluder\n"
        in officer.run("populations", "vote", "later", "1").output
    )
    open_to_all = ("populations", "register", "open", "--unit", "row", "--colluders", "0", "--public")
    officer.run(*open_to_all, *(f"--owner={site}" for site in SITES))
    assert "PUBLIC" in officer.run("populations", "list").output
    assert officer.refused("populations", "vote", "open", "1") == "populations.vote_public"
    opened = {one["population"]: one for one in officer.json("populations", "list")["populations"]}["open"]
    assert opened["votes"] == []
    agreed = officer.run("populations", "vote", "open", "1", "--public").output
    assert "open: counts rows, 0 colluders, PUBLIC: without noise\n" in agreed
    sources = officer.run("datasets", "sources").output
    assert "stays" in sources and "Not half-done: half-done/dataset.toml" in " ".join(sources.split())
    (bad,) = officer.json("datasets", "sources")["bad"]
    assert bad["source"] == "half-done" and bad["code"].startswith("connectors.") and bad["fix"]
    assert len(officer.json("datasets", "list", "--population", "stays")["datasets"]) == 3
    shown = officer.run("datasets", "show", "stays-hospital-2").output
    assert "60 rows" in shown and "ward" in shown
    assert officer.json("datasets", "show", "stays-hospital-1")["quality"] is None
    again = officer.run("datasets", "load", "stays", "rows", "stays-hospital-2")  # it is there: nothing to be done
    assert "is loaded" in again.output


def test_grants(at: Any, tmp_path: Path) -> None:
    officer = at("hospital-3", "officer")
    file = tmp_path / "terms.json"
    given = terms("hospital-3", grant="trial")
    said = {name: getattr(given, name) for name in given.__struct_fields__}
    said |= {
        "filter": {"column": "cost", "less_than": "37.5"},
        "expires": "2099-01-01",
        "delete_by": "2099-01-02T00:00Z",
    }
    file.write_text(json.dumps(said))
    tried = ("grants", "preview", file, "--purpose", "HMB", "--filter", '{"column": "cost", "less_than": 30}')
    assert "trial covers" in officer.run(*tried, "--kind", "query", "--field", "cost").output
    assert "Denied" in officer.run(*tried, "--kind", "extract", code=1).output
    issued = officer.run("grants", "issue", file)
    assert "trial is issued to researcher-1: in-force" in issued.output
    assert "study-hospital-3" in officer.run("grants", "list").output
    assert officer.json("grants", "revoke", "trial")["height"]
    statuses = {one["terms"]["grant"]: one["status"] for one in officer.json("grants", "list")["grants"]}
    assert statuses["trial"] == "revoked"
    for wrong in (
        "{",
        "[]",
        '{"grant": "\\ud800"}',
        '{"review": NaN}',
        json.dumps(said | {"surprise": 1}),
        json.dumps(said | {"expires": "soon"}),
        "{}",
    ):
        file.write_text(wrong)
        officer.run("grants", "issue", file, code=2)
    file.write_text('{"purposes": ["HMB"], "purposes": ["FRAUD"]}')
    assert "purposes stands twice" in " ".join(officer.run("grants", "issue", file, code=2).output.split())


def test_terms_from_a_template(at: Any, tmp_path: Path) -> None:
    officer = at("hospital-2", "officer")
    template = ("grants", "template", "stays-hospital-2", "researcher-1", "--purpose", "HMB")
    made = officer.json(*template)
    assert made["fields"] == ["cost", "age", "ward"] and made["uses"] == ["query"] and len(made["grant"]) <= 64
    assert set(made) == {one.name for one in msgspec.structs.fields(Terms)} == set(MEANINGS)
    file = tmp_path / "terms.json"
    officer.run(*template, "--field", "cost", "--grant", "drafted", "--out", file)
    assert officer.refused(*template, "--out", file) == "client.file_exists"
    assert "filled in: consent_ref, pia_ref" in officer.run("grants", "issue", file, code=2).output
    file.write_text(file.read_text().replace("FILL IN: where", "filed where"))
    assert "Allowed" in officer.run("grants", "preview", file, "--kind", "query", "--purpose", "HMB").output
    assert "drafted is issued to researcher-1: in-force" in officer.run("grants", "issue", file).output
    bills = officer.json("grants", "template", "bills", "insurer-1", "--purpose", "ELIGVER", "--days", "1")
    assert (bills["uses"], bills["fields"]) == (["proof"], ["amount"])
    for wrong in (("--field", "nothing"), ("--use", "nothing"), ("--days", "0")):
        officer.run(*template, *wrong, code=2)
    own = officer.run("grants", "template", "stays-hospital-2", "hospital-2", "--purpose", "HMB", code=2)
    assert "hospital-2 holds the data itself" in " ".join(own.output.split())
    others = officer.run("grants", "template", "stays-hospital-1", "researcher-1", "--purpose", "HMB", code=2)
    assert "stays-hospital-2, bills" in " ".join(others.output.split())
    file.write_text("{}")
    assert "legal_basis: consent" in " ".join(officer.run("grants", "issue", file, code=2).output.split())


def test_terms_for_a_population_of_persons(world: Any, at: Any, tmp_path: Path) -> None:
    """A query of it reads the column that names the person, which the ledger does not declare: terms can name it."""
    source: Path = world.folders["data-hospital-2"] / "persons"
    source.mkdir()
    text = LAYOUT.replace('"stays"', '"persons"').replace('unit = "row"', 'unit = "person"\nperson = "card"')
    (source / "dataset.toml").write_text(text, encoding="utf-8")
    (source / "rows.csv").write_text("id,card,cost,age,ward\n1,c-1,5,7,east\n2,c-1,6,8,west\n")
    officer = at("hospital-2", "officer")
    officer.run("populations", "register", "persons", "--owner", "hospital-2")
    officer.run("datasets", "load", "persons", "rows", "persons-hospital-2")
    try:
        assert officer.json("datasets", "show", "persons-hospital-2")["person"] == "card"
        assert officer.json("datasets", "show", "stays-hospital-2")["person"] is None
        template = ("grants", "template", "persons-hospital-2", "researcher-1", "--purpose", "HMB")
        assert officer.json(*template)["fields"] == ["cost", "age", "ward", "card"]
        assert officer.json(*template, "--field", "cost", "--field", "card")["fields"] == ["cost", "card"]
        wrong = officer.run(*template, "--field", "cards", code=2).output
        assert "has: cost, age, ward, card" in " ".join(wrong.split())
        file = tmp_path / "terms.json"
        more = ("--consent-ref", "consents/1", "--pia-ref", "assessments/1", "--out", file)
        officer.run(*template, *more)
        assert "in-force" in officer.run("grants", "issue", file).output
        other = at("hospital-1", "officer")
        assert other.json("datasets", "show", "persons-hospital-2")["person"] is None  # its owner's to know
    finally:
        shutil.rmtree(source)


def test_a_question_and_what_became_of_it(world: World, at: Any, tmp_path: Path) -> None:
    researcher = at("researcher-1", "researcher")
    file = tmp_path / "question.json"
    written = researcher.run("queries", "template", "stays", "cost", "--by", "ward", "--rho", "0.2").output
    question = json.loads(written)
    question["groups"][0]["other"] = False
    file.write_text(json.dumps(question))
    checked = researcher.run("queries", "check", file).output
    assert "in order" in checked and "cost" in checked
    assert researcher.json("queries", "check", file) == question
    explained = researcher.run("queries", "explain", file).output
    assert "hospital-1 over its table stays-hospital-1" in explained and "epsilon" in explained
    assert researcher.json("queries", "explain", file)["enough"]
    file.write_text(json.dumps(question | {"measures": [{"column": "cost", "edges": ["0", "50", "100"]}]}))
    evidence = tmp_path / "release.evidence"
    first = researcher.json("queries", "ask", file, "--key", "one", "--out", evidence)
    (result,) = first["results"]
    assert first["verified"] and {tuple(group["values"]) for group in result["groups"]} == {("east",), ("west",)}
    shown = researcher.run("queries", "release", first["query"]).output
    verified = shown[shown.index("Verified by proofs of the ledger") :]
    assert "east" in shown and "cost from 0 to 100 by ward" in verified and "0.2 spent" in verified
    assert "not asked, though owners: insurer-1" in " ".join(verified.split())
    assert "left in block" in verified and "nobody checked" in verified  # what was meant, this verb cannot know
    assert first["answers_the_question"] and first["not_asked"] == ["insurer-1"]
    assert first["available_nano"] == first["budget_after_nano"] and first["asked"]["population"] == "stays"
    assert researcher.json("show", evidence)["type"] == "mpc.release"
    assert researcher.refused("queries", "release", first["query"], "--out", evidence) == "client.file_exists"
    assert first["query"] in researcher.run("queries", "list").output
    stands = researcher.json("queries", "show", first["query"])
    assert stands["status"] == "released" and stands["salted_hash"] == first["salted_hash"]
    assert first["salted_hash"] in verified
    assert "study-hospital-2" in researcher.run("grants", "held").output
    file.write_text(json.dumps(question | {"purpose": "GRU"}))
    assert researcher.refused("queries", "ask", file) == "gateway.site_refused"
    file.write_text(json.dumps(question | {"rho": 0.25}))
    for verb in ("check", "explain", "ask"):
        assert researcher.refused("queries", verb, file) == "query_document.rho"
    assert researcher.refused("queries", "check", tmp_path / "nothing.json") == "client.unreadable"
    page = tmp_path / "release.html"
    researcher.run("queries", "release", first["query"], "--page", page)
    assert page.read_text().startswith("<!doctype html>") and first["salted_hash"] in page.read_text()
    clerk = at("hospital-2", "auditor")
    explained = clerk.run("queries", "explain", "--served", first["query"]).output
    assert "hospital-2 over its table stays-hospital-2" in explained
    clerk.run("queries", "explain", code=2)
    file.write_text(json.dumps(question | {"purpose": "GRU"}))
    asked = at("hospital-2", "officer").run("queries", "explain", file).output  # before anybody asks it
    assert "What this site would answer now" in asked and "researcher-1: Denied by rule purpose" in asked
    served = clerk.json("queries", "served")["served"]
    assert any(one["query"] == first["query"] for one in served)
    assert "researcher-1" in clerk.run("queries", "served").output
    assert "study-hospital-2" in clerk.run("audit", "flows").output
    assert clerk.run("audit", "entries", "--limit", "2").output.count("\n") >= 3
    receipts = clerk.json("receipts", "list")["entries"]
    kept = tmp_path / "receipt.evidence"
    got = clerk.json("receipts", "get", receipts[0]["envelope"], "--out", kept)
    assert got["height"] == receipts[0]["height"] and clerk.json("show", kept)["type"] == "ledger.receipt"
    assert clerk.json("ledger", "head")["height"] >= got["height"]
    votes = clerk.json("ledger", "entries", "--kind", "datasets.vote_budget", "--organisation", "hospital-2")
    assert votes["entries"] and "datasets.vote_budget" in clerk.run("ledger", "entries").output
    clerk.run("ledger", "entries", "--since", "soon", code=2)


def test_evidence_is_exported_and_verified(world: World, at: Any, tmp_path: Path) -> None:
    auditor = at("hospital-1", "auditor")
    out = tmp_path / "evidence.zip"
    said = auditor.run("evidence", "export", "--out", out).stdout
    assert "medveil verify" in said
    (folder,) = auditor.json("evidence", "list")["evidence"]
    auditor.run("evidence", "get", folder["evidence"], tmp_path / "again.zip")
    with zipfile.ZipFile(out) as archive:
        archive.extractall(tmp_path / "evidence")
    (pinned,) = (auditor.config / "trust").iterdir()
    verified = auditor.run("verify", tmp_path / "evidence", "--trust", pinned, code=None)
    assert verified.exit_code in (0, 4), (verified.output, verified.exception)
    admin = at("hospital-1", "admin")
    assert admin.json("service", "show")["organisation"] == "hospital-1"


def test_bills_and_proofs(world: World, at: Any, tmp_path: Path) -> None:
    officer = at("hospital-1", "officer")
    file = tmp_path / "terms.json"
    given = terms("hospital-1", grant="claims", recipient="insurer-1", dataset="bills", fields=("amount",))
    said = {name: getattr(given, name) for name in given.__struct_fields__} | {
        "purposes": ["ELIGVER"],
        "uses": ["proof"],
    }
    file.write_text(json.dumps(said))
    officer.run("grants", "issue", file)
    clerk = at("hospital-1", "clerk")
    assert "handle" in clerk.run("bills", "issue", "12.00", typed="11010119900307451X\n").output
    bill = clerk.json("bills", "issue", "128.50", "--person", "person-7")
    assert (
        bill["handle"] in clerk.run("bills", "list").output
        and bill["handle"] in clerk.run("bills", "show", bill["handle"]).output
    )
    insurer = at("insurer-1", "clerk")
    options = ("--hospital", "hospital-1", "--purpose", "ELIGVER", "--grant", "claims")
    assert insurer.refused("eligibility", "ask", bill["handle"], "200", *options, "--commercial").endswith("refused")
    proof = insurer.json("eligibility", "ask", bill["handle"], "200", *options)
    kept = tmp_path / "proof.evidence"
    assert insurer.json("eligibility", "show", proof["nonce"], "--out", kept) == proof and kept.exists()
    over = insurer.run("eligibility", "ask", bill["handle"], "100", *options, code=1)
    said = over.output + str(over.exception)
    assert isinstance(over.exception, Refused) and not {"128.5", "12850"} & set(re.findall(r"[0-9.]+", said))


def test_a_trust_file_that_says_other_things_is_not_pinned(world: World, at: Any, tmp_path: Path) -> None:
    """Of one chain: what knows more changes of members replaces what knows fewer, and nothing else does."""
    from medveil.cli.kept import pin

    def left(name: str, previous: int = 0, height: int = 5) -> MembershipChanges:
        return MembershipChanges(height, previous, (MembershipChange(name, None),))

    officer = at("hospital-1", "officer")
    place = next((officer.config / "trust").iterdir())
    founding = trust_of(read_trust(place).founding)
    files = {}
    for name, changes in {
        "none": (),
        "one": (left("insurer-1"),),
        "other": (left("regulator"),),
        "two": (left("insurer-1"), left("regulator", 5, 9)),
    }.items():
        files[name] = tmp_path / f"{name}.json"
        write_trust(files[name], founding.with_changes(changes))
    place.unlink()
    for name, known in (("none", 0), ("one", 1), ("none", 1), ("two", 2), ("one", 2)):
        assert pin(files[name]) == place and len(read_trust(place).changes) == known
    with pytest.raises(Refused) as other:
        pin(files["other"])
    assert other.value.code == "client.other_trust" and len(read_trust(place).changes) == 2
