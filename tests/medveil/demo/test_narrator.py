"""What a run says, on a terminal of any width and into a pipe."""

from __future__ import annotations

import re

import pytest

from medveil.demo.narrator import Narrator

COLUMNS = ["group", "count", "mean", "95 % noise interval", "histogram"]
ROWS = [
    ["excellent, no-deductible", "8,258", "2.712", "2.695 … 2.729", "█▆▅▅▅▂▁"],
    ["poor, deductible", "82", "hidden", "", ""],
    ["女性受访者", "2,660", "329.750", "237.181 … 422.318", "▂█▃"],
]


@pytest.mark.parametrize(("width", "blocks"), [(60, 3), (80, 1), (200, 1)])
def test_no_cell_of_a_table_is_cut(
    width: int, blocks: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(width))
    Narrator().table(COLUMNS, ROWS, numbers=(1, 2, 3))
    plain = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    for row in [COLUMNS, *ROWS]:
        for cell in row:
            assert cell in plain
        assert plain.count(row[0]) == blocks, "each block begins with the first column"


def test_a_line_is_wrapped_at_words_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = " ".join(["word"] * 40)
    Narrator().say(line)
    assert capsys.readouterr().out == f"   {line}\n"
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    Narrator().say(line)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 3
    assert all(one.startswith("   word") and len(one) <= 60 for one in lines)
    Narrator().command(line)
    assert capsys.readouterr().out == f"   {line}\n", "a command is copied whole"


def test_markup_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    Narrator().say("[bold]x[/bold]")
    assert "[bold]x[/bold]" in capsys.readouterr().out
