"""The gateway beside a bare FastAPI route on the same server settings: what knowing, deciding and auditing cost."""

from __future__ import annotations

import asyncio
import json
import platform
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from time import perf_counter

from benchmarks.gateway_server import PATH
from benchmarks.machine import ROOT, peer
from benchmarks.measure import CannotRun, Figure, spread

CLIENTS = 32
STREAMS = 1000


@dataclass(frozen=True)
class Server:
    """One process that answers. session: of somebody who may ask."""

    port: int
    session: str
    job: str


@contextmanager
def serving(folder: Path, how: str) -> Iterator[Server]:
    """A process of its own, ended at the end."""
    command = [sys.executable, "-m", "benchmarks.gateway_server", str(folder), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            if not said:
                raise CannotRun(f"the {how} server ended before it answered")
            yield Server(**json.loads(said))
        finally:
            process.terminate()


async def _ask(server: Server, until: float, latencies: list[float]) -> None:
    """One client on one connection, one request after the other."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = f"GET {PATH} HTTP/1.1\r\nhost: 127.0.0.1:{server.port}\r\nauthorization: Bearer {server.session}\r\n\r\n"
    request = head.encode()
    while (began := perf_counter()) < until:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if not head.startswith("HTTP/1.1 200 "):
            raise CannotRun(f"the gateway answered {head.splitlines()[0]}")
        length = next(line for line in head.lower().split("\r\n") if line.startswith("content-length:"))
        body = await reader.readexactly(int(length.partition(":")[2]))
        assert b'"allowed":true' in body
        latencies.append(perf_counter() - began)
    writer.close()
    await writer.wait_closed()


async def load(server: Server, seconds: float) -> tuple[float, float]:
    """Requests a second, and the 95th percentile of their seconds."""
    latencies: list[float] = []
    began = perf_counter()
    await asyncio.gather(*(_ask(server, began + seconds, latencies) for _ in range(CLIENTS)))
    return len(latencies) / (perf_counter() - began), quantiles(latencies, n=20)[-1]


class Streams:
    """Event streams that are open and idle. Each sends a comment now and then."""

    def __init__(self) -> None:
        self._open: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def open(self, server: Server) -> None:
        """Open all of them."""
        head = f"GET /v1/jobs/{server.job}/events HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {server.session}\r\n\r\n"
        for _ in range(STREAMS):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(head.encode())
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 "), answer
            self._open.append((reader, writer))

    async def held(self, server: Server) -> int:
        """How many are open still, as both ends see it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        text = (await reader.read()).decode()
        writer.close()
        theirs = next(line for line in text.splitlines() if line.startswith("medveil_event_streams "))
        ours = sum(not reader.at_eof() and not writer.is_closing() for reader, writer in self._open)
        return min(ours, int(float(theirs.split()[1])))

    async def close(self) -> None:
        """Close all of them."""
        for _, writer in self._open:
            writer.close()
        self._open = []
        await asyncio.sleep(1)


async def _beside_streams(server: Server, seconds: float, rounds: int) -> list[tuple[int, float]]:
    """How many idle streams were held while requests ran, and the rate beside them as a share of that without."""
    measured = []
    for _ in range(rounds):
        alone, _ = await load(server, seconds)
        streams = Streams()
        await streams.open(server)
        beside, _ = await load(server, seconds)
        measured.append((await streams.held(server), beside / alone))
        await streams.close()
    return measured


def run(quick: bool) -> Iterator[Figure]:
    """An authenticated, decided and durably audited read beside a bare route; 1,000 idle streams; the help text."""
    rounds, seconds = (2, 0.5) if quick else (9, 3.0)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        bare = stack.enter_context(serving(folder, "bare"))
        whole = stack.enter_context(serving(folder, "whole"))
        for server in (bare, whole):
            asyncio.run(load(server, seconds / 2))
        pairs = []
        for number in range(rounds):
            order = (whole, bare) if number % 2 else (bare, whole)
            found = {server.port: asyncio.run(load(server, seconds)) for server in order}
            pairs.append((found[whole.port], found[bare.port]))
        beside = peer("fastapi", "bare route")
        rates = [ours for (ours, _), _ in pairs]
        ratios = [ours / theirs for (ours, _), (theirs, _) in pairs]
        waits = [ours * 1000 for (_, ours), _ in pairs]
        slower = median(ours / theirs for (_, ours), (_, theirs) in pairs)
        yield Figure("requests_per_s", median(rates), "requests/s", beside, median(ratios), spread(rates), rounds)
        yield Figure("bare_fastapi_ratio", median(ratios), "share", None, None, spread(ratios), rounds)
        yield Figure("request_p95_ms", median(waits), "ms", beside, slower, spread(waits), rounds)
        yield _idle_streams(whole, quick)
    yield _help(quick)


def _idle_streams(server: Server, quick: bool) -> Figure:
    """How many event streams are held open while requests run; the ratio is of the rates beside and without them."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < 2 * STREAMS:
        raise CannotRun(f"{STREAMS} streams need more open files: ulimit -Hn says {most}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(4 * STREAMS, 4096) if most < 0 else most, most))
    measured = asyncio.run(_beside_streams(server, 0.5 if quick else 3.0, 1 if quick else 3))
    shares = [share for _, share in measured]
    held = min(held for held, _ in measured)
    return Figure(
        "idle_streams", held, "streams", "the rate without them", median(shares), spread(shares), len(measured)
    )


def _help(quick: bool) -> Figure:
    """Wall time of ``medveil --help``, beside an interpreter that does nothing."""
    say = [sys.executable, "-c", "import sys; from medveil.cli import main; sys.argv[0] = 'medveil'; main()", "--help"]

    def seconds(command: list[str]) -> float:
        began = perf_counter()
        said = subprocess.run(command, capture_output=True, cwd=ROOT, check=True).stdout
        took = perf_counter() - began
        assert command is not say or b"Usage" in said
        return took

    rounds = [(seconds(say), seconds([sys.executable, "-c", "pass"])) for _ in range(3 if quick else 10)]
    times = [ours * 1000 for ours, _ in rounds]
    ratio = median(ours / theirs for ours, theirs in rounds)
    return Figure(
        "help_ms",
        median(times),
        "ms",
        f"CPython {platform.python_version()} (no program)",
        ratio,
        spread(times),
        len(rounds),
    )
