"""`medveil up` as people run it: founded, seeded, one process killed, stopped in order, taken up again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from medveil.client import Measure, Question
from medveil.local.founding import read_state
from medveil.local.seeding import PEOPLE_FILE, LocalPeople, Seeding
from medveil.service.home.backup import read_backup

ROOT = Path(__file__).resolve().parents[3]
_PROGRAM = "import sys; from medveil.cli import main; sys.argv[0] = 'medveil'; main()"


class Up:
    """One `medveil up --json`."""

    def __init__(self, folder: Path, *more: str | Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "MEDVEIL_LANGUAGE": "en"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, "up", str(folder), "--json", *map(str, more)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.events: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def until(self, event: str, timeout: float = 120) -> dict[str, Any]:
        end = time.monotonic() + timeout
        while True:
            found = [one for one in self.events if one["event"] == event]
            if found:
                return found[0]
            assert self.process.poll() is None, self.process.stderr and self.process.stderr.read()
            assert time.monotonic() < end, self.events
            time.sleep(0.05)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(90)
        self._reader.join(10)
        assert self.process.stderr is not None and self.process.stdout is not None
        self.process.stderr.close()
        self.process.stdout.close()
        return code

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)
        self._reader.join(30)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


def _is_gone(process: int) -> bool:
    """Whether a process has ended; its parent may not have looked yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.timeout(600)
def test_from_nothing_and_again(tmp_path: Path, data: Path) -> None:
    folder = tmp_path / "local"
    first = Up(folder, "--data", data)
    try:
        up = first.until("up")
        ready = [one["organisation"] for one in first.events if one["event"] == "ready"]
        assert ready[0] == "bureau" and len(ready) == 7 == len(up["gateways"])
        assert (folder / PEOPLE_FILE).stat().st_mode & 0o077 == 0
        asyncio.run(_look(folder))
        _as_a_person(folder, tmp_path / "config")
        said = json.dumps(first.events)
        assert not [one for one in LocalPeople(folder).all() if one.password in said or one.codes in said]
        assert f"medveil sign-in hospital-1 staff --local {folder}" in said
        second = Up(folder)
        assert second.process.wait(60) == 1
        assert second.process.stderr is not None and "runs already" in second.process.stderr.read()
        second.kill()
        victim = next(one for one in first.events if one["event"] == "ready" and one["organisation"] == "hospital-2")
        os.kill(victim["process"], signal.SIGKILL)
        said = first.until("ended")
        assert (said["organisation"], said["exit"]) == ("hospital-2", -signal.SIGKILL)
        processes = [one["process"] for one in first.events if one["event"] == "ready"]
        assert first.stop() == 1, first.events
        assert all(map(_is_gone, processes))
    finally:
        first.kill()
    log = (folder / "logs" / "bureau.log").read_text()
    assert json.loads(log.splitlines()[-1])["event"] == "stopped"
    state = read_state(folder)
    assert state is not None and state.seeded
    again = Up(folder)
    try:
        again.until("up")
        assert not [one for one in again.events if one["event"] == "seeded"]
        assert again.until("up")["gateways"] == up["gateways"]
        processes = [one["process"] for one in again.events if one["event"] == "ready"]
        again.process.kill()  # nobody is left to stop them: they end with it
        again.process.wait(30)
        end = time.monotonic() + 60
        while not all(map(_is_gone, processes)):
            assert time.monotonic() < end
            time.sleep(0.1)
    finally:
        again.kill()


def _as_a_person(folder: Path, config: Path) -> None:
    """At the command line: people of two organisations, one of them twice, each code being good for once."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MEDVEIL_LANGUAGE": "en", "MEDVEIL_CONFIG": str(config)}

    def run(*arguments: str) -> Any:
        command = [sys.executable, "-c", _PROGRAM, *arguments, "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    for organisation, name in (("hospital-1", "staff"), ("hospital-1", "staff"), ("researcher-1", "admin")):
        signed_in = run("sign-in", organisation, name, "--local", str(folder))
        assert signed_in["person"] == name and signed_in["trust"] and not signed_in["enrolling"]
    assert run("whoami")["name"] == "admin"
    assert run("--gateway", "hospital-1", "whoami")["name"] == "staff"
    terms = run("--gateway", "hospital-1", "grants", "template", "costs-hospital-1", "researcher-1", "--purpose", "HMB")
    assert terms["fields"] == ["cost", "sex"] and terms["consent_ref"].startswith("FILL IN")
    run("--gateway", "hospital-1", "sign-out")


async def _look(folder: Path) -> None:
    """People sign in by what is printed; the tables are loaded, the budget voted; a running gateway backs itself up."""
    state = read_state(folder)
    assert state is not None
    seeding = Seeding(folder, state, lambda sentence: None)
    await seeding.seed()  # does nothing twice
    async with seeding.acting(state.member("researcher-1")) as client:
        (population,) = (await client.populations.list()).populations
        assert population.budget.available == 10**9 and len(population.datasets) == 3
        cost = Measure("cost", edges=("0", "500", "1000"))
        question = Question(population="costs", measures=(cost,), purpose="HMB", rho="0.25")
        explained = await client.queries.explain(question)
        assert explained.query.roster == ("hospital-1", "hospital-2", "hospital-3")
    async with seeding.acting(state.member("hospital-1"), "admin") as client:
        done = await client.service.backup()
    (backup,) = (folder / "backups").iterdir()
    assert Path(done.result or "").resolve() == backup.resolve()
    manifest = read_backup(backup)
    assert manifest.body.organisation == "hospital-1"
    assert {"service.sqlite", "vault/vault.sqlite", "keys"} <= {file.path for file in manifest.body.files}
