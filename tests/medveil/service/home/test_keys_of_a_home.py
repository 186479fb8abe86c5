"""A home whose keys are on a token: made, opened, lost and found, backed up and restored; or whose are in a file."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from medveil.cli import app
from medveil.service.home.backup import make_backup
from medveil.service.home.config import FILE, Config, Keys, check_config, passphrase, read_config, write_config
from medveil.service.home.home import Home
from medveil.service.home.restore import restore
from privacy.keys import KeyEvent
from wire.errors import DecodeError, MedveilError, Refused, Unavailable

NOW = 1_760_000_000_000
PIN = "a pin of tests"
RECORDS = {"id": ["p-1", "p-2"], "diagnosis": ["a very rare thing", "another rare thing"]}


def clock() -> int:
    return NOW


def keys_on(token: Any) -> Keys:
    return Keys(provider="pkcs11", module=token.module, token=token.label, patience=30)


def make(folder: Path, keys: Keys, pin: str = PIN) -> None:
    Home.create(folder, "hospital-1", ("hospital",), pin, secrets.token_bytes, clock, keys=keys)


def opened(folder: Path, pin: str = PIN) -> Home:
    return Home.open(folder, pin, secrets.token_bytes, clock)


@pytest.fixture
def home(tmp_path: Path, token: Any) -> Path:
    make(tmp_path / "home", keys_on(token))
    with opened(tmp_path / "home") as at:
        at.organisation.vault.ingest("visits", pa.table(RECORDS), RECORDS["id"])
    return tmp_path / "home"


@pytest.mark.softhsm
def test_made_and_opened(home: Path, token: Any) -> None:
    assert not (home / "keys").exists()
    assert read_config(home / FILE).keys == keys_on(token)
    assert PIN not in (home / FILE).read_text()
    with opened(home) as at:
        vault = at.organisation.vault
        assert vault.read("visits").to_pydict() == RECORDS
        assert vault.rotate() == 2 and at.organisation.guard.epochs() == (2,)
    with opened(home) as at:
        assert at.organisation.vault.read("visits").to_pydict() == RECORDS


@pytest.mark.softhsm
def test_a_wrong_pin_and_a_token_that_is_away(home: Path, token: Any) -> None:
    with pytest.raises(Refused) as refused:
        opened(home, "another pin")
    assert refused.value.code == "privacy.token_pin"
    away = token.folder.with_name("away-from-home")
    token.folder.rename(away)
    token.folder.mkdir()
    try:
        with pytest.raises(Unavailable) as raised:
            opened(home)
        assert raised.value.code == "privacy.token_missing"
    finally:
        token.folder.rmdir()
        away.rename(token.folder)
    opened(home).close()


@pytest.mark.softhsm
def test_a_home_that_could_not_be_made_leaves_no_keys(tmp_path: Path, token: Any) -> None:
    with pytest.raises(DecodeError):
        Home.create(tmp_path / "home", "hospital-1", ("king",), PIN, secrets.token_bytes, clock, keys=keys_on(token))
    assert not list(tmp_path.glob("*home*"))
    make(tmp_path / "home", keys_on(token))
    with pytest.raises(Refused) as raised:
        make(tmp_path / "second", keys_on(token))
    assert raised.value.code == "privacy.token_has_keys"
    opened(tmp_path / "home").close()


@pytest.mark.softhsm
def test_a_backup_needs_the_token_and_is_useless_after_a_rotation(home: Path, tmp_path: Path) -> None:
    with opened(home) as at:
        make_backup(at, tmp_path / "out", clock)
        assert not (tmp_path / "out" / "home" / "keys").exists()
    restore(tmp_path / "out", tmp_path / "again", PIN, secrets.token_bytes, clock)
    with opened(tmp_path / "again") as again:
        assert again.organisation.vault.read("visits").to_pydict() == RECORDS
        again.organisation.vault.rotate()
    with pytest.raises(Refused) as raised:
        restore(tmp_path / "out", tmp_path / "third", PIN, secrets.token_bytes, clock)
    assert raised.value.code == "privacy.backup_epoch_gone"
    assert not (tmp_path / "third").exists()


def test_a_restore_joins_the_register_of_the_lost_home(tmp_path: Path) -> None:
    make(tmp_path / "home", Keys())
    with opened(tmp_path / "home") as at:
        vault = at.organisation.vault
        vault.ingest("visits", pa.table(RECORDS), RECORDS["id"])
        make_backup(at, tmp_path / "out", clock)
        vault.destroy([key.key for key in vault.keys_of("p-1")], b"r" * 32)
    register = tmp_path / "home" / "erased"
    restore(tmp_path / "out", tmp_path / "again", PIN, secrets.token_bytes, clock, erased=register)
    with opened(tmp_path / "again") as again:
        assert again.organisation.vault.read("visits").to_pydict() == {
            name: [two] for name, (_, two) in RECORDS.items()
        }
        assert again.organisation.vault.keys_of("p-1") == ()
        make_backup(again, tmp_path / "out-2", clock)
    assert (tmp_path / "out-2" / "home" / "erased").read_bytes() == (tmp_path / "again" / "erased").read_bytes()
    (tmp_path / "other").write_bytes(b"no register")
    with pytest.raises(DecodeError):
        restore(tmp_path / "out", tmp_path / "third", PIN, secrets.token_bytes, clock, erased=tmp_path / "other")
    assert not (tmp_path / "third").exists()


def test_the_limit_is_the_configured_one(tmp_path: Path) -> None:
    make(tmp_path / "home", Keys(rate=1, burst=30))
    told: list[KeyEvent] = []
    with opened(tmp_path / "home") as at:
        organisation = at.organisation
        organisation.guard.alert = told.append
        organisation.vault.ingest("visits", pa.table(RECORDS), RECORDS["id"])
        with pytest.raises(Unavailable) as raised:
            for _ in range(40):
                organisation.vault.record("visits", "p-1")
        assert raised.value.code == "privacy.unwrap_rate" and raised.value.retry_after >= 1
        assert organisation.guard.rate == 1 and "refused" in {event.kind for event in told}


# ---- gateway.toml


@pytest.mark.parametrize(
    "keys",
    [
        Keys(provider="pkcs11"),
        Keys(provider="pkcs11", module="m.so"),
        Keys(provider="pkcs11", token="t"),
        Keys(module="m.so"),
        Keys(token="t"),
    ],
)
def test_half_a_token_is_refused(keys: Keys) -> None:
    with pytest.raises(Refused) as raised:
        check_config(Config(1, "hospital-1", keys=keys))
    assert raised.value.code == "config.bad_keys"


def test_the_keys_part_is_written_and_read(tmp_path: Path) -> None:
    for keys in (
        Keys(),
        Keys(rate=7, burst=9),
        Keys(provider="pkcs11", module="m.so", token='a "t"', name="set-1", pin_file="pin", patience=3),
    ):
        write_config(tmp_path / FILE, Config(1, "hospital-1", keys=keys))
        assert read_config(tmp_path / FILE).keys == keys
    for bad in (
        'provider = "hsm"',
        "patience = 0",
        "rate = 0",
        "burst = -1",
        'name = "A B"',
        'name = "\\n"',
        "pin = 1",
    ):
        (tmp_path / FILE).write_text(f'version = 1\norganisation = "h"\n[keys]\n{bad}\n')
        with pytest.raises(DecodeError):
            read_config(tmp_path / FILE)


def test_the_pin_comes_from_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(1, "h", keys=Keys(provider="pkcs11", module="m", token="t"))
    monkeypatch.setenv("MEDVEIL_PASSPHRASE_FILE", str(tmp_path / "none"))
    with pytest.raises(Refused) as raised:
        passphrase(config)
    assert raised.value.code == "config.no_pin"
    file = tmp_path / "pin"
    file.write_text(f"{PIN}\n")
    file.chmod(0o644)
    named = msgspec.structs.replace(config, keys=msgspec.structs.replace(config.keys, pin_file=str(file)))
    with pytest.raises(Refused):
        passphrase(named)
    file.chmod(0o600)
    assert passphrase(named) == PIN
    monkeypatch.setenv("MEDVEIL_PIN_FILE", str(file))
    assert passphrase(config) == PIN


# ---- the verbs


@pytest.mark.softhsm
def test_the_verbs(token: Any, tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    pin.write_text(PIN)
    pin.chmod(0o600)

    def run(*arguments: object) -> Any:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    home = tmp_path / "home"
    to_token = ("--module", token.module, "--token", token.label, "--key-name", "set-1", "--pin-file", pin)
    made = run("init", home, "--organisation", "hospital-1", "--role", "hospital", *to_token)
    assert made.exit_code == 0 and f"token {token.label}" in made.output
    assert read_config(home / FILE).keys.name == "set-1"
    looked = run("doctor", "--home", home, "--json")
    (finding,) = [one for one in json.loads(looked.output) if one["check"] == "keys"]
    assert finding["state"] == "ok" and f"token {token.label}, epoch 1 (1 kept)" in finding["value"]
    saved = run("backup", home, tmp_path / "out")
    assert saved.exit_code == 0 and "Its keys are on a token" in saved.output
    pin.write_text("another pin")
    looked = run("doctor", "--home", home, "--json")
    (finding,) = [one for one in json.loads(looked.output) if one["check"] == "keys"]
    assert finding["state"] == "problem" and finding["code"] == "privacy.token_pin" and looked.exit_code == 1


def test_no_error_of_the_keys_shows_the_secret(tmp_path: Path) -> None:
    make(tmp_path / "home", Keys(), "correct horse battery")
    with pytest.raises(MedveilError) as raised:
        opened(tmp_path / "home", "wrong horse battery")
    assert "horse" not in raised.value.text() + repr(raised.value)
