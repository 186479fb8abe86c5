"""The ledger beside what no ledger can do without: durable SQLite inserts of the same facts, signature checks.

*Embedded* means end to end through `EmbeddedEngine`: submitted, each signature checked, each contract run,
both trees rehashed, the block with its signed head flushed to disk. Cosigning is others' work on others'
machines: ``final-*`` measures it with seven replicas in this one process. An op is one fact (here: a grant);
an envelope carries 1 or 64 of them. No figure is of "transactions".
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

from nacl import bindings

from benchmarks.consortium import HOSPITALS, ORGANISATIONS, Pen, founding, now, signer
from benchmarks.machine import peer
from benchmarks.measure import Effort, Figure, Timed, beside, effort, in_turn, spread
from ledger.contracts.grants import grant_key
from ledger.engines import EmbeddedEngine, GroupCommit, attend, commit
from ledger.envelope import SignedEnvelope, forget
from ledger.receipts import Receipt, verify_receipt
from ledger.replicas import Replica
from ledger.trees.log import Log
from wire.canonical import decode, encode
from wire.checkpoint import trust_of, verify_consistency
from wire.checkpoint.note import cosigned_message, parse_note
from wire.domains import ENVELOPE, framed
from wire.errors import Unavailable
from wire.keyset import Founding

OPS = 64
"""Ops of a full envelope."""
PORTION = 50_000
"""Keys that the state of a growth figure is filled with at a time: what one update needs does not count as memory."""
SQLITE = f"SQLite {sqlite3.sqlite_version}"
Rows = dict[str, list[tuple[object, ...]]]
"""Rows to insert, by table."""
Checks = list[tuple[bytes, bytes]]
"""Signed messages, signature first, each with its public key."""


def run(quick: bool) -> Iterator[Figure]:
    """All figures; with --quick smaller rounds, and states of 10^4 and 10^5 keys instead of 10^6."""
    members = founding()
    with TemporaryDirectory(prefix="medveil-bench-") as name, asyncio.Runner() as runner:
        folder = Path(name)
        bench = Embedded(runner, folder / "ledger.sqlite", members)
        yield from _final(quick, bench, folder)  # first: seven replicas then have little to catch up with
        yield from _receipts(quick, bench)
        yield from _ops(quick, bench, folder)
        yield from _envelopes(quick, bench)
        yield from _latency(quick, bench)
        bench.close()
        yield from _growth(quick, runner, folder, members)
    yield from _consistency(quick)


class Embedded:
    """One embedded engine, fed with envelopes of the four hospitals."""

    def __init__(self, runner: asyncio.Runner, path: Path, members: Founding) -> None:
        self.members, self.pen = members, Pen(members)
        self.trust = trust_of(members)
        self._runner = runner
        group = GroupCommit(not_final=10**6)  # most figures are of an engine that nobody cosigns for
        opened = EmbeddedEngine.open(path, members, signer("bureau-1", "cosign"), now, group=group)
        self.engine = runner.run(opened)
        self._replicas: list[Replica] = []

    def durable(self, envelopes: list[bytes]) -> None:
        """Submit all at once and return once every one of them stands in a block on disk."""
        self._runner.run(self._durable(envelopes))

    async def _durable(self, envelopes: list[bytes]) -> None:
        before = self.executed()
        for envelope in envelopes:
            await self.engine.submit(envelope)
        height = -1
        while True:
            if height != self.engine.machine.height:  # to ask the state at every turn would be load of its own
                height = self.engine.machine.height
                if self.executed() >= before + len(envelopes):
                    return
            await asyncio.sleep(0.0005)

    def executed(self) -> int:
        """Envelopes of the hospitals in blocks."""
        return sum(self.engine.machine.next_nonce(name) for name in HOSPITALS)

    def paced(self, envelopes: list[bytes], rate: float) -> list[float]:
        """Submit `rate` envelopes a second, whatever the engine does; seconds from each one's due time to durable."""
        return self._runner.run(self._paced(envelopes, rate))

    async def _paced(self, envelopes: list[bytes], rate: float) -> list[float]:
        before, began = self.executed(), perf_counter() + 0.01
        due = [began + place / rate for place in range(len(envelopes))]
        taken: list[float] = []
        sent, height = 0, self.engine.machine.height
        while len(taken) < len(due):
            came = perf_counter()  # a turn of an event loop serves every client that is ready
            with suppress(Unavailable):  # its queue is full: the envelope stays due
                while sent < len(due) and due[sent] <= came:
                    await self.engine.submit(envelopes[sent])
                    sent += 1
            await asyncio.sleep(0.0003)
            seen = perf_counter()
            if height != self.engine.machine.height:
                height = self.engine.machine.height
                # Senders take turns, and blocks keep the order of submission: the first `done` are in.
                done = self.executed() - before
                taken.extend(seen - at for at in due[len(taken) : done])
        return taken

    def final(self, envelopes: list[bytes]) -> list[Receipt]:
        """Submit all at once, seven replicas replaying and cosigning; the receipts."""
        if not self._replicas:
            self._replicas = [Replica(self.members, one, signer(one, "cosign"), now) for one in ORGANISATIONS]
        return self._runner.run(self._final(envelopes))

    async def _final(self, envelopes: list[bytes]) -> list[Receipt]:
        following = [asyncio.create_task(attend(self.engine, replica)) for replica in self._replicas]
        receipts = await asyncio.gather(*(commit(self.engine, envelope, 120) for envelope in envelopes))
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
        return receipts

    def close(self) -> None:
        """Close the engine."""
        self._runner.run(self.engine.close())


class Bare:
    """A durable SQLite file: WAL, synchronous=FULL; rows of several tables in one transaction."""

    def __init__(self, path: Path, schemas: dict[str, str]) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        for table, columns in schemas.items():
            self._database.execute(f"CREATE TABLE {table} ({columns})")

    def insert(self, rows: Rows) -> None:
        """Insert all rows and flush."""
        self._database.execute("BEGIN")
        for table, values in rows.items():
            self._database.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values[0]))})", values)
        self._database.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _facts(envelopes: list[bytes]) -> Rows:
    """What the ledger keeps of the envelopes' ops, as rows: each op by its id, and the state it leads to."""
    history: list[tuple[object, ...]] = []
    state: list[tuple[object, ...]] = []
    for data in envelopes:
        envelope = decode(SignedEnvelope, data).envelope
        for op in envelope.ops:
            fact = encode(op)
            history.append((hashlib.sha256(fact).digest(), envelope.sender, fact))
            state.append((grant_key(op.grant), fact))  # type: ignore[union-attr]
    return {"history": history, "state": state}


def _share(figure: str, peer: str, rounds: Timed) -> Figure:
    """How much of the peer's rate is reached: median over pairs."""
    shares = [theirs / ours for ours, theirs in rounds]
    return Figure(figure, median(shares), "share", spread=spread(shares), rounds=len(shares))


def _ops(quick: bool, bench: Embedded, folder: Path) -> Iterator[Figure]:
    """64 ops an envelope, beside the same facts inserted into SQLite: a row of history and one of state each."""
    count = 20 if quick else 200
    bare = Bare(
        folder / "facts.sqlite",
        {
            "history": "id BLOB PRIMARY KEY, sender TEXT, fact BLOB",
            "state": "key BLOB PRIMARY KEY, value BLOB",
        },
    )

    def fresh() -> tuple[list[bytes], Rows]:
        envelopes = bench.pen.envelopes(count, OPS)
        rows = _facts(envelopes)
        forget()
        return envelopes, rows

    def durable(given: tuple[list[bytes], Rows]) -> None:
        bench.durable(given[0])

    with closing(bare):
        rounds = in_turn(durable, lambda given: bare.insert(given[1]), fresh, effort(quick))
    known = f"{SQLITE} (history and state row of the same facts, one transaction)"
    yield beside("embedded_ops_per_s", "ops/s", known, rounds, count * OPS)
    yield _share("sqlite_limit_ratio", SQLITE, rounds)


def _checks(envelopes: list[bytes]) -> Checks:
    checks = []
    for data in envelopes:
        one = decode(SignedEnvelope, data)
        key = signer(one.envelope.sender, "envelope").key.public
        checks.append((one.signature.value + framed(ENVELOPE, encode(one.envelope)), key))
    return checks


def _check(checks: Checks) -> None:
    for message, key in checks:
        bindings.crypto_sign_open(message, key)


def _envelopes(quick: bool, bench: Embedded) -> Iterator[Figure]:
    """Envelopes of one op, beside their signature checks alone."""
    count = 200 if quick else 2000

    def fresh() -> tuple[list[bytes], Checks]:
        envelopes = bench.pen.envelopes(count)
        return envelopes, _checks(envelopes)

    rounds = in_turn(lambda given: bench.durable(given[0]), lambda given: _check(given[1]), fresh, effort(quick))
    yield beside("embedded_envelopes_per_s", "envelopes/s", peer("pynacl", "ed25519 checks alone"), rounds, count)
    yield _share("signature_limit_ratio", "pynacl", rounds)


def _latency(quick: bool, bench: Embedded) -> Iterator[Figure]:
    """From due to durable, at half the rate that single-op envelopes have just before: others may use the machine."""
    count = 400 if quick else 2000
    taken = []
    for _ in range(1 if quick else 5):
        unpaced, paced = bench.pen.envelopes(count), bench.pen.envelopes(3 * count)
        began = perf_counter()
        bench.durable(unpaced)
        taken += bench.paced(paced, count / (perf_counter() - began) / 2)
    cuts = quantiles(taken, n=100, method="inclusive")
    yield Figure("p50_latency_ms", cuts[49] * 1e3, "ms")
    yield Figure("p99_latency_ms", cuts[98] * 1e3, "ms")


def _final(quick: bool, bench: Embedded, folder: Path) -> Iterator[Figure]:
    """Until final: seven replicas replay and cosign, beside one durable insert of the bytes.

    All in this process, where a signature is checked once and not by each replica; no network.
    """
    bench.final(bench.pen.envelopes(4))  # the replicas catch up
    bare = Bare(folder / "bytes.sqlite", {"envelopes": "bytes BLOB"})
    with closing(bare):
        for figure, unit, count in (("final-one", "ms", 1), ("final-hundred", "envelopes/s", 100)):
            rounds = in_turn(
                bench.final,
                lambda given: bare.insert({"envelopes": [(one,) for one in given]}),
                lambda count=count: bench.pen.envelopes(count),  # type: ignore[misc]
                effort(quick),
            )
            yield beside(figure, unit, f"{SQLITE} (the bytes alone, synchronous=FULL)", rounds, count)


def _receipts(quick: bool, bench: Embedded) -> Iterator[Figure]:
    """Receipts never seen before, beside the signature checks they need: the envelope's, the head's and k or more."""
    count = 100
    envelopes = bench.pen.envelopes(count * (6 if quick else 9))
    receipts = bench.final(envelopes)

    def fresh() -> tuple[list[Receipt], Checks]:
        chosen = [receipts.pop() for _ in range(count)]
        checks = _checks([receipt.envelope for receipt in chosen])
        for receipt in chosen:
            note = parse_note(receipt.note)
            for line in note.lines:
                if line.name == note.checkpoint.origin:
                    checks.append((line.signature + note.text, signer("bureau-1", "cosign").key.public))
                else:
                    message = cosigned_message(note.text, line.time)
                    checks.append((line.signature[8:] + message, signer(line.name, "cosign").key.public))
        forget()
        return chosen, checks

    def verify(chosen: list[Receipt]) -> None:
        for receipt in chosen:
            verify_receipt(receipt, bench.trust)

    much = Effort(5, 0.0) if quick else Effort(7, 0.0, 8)  # a difference: few rounds are lost in the noise
    rounds = in_turn(lambda given: verify(given[0]), lambda given: _check(given[1]), fresh, much, process_time)
    own = [(ours - theirs) / count * 1e3 for ours, theirs in rounds]
    yield Figure("receipt_verify_ms", median(own), "ms", spread=spread(own), rounds=len(own))
    yield beside("receipt-with-signatures", "ms", peer("pynacl", "its signature checks alone"), rounds, count)


# --- growth ------------------------------------------------------------------------------------------


class Grown(Embedded):
    """An engine whose state holds `keys` grants, and is put back to that before every round."""

    def __init__(self, runner: asyncio.Runner, path: Path, members: Founding, keys: int) -> None:
        super().__init__(runner, path, members)
        self.durable(self.pen.envelopes(len(HOSPITALS)))
        machine = self.engine.machine
        value = machine.state.get(grant_key("grant-0"))
        self._state = machine.state
        for first in range(0, keys, PORTION):
            some = range(first, min(first + PORTION, keys))
            self._state = self._state.update({grant_key(f"earlier-{number}"): value for number in some})

    def fresh(self, count: int) -> list[bytes]:
        """Envelopes for a round in the state of `keys` grants."""
        self.engine.machine.state = self._state
        self.pen.made = len(HOSPITALS)
        return self.pen.envelopes(count, OPS)


def _resident() -> int:
    """Bytes of this process in memory."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _growth(quick: bool, runner: asyncio.Runner, folder: Path, members: Founding) -> Iterator[Figure]:
    """Cost of an op, end to end, in a state of 10^4 keys and of 10^6 (--quick: 10^5), in turn; memory of a key."""
    few, many = 10**4, 10**5 if quick else 10**6
    gc.collect()
    before = _resident()
    large = Grown(runner, folder / "large.sqlite", members, many)
    gc.collect()
    used = _resident() - before
    small = Grown(runner, folder / "small.sqlite", members, few)
    count = 12 if quick else 100
    rounds = in_turn(
        lambda given: large.durable(given[0]),
        lambda given: small.durable(given[1]),
        lambda: (large.fresh(count), small.fresh(count)),
        effort(quick),
    )
    ratios = [ours / theirs for ours, theirs in rounds]
    yield Figure("state_growth_ratio", median(ratios), "times", spread=spread(ratios), rounds=len(ratios))
    yield beside("op-in-large-state", "us", f"medveil (state of {few} keys)", rounds, count * OPS)
    yield Figure("memory-per-key", max(used, 1) / many, "bytes")
    large.close()
    small.close()


def _consistency(quick: bool) -> Iterator[Figure]:
    """Proving and verifying that a log of 10^6 entries (--quick: 10^5) extends an earlier one."""
    size = 10**5 if quick else 10**6
    log = Log()
    for number in range(size):
        log.append(number.to_bytes(8, "big"))
    times = []
    root = log.root()
    for first in range(1, size, size // 100):
        before = log.root(first)
        began = perf_counter()
        verify_consistency(first, before, size, root, log.consistency_proof(first))
        times.append(perf_counter() - began)
    yield Figure("consistency", median(times) * 1e3, "ms", spread=spread(times), rounds=len(times))
