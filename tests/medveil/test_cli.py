"""The command's first words, and the exit codes of wrong usage."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import medveil

COMMAND = str(Path(sys.executable).with_name("medveil"))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_the_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"medveil {medveil.__version__}\n")


def test_help_loads_no_part_of_the_product() -> None:
    listing = "import sys; from medveil import cli; print(*sorted(m.partition('.')[0] for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, timeout=60, check=True)
    heavy = {"numpy", "pyarrow", "pandas", "phe", "matplotlib", "opendp", "cryptography", "ledger", "mpc", "zkp"}
    assert not heavy & set(done.stdout.split())


@pytest.mark.parametrize("arguments", [(), ("nonsense",), ("verify",), ("demo", "--nonsense")])
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "Usage: medveil" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
