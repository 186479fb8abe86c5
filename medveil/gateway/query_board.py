"""What the ledger says of a query: the board that every party of a secure sum reads for itself.

Read from final state only: what k cosigners stand behind, replayed at home.
"""

from __future__ import annotations

from collections.abc import Sequence

from ledger.contracts import datasets, queries
from medveil.gateway.ledger_account import LedgerState
from mpc.query import COUNTS, SUMS, Query, check_terms
from mpc.release import Board, PhaseRecord
from mpc.secure_aggregation import Announcement, Contribution, Opened, Survivors
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


def read_announcements(state: LedgerState, handle: bytes, phase: int, needed: int) -> tuple[Announcement, ...] | None:
    """The announcements of a phase once there are `needed` of them."""
    found = read_phase(state, handle, phase)
    if found is None or len(found.announced) < needed:
        return None
    return tuple(Announcement(handle, phase, entry.site, entry.digest) for entry in found.announced)


def read_contributions(state: LedgerState, handle: bytes, phase: int, needed: int) -> tuple[Contribution, ...] | None:
    """The contributions of a phase once there are `needed` of them."""
    found = read_phase(state, handle, phase)
    if found is None or len(found.contributed) < needed:
        return None
    return tuple(Contribution(handle, phase, entry.site, entry.point, entry.salt) for entry in found.contributed)


def read_survivors(state: LedgerState, handle: bytes, phase: int) -> Survivors | None:
    """The survivors of a phase with their contributions, once they are fixed."""
    found = read_phase(state, handle, phase)
    if found is None or not found.survivors:
        return None
    contributions = read_contributions(state, handle, phase, 0) or ()
    of_survivors = tuple(entry for entry in contributions if entry.site in found.survivors)
    return Survivors(handle, phase, tuple(sorted(found.survivors)), of_survivors)


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
    for phase in (COUNTS, SUMS):
        survivors, opened = read_survivors(state, handle, phase), read_opened(state, handle, phase)
        if survivors is None or opened is None:
            raise Refused("gateway.not_released", query=handle.hex(), phase=phase)
        phases.append(PhaseRecord(phase, survivors.contributions, opened))
    return Board(
        query=handle,
        query_hash=found.salted_hash,
        population=found.population,
        roster=found.roster,
        rho_nano=found.rho_nano,
        phases=tuple(phases),
        budget_before_nano=found.budget_before,
        budget_after_nano=found.budget_before - found.rho_nano,
    )


def check_declared(query: Query, state: LedgerState, person: str) -> None:
    """Check a query against what the ledger declares of its population and datasets. Raises Refused.

    Bounds may be narrower than declared, never wider; groups are declared values; unit, rows per
    person and colluders promise no less than the population's; max_rows covers every dataset's row
    class. person: the column that names the person at the checking site, "" where there is none; an
    outsider, who cannot know it, gives the query's own.
    """
    population = datasets.population(state.view(), query.population)
    check_terms(query, population.unit, population.rows_per_person, population.colluders, person)
    for site, name in zip(query.roster, query.datasets, strict=True):
        dataset = state.get(datasets.dataset_key(name), datasets.DatasetState)
        if dataset is None or (dataset.owner, dataset.population) != (site, query.population):
            raise Refused("gateway.not_its_dataset", dataset=name, organisation=site)
        if query.max_rows < dataset.row_class:
            raise Refused("gateway.too_few_rows", dataset=name, rows=query.max_rows)
        _check_columns(query, name, dataset.columns)


def _check_columns(query: Query, dataset: str, columns: Sequence[datasets.Column]) -> None:
    measure, declared = query.measure, {column.name: column for column in columns}
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
