"""Four hospitals with an in-memory board: what the tests of secure sums and releases play with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from mpc import cells, release, sum_coordinator
from mpc import secure_aggregation as sites
from mpc import sum_messages as sums
from mpc.budget import Scale, split
from mpc.query import Measure, Query, check_query, local_plans, salted_hash
from privacy.local import GroupColumn, LocalPlan
from wire.signing import Signer, VerifyKey

SITES = ("hospital-1", "hospital-2", "hospital-3", "hospital-4")
HANDLE = bytes(range(16))
SALT = bytes(range(32))


def stream(seed: str) -> Callable[[int], bytes]:
    """A replayable source of bytes."""
    counter = 0

    def rand(size: int) -> bytes:
        nonlocal counter
        counter += 1
        return hashlib.shake_256(f"{seed}/{counter}".encode()).digest(size)

    return rand


def example_query(**changes: Any) -> Query:
    """Visits (0..30) by health and plan over four hospitals."""
    rho = changes.get("rho_nano", 100_000_000)
    edges = (0, 1, 3, 6, 10, 30)
    base = Query(
        version=1,
        chain="test-chain",
        population="cohort",
        roster=SITES,
        datasets=tuple(f"{site}.visits" for site in SITES),
        measures=(Measure("visits", 0, 30, 1, edges),),
        groups=(
            GroupColumn("health", ("good", "fair", "poor"), other=False),
            GroupColumn("plan", ("yes", "no"), other=False),
        ),
        filter=None,
        purpose="HRESCH",
        unit="row",
        person="",
        rows_per_person=1,
        spread="every-site",
        colluders=1,
        max_rows=8192,
        rho_nano=rho,
        split=split(rho, True),
        delta_exponent=6,
        minimum_group=120,
    )
    return msgspec.structs.replace(base, **changes)


def example_rows(site: int) -> list[tuple[int, int]]:
    """(group index, visits) of one hospital: skewed, of very different group sizes, replayable."""
    sizes = (600, 200, 300, 90, 40, 3)
    source = hashlib.shake_256(b"rows" + bytes([site])).digest(sum(sizes) * 2)
    rows, at = [], 0
    for group, size in enumerate(sizes):
        for _ in range(size):
            rows.append((group, min(source[at] * source[at + 1] // 1500 + group, 30)))
            at += 2
    return rows


Value = int | tuple[int | None, ...]
"""v' of a row: the same in all measures, or one of each measure, None where it is not known."""


def tables_of(query: Query, rows: Sequence[tuple[int, Value]]) -> tuple[pa.Table, ...]:
    """What an exact local engine answers for rows of (group index, v'): a table for each plan."""
    plans = local_plans(query)
    found = []
    for at, plan in enumerate(plans):
        values = [(group, value[at] if isinstance(value, tuple) else value) for group, value in rows]
        found.append(_table(plan, [(group, value) for group, value in values if value is not None]))
    return tuple(found)


def _table(plan: LocalPlan, rows: Sequence[tuple[int, int]]) -> pa.Table:
    columns: dict[str, list[Any]] = {"group": list(plan.group_labels())}
    for name in plan.result_schema().names[1:]:
        columns[name] = [0] * len(columns["group"])
    for group, value in rows:
        columns["count"][group] += 1
        if plan.measure is None:
            continue
        clamped = min(max(value, plan.low), plan.high)
        columns["sum"][group] += clamped - plan.centre
        columns["sum_squares"][group] += (clamped - plan.centre) ** 2
        for i in range(plan.bins):
            last = i == plan.bins - 1 and clamped == plan.edges[-1]
            if plan.edges[i] <= clamped < plan.edges[i + 1] or last:
                columns[f"bin_{i}"][group] += 1
    return pa.table(columns, schema=plan.result_schema())


def no_noise(scale: Scale, count: int) -> tuple[int, ...]:
    """A draw that is always zero: for what must be exact."""
    return (0,) * count


STEPS = ("start", "deal", "mask", "unmask")
"""What a site says, in order; a site is lost before it says it."""


@dataclass
class Run:
    """One phase, played step by step; a test may change what a party is shown in between.

    lost: before which of `STEPS` a site falls silent.
    """

    session: sums.SumSession
    signers: Mapping[str, Signer]
    members: Mapping[str, VerifyKey]
    vectors: Mapping[str, Sequence[int]]
    seed: str = "run"
    lost: Mapping[str, str] = field(default_factory=dict)
    states: dict[str, Any] = field(default_factory=dict)
    coordinator: Any = None
    keys: list[sums.RoundKeys] = field(default_factory=list)
    listed: Sequence[sums.RoundKeys] = ()
    dealt: dict[str, tuple[sums.DealtShare, ...]] = field(default_factory=dict)
    announcements: list[sums.Announcement] = field(default_factory=list)
    parties: Any = None
    handed: dict[str, tuple[sums.DealtShare, ...]] = field(default_factory=dict)
    contributions: list[sums.Contribution] = field(default_factory=list)
    masked: list[sums.Masked] = field(default_factory=list)
    survivors: Any = None
    unmaskings: list[sums.Unmasking] = field(default_factory=list)

    def there(self, step: str) -> list[str]:
        """Who still speaks at a step."""
        at = STEPS.index(step)
        gone = {site for site, before in self.lost.items() if STEPS.index(before) <= at}
        return [site for site in self.session.roster if site not in gone]

    def start(self) -> Run:
        for site in self.there("start"):
            rand = stream(f"{self.seed}/{site}")
            state, keys = sites.start(self.session, site, self.vectors[site], self.signers[site], self.members, rand)
            self.states[site] = state
            self.keys.append(keys)
        self.coordinator = sum_coordinator.begin(self.session, self.members)
        return self

    def deal(self) -> Run:
        self.start()
        for keys in self.keys:
            self.coordinator = self.coordinator.receive(keys)
        self.coordinator, self.listed = self.coordinator.close()
        for site in self.there("deal"):
            self.states[site], self.dealt[site], said = self.states[site].receive(self.listed)
            if said is not None:
                self.announcements.append(said)
        return self

    def mask(self) -> Run:
        self.deal()
        for site, shares in self.dealt.items():
            self.coordinator = self.coordinator.receive(site, shares)
        self.coordinator, self.parties, self.handed = self.coordinator.close()
        for site in self.there("mask"):
            out = self.states[site].receive(self.parties, self.handed[site], self.announced())
            self.states[site], masked, contribution = out
            self.masked.append(masked)
            if contribution is not None:
                self.contributions.append(contribution)
        return self

    def announced(self) -> list[sums.Announcement]:
        """The announcements of the parties, as the board has them."""
        return [one for one in self.announcements if one.site in self.parties.sites]

    def unmask(self) -> Run:
        self.mask()
        for masked in self.masked:
            self.coordinator = self.coordinator.receive(masked)
        self.coordinator, self.survivors = self.coordinator.close(self.contributions)
        for site in self.there("unmask"):
            self.states[site], out = self.states[site].receive(self.survivors)
            self.unmaskings.append(out)
        return self

    def open(self) -> Any:
        self.unmask()
        for unmasking in self.unmaskings:
            self.coordinator = self.coordinator.receive(unmasking)
        return self.coordinator.finish()

    def record(self) -> release.PhaseRecord:
        """The whole phase, as the board has it."""
        opened = self.open()
        return release.PhaseRecord(self.session.phase, self.parties, self.survivors, opened)


@dataclass
class Consortium:
    """The hospitals' envelope keys, and whole runs over them."""

    signers: Mapping[str, Signer]

    @property
    def members(self) -> dict[str, VerifyKey]:
        return {site: signer.key for site, signer in self.signers.items()}

    def run(self, vectors: Mapping[str, Sequence[int]] | None = None, **changes: Any) -> Run:
        """One phase over small vectors, in a session of its own."""
        vectors = vectors or {site: (7 * i, 2**50 + i, 0) for i, site in enumerate(self.signers)}
        roster = tuple(sorted(vectors))
        cells_of_it = len(vectors[roster[0]])
        session = sums.SumSession("test-chain", HANDLE, bytes(32), 1, roster, bytes(32), cells_of_it)
        session = msgspec.structs.replace(session, **changes)
        return Run(session, self.signers, self.members, vectors)

    def answer(
        self,
        query: Query,
        tables: Mapping[str, Sequence[pa.Table]],
        draw: Any = None,
        lost: Mapping[int, Mapping[str, str]] | None = None,
    ) -> release.Board:
        """Both phases of `query` over the sites' exact tables: the board after them. lost: `Run.lost` by phase."""
        check_query(query)
        cells.prove_no_wrap(query)
        options = {} if draw is None else {"draw": draw}
        records: list[release.PhaseRecord] = []
        for phase in (1, 2):
            if phase == 1:
                layout = cells.gate_layout(query)
            else:
                gate = records[0]
                layout = cells.sums_layout(query, cells.passing(query, gate.opened.totals, len(gate.survivors.sites)))
            vectors = {site: cells.contribution(query, layout, tables[site], **options) for site in query.roster}
            session = sums.session_for(query, SALT, HANDLE, layout)
            gone = (lost or {}).get(phase, {})
            records.append(Run(session, self.signers, self.members, vectors, f"phase-{phase}", gone).record())
        return release.Board(
            query=HANDLE,
            query_hash=salted_hash(query, SALT),
            population=query.population,
            roster=query.roster,
            approvals=tuple(reversed(query.roster)),
            rho_nano=query.rho_nano,
            phases=tuple(records),
            budget_before_nano=10**9,
            budget_after_nano=10**9 - query.rho_nano,
        )


@pytest.fixture
def consortium() -> Consortium:
    """Four hospitals."""
    return Consortium({site: Signer(hashlib.sha256(site.encode()).digest()) for site in SITES})


@pytest.fixture
def make_query() -> Callable[..., Query]:
    """`example_query`: a valid query, with fields changed by keyword."""
    return example_query


@pytest.fixture
def make_table() -> Callable[[Query, Sequence[tuple[int, int]]], pa.Table]:
    """`tables_of`: the exact local answer to a query for rows of (group index, value)."""
    return tables_of


@pytest.fixture
def make_rows() -> Callable[[int], list[tuple[int, int]]]:
    """`example_rows`: the rows of hospital number i."""
    return example_rows


@pytest.fixture
def exact() -> Callable[[Scale, int], tuple[int, ...]]:
    """`no_noise`."""
    return no_noise


@pytest.fixture
def replay() -> Callable[[str], Callable[[int], bytes]]:
    """`stream`: replayable bytes by seed."""
    return stream


@pytest.fixture
def salt() -> bytes:
    """The salt of the consortium's queries."""
    return SALT


@pytest.fixture
def rows(make_rows):
    """The rows of each of four sites."""
    return [make_rows(site) for site in range(4)]


@pytest.fixture
def tables(query, make_table, rows):
    """The exact table of each site, for the test file's own `query`."""
    return {site: make_table(query, one) for site, one in zip(query.roster, rows, strict=True)}


@pytest.fixture
def board(consortium, query, tables):
    """What the ledger has when the test file's own `query` was answered."""
    return consortium.answer(query, tables)
