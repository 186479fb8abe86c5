"""An organisation's own tables: what its vault holds, as the flows that use them see it.

A table's layout is kept beside it as a document of the vault: what its columns mean does not come from elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol, Self

import pyarrow as pa

from connectors.arrow_engine import ArrowEngine
from connectors.layout import Layout, kept_layout
from medveil.gateway import use_state
from medveil.gateway.organisation import Clock, Organisation
from mpc.scoring import RECORDS
from privacy.copies.snapshots import Snapshots
from privacy.grants.opt_outs import ScopeId
from privacy.local import LocalEngine, RowFilter
from privacy.predicate import to_arrow
from privacy.vault import Vault
from wire.canonical import encode

LAYOUT = "layout"
"""The kind of document that keeps a table's layout, under the table's name."""

PERSON = "medveil_person"
"""The column with the keyed id of each row's person, where rows are given with it."""
_ID, _POSITION = "medveil_record", "medveil_position"


class Tables(Protocol):
    """An organisation's way to its own tables. All of it is secret but the names.

    excluded: the scopes of opt-outs that the use has to leave out, as its decision says (`Decision.excluded`). Whose
    rows these are is looked up here, as of now, and so is which copy may serve a use: nobody else chooses.
    """

    def engine(self, dataset: str, excluded: Sequence[ScopeId]) -> LocalEngine:
        """The engine that runs local plans over a table. Raises Refused where there is none."""
        ...

    def layout(self, dataset: str) -> Layout:
        """A table's layout. Raises Refused where there is none."""
        ...

    def records(
        self, dataset: str, columns: tuple[str, ...], rows: RowFilter, excluded: Sequence[ScopeId]
    ) -> Sequence[tuple[str, tuple[Any, ...]]]:
        """The first records of a table that `rows` lets pass, as many as one evaluation may score.

        Each is (own record id, its cells in `columns`). An id names one record over all
        of the organisation's tables: a record is scored once under a model.
        """
        ...

    def rows(self, dataset: str, excluded: Sequence[ScopeId]) -> pa.Table:
        """The rows of a table as they are, with the column `PERSON`, by which whoever asks leaves out who must not be
        in a copy.

        excluded: the scopes of opt-outs that the use has to leave out, as its decision says. Raises Refused where
        there is no such table.
        """
        ...

    def names(self) -> tuple[str, ...]:
        """The tables that are here, sorted."""
        ...


def keep_layout(vault: Vault, dataset: str, layout: Layout) -> None:
    """Keep a table's layout beside it."""
    vault.put_document(LAYOUT, dataset, encode(layout))


SNAPSHOTS = "snapshots"
"""The folder of the snapshots, beside the vault's."""


def _now() -> int:
    return time.time_ns() // 1_000_000


def snapshots_of(organisation: Organisation, clock: Clock = _now) -> Snapshots:
    """The snapshots beside its vault, which leave out whoever objects to all secondary use.

    Of a home whose gateway runs there is one alone: that gateway's.
    """

    def opted_out(scopes: tuple[ScopeId, ...]) -> frozenset[bytes]:
        return use_state.opt_outs(organisation).persons(scopes, clock())

    folder = organisation.vault.path.parent / SNAPSHOTS
    return Snapshots(organisation.vault, folder, opted_out=opted_out, clock=clock)


class VaultTables:
    """The tables of a vault, as their snapshots have them, decrypted in memory when they are used."""

    def __init__(self, vault: Vault, snapshots: Snapshots) -> None:
        self._vault = vault
        self.snapshots = snapshots

    @classmethod
    def of(cls, organisation: Organisation, clock: Clock = _now) -> Self:
        """An organisation's tables, with the opt-outs of its patients."""
        return cls(organisation.vault, snapshots_of(organisation, clock))

    def engine(self, dataset: str, excluded: Sequence[ScopeId]) -> LocalEngine:
        """See `Tables.engine`."""
        return ArrowEngine(self.snapshots.table(dataset, excluded=excluded))

    def layout(self, dataset: str) -> Layout:
        """See `Tables.layout`."""
        return kept_layout(self._vault.document(LAYOUT, dataset))

    def records(
        self, dataset: str, columns: tuple[str, ...], rows: RowFilter, excluded: Sequence[ScopeId]
    ) -> Sequence[tuple[str, tuple[Any, ...]]]:
        """See `Tables.records`.

        An id is the record's own, or else its table and the number under which its row was loaded, from 1: the same
        whichever rows are erased or left out, and no other row's ever after.
        """
        table = self.snapshots.table(dataset, _ID, position_column=_POSITION, excluded=excluded)
        if rows.predicate is not None:
            table = table.filter(to_arrow(rows.predicate))
        table = table.slice(0, RECORDS)
        own, places = table[_ID].to_pylist(), table[_POSITION].to_pylist()
        ids = [
            f"{dataset}/{place + 1}" if name is None else f"record/{name}"
            for name, place in zip(own, places, strict=True)
        ]
        cells = [table[name].to_pylist() for name in columns]
        return list(zip(ids, zip(*cells, strict=True), strict=True))

    def rows(self, dataset: str, excluded: Sequence[ScopeId]) -> pa.Table:
        """See `Tables.rows`."""
        return self.snapshots.table(dataset, person_column=PERSON, excluded=excluded)

    def names(self) -> tuple[str, ...]:
        """See `Tables.names`."""
        return tuple(info.name for info in self._vault.datasets())
