"""An organisation's own tables: what its vault holds, as the flows that use them see it.

A table's layout is kept beside it as a document of the vault: what its columns mean does not come from elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from connectors.arrow_engine import ArrowEngine
from connectors.layout import Layout, kept_layout
from mpc.scoring import RECORDS
from privacy.local import LocalEngine, RowFilter
from privacy.predicate import to_arrow
from privacy.snapshots import Snapshots
from privacy.vault import Vault
from wire.canonical import encode

LAYOUT = "layout"
"""The kind of document that keeps a table's layout, under the table's name."""

NOBODY: Set[bytes] = frozenset()
_ID, _PERSON = "medveil_record", "medveil_person"


class Tables(Protocol):
    """An organisation's way to its own tables. All of it is secret but the names."""

    def engine(self, dataset: str, without: Set[bytes] = NOBODY) -> LocalEngine:
        """The engine that runs local plans over a table. Raises Refused where there is none.

        without: keyed ids of persons whose rows are left out.
        """
        ...

    def layout(self, dataset: str) -> Layout:
        """A table's layout. Raises Refused where there is none."""
        ...

    def records(
        self, dataset: str, columns: tuple[str, ...], rows: RowFilter, without: Set[bytes] = NOBODY
    ) -> Sequence[tuple[str, tuple[Any, ...]]]:
        """The first records of a table that `rows` lets pass, as many as one evaluation may score.

        without: as for `engine`. Each is (own record id, its cells in `columns`). An id names one record over all
        of the organisation's tables: a record is scored once under a model.
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


class VaultTables:
    """The tables of a vault, as their snapshots have them, decrypted in memory when they are used.

    snapshots: of that vault; by default in a folder beside it.
    """

    def __init__(self, vault: Vault, snapshots: Snapshots | None = None) -> None:
        self._vault = vault
        self.snapshots = snapshots if snapshots is not None else Snapshots(vault, vault.path.parent / SNAPSHOTS)

    def engine(self, dataset: str, without: Set[bytes] = NOBODY) -> LocalEngine:
        """See `Tables.engine`."""
        return ArrowEngine(_left(self.snapshots.table(dataset, person_column=_PERSON), without))

    def layout(self, dataset: str) -> Layout:
        """See `Tables.layout`."""
        return kept_layout(self._vault.document(LAYOUT, dataset))

    def records(
        self, dataset: str, columns: tuple[str, ...], rows: RowFilter, without: Set[bytes] = NOBODY
    ) -> Sequence[tuple[str, tuple[Any, ...]]]:
        """See `Tables.records`. An id is the record's own, or else its table and the number of its row, from 1."""
        table = self.snapshots.table(dataset, _ID, person_column=_PERSON)
        own = table[_ID].to_pylist()
        ids = [f"{dataset}/{number}" if name is None else f"record/{name}" for number, name in enumerate(own, start=1)]
        table = _left(table.set_column(table.column_names.index(_ID), _ID, pa.array(ids, pa.string())), without)
        if rows.predicate is not None:
            table = table.filter(to_arrow(rows.predicate))
        table = table.slice(0, RECORDS)
        cells = [table[name].to_pylist() for name in columns]
        return list(zip(table[_ID].to_pylist(), zip(*cells, strict=True), strict=True))

    def names(self) -> tuple[str, ...]:
        """See `Tables.names`."""
        return tuple(info.name for info in self._vault.datasets())


def _left(table: pa.Table, without: Set[bytes]) -> pa.Table:
    """The rows of all but some persons, without the column that names them. A row of nobody known stays."""
    if without:
        gone = pc.is_in(table[_PERSON], pa.array(sorted(without), table.schema.field(_PERSON).type))
        table = table.filter(pc.invert(gone))
    return table.drop_columns([_PERSON])
