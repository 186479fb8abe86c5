"""docs/protocols/credentials-on-files.md, line by line: what it says to type is typed, and prints what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medveil.cli import app
from wire.errors import MedveilError

PAGE = Path(__file__).resolve().parents[3] / "docs" / "protocols" / "credentials-on-files.md"


def blocks(page: str) -> list[tuple[str, list[str]]]:
    """Each indented block, with the last line of text before it."""
    found: list[tuple[str, list[str]]] = []
    above, inside = "", False
    for line in page.splitlines():
        if line.startswith("    "):
            if not inside:
                found.append((above, []))
            found[-1][1].append(line[4:])
            inside = True
        else:
            inside = False
            above = line or above
    return found


def steps(block: list[str]) -> list[tuple[str, str]]:
    """Commands of a block, each with what it prints."""
    found: list[tuple[str, list[str]]] = []
    for line in block:
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return [(command, "\n".join(lines)) for command, lines in found]


def printed(command: str) -> str:
    name, *words = shlex.split(command)
    assert name == "medveil"
    done = CliRunner().invoke(app, words)
    if isinstance(done.exception, MedveilError):
        assert not done.output
        return f"medveil: {done.exception.text('en')}"
    assert done.exit_code == 0, (command, done.output, done.exception)
    return "\n".join(line.rstrip() for line in done.output.rstrip().splitlines())


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse battery\n")
    secret.chmod(0o600)
    monkeypatch.setenv("MEDVEIL_PASSPHRASE_FILE", str(secret))
    run = 0
    for above, block in blocks(PAGE.read_text(encoding="utf-8")):
        if named := re.match(r"`([a-z0-9-]+\.(?:json|txt))`", above):
            (tmp_path / named[1]).write_text("\n".join(block) + "\n")
        elif block[0].startswith("$ "):
            for command, expected in steps(block):
                run += 1
                pattern = re.escape(expected).replace(r"\.\.\.", ".*")
                assert re.fullmatch(pattern, said := printed(command), re.DOTALL), (command, said)
    assert run > 40
