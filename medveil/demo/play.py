"""What the steps of a run share: the desks, the narrator, the data, the clock."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from connectors.layout import Layout
from connectors.quality import Prepared
from medveil.demo.desk import Desk
from medveil.demo.narrator import Narrator
from privacy.local import LocalPlan
from wire.canonical import Wire, encode
from wire.checkpoint import TrustFile
from wire.evidence import SUFFIX, write_file

BUREAU = "bureau"
INSURER = "insurer-1"
RESEARCHER = "researcher-1"
REGULATOR = "regulator"

CHAIN = "medveil-demo"
PROOFS = "proofs"
"""Folder of what was proved over credentials, with keys, sets and question."""
RECEIPTS = "receipts"
"""Folder of what a patient is given: private."""
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
    """A hospital's table in the run. prepared: as its vault keeps it (for the plain answers, in the demo only)."""

    name: str
    source: str
    dataset: str
    prepared: Prepared

    def record_ids(self) -> list[str]:
        """What the hospital's gateway calls each record, in order: see `medveil.gateway.tables`."""
        own = self.prepared.record_ids
        if own is not None:
            return [f"record/{one}" for one in own]
        return [f"{self.dataset}/{number}" for number in range(1, self.prepared.table.num_rows + 1)]


@dataclass
class Play:
    """A run under way.

    desks: of every organisation; trust: the consortium's founding; carried: messages, and their bytes, between the
    organisations so far, where one process sees them all; homes: the folder of the organisations' folders; data: the
    folder of the hospitals' folders of tables to load; folder: where it builds; layout: of the data; sites: by
    hospital, in order.
    """

    desks: Mapping[str, Desk]
    trust: TrustFile
    carried: Callable[[], tuple[int, int]] | None
    narrator: Narrator
    folder: Path
    homes: Path
    data: Path
    layout: Layout
    sites: dict[str, Site] = field(default_factory=dict)

    @property
    def hospitals(self) -> list[str]:
        """The hospitals, in founding order."""
        return [member.organisation for member in self.trust.members if "hospital" in member.roles]

    def show(self, name: str, evidence: Wire) -> None:
        """Write what everybody may see into ``proofs/``, for `medveil zkp`."""
        place = self.folder / PROOFS
        place.mkdir(exist_ok=True)
        write_file(place / (name + SUFFIX), encode(evidence))

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
