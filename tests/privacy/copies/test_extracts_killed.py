"""The maker of an extract is killed at each of its steps: no release without its anchored entry, no half file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from privacy.grants.terms import GrantTerms
from tests.privacy.copies.extracting import extract_terms
from tests.privacy.copies.killed_extracts import Look
from wire.canonical import encode


def test_killed_at_any_step(terms: GrantTerms, tmp_path: Path) -> None:
    (tmp_path / "terms").write_bytes(encode(extract_terms(terms)))
    answer = subprocess.run(
        [sys.executable, "-m", "tests.privacy.copies.killed_extracts", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert answer.returncode == 0 and answer.stderr == "", answer.stderr
    looks = [msgspec.json.decode(line, type=Look) for line in answer.stdout.splitlines()]
    points = [look.point for look in looks]
    steps = {"open", "fsync", "link", "unlink", "write", "seal_end", "_append", "anchored"}
    assert {f"{when} {step}" for when in ("before", "after") for step in steps} <= set(points)
    for look in looks:
        assert not look.opens or look.anchored, f"{look.point}: released without an anchored entry"
        assert set(look.rows) == {500}
        assert look.intents == 1 or look.again == ["", "failed", "", "released"], look
        assert [one for one in look.again if one][-1:] == ["released"]
        assert look.left == ["a.extract"]
    assert any(look.opens == [] and look.anchored for look in looks)
    assert any("a.extract" in look.opens for look in looks)
