"""`medveil leak-test`: plant, run every flow, search, tell.

The homes are searched twice: while all run, after a kill -9, with their logs of writing as they are; and when all have
stopped. Nothing of the run stays unless it is asked for, or something leaks: then what was planted is of use
to whoever looks for the place.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from medveil.leak_test import callers, flows, home_flows, places, processes
from medveil.leak_test.commands import at_the_command_line
from medveil.leak_test.credential_flow import credentials
from medveil.leak_test.flows import Flow
from medveil.leak_test.places import Place
from medveil.leak_test.scene import Scene, found, running, watching
from medveil.leak_test.search import Search
from medveil.leak_test.verdict import MOST_TOLD, Count, Verdict
from wire.errors import Refused, Unavailable

FLOWS = (
    Flow("people, budget, tables", flows.seed),
    Flow("a table with a fault", flows.load_with_a_fault),
    Flow("grants, previews", flows.grant),
    Flow("a denied and a released query", flows.query),
    Flow("bills, proofs", flows.prove),
    Flow("scores under encryption", flows.score),
    Flow("a copy of rows", home_flows.extract),
    Flow("opt-outs, questions about one person", home_flows.persons),
    Flow("an erasure", home_flows.erase),
    Flow("audit, evidence", flows.evidence),
    Flow("backups", flows.backup),
    Flow("accounts of every role", callers.roles),
    Flow("everything read by everybody", callers.read_everything),
    Flow("bad input", callers.bad_input),
    Flow("crashes", flows.crash),
)
AFTERWARDS = (Flow("at the command line", at_the_command_line), Flow("credentials on files", credentials))
"""What is done while the gateways are stopped."""
LONGER = (callers.roles, credentials)
"""Left out by --quick: every address is then read by staff and admin alone."""


def leak_test(folder: Path | None, quick: bool, say: Callable[[str], None]) -> tuple[Verdict, Path | None]:
    """Run it. folder: where, kept afterwards; must not be there yet; None for one that goes. Returns the verdict, and
    the folder if it is still there.

    Raises Refused (the folder; a flow that does not come out as it should), Unavailable (a process that does not
    start, a machine without /proc).
    """
    if not processes.can_look():
        raise Unavailable("leak_test.no_proc")
    _check_installed()
    try:
        if folder is not None:
            folder.mkdir(mode=0o700, parents=True)
            where = folder.absolute()
        else:
            where = Path(tempfile.mkdtemp(prefix="medveil-leak-test-"))
    except FileExistsError:
        raise Refused("home.not_empty", folder=str(folder)) from None
    except OSError:
        raise Unavailable("home.unwritable", folder=str(folder or tempfile.gettempdir())) from None
    keep = folder is not None
    try:
        verdict = asyncio.run(_run(where, quick, say))
        keep = keep or not verdict.good
    finally:
        if not keep:
            shutil.rmtree(where, ignore_errors=True)
    return verdict, where if keep else None


def _check_installed() -> None:
    """Whether a flow would lack its library. Raises what its own import raises."""
    from mpc import paillier_key

    del paillier_key


async def _run(folder: Path, quick: bool, say: Callable[[str], None]) -> Verdict:
    scene = Scene(folder)
    say("Founding a consortium of seven; drawing patients.")
    found(scene)
    async with watching(scene):
        async with running(scene, lambda line: None):
            for flow in FLOWS:
                if not quick or flow.run not in LONGER:
                    await _timed(flow, scene, say)
            markers = scene.markers()
            count = Count(Search(markers), markers)
            await asyncio.to_thread(_search_processes, scene, count, quick)
            await asyncio.to_thread(count.folder, _live(folder))
        for flow in AFTERWARDS:
            if not quick or flow.run not in LONGER:
                await _timed(flow, scene, say)
    say("Searching.")
    await asyncio.to_thread(count.folder, places.files(folder))
    _cores(folder, count)
    return count.verdict()


async def _timed(flow: Flow, scene: Scene, say: Callable[[str], None]) -> None:
    began = time.monotonic()
    await flow.run(scene)
    say(f"{flow.name}: {time.monotonic() - began:.1f} s")


def _live(folder: Path) -> list[Place]:
    """The files of running homes."""
    return [one for one in places.files(folder) if one.place in (places.LEDGER, places.VAULTS, places.HOMES)]


def _search_processes(scene: Scene, count: Count, quick: bool) -> None:
    looks: dict[str, Callable[[Scene, Count, str, int], None]]
    looks = {places.PROCESS: _started_with, places.ELSEWHERE: _elsewhere, places.MEMORY: _memory}
    for name, process in scene.processes.all.items():
        count.data(Place(places.PROCESS, name, f"{name}: command line", Path()), [processes.command_line(process.id)])
        limit = processes.core_limit(process.id)
        if limit != "0":
            count.leak(Place(places.CORES, name, name, Path()), f"a core of {limit} bytes may be dumped", "a limit")
        for place, look in looks.items():
            if quick and place == places.MEMORY:
                continue
            try:
                look(scene, count, name, process.id)
            except processes.Closed:
                count.closed(place)


def _started_with(scene: Scene, count: Count, name: str, process: int) -> None:
    count.data(Place(places.PROCESS, name, f"{name}: environment", Path()), [processes.environment(process)])


def _memory(scene: Scene, count: Count, name: str, process: int) -> None:
    count.data(Place(places.MEMORY, name, name, Path()), processes.memory(process), outsider=name)


def _elsewhere(scene: Scene, count: Count, name: str, process: int) -> None:
    for path in processes.open_elsewhere(process, scene.folder):
        for view in places.views(path):
            count.data(Place(places.ELSEWHERE, name, f"{name}: descriptor {path.name}", path), view.pieces, view.name)


def _cores(folder: Path, count: Count) -> None:
    """A file in the processes' working folder is a core, or should not be there."""
    for one in places.files(folder):
        if one.place == places.CORES:
            count.leak(one, "a file in the working folder", "a core")


def told(verdict: Verdict) -> list[str]:
    """The leaks, a line each: no more than a person reads."""
    lines: list[str] = []
    for row in verdict.rows:
        of_it = [leak for leak in verdict.leaks if leak.place == row.place]
        lines += [leak.line() for leak in of_it[:MOST_TOLD]]
        if len(of_it) > MOST_TOLD:
            lines.append(f"{row.place}: {len(of_it) - MOST_TOLD} more")
    return lines
