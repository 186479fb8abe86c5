"""One whole run of the demo for each set of data, shared by the tests of a file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

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


def _once(medveil: Run, factory: pytest.TempPathFactory, name: str, *arguments: str | Path) -> tuple[Path, str]:
    """Output folder and screen of one run of the demo, made once for all processes of this test run."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"demo-{name}"
    with FileLock(f"{folder}.lock"):
        if not (folder / "screen").exists():
            (folder / "home").mkdir(parents=True)
            home = str(folder / "home")
            done = medveil("demo", *arguments, cwd=folder, HOME=home, TMPDIR=home)
            assert done.returncode == 0, done.stderr
            assert not list((folder / "home").iterdir()), "a run leaves nothing outside its folder"
            assert {path.name for path in folder.iterdir()} == {"home", "medveil-demo"}
            (folder / "screen").write_text(done.stdout, encoding="utf-8")
    return folder / "medveil-demo", (folder / "screen").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def default_run(medveil: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Output folder and screen of one run on the default data. To be read only."""
    return _once(medveil, tmp_path_factory, "default")


@pytest.fixture
def heart_run(medveil: Run, tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> tuple[Path, str]:
    """Output folder and screen of one run on the heart data. To be read only."""
    return _once(medveil, tmp_path_factory, "heart", "--data", shared_data / "heart")
