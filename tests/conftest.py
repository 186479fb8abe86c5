"""Shared fixtures, and the rule for tests that need something a machine may lack.

A skip says what to install. MEDVEIL_REQUIRE=name,... (for example "chromium,postgres") turns the
skip into a failure, so that CI cannot pass by skipping.
"""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# No test is timed: a slow machine is not a fault. Under CI the same examples are drawn every time.
settings.register_profile(
    "medveil",
    deadline=None,
    max_examples=60,
    derandomize=bool(os.environ.get("CI")),
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("medveil")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background: what tests start and interrupt would inherit that Ctrl-C is nobody's matter.
    signal.signal(signal.SIGINT, signal.default_int_handler)

_ROOT = Path(__file__).resolve().parent.parent

_COMMANDS = {
    "chromium": (("chromium", "chromium-browser", "google-chrome"), "install Debian's package chromium"),
    "postgres": (("postgres", "pg_ctl", "pg_ctlcluster"), "install Debian's package postgresql"),
    "cometbft": (("cometbft",), "go install github.com/cometbft/cometbft/cmd/cometbft@v0.38.23"),
    "java": (("java",), "install Debian's package default-jre-headless"),
    "softhsm": (("softhsm2-util",), "install Debian's package softhsm2"),
}


def _required() -> set[str]:
    return {name.strip() for name in os.environ.get("MEDVEIL_REQUIRE", "").split(",") if name.strip()}


def missing(name: str, what_to_do: str) -> None:
    """Skip the running test, or fail it where MEDVEIL_REQUIRE names `name`."""
    sentence = f"{name} is not here: {what_to_do}"
    if name in _required():
        pytest.fail(sentence + f" (MEDVEIL_REQUIRE names {name})")
    pytest.skip(sentence)


@pytest.fixture(autouse=True)
def _needs(request: pytest.FixtureRequest) -> None:
    for name, (commands, what_to_do) in _COMMANDS.items():
        if request.node.get_closest_marker(name) and not any(shutil.which(command) for command in commands):
            missing(name, what_to_do)


def _folder(variable: str, default: str, name: str) -> Path:
    folder = Path(os.environ.get(variable, _ROOT.parent / "shared" / default))
    if not folder.is_dir():
        missing(name, f"set {variable} to the folder, or put it at ../shared/{default}")
    return folder


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data beside the checkout (MEDVEIL_DATA or ../shared/data)."""
    return _folder("MEDVEIL_DATA", "data", "data")


@pytest.fixture
def shared_vectors() -> Path:
    """The folder of published test vectors (MEDVEIL_VECTORS or ../shared/vectors)."""
    return _folder("MEDVEIL_VECTORS", "vectors", "vectors")
