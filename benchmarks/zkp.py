"""Eligibility, settlement and the limit on a bill: beside anoncreds, and beside their own bare group operations."""

from __future__ import annotations

import hashlib
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.bare_groups import Recorder
from benchmarks.insured import Insured, insured
from benchmarks.machine import ROOT, peer
from benchmarks.measure import CannotRun, Figure, compare
from ledger.proof_verifier import verify_batch
from wire import canonical
from wire.money import Amount
from zkp import bill_limit, eligibility, settlement
from zkp.groups import Backend, backend

BATCH = 100
DISTINCT = 10
"""Different proofs in a batch; each stands in it several times, and costs as much as another would."""

QUICK = 4
"""Proofs in a batch with --quick, all of them different."""

PEER = ROOT / ".peers" / "anoncreds" / "bin" / "python"
PEER_PROGRAM = ROOT / "benchmarks" / "peers" / "eligibility_anoncreds.py"

FOLD = "fold"
"""How many times faster or smaller than the peer."""


def derive(label: str) -> bytes:
    """Stands for the wallet's seed."""
    return hashlib.shake_256(label.encode()).digest(64)


def run(quick: bool) -> Iterator[Figure]:
    """Prove, verify, batch, bytes; the floor of each; the second backend; then anoncreds on the nearest statement."""
    yield from _limit(quick)
    person = insured()
    yield from _eligibility(quick, person)
    yield from _settlement(quick, person)
    yield from _beside_anoncreds(quick, person)


# ---------------------------------------------------------------------------------------------- the floor


def _recorded(work: Callable[[Backend], Any]) -> Recorder:
    recorder = Recorder()
    work(recorder.group)
    return recorder


def _beside_floor(
    name: str, floor: str, work: Callable[[Backend], Any], quick: bool, count: int = 1
) -> Iterator[Figure]:
    """How long `work` takes, and that over the time of its group operations alone."""
    recorder = _recorded(work)
    group = backend()
    found = compare(
        name, "ms", peer("py-arkworks-bls12381", "the same group operations"), lambda: work(group), recorder.replay,
        quick, count,
    )  # fmt: skip
    yield found
    assert found.ratio is not None
    yield Figure(floor, found.ratio, "times", found.peer, found.ratio, found.spread, found.rounds)


# ---------------------------------------------------------------------------------------------- the parts


def _limit(quick: bool) -> Iterator[Figure]:
    """One range proof of the 19 bits of a limit."""
    bill, opening = bill_limit.commit_bill(bytes(16), Amount(123_456, "CNY"), secrets.token_bytes)
    request = bill_limit.LimitRequest(
        "bench", bill.handle, 500_000, "CNY", "insurer-1", secrets.token_bytes(32), "HPAYMT", "grant-1"
    )
    presentation = bill_limit.prove(request, bill, opening, secrets.token_bytes)
    for name, work in (
        ("prove", lambda group: bill_limit.prove(request, bill, opening, secrets.token_bytes, group)),
        ("verify", lambda group: bill_limit.verify(presentation, request, bill, group)),
    ):
        yield next(_beside_floor(f"bill-limit.{name}", "", work, quick))
    yield Figure("bill-limit.proof", len(presentation.proof), "bytes")


def _eligibility(quick: bool, person: Insured) -> Iterator[Figure]:
    distinct, size = (QUICK, QUICK) if quick else (DISTINCT, BATCH)
    asked = [person.asked_anew().request for _ in range(distinct)]
    proofs = [eligibility.prove(request, person.shown, secrets.token_bytes) for request in asked]
    requests, answers = asked * (size // distinct), proofs * (size // distinct)
    yield from _beside_floor(
        "eligibility_prove_ms",
        "eligibility_prove_floor_ratio",
        lambda group: eligibility.prove(asked[0], person.shown, secrets.token_bytes, group),
        quick,
    )
    yield next(
        _beside_floor("eligibility_verify_ms", "", lambda group: eligibility.verify(proofs[0], asked[0], group), quick)
    )
    yield from _beside_floor(
        "eligibility_batch_verify_ms",
        "eligibility_batch_floor_ratio",
        lambda group: verify_batch(requests, answers, group),
        quick,
        size,
    )
    yield Figure("eligibility_bytes", len(canonical.encode(proofs[0])), "bytes")


def _settlement(quick: bool, person: Insured) -> Iterator[Figure]:
    distinct, size = (QUICK, QUICK) if quick else (DISTINCT, BATCH)
    asked = [person.asked_anew().claim for _ in range(distinct)]
    proofs = [settlement.prove(claim, person.holdings, derive, secrets.token_bytes)[0] for claim in asked]
    claims, settlements = asked * (size // distinct), proofs * (size // distinct)
    proving = list(
        _beside_floor(
            "settlement_prove_ms",
            "prove_floor_ratio",
            lambda group: settlement.prove(asked[0], person.holdings, derive, secrets.token_bytes, group),
            quick,
        )
    )
    yield from proving
    yield next(
        _beside_floor("settlement_verify_ms", "", lambda group: settlement.verify(proofs[0], asked[0], group), quick)
    )
    verifying = list(
        _beside_floor(
            "settlement_batch_verify_ms",
            "batch_floor_ratio",
            lambda group: verify_batch(claims, settlements, group),
            quick,
            size,
        )
    )
    yield from verifying
    yield Figure("settlement_prove_and_share_ms", proving[0].value + verifying[0].value, "ms")
    yield Figure("settlement_bytes", len(canonical.encode(proofs[0])), "bytes")
    reference = backend("reference")
    settlement.verify(proofs[0], asked[0], reference)  # its generators are made once
    began = perf_counter()
    settlement.verify(proofs[0], asked[0], reference)
    yield Figure("settlement_verify_py_ecc_ms", (perf_counter() - began) * 1e3, "ms", None, None, 0.0, 1)


# ------------------------------------------------------------------------------------------------ anoncreds


class _Anoncreds:
    """The peer's process: one command a line."""

    def __init__(self, python: Path) -> None:
        if not python.exists():
            raise CannotRun("anoncreds has an environment of its own: `make peers` makes it")
        self._process = subprocess.Popen(
            [python, PEER_PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, command: str) -> str:
        """Its answer. Raises CannotRun if it is gone."""
        into, out = self._process.stdin, self._process.stdout
        assert into is not None and out is not None
        into.write(command + "\n")
        into.flush()
        answer = out.readline().strip()
        if not answer or answer == "refused":
            raise CannotRun("the anoncreds process gave no answer: run it by hand to see why")
        return answer

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait(timeout=20)


def _beside_anoncreds(quick: bool, person: Insured) -> Iterator[Figure]:
    """Times faster and smaller than anoncreds, which has no batch: there its own verification stands for it."""
    size = QUICK if quick else BATCH
    proof = eligibility.prove(person.request, person.shown, secrets.token_bytes)
    requests, answers = [person.request] * size, [proof] * size
    theirs = _Anoncreds(PEER)
    try:
        name = f"anoncreds {theirs.ask('version')}"

        def ratio(figure: str, ours: Callable[[], object], command: str, count: int = 1) -> Figure:
            # one call of the peer's beside `count` of ours
            found = compare(figure, "ms", name, ours, lambda: theirs.ask(command), quick)
            assert found.ratio is not None
            each = found.ratio / count
            return Figure(figure, 1 / each, FOLD, name, each, found.spread, found.rounds)

        yield ratio(
            "anoncreds_prove_ratio",
            lambda: eligibility.prove(person.request, person.shown, secrets.token_bytes),
            "prove",
        )
        yield ratio("anoncreds_verify_ratio", lambda: eligibility.verify(proof, person.request), "verify")
        yield ratio("anoncreds_batch_ratio", lambda: verify_batch(requests, answers), "verify", size)
        size_ratio = len(canonical.encode(proof)) / int(theirs.ask("size"))
        yield Figure("anoncreds_size_ratio", 1 / size_ratio, FOLD, name, size_ratio)
    finally:
        theirs.close()
