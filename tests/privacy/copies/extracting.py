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
from privacy.copies.extract_file import ExtractFacts
from privacy.copies.extracts import Cut, ExtractWanted, StagedExtract, stage_extract
from privacy.decide import AnchoredGrant, Decision, GrantState, UseRequest, decide
from privacy.grants.levels import ColumnFacts, DatasetFacts
from privacy.grants.terms import CheckedGrant, GrantTerms, check_grant, sign_grant
from privacy.masking.disclosure_risk import RiskColumns, RiskPolicy, RiskReport, measure
from wire.sealing import SealKey
from wire.signing import Signer

DAY = 45_000
"""A civil day in 2023."""
KINDS = {"visits": "number", "cost": "number", "health": "category", "seen": "category", "plan": "category"}


def extract_terms(terms: GrantTerms, **changes: Any) -> GrantTerms:
    """The shared grant, for extracts of four columns where visits >= 0."""
    fields = {"uses": ("extract",), "fields": ("visits", "cost", "health", "seen"), "min_group": 1, **changes}
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


def report(rows: int, *, least: int = 1, offending: int = 0) -> RiskReport:
    """The risk report of so many rows that show nothing others know, each of its own person; or one that is wrong."""
    policy = RiskPolicy(persons=least, diversity=1)
    return RiskReport(policy, RiskColumns(()), rows, min(rows, 1), offending, offending, rows, 0, 0, 0, 0)


UNMEASURED = report(0, least=7)
"""Stands for the report that `Issuer.stage` measures."""


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

    def measured(self, table: pa.Table, wanted: ExtractWanted, persons_of: Any = None, least: int = 1) -> ExtractWanted:
        """The same with the report of the rows that would leave now, every column of them known to others."""
        decision = self.deciding(wanted)()
        out = frozenset() if persons_of is None else persons_of(decision.excluded)
        beside = wanted.person_column
        cut = Cut(wanted.request, wanted.kinds, decision, wanted.mask_key, wanted.on, beside, out)
        rows = cut.chosen(table)
        masked = cut.masked(rows)
        columns, policy = RiskColumns(tuple(masked.column_names)), RiskPolicy(persons=least, diversity=1)
        found = measure(masked, columns, policy, rows[beside] if beside else None)
        return msgspec.structs.replace(wanted, risk=found.report)

    def stage(self, path: Path, table: Any, wanted: ExtractWanted, **options: Any) -> StagedExtract:
        if wanted.risk == UNMEASURED and wanted.person_column:
            wanted = self.measured(table, wanted, options.get("persons_of"))
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


PLAIN = DatasetFacts("claims-1", tuple(ColumnFacts(name, 3) for name in KINDS))
"""A dataset of which nothing is masked."""


def anchored(grant: CheckedGrant) -> GrantState:
    """A ledger on which this grant alone stands, and a dataset of which nothing is masked."""
    terms = grant.terms
    commitment, period = grant.commitment, (terms.not_before, terms.expires)
    return GrantState(
        (AnchoredGrant(terms.grant, terms.issuer, commitment, *period, terms.epoch, False),), datasets=(PLAIN,)
    )


@contextmanager
def issuer_in(folder: Path, terms: GrantTerms) -> Iterator[Issuer]:
    """An issuer whose grant of these terms stands on the ledger, its trail in `folder`."""
    signer = Signer(b"s" * 32)
    grant = check_grant(sign_grant(terms, signer, b"k" * 32), signer.key)
    with AuditTrail(folder / "audit.sqlite", terms.issuer) as trail:
        yield Issuer(trail, signer, grant, anchored(grant), (terms.not_before + terms.expires) // 2)
