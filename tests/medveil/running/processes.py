"""Gateways as processes of their own, to be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[3]


class Running:
    """One organisation's process: a script of tests over a home and a log that it writes lines to."""

    def __init__(self, script: Path, folder: Path, log: Path, *more: str) -> None:
        self.log = log
        self._lines = len(self._read())
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(folder), str(log), *more],
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def _read(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def until(self, word: str, count: int = 1, timeout: float = 60) -> None:
        """Wait for `count` new lines that begin with `word`; the test fails if the process ends before."""
        end = time.monotonic() + timeout
        while sum(line.startswith(word) for line in self._read()[self._lines :]) < count:
            assert self.process.poll() is None, self.process.stderr and self.process.stderr.read().decode()
            assert time.monotonic() < end, self._read()[self._lines :]
            time.sleep(0.02)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)
        assert self.process.stderr is not None
        self.process.stderr.close()
