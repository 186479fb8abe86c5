"""`medveil verify` on a snapshot and on the evidence of a split view."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ledger.export import LedgerExport, verify_export
from ledger.snapshots import take_snapshot
from ledger.split_view import SPLIT_VIEW, SplitView
from medveil.verification import verify
from wire.canonical import decode, encode
from wire.checkpoint import parse_note, trust_of
from wire.errors import Refused, VerificationError

VECTOR = Path(__file__).resolve().parents[2] / "vectors" / "ledger" / "history.json"


@pytest.fixture
def export() -> LedgerExport:
    return decode(LedgerExport, bytes.fromhex(json.loads(VECTOR.read_text(encoding="ascii"))["export"]))


def test_a_snapshot(export: LedgerExport, tmp_path: Path) -> None:
    trust = trust_of(export.founding)
    machine = verify_export(export, trust)
    snapshot = take_snapshot(export.founding, machine.header, machine.state, machine.log, parse_note(export.note))
    path = tmp_path / "snapshot.evidence"
    path.write_bytes(encode(snapshot))
    report = verify(path, trust)
    assert report.pinned and report.height == machine.height
    assert {check.what for check in report.checks} == {"state and log lead to the head", "head cosigned by k of n"}
    with pytest.raises(Refused):
        verify(path)


def test_no_split_view(export: LedgerExport, tmp_path: Path) -> None:
    """One head twice proves nothing, and says so."""
    note = parse_note(export.note)
    path = tmp_path / "split-view.evidence"
    path.write_bytes(encode(SplitView(SPLIT_VIEW, export.note, export.note, note.checkpoint.root, ())))
    with pytest.raises(VerificationError) as caught:
        verify(path, trust_of(export.founding))
    assert caught.value.code == "ledger.no_split_view"
