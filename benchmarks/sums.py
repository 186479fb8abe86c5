"""Secure sums: a client's masking beside Flower's primitives, commitments beside the bare multi-scalar multiplication,
what a whole sum takes as sites and cells grow, and a query over gateways (`benchmarks.sum_queries`,
`benchmarks.query_processes`)."""

from __future__ import annotations

import hashlib
import secrets
import subprocess
import sys
from collections.abc import Iterator
from statistics import median
from time import perf_counter, process_time
from typing import NamedTuple

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM
from py_arkworks_bls12381 import G1Point, Scalar

from benchmarks import query_processes, sum_queries
from benchmarks.machine import ROOT, peer
from benchmarks.measure import CannotRun, Figure, beside, compare, spread
from medveil.gateway.generator_file import load_generators
from mpc import secure_aggregation, sum_coordinator
from mpc.generator_table import blinding_generator, generators
from mpc.masks import Lanes
from mpc.sum_messages import Mode, SumSession
from mpc.vector_commitment import check_sum, commit
from wire.canonical import Wire, encode
from wire.signing import Signer
from zkp.groups import R, backend

FLOWER = ROOT / ".peers" / "flower" / "bin" / "python"
FLOWER_PROGRAM = ROOT / "benchmarks" / "peers" / "flower_masks.py"


class Told(NamedTuple):
    """What a whole sum took. site: seconds of one site's own work; cpu: of all of its threads; bytes: that it sends and
    is sent; rounds: times that it waits for the others; all: seconds of all parties, one after the other."""

    site: float
    cpu: float
    bytes: int
    rounds: int
    all: float


class _Watch:
    """Counts the seconds that one site works, and the bytes that it says and hears."""

    def __init__(self) -> None:
        self.seconds, self.cpu, self.bytes, self.rounds = 0.0, 0.0, 0, 0

    def waited(self, *messages: Wire | None) -> None:
        """A round: what it said before it waited, and what it heard after that."""
        self.rounds += 1
        self.bytes += sum(len(encode(message)) for message in messages if message is not None)


def whole_sum(sites: int, cells: int, mode: Mode) -> Told:
    """One phase among all parties in this process, without ledger and channel; its sum is checked.

    The vectors are of few different numbers: what they are makes no difference to any step.
    """
    names = tuple(f"site-{number:03d}" for number in range(sites))
    signers = {site: Signer(hashlib.sha256(site.encode()).digest()) for site in names}
    members = {site: signer.key for site, signer in signers.items()}
    session = SumSession("bench", secrets.token_bytes(16), bytes(32), 1, names, bytes(32), cells, mode)
    vectors: dict[str, Lanes] = {site: np.full(cells, 1000 + n, dtype=np.uint64) for n, site in enumerate(names)}
    for vector in vectors.values():
        vector.flags.writeable = False  # given away
    watched, watch, began = names[sites // 2], _Watch(), perf_counter()

    def timed(site: str, since: tuple[float, float]) -> None:
        if site == watched:
            watch.seconds += perf_counter() - since[0]
            watch.cpu += process_time() - since[1]

    started, keys = {}, []
    for site in names:
        since = perf_counter(), process_time()
        started[site], mine = secure_aggregation.start(
            session, site, vectors[site], signers[site], members, secrets.token_bytes
        )
        timed(site, since)
        keys.append(mine)
    gathering = sum_coordinator.begin(session, members)
    for one in keys:
        gathering = gathering.receive(one)
    dealing, listed = gathering.close()
    dealt, announced, shared = {}, [], {}
    for site in names:
        since = perf_counter(), process_time()
        dealt[site], shared[site], announcement = started[site].receive(listed)
        timed(site, since)
        announced += [announcement] if announcement is not None else []
        dealing = dealing.receive(site, shared[site])
    masking, parties, handed = dealing.close()
    sent, posted = {}, []
    own: tuple[Wire | None, ...] = ()
    for site in names:
        since = perf_counter(), process_time()
        sent[site], masked, contribution = dealt[site].receive(parties, handed[site], announced)
        timed(site, since)
        posted += [contribution] if contribution is not None else []
        masking = masking.receive(masked)
        if site == watched:
            watch.waited(*listed)
            watch.waited(*shared[site], *announced, *handed[site], parties)
            own = (masked, contribution)
    unmaskings, survivors = masking.close(posted)
    for site in names:
        since = perf_counter(), process_time()
        _, shown = sent[site].receive(survivors)
        timed(site, since)
        unmaskings = unmaskings.receive(shown)
        if site == watched:
            watch.waited(*own, survivors)
            watch.waited(shown)
    found = unmaskings.finish()
    total = sum(1000 + n for n in range(sites))
    sums = found.cells if isinstance(found, sum_coordinator.BulkSum) else np.array(found.totals, dtype=np.uint64)
    if len(sums) != cells or not (sums == total).all():
        raise AssertionError("the sum is not that of the vectors")
    return Told(watch.seconds, watch.cpu, watch.bytes, watch.rounds, perf_counter() - began)


def run(quick: bool) -> Iterator[Figure]:
    """All of it; `quick` keeps to what needs no peer's environment and no long table of generators."""
    yield from _bulk(quick)
    yield from _verified(quick)
    yield from _grown(quick)
    yield from sum_queries.run(quick)
    yield from query_processes.run(quick)


def _bulk(quick: bool) -> Iterator[Figure]:
    """One client of five with 10^6 cells of 64 bits: all of its steps, beside Flower's masking of as many cells.

    By the clock, and by the processor's time of all threads.
    The limit beside them: its five streams made and added, with no key agreed, nothing hashed, signed or kept.
    """
    cells = 10**5 if quick else 10**6
    limits = [_streams_alone(cells) * 1e3 for _ in range(3 if quick else 15)]
    yield Figure("bulk_limit_ms", median(limits), "ms", spread=spread(limits), rounds=len(limits))
    if not FLOWER.exists():
        if not quick:  # a quick run stands on its own
            raise CannotRun(f"Flower is not in {FLOWER.relative_to(ROOT)}: run `make peers`")
        ours = [whole_sum(5, cells, "bulk").site for _ in range(3)]
        yield Figure("bulk_client_ms", median(ours) * 1e3, "ms", spread=spread(ours), rounds=len(ours))
        return
    command = [str(FLOWER), str(FLOWER_PROGRAM)]
    rounds, cpu = [], []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:

        def ask(line: str) -> str:
            if child.stdin is None or child.stdout is None:
                raise AssertionError("no pipes")
            child.stdin.write(line + "\n")
            child.stdin.flush()
            return child.stdout.readline().strip()

        name = f"flwr {ask('version')}, SecAgg+ masks of 32 bits"
        whole_sum(5, cells, "bulk"), ask(f"mask {cells} 5")
        for _ in range(3 if quick else 15):
            told, theirs = whole_sum(5, cells, "bulk"), ask(f"mask {cells} 5").split()
            rounds.append((told.site, float(theirs[0])))
            cpu.append((told.cpu, float(theirs[1])))
        if child.stdin is not None:
            child.stdin.close()
    yield beside("bulk_client_ms", "ms", name, tuple(rounds))
    for figure, pairs in (("flower_ratio", rounds), ("flower_cpu_ratio", cpu)):
        times = [theirs / ours for ours, theirs in pairs]
        yield Figure(figure, median(times), "fold", spread=spread(times), rounds=len(times))


def _streams_alone(cells: int, masks: int = 5) -> float:
    """Seconds for bare streams under whole keys and their additions, in pieces that stay in the cache."""
    piece = 2**14
    zeros, room = bytes(8 * piece), bytearray(8 * piece)
    stream, lanes = np.frombuffer(room, np.uint64), np.ones(piece, np.uint64)
    contexts = [Cipher(AES(secrets.token_bytes(32)), GCM(bytes(12))).encryptor() for _ in range(masks)]
    began = perf_counter()
    for _ in range(-(-cells // piece)):
        for context in contexts:
            context.update_into(zeros, room)
            np.add(lanes, stream, out=lanes)
    return perf_counter() - began


def _verified(quick: bool) -> Iterator[Figure]:
    """A site's commitment, and a stranger's check of a sum, beside the bare multiplication of as many points."""
    worst = 0.0
    if not quick:
        yield _generators()
    for cells in (64, 256) if quick else (10**3, 10**4, 10**5):
        values = [secrets.randbelow(2**40) for _ in range(cells)]
        # The generators are in memory, as they are in a process that sums: not part of either side.
        same = (*generators(cells), blinding_generator())
        points = [G1Point.from_compressed_bytes(backend().encode(point)) for point in same]
        blinding = secrets.randbelow(R)
        scalars = [Scalar(value) for value in (*values, blinding)]
        posted = [commit([value // 2 for value in values], blinding // 2)]
        posted.append(commit([value - value // 2 for value in values], blinding - blinding // 2))

        def bare(points: list[G1Point] = points, scalars: list[Scalar] = scalars) -> None:
            G1Point.multiexp_unchecked(points, scalars)

        def committing(values: list[int] = values, blinding: int = blinding) -> None:
            commit(values, blinding)

        def checking(posted: list[bytes] = posted, values: list[int] = values, blinding: int = blinding) -> None:
            check_sum(posted, values, blinding)

        arkworks = peer("py-arkworks-bls12381", "bare msm")
        for what, ours in (("client", committing), ("check", checking)):
            found = compare(f"verified_{what}_{cells}", "ms", arkworks, ours, bare, quick)
            worst = max(worst, found.ratio or 0.0) if cells >= 1000 or quick else worst
            yield found
    yield Figure("verified_msm_ratio", worst, "times")


def _generators() -> Figure:
    """10^5 generators taken up from the file of an earlier run, which the first run makes."""
    cells, folder = 10**5, ROOT / ".peers"
    folder.mkdir(exist_ok=True)
    load_generators(folder, cells)
    command = (
        "import sys; from pathlib import Path; from time import perf_counter\n"
        "from medveil.gateway.generator_file import load_generators\n"
        "began = perf_counter(); load_generators(Path(sys.argv[1]), int(sys.argv[2])); print(perf_counter() - began)"
    )
    fresh = [sys.executable, "-c", command, str(folder), str(cells)]
    times = [float(subprocess.run(fresh, capture_output=True, check=True, cwd=ROOT).stdout) * 1e3 for _ in range(5)]
    return Figure("generators_load_1e5_ms", median(times), "ms", spread=spread(times), rounds=len(times))


def _grown(quick: bool) -> Iterator[Figure]:
    """Seconds of all parties in turn, and rounds and bytes of one site, as sites and cells grow."""
    sizes: tuple[tuple[int, int, Mode], ...] = ((3, 100, "verified"), (10, 100, "verified"))
    if not quick:
        sizes += ((30, 100, "verified"), (100, 100, "verified"))
        sizes += ((5, 100, "verified"), (5, 10**3, "verified"), (5, 10**4, "verified"), (5, 10**5, "verified"))
        sizes += ((5, 10**5, "bulk"), (5, 10**6, "bulk"), (100, 10**4, "bulk"))
    for sites, cells, mode in sizes:
        told = whole_sum(sites, cells, mode)
        if (sites, cells) == (5, 10**4):
            yield Figure("bytes_per_site_1e4", told.bytes, "bytes")
        if (sites, cells) == (100, 100):
            yield Figure("seconds_100_sites", told.all, "s", rounds=1)
        size = f"{sites}_sites_{cells}_{mode}"
        yield Figure(f"sum_{size}", told.all, "s", rounds=1)
        yield Figure(f"bytes_{size}", told.bytes, "bytes")
        yield Figure(f"rounds_{size}", told.rounds, "times")
