"""What the tests of extracts share: an issuer with a grant and a trail, a recipient, one made extract."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from privacy.audit import AuditTrail
from privacy.decide import AnchoredGrant, Decision, GrantState, UseRequest, decide
from privacy.disclosure_risk import RiskColumns, RiskPolicy, RiskReport
from privacy.extract_file import ExtractFacts
from privacy.extracts import ExtractWanted, StagedExtract, stage_extract
from privacy.grants import CheckedGrant, GrantTerms, check_grant, sign_grant
from wire.sealing import SealKey
from wire.signing import Signer

DAY = 45_000
"""A civil day in 2023."""
KINDS = {"visits": "number", "cost": "number", "health": "category", "seen": "category", "plan": "category"}


def extract_terms(terms: GrantTerms, **changes: Any) -> GrantTerms:
    """The shared grant, for extracts of four columns where visits >= 0."""
    fields = {"uses": ("extract",), "fields": ("visits", "cost", "health", "seen"), "min_group": 2, **changes}
    return msgspec.structs.replace(terms, **fields)


def extract_request(terms: GrantTerms, **changes: Any) -> UseRequest:
    """A use of three of them, in another order."""
    given: dict[str, Any] = {
        "holder": terms.issuer,
        "recipient": terms.recipient,
        "dataset": terms.dataset,
        "fields": ("health", "cost", "visits"),
        "kind": "extract",
        "purpose": "HRESCH",
    }
    return UseRequest(**(given | changes))


def report(rows: int, *, persons: int = 2, offending: int = 0) -> RiskReport:
    """A risk report of so many rows, within its policy unless classes offend."""
    policy = RiskPolicy(persons=persons, diversity=1)
    return RiskReport(policy, RiskColumns(("health",)), rows, 1, offending, offending, persons, 0, 0, 0, 0)


@dataclass
class Issuer:
    """Somebody who makes extracts. state may be changed between two steps."""

    trail: AuditTrail
    signer: Signer
    grant: CheckedGrant
    state: GrantState
    now: int

    def wanted(self, key: SealKey, rows: int = 4, person_column: str = "", **changes: Any) -> ExtractWanted:
        request = extract_request(self.grant.terms, **changes)
        return ExtractWanted(
            secrets.token_bytes(16), self.grant, request, KINDS, key, report(rows), b"m" * 32, DAY, person_column
        )

    def deciding(self, wanted: ExtractWanted) -> Callable[[], Decision]:
        return lambda: decide(wanted.request, [self.grant], self.state, self.now)

    def stage(self, path: Path, table: Any, wanted: ExtractWanted, **options: Any) -> StagedExtract:
        return stage_extract(path, table, wanted, self.deciding(wanted), self.trail, self.now, **options)

    def anchor(self) -> None:
        """What the gateway does: the batches go to the ledger."""
        while (batch := self.trail.batch()) is not None:
            self.trail.anchored(batch)

    def release(self, staged: StagedExtract, wanted: ExtractWanted, **options: Any) -> ExtractFacts:
        return staged.release(self.trail, self.signer, self.deciding(wanted), **options)

    def make(self, path: Path, table: pa.Table, wanted: ExtractWanted, **options: Any) -> ExtractFacts:
        staged = self.stage(path, table, wanted, **options)
        self.anchor()
        return self.release(staged, wanted, **options)

    def outcomes(self) -> list[str]:
        return [entry.outcome for entry in self.trail.entries()]


def anchored(grant: CheckedGrant) -> GrantState:
    """A ledger on which this grant alone stands."""
    terms = grant.terms
    commitment, period = grant.commitment, (terms.not_before, terms.expires)
    return GrantState((AnchoredGrant(terms.grant, terms.issuer, commitment, *period, terms.epoch, False),))


@contextmanager
def issuer_in(folder: Path, terms: GrantTerms) -> Iterator[Issuer]:
    """An issuer whose grant of these terms stands on the ledger, its trail in `folder`."""
    signer = Signer(b"s" * 32)
    grant = check_grant(sign_grant(terms, signer, b"k" * 32), signer.key)
    with AuditTrail(folder / "audit.sqlite", terms.issuer) as trail:
        yield Issuer(trail, signer, grant, anchored(grant), (terms.not_before + terms.expires) // 2)
