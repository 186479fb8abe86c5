"""`medveil trust`, and the snapshot that `medveil ledger` writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from ledger.export import LedgerExport
from ledger.snapshots import LedgerSnapshot, verify_snapshot
from medveil.cli import app
from medveil.verification import verify
from wire.canonical import decode, encode
from wire.checkpoint import read_trust, trust_of, write_trust
from wire.errors import MedveilError

VECTOR = Path(__file__).resolve().parents[1] / "vectors" / "ledger" / "membership.json"


@pytest.fixture
def export() -> LedgerExport:
    """A recorded history: a pharmacy joins, the insurer rotates its keys, the researcher leaves."""
    recorded: dict[str, Any] = json.loads(VECTOR.read_text(encoding="ascii"))
    return decode(LedgerExport, bytes.fromhex(recorded["export"]))


@pytest.fixture
def folder(tmp_path: Path, export: LedgerExport) -> Path:
    (tmp_path / "ledger.evidence").write_bytes(encode(export))
    write_trust(tmp_path / "consortium.json", trust_of(export.founding))
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_following_the_members(folder: Path) -> None:
    trust = folder / "consortium.json"
    done = run("trust", "update", trust, folder / "ledger.evidence")
    assert done.exit_code == 0, done.output
    for words in ("pharmacy joined", "insurer has new keys", "researcher left", "handed over by 6 members"):
        assert words in done.output
    assert len(read_trust(trust).changes) == 3
    again = run("trust", "update", trust, folder / "ledger.evidence")
    assert again.exit_code == 0 and "nothing changed" in again.output
    shown = run("trust", "show", trust)
    assert "from block" in shown.output and "researcher left" in shown.output and "pharmacy (city)" in shown.output
    told = json.loads(run("trust", "show", trust, "--json").output)
    assert [epoch["needed_cosigners"] for epoch in told["epochs"]] == [6, 6, 6, 6]


def test_single_handovers_in_any_order(folder: Path, export: LedgerExport) -> None:
    files = []
    for number, handover in enumerate(export.handovers):
        files.append(folder / f"{number}.evidence")
        files[-1].write_bytes(encode(handover))
    out = folder / "new.json"
    done = run("trust", "update", folder / "consortium.json", *reversed(files), "--out", out, "--json")
    assert done.exit_code == 0 and json.loads(done.output)["chain"] == read_trust(out).chain
    assert len(read_trust(out).changes) == 3 and not read_trust(folder / "consortium.json").changes


def test_evidence_that_does_not_hold_changes_nothing(folder: Path, export: LedgerExport) -> None:
    trust = folder / "consortium.json"
    before = trust.read_bytes()
    (folder / "late").write_bytes(encode(export.handovers[1]))
    (folder / "junk").write_bytes(b"junk")
    forged = msgspec.structs.replace(export.handovers[0], value=export.handovers[1].value)
    (folder / "forged").write_bytes(encode(forged))
    for name in ("late", "junk", "forged", "nowhere"):
        failed = run("trust", "update", trust, folder / name)
        assert isinstance(failed.exception, MedveilError), name
        assert trust.read_bytes() == before


def test_old_and_new_evidence_verify(folder: Path, export: LedgerExport) -> None:
    """With the trust file of genesis, and with the one that was brought up to date."""
    for _ in range(2):
        report = verify(folder / "ledger.evidence", folder / "consortium.json")
        assert report.verdict == "verified" and report.height == len(export.blocks)
        assert run("ledger", "verify", folder / "ledger.evidence", "--trust", folder / "consortium.json").exit_code == 0
        run("trust", "update", folder / "consortium.json", folder / "ledger.evidence")


def test_a_snapshot_of_an_export(folder: Path, export: LedgerExport) -> None:
    trust, out = folder / "consortium.json", folder / "snapshot.evidence"
    done = run("ledger", "snapshot", folder / "ledger.evidence", out, "--trust", trust)
    assert done.exit_code == 0 and f"block {len(export.blocks)}" in done.output
    snapshot = decode(LedgerSnapshot, out.read_bytes())
    machine = verify_snapshot(snapshot, trust_of(export.founding))
    assert len(machine.trust.changes) == 3
    assert verify(out, trust).height == len(export.blocks)
    assert run("trust", "update", trust, out).exit_code == 0 and len(read_trust(trust).changes) == 3
    assert run("ledger", "snapshot", folder / "ledger.evidence", out).exit_code == 3
    failed = run("ledger", "snapshot", folder / "ledger.evidence", folder / "none" / "x", "--trust", trust)
    assert isinstance(failed.exception, MedveilError)
