"""The one decision with ten thousand grants in the book: allowed, denied, and after a revocation."""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterator
from statistics import median
from time import perf_counter

from benchmarks.measure import Figure, spread
from privacy.decide import AnchoredGrant, Decision, GrantBook, GrantState, StateBook, UseRequest, decide
from privacy.grants.levels import ColumnFacts, DatasetFacts
from privacy.grants.opt_outs import OptOutState
from privacy.grants.terms import DAY, CheckedGrant, grant_commitment, plain_terms
from privacy.predicate import And, Compare

GRANTS = 10_000
RECIPIENTS, DATASETS = 20, 50
FIELDS = tuple(f"field_{number}" for number in range(20))
NOW = 1_790_000_000_000
PURPOSES = ("HMB", "FRAUD", "ELIGVER", "HQUALIMP", "PUBHLTH")


def grant(number: int, salt_key: bytes) -> tuple[CheckedGrant, AnchoredGrant]:
    """One grant of nobody's: recipient, dataset and purpose by its number, ten of each recipient and dataset."""
    terms = plain_terms(
        f"grant-{number}",
        "hospital-1",
        f"recipient-{number % RECIPIENTS}",
        f"dataset-{number // RECIPIENTS % DATASETS}",
        FIELDS,
        purposes=(PURPOSES[number // (RECIPIENTS * DATASETS) % len(PURPOSES)],),
        uses=("query", "extract"),
        legal_basis="consent",
        not_before=NOW - DAY,
        expires=NOW + 90 * DAY,
        recipient_contact="data office",
        predicate=And((Compare("field_0", "ge", 18), Compare("field_1", "eq", "yes"))),
        conditions=("NCU",),
        consent_ref="consents/1",
        guardian_ref="guardians/1",
        pia_ref="pia/1",
        keep_days=90,
        review=NOW + 30 * DAY,
        delete_by=NOW + 180 * DAY,
    )
    commitment = grant_commitment(terms, salt_key)
    anchor = AnchoredGrant(terms.grant, terms.issuer, commitment, terms.not_before, terms.expires, 0, revoked=False)
    return CheckedGrant(terms, commitment), anchor


def decisions(quick: bool) -> Iterator[Figure]:
    """decision_us: an allowed extract of five fields of twenty, all grants and ledger entries in the books.

    Beside it a denial (the purpose is not granted) and what it takes to make the book anew.
    """
    made = [grant(number, secrets.token_bytes(32)) for number in range(GRANTS)]
    began = perf_counter()
    book = GrantBook([checked for checked, _ in made])
    building = perf_counter() - began
    columns = tuple(ColumnFacts(name, 3 + number % 2) for number, name in enumerate(FIELDS))
    facts = tuple(DatasetFacts(f"dataset-{number}", columns, minors=True) for number in range(DATASETS))
    state = GrantState(tuple(anchor for _, anchor in made), (), facts, OptOutState(("all", "use:extract")))
    index = StateBook(state)
    seeded = random.Random(7)
    rounds, calls = (5, 200) if quick else (21, 2000)

    def asked(purpose: str) -> list[UseRequest]:
        return [
            UseRequest(
                holder="hospital-1",
                recipient=f"recipient-{seeded.randrange(RECIPIENTS)}",
                dataset=f"dataset-{seeded.randrange(DATASETS)}",
                fields=tuple(seeded.sample(FIELDS, 5)),
                kind="extract",
                purpose=purpose,
            )
            for _ in range(calls)
        ]

    for name, purpose, rule in (("decision_us", "DS", "granted"), ("denial_us", "HMARKT", "purpose")):
        taken = []
        for _ in range(rounds):
            requests = asked(purpose)
            said: list[Decision] = []
            began = perf_counter()
            for request in requests:
                said.append(decide(request, book, index, NOW))
            taken.append((perf_counter() - began) / calls * 1e6)
            if {decision.rule for decision in said} != {rule}:
                raise AssertionError("a decision is not what its grants say")
        yield Figure(name, median(taken), "us", spread=spread(taken), rounds=rounds)
    yield Figure("grant_book_ms", building * 1e3, "ms")
