"""`medveil erasure` on a home, as its data officer has it: from the plan to a receipt that holds."""

from __future__ import annotations

import json
import secrets
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from medveil.gateway.tables import snapshots_of
from medveil.service.home.home import Home
from privacy.audit import Use
from privacy.retention import ZONE
from wire.dates import day_at

PASS = "correct horse battery"
COMMAND = str(Path(sys.executable).with_name("medveil"))
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


def left(body: Any) -> list[tuple[str, dict[str, str]]]:
    """Code and facts of what a check found."""
    return [(one["code"], one["facts"]) for one in body["leftovers"]]


def asked(person: Any, *arguments: object) -> str:
    """What a verb says that asks for the person, in a process of its own: the runner shows what is typed."""
    run = person.process("erasure", *arguments, input=WANG + "\n")
    assert run.returncode == 0, run.stderr
    return str(run.stdout)


def planned(person: Any, home: Path) -> str:
    return str(json.loads(asked(person, "plan", "--home", home, "--json"))[0]["erasure"])


def test_from_the_plan_to_a_receipt_that_holds(person: Any, home: Path, tmp_path: Path) -> None:
    shown = asked(person, "plan", "--home", home, "--reference", "requests/7")
    assert "erase: 2 rows of visits" in shown and "restricted: 1 row of bills" in shown and "retention" in shown
    assert WANG not in shown
    (listed,) = told(person.run("erasure", "show", "--home", home, "--json"))["erasures"]
    assert listed["state"] == "planned" and listed["destroyed"] == 0
    name, receipt = listed["erasure"], tmp_path / "receipt.evidence"

    done = person.run("erasure", "apply", "--home", home, name, "--receipt", receipt).stdout
    assert "erased: 2 rows of visits" in done and "once the key epoch is rotated" in done
    assert WANG.encode() not in receipt.read_bytes()
    with Home.open(home, PASS, secrets.token_bytes, now) as opened:
        vault = opened.organisation.vault
        assert vault.read("visits").num_rows == vault.read("bills").num_rows == 1
        assert snapshots_of(opened.organisation).read("visits").num_rows == 1, "it was cut anew"
        epochs = opened.organisation.vault._opened.provider.epochs()

    markers = tmp_path / "markers"
    markers.write_text(f"{WANG}\nplanted note\n", encoding="utf-8")
    checked = person.run("erasure", "check", "--home", home, receipt, "--markers", markers).stdout
    assert "Nothing of it is left here." in checked and "1 destroyed keys" in checked
    assert "salts died with the keys" in checked
    body = told(person.run("erasure", "check", "--home", home, receipt, "--json"))
    assert body["leftovers"] == [] and body["keys"] == 1 and body["files"] > 5

    second = tmp_path / "second.evidence"
    rotated = told(person.run("erasure", "apply", "--home", home, name, "--receipt", second, "--rotate", "--json"))
    assert rotated["rotated"] > 0 and rotated["state"] == "done"
    assert told(person.run("erasure", "show", "--home", home, "--json"))["rotate_by"] == 0
    assert "done" in person.run("erasure", "show", "--home", home).stdout
    with Home.open(home, PASS, secrets.token_bytes, now) as opened:
        assert opened.organisation.vault._opened.provider.epochs()[0] > epochs[-1]
    person.run("erasure", "check", "--home", home, second)
    shown = json.loads(person.run("show", second).stdout)
    assert shown["organisation"] == "hospital-1" and shown["issue"] == 2


def test_nothing_is_erased_before_the_receipt_has_a_place(person: Any, home: Path, tmp_path: Path) -> None:
    name, there = planned(person, home), tmp_path / "there"
    there.touch()
    for receipt in (there, tmp_path / "nowhere" / "receipt.evidence"):
        person.run("erasure", "apply", "--home", home, name, "--receipt", receipt, code=1)
        assert told(person.run("erasure", "show", "--home", home, name, "--json"))["state"] == "planned"
    receipt = tmp_path / "receipt.evidence"
    person.run("erasure", "apply", "--home", home, name, "--receipt", receipt)
    assert receipt.stat().st_mode & 0o077 == 0, "it is the person's"
    lost = person.process("erasure", "check", "--home", home, tmp_path / "lost.evidence")
    assert lost.returncode == 1 and "no file or folder" in lost.stderr and "Traceback" not in lost.stderr


def test_what_is_left_is_found_and_said(person: Any, home: Path, tmp_path: Path) -> None:
    receipt = tmp_path / "receipt.evidence"
    person.run("erasure", "apply", "--home", home, planned(person, home), "--receipt", receipt)
    (home / "spill.txt").write_text("a planted note lies about")
    check = ("erasure", "check", "--home", home, receipt, "--markers")
    found = person.run(*check, "-", typed="\nplanted note\n", code=4)
    assert "spill.txt holds text of the person" in found.stdout and "Nothing of it is left" not in found.stdout
    markers = tmp_path / "markers"
    markers.write_text("wang's other text\nplanted note", encoding="utf-8")
    body = told(person.run(*check, markers, "--json", code=4))
    assert left(body) == [("privacy.leftover_text", {"file": "spill.txt"})]


def test_a_snapshot_of_what_was_loaded_over_stands_in_no_erasures_way(person: Any, home: Path, tmp_path: Path) -> None:
    """Of a table that has columns under SM4 now there is none any more; the one from before goes."""
    with Home.open(home, PASS, secrets.token_bytes, now) as opened:
        table = pa.table({"cost": pa.array([1.0]), "note": pa.array(["planted note"])})
        opened.organisation.vault.ingest("visits", table, persons=[WANG], suites={"note": 2}, replace=True)
        assert snapshots_of(opened.organisation).info("visits") is not None
    receipt = tmp_path / "receipt.evidence"
    person.run("erasure", "apply", "--home", home, planned(person, home), "--receipt", receipt)
    assert list((home / "snapshots").glob("*.snapshot")) == []
    with Home.open(home, PASS, secrets.token_bytes, now) as opened:
        assert snapshots_of(opened.organisation).info("visits") is None
    person.run("erasure", "check", "--home", home, receipt)


def test_receipts_that_are_none(person: Any, home: Path, tmp_path: Path) -> None:
    receipt = tmp_path / "receipt.evidence"
    person.run("erasure", "apply", "--home", home, planned(person, home), "--receipt", receipt)
    data = bytearray(receipt.read_bytes())
    data[-1] ^= 1
    changed = tmp_path / "changed.evidence"
    changed.write_bytes(data)
    other = person.process("erasure", "check", "--home", home, changed)
    assert other.returncode == 1 and "not signed" in other.stderr
    card = person.process("erasure", "check", "--home", home, home / "card.evidence")
    assert card.returncode == 1 and "no receipt of an erasure" in card.stderr
    again = person.process("erasure", "apply", "--home", home, "00" * 16, "--receipt", receipt)
    assert again.returncode == 1 and str(receipt) in again.stderr
    none = person.process("erasure", "apply", "--home", home, "00" * 16, "--receipt", tmp_path / "none", "--json")
    assert none.returncode == 1 and json.loads(none.stderr)["error"]["code"] == "privacy.no_erasure"
    assert not (tmp_path / "none").exists()


def test_a_hold_keeps_until_it_is_lifted(person: Any, home: Path, tmp_path: Path) -> None:
    placed = asked(person, "hold", "--home", home, "case-7", "--reference", "court/7")
    assert "no end" in placed and WANG not in placed
    receipt = tmp_path / "receipt.evidence"
    name = planned(person, home)
    first = told(person.run("erasure", "apply", "--home", home, name, "--receipt", receipt, "--json"))
    assert first["erase"] == [] and {tuple(one["why"]) for one in first["restrict"]} == {
        ("hold",),
        ("retention", "hold"),
    }
    assert told(person.run("erasure", "plan", "--home", home, "--due", "--json")) == []
    assert "1 person" not in person.run("erasure", "holds", "--home", home).stdout
    assert (
        person.run("erasure", "lift", "--home", home, "case-7").stdout
        == "case-7: lifted; it held nothing on any day.\n"
    )
    (held,) = told(person.run("erasure", "holds", "--home", home, "--json"))["holds"]
    assert held["hold"] == "case-7" and held["until"] is not None
    (due,) = told(person.run("erasure", "plan", "--home", home, "--due", "--json"))
    assert due["ground"] == "retention-over" and due["erase"] == [{"dataset": "visits", "rows": 2}]
    person.run("erasure", "apply", "--home", home, due["erasure"], "--receipt", tmp_path / "second.evidence")
    person.run("erasure", "check", "--home", home, tmp_path / "second.evidence")
    assert "Nothing that was restricted" in person.run("erasure", "plan", "--home", home, "--due").stdout


def test_nobody_and_nothing(person: Any, home: Path) -> None:
    stranger = person.process("erasure", "plan", "--home", home, input="nobody\n")
    assert stranger.returncode == 1 and "holds no rows" in stranger.stderr
    assert person.run("erasure", "show", "--home", home).stdout.startswith("none")
    bad = person.run(
        "erasure", "hold", "--home", home, "c", "--reference", "r", "--everybody", "--until", "soon", code=2
    )
    assert "YYYY-MM-DD" in bad.output


def test_the_trail_has_it_and_names_nobody(person: Any, home: Path, tmp_path: Path) -> None:
    person.run("erasure", "apply", "--home", home, planned(person, home), "--receipt", tmp_path / "receipt.evidence")
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
    person.run("erasure", "apply", "--home", home, planned(person, home), "--receipt", receipt)
    assert not set(parts) & {path.name for path in (home / "snapshots").iterdir()}
    with Home.open(home, PASS, secrets.token_bytes, now) as opened:
        opened.organisation.vault.put_document("snapshot", "visits", index)
    for name, data in parts.items():
        (home / "snapshots" / name).write_bytes(data)
    body = told(person.run("erasure", "check", "--home", home, receipt, "--json", code=4))
    assert left(body) == [("privacy.leftover_snapshot", {"dataset": "visits"})]


def test_a_backup_of_before_brings_nobody_back_where_the_register_is_left(
    person: Any, home: Path, tmp_path: Path
) -> None:
    monday, receipt = tmp_path / "monday", tmp_path / "receipt.evidence"
    person.run("backup", home, monday)
    person.run("erasure", "apply", "--home", home, planned(person, home), "--receipt", receipt)

    mistyped = person.process("restore", monday, tmp_path / "none", "--erased", tmp_path / "erazed", "--json")
    assert json.loads(mistyped.stderr)["error"]["code"] == "privacy.no_register"
    assert not (tmp_path / "none").exists(), "a home without what the register names would have been made"

    (tmp_path / "register-alone").mkdir()
    shutil.copy(home / "erased", tmp_path / "register-alone")
    alone = tmp_path / "register-alone" / "erased"
    said = person.run("restore", monday, tmp_path / "without-log", "--erased", alone).stdout
    assert "What was erased" not in said and "No file `safeguards` was there" in said
    found = told(person.run("erasure", "check", "--home", tmp_path / "without-log", receipt, "--json", code=4))
    assert [(code, facts["dataset"]) for code, facts in left(found)] == [("privacy.leftover_restricted", "bills")]

    said = person.run("restore", monday, tmp_path / "with", "--erased", home).stdout
    assert "What was erased" not in said and "No file" not in said
    assert left(told(person.run("erasure", "check", "--home", tmp_path / "with", receipt, "--json"))) == []
    with Home.open(tmp_path / "with", PASS, secrets.token_bytes, now) as opened:
        assert opened.organisation.vault.read("visits").num_rows == 1

    said = person.run("restore", monday, tmp_path / "without").stdout
    assert "What was erased since is there again" in said
    found = told(person.run("erasure", "check", "--home", tmp_path / "without", receipt, "--json", code=4))
    assert "privacy.leftover_key" in {one["code"] for one in found["leftovers"]}


def test_what_could_not_be_looked_into_is_not_said_to_be_clean(person: Any, home: Path, tmp_path: Path) -> None:
    receipt = tmp_path / "receipt.evidence"
    person.run("erasure", "apply", "--home", home, planned(person, home), "--receipt", receipt)
    elsewhere = tmp_path / "disk"
    shutil.move(home / "vault", elsewhere)
    (home / "vault").symlink_to(elsewhere)
    (home / "archive").symlink_to(tmp_path)
    (elsewhere / "old").write_text("the planted note")
    check = ("erasure", "check", "--home", home, receipt, "--markers", "-")
    found = person.run(*check, typed="planted note\n", code=4).stdout
    assert f"{elsewhere}/old holds text" in found and "a link to elsewhere, not followed: archive" in found
    (elsewhere / "old").unlink()
    body = told(person.run("erasure", "check", "--home", home, receipt, "--json"))
    assert (body["leftovers"], body["links"], body["unread"], body["server"]) == ([], ["archive"], [], False)


def test_an_older_copy_of_vault_or_keys_in_the_home_is_found(person: Any, home: Path, tmp_path: Path) -> None:
    with Home.open(home, PASS, secrets.token_bytes, now) as opened:
        opened.organisation.vault.back_up(home / "old")
    shutil.copy(home / "keys", home / "keys.bak")
    receipt = tmp_path / "receipt.evidence"
    person.run("erasure", "apply", "--home", home, planned(person, home), "--receipt", receipt)
    found = person.run("erasure", "check", "--home", home, receipt, code=4).stdout
    assert "old/vault.sqlite is an older copy of the vault" in found and "keys.bak" not in found
    person.run("erasure", "apply", "--home", home, receipt_id(person, home), "--receipt", tmp_path / "2", "--rotate")
    found = person.run("erasure", "check", "--home", home, tmp_path / "2", code=4).stdout
    assert "keys.bak is an older copy of the key file" in found and "copy of the vault" not in found
    (home / "keys.bak").unlink()
    shutil.rmtree(home / "old")
    assert "Nothing of it is left here." in person.run("erasure", "check", "--home", home, tmp_path / "2").stdout


def receipt_id(person: Any, home: Path) -> str:
    (one,) = told(person.run("erasure", "show", "--home", home, "--json"))["erasures"]
    return str(one["erasure"])


@pytest.mark.parametrize(
    ("arguments", "typed", "code", "said"),
    [
        (["plan", "--home", "HOME"], b"w\xff\xfe\n", 1, b"no text in UTF-8"),
        (["plan", "--home", "HOME", "--reference", b"a\xff"], b"wang\n", 1, b"reference does not fit"),
        (["plan", "--home", "HOME", "--reference", "r" * 201], b"wang-wu-110101\n", 1, b"reference does not fit"),
        (["check", "--home", "HOME", "RECEIPT", "--markers", "-"], b"abcd\nabc\n", 2, b"at least 4 characters"),
        (["check", "--home", "HOME", "RECEIPT", "--markers", "-"], b"abcd\xff", 1, b"no text in UTF-8"),
        (["check", "--home", "HOME", "RECEIPT", "--markers", "-"], b"a" * 1_100_000, 1, b"1048577"),
        (["check", "--home", "HOME", "RECEIPT", "--marker", "wang-wu-110101"], b"", 2, b"No such option"),
        (["hold", "--home", "HOME", "h", "--everybody", "--reference", b"a\xff"], b"", 1, b"reference does not fit"),
        (["hold", "--home", "HOME", "h", "--everybody", "--reference", "r" * 201], b"", 1, b"reference does not fit"),
        (["show", "--home", "HOME", b"\xff"], b"", 2, b"32 digits"),
        (["lift", "--home", "HOME", b"\xff"], b"", 1, b"no legal hold"),
    ],
)
def test_bad_input_ends_in_words(
    person: Any, home: Path, tmp_path: Path, arguments: list[str | bytes], typed: bytes, code: int, said: bytes
) -> None:
    """What is no text, too long or too short: never a traceback, and nothing is kept that could not be read again."""
    receipt = tmp_path / "receipt.evidence"
    if "RECEIPT" in arguments:
        person.run("erasure", "apply", "--home", home, planned(person, home), "--receipt", receipt)
    places: dict[str | bytes, str | bytes] = {"HOME": str(home), "RECEIPT": str(receipt)}
    command: list[str | bytes] = [COMMAND, "erasure", *(places.get(one, one) for one in arguments)]
    ended = subprocess.run(command, input=typed, capture_output=True, timeout=60, check=False)
    assert ended.returncode == code and said in ended.stderr, ended.stderr
    assert b"Traceback" not in ended.stderr and b"error of its own" not in ended.stderr
    assert told(person.run("erasure", "holds", "--home", home, "--json")) == {"holds": []}
