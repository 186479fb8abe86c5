"""A golden run of encrypted scoring, and a second implementation of it that knows nothing of phe.

``tests/vectors/scoring/run.json`` holds primes, seeds, weights and rows, and what must come out: the
model's digest, a hash of the answers, and every masked value. Change the code on purpose and the
vector has to be made anew; change it by accident and this says so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpc.scoring import (
    Feature,
    PaillierSecret,
    UseBook,
    build_model,
    evaluate,
    integer_features,
    model_digest,
    read_flags,
    review,
)
from wire import canonical

VECTOR = Path(__file__).parent.parent / "vectors" / "scoring" / "run.json"


@pytest.fixture(scope="module")
def vector() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(VECTOR.read_text(encoding="utf-8"))
    return loaded


def stream(seed: str) -> Callable[[int], bytes]:
    """Call number i of length k gives SHAKE-256("seed/i")[:k]."""
    counter = 0

    def rand(length: int) -> bytes:
        nonlocal counter
        counter += 1
        return hashlib.shake_256(f"{seed}/{counter}".encode()).digest(length)

    return rand


def test_the_golden_run(vector: dict[str, Any]) -> None:
    secret = PaillierSecret(bytes.fromhex(vector["p"]), bytes.fromhex(vector["q"]))
    features = tuple(Feature(*one) for one in vector["features"])
    model, opening = build_model(
        secret, vector["model"], features, vector["weights"], *vector["range"], vector["limit"], stream("bureau")
    )
    assert review(model, opening).digest.hex() == vector["digest"]
    rows = integer_features(features, vector["rows"])
    session = bytes.fromhex(vector["session"])
    records = [(f"row-{number}", row) for number, row in enumerate(rows)]
    done = evaluate(model, model_digest(model), session, records, UseBook(), stream("hospital"))
    assert hashlib.sha256(canonical.encode(done.answers)).hexdigest() == vector["answers"]
    flags = {flag.handle: flag.reached for flag in read_flags(secret, model, session, "hospital-1", done.answers)}
    found = {record: flags[handle] for handle, record in done.records}

    # the second implementation: textbook Paillier on integers
    p, q = (int(vector[name], 16) for name in ("p", "q"))
    n, order = p * q, (p - 1) * (q - 1)
    for weight, r, ciphertext in zip(vector["weights"], opening.randomness, model.ciphertexts, strict=True):
        expected = pow(n + 1, weight % n, n * n) * pow(int.from_bytes(r, "big"), n, n * n) % (n * n)
        assert int.from_bytes(ciphertext, "big") == expected
    for handle, record in done.records:
        answer = next(one.ciphertext for one in done.answers.answers if one.handle == handle)
        # L(c^order mod n^2) / order mod n, with L(x) = (x - 1) / n
        value = (pow(int.from_bytes(answer, "big"), order, n * n) - 1) // n * pow(order, -1, n) % n
        value = value - n if value > n // 2 else value
        number = int(record.removeprefix("row-"))
        assert value == int(vector["masked"][number])
        distance = sum(w * x for w, x in zip(vector["weights"], rows[number], strict=True)) - vector["limit"]
        assert found[record] == (value >= 0) == (distance >= 0) == vector["flags"][number]
