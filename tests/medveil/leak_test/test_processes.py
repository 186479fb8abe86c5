"""What is seen of a running process, and of one that keeps its memory to itself."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from medveil.leak_test import processes

pytestmark = pytest.mark.skipif(not processes.can_look(), reason="processes are seen in /proc: run on Linux")

ROOT = Path(__file__).resolve().parents[3]

_HOLDS = """
import sys, resource, time
resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
if sys.argv[2] == "private":
    from privacy.keys.own_memory import keep_own_memory
    keep_own_memory()
word = "".join(map(chr, reversed([ord(one) for one in sys.argv[3]])))
kept, read = open(sys.argv[1], "w"), open(__file__ if "__file__" in dir() else "/dev/null")
print("ready", flush=True)
time.sleep(120)
"""


@contextmanager
def holding(path: Path, how: str, word: str) -> Iterator[int]:
    """A process that has `word` in its memory alone (turned round among its arguments), and a file open."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDS, str(path), how, word[::-1]],
        env={**os.environ, "PYTHONPATH": str(ROOT), "WORD": word},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_an_open_process(tmp_path: Path) -> None:
    word = secrets.token_hex(12)
    with holding(tmp_path / "file", "open", word) as process:
        assert word[::-1].encode() in processes.command_line(process)
        assert f"WORD={word}".encode() in processes.environment(process)
        written = [path.resolve() for path in processes.open_elsewhere(process, tmp_path / "inside")]
        assert tmp_path / "file" in written
        inside = [path.resolve() for path in processes.open_elsewhere(process, tmp_path)]
        assert tmp_path / "file" not in inside
        assert any(word.encode() in piece for piece in processes.memory(process))
        limit = processes.core_limit(process)
    import resource

    assert (limit == "0") == (resource.getrlimit(resource.RLIMIT_CORE)[1] == 0)


def test_a_process_that_keeps_its_memory_to_itself(tmp_path: Path) -> None:
    with holding(tmp_path / "file", "private", "word") as process:
        assert processes.core_limit(process) == "0"
        if os.getuid():
            for look in (
                lambda: processes.environment(process),
                lambda: list(processes.memory(process)),
                lambda: processes.open_elsewhere(process, tmp_path),
            ):
                with pytest.raises(processes.Closed):
                    look()
        os.kill(process, signal.SIGABRT)
        end = time.monotonic() + 20
        while Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
            assert time.monotonic() < end
            time.sleep(0.02)
        status = os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
        assert status is not None and status.si_code == os.CLD_KILLED  # not CLD_DUMPED


def test_a_process_that_has_ended(tmp_path: Path) -> None:
    with holding(tmp_path / "file", "open", "word") as process:
        pass
    assert processes.command_line(process) == b"" and processes.core_limit(process) == ""
    assert processes.open_elsewhere(process, tmp_path) == []
