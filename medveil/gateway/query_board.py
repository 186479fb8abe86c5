"""What the ledger says of a query: the board that every party of a secure sum reads for itself.

Read from final state only: what k cosigners stand behind, replayed at home.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from decimal import Decimal

from ledger.contracts import datasets, queries
from medveil.gateway.ledger_account import LedgerState
from mpc.history import NearSums
from mpc.query import GATE, SUMS, Query, check_terms
from mpc.release import Board, PhaseRecord
from mpc.sum_messages import Announcement, Contribution, Opened, Parties, Survivors
from wire.errors import Refused

OPEN = ("proposed", "reserved")
"""A query in these states has opened nothing: it can be closed, and costs nothing then."""


def read_query(state: LedgerState, handle: bytes) -> queries.QueryState | None:
    """The query under `handle`, if there is one."""
    return state.get(queries.query_key(handle), queries.QueryState)


def reserved(state: LedgerState, handle: bytes) -> bool | None:
    """True once the budget is reserved, whatever came after; else None."""
    found = read_query(state, handle)
    return True if found is not None and found.status in ("reserved", "spent", "released") else None


def read_phase(state: LedgerState, handle: bytes, phase: int) -> queries.PhaseState | None:
    """A phase of it, once a site has announced."""
    return state.get(queries.phase_key(handle, phase), queries.PhaseState)


def has_announced(state: LedgerState, handle: bytes, phase: int, site: str) -> bool:
    """Whether `site` has announced its contribution to a phase."""
    found = read_phase(state, handle, phase)
    return found is not None and any(entry.site == site for entry in found.announced)


def has_contributed(state: LedgerState, handle: bytes, phase: int, site: str) -> bool:
    """Whether `site` has contributed to a phase."""
    found = read_phase(state, handle, phase)
    return found is not None and any(entry.site == site for entry in found.contributed)


def left_out(state: LedgerState, handle: bytes, phase: int, site: str) -> bool:
    """Whether a phase goes on without `site`: its parties or its survivors were fixed, and it is not among them."""
    found = read_phase(state, handle, phase)
    return found is not None and any(listed and site not in listed for listed in (found.parties, found.survivors))


def read_parties(state: LedgerState, handle: bytes, phase: int) -> Parties | None:
    """The parties of a phase, once they are fixed."""
    found = read_phase(state, handle, phase)
    return None if found is None or not found.parties else Parties(handle, phase, found.parties, found.keys)


def read_announcements(
    state: LedgerState, handle: bytes, phase: int, sites: Collection[str]
) -> tuple[Announcement, ...]:
    """What these of a phase's sites have announced by now."""
    found = read_phase(state, handle, phase)
    posted = () if found is None else found.announced
    return tuple(Announcement(handle, phase, one.site, one.digest) for one in posted if one.site in sites)


def read_contributions(
    state: LedgerState, handle: bytes, phase: int, sites: Collection[str]
) -> tuple[Contribution, ...]:
    """What these of a phase's sites have contributed by now."""
    found = read_phase(state, handle, phase)
    posted = () if found is None else found.contributed
    return tuple(Contribution(handle, phase, one.site, one.point, one.salt) for one in posted if one.site in sites)


def read_survivors(state: LedgerState, handle: bytes, phase: int) -> Survivors | None:
    """The survivors of a phase with their contributions in the same order, once they are fixed."""
    found = read_phase(state, handle, phase)
    if found is None or not found.survivors:
        return None
    posted = {one.site: one for one in read_contributions(state, handle, phase, found.survivors)}
    return Survivors(handle, phase, found.survivors, tuple(posted[site] for site in found.survivors))


def is_summed(state: LedgerState, handle: bytes, site: str) -> bool:
    """Whether `site` is among the survivors of one of a query's phases."""
    phases = (read_phase(state, handle, phase) for phase in (GATE, SUMS))
    return any(found is not None and site in found.survivors for found in phases)


def read_near(state: LedgerState, handle: bytes, phase: int) -> tuple[NearSums, ...]:
    """The earlier sums that are near a phase's survivors, as the ledger entered them with these."""
    found = read_phase(state, handle, phase)
    return () if found is None else tuple(NearSums(one.query, one.phase, one.sums, one.sites) for one in found.near)


def read_opened(state: LedgerState, handle: bytes, phase: int) -> Opened | None:
    """The released sums of a phase, once they are there."""
    found = state.get(queries.release_key(handle, phase), queries.ReleaseState)
    return None if found is None else Opened(found.totals, found.blinding)


def read_board(state: LedgerState, handle: bytes) -> Board:
    """All that the ledger says of a released query: what `mpc.release` finishes and verifies from.

    Raises Refused if the query or one of its phases is not there.
    """
    found = queries.query(state.view(), handle)
    phases = []
    for phase in (GATE, SUMS):
        parties, survivors = read_parties(state, handle, phase), read_survivors(state, handle, phase)
        opened = read_opened(state, handle, phase)
        if parties is None or survivors is None or opened is None:
            raise Refused("gateway.not_released", query=handle.hex(), phase=phase)
        phases.append(PhaseRecord(phase, parties, survivors, opened, read_near(state, handle, phase)))
    return Board(
        query=handle,
        query_hash=found.salted_hash,
        population=found.population,
        roster=found.roster,
        approvals=found.approvals,
        rho_nano=found.rho_nano,
        phases=tuple(phases),
        budget_before_nano=found.budget_before,
        budget_after_nano=found.budget_before - found.rho_nano,
    )


def check_declared(query: Query, state: LedgerState, person: str) -> None:
    """Check a query against what the ledger declares of its population and datasets. Raises Refused.

    Bounds may be narrower than declared, never wider, and in an exact query not narrower either; groups are
    declared values; unit, rows per person, spread and colluders promise no less than the population's, which is
    public if the query is exact; max_rows covers every dataset's row class. person: the column that names the
    person at the checking site, "" where there is none; an outsider, who cannot know it, gives the query's own.
    """
    population = datasets.population(state.view(), query.population)
    check_terms(
        query,
        unit=population.unit,
        rows_per_person=population.rows_per_person,
        colluders=population.colluders,
        spread=population.spread,
        public=population.public,
        person=person,
    )
    for site, name in zip(query.roster, query.datasets, strict=True):
        dataset = state.get(datasets.dataset_key(name), datasets.DatasetState)
        if dataset is None or (dataset.owner, dataset.population) != (site, query.population):
            raise Refused("gateway.not_its_dataset", dataset=name, organisation=site)
        if query.max_rows < dataset.row_class:
            raise Refused("gateway.too_few_rows", dataset=name, rows=query.max_rows)
        _check_columns(query, name, dataset.columns)
    check_exact_bounds(query, state)


def check_exact_bounds(query: Query, state: LedgerState) -> None:
    """Check that an exact query clamps to the bounds that its tables have in common. Raises Refused naming the column.

    Values clamped to a step between two of them add up to how many lie beyond it: a histogram bin, exact and
    however small.
    """
    if not query.exact:
        return
    found = (state.get(datasets.dataset_key(name), datasets.DatasetState) for name in query.datasets)
    tables = [table for table in found if table is not None]
    for measure in query.measures:
        columns = [column for table in tables for column in table.columns if column.name == measure.column]
        low, high = max(column.low for column in columns), min(column.high for column in columns)
        if (measure.low, measure.high) != (low, high):
            raise Refused(
                "mpc.exact_bounds",
                column=measure.column,
                low=f"{Decimal(low) / measure.scale:f}",
                high=f"{Decimal(high) / measure.scale:f}",
            )


def _check_columns(query: Query, dataset: str, columns: Sequence[datasets.Column]) -> None:
    declared = {column.name: column for column in columns}
    for measure in query.measures:
        column = declared.get(measure.column)
        if (
            column is None
            or column.kind != "number"
            or column.scale != measure.scale
            or not column.low <= measure.low < measure.high <= column.high
        ):
            raise Refused("gateway.not_declared", dataset=dataset, column=measure.column)
    for group in query.groups:
        column = declared.get(group.name)
        if column is None or column.kind != "category" or not set(group.values) <= set(column.values):
            raise Refused("gateway.not_declared", dataset=dataset, column=group.name)
