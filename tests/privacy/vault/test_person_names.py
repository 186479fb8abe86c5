"""One person is one, however tables, officers and wallets spell the identifier; and two stay two."""

from __future__ import annotations

import io

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from privacy.keys import FileKeyProvider
from privacy.vault import Vault
from privacy.vault.person_names import canonical

NEW, OLD = "330106199105230170", "330106910523017"
SAME = [
    ("11010119900307451X", "11010119900307451x"),
    ("11010119900307451X", " １１０１０１１９９００３０７４５１ｘ "),
    ("11010119900307451X", "110101 19900307 451X"),
    (NEW, OLD),
    (OLD, f"{OLD[:6]} {OLD[6:]}\n"),
    ("11010119900307451x", "110101 19900307451X"),
    ("110101199003074519", "110101 199003074519"),  # the check character is wrong: one person all the same
    ("P-7", "P-7\u3000"),
    ("Ｐ-7", "P-7"),
    ("P-7", "\tP-7"),
    ("P-7", "\ufeffP-\u200b7\x00"),
    (NEW, f"\ufeff{NEW}"),
    (NEW, f"{NEW}\u200b"),
    (NEW, f"{NEW}\x00"),
    (NEW, f"'{NEW}"),
    (NEW, f"{NEW[:6]}-{NEW[6:14]}-{NEW[14:]}"),
    (NEW, f"'{OLD[:6]}-{OLD[6:]}"),
    ("11010119900307451X", "110101–19900307–451x"),
]
OTHERS = [
    ("P-7", "p-7"),
    ("1 2", "12"),
    ("200106910523017", "200106199105230171"),  # no region begins with 20
    ("330106911323017", "330106199113230174"),  # nobody is born in a thirteenth month
    ("110101199003074510", "11010119900307451X"),
    ("p" * 15, "P" * 15),
    ("'P-7", "P-7"),
    ("P-7", "P7"),
    ("200106-910523017", "200106910523017"),
    ("12345678901234567x8", "12345678901234567X8"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_one_person_has_one_name(one: str, other: str) -> None:
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(("one", "other"), OTHERS)
def test_two_persons_stay_two(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


def test_a_number_of_before_1999_has_the_check_character_of_today() -> None:
    assert canonical(OLD) == NEW == canonical(NEW)


@given(st.one_of(st.text(max_size=20), st.text("0123456789xX １\u3000", min_size=13, max_size=22)))
@example(OLD)
@example("")
def test_a_name_that_is_the_one_spelling_is_itself(person: str) -> None:
    assert canonical(canonical(person)) == canonical(person)


@pytest.mark.parametrize(("one", "other"), SAME)
def test_a_vault_knows_all_spellings_of_a_person(one: str, other: str, vault: Vault, provider: FileKeyProvider) -> None:
    """Rows, documents and notes that came under one, asked for under the other; by whatever it was loaded."""
    vault.ingest("visits", pa.table({"n": [1, 2, 3]}), persons=[one, other, "somebody"])
    vault.ingest("cards", pa.table({"n": [4, 5]}), [one, "somebody"])
    vault.put_stream("scan", "1", io.BytesIO(b"scan"), person=one)
    vault.put_person_note("opt-out", one, b"first")
    vault.put_person_note("opt-out", other, b"second")
    assert vault.person_id(one) == vault.person_id(other) != vault.person_id("somebody")
    assert sorted((key.dataset, key.rows) for key in vault.keys_of(other))[:2] == [("cards", 1), ("document.scan", 1)]
    assert sum(key.rows for key in vault.keys_of(other) if key.dataset == "visits") == 2
    assert vault.person("visits", other)["n"].to_pylist() == [1, 2]
    assert vault.record("cards", other)["n"].to_pylist() == [4]
    assert vault.salt_key("cards", other) == vault.salt_key("cards", one)
    assert vault.read("visits", person_column="who")["who"].to_pylist()[:2] == [vault.person_id(other)] * 2
    assert list(vault.person_notes("opt-out")) == [(vault.person_id(one), b"second")]
    assert vault.remove_person_note("opt-out", one)


def test_each_spelling_of_a_record_keeps_the_salts_of_its_own_commitments(vault: Vault) -> None:
    """Where the record id is the person, two rows in two spellings are two records of one person."""
    upper, lower = SAME[0]
    vault.ingest("alone", pa.table({"n": [1]}), [lower])
    vault.ingest("cards", pa.table({"n": [1, 2]}), [upper, lower])
    (first, second) = (key for key in vault.data_keys("cards"))
    salts = [vault.salt_key("cards", way) for way in (upper, lower)]
    assert len(set(salts)) == 2 and vault.salt_key("cards", f" {upper}") == salts[0]
    vault.restrict([first.key])
    assert vault.salt_key("cards", lower) == salts[1]
    assert second.rows == 1
    assert vault.salt_key("alone", upper) == vault.salt_key("alone", lower)
