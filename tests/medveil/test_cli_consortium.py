"""From nothing to a founded consortium on the command line, and what a stranger would do wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from medveil.cli import app
from medveil.cli.consortium import ROLES
from medveil.service.home.config import read_config
from wire import identifiers
from wire.checkpoint import read_trust
from wire.errors import MedveilError

FOUNDERS = {"bureau": "bureau", "hospital-1": "hospital", "insurer": "insurer"}


@pytest.fixture(autouse=True)
def _passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "passphrase"
    file.write_text("a passphrase of tests\n")
    file.chmod(0o600)
    monkeypatch.setenv("MEDVEIL_PASSPHRASE_FILE", str(file))


def run(*arguments: object, typed: str = "") -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=typed)


def refusal(result: Result) -> str:
    assert isinstance(result.exception, MedveilError), result.output
    return result.exception.code


def last_line(result: Result) -> str:
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output.splitlines()[-1].strip()


def test_founding(tmp_path: Path) -> None:
    prints = {
        name: last_line(
            run("init", tmp_path / name, "--organisation", name, "--role", role, "--host", f"{name}.example")
        )
        for name, role in FOUNDERS.items()
    }
    assert len(set(prints.values())) == 3
    trust = tmp_path / "consortium.json"
    cards = [tmp_path / name / "card.evidence" for name in FOUNDERS]
    founded = run("found", *cards, "--chain", "east", "--sequencer", "bureau", "--out", trust)
    genesis = last_line(founded)
    for name, shown in prints.items():
        assert any(name in line and shown in line for line in founded.output.splitlines())
    assert len(read_trust(trust).members) == 3
    again = run("found", *cards, "--chain", "east", "--sequencer", "bureau", "--out", trust)
    assert refusal(again) == "client.file_exists"

    address = "bureau=https://localhost:9443"
    joined = run("join", tmp_path / "insurer", trust, "--address", address, typed=genesis + "\n")
    assert "is a member" in last_line(joined)
    assert read_config(tmp_path / "insurer" / "gateway.toml").peers.addresses == {"bureau": address.partition("=")[2]}
    home = tmp_path / "hospital-1"
    assert refusal(run("join", home, trust, "--fingerprint", "0" * 32)) == "cards.other_genesis"
    assert not (home / "consortium.json").exists()
    assert run("join", home, trust, "--fingerprint", genesis.replace(" ", "").upper()).exit_code == 0
    assert refusal(run("join", home, trust, "--fingerprint", genesis, "--address", "bureau=http://x")) == (
        "config.bad_peer_address"
    )
    assert run("join", home, trust, "--fingerprint", genesis, "--address", "bureau").exit_code == 2

    later = run("init", tmp_path / "maker", "--organisation", "maker", "--role", "maker", "--trust", trust)
    assert later.exit_code == 0
    assert "no member yet" in last_line(run("join", tmp_path / "maker", trust, "--fingerprint", genesis))


def test_what_goes_wrong(tmp_path: Path) -> None:
    assert run("init", tmp_path / "a", "--organisation", "a", "--role", "hospital", "--tier", "moon").exit_code == 2
    with_bad_role = run("init", tmp_path / "a", "--organisation", "a", "--role", "king")
    assert ", ".join(identifiers.ROLES) == ROLES
    assert refusal(with_bad_role) == "cards.no_role" and not (tmp_path / "a").exists()
    assert run("init", tmp_path / "a", "--organisation", "a", "--role", "hospital").exit_code == 0
    assert refusal(run("init", tmp_path / "a", "--organisation", "a", "--role", "hospital")) == "home.not_empty"
    card = tmp_path / "a" / "card.evidence"
    assert refusal(run("found", card, card, "--chain", "c", "--sequencer", "a", "--out", tmp_path / "t")) == (
        "cards.same_name"
    )
    assert refusal(run("found", card, "--chain", "c", "--sequencer", "b", "--out", tmp_path / "t")) == (
        "cards.no_founder"
    )
    junk = tmp_path / "junk"
    junk.write_bytes(b"junk")
    assert refusal(run("found", junk, "--chain", "c", "--sequencer", "a", "--out", tmp_path / "t")) == (
        "wire.not_evidence"
    )
    assert refusal(run("join", tmp_path / "a", junk, "--fingerprint", "x")) == "checkpoint.bad_trust_file"
    assert not (tmp_path / "t").exists()
