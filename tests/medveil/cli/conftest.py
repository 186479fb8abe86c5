"""A service to call, and the command line as a person has it: a configuration folder of one's own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from medveil.cli import app

sys.path.append(str(Path(__file__).parent.parent))  # the services of tests/medveil/service

from service.staffed import PASSWORD, Staffed

COMMAND = str(Path(sys.executable).with_name("medveil"))


class Person:
    """Somebody at a command line, whose configuration is in a folder of the test's."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.config = folder / "config"
        self.password = folder / "password"
        self.password.touch(mode=0o600)
        self.password.write_text(PASSWORD + "\n")
        monkeypatch.setenv("MEDVEIL_CONFIG", str(self.config))
        for name in ("MEDVEIL_LANGUAGE", "MEDVEIL_GATEWAY", "MEDVEIL_PROGRAM", "MEDVEIL_PASSWORD_FILE"):
            monkeypatch.delenv(name, raising=False)
        self._monkeypatch = monkeypatch

    def run(self, *arguments: object, typed: str = "", code: int | None = 0) -> Result:
        """One verb in this process."""
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=typed)
        if code is not None:
            assert result.exit_code == code, (result.output, result.exception)
        return result

    def sign_in(self, address: str, name: str, *more: object) -> Result:
        self._monkeypatch.setenv("MEDVEIL_PASSWORD_FILE", str(self.password))
        result = self.run("sign-in", address, name, *more)
        self._monkeypatch.delenv("MEDVEIL_PASSWORD_FILE")
        return result

    def process(self, *arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
        """One verb as a process of its own."""
        return subprocess.run(
            [COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False, **more
        )


@pytest.fixture
def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Person:
    return Person(tmp_path, monkeypatch)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Staffed]:
    folder = tmp_path / "service"
    folder.mkdir()
    with Staffed(folder) as staffed:
        staffed.clock.now = time.time_ns() // 1_000_000  # programs sign by the real time
        yield staffed
