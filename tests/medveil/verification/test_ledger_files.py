"""`medveil verify` on a snapshot and on the evidence of a split view."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from ledger.export import LedgerExport, verify_export
from ledger.snapshots import take_snapshot
from ledger.split_view import SPLIT_VIEW, SplitView, compare_heads
from medveil.verification import verify
from wire.canonical import decode, encode
from wire.checkpoint import parse_note, sign_checkpoint, trust_of
from wire.errors import Refused, VerificationError
from wire.signing import Signer

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


def test_a_split_view(export: LedgerExport, tmp_path: Path) -> None:
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


def test_no_split_view(export: LedgerExport, tmp_path: Path) -> None:
    """One head twice proves nothing, and says so."""
    note = parse_note(export.note)
    path = tmp_path / "split-view.evidence"
    path.write_bytes(encode(SplitView(SPLIT_VIEW, export.note, export.note, note.checkpoint.root, ())))
    with pytest.raises(VerificationError) as caught:
        verify(path, trust_of(export.founding))
    assert caught.value.code == "ledger.no_split_view"
