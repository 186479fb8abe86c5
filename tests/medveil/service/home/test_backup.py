"""A backup is whole or not there, consistent while the home is in use, and says nothing that the home does not."""

from __future__ import annotations

import json
import secrets
import shutil
import stat
import threading
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from medveil.cli import app
from medveil.gateway import erasing
from medveil.gateway.wallets import Wallets
from medveil.service.home import backup as module
from medveil.service.home.backup import MANIFEST_FILE, make_backup, read_backup
from medveil.service.home.config import FILE, read_config, write_config
from medveil.service.home.home import DATA_VERSION, Home
from medveil.service.home.restore import MARK, read_mark, restore
from wire.errors import DecodeError, MedveilError, Refused, Unavailable, VerificationError

NOW = 1_760_000_000_000
PASS = "correct horse battery staple"
RECORDS = {"id": ["p-1", "p-2"], "diagnosis": ["a very rare thing", "another rare thing"]}


def clock() -> int:
    return NOW


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    Home.create(folder, "hospital-1", ("hospital",), PASS, secrets.token_bytes, clock)
    with Home.open(folder, PASS, secrets.token_bytes, clock) as opened:
        opened.organisation.vault.ingest("visits", pa.table(RECORDS), RECORDS["id"])
        opened.organisation.vault.put_document("terms", "g-1", b"the full terms of a grant")
        opened.database().close()
        assert opened.record_key != opened.code_key
        wallets = Wallets(opened.organisation)
        wallets.of("p-1")
        wallets.close()
    (folder / "passphrase").write_text(PASS)
    (folder / "evidence" / "e-1").mkdir(parents=True)
    (folder / "evidence" / "e-1" / "manifest.json").write_text("{}")
    (folder / "evidence" / "link").symlink_to(folder / "passphrase")
    return folder


def backed_up(home: Path, out: Path) -> Path:
    with Home.open(home, PASS, secrets.token_bytes, clock) as opened:
        make_backup(opened, out, clock)
    return out


def back(backup: Path, folder: Path, passphrase: str = PASS, moved: bool = False) -> Path:
    restore(backup, folder, passphrase, secrets.token_bytes, lambda: NOW + 5, moved=moved)
    return folder


def test_a_home_and_back(home: Path, tmp_path: Path) -> None:
    out = backed_up(home, tmp_path / "out")
    folder = back(out, tmp_path / "again")
    with (
        Home.open(folder, PASS, secrets.token_bytes, clock) as again,
        Home.open(home, PASS, secrets.token_bytes, clock) as first,
    ):
        assert again.organisation.vault.read("visits").to_pydict() == RECORDS
        assert again.organisation.vault.document("terms", "g-1") == b"the full terms of a grant"
        assert (again.record_key, again.card) == (first.record_key, first.card)
        assert again.organisation.signer.key == first.organisation.signer.key
        again.database().close()
        wallets = Wallets(again.organisation)
        assert wallets.of("p-1").bills() == ()
        wallets.close()
    assert (folder / "evidence" / "e-1" / "manifest.json").read_text() == "{}"
    mark = read_mark(folder)
    assert mark is not None and (mark.backed_up, mark.restored, mark.settled) == (NOW, NOW + 5, False)
    assert read_mark(back(out, tmp_path / "moved", moved=True)) is None


def test_files_that_its_configuration_names_come_along(home: Path, tmp_path: Path) -> None:
    """The people's certificate and key, if they are in the home; what lies elsewhere, or is a link, does not."""
    for name in ("web.pem", "web.key", "passphrase"):
        (home / name).write_text(f"{name} of tests")
    config = read_config(home / FILE)
    people = msgspec.structs.replace(config.people, certificate="web.pem", key="web.key")
    write_config(home / FILE, msgspec.structs.replace(config, people=people, passphrase_file="passphrase"))
    (home / "passphrase").write_text(PASS)
    folder = back(backed_up(home, tmp_path / "out"), tmp_path / "again")
    assert (folder / "web.key").read_text() == "web.key of tests" and (folder / "web.pem").is_file()
    assert (folder / "web.key").stat().st_mode & 0o077 == 0
    assert not (folder / "passphrase").exists()
    (home / "web.key").unlink()
    (home / "web.key").symlink_to(home / "passphrase")
    assert not (back(backed_up(home, tmp_path / "two"), tmp_path / "third") / "web.key").exists()


def test_nothing_in_the_clear_and_nobody_else_reads_it(home: Path, tmp_path: Path) -> None:
    out = backed_up(home, tmp_path / "out")
    folder = back(out, tmp_path / "again")
    for place in (out, folder):
        for path in (place, *place.rglob("*")):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 or path.name.endswith(".lock"), path
            assert not path.is_symlink()
            if path.is_file():
                data = path.read_bytes()
                for word in (PASS.encode(), b"a very rare thing", b"full terms"):
                    assert word not in data, path
    listed = {file.path for file in read_backup(out).body.files}
    (wallet,) = {file.split("/")[1] for file in listed if file.startswith("wallets/")}
    (blob,) = {file for file in listed if file.startswith("vault/blobs/")}  # the wallet's passphrase, sealed
    assert wallet.startswith("wallet-") and listed == {
        "audit.sqlite", "card.evidence", "data-version", "evidence/e-1/manifest.json", "gateway.toml", "keys",
        "service.sqlite", "vault/vault.sqlite", f"wallets/{wallet}/keys", f"wallets/{wallet}/vault/vault.sqlite", blob,
    }  # fmt: skip


def _change(out: Path) -> None:
    path = out / "home" / "vault" / "vault.sqlite"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _resign(out: Path) -> None:
    """Another home's owner lists the same files as its own."""
    other = out.parent / "other"
    Home.create(other, "hospital-1", ("hospital",), PASS, secrets.token_bytes, clock)
    with Home.open(other, PASS, secrets.token_bytes, clock) as opened:
        body = read_backup(out).body
        manifest = module._signed(body, opened.organisation.keys.newest.envelope)
    (out / MANIFEST_FILE).write_bytes(module.to_json(manifest))


def _edit(out: Path, **changes: object) -> None:
    manifest = read_backup(out)
    manifest = msgspec.structs.replace(manifest, body=msgspec.structs.replace(manifest.body, **changes))
    (out / MANIFEST_FILE).write_bytes(module.to_json(manifest))


FAULTS = {
    "changed": (_change, "backup.file_changed"),
    "added": (lambda out: (out / "home" / "more").write_text("x"), "backup.file_changed"),
    "removed": (lambda out: (out / "home" / "keys").unlink(), "backup.file_changed"),
    "renamed": (lambda out: (out / "home" / "keys").rename(out / "home" / "keyz"), "backup.file_changed"),
    "linked": (
        lambda out: (
            (out / "home" / "keys").rename(out / "k"),
            (out / "home" / "keys").symlink_to(out / "k"),
        ),
        "backup.file_changed",
    ),
    "signed by another": (_resign, "backup.not_signed"),
    "of another day": (lambda out: _edit(out, created=NOW + 1), "backup.not_signed"),
    "of another name": (lambda out: _edit(out, organisation="hospital-2"), "backup.not_signed"),
    "newer": (lambda out: _edit(out, version=2), "backup.newer"),
    "of newer data": (lambda out: _edit(out, data_version=DATA_VERSION + 1), "backup.newer"),
    "no manifest": (lambda out: (out / MANIFEST_FILE).unlink(), "backup.not_there"),
    "no json": (lambda out: (out / MANIFEST_FILE).write_bytes(b"\xff{"), "backup.bad_manifest"),
    "a path that leads out": (
        lambda out: _edit(out, files=(msgspec.structs.replace(read_backup(out).body.files[0], path="../x"),)),
        "backup.bad_manifest",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_that_backup(home: Path, tmp_path: Path, fault: str) -> None:
    out = backed_up(home, tmp_path / "out")
    break_it, code = FAULTS[fault]
    break_it(out)
    with pytest.raises(MedveilError) as caught:
        back(out, tmp_path / "again")
    assert caught.value.code == code
    assert not (tmp_path / "again").exists() and not list(tmp_path.glob(".*partial"))


def test_after_a_rotation_of_keys(home: Path, tmp_path: Path) -> None:
    """Signed by the newest keys, which are in it, whatever the ledger says of them by now."""
    with Home.open(home, PASS, secrets.token_bytes, clock) as opened:
        key = opened.organisation.keys.draw().envelope.key
        manifest = make_backup(opened, tmp_path / "out", clock)
    assert manifest.key_id == key.key_id().hex()
    with Home.open(back(tmp_path / "out", tmp_path / "again"), PASS, secrets.token_bytes, clock) as again:
        assert again.organisation.keys.newest.envelope.key == key


def test_only_with_the_passphrase_into_an_empty_place(home: Path, tmp_path: Path) -> None:
    out = backed_up(home, tmp_path / "out")
    with pytest.raises(VerificationError):
        back(out, tmp_path / "again", "another")
    assert not (tmp_path / "again").exists()
    with pytest.raises(Refused) as caught:
        back(out, home)
    assert caught.value.code == "home.not_empty"
    with pytest.raises(Refused):
        backed_up(home, out)
    (tmp_path / "empty").mkdir()
    back(out, tmp_path / "empty")


@pytest.mark.parametrize("name", ["service.sqlite", "vault/vault.sqlite", "audit.sqlite"])
def test_newer_data_is_refused(home: Path, tmp_path: Path, name: str) -> None:
    import sqlite3
    from contextlib import closing

    out = backed_up(home, tmp_path / "out")
    with closing(sqlite3.connect(out / "home" / name, isolation_level=None)) as db:
        if name in ("service.sqlite", "vault/vault.sqlite"):
            db.execute("UPDATE medveil_data SET version = 99")
        else:
            db.execute("PRAGMA user_version = 99")
    with Home.open(home, PASS, secrets.token_bytes, clock) as opened:
        (out / MANIFEST_FILE).write_bytes(module.to_json(module._manifest(opened, out, NOW)))
    with pytest.raises((DecodeError, Refused)) as caught:
        back(out, tmp_path / "again")
    assert caught.value.code in ("database.newer", "privacy.store_newer")
    assert not (tmp_path / "again").exists()


def test_whole_or_not_at_all(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr(module, "write_file", full)
    with pytest.raises(Unavailable):
        backed_up(home, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]


def test_while_keys_rotate_and_tables_are_written(home: Path, tmp_path: Path) -> None:
    """Every backup that is made opens, whenever it was taken: the vault fits its keys, rows fit the vault's key."""
    with Home.open(home, PASS, secrets.token_bytes, clock) as opened:
        vault, ending, wrong = opened.organisation.vault, threading.Event(), []

        def busy() -> None:
            number = 0
            try:
                while not ending.is_set():
                    vault.put_document("terms", f"g-{number}", b"more terms")
                    vault.rotate()
                    number += 1
            except Exception as error:
                wrong.append(error)

        thread = threading.Thread(target=busy)
        thread.start()
        made = 0
        try:
            for number in range(8):
                try:
                    make_backup(opened, tmp_path / f"out-{number}", clock)
                    made += 1
                except Unavailable as error:
                    assert error.code == "backup.keys_change"
        finally:
            ending.set()
            thread.join()
        assert not wrong and made >= 1
    for number in range(8):
        if (tmp_path / f"out-{number}").exists():
            folder = back(tmp_path / f"out-{number}", tmp_path / f"again-{number}")
            with Home.open(folder, PASS, secrets.token_bytes, clock) as again:
                assert again.organisation.vault.read("visits").to_pydict() == RECORDS
                for name in again.organisation.vault.documents("terms"):
                    assert again.organisation.vault.document("terms", name)
            shutil.rmtree(folder)


def test_the_verbs(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "passphrase"
    file.write_text(PASS)
    file.chmod(0o600)
    monkeypatch.setenv("MEDVEIL_PASSPHRASE_FILE", str(file))
    run = CliRunner()
    made = run.invoke(app, ["backup", str(home), str(tmp_path / "out"), "--json"])
    assert made.exit_code == 0 and json.loads(made.output)["organisation"] == "hospital-1", made.output
    again = run.invoke(app, ["restore", str(tmp_path / "out"), str(tmp_path / "again")])
    assert again.exit_code == 0 and "hospital-1" in again.output and (tmp_path / "again" / MARK).exists()
    assert "Sessions, invitations, programs' tokens and recovery codes end" in again.output
    moved = run.invoke(app, ["restore", str(tmp_path / "out"), str(tmp_path / "moved"), "--moved"])
    assert moved.exit_code == 0 and "tokens" not in moved.output
    with Home.open(home, PASS, secrets.token_bytes, clock):
        held = run.invoke(app, ["backup", str(home), str(tmp_path / "two")])
        assert getattr(held.exception, "code", "") == "home.in_use"


def test_a_wallet_that_was_erased_since_does_not_come_back(home: Path, tmp_path: Path) -> None:
    """The backup has its folder and its passphrase; the register of the home says that the key is gone."""
    out = backed_up(home, tmp_path / "out")
    with Home.open(home, PASS, secrets.token_bytes, clock) as opened:
        organisation = opened.organisation
        kept = Wallets(organisation).of("p-2").folder.name
        planned = erasing.plan(organisation, "p-1", NOW)
        assert "document.wallet" in {key.dataset for key in planned.plan.erase}
        assert erasing.apply(organisation, planned.name, clock).done
        assert {path.name for path in (home / "wallets").iterdir()} == {kept}
    folder = tmp_path / "again"
    restore(out, folder, PASS, secrets.token_bytes, clock, erased=home / "erased")
    assert len(list((folder / "wallets").iterdir())) == 1
    with Home.open(folder, PASS, secrets.token_bytes, clock) as again:
        wallets = Wallets(again.organisation)
        assert len(wallets.lost()) == 1
        wallets.sweep()
        assert not list((folder / "wallets").iterdir()) and not again.organisation.vault.keys_of("p-1")


def test_a_wallet_that_is_erased_while_it_is_copied_is_left_out(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (wallet,) = (home / "wallets").iterdir()
    copy = module.copy_file

    def erased_meanwhile(source: Path, target: Path) -> tuple[int, str]:
        if source.is_relative_to(wallet):
            shutil.rmtree(wallet)
        return copy(source, target)

    monkeypatch.setattr(module, "copy_file", erased_meanwhile)
    out = backed_up(home, tmp_path / "out")
    assert not [file.path for file in read_backup(out).body.files if file.path.startswith("wallets/")]
    back(out, tmp_path / "again")
