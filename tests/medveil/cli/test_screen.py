"""What verbs print as tables: an id can be copied, whatever the screen is."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from medveil.cli import screen

IDS = ["0123456789abcdef" * 2, "fedcba9876543210" * 2]
PROGRAM = """
from types import SimpleNamespace
from medveil.cli import screen
rows = [SimpleNamespace(first=%r, second=%r, at="2026-11-22T21:49:31Z", words="a text of several words " * 4)]
screen.table(rows, [("first", "first"), ("second", "second"), ("at", "at"), ("words", "words")])
"""


def test_a_file_or_pipe_gets_each_row_in_one_line() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM % tuple(IDS)], capture_output=True, text=True, check=True)
    _, row = run.stdout.splitlines()
    assert all(text in row for text in (*IDS, "2026-11-22T21:49:31Z", "a text of several words " * 3))


def test_a_narrow_terminal_folds_texts_and_no_ids() -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": "60", "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen([sys.executable, "-c", PROGRAM % tuple(IDS)], stdout=theirs, env=environment) as run:
        os.close(theirs)
        seen = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            seen += piece
    os.close(ours)
    assert run.returncode == 0
    text = seen.decode()
    assert all(one in text for one in (*IDS, "2026-11-22T21:49:31Z")), "each stands in one piece"
    assert len(text.splitlines()) > 3, "words go on in further lines"


def test_nothing_is_said_to_be_none(capsys: pytest.CaptureFixture[str]) -> None:
    screen.table([], [("id", "id")])
    assert capsys.readouterr().out == "none\n"
