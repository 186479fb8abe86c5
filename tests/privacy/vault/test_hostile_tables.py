"""Somebody who may write to the tables and has no key: whatever is changed there, nobody is misled, nothing is lost."""

from __future__ import annotations

import io
import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

from privacy.keys import FileKeyProvider
from privacy.vault import Vault, loading
from privacy.vault.backup import put_back
from wire.errors import DecodeError, Refused, Unavailable, VerificationError


def changed(vault: Vault, statement: str, *values: object) -> None:
    """Run a statement on the tables, past the vault."""
    with closing(sqlite3.connect(vault.path / "vault.sqlite", isolation_level=None)) as database:
        assert database.execute(statement, values).rowcount > 0


def scans(vault: Vault) -> None:
    for person in ("wang-wu", "li-si"):
        vault.put_stream("scan", f"of {person}", io.BytesIO(b"scan"), person=person, retain_until=40_000)


# ---- large documents: an erasure goes by what is said of them


@pytest.mark.parametrize(
    "change", ["person = (SELECT person FROM streams WHERE rowid = 2)", "retain_until = NULL", "state = 1", "state = 7"]
)
def test_a_document_is_not_taken_for_another_persons(vault: Vault, change: str) -> None:
    """Else erasing one person would take another's document, or one that has to be kept."""
    scans(vault)
    changed(vault, f"UPDATE streams SET {change}")
    for person in ("wang-wu", "li-si"):
        try:
            found = vault.keys_of(person)
        except VerificationError as error:
            assert error.code == "privacy.vault_document"
        else:
            assert found == (), "of whom nothing is there"
    assert any(_raises(vault, person) for person in ("wang-wu", "li-si"))


def _raises(vault: Vault, person: str) -> bool:
    try:
        vault.keys_of(person)
    except VerificationError:
        return True
    return False


def test_a_list_of_all_keys_says_no_state_that_there_is_not(vault: Vault) -> None:
    scans(vault)
    changed(vault, "UPDATE streams SET state = -1")
    with pytest.raises(VerificationError):
        list(vault.data_keys())


# ---- rows


@pytest.mark.parametrize("state", [1, 2, -1])
def test_rows_are_not_hidden_by_another_state(vault: Vault, state: int) -> None:
    """Of one person or record too: rows that are restricted are left out in silence."""
    vault.ingest("d", pa.table({"n": [1, 2]}), persons=["wang-wu", "li-si"])
    vault.ingest("e", pa.table({"n": [1, 2]}), ["b1", "b2"], persons=["wang-wu", "li-si"])
    (restricted,) = [key.key for key in vault.keys_of("li-si") if key.dataset == "e"]
    vault.restrict([restricted])
    for call in (vault.record, vault.salt_key):
        with pytest.raises(Refused):
            call("e", "b2")
    changed(vault, "UPDATE keys SET state = ? WHERE state = 0", state)
    for dataset, search in (("d", vault.person), ("e", vault.person), ("e", vault.record), ("e", vault.salt_key)):
        with pytest.raises(VerificationError) as raised:
            search(dataset, "b1" if search != vault.person else "wang-wu")
        assert raised.value.code == ("privacy.vault_cell" if state < 0 else "privacy.vault_dataset")


def test_two_histories_of_a_vault_may_number_alike(vault: Vault) -> None:
    """One that goes on from a backup gives numbers again: ids that end alike are told apart."""
    vault.ingest("d", pa.table({"n": [1]}), persons=["wang-wu"])
    (key,) = vault.keys_of("wang-wu")
    twins = [bytes([n]) * 8 + key.key[8:] for n in range(1, 9)]
    assert set(vault.marks([*twins, key.key])) == set(vault.marks([key.key, *twins])) == {key.key}
    assert vault.destroy([key.key, *twins], b"r" * 32) == 1 and vault.keys_of("wang-wu") == ()


# ---- what opening and rotating do by themselves


@pytest.mark.parametrize("state", [0, 2])
def test_opening_deletes_no_dataset_in_use(vault: Vault, provider: FileKeyProvider, state: int) -> None:
    """What an interrupted load left is deleted; one changed cell does not make a dataset that."""
    vault.ingest("d", pa.table({"n": [1, 2]}), persons=["wang-wu", "li-si"])
    vault.close()
    changed(vault, "UPDATE numbers SET state = ?", state)
    for _ in range(2):
        with Vault.open(vault.path, provider, "hospital-1") as again:
            assert again.read("d")["n"].to_pylist() == [1, 2]


@pytest.mark.parametrize("first", ["first + 5 * (1 << 40)", "-5"])
def test_a_rotation_over_a_key_that_is_nobodys_ends_in_words(
    vault: Vault, provider: FileKeyProvider, first: str
) -> None:
    vault.ingest("d", pa.table({"n": [1, 2]}), persons=["wang-wu", "li-si"])
    changed(vault, f"UPDATE keys SET first = {first} WHERE first = (SELECT max(first) FROM keys)")
    with pytest.raises(VerificationError) as raised:
        vault.rotate()
    assert raised.value.code == "privacy.vault_cell" and provider.epochs()[0] == 1, "no epoch was destroyed"


def test_a_rotation_after_a_load_that_could_not_undo_itself(vault: Vault, provider: FileKeyProvider) -> None:
    """Its rows are nobody's, and go; the load, tried again, is whole."""
    full = [False]

    def fault(place: str) -> None:
        if place == "ingest:part":
            full[0] = True
        if full[0]:
            raise Unavailable("database.full", place="disk", retry_after=60)

    vault.ingest("d", pa.table({"n": [1, 2]}), persons=["wang-wu", "li-si"])
    table, owners = pa.table({"n": list(range(40))}), [f"p{n}" for n in range(40)]
    vault._opened.fault, undo = fault, vault._loading._undo
    vault._loading._undo = lambda _info: fault("undo")  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        vault.ingest("e", table, persons=owners)
    vault._opened.fault, vault._loading._undo = lambda _place: None, undo  # type: ignore[method-assign]
    assert vault.rotate() == 2 and provider.epochs() == (2,)
    vault.ingest("e", table, persons=owners)
    assert vault.read("e").num_rows == 40 and vault.read("d").num_rows == 2


@pytest.mark.parametrize("opened_again", [False, True])
def test_rows_are_added_after_an_attempt_that_could_not_undo_itself(
    vault: Vault, provider: FileKeyProvider, opened_again: bool
) -> None:
    """What it left stands where the new rows go. A disk that is still full keeps nobody from opening the vault."""
    full = [False]

    def fault(place: str) -> None:
        full[0] |= place == "ingest:part"
        if full[0]:
            raise Unavailable("database.full", place="disk", retry_after=60)

    vault.ingest("d", pa.table({"n": [1, 2]}), persons=["wang-wu", "li-si"])
    table, owners = pa.table({"n": list(range(40))}), [f"p{n}" for n in range(40)]
    vault._opened.fault = fault
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vault._loading, "_undo", lambda _info: fault("undo"))
        with pytest.raises(Unavailable):
            vault.ingest("d", table, persons=owners, append=True)
    vault._opened.fault = lambda _place: None
    if opened_again:
        vault.close()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loading, "_delete", lambda *_: fault("delete"))
            vault = Vault.open(vault.path, provider, "hospital-1")
    assert vault.read("d").num_rows == 2
    vault.ingest("d", table, persons=owners, append=True)
    assert vault.read("d").num_rows == 42 and len(list(vault.data_keys("d"))) == 42
    vault.close()


@pytest.mark.parametrize("change", ["person = x'{person}'", "retain_until = NULL"])
def test_what_is_restricted_is_looked_at_when_the_dataset_is_read(vault: Vault, change: str) -> None:
    """A search for the person does not find a key that is under another id; no later erasure would."""
    vault.ingest("d", pa.table({"n": [1, 2]}), persons=["wang-wu", "li-si"], retain_until=40_000)
    vault.restrict([vault.keys_of("li-si")[0].key])
    changed(vault, f"UPDATE keys SET {change.format(person=vault.person_id('nobody').hex())} WHERE state = 1")
    with pytest.raises(VerificationError) as raised:
        vault.read("d")
    assert raised.value.code == "privacy.vault_row"


# ---- the file's own rules


def loosened(path: Path) -> None:
    """The same tables and rows, whose columns take a cell of any kind."""
    loose = path.with_name("loose")
    with closing(sqlite3.connect(path)) as old, closing(sqlite3.connect(loose, isolation_level=None)) as new:
        new.execute("PRAGMA page_size=16384")
        for kind, name, sql in old.execute("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL"):
            new.execute(sql.replace("STRICT", ""))
            if kind == "table":
                for row in old.execute(f"SELECT * FROM {name}"):
                    new.execute(f"INSERT INTO {name} VALUES ({','.join('?' * len(row))})", row)
        for pragma in ("application_id", "user_version"):
            new.execute(f"PRAGMA {pragma}={old.execute(f'PRAGMA {pragma}').fetchone()[0]}")
    loose.replace(path)


def filled(vault: Vault) -> Path:
    vault.ingest("d", pa.table({"n": [1, 2]}), persons=["wang-wu", "li-si"])
    scans(vault)
    vault.close()
    return vault.path / "vault.sqlite"


@pytest.mark.parametrize(
    "change",
    [
        "",
        # What is erased would be kept in another place, by the file itself.
        "CREATE TRIGGER keeps AFTER DELETE ON keys BEGIN INSERT INTO person_notes VALUES ('', old.key, 1, '', ''); END",
        "CREATE VIEW all_keys AS SELECT * FROM keys",
    ],
)
def test_a_file_that_does_more_than_keep_tables_is_not_opened(
    vault: Vault, provider: FileKeyProvider, change: str
) -> None:
    file = filled(vault)
    if change:
        with closing(sqlite3.connect(file, isolation_level=None)) as database:
            database.execute(change)
    else:
        loosened(file)
    for call in (Vault.open, Vault.reader):
        with pytest.raises(DecodeError) as raised:
            call(vault.path, provider, "hospital-1")
        assert raised.value.code == "database.damaged"


@pytest.mark.parametrize("load", [-1, 2**62, 0])
def test_a_load_that_there_is_not(vault: Vault, load: int) -> None:
    vault.ingest("d", pa.table({"n": [1, 2]}), persons=["wang-wu", "li-si"])
    changed(vault, "UPDATE keys SET load = ?", load)
    for call in (
        lambda: vault.read("d"),
        lambda: vault.person("d", "wang-wu"),
        lambda: vault.keys_of("wang-wu"),
        lambda: vault.rotate(),
    ):
        with pytest.raises(VerificationError):
            call()


@pytest.mark.parametrize(
    ("table", "column"), [("vault", "epoch"), ("keys", "epoch"), ("streams", "blob"), ("medveil_data", "version")]
)
@pytest.mark.parametrize("cell", ["text", b"\0" * 7, 1.5, None])
def test_a_backup_with_cells_of_other_kinds(
    vault: Vault, provider: FileKeyProvider, tmp_path: Path, table: str, column: str, cell: object
) -> None:
    """A file that somebody made by hand: refused in words, and nothing is left of it."""
    filled(vault)
    with Vault.open(vault.path, provider, "hospital-1") as again:
        again.back_up(tmp_path / "copy")
    copy = tmp_path / "copy" / "vault.sqlite"
    loosened(copy)
    with closing(sqlite3.connect(copy, isolation_level=None)) as database:
        try:
            database.execute(f"UPDATE {table} SET {column} = ?", (cell,))
        except sqlite3.IntegrityError:
            return  # the column takes no NULL
    with pytest.raises(DecodeError):
        put_back(tmp_path / "copy", tmp_path / "back" / "vault", provider)
        Vault.open(tmp_path / "back" / "vault", provider, "hospital-1")
