"""A vault in which each spelling was a person of its own opens as one in which persons are one; or stays as it was."""

from __future__ import annotations

import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from privacy.audit import AuditTrail
from privacy.erasure import steps
from privacy.grants.opt_outs import ALL, NOTE, OptOutRegister
from privacy.keys import FileKeyProvider
from privacy.legal_holds import all_holds
from privacy.vault import Vault
from privacy.vault.backup import put_back
from wire.errors import Refused, Unavailable, VerificationError

OLD = Path(__file__).resolve().parents[2] / "vectors" / "vault" / "version-2.tar.gz"
"""Written by the last program that gave each spelling an id of its own."""
NUMBER, BEFORE_1999, BLANKS = "330106199105230170", "330106910523017", "330106 19910523 0170"
OTHER, WIDE = "11010119900307451X", "１１０１０１１９９００３０７４５１ｘ"
FIFTEEN, INVENTED = "200106910523017", "200106199105230171"
"""Fifteen digits that are no identity number: opt-outs took them for one."""
SALT = "f773b4f2b56d5dae27747874c55a84cd2eea516b7152022ca4a58c9a882b2b58"

Open = Callable[..., Vault]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    with tarfile.open(OLD) as packed:
        packed.extractall(tmp_path, filter="data")
    return tmp_path / "version-2"


@pytest.fixture
def again(home: Path, vault_url: str) -> Open:
    """Opens it, on SQLite as it is and on PostgreSQL where it was put from a copy."""
    provider = FileKeyProvider(home / "keys", "correct horse")
    if vault_url:
        put_back(home / "vault", home / "moved" / "vault", provider, database=vault_url)

    def opened(fault: Callable[[str], None] = lambda place: None) -> Vault:
        folder = home / "moved" if vault_url else home
        return Vault.open(folder / "vault", provider, "hospital-1", database=vault_url, fault=fault)

    return opened


def check(vault: Vault) -> None:
    """Everything of a person is found under each of the spellings, and says what it said."""
    for way in (NUMBER, BEFORE_1999, BLANKS, f" {NUMBER}"):
        keys = sorted((key.dataset, key.rows, key.state) for key in vault.keys_of(way))
        assert keys == [
            ("cards", 1, "active"),
            ("document.scan", 1, "active"),
            ("document.scan", 1, "restricted"),
            ("slips", 1, "active"),
            ("slips", 1, "active"),
            ("visits", 1, "active"),
            ("visits", 1, "active"),
            ("visits", 1, "restricted"),
        ]
        assert vault.person("visits", way)["cost"].to_pylist() == [1, 2]
        assert vault.record("cards", way)["n"].to_pylist() == [9]
        assert vault.salt_key("cards", way).hex() == SALT, "commitments stay what they are"
    assert vault.person("slips", OTHER)["who"].to_pylist() == [WIDE, WIDE], "rows say what their table said"
    assert [vault.person(table, "li-si").num_rows for table in ("visits", "slips", "cards")] == [1, 2, 1]
    assert vault.read("visits").equals(
        pa.table({"number": [NUMBER, BEFORE_1999, "li-si", FIFTEEN], "cost": [1, 2, 4, 5]})
    )
    assert vault.read("slips", "id")["id"].to_pylist() == ["s1", "s2", "s3", "s4", "s5", "s6"]
    assert vault.read("plain")["n"].to_pylist() == [12, 13] and vault.info("visits").restricted == 1
    with vault.open_stream("scan", "1") as scan:
        assert scan.read() == b"scan of the person"
    vault.unrestrict([key.key for key in vault.keys_of(NUMBER) if key.dataset == "visits"])
    assert vault.person("visits", NUMBER)["cost"].to_pylist() == [1, 2, 3]
    assert vault.documents("snapshot") == (), "a copy has the ids of before"


def check_protected_again(vault: Vault) -> None:
    assert len(list(vault.person_notes(NOTE))) == 4, "what is put for a person replaces both notes"
    assert all_holds(vault)[0].person == vault.person_id(OTHER)
    assert vault.person("visits", NUMBER)["cost"].to_pylist() == [1, 2, 3]


def check_protected(vault: Vault) -> None:
    """Opt-outs, holds and plans of before are of the persons whom they name."""
    register = OptOutRegister(vault.person_notes(NOTE))
    people = {vault.person_id(one) for one in (NUMBER, FIFTEEN, INVENTED, "li-si")}
    assert register.persons([ALL], 5) == people and len(register.opt_outs) == 4
    assert register.scopes_of(vault.person_id("li-si"), 5) == ("all", "use:query"), "two notes of one person"
    (hold,) = all_holds(vault)
    assert hold.person == vault.person_id(OTHER)
    (planned,) = steps.erasures(vault)
    before = planned.plan.person
    assert before != vault.person_id(NUMBER) == vault.person_id(before)
    assert before in vault.earlier_ids(vault.person_id(NUMBER)) and vault.keys_of(before) == vault.keys_of(NUMBER)


def test_each_person_is_one(again: Open) -> None:
    with again() as vault:
        check_protected(vault)
        check(vault)
        vault.put_person_note(NOTE, " li-si", next(content for _, content in vault.person_notes(NOTE)))
        vault.rotate()
    with again() as vault:
        check_protected_again(vault)
        vault.ingest("later", pa.table({"n": [1]}), persons=[BLANKS])
        assert "later" in {key.dataset for key in vault.keys_of(BEFORE_1999)}


@pytest.mark.parametrize("step", ["respell:noted", "respell:written"])
def test_cut_short_it_is_as_it_was_and_begins_again(again: Open, step: str) -> None:
    class Stopped(Exception):
        """A fault that a test set."""

    def fault(place: str) -> None:
        if place == step:
            raise Stopped

    with pytest.raises(Stopped):
        again(fault)
    with again() as vault:
        check_protected(vault)
        check(vault)


def test_a_plan_of_one_spelling_is_to_be_made_anew(again: Open, tmp_path: Path) -> None:
    with again() as vault, AuditTrail(tmp_path / "audit.sqlite", "hospital-1") as trail:
        (planned,) = steps.erasures(vault)
        with pytest.raises(Refused) as raised:
            steps.apply(vault, trail, planned.name, lambda: 5, recut=lambda *_: None, given=lambda _: [])
        assert raised.value.code == "privacy.erasure_stale"


def test_a_reader_says_that_it_is_of_before_where_it_matters(home: Path) -> None:
    provider = FileKeyProvider(home / "keys", "correct horse")
    with Vault.reader(home / "vault", provider, "hospital-1") as reader:
        assert reader.read("cards")["n"].to_pylist() == [9, 10, 11]
        with pytest.raises(Unavailable) as raised:
            reader.keys_of(NUMBER)
        assert raised.value.code == "privacy.vault_spellings"
    Vault.open(home / "vault", provider, "hospital-1").close()
    with Vault.reader(home / "vault", provider, "hospital-1") as reader:
        assert len(reader.keys_of(NUMBER)) == 8 and reader.earlier_ids(reader.person_id(NUMBER))


@pytest.mark.parametrize("first", [False, True])
def test_nobody_says_that_it_was_done_who_has_not_the_keys(home: Path, first: bool) -> None:
    """The version in the header is bound to the index key: neither is the way skipped, nor gone twice."""
    provider = FileKeyProvider(home / "keys", "correct horse")
    if not first:
        Vault.open(home / "vault", provider, "hospital-1").close()
    with sqlite3.connect(home / "vault" / "vault.sqlite") as db:
        (header,) = db.execute("SELECT header FROM vault").fetchone()
        was, becomes = (b"\x02", b"\x03") if first else (b"\x03", b"\x02")
        at = header.index(b"privacy.vault_header") + len(b"privacy.vault_header")
        assert header[at : at + 1] == was
        db.execute("UPDATE vault SET header = ?", (header[:at] + becomes + header[at + 1 :],))
    db.close()
    with pytest.raises(VerificationError) as raised:
        Vault.open(home / "vault", provider, "hospital-1")
    assert raised.value.code == "privacy.vault_keys"


@pytest.mark.parametrize("number", [0, 1])
def test_an_altered_row_keeps_nothing_else_from_being_brought_together(home: Path, number: int) -> None:
    provider = FileKeyProvider(home / "keys", "correct horse")
    with sqlite3.connect(home / "vault" / "vault.sqlite") as db:
        (row, sealed) = db.execute("SELECT row, sealed FROM rows ORDER BY row").fetchall()[number]
        db.execute("UPDATE rows SET sealed = ? WHERE row = ?", (sealed[:-1] + bytes([sealed[-1] ^ 1]), row))
    db.close()
    with Vault.open(home / "vault", provider, "hospital-1") as vault:
        with pytest.raises(VerificationError):
            vault.read("visits")
        assert vault.person("slips", NUMBER).num_rows == 2
        assert len(vault.keys_of(NUMBER)) == 8
