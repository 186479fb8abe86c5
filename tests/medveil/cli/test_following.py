"""Jobs at the command line: bars on a terminal, plain lines elsewhere; interrupted, the job goes on."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from service.staffed import ROOT, Staffed

from medveil.service.accounts.rights import Principal
from wire.canonical import Wire
from wire.errors import Refused

from .conftest import COMMAND

OFFICER = "person:officer"


class Nothing(Wire, frozen=True, tag="test.cli_nothing"):
    """What a step gives that gives nothing."""


async def _nothing() -> Nothing:
    return Nothing()


class Working:
    """A service whose jobs go on when the test says so."""

    def __init__(self, service: Staffed) -> None:
        self.service = service
        self.gate = threading.Event()
        assert isinstance(ROOT, Principal)

        async def steps(journal: Any) -> str:
            for step in range(5):
                await journal.once(f"step-{step}", Nothing, _nothing)
                while step == 1 and not self.gate.is_set():
                    await journal.boundary()
                    await asyncio.sleep(0.01)
            return "/v1/about"

        async def fails(journal: Any) -> str:
            raise Refused("jobs.unknown", job="\x1b[31mred")

        service.set.jobs.register("steps", steps, steps=5)
        service.set.jobs.register("fails", fails)

    def start(self, kind: str = "steps") -> str:
        return str(self.service.running.do(self.service.set.jobs.start(kind, OFFICER, b"")).id)


@pytest.fixture
def working(service: Staffed, person: Any) -> Iterator[Working]:
    person.sign_in(service.address, "officer")
    made = Working(service)
    yield made
    made.gate.set()


LINES = ["waiting 0/5", "running 0/5", *(f"running {step + 1}/5 step-{step}" for step in range(5)), "done 5/5"]


def test_plain_lines_into_a_pipe(working: Working, person: Any) -> None:
    working.gate.set()
    job = working.start()
    done = person.process("jobs", "follow", job)
    assert done.returncode == 0
    assert done.stderr.splitlines() == LINES
    assert re.search(r"^state: +done$", done.stdout, re.MULTILINE) and "\x1b" not in done.stdout + done.stderr
    events = [json.loads(line) for line in person.process("jobs", "follow", job, "--json").stdout.splitlines()]
    assert [event["state"] for event in events] == ["waiting", *["running"] * 6, "done"]
    assert json.loads(person.run("jobs", "list", "--state", "done", "--json").output)["jobs"][0]["job"] == job
    assert job in person.run("jobs", "list").output
    assert person.run("jobs", "list", "--state", "nonsense", code=2)


def test_a_job_that_fails_or_is_cancelled(working: Working, person: Any) -> None:
    failed = person.process("jobs", "follow", working.start("fails"))
    assert failed.returncode == 1 and "failed: jobs.unknown" in failed.stderr
    assert "\x1b" not in failed.stderr + failed.stdout and "red" in failed.stderr
    job = working.start()
    assert "cancelling" in person.run("jobs", "cancel", job).output
    cancelled = person.process("jobs", "follow", job)
    assert cancelled.returncode == 1 and "was cancelled" in cancelled.stderr
    shown = person.run("jobs", "show", working.start("fails")).output
    assert "\x1b" not in shown


def test_interrupted_the_job_goes_on(working: Working, person: Any) -> None:
    job = working.start()
    with subprocess.Popen([COMMAND, "jobs", "follow", job], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if b"step-1" in line:
                break
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"medveil jobs follow {job}" in said.decode() and b"Traceback" not in said
    working.gate.set()
    assert person.process("jobs", "follow", job).returncode == 0


def on_a_terminal(arguments: list[str], environment: dict[str, str], meanwhile: Any) -> tuple[int, str]:
    """Run a verb on a pseudo-terminal; its exit code and what the terminal was sent."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(arguments, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        sent, end = b"", time.monotonic() + 60
        while time.monotonic() < end:
            if select.select([ours], [], [], 0.05)[0]:
                try:
                    chunk = os.read(ours, 65536)
                except OSError:
                    break
                if not chunk:
                    break
                sent += chunk
            if b"step-1" in sent:
                meanwhile()
        os.close(ours)
        return process.wait(30), sent.decode()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_bar_on_a_terminal(working: Working, person: Any, encoding: str) -> None:
    """It shows how far the job is, goes when it has ended, and uses no character that the terminal lacks."""
    job = working.start()
    environment = {
        **os.environ,
        "TERM": "xterm",
        "COLUMNS": "100",
        "PYTHONIOENCODING": encoding,
        "MEDVEIL_LANGUAGE": "zh",
        "PYTHONUTF8": "0",
    }
    code, sent = on_a_terminal([COMMAND, "jobs", "follow", job], environment, working.gate.set)
    assert code == 0 and "running 2/5" in sent
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sent)
    assert re.search(r"^state: +done\r?$", shown, re.MULTILINE) and "\x1b[?25h" in sent  # the cursor is back
    if encoding == "ascii":
        assert shown.isascii() and "?" not in shown
    else:
        assert "━" in shown
