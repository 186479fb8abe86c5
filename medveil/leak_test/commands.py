"""What people do at the command line while gateways are stopped: erase, back up, restore, verify, look; and wrongly.

What a command prints is kept in files, by number and verb, and searched as all else is.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from itertools import count
from pathlib import Path

from medveil.leak_test.flows import must
from medveil.leak_test.scene import Scene

_PROGRAM = "import sys; sys.argv[0] = 'medveil'; from medveil.cli import main; main()"
_NUMBERS = count(1)


class CommandLine:
    """The command line of somebody who may read every home. Its output lies in ``printed/``."""

    def __init__(self, scene: Scene) -> None:
        self._folder = scene.folder / "printed"
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._environment = {**os.environ, **scene.environment, "MEDVEIL_CONFIG": str(scene.folder / "work" / "none")}

    async def run(
        self, *arguments: str | Path, typed: str = "", passphrase: Path | None = None, into: Path | None = None
    ) -> tuple[int, bytes]:
        """Run a verb; returns exit code and standard output. typed: on standard input; passphrase: another file's;
        into: another folder for what it prints."""
        environment = dict(self._environment)
        if passphrase is not None:
            environment["MEDVEIL_PASSPHRASE_FILE"] = str(passphrase)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _PROGRAM,
            *map(str, arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
        output, errors = await process.communicate(typed.encode())
        verb = "-".join(str(word) for word in arguments[:2] if str(word).isalpha())
        ((into or self._folder) / f"{next(_NUMBERS):03}-{verb}").write_bytes(output + b"\n" + errors)
        assert process.returncode is not None
        return process.returncode, output


async def at_the_command_line(scene: Scene) -> None:
    """Everything, in order. The gateways are stopped."""
    line = CommandLine(scene)
    homes, evidence = scene.consortium / "homes", scene.folder / "evidence"
    await _erase(scene, line)
    one = homes / scene.planted[1].hospital
    backup, restored = scene.folder / "restored" / "backup", scene.folder / "restored" / "home"
    must((await line.run("backup", one, backup))[0] == 0, "backup of a stopped home")
    own = scene.consortium / "passphrases" / one.name
    must((await line.run("restore", backup, restored, passphrase=own))[0] == 0, "restore")
    trust = scene.consortium / "consortium.json"
    must((await line.run("verify", evidence / "regulator", "--trust", trust))[0] in (0, 4), "verify")
    for path in sorted((evidence / "regulator").rglob("*.evidence"))[:3]:
        must((await line.run("show", path))[0] == 0, "show")
    other = scene.consortium / "passphrases" / scene.planted[0].hospital
    elsewhere = f"{scene.planted[1].patients[0].identity}\n"
    wrong = [
        await line.run("backup", one, scene.folder / "restored" / "wrong", passphrase=other),
        await line.run("verify", one / "vault", "--trust", trust),
        await line.run("show", one / "vault" / "vault.sqlite"),
        await line.run("show", scene.folder / "tables" / "site-1.csv"),
        await line.run("erasure", "plan", "--home", one, passphrase=other, typed=elsewhere),
    ]
    must(all(code == 1 for code, _ in wrong), "commands that cannot work")


async def _erase(scene: Scene, line: CommandLine) -> None:
    """A patient is erased, the epoch rotated, the receipt checked; another asks and is not there."""
    hospital = scene.planted[0]
    home, receipt = scene.consortium / "homes" / hospital.hospital, scene.folder / "evidence" / "receipt.evidence"
    person = hospital.patients[2].identity
    code, said = await line.run("erasure", "plan", "--home", home, "--json", typed=f"{person}\n")
    must(code == 0, "plan of an erasure")
    (plan,) = json.loads(said)
    must(plan["erase"] or plan["restrict"], "plan of an erasure")
    applied = await line.run("erasure", "apply", plan["erasure"], "--home", home, "--receipt", receipt, "--rotate")
    must(applied[0] == 0 and receipt.is_file(), "erasure")
    must((await line.run("erasure", "check", receipt, "--home", home))[0] == 0, "check of an erasure")
    must((await line.run("erasure", "show", "--home", home))[0] == 0, "list of erasures")
    await line.run("erasure", "plan", "--home", home, typed=f"{scene.planted[1].patients[0].identity}\n")
