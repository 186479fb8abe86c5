"""The floor of the zkp bench: recorded operations are those that the protocol's page counts, and a replay does them."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

import pytest

from benchmarks.bare_groups import Recorder
from benchmarks.insured import insured
from benchmarks.zkp import derive
from wire.errors import VerificationError
from zkp import pedersen, settlement
from zkp.groups import backend

PAGE = Path(__file__).resolve().parents[2] / "docs" / "protocols" / "settlement.md"


def counted(who: str) -> dict[str, int]:
    """What the page says of prover or verifier."""
    found = re.search(rf"^\* \*{who}\*: (.*?)^\* \*", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None
    return {name: int(count) for count, name in re.findall(r"(\d+) x ([a-z]+(?: of \d+)?)", found[1])}


def test_the_page_counts_what_is_done() -> None:
    person = insured()
    recorder = Recorder()
    message, _ = settlement.prove(person.claim, person.holdings, derive, secrets.token_bytes, recorder.group)
    done = {name: count for name, count in recorder.counts.items() if name != "addition"}
    assert done == counted("Prover")
    recorder = Recorder()
    settlement.verify(message, person.claim, recorder.group)
    assert dict(recorder.counts) == counted("Verifier")
    recorder.replay()


def test_a_recorder_computes_the_same() -> None:
    recorder, plain = Recorder(), backend()
    point = pedersen.commit(5, 7, recorder.group)
    assert plain.encode(point) == recorder.group.encode(point)
    assert plain.equal(point, pedersen.commit(5, 7))
    assert recorder.counts["msm of 2"] == 1
    with pytest.raises(ValueError):
        recorder.group.msm([point], [1, 2])


def test_a_false_proof_is_false_under_a_recorder() -> None:
    person = insured()
    message, _ = settlement.prove(person.claim, person.holdings, derive, secrets.token_bytes)
    other = person.asked_anew().claim
    with pytest.raises(VerificationError):
        settlement.verify(message, other, Recorder().group)
