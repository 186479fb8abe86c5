"""`medveil erasure` on a home, as its data officer has it: from the plan to a receipt that holds."""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from medveil.gateway.erasing import snapshots_of
from medveil.service.home.home import Home
from privacy.audit import Use
from privacy.retention import ZONE
from wire.dates import day_at

PASS = "correct horse battery"
WANG, LI = "wang-wu-110101", "li-si-220202"
TODAY = day_at(time.time_ns() // 1_000_000, ZONE)


def now() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hospital's home with two tables and one extract that went out under consent; its gateway is stopped."""
    secret = tmp_path / "passphrase"
    secret.touch(mode=0o600)
    secret.write_text(PASS + "\n")
    monkeypatch.setenv("MEDVEIL_PASSPHRASE_FILE", str(secret))
    folder = tmp_path / "hospital-1"
    Home.create(folder, "hospital-1", ("hospital",), PASS, secrets.token_bytes, now)
    with Home.open(folder, PASS, secrets.token_bytes, now) as opened:
        vault, trail = opened.organisation.vault, opened.organisation.audit
        visits = pa.table({"cost": pa.array([1.0, 2.0, 3.0]), "note": pa.array(["planted note", "", ""])})
        vault.ingest("visits", visits, persons=[WANG, WANG, LI])
        bills = pa.table({"amount": pa.array([10, 20])})
        vault.ingest("bills", bills, persons=[WANG, LI], retain_until=TODAY + 400)
        snapshots_of(opened.organisation).refresh("visits")
        use = Use("university", "visits", "extract", "HRESCH", "grant-1", b"", True, "granted")
        trail.outcome(trail.intent(use), "released")
    return folder


def told(result: Any) -> Any:
    return json.loads(result.stdout)


def asked(person: Any, *arguments: object) -> str:
    """What a verb says that asks for the person, in a process of its own: the runner shows what is typed."""
    run = person.process("erasure", *arguments, input=WANG + "\n")
    assert run.returncode == 0, run.stderr
    return str(run.stdout)


def planned(person: Any, home: Path) -> str:
    return str(json.loads(asked(person, "plan", home, "--json"))[0]["erasure"])


def test_from_the_plan_to_a_receipt_that_holds(person: Any, home: Path, tmp_path: Path) -> None:
    shown = asked(person, "plan", home, "--reference", "requests/7")
    assert "erase: 2 rows of visits" in shown and "restricted: 1 rows of bills" in shown and "retention" in shown
    assert WANG not in shown
    (listed,) = told(person.run("erasure", "show", home, "--json"))["erasures"]
    assert listed["state"] == "planned" and listed["destroyed"] == 0
    name, receipt = listed["erasure"], tmp_path / "receipt.evidence"

    done = person.run("erasure", "apply", home, name, "--receipt", receipt).stdout
    assert "erased: 2 rows of visits" in done and "once the key epoch is rotated" in done
    assert WANG.encode() not in receipt.read_bytes()
    with Home.open(home, PASS, secrets.token_bytes, now) as opened:
        vault = opened.organisation.vault
        assert vault.read("visits").num_rows == vault.read("bills").num_rows == 1
        assert snapshots_of(opened.organisation).read("visits").num_rows == 1, "it was cut anew"
        epochs = opened.organisation.vault._opened.provider.epochs()

    checked = person.run("erasure", "check", home, receipt, "--marker", WANG, "--marker", "planted note").stdout
    assert "Nothing of it is left here." in checked and "1 destroyed keys" in checked
    assert "salts died with the keys" in checked
    body = told(person.run("erasure", "check", home, receipt, "--json"))
    assert body["leftovers"] == [] and body["keys"] == 1 and body["files"] > 5

    second = tmp_path / "second.evidence"
    rotated = told(person.run("erasure", "apply", home, name, "--receipt", second, "--rotate", "--json"))
    assert rotated["rotated"] > 0 and rotated["state"] == "done"
    assert told(person.run("erasure", "show", home, "--json"))["rotate_by"] == 0
    assert "done" in person.run("erasure", "show", home).stdout
    with Home.open(home, PASS, secrets.token_bytes, now) as opened:
        assert opened.organisation.vault._opened.provider.epochs()[0] > epochs[-1]
    person.run("erasure", "check", home, second)
    shown = json.loads(person.run("show", second).stdout)
    assert shown["organisation"] == "hospital-1" and shown["issue"] == 2


def test_what_is_left_is_found_and_said(person: Any, home: Path, tmp_path: Path) -> None:
    receipt = tmp_path / "receipt.evidence"
    person.run("erasure", "apply", home, planned(person, home), "--receipt", receipt)
    (home / "spill.txt").write_text("a planted note lies about")
    found = person.run("erasure", "check", home, receipt, "--marker", "planted note", code=4)
    assert "spill.txt holds text of the person" in found.stdout and "Nothing of it is left" not in found.stdout
    body = told(person.run("erasure", "check", home, receipt, "--marker", "planted note", "--json", code=4))
    assert body["leftovers"] == [{"code": "privacy.leftover_text", "file": "spill.txt"}]


def test_receipts_that_are_none(person: Any, home: Path, tmp_path: Path) -> None:
    receipt = tmp_path / "receipt.evidence"
    person.run("erasure", "apply", home, planned(person, home), "--receipt", receipt)
    data = bytearray(receipt.read_bytes())
    data[-1] ^= 1
    changed = tmp_path / "changed.evidence"
    changed.write_bytes(data)
    other = person.process("erasure", "check", home, changed)
    assert other.returncode == 1 and "not signed" in other.stderr
    card = person.process("erasure", "check", home, home / "card.evidence")
    assert card.returncode == 1 and "no receipt of an erasure" in card.stderr
    again = person.process("erasure", "apply", home, "00" * 16, "--receipt", receipt)
    assert again.returncode == 1 and str(receipt) in again.stderr
    none = person.process("erasure", "apply", home, "00" * 16, "--receipt", tmp_path / "none", "--json")
    assert none.returncode == 1 and json.loads(none.stderr)["error"]["code"] == "privacy.no_erasure"
    assert not (tmp_path / "none").exists()


def test_a_hold_keeps_until_it_is_lifted(person: Any, home: Path, tmp_path: Path) -> None:
    placed = asked(person, "hold", home, "case-7", "--reference", "court/7")
    assert "no end" in placed and WANG not in placed
    receipt = tmp_path / "receipt.evidence"
    name = planned(person, home)
    first = told(person.run("erasure", "apply", home, name, "--receipt", receipt, "--json"))
    assert first["erase"] == [] and {tuple(one["why"]) for one in first["restrict"]} == {
        ("hold",),
        ("retention", "hold"),
    }
    assert told(person.run("erasure", "plan", home, "--due", "--json")) == []
    assert "1 person" not in person.run("erasure", "holds", home).stdout
    person.run("erasure", "lift", home, "case-7")
    (held,) = told(person.run("erasure", "holds", home, "--json"))
    assert held["hold"] == "case-7" and held["until"] != "no end"
    (due,) = told(person.run("erasure", "plan", home, "--due", "--json"))
    assert due["ground"] == "retention-over" and due["erase"] == [{"dataset": "visits", "rows": 2}]
    person.run("erasure", "apply", home, due["erasure"], "--receipt", tmp_path / "second.evidence")
    person.run("erasure", "check", home, tmp_path / "second.evidence")
    assert "Nothing that was restricted" in person.run("erasure", "plan", home, "--due").stdout


def test_nobody_and_nothing(person: Any, home: Path) -> None:
    stranger = person.process("erasure", "plan", home, input="nobody\n")
    assert stranger.returncode == 1 and "holds no rows" in stranger.stderr
    assert person.run("erasure", "show", home).stdout.startswith("none")
    bad = person.run("erasure", "hold", home, "c", "--reference", "r", "--everybody", "--until", "soon", code=2)
    assert "YYYY-MM-DD" in bad.output


def test_the_trail_has_it_and_names_nobody(person: Any, home: Path, tmp_path: Path) -> None:
    person.run("erasure", "apply", home, planned(person, home), "--receipt", tmp_path / "receipt.evidence")
    with Home.open(home, PASS, secrets.token_bytes, now) as opened:
        entries = opened.organisation.audit.entries()
    kinds = [(entry.use.kind, entry.use.dataset, entry.outcome) for entry in entries[2:]]
    assert kinds == [
        ("erasure", "bills", ""),
        ("erasure", "visits", ""),
        ("erasure", "bills", "done"),
        ("erasure", "visits", "done"),
    ]
    with sqlite3.connect(home / "audit.sqlite") as database:
        assert not any(WANG.encode() in row[0] for row in database.execute("SELECT entry FROM entries"))
    database.close()


def test_a_snapshot_that_was_not_cut_anew_is_found(person: Any, home: Path, tmp_path: Path) -> None:
    """The files and the index of before, put back."""
    receipt = tmp_path / "receipt.evidence"
    with Home.open(home, PASS, secrets.token_bytes, now) as opened:
        index = opened.organisation.vault.document("snapshot", "visits")
        parts = {path.name: path.read_bytes() for path in (home / "snapshots").iterdir()}
    person.run("erasure", "apply", home, planned(person, home), "--receipt", receipt)
    assert not set(parts) & {path.name for path in (home / "snapshots").iterdir()}
    with Home.open(home, PASS, secrets.token_bytes, now) as opened:
        opened.organisation.vault.put_document("snapshot", "visits", index)
    for name, data in parts.items():
        (home / "snapshots" / name).write_bytes(data)
    body = told(person.run("erasure", "check", home, receipt, "--json", code=4))
    assert body["leftovers"] == [{"code": "privacy.leftover_snapshot", "dataset": "visits"}]
