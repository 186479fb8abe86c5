"""A home whose vault lies elsewhere: on PostgreSQL, its large documents in a store of their own."""

from __future__ import annotations

import errno
import io
import json
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import psycopg
import pyarrow as pa
import pytest
from pyarrow import fs
from typer.testing import CliRunner

from medveil import doctor
from medveil.cli import app
from medveil.service.home import home as home_module
from medveil.service.home import restore as restoring
from medveil.service.home.backup import make_backup
from medveil.service.home.config import FILE, Config, VaultPlace, check_config, read_config, write_config
from medveil.service.home.home import Home
from medveil.service.home.restore import restore
from medveil.service.home.vault_place import blob_store, database_url, try_blobs
from wire.errors import MedveilError, Refused, Unavailable

NOW = 1_760_000_000_000
PASS = "correct horse battery staple"
RECORDS = {"id": ["p-1", "p-2"], "diagnosis": ["a very rare thing", "another rare thing"]}
SCAN = b"a large document " * 9_000
MEMBER = "hospital-1"


def clock() -> int:
    return NOW


def make(folder: Path, place: VaultPlace) -> None:
    Home.create(folder, MEMBER, ("hospital",), PASS, secrets.token_bytes, clock, vault=place)


def opened(folder: Path) -> Home:
    return Home.open(folder, PASS, secrets.token_bytes, clock)


def check_whole(folder: Path) -> None:
    with opened(folder) as at:
        vault = at.organisation.vault
        assert vault.read("visits").to_pydict() == RECORDS
        with vault.open_stream("scan", "scan-1") as file:
            assert file.read() == SCAN
        assert vault.tidy_blobs() == 0


def code(call: Callable[[], Any]) -> str:
    with pytest.raises(MedveilError) as raised:
        call()
    return raised.value.code


def plain(url: str) -> str:
    """As gateway.toml has it."""
    return url.replace("+psycopg", "")


@pytest.fixture(params=["blobs", "postgres", "both"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> VaultPlace:
    """Elsewhere in one way or the other."""
    blobs = f"file://{tmp_path}/store/of%20documents" if request.param != "postgres" else ""
    if request.param == "blobs":
        return VaultPlace(blobs=blobs)
    return VaultPlace(plain(request.getfixturevalue("postgres_url")), "", blobs)


@pytest.fixture
def home(tmp_path: Path, place: VaultPlace) -> Path:
    make(tmp_path / "home", place)
    with opened(tmp_path / "home") as at:
        vault = at.organisation.vault
        vault.ingest("visits", pa.table(RECORDS), RECORDS["id"])
        vault.put_stream("scan", "scan-1", io.BytesIO(SCAN), person="p-1")
    return tmp_path / "home"


def emptied(url: str) -> None:
    """The lost server's database, and a new one in its place."""
    with psycopg.connect(plain(url), autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS medveil_vault CASCADE")


def left(url: str) -> int:
    """Rows in all tables of a vault."""
    with psycopg.connect(plain(url), autocommit=True) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'medveil_vault'").fetchall()
        counts = [
            connection.execute(f"SELECT count(*) FROM medveil_vault.{name}").fetchone()
            for (name,) in names
            if name != "medveil_data"
        ]
    return sum(count[0] for count in counts if count is not None)


pytestmark = pytest.mark.postgres


def test_made_used_and_looked_at(
    home: Path, place: VaultPlace, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_config(home / FILE).vault == place
    check_whole(home)
    assert (home / "vault" / "vault.sqlite").exists() == (place.database == "sqlite")
    stored = list((tmp_path / "store" / "of documents").rglob("*.blob")) if place.blobs else []
    assert len([*home.rglob("*.blob"), *stored]) == 1 and bool(stored) == bool(place.blobs)
    if place.blobs:
        assert (tmp_path / "store" / "of documents").stat().st_mode & 0o077 == 0
    (home.parent / "passphrase").touch(mode=0o600)
    (home.parent / "passphrase").write_text(PASS)
    monkeypatch.setenv("MEDVEIL_PASSPHRASE_FILE", str(home.parent / "passphrase"))
    with opened(home):  # beside the process that has it
        doctor.run(json=True, home=home)
    said = {row["check"]: row for row in json.loads(capsys.readouterr().out)}
    assert said["vault"]["state"] == "ok" and said["vault"]["value"].endswith(", datasets: 1")
    assert said["large documents"]["value"] == (place.blobs or "the home")
    assert said["extracts"]["value"].startswith("0.0 of 128 GiB held, ")
    assert said["extracts"]["value"].endswith("; 64 an organisation, 8 unasked")
    assert list((tmp_path / "store").rglob("*.blob")) == stored


def test_backed_up_and_restored(home: Path, place: VaultPlace, tmp_path: Path) -> None:
    with opened(home) as at:
        make_backup(at, tmp_path / "backup", clock)
    if place.database != "sqlite":
        again = lambda: restore(tmp_path / "backup", tmp_path / "new", PASS, secrets.token_bytes, clock)  # noqa: E731
        assert code(again) == "privacy.store_exists", "a vault that is there is nobody's to remove"
        assert not (tmp_path / "new").exists()
        check_whole(home)
        emptied(place.database)
    home.rename(tmp_path / "lost")
    restore(tmp_path / "backup", home, PASS, secrets.token_bytes, clock)
    check_whole(home)
    assert not (home / "vault-copy").exists()


@pytest.mark.parametrize("which", ["the copy", "the last flush"])
def test_a_restore_whose_disk_fails_late(
    home: Path, place: VaultPlace, tmp_path: Path, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the home has its name nothing of it stays where its vault lies; after that the vault is the home's."""
    with opened(home) as at:
        make_backup(at, tmp_path / "backup", clock)
    if place.database != "sqlite":
        emptied(place.database)
    home.rename(tmp_path / "lost")
    if place.blobs:
        shutil.rmtree(tmp_path / "store")
    flush, rmtree = restoring.flush, shutil.rmtree

    def unflushed(path: Path) -> None:
        if path == tmp_path:
            raise OSError(errno.EIO, "I/O")
        flush(path)

    def unremoved(path: Path, *given: Any, **named: Any) -> None:
        if Path(path).name == "vault-copy":
            raise OSError(errno.EIO, "I/O")
        rmtree(path, *given, **named)

    with monkeypatch.context() as disk:
        if which == "the copy":
            disk.setattr(restoring.shutil, "rmtree", unremoved)
        else:
            disk.setattr(restoring, "flush", unflushed)
        again = lambda: restore(tmp_path / "backup", home, PASS, secrets.token_bytes, clock)  # noqa: E731
        assert code(again) == "home.unwritable"
    if which == "the copy":
        assert not home.exists()
        assert place.database == "sqlite" or left(place.database) == 0
        restore(tmp_path / "backup", home, PASS, secrets.token_bytes, clock)
    check_whole(home)


def test_restored_elsewhere(home: Path, tmp_path: Path, postgres_url: str) -> None:
    with opened(home) as at:
        make_backup(at, tmp_path / "backup", clock)
    before, now = read_config(home / FILE).vault, VaultPlace(plain(postgres_url), "", f"file://{tmp_path}/new-store")
    home.rename(tmp_path / "lost")
    (tmp_path / "passphrase").touch(mode=0o600)
    (tmp_path / "passphrase").write_text(PASS)
    emptied(postgres_url)
    environment = {"MEDVEIL_PASSPHRASE_FILE": str(tmp_path / "passphrase")}
    for place in (now, VaultPlace(), VaultPlace(before.database, "", f"file://{tmp_path}/third-store")):
        elsewhere = ["--vault-database", place.database, "--blobs", place.blobs or "home", "--moved"]
        said = CliRunner().invoke(app, ["restore", str(tmp_path / "backup"), str(home), *elsewhere], env=environment)
        assert said.exit_code == 0, said.output
        assert read_config(home / FILE).vault == place
        check_whole(home)
        with opened(home) as at:
            shutil.rmtree(tmp_path / "backup")
            make_backup(at, tmp_path / "backup", clock)
        shutil.rmtree(home)
        emptied(postgres_url)


def test_a_store_that_is_not_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    store, home = tmp_path / "store", tmp_path / "home"
    make(home, VaultPlace(blobs=f"file://{store}"))
    (tmp_path / "passphrase").touch(mode=0o600)
    (tmp_path / "passphrase").write_text(PASS)
    monkeypatch.setenv("MEDVEIL_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
    with opened(home) as at:
        at.organisation.vault.put_stream("scan", "scan-1", io.BytesIO(SCAN))
    store.rename(tmp_path / "elsewhere")
    for empty in (False, True):
        if empty:
            store.mkdir()  # where it would be mounted
        with opened(home) as at:
            vault = at.organisation.vault
            for call in (
                vault.tidy_blobs,
                lambda vault=vault: vault.open_stream("scan", "scan-1"),
                lambda vault=vault: vault.put_stream("scan", "scan-2", io.BytesIO(b"text")),
            ):
                assert code(call) == "privacy.blobs_missing"
        doctor.run(json=True, home=home)
        said = {row["check"]: row for row in json.loads(capsys.readouterr().out)}
        assert said["vault"]["code"] == "privacy.blobs_missing" and "large documents" not in said
        assert store.exists() == empty and (not empty or list(store.iterdir()) == [])
    store.rmdir()
    (tmp_path / "elsewhere").rename(store)
    with opened(home) as at, at.organisation.vault.open_stream("scan", "scan-1") as file:
        assert file.read() == SCAN


def test_what_was_erased_since_stays_erased(home: Path, place: VaultPlace, tmp_path: Path) -> None:
    with opened(home) as at:
        make_backup(at, tmp_path / "backup", clock)
        vault = at.organisation.vault
        vault.destroy([key.key for key in vault.keys_of("p-1")], bytes(32))
    if place.database != "sqlite":
        emptied(place.database)
    home.rename(tmp_path / "lost")
    restore(tmp_path / "backup", home, PASS, secrets.token_bytes, clock, erased=tmp_path / "lost" / "erased")
    with opened(home) as at:
        assert at.organisation.vault.read("visits")["id"].to_pylist() == ["p-2"]
        assert at.organisation.vault.streams("scan") == ()


@pytest.mark.parametrize("step", ["rotate:begun", "rotate:index", "rotate:few", "rotate:committed", "rotate:wrapped"])
def test_a_backup_in_the_middle_of_a_rotation(
    tmp_path: Path, postgres_url: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = VaultPlace(plain(postgres_url))
    make(tmp_path / "home", place)
    with opened(tmp_path / "home") as at:
        vault = at.organisation.vault
        vault.ingest("visits", pa.table(RECORDS), RECORDS["id"])
        vault.put_stream("scan", "scan-1", io.BytesIO(SCAN), person="p-1")

        def backing_up(now: str) -> None:
            if now == step and not (tmp_path / "backup").exists():
                make_backup(at, tmp_path / "backup", clock)

        monkeypatch.setattr(vault._opened, "fault", backing_up)
        assert vault.rotate() == 2 and at.organisation.guard.epochs() == (2,)
    emptied(postgres_url)
    (tmp_path / "home").rename(tmp_path / "lost")
    restore(tmp_path / "backup", tmp_path / "home", PASS, secrets.token_bytes, clock)
    with opened(tmp_path / "home") as at:
        assert at.organisation.guard.epochs() == (1, 2)
    check_whole(tmp_path / "home")
    with opened(tmp_path / "home") as at:
        assert at.organisation.vault.rotate() == 3 and at.organisation.guard.epochs() == (3,)
    check_whole(tmp_path / "home")


def test_nothing_stays_of_a_home_that_was_not_finished(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = VaultPlace(plain(postgres_url), "", f"file://{tmp_path}/store")

    def broken(*given: object) -> None:
        raise OSError(28, "no space left")

    with monkeypatch.context() as full:
        full.setattr(home_module, "write_config", broken)
        assert code(lambda: make(tmp_path / "home", place)) == "home.unwritable"
    assert left(postgres_url) == 0 and list((tmp_path / "store").iterdir()) == []
    make(tmp_path / "home", place)
    other = tmp_path / "other"
    assert code(lambda: make(other, VaultPlace(place.database))) == "privacy.store_exists"
    assert code(lambda: make(other, VaultPlace(blobs=place.blobs))) == "privacy.blobs_of_other"
    assert not other.exists()
    with opened(tmp_path / "home") as at:
        assert at.organisation.vault.datasets() == ()


def test_one_process_at_a_time(tmp_path: Path, postgres_url: str) -> None:
    make(tmp_path / "home", VaultPlace(plain(postgres_url)))
    with opened(tmp_path / "home") as at:
        at.organisation.vault.keep_held()
        copy = tmp_path / "copy"
        copy.mkdir()
        for name in (FILE, "card.evidence", "keys", "data-version", "home-id", "audit.sqlite"):
            (copy / name).write_bytes((tmp_path / "home" / name).read_bytes())
        assert code(lambda: opened(copy)) == "database.in_use"


def test_a_password_is_read_from_its_file_alone(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.touch(mode=0o600)
    secret.write_text("p@ss/word:é\n")
    place = VaultPlace("postgresql://medveil@db.example/vault", str(secret))
    url = database_url(place)
    import sqlalchemy as sa

    assert sa.make_url(url).password == "p@ss/word:é" and sa.make_url(url).host == "db.example"
    assert database_url(VaultPlace()) == ""
    write_config(tmp_path / FILE, check_config(Config(1, MEMBER, vault=place)))
    assert read_config(tmp_path / FILE).vault == place and "p@ss" not in (tmp_path / FILE).read_text()
    secret.chmod(0o640)
    assert code(lambda: database_url(place)) == "config.open_passphrase"
    secret.unlink()
    assert code(lambda: database_url(place)) == "config.unreadable"


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("database", VaultPlace("mysql://db.example/vault")),
        ("database", VaultPlace("postgresql://medveil:secret@db.example/vault")),
        ("database", VaultPlace("sqlite:////elsewhere")),
        ("database", VaultPlace("")),
        ("database", VaultPlace("postgresql://[db.example/vault")),
        ("password_file", VaultPlace("sqlite", "/run/password")),
        ("password_file", VaultPlace("postgresql://medveil@db.example/vault", "password")),
        ("blobs", VaultPlace(blobs="/srv/documents")),
        ("blobs", VaultPlace(blobs="file://")),
        ("blobs", VaultPlace(blobs="file://elsewhere/documents")),
        ("blobs", VaultPlace(blobs="s3://")),
        ("blobs", VaultPlace(blobs="s3://name:secret@bucket/documents")),
        ("blobs", VaultPlace(blobs="s3://bucket/documents?secret_key=secret")),
        ("blobs", VaultPlace(blobs="ftp://store.example/documents")),
    ],
)
def test_what_cannot_be_a_place(key: str, wrong: VaultPlace) -> None:
    with pytest.raises(Refused) as raised:
        check_config(Config(1, MEMBER, vault=wrong))
    assert raised.value.code == "config.bad_vault" and raised.value.facts["key"] == key
    assert "secret" not in raised.value.text()


def test_a_bucket_that_nobody_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")):
        monkeypatch.setenv(name, value)
    once = fs.AwsStandardS3RetryStrategy(max_attempts=1)  # by default each of three answers takes six seconds
    bucket = fs.S3FileSystem(region="x", scheme="http", endpoint_override="localhost:9", retry_strategy=once)
    monkeypatch.setattr(fs, "FileSystem", SimpleNamespace(from_uri=lambda uri: (bucket, "bucket/documents")))
    store = VaultPlace(blobs="s3://bucket/documents?region=x&scheme=http&endpoint_override=localhost:9")
    assert blob_store(store) is not None
    with pytest.raises(Unavailable) as raised:
        try_blobs(store)
    assert raised.value.code == "privacy.store_failed"


def test_init_says_where(tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "passphrase").touch(mode=0o600)
    (tmp_path / "passphrase").write_text(PASS)
    monkeypatch.setenv("MEDVEIL_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
    command = ["init", str(tmp_path / "home"), "--organisation", MEMBER, "--role", "hospital"]
    elsewhere = ["--vault-database", plain(postgres_url), "--blobs", f"file://{tmp_path}/store"]
    said = CliRunner().invoke(app, [*command, *elsewhere])
    assert said.exit_code == 0, said.output
    assert read_config(tmp_path / "home" / FILE).vault == VaultPlace(
        plain(postgres_url), "", f"file://{tmp_path}/store"
    )
    assert left(postgres_url) > 0
    assert msgspec.structs.asdict(VaultPlace())["database"] == "sqlite"
