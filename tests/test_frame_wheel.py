"""The wheel holds exactly the packages, and works when it is installed somewhere else.

It is built without network by the tools of this environment and installed into a fresh one, which
sees this environment's libraries, but neither the checkout nor the editable install.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("medveil", "ledger", "mpc", "connectors", "zkp", "privacy", "wire")


def _run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    environment |= {"MEDVEIL_LANGUAGE": "en", "COLUMNS": "100"}
    answer = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel installed; returns its folder."""
    folder = tmp_path_factory.mktemp("elsewhere") / "env"
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    installer = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index")
    _run(*installer, "--disable-pip-version-check", wheel, cwd=folder)
    site = Path(_run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    libraries = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    (site / "libraries.pth").write_text("\n".join(libraries) + "\n")
    return folder


def test_the_wheel_holds_exactly_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    information = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names - information == wanted
    assert any(name.endswith("licenses/LICENSE") for name in information)


def test_its_metadata_is_what_we_say(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    head = metadata.split("\n\n")[0]
    assert "License-Expression: Apache-2.0" in head
    assert "Requires-Python: >=3.11" in head
    for tool in ("pytest", "hypothesis", "ruff", "mypy"):
        assert f"Requires-Dist: {tool}" not in head
    for line in head.splitlines():
        if line.startswith("Requires-Dist: phe"):
            assert "extra ==" in line


def test_it_works_when_installed_elsewhere(elsewhere: Path, tmp_path: Path) -> None:
    python = elsewhere / "bin" / "python"
    places = _run(
        python, "-c", f"import {', '.join(PACKAGES)}\nfor m in ({', '.join(PACKAGES)}): print(m.__file__)", cwd=tmp_path
    )
    for line in places.splitlines():
        assert Path(line).is_relative_to(elsewhere), line
    assert len(places.splitlines()) == len(PACKAGES)


def test_every_module_can_be_imported_there(elsewhere: Path, tmp_path: Path) -> None:
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__main__.py"
    )
    _run(elsewhere / "bin" / "python", "-c", f"import {', '.join(modules)}", cwd=tmp_path)


def test_what_is_no_code_came_along(elsewhere: Path, tmp_path: Path) -> None:
    program = "from wire import messages\nprint(messages.text('wire.bad_opening', {}, 'zh'))"
    assert "承诺" in _run(elsewhere / "bin" / "python", "-c", program, cwd=tmp_path)


def test_the_command_answers_there(elsewhere: Path, tmp_path: Path) -> None:
    command = elsewhere / "bin" / "medveil"
    answer = _run(command, "--help", cwd=tmp_path)
    for verb in ("demo", "verify", "show", "doctor"):
        assert verb in answer
        assert "Usage" in _run(command, verb, "--help", cwd=tmp_path)
    findings = _run(command, "doctor", cwd=tmp_path)
    assert "problem" not in findings
    assert list(tmp_path.iterdir()) == []
