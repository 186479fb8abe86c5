"""`medveil trail` on a home: what one person is told, what provenance says, what may be pruned."""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from medveil.service.home.home import Home
from privacy.audit import Use, own_use

PASS = "correct horse battery"
WANG, LI = "wang-wu-110101", "li-si-220202"
YEARS = 31_622_400_000


def now() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two uses of four years ago, on the ledger; one of today that looked at Wang's record, and one at Li's."""
    secret = tmp_path / "passphrase"
    secret.touch(mode=0o600)
    secret.write_text(PASS + "\n")
    monkeypatch.setenv("MEDVEIL_PASSPHRASE_FILE", str(secret))
    folder = tmp_path / "hospital-1"
    Home.create(folder, "hospital-1", ("hospital",), PASS, secrets.token_bytes, now)
    use = Use("university", "visits", "query", "HRESCH", "grant-1", b"", True, "granted")
    with Home.open(folder, PASS, secrets.token_bytes, lambda: now() - 4 * YEARS) as opened:
        vault, trail = opened.organisation.vault, opened.organisation.audit
        vault.ingest("visits", pa.table({"cost": pa.array([1.0, 2.0])}), persons=[WANG, LI])
        trail.outcome(trail.intent(use), "released")
        batch = trail.batch()
        assert batch is not None
        trail.anchored(batch)
    with Home.open(folder, PASS, secrets.token_bytes, now) as opened:
        vault, trail = opened.organisation.vault, opened.organisation.audit
        trail.outcome(trail.intent(use, persons=[vault.person_id(WANG)]), "released")
        trail.outcome(trail.intent(use, persons=[vault.person_id(LI)]), "released")
        trail.outcome(trail.intent(own_use("hospital-1", "visits", "erasure")), "done")
        batch = trail.batch()
        assert batch is not None
        trail.anchored(batch)
    return folder


def test_a_person_is_told_what_looked_at_them_and_what_may_have(person: Any, home: Path) -> None:
    shown = person.process("trail", "person", "--home", home, "--json", input=WANG + "\n")
    assert shown.returncode == 0 and WANG not in shown.stdout
    found = json.loads(shown.stdout)
    assert [use["entry"] for use in found["noted"]] == [3]
    assert [(use["entry"], use["reached"]) for use in found["possible"]] == [(1, None), (5, None)]
    text = person.process("trail", "person", "--home", home, input=WANG + "\n").stdout
    assert "own record" in text and "not known" in text and "university" in text
    nobody = json.loads(person.process("trail", "person", "--home", home, "--json", input="nobody\n").stdout)
    assert nobody == {"known": False, "noted": [], "possible": []}


def test_provenance_is_written_whole_or_by_name(person: Any, home: Path, tmp_path: Path) -> None:
    from prov.model import ProvActivity, ProvDocument

    for name, more, count in (
        ("all", (), 4),
        ("some", ("--recipient", "university"), 3),
        ("grant", ("--grant", "grant-1", "--dataset", "visits"), 3),
        ("none", ("--dataset", "bills"), 0),
    ):
        out = tmp_path / f"{name}.json"
        assert (
            json.loads(person.run("trail", "provenance", "--home", home, "--out", out, *more, "--json").stdout)["uses"]
            == count
        )
        read = ProvDocument.deserialize(content=out.read_text(), format="json")
        assert len(list(read.get_records(ProvActivity))) == count
    again = person.process("trail", "provenance", "--home", home, "--out", tmp_path / "all.json")
    assert again.returncode == 1


def test_the_old_end_goes_when_it_may(person: Any, home: Path) -> None:
    assert json.loads(person.run("trail", "prune", "--home", home, "--json").stdout) == {
        "pruned": 0,
        "last": 0,
        "prunable": 2,
    }
    assert "--last 2" in person.run("trail", "prune", "--home", home).stdout
    refused = person.process("trail", "prune", "--home", home, "--last", "8", "--json")
    assert json.loads(refused.stderr)["error"]["code"] == "privacy.audit_cut"
    assert "begins with entry 3" in person.run("trail", "prune", "--home", home, "--last", "2").stdout
    assert "Nothing is old enough" in person.run("trail", "prune", "--home", home).stdout
    found = json.loads(person.process("trail", "person", "--home", home, "--json", input=WANG + "\n").stdout)
    assert [use["entry"] for use in found["possible"]] == [5]
