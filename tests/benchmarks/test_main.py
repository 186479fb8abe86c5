"""The command, every bench at its smallest, and the committed baseline."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import benchmarks.__main__ as command
from benchmarks import machine, measure, report
from benchmarks.machine import ROOT
from benchmarks.measure import CannotRun, Effort, Figure
from wire.errors import Unavailable

KEYS = ["bench", "figure", "value", "unit", "peer", "ratio", "machine", "commit"]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Benches that take no time, and a folder of baselines of their own."""

    def run(quick: bool) -> Iterator[Figure]:
        yield Figure("fast" if quick else "slow", 2.0, "ms", "peer 1", 0.5, 0.01, 3)

    monkeypatch.setattr(command, "bench", lambda name: run)
    monkeypatch.setattr(report, "BASELINES", tmp_path / "benchmarks" / "baselines")


def test_json_is_one_object_a_figure(fake: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["wire", "zkp", "--json", "--quick"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["bench"], row["figure"]) for row in rows] == [("wire", "fast"), ("zkp", "fast")]
    assert all(list(row)[:8] == KEYS and row["quick"] is True for row in rows)
    assert rows[0]["machine"] == machine.machine() and rows[0]["commit"] == machine.commit()


def test_without_a_name_all_run_and_a_table_prints(fake: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 0
    text = capsys.readouterr().out
    assert all(f"{name}.slow" in text for name in command.BENCHES)
    assert machine.machine() in text and "ratio" in text


def test_save_then_compare(fake: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["wire", "--compare"]) == 0
    assert "no baseline yet" in capsys.readouterr().out
    assert command.main(["wire", "zkp", "--save"]) == 0
    assert re.search(r"Written: benchmarks/baselines/\d{4}-\d\d-\d\d.json", capsys.readouterr().err)
    assert command.main(["zkp", "--json", "--compare"]) == 0
    seen = capsys.readouterr()
    assert len(seen.out.splitlines()) == 1 and "+0%" in seen.err


def test_an_unknown_name_is_refused_with_those_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(["nothing"])
    assert caught.value.code == 2 and "scoring" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [Unavailable("scoring.needs_phe"), ImportError("No module named 'phe'"), CannotRun("phe is missing")]
)
def test_a_bench_that_cannot_run_is_said_and_the_others_run(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(quick: bool) -> Iterator[Figure]:
        yield Figure("one", 1.0, "bytes")
        raise error

    def whole(quick: bool) -> Iterator[Figure]:
        yield Figure("two", 2.0, "bytes")

    monkeypatch.setattr(command, "bench", lambda name: broken if name == "scoring" else whole)
    assert command.main(["scoring", "zkp"]) == 1
    seen = capsys.readouterr()
    assert "zkp.two" in seen.out and "The bench scoring cannot run here" in seen.err and "phe" in seen.err


def test_a_bug_in_a_bench_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(quick: bool) -> Iterator[Figure]:
        raise AssertionError("the answers differ")
        yield

    monkeypatch.setattr(command, "bench", lambda name: wrong)
    with pytest.raises(AssertionError):
        command.main(["zkp"])


@pytest.mark.parametrize("name", [name for name in command.BENCHES if name != "demo"])
def test_every_bench_runs(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(measure, "QUICK", Effort(1, 0.0))
    done = command.main([name, "--quick", "--json"])
    seen = capsys.readouterr()
    if done and "`make peers`" in seen.err:  # the figures beside anoncreds need its environment; the others are there
        assert name == "zkp" and not (ROOT / ".peers" / "anoncreds").exists()
    else:
        assert done == 0
    rows = [json.loads(line) for line in seen.out.splitlines()]
    assert rows and len({row["figure"] for row in rows}) == len(rows)
    for row in rows:
        assert row["value"] > 0 and (row["peer"] is None) == (row["ratio"] is None)
        assert row["unit"] in {*measure.LOWER_IS_BETTER, "share", "streams", "fold"} or row["unit"].endswith("/s")


@pytest.mark.long
def test_the_demo_bench_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["demo", "--quick", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[-1]["figure"] == "whole" and rows[-1]["value"] >= max(row["value"] for row in rows[:-1])


def test_the_machine_is_described_without_its_name() -> None:
    text = machine.machine()
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in text and " x " in text
    assert os.uname().nodename not in text.split()
    assert re.fullmatch(r"([0-9a-f]{12}(\+changes)?|unknown)", machine.commit())
    assert machine.peer("msgspec", "bare").startswith("msgspec 0.") and machine.peer("no-such-thing") == "no-such-thing"


def test_outside_a_checkout_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert machine.commit() == "unknown"


def test_the_committed_baseline_is_whole() -> None:
    newest = report.baselines()[-1]
    rows = report.read_baseline(newest)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", newest.stem)
    assert {bench for bench, _ in rows} == set(command.BENCHES)
    for row in rows.values():
        assert list(row)[:8] == KEYS and row["quick"] is False
        assert re.fullmatch(r"[0-9a-f]{12}", row["commit"]), "a baseline is taken from a clean checkout"
    assert len({row["machine"] for row in rows.values()}) == 1
