"""`medveil verify` on a snapshot and on the evidence of a split view."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from ledger.export import LedgerExport, verify_export
from ledger.pieces import write_whole
from ledger.snapshots import take_snapshot
from ledger.split_view import SPLIT_VIEW, SplitView, compare_heads
from medveil.verification import verify
from medveil.verification.screen import show_report
from wire.canonical import decode, encode
from wire.checkpoint import parse_note, sign_checkpoint, trust_of
from wire.errors import Refused, Unavailable, VerificationError
from wire.signing import Signer

ROOT = Path(__file__).resolve().parents[3]
VECTOR = ROOT / "tests" / "vectors" / "ledger" / "history.json"


@pytest.fixture
def export() -> LedgerExport:
    return decode(LedgerExport, bytes.fromhex(json.loads(VECTOR.read_text(encoding="ascii"))["export"]))


def test_a_snapshot(export: LedgerExport, tmp_path: Path) -> None:
    trust = trust_of(export.founding)
    machine = verify_export(export, trust)
    snapshot = take_snapshot(export.founding, machine.header, machine.state, machine.log, (), parse_note(export.note))
    path = tmp_path / "snapshot.evidence"
    path.write_bytes(encode(snapshot))
    report = verify(path, trust)
    assert report.pinned and report.height == machine.height
    assert {check.what for check in report.checks} == {"state and log lead to the head", "head cosigned by k of n"}
    with pytest.raises(Refused):
        verify(path)


def test_a_split_view(export: LedgerExport, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The sequencer, whose key this test knows, signed another head of the size that everybody cosigned."""
    trust = trust_of(export.founding)
    note = parse_note(export.note)
    signer = Signer(sha256(f"{trust.sequencer}/cosign".encode()).digest())
    forged = sign_checkpoint(signer, trust.origin, note.checkpoint.size, bytes(32))
    split = compare_heads(export.note, forged.format(), trust, verify_export(export, trust).log)
    path = tmp_path / "split-view.evidence"
    assert split is not None
    path.write_bytes(encode(split))
    report = verify(path, trust)
    assert report.pinned and [check.what for check in report.checks] == [
        "two heads of this ledger, signed by its sequencer, that contradict each other",
        "cosigned both of them: nobody",
    ]
    show_report(report, as_json=False)
    shown = capsys.readouterr().out
    assert f"verified: chain {trust.chain}" in shown
    assert "as of block" not in shown and "1970-" not in shown  # it reaches no head


def test_no_split_view(export: LedgerExport, tmp_path: Path) -> None:
    """One head twice proves nothing, and says so."""
    note = parse_note(export.note)
    path = tmp_path / "split-view.evidence"
    path.write_bytes(encode(SplitView(SPLIT_VIEW, export.note, export.note, note.checkpoint.root, ())))
    with pytest.raises(VerificationError) as caught:
        verify(path, trust_of(export.founding))
    assert caught.value.code == "ledger.no_split_view"


def test_every_kind_is_known_to_a_program_that_imported_nothing_else() -> None:
    """`medveil verify` must know a file's kind whatever was imported before: each part registers its own."""
    program = "from medveil.verification.kinds import register_all; register_all(); "
    program += "from wire.evidence import kinds; print(*(kind for kind, _ in kinds()))"
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    registered = [
        kind
        for part in ("ledger", "medveil", "mpc", "privacy", "zkp")
        for path in ROOT.joinpath(part).rglob("*.py")
        for kind in re.findall(r'= (?:evidence\.)?register\("([a-z-]+)"', path.read_text(encoding="utf-8"))
    ]
    assert len(registered) >= 8
    assert made.stdout.split() == sorted(registered)


def test_nothing_at_the_path(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        verify(tmp_path / "nowhere")
    assert caught.value.code == "verify.nothing_there"


def test_an_export_in_pieces(export: LedgerExport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.pieces.PIECE_BYTES", 3000)
    path = tmp_path / "ledger.evidence"
    written = write_whole(path, export)
    assert len(written) > 3
    assert verify(path, trust_of(export.founding)).height == len(export.blocks)
    written[2].unlink()
    with pytest.raises(VerificationError) as caught:
        verify(path, trust_of(export.founding))
    assert caught.value.code == "ledger.missing_piece"
    with pytest.raises(Refused):
        verify(written[1], trust_of(export.founding))  # a piece alone says nothing
