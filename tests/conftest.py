"""Shared fixtures, and the rule for tests that need something a machine may lack.

A skip says what to install. MEDVEIL_REQUIRE=name,... (for example "chromium,postgres") turns the
skip into a failure, so that CI cannot pass by skipping.
"""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings

# Compiled modules are kept whatever the machine's habit: a test run starts hundreds of processes, and each of them,
# like each collection of tests, would compile the same files anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

_MEMORY = Path("/dev/shm")
_ROOM = 8 * 2**30


def _in_memory() -> bool:
    """Whether there is a folder in memory with room for what a run keeps at one time (1 to 2 GB)."""
    try:
        mounts = Path("/proc/mounts").read_text(encoding="ascii", errors="replace").splitlines()
        here = any(line.split()[1:3] == [str(_MEMORY), "tmpfs"] for line in mounts)
        free = os.statvfs(_MEMORY)
    except OSError:
        return False
    return here and os.access(_MEMORY, os.W_OK) and free.f_bavail * free.f_frsize >= _ROOM


# Every commit of a store waits for the disk, thousands of times in a run. What is killed here are processes, whose
# writes outlive them in memory as well as on a disk. TMPDIR=... chooses another place.
if not any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")) and _in_memory():
    os.environ["TMPDIR"] = str(_MEMORY)
    tempfile.tempdir = None

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


gc.disable()  # nothing is thrown away while modules are imported and tests are found


def pytest_collection_finish() -> None:
    """What was imported stays for good: no collection looks at it again, and some tests ask for many."""
    gc.enable()
    gc.collect()
    gc.freeze()


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


def _as_server_user(*command: str) -> list[str]:
    """PostgreSQL refuses to run as root: then the commands run as the account of Debian's package."""
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else list(command)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server of its own, on a unix socket; yields the socket's folder."""
    found = shutil.which("initdb") or next(map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)
    if found is None:
        pytest.fail("initdb is not here although postgres is: install Debian's package postgresql")
    programs = Path(found).resolve().parent
    place = _MEMORY if tempfile.gettempdir() == str(_MEMORY) else Path("/tmp")
    folder = place / f"medveil-pg-{os.getpid()}"  # short: a socket's path has 107 bytes
    folder.mkdir(mode=0o700)
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        data, log = folder / "data", folder / "log"
        start = [f"{programs}/initdb", "-D", f"{data}", "-A", "trust", "-U", "medveil", "--no-sync", "-E", "UTF8"]
        subprocess.run(_as_server_user(*start), check=True, capture_output=True, cwd="/")
        options = f"-c listen_addresses='' -c fsync=off -k {folder}"
        control = [f"{programs}/pg_ctl", "-D", f"{data}", "-w"]
        run = [*control, "-l", f"{log}", "-o", options, "start"]
        subprocess.run(_as_server_user(*run), check=True, stdout=subprocess.DEVNULL, cwd="/")
        try:
            yield str(folder)
        finally:
            subprocess.run(
                _as_server_user(*control, "-m", "immediate", "stop"), check=True, capture_output=True, cwd="/"
            )
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """The server's database, emptied."""
    import psycopg

    with psycopg.connect(f"host={postgres_server} user=medveil dbname=postgres", autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        connection.execute("DROP SCHEMA IF EXISTS medveil_vault CASCADE")
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return f"postgresql+psycopg://medveil@/postgres?host={postgres_server}"


_PIN = "a pin of tests"
_SOFTHSM = (
    "softhsm/libsofthsm2.so",
    "x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "aarch64-linux-gnu/softhsm/libsofthsm2.so",
)


class Token(NamedTuple):
    """A token of SoftHSM2's. folder: where it keeps all tokens of this run."""

    module: str
    label: str
    folder: Path

    def create(self, name: str = "hospital-1", **more: Any) -> Any:
        """A new set of keys on it."""
        from privacy.keys import Pkcs11KeyProvider

        return Pkcs11KeyProvider.create(self.module, self.label, name, _PIN, **more)

    def open(self, name: str = "hospital-1", pin: str = _PIN, **more: Any) -> Any:
        """A set of keys that is there."""
        from privacy.keys import Pkcs11KeyProvider

        return Pkcs11KeyProvider(self.module, self.label, name, pin, **more)


@pytest.fixture(scope="session")
def _tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Token]]:
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    conf = folder / "softhsm2.conf"
    conf.write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n")
    module = next(
        (path for name in _SOFTHSM if (path := Path("/usr/lib", name)).exists()), Path("/usr/lib", _SOFTHSM[0])
    )
    numbers = itertools.count()

    def made() -> Token:
        label = f"token-{next(numbers)}"
        command = ["softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", "12345678", "--pin", _PIN]
        subprocess.run(command, check=True, capture_output=True)
        return Token(str(module), label, folder / "tokens")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(conf))
        yield made


@pytest.fixture
def token(_tokens: Callable[[], Token]) -> Token:
    """A fresh token."""
    return _tokens()
