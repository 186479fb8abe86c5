"""`medveil up`: a consortium in a folder, founded when there is none, run until it is told to stop."""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from filelock import FileLock, Timeout

from medveil.demo.join_and_load import founders
from medveil.demo.play import BUREAU, ZONE
from medveil.local.founding import AUTHORITY, CONSORTIUM, LocalConsortium, LocalMember, found_local, read_state
from medveil.local.processes import Processes
from medveil.local.seeding import PEOPLE_FILE, STAFF, Seeding
from medveil.local.tables import count_sites
from wire.errors import Unavailable

CHAIN = "medveil-local"


class Voice:
    """What the run says: sentences for people, or a JSON object a line."""

    def __init__(self, as_json: bool, width: int) -> None:
        self._as_json = as_json
        self._width = width

    def event(self, event: str, sentence: str, **facts: Any) -> None:
        """Something happened."""
        typer.echo(json.dumps({"event": event, **facts}, ensure_ascii=False) if self._as_json else sentence)

    def line(self, organisation: str, line: str) -> None:
        """A line that an organisation's process wrote for people."""
        self.event("said", f"{organisation:{self._width}} | {line}", organisation=organisation, line=line)


def run_up(folder: Path, data: Path | None, as_json: bool) -> int:
    """Run it. Returns the exit code: 0 stopped as asked, 1 if a process failed meanwhile.

    data: what the hospitals hold, when the consortium is founded. Raises MedveilError for what keeps it from running.
    """
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Unavailable("local.running", folder=str(folder)) from None
    except OSError:
        raise Unavailable("home.unwritable", folder=str(folder)) from None
    try:
        state = read_state(folder)
        if state is None:
            if not as_json:
                typer.echo("Founding a consortium: homes, keys, trust file.")
            state = found_local(folder, founders(count_sites(data)), BUREAU, CHAIN, ZONE, data)
        voice = Voice(as_json, max(len(member.organisation) for member in state.members))
        return asyncio.run(_up(folder, state, voice))
    finally:
        lock.release()


async def _up(folder: Path, state: LocalConsortium, voice: Voice) -> int:
    asked, failed = asyncio.Event(), asyncio.Event()

    def ended(organisation: str, code: int) -> None:
        failed.set()
        log = folder / "logs" / f"{organisation}.log"
        voice.event(
            "ended",
            f"{organisation} ended by itself (exit {code}): {log} says more. The others go on; stop with Ctrl-C.",
            organisation=organisation,
            exit=code,
            log=str(log),
        )

    processes = Processes(folder, state, voice.line, ended)
    _on_signals(asked, processes.hurry)
    work = asyncio.ensure_future(_run(folder, state, processes, voice))
    stop = asyncio.ensure_future(asked.wait())
    try:
        await asyncio.wait((work, stop), return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
            await stop
    finally:
        for task in (work, stop):
            task.cancel()
        await asyncio.gather(work, stop, return_exceptions=True)
        voice.event("stopping", "Stopping: the sequencer last.")
        good = await processes.stop()
    voice.event("stopped", "All have stopped.", in_order=good)
    return 0 if good and not failed.is_set() else 1


async def _run(folder: Path, state: LocalConsortium, processes: Processes, voice: Voice) -> None:
    def ready(member: LocalMember) -> None:
        name = member.organisation
        voice.event(
            "ready",
            f"{name} is ready at {member.people}",
            organisation=name,
            address=member.people,
            process=processes.all[name].id,
        )

    await processes.start(ready)
    seeding = Seeding(folder, state, lambda sentence: voice.event("seeded", sentence, what=sentence))
    await seeding.seed()
    _tell(folder, seeding, voice)


def _tell(folder: Path, seeding: Seeding, voice: Voice) -> None:
    """Where everything is, and who may go there. Passwords stay in ``people.json``, off the screen."""
    people = seeding.people.all()
    voice.event(
        "up",
        f"The consortium is up. Trust file: {folder / CONSORTIUM}; whom its addresses are certified by: "
        f"{folder / AUTHORITY}.",
        gateways={member.organisation: member.people for member in seeding.state.members},
        trust=str(folder / CONSORTIUM),
        authority=str(folder / AUTHORITY),
        people=str(folder / PEOPLE_FILE),
    )
    width = max(len(member.organisation) for member in seeding.state.members)
    for member in seeding.state.members:
        names = [person.name for person in people if person.organisation == member.organisation]
        voice.event(
            "people",
            f"  {member.organisation:{width}}  {member.people}  {', '.join(names)}",
            organisation=member.organisation,
            address=member.people,
            people=names,
        )
    hospital = seeding.state.with_role("hospital")[0].organisation
    command = shlex.join(["medveil", "sign-in", hospital, STAFF, "--local", str(folder)])
    voice.event("sign-in", f"Sign in as any of them, in another terminal: {command}", command=command)
    voice.event(
        "codes",
        f"Their first passwords and seeds of one-time codes: {folder / PEOPLE_FILE}. Stop all with Ctrl-C.",
        people=str(folder / PEOPLE_FILE),
    )


def _on_signals(asked: asyncio.Event, hurry: Callable[[], None]) -> None:
    """The first signal asks to stop, the next one hurries."""
    loop = asyncio.get_running_loop()

    def caught() -> None:
        if asked.is_set():
            hurry()
        asked.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, caught)
