"""One whole run of the demo for each set of data, shared by the tests of a file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def medveil() -> Run:
    """Run the installed command in a process of its own, in English."""

    def run(*arguments: str | Path, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "MEDVEIL_LANGUAGE": "en", **more}
        environment.pop("MEDVEIL_TRACEBACK", None)
        command = [str(Path(sys.executable).with_name("medveil")), *map(str, arguments)]
        return subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=240,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def default_run(medveil: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Output folder and screen of one run on the default data."""
    folder = tmp_path_factory.mktemp("default")
    home = tmp_path_factory.mktemp("home")
    done = medveil("demo", cwd=folder, HOME=str(home), TMPDIR=str(home))
    assert done.returncode == 0, done.stderr
    assert not list(home.iterdir()), "a run leaves nothing outside its folder"
    return folder / "medveil-demo", done.stdout
