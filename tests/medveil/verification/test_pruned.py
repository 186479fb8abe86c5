"""A chain that lacks its beginning is taken where all that is missing was old enough, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medveil.verification import uses
from wire.errors import VerificationError

FIRST = "access/hospital-1-1.evidence"
MISSING = "entries that the law lets go may be missing"


def without(case: Any, *names: str) -> dict[str, Any]:
    return {name: struct for name, struct in case.structs.items() if name not in names}


def batches_of(case: Any, organisation: str) -> list[str]:
    names = [name for name in case.structs if name.startswith(f"access/{organisation}-")]
    return sorted(names, key=lambda name: case.structs[name].first)


def aged(months: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the head of the ledger were that many months after every entry."""
    monkeypatch.setattr(uses, "_old", lambda case, time, needed: needed <= months)


def test_a_young_beginning_must_be_shown(case: Any, tmp_path: Path) -> None:
    assert batches_of(case, "hospital-1")[0] == FIRST and len(batches_of(case, "hospital-1")) == 2
    with pytest.raises(VerificationError) as raised:
        case.verify(case.write(tmp_path / "evidence", without(case, FIRST)))
    assert raised.value.code == "verify.not_anchored"


def test_an_old_beginning_may_be_missing(case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = case.verify(case.write(tmp_path / "whole"))
    assert MISSING not in {check.what for check in whole.checks}
    aged(6, monkeypatch)
    report = case.verify(case.write(tmp_path / "evidence", without(case, FIRST)))
    last = case.structs[FIRST].last
    assert [check.count for check in report.checks if check.what == MISSING] == [last]
    assert report.findings == whole.findings == []
    assert len(whole.flows) > len(report.flows)
    for again in ({"organisation": "hospital-2"}, {"first": 2}):
        changed = {**case.structs, "access/again.evidence": case.structs[FIRST].__class__(**fields(case, again))}
        with pytest.raises(VerificationError):
            case.verify(case.write(tmp_path / "changed", changed))


def fields(case: Any, changes: dict[str, Any]) -> dict[str, Any]:
    batch = case.structs[FIRST]
    return {name: getattr(batch, name) for name in batch.__struct_fields__} | changes


def test_neither_the_end_nor_all_of_it_may_be_missing(
    case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aged(600, monkeypatch)
    names = batches_of(case, "hospital-1")
    for missing in (names[1:], names):
        with pytest.raises(VerificationError) as raised:
            case.verify(case.write(tmp_path / "evidence", without(case, *missing)))
        assert raised.value.code == "verify.missing_access"
