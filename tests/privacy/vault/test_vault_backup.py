"""Backups of a vault: whole, consistent, from either engine to either, and nothing erased comes back."""

from __future__ import annotations

import io
import random
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import fs

from privacy.keys import FileKeyProvider
from privacy.vault import Vault
from privacy.vault.backup import check_backup, put_back
from wire.errors import DecodeError, MedveilError, Refused, Unavailable, VerificationError

PEOPLE = ["wang-wu", "li-si"] * 3
SCAN = random.Random(1).randbytes(200_000)


@pytest.fixture
def table(table: pa.Table) -> pa.Table:
    """Without the column that has a NaN, which equals nothing."""
    return table.drop_columns(["cost"])


@pytest.fixture
def filled(tmp_path: Path, provider: FileKeyProvider, table: pa.Table, vault_url: str) -> Iterator[Vault]:
    """A vault on each engine with a table, a small document, a note and two large documents."""
    with Vault.create(tmp_path / "home" / "vault", provider, "hospital-1", database=vault_url) as vault:
        vault.ingest("claims-1", table, PEOPLE)
        vault.put_document("terms", "grant-1", b"terms")
        vault.put_person_note("hold", "li-si", b"court")
        vault.put_stream("scan", "scan-1", io.BytesIO(SCAN), person="wang-wu")
        vault.put_stream("scan", "scan-2", io.BytesIO(SCAN[:100]))
        yield vault


def check_whole(vault: Vault, table: pa.Table) -> None:
    assert vault.read("claims-1").equals(table)
    assert vault.document("terms", "grant-1") == b"terms"
    assert list(vault.person_notes("hold")) == [(vault.person_id("li-si"), b"court")]
    for name, text in (("scan-1", SCAN), ("scan-2", SCAN[:100])):
        with vault.open_stream("scan", name) as opened:
            assert opened.read() == text


def backed_up(vault: Vault, folder: Path) -> Path:
    copied = vault.back_up(folder)
    assert copied.blobs == 2 and copied.epochs == (vault._opened.provider.epochs()[-1],)
    return folder


def test_there_and_back_on_every_engine(
    filled: Vault, provider: FileKeyProvider, table: pa.Table, tmp_path: Path
) -> None:
    copy = backed_up(filled, tmp_path / "copy")
    filled.put_document("terms", "grant-2", b"later")
    put_back(copy, tmp_path / "second" / "vault", provider)
    with Vault.open(tmp_path / "second" / "vault", provider, "hospital-1") as again:
        check_whole(again, table)
        assert again.documents("terms") == ("grant-1",)
        again.put_stream("scan", "scan-3", io.BytesIO(b"it goes on"))
        again.ingest("claims-2", table, PEOPLE)
        assert again.rotate() == 2
        check_whole(again, table)


@pytest.mark.postgres
def test_onto_postgresql(
    vault: Vault, provider: FileKeyProvider, table: pa.Table, tmp_path: Path, postgres_url: str
) -> None:
    vault.ingest("claims-1", table, PEOPLE)
    vault.put_document("terms", "grant-1", b"terms")
    vault.put_person_note("hold", "li-si", b"court")
    for name, text in (("scan-1", SCAN), ("scan-2", SCAN[:100])):
        vault.put_stream("scan", name, io.BytesIO(text))
    copy = backed_up(vault, tmp_path / "copy")
    store, _ = fs.FileSystem.from_uri("mock:///")
    put_back(copy, tmp_path / "moved" / "vault", provider, database=postgres_url, blobs=store)
    with Vault.open(tmp_path / "moved" / "vault", provider, "hospital-1", database=postgres_url, blobs=store) as again:
        check_whole(again, table)
    with pytest.raises(Refused) as raised:
        put_back(copy, tmp_path / "moved" / "vault", provider, database=postgres_url, blobs=store)
    assert raised.value.code == "privacy.store_exists"


def test_a_backup_is_private_and_has_nothing_in_the_clear(filled: Vault, tmp_path: Path) -> None:
    copy = backed_up(filled, tmp_path / "copy")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o700
    files = [path for path in copy.rglob("*") if path.is_file()]
    assert sorted(path.name for path in files if path.suffix == ".sqlite") == ["vault.sqlite"]
    assert len(files) == 3 and not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    for path in files:
        data = path.read_bytes()
        assert b"wang-wu" not in data and SCAN[:40] not in data and b"terms\0" not in data
    with pytest.raises(Refused) as raised:
        filled.back_up(copy)
    assert raised.value.code == "privacy.store_exists"


# ---- nothing erased comes back


def test_what_was_erased_since_does_not_come_back(
    filled: Vault, provider: FileKeyProvider, table: pa.Table, tmp_path: Path
) -> None:
    copy = backed_up(filled, tmp_path / "copy")
    keys = filled.keys_of("wang-wu")
    assert filled.destroy([key.key for key in keys], b"r" * 32) == len(keys) == 2
    register = filled.register.path
    for where in ("second", "third"):
        put_back(copy, tmp_path / where / "vault", provider)
    with Vault.open(tmp_path / "second" / "vault", provider, "hospital-1", register=register) as again:
        assert again.keys_of("wang-wu") == () and again.streams("scan") == ("scan-2",)
        assert again.read("claims-1").num_rows == 3
        assert again.tidy_blobs() == 0
        assert len(list((tmp_path / "second").rglob("*.blob"))) == 1
    # Without the register nobody knows: the page says so, and a rotation since makes the backup unreadable.
    with Vault.open(tmp_path / "third" / "vault", provider, "hospital-1") as again:
        assert again.streams("scan") == ("scan-1", "scan-2")


def test_a_backup_of_before_a_rotation_is_refused_in_words(
    filled: Vault, provider: FileKeyProvider, tmp_path: Path
) -> None:
    copy = backed_up(filled, tmp_path / "copy")
    filled.destroy([key.key for key in filled.keys_of("wang-wu")], b"r" * 32)
    filled.rotate()
    for call in (
        lambda: check_backup(copy, provider),
        lambda: put_back(copy, tmp_path / "second" / "vault", provider),
    ):
        with pytest.raises(Refused) as raised:
            call()
        assert raised.value.code == "privacy.backup_epoch_gone" and raised.value.facts["epoch"] == 1
    assert "destroyed" in raised.value.text() and "销毁" in raised.value.text("zh")
    assert not (tmp_path / "second").exists()


def test_a_backup_of_the_midst_of_a_rotation_needs_both_epochs(
    vault: Vault, provider: FileKeyProvider, table: pa.Table, tmp_path: Path
) -> None:
    vault.ingest("claims-1", table, PEOPLE)
    made: list[Path] = []

    def fault(place: str) -> None:
        if place == "rotate:index" and not made:
            made.append(tmp_path / "copy")
            vault.back_up(made[0])

    vault._opened.fault = fault
    assert vault.rotate() == 2
    with pytest.raises(Refused) as raised:
        check_backup(made[0], provider)
    assert raised.value.code == "privacy.backup_epoch_gone" and raised.value.facts["epoch"] == 1


# ---- while it is used; crashes; damage


def test_documents_that_go_meanwhile_stay_until_it_is_done(
    filled: Vault, provider: FileKeyProvider, tmp_path: Path, table: pa.Table
) -> None:
    def fault(place: str) -> None:
        if place == "backup:tables":
            filled._opened.fault = lambda _place: None
            filled.remove_stream("scan", "scan-1")
            filled.put_stream("scan", "scan-2", io.BytesIO(b"new"))
            with pytest.raises(Unavailable) as raised:
                filled.tidy_blobs()
            assert raised.value.code == "privacy.backup_running"

    filled._opened.fault = fault
    copy = backed_up(filled, tmp_path / "copy")
    assert len(list(filled.path.rglob("*.blob"))) == 1 and filled.tidy_blobs() == 0
    put_back(copy, tmp_path / "second" / "vault", provider)
    with Vault.open(tmp_path / "second" / "vault", provider, "hospital-1") as again:
        check_whole(again, table)


def test_a_busy_vault_gives_whole_backups(filled: Vault, provider: FileKeyProvider, tmp_path: Path) -> None:
    """Each document says which round wrote it; both documents of a round are in one table's load and one name."""
    done = threading.Event()

    def busy() -> None:
        number = 0
        while not done.is_set():
            number += 1
            filled.put_stream("scan", f"busy-{number % 3}", io.BytesIO(b"%d" % number * 50_000))

    writing = threading.Thread(target=busy)
    writing.start()
    try:
        for number in range(4):
            filled.back_up(tmp_path / f"copy-{number}")
    finally:
        done.set()
        writing.join()
    for number in range(4):
        put_back(tmp_path / f"copy-{number}", tmp_path / f"back-{number}" / "vault", provider)
        with Vault.open(tmp_path / f"back-{number}" / "vault", provider, "hospital-1") as again:
            for name in again.streams("scan"):
                with again.open_stream("scan", name) as opened:
                    assert len(opened.read()) == again.stream("scan", name).length


KILLED = """
import os, sys
from pathlib import Path
from privacy.keys import FileKeyProvider
from privacy.vault import Vault

def fault(place):
    if place == sys.argv[4]:
        os._exit(9)

vault = Vault.open(Path(sys.argv[1]), FileKeyProvider(Path(sys.argv[2]), "correct horse"), "hospital-1", fault=fault)
vault.back_up(Path(sys.argv[3]))
os._exit(0)
"""


@pytest.mark.parametrize("place", ["backup:tables", "backup:blobs"])
def test_killed_while_it_is_made(vault: Vault, provider: FileKeyProvider, tmp_path: Path, place: str) -> None:
    vault.put_stream("scan", "scan-1", io.BytesIO(SCAN))
    vault.close()
    command = [sys.executable, "-c", KILLED, str(vault.path), str(provider.path), str(tmp_path / "copy"), place]
    assert subprocess.run(command, check=False).returncode == 9
    assert not (tmp_path / "copy").exists()
    with Vault.open(vault.path, provider, "hospital-1") as again:
        again.back_up(tmp_path / "copy")
    put_back(tmp_path / "copy", tmp_path / "second" / "vault", provider)


def test_damage_is_caught(filled: Vault, provider: FileKeyProvider, tmp_path: Path) -> None:
    copy = backed_up(filled, tmp_path / "copy")
    whole = (copy / "vault.sqlite").read_bytes()
    (copy / "vault.sqlite").write_bytes(whole[:5000])
    with pytest.raises(MedveilError):
        put_back(copy, tmp_path / "a" / "vault", provider)
    (copy / "vault.sqlite").write_bytes(b"")
    with pytest.raises(DecodeError):
        put_back(copy, tmp_path / "b" / "vault", provider)
    (copy / "vault.sqlite").write_bytes(whole)
    next(copy.rglob("*.blob")).unlink()
    with pytest.raises(VerificationError):
        put_back(copy, tmp_path / "c" / "vault", provider)
    for name in "abc":
        assert not (tmp_path / name / "vault" / "vault.sqlite").exists()
    with pytest.raises(DecodeError):
        put_back(tmp_path / "nothing", tmp_path / "d" / "vault", provider)


def test_a_vault_that_is_there_is_not_overwritten(
    vault: Vault, provider: FileKeyProvider, tmp_path: Path, table: pa.Table
) -> None:
    vault.back_up(tmp_path / "copy")
    vault.ingest("claims-1", table, PEOPLE)
    with pytest.raises(Refused) as raised:
        put_back(tmp_path / "copy", vault.path, provider)
    assert raised.value.code == "privacy.store_exists"
    assert vault.read("claims-1").equals(table)


@pytest.mark.postgres
def test_a_copy_of_version_1_goes_back_onto_sqlite_alone(tmp_path: Path, postgres_url: str) -> None:
    old = Path(__file__).resolve().parents[2] / "vectors" / "vault" / "version-1"
    shutil.copytree(old, tmp_path / "old")
    old = tmp_path / "old"
    keys = FileKeyProvider(old / "keys", "correct horse")
    with pytest.raises(Refused) as raised:
        put_back(old, tmp_path / "home" / "vault", keys, database=postgres_url)
    assert raised.value.code == "privacy.backup_older" and raised.value.facts["version"] == 1
    put_back(old, tmp_path / "home" / "vault", keys)
    with Vault.open(tmp_path / "home" / "vault", keys, "hospital-1") as vault:
        assert vault.count("named") == 4
    with Vault.create(tmp_path / "new" / "vault", keys, "hospital-1", database=postgres_url) as vault:
        assert vault.datasets() == (), "nothing of it was put there"
