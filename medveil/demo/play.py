"""What the steps of a run share: the consortium, the narrator, the data, the clock."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from connectors.arrow_engine import ArrowEngine
from connectors.layout import Layout
from connectors.quality import Prepared
from medveil.consortium import LocalConsortium
from medveil.demo.narrator import Narrator
from medveil.gateway.organisation import Organisation
from mpc.scoring import RECORDS
from privacy.local import LocalPlan, RowFilter
from privacy.predicate import to_arrow

BUREAU = "bureau"
INSURER = "insurer-1"
RESEARCHER = "researcher-1"
REGULATOR = "regulator"

CHAIN = "medveil-demo"
ZONE = "Asia/Shanghai"


def now() -> int:
    """The instant, from the machine's clock."""
    return time.time_ns() // 1_000_000


def hospital_name(number: int) -> str:
    """What the demo calls the hospital that holds the table of place `number`, from 1."""
    return f"hospital-{number}"


def dataset_name(layout: Layout, hospital: str) -> str:
    """What the table of a hospital is called on the ledger."""
    return f"{layout.name}-{hospital}"


rand = secrets.token_bytes
"""Where every organisation of the demo takes its randomness."""


@dataclass
class Site:
    """A hospital's data in the run. prepared: what went into its vault (kept for the plain answer, demo only)."""

    organisation: Organisation
    source: str
    dataset: str
    prepared: Prepared

    def engine(self, dataset: str) -> ArrowEngine:
        """The local engine over the decrypted vault copy."""
        return ArrowEngine(self.organisation.vault.read(dataset))

    def records(self, dataset: str, columns: tuple[str, ...], rows: RowFilter) -> list[tuple[str, tuple[Any, ...]]]:
        """The first records of a dataset that `rows` lets pass: number of the row, and its cells in `columns`."""
        table = self.organisation.vault.read(dataset)
        numbers = pa.array([f"row-{number}" for number in range(1, table.num_rows + 1)])
        table = table.append_column("medveil_row", numbers)
        if rows.predicate is not None:
            table = table.filter(to_arrow(rows.predicate))
        table = table.slice(0, RECORDS)
        cells = [table[name].to_pylist() for name in columns]
        return list(zip(table["medveil_row"].to_pylist(), zip(*cells, strict=True), strict=True))


@dataclass
class Play:
    """A run under way. folder: where it builds; layout: of the data; sites: by organisation, in order."""

    consortium: LocalConsortium
    narrator: Narrator
    folder: Path
    layout: Layout
    sites: dict[str, Site] = field(default_factory=dict)

    def pooled(self, plan: LocalPlan) -> pa.Table:
        """Everybody's rows that `plan` counts, in one table: exists in the demo only, for the plain answer."""
        return pa.concat_tables([counted_rows(site.prepared.table, plan) for site in self.sites.values()])


def counted_rows(table: pa.Table, plan: LocalPlan) -> pa.Table:
    """The rows of one site with a known measure; where the plan names the person, the first few of each."""
    table = table.filter(pc.is_valid(table[plan.measure]))
    if not plan.person:
        return table
    seen: Counter[str | None] = Counter()
    kept = []
    for person in table[plan.person].to_pylist():
        seen[person] += 1
        kept.append(seen[person] <= plan.rows_per_person)
    return table.filter(pa.array(kept, pa.bool_()))
