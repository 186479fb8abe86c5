"""Encrypted scoring beside `phe` used directly, on the same key, weights, features and mask sizes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from functools import reduce
from operator import add

import phe

from benchmarks.machine import peer
from benchmarks.measure import Effort, Figure, beside, compare, effort, in_turn
from mpc import scoring
from wire import canonical

FEATURES = (
    scoring.Feature("visits", 0, 60, 1, 0),
    scoring.Feature("chronic", 0, 60, 10, 10),
    scoring.Feature("income", 0, 30_000, 1, 9_000),
    scoring.Feature("age", 0, 120, 1, 40),
    scoring.Feature("poor", 0, 1, 1, 0),
    scoring.Feature("change", -50, 50, 1, 0),
)
WEIGHTS = (40, -7, 1, -3, -20, 5)
LIMIT = 9000
SESSION = bytes(16)


def run(quick: bool) -> Iterator[Figure]:
    """Six features, key of 2048 bits; 300 records, or 10 with --quick."""
    secret = scoring.generate_key()
    model, opening = scoring.build_model(secret, "bench", FEATURES, WEIGHTS, -50, 50, LIMIT, secrets.token_bytes)
    digest = scoring.model_digest(model)
    bounds = scoring.check_model(model)
    n = int.from_bytes(model.key, "big")
    public = phe.PaillierPublicKey(n)
    private = phe.PaillierPrivateKey(public, int.from_bytes(secret.p, "big"), int.from_bytes(secret.q, "big"))
    weights = [phe.EncryptedNumber(public, int.from_bytes(one, "big")) for one in model.ciphertexts]

    count = 10 if quick else scoring.RECORDS
    rows = [tuple(one.low + secrets.randbelow(one.high - one.low + 1) for one in FEATURES) for _ in range(count)]
    records = [(f"row-{number}", row) for number, row in enumerate(scoring.integer_features(FEATURES, rows))]

    def evaluate() -> scoring.Evaluation:
        return scoring.evaluate(model, digest, SESSION, records, scoring.UseBook(), secrets.token_bytes)

    def bare_evaluate() -> list[int]:
        answers = []
        for _, row in records:
            bits = bounds.mask_low + secrets.randbelow(bounds.mask_high - bounds.mask_low)
            a = (1 << bits) + secrets.randbits(bits)
            score = reduce(add, (weight * value for weight, value in zip(weights, row, strict=True))) + -LIMIT
            answers.append((score * a + secrets.randbelow(a)).ciphertext())
        return answers

    bare = peer("phe")
    few = effort(quick, Effort(3, 0.0))
    rounds = in_turn(lambda _: evaluate(), lambda _: bare_evaluate(), lambda: None, few)
    yield beside("evaluate", "records/s", bare, rounds, count)

    done = evaluate().answers
    theirs = [phe.EncryptedNumber(public, one) for one in bare_evaluate()]

    def read() -> None:
        scoring.read_flags(secret, model, SESSION, "hospital-1", done)

    def bare_read() -> None:
        for one in theirs:
            private.decrypt(one)

    yield beside(
        "read-flags", "records/s", bare, in_turn(lambda _: read(), lambda _: bare_read(), lambda: None, few), count
    )

    randomness = [int.from_bytes(r, "big") for r in opening.randomness]

    def bare_review() -> None:
        for weight, r in zip(WEIGHTS, randomness, strict=True):
            public.raw_encrypt(weight % n, r_value=r)

    yield compare("review", "ms", bare, lambda: scoring.review(model, opening), bare_review, quick)
    yield Figure("model", len(canonical.encode(model)), "bytes")
    yield Figure("answer", len(canonical.encode(done)) / count, "bytes")
