"""Pages of the audit trail: each use with its outcome, however far away that is, and no more read than that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from medveil.service.api import audit_routes
from medveil.service.api.audit_routes import uses
from privacy.audit import AuditTrail, Entry, Use

PROOF = Use("insurer", "bills", "proof", "ELIGVER", "proofs", b"", True, "granted")
QUERY = Use("researcher", "stays", "query", "HMB", "study", bytes(32), True, "granted")
ROUNDS = 50


@pytest.fixture
def trail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AuditTrail]:
    """One use that nothing ends, one that ends last, and many in between."""
    monkeypatch.setattr(audit_routes, "_CHUNK", 20)
    with AuditTrail(tmp_path / "audit.sqlite", "hospital-1") as made:
        made.intent(PROOF)
        query = made.intent(QUERY)
        for _ in range(ROUNDS):
            made.outcome(made.intent(PROOF), "released")
        made.outcome(query, "aborted")
        yield made


def test_a_page_reads_no_further_than_its_last_use(trail: AuditTrail, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that a killed process left open had every page with it read the whole trail."""
    read: list[int] = []
    entries = trail.entries

    def counted(first: int = 1, last: int = 2**62) -> tuple[Entry, ...]:
        found = entries(first, last)
        read.append(len(found))
        return found

    monkeypatch.setattr(trail, "entries", counted)
    page = uses(trail, 1, 4)
    assert [(one.intent, one.outcome) for one in page] == [(1, ""), (2, "aborted"), (3, "released"), (5, "released")]
    assert page[0].ended is None and page[1].ended is not None and page[1].ended >= page[1].began
    assert sum(read) <= 20 < trail.last
    assert [one.intent for one in uses(trail, page[-1].intent + 1, 2)] == [7, 9]


def test_all_of_one_kind_are_found(trail: AuditTrail) -> None:
    assert [(one.intent, one.outcome) for one in uses(trail, 1, 100, "query")] == [(2, "aborted")]
    every = uses(trail, 1, 1000)
    assert len(every) == ROUNDS + 2 and sum(not one.outcome for one in every) == 1
