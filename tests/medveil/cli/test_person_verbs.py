"""One person from the command line, at a running gateway: opt-outs, who uses and gets at their data, erasure, holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from client.world import World, running, terms

from wire.checkpoint import write_trust

from .test_consortium_verbs import At

WANG = "wang-wu-110101199003074518"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp, "researcher-1") as made:
        made.file = tmp_path_factory.getbasetemp() / "pinned-persons.json"  # type: ignore[attr-defined]
        write_trust(made.file, made.trust)  # type: ignore[attr-defined]
        vault = made.consorted.consortium["hospital-1"].vault
        visits = pa.table({"cost": [1, 2, 3], "note": ["planted note", "", ""]})
        vault.ingest("visits", visits, persons=[WANG, WANG, "li"])
        with made.client("hospital-1", "officer") as officer:
            officer.grants.issue(terms("hospital-1", grant="visits", dataset="visits", fields=("cost",)))
        yield made


@pytest.fixture
def officer(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> At:
    return At(world, "hospital-1", "officer", tmp_path / "officer", monkeypatch)


def said(officer: At, *arguments: object, code: int = 0) -> str:
    """What a verb says that asks for the person, in a process of its own: the runner shows what is typed."""
    run = officer.process(*arguments, input=WANG + "\n")
    assert run.returncode == code, run.stderr
    assert WANG not in run.stdout + run.stderr
    return str(run.stdout if code == 0 else run.stderr)


def test_opt_outs(officer: At) -> None:
    assert "none" in officer.run("opt-outs", "list").stdout
    added = said(officer, "opt-outs", "add", "all", "--until", "2079-01-01")
    assert "all: since" in added and "until 2079-01-01" in added and "statutory duty" in added
    (scope,) = officer.json("opt-outs", "list")["scopes"]
    assert scope == {"scope": "all", "value": "", "persons": 1}
    sight = json.loads(said(officer, "grants", "seen", "visits", "cost", "--person", "--json"))
    assert sight["sights"] == []
    assert "of this person" in said(officer, "grants", "seen", "visits", "cost", "--person")
    assert "not in force" in said(officer, "opt-outs", "withdraw", "all")
    assert "researcher-1" in said(officer, "grants", "seen", "visits", "cost", "--person")
    assert "no such opt-out" in said(officer, "opt-outs", "withdraw", "all", code=1)
    assert len(json.loads(said(officer, "opt-outs", "list", "--person", "--json"))["opt_outs"]) == 1
    assert officer.run("opt-outs", "add", "use", "query", "--since", "soon", code=2).exit_code == 2
    assert "needs a VALUE" in officer.run("opt-outs", "add", "purpose", code=2).output
    assert "no VALUE" in officer.run("opt-outs", "withdraw", "all", "HMB", code=2).output
    for name, told in (("researcher-1", ""), ("reseacher-1", "reseacher-1 is no member")):
        run = officer.process("opt-outs", "add", "recipient", name, input="li\n")
        assert run.returncode == 0 and told in run.stderr and ("no member" in run.stderr) is bool(told)
        said_of = officer.process("opt-outs", "withdraw", "recipient", name, input="li\n")
        assert said_of.returncode == 0
    stranger = officer.process("opt-outs", "list", "--person", input="nobody\n")
    assert "No opt-outs" in stranger.stdout and "typed right" in stranger.stdout


def test_from_the_plan_to_a_receipt_that_holds(officer: At, tmp_path: Path) -> None:
    shown = said(officer, "erasure", "plan", "--reference", "requests/7")
    assert "erase: 2 rows of visits" in shown and "--home" not in shown
    (listed,) = officer.json("erasure", "show")["erasures"]
    name, receipt = listed["erasure"], tmp_path / "receipt.evidence"
    assert listed["state"] == "planned" and name in shown
    done = officer.run("erasure", "apply", name, "--receipt", receipt).stdout
    assert "erased: 2 rows of visits" in done and "once the key epoch is rotated" in done
    checked = officer.run("erasure", "check", receipt, "--markers", "-", typed=f"{WANG}\nplanted note\n").stdout
    assert "Nothing of it is left here." in checked and "1 destroyed keys" in checked
    assert "medveil erasure rotate" in officer.run("erasure", "show").stdout
    again = officer.json("erasure", "apply", name, "--receipt", tmp_path / "second.evidence", "--rotate")
    assert again["state"] == "done" and officer.json("erasure", "show")["rotate_by"] == 0
    assert officer.json("erasure", "show", name)["rotated"] == again["rotated"] > 0
    uses = json.loads(said(officer, "trail", "person", "--json"))
    assert [(one["kind"], one["outcome"]) for one in uses["noted"]] == [("erasure", "done")]
    assert "erasure" in said(officer, "trail", "person")
    assert uses["known"] and "typed right" not in said(officer, "trail", "person")
    assert "typed right" in officer.process("trail", "person", input="somebody-else\n").stdout
    assert "holds no rows" in said(officer, "erasure", "plan", code=1)
    assert officer.refused("erasure", "apply", "00" * 16, "--receipt", tmp_path / "n") == "privacy.no_erasure"
    assert officer.refused("erasure", "apply", name, "--receipt", receipt) == "client.file_exists"
    assert officer.run("erasure", "apply", "7", "--receipt", tmp_path / "n", code=2).exit_code == 2
    assert "at least 4" in officer.run("erasure", "check", receipt, "--markers", "-", typed="abc", code=2).output
    assert not (tmp_path / "n").exists()


def test_holds_and_what_is_due(officer: At) -> None:
    hold = ("erasure", "hold", "case-7", "--reference", "court/7", "--dataset", "visits")
    nobody = officer.process(*hold, input="nobody\n")
    assert nobody.returncode == 1 and "nothing is kept here" in nobody.stderr
    placed = said(officer, *hold, "--not-here-yet")  # whether or not the test before erased the rows
    assert "case-7: holds visits" in placed and "no end" in placed
    (held,) = officer.json("erasure", "holds")["holds"]
    assert (held["hold"], held["of"], held["until"]) == ("case-7", "one person", None)
    assert officer.json("erasure", "lift", "case-7")["until"] is not None
    assert "one person" in officer.run("erasure", "holds").stdout
    assert officer.json("erasure", "plan", "--due") == []
    assert "Nothing that was restricted" in officer.run("erasure", "plan", "--due").stdout
    assert officer.refused("erasure", "lift", "case-8") == "privacy.no_hold"


def test_nobody_else_may(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    researcher: Any = At(world, "hospital-1", "researcher", tmp_path / "researcher", monkeypatch)
    for verb in (("opt-outs", "list", "--person"), ("erasure", "plan"), ("trail", "person")):
        assert "officer" in said(researcher, *verb, code=1)
    assert researcher.refused("erasure", "show") == researcher.refused("opt-outs", "list") == "rights.not_yours"
