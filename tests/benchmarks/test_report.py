"""Figures as JSON and as a table, and beside a baseline."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import report
from benchmarks.measure import Figure

TIME = report.row("zkp", Figure("prove", 68.23456, "ms", "msm 1", 1.04321, 0.0312, 7), "box", "abc", False)
RATE = report.row("vault", Figure("read", 76_543.21, "records/s", "sqlite", 0.2712, 0.01, 5), "box", "abc", False)
SIZE = report.row("zkp", Figure("proof", 1024, "bytes"), "box", "abc", False)


def changed(row: report.Row, **fields: object) -> report.Row:
    return {**row, **fields}


def test_a_figure_is_one_object_with_everything_that_makes_it_comparable() -> None:
    assert list(TIME)[:8] == ["bench", "figure", "value", "unit", "peer", "ratio", "machine", "commit"]
    assert (TIME["value"], TIME["ratio"], TIME["spread"]) == (68.23, 1.043, 0.0312)
    assert (SIZE["peer"], SIZE["ratio"], SIZE["rounds"]) == (None, None, 0)
    text = report.line(TIME)
    assert "\n" not in text and json.loads(text) == TIME


def test_the_table_names_every_figure() -> None:
    lines = report.table([TIME, RATE, SIZE]).splitlines()
    assert [line.split()[0] for line in lines] == ["figure", "zkp.prove", "vault.read", "zkp.proof"]
    assert "1.04" in lines[1] and "msm 1" in lines[1] and "76,540" in lines[2]
    assert lines[3].split() == ["zkp.proof", "1,024", "bytes"]


def test_the_comparison_says_better_and_worse_in_the_sense_of_the_unit() -> None:
    before = {
        (one["bench"], one["figure"]): one
        for one in (changed(TIME, value=100.0), changed(RATE, value=100_000.0), changed(SIZE, value=1024.0))
    }
    text = report.comparison([TIME, RATE, SIZE], before, "2026-01-01")
    lines = {line.split()[0]: line for line in text.splitlines() if "." in line.split()[0]}
    assert "-32%" in lines["zkp.prove"] and "better" in lines["zkp.prove"]
    assert "-23%" in lines["vault.read"] and "worse" in lines["vault.read"]
    assert "+0%" in lines["zkp.proof"] and "better" not in lines["zkp.proof"] and "worse" not in lines["zkp.proof"]
    assert "2026-01-01" in text and "Another machine" not in text and "--quick" not in text


def test_noise_is_neither_better_nor_worse() -> None:
    for spread, value in ((0.2, 68.23 * 1.5), (0.0, 68.23 * 1.09)):
        now = changed(TIME, value=value, spread=spread)
        text = report.comparison([now], {("zkp", "prove"): TIME}, "then")
        assert "better" not in text and "worse" not in text


def test_the_comparison_warns_of_another_machine_and_of_quick() -> None:
    now = [changed(TIME, machine="other", value=900.0), changed(SIZE, quick=True, value=9000.0)]
    text = report.comparison(now, {("zkp", "prove"): TIME, ("zkp", "proof"): SIZE}, "then")
    assert "Another machine" in text and "--quick" in text
    # what is not alike gets no verdict
    assert "better" not in text and "worse" not in text


def test_a_figure_that_the_baseline_lacks_or_has_in_another_unit_is_new() -> None:
    for baseline in ({}, {("zkp", "prove"): changed(TIME, unit="s")}):
        assert "new" in report.comparison([TIME], baseline, "then")


def test_a_baseline_is_a_json_array_with_one_figure_a_line(tmp_path: Path) -> None:
    path = tmp_path / "baselines" / "2026-11-22.json"
    report.write_baseline(path, [TIME, RATE])
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "[" and lines[-1] == "]" and len(lines) == 4
    assert report.read_baseline(path) == {("zkp", "prove"): TIME, ("vault", "read"): RATE}
    # a later run of one bench replaces that bench's figures and keeps the others'
    report.write_baseline(path, [SIZE])
    assert list(report.read_baseline(path)) == [("vault", "read"), ("zkp", "proof")]


def test_baselines_are_found_by_date(tmp_path: Path) -> None:
    for name in ("2026-11-22.json", "2025-01-01.json", "notes.json"):
        (tmp_path / name).write_text("[]", encoding="utf-8")
    assert [path.stem for path in report.baselines(tmp_path)] == ["2025-01-01", "2026-11-22"]
