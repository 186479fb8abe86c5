"""An organisation's own tables: what its vault holds, as the flows that use them see it.

A table's layout is kept beside it as a document of the vault: what its columns mean does not come from elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import pyarrow as pa

from connectors.arrow_engine import ArrowEngine
from connectors.layout import Layout
from mpc.scoring import RECORDS
from privacy.local import LocalEngine, RowFilter
from privacy.predicate import to_arrow
from privacy.vault import Vault
from wire.canonical import decode, encode

LAYOUT = "layout"
"""The kind of document that keeps a table's layout, under the table's name."""

_ID = "medveil_record"


class Tables(Protocol):
    """An organisation's way to its own tables. All of it is secret but the names."""

    def engine(self, dataset: str) -> LocalEngine:
        """The engine that runs local plans over a table. Raises Refused where there is none."""
        ...

    def layout(self, dataset: str) -> Layout:
        """A table's layout. Raises Refused where there is none."""
        ...

    def records(self, dataset: str, columns: tuple[str, ...], rows: RowFilter) -> Sequence[tuple[str, tuple[Any, ...]]]:
        """The first records of a table that `rows` lets pass, as many as one evaluation may score.

        Each is (own record id, its cells in `columns`). An id names one record over all of the organisation's tables:
        a record is scored once under a model.
        """
        ...

    def names(self) -> tuple[str, ...]:
        """The tables that are here, sorted."""
        ...


def keep_layout(vault: Vault, dataset: str, layout: Layout) -> None:
    """Keep a table's layout beside it."""
    vault.put_document(LAYOUT, dataset, encode(layout))


class VaultTables:
    """The tables of a vault, decrypted in memory when they are used."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def engine(self, dataset: str) -> LocalEngine:
        """See `Tables.engine`."""
        return ArrowEngine(self._vault.read(dataset))

    def layout(self, dataset: str) -> Layout:
        """See `Tables.layout`."""
        return decode(Layout, self._vault.document(LAYOUT, dataset))

    def records(self, dataset: str, columns: tuple[str, ...], rows: RowFilter) -> Sequence[tuple[str, tuple[Any, ...]]]:
        """See `Tables.records`. An id is the record's own, or else its table and the number of its row, from 1."""
        table = self._vault.read(dataset, _ID)
        own = table[_ID].to_pylist()
        ids = [f"{dataset}/{number}" if name is None else f"record/{name}" for number, name in enumerate(own, start=1)]
        table = table.set_column(table.column_names.index(_ID), _ID, pa.array(ids, pa.string()))
        if rows.predicate is not None:
            table = table.filter(to_arrow(rows.predicate))
        table = table.slice(0, RECORDS)
        cells = [table[name].to_pylist() for name in columns]
        return list(zip(table[_ID].to_pylist(), zip(*cells, strict=True), strict=True))

    def names(self) -> tuple[str, ...]:
        """See `Tables.names`."""
        return tuple(info.name for info in self._vault.datasets())
