"""The processes of a local consortium: each a `medveil serve`, started in order, watched, stopped in order.

The sequencer starts first and stops last. Each process is a group of its own, so that Ctrl-C reaches this one alone,
and ends when this one dies. What a process writes goes to its log; what is for people goes on, with its name before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import ssl
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from medveil.local.founding import AUTHORITY, LocalConsortium, LocalMember
from wire.errors import Unavailable

READY_SECONDS = 120.0
"""How long a process may take from its start until it is ready."""
STOP_SECONDS = 45.0
"""How long it may take to stop before it is killed."""

Say = Callable[[str, str], None]
"""Told (organisation, line) of what is for people."""

_PROGRAM = "import sys; sys.argv[0] = 'medveil'; from medveil.cli import main; main()"
_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class Process:
    """One organisation's `medveil serve`. environment: more of it than this process has; cwd: its working folder."""

    def __init__(
        self,
        folder: Path,
        member: LocalMember,
        say: Say,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.member = member
        self.stopping = False
        self._environment, self._cwd = environment or {}, cwd
        self._folder = folder
        self._say = say
        self._log = folder / "logs" / f"{member.organisation}.log"
        self._reading: asyncio.Task[None]
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it; it is ready later. Raises OSError."""
        _library()  # here: after the fork is no time to load anything
        environment = {name: text for name, text in os.environ.items() if name != "MEDVEIL_PASSPHRASE_FILE"}
        environment |= self._environment
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _PROGRAM,
            "serve",
            str(self._folder / "homes" / self.member.organisation),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,
            env=environment,
            cwd=self._cwd,
        )
        self._reading = asyncio.create_task(self._read(), name=f"output of {self.member.organisation}")

    @property
    def id(self) -> int:
        """Its process id; 0 before it was started."""
        return 0 if self._process is None else self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs, or was never started."""
        return None if self._process is None else self._process.returncode

    async def ended(self) -> int:
        """Its exit code, once it has ended and its output is read; it was started."""
        assert self._process is not None
        code = await self._process.wait()
        await asyncio.wait({self._reading})
        return code

    async def ready(self, client: httpx.AsyncClient) -> None:
        """Returns once ``/health/ready`` says so. Raises Unavailable if it ends before, or takes too long."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                while True:
                    if self.code is not None:
                        raise Unavailable("local.ended", organisation=self.member.organisation, exit=self.code)
                    with contextlib.suppress(httpx.HTTPError):
                        answer = await client.get(f"{self.member.people}/health/ready", timeout=5)
                        if answer.status_code == 200:
                            return
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise Unavailable("local.not_ready", organisation=self.member.organisation) from None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        self.stopping = True
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def stop(self) -> int:
        """Stop it in order; kill it if that takes too long. Returns its exit code."""
        if self._process is None:
            return 0
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
        return await self.ended()

    async def _read(self) -> None:
        assert self._process is not None
        output = self._process.stdout
        assert output is not None  # a pipe was asked for
        with self._log.open("ab") as log:
            while line := await _line(output):
                log.write(line)
                log.flush()
                shown = _for_people(line)
                if shown:
                    self._say(self.member.organisation, shown)


async def _line(output: asyncio.StreamReader) -> bytes:
    """The next line; a piece of one that is too long; nothing at the end."""
    try:
        return await output.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await output.read(error.consumed)


def _for_people(line: bytes) -> str:
    """What a person should see of a line: sentences, and of the log what went wrong."""
    text = line.decode("utf-8", "replace").rstrip()
    if not text.startswith("{"):
        return text.removeprefix("medveil: ")
    try:
        told: dict[str, Any] = json.loads(text)
    except ValueError:
        return text
    if told.get("level") not in ("error", "critical"):
        return ""
    names = ("part", "kind", "job", "code", "error", "place")
    facts = " ".join(f"{name}={told[name]}" for name in names if name in told)
    return f"{told.get('event', 'error')} {facts}".strip()


class Processes:
    """All of them. folder: of the local consortium. on_end: told of a process that ended by itself, with its code.

    environment, cwd: see `Process`.
    """

    def __init__(
        self,
        folder: Path,
        state: LocalConsortium,
        say: Say,
        on_end: Callable[[str, int], None],
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.all = {member.organisation: Process(folder, member, say, environment, cwd) for member in state.members}
        self._context = ssl.create_default_context(cafile=folder / AUTHORITY)
        self._on_end = on_end
        self._watching: list[asyncio.Task[None]] = []

    async def start(self, on_ready: Callable[[LocalMember], None]) -> None:
        """Start all, the sequencer first; returns when all are ready. Raises Unavailable; then none of them runs."""
        try:
            async with httpx.AsyncClient(verify=self._context, trust_env=False) as client:
                first, *others = self.all.values()
                await self._start((first,), client, on_ready)
                await self._start(others, client, on_ready)
        except BaseException:
            await self.stop()
            raise

    async def _start(
        self, some: Sequence[Process], client: httpx.AsyncClient, on_ready: Callable[[LocalMember], None]
    ) -> None:
        for process in some:
            await process.start()
            self._watching.append(asyncio.create_task(self._watch(process)))

        async def until_ready(process: Process) -> None:
            await process.ready(client)
            on_ready(process.member)

        waiting = [asyncio.ensure_future(until_ready(process)) for process in some]
        try:
            await asyncio.gather(*waiting)
        finally:
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def again(self, organisation: str) -> None:
        """Start a process that has ended once more; returns when it is ready. Raises Unavailable."""
        process = self.all[organisation]
        process.stopping = False
        async with httpx.AsyncClient(verify=self._context, trust_env=False) as client:
            await self._start((process,), client, lambda member: None)

    async def _watch(self, process: Process) -> None:
        code = await process.ended()
        if not process.stopping:
            self._on_end(process.member.organisation, code)

    async def stop(self) -> bool:
        """Stop all, the sequencer last. Returns whether each stopped as it was told."""
        sequencer, *others = self.all.values()
        codes = await asyncio.gather(*(process.stop() for process in others))
        codes.append(await sequencer.stop())
        await asyncio.gather(*self._watching)
        return not any(codes)

    def hurry(self) -> None:
        """Let none of them take any more time. Nothing durable is lost by it."""
        for process in self.all.values():
            process.signal(signal.SIGKILL)


@cache
def _library() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    library = _library()
    if library is not None:
        library.prctl(_DIES_WITH_PARENT, signal.SIGTERM)
