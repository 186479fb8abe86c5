"""Reading tables back out of the vault: every row that may be used, or an error; never another value.

A read goes over one state of the database. It takes the data keys of the dataset in the order of their rows, unwraps
them some thousand at a time, and holds each row against the key that claims it. What is sealed in the description must
add up; restricted keys are counted and left closed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from privacy.store import bulk
from privacy.vault import tables
from privacy.vault.data_keys import KeyRow
from privacy.vault.descriptions import DatasetInfo, Descriptions
from privacy.vault.opened import Opened
from privacy.vault.rows import RowDecoder
from privacy.vault.tables import ACTIVE, keys, numbered
from privacy.vault.unsealing import Run, Unsealing, altered
from wire.domains import SALT, keyed
from wire.errors import Refused, VerificationError

_ROWS = 256
"""Data keys that are unwrapped at once; about as many rows are in work together: what a processor's cache holds."""

Extra = tuple[str | None, str | None, str | None, str | None]
"""Names of the columns beside the data: record ids, keyed person ids, data keys' ids, positions; None: not wanted."""


class Reading:
    """Reads the tables of an open vault."""

    def __init__(self, opened: Opened, descriptions: Descriptions) -> None:
        self._opened = opened
        self._descriptions = descriptions

    def table(self, dataset: str, extra: Extra, since: int) -> pa.Table:
        """See `Vault.read`."""

        def read(connection: sa.Connection) -> pa.Table:
            info = self._descriptions.of(connection, dataset)
            self._check_totals(connection, info)
            batch = self._opened.provider.batch(f"read {dataset}", info.keys)
            with batch, closing(self._runs(connection, info, since)) as runs:
                return self._table(info, runs, extra)

        return self._opened.reading(read)

    def record(self, dataset: str, record_id: str) -> pa.Table:
        """See `Vault.record`."""

        def read(connection: sa.Connection) -> pa.Table:
            info = self._descriptions.of(connection, dataset)
            if not info.has_persons:
                return self._of_person(connection, info, self._opened.person_id(record_id))
            claimed = self._keys_of_record(connection, info, record_id)
            record = self._opened.record_id(dataset, record_id)
            rows = [Unsealing(self._opened, info).run(claimed, self._rows(connection, info, claimed), record)]
            if not rows[0].main:
                raise Refused("privacy.no_record", dataset=dataset)
            return self._table(info, iter(rows))

        return self._opened.reading(read)

    def person(self, dataset: str, person: bytes) -> pa.Table:
        """See `Vault.person`. person: keyed id."""

        def read(connection: sa.Connection) -> pa.Table:
            return self._of_person(connection, self._descriptions.of(connection, dataset), person)

        return self._opened.reading(read)

    def salt_key(self, dataset: str, record_id: str) -> bytes:
        """See `Vault.salt_key`."""

        def read(connection: sa.Connection) -> bytes:
            info = self._descriptions.of(connection, dataset)
            if info.has_persons:
                claimed = self._keys_of_record(connection, info, record_id)
            else:
                claimed = self._keys_of_person(connection, info, self._opened.person_id(record_id))
            if not claimed:
                raise Refused("privacy.no_record", dataset=dataset)
            if not info.has_persons and len(claimed) > 1:
                claimed = self._spelled(connection, info, claimed, record_id) or claimed
            (master,) = Unsealing(self._opened, info).masters(claimed[:1])
            if master is None:
                raise VerificationError("privacy.vault_dataset", dataset=dataset)
            return keyed(master, SALT)

        return self._opened.reading(read)

    # ---- what belongs together

    def _of_person(self, connection: sa.Connection, info: DatasetInfo, person: bytes) -> pa.Table:
        claimed = self._keys_of_person(connection, info, person)
        if not claimed:
            raise Refused("privacy.no_record", dataset=info.name)
        rows = Unsealing(self._opened, info).run(claimed, self._rows(connection, info, claimed))
        return self._table(info, iter([rows]))

    def _keys_of_person(self, connection: sa.Connection, info: DatasetInfo, person: bytes) -> list[KeyRow]:
        """Active keys of a person in a dataset."""
        low, _ = numbered(info.number)
        mine = keys.c.first.between(low, info.next_row - 1)
        statement = sa.select(keys).where((keys.c.person == person) & mine).order_by(keys.c.first)
        return self._active(info, [KeyRow(*row) for row in bulk.fetch(connection, statement)])

    def _keys_of_record(self, connection: sa.Connection, info: DatasetInfo, record_id: str) -> list[KeyRow]:
        """Active keys under which a record has rows."""
        table, record = tables.rows, self._opened.record_id(info.name, record_id)
        low, _ = numbered(info.number)
        mine = (table.c.record == record) & table.c.row.between(low, info.next_row - 1)
        found: dict[int, KeyRow] = {}
        for (row,) in bulk.fetch(connection, sa.select(table.c.row).where(mine).order_by(table.c.row)):
            before = sa.select(keys).where(keys.c.first.between(low, row)).order_by(keys.c.first.desc()).limit(1)
            for key in map(KeyRow._make, bulk.fetch(connection, before)):
                if key.first <= row < key.first + key.rows:
                    found[key.first] = key
        return self._active(info, list(found.values()))

    def _spelled(
        self, connection: sa.Connection, info: DatasetInfo, claimed: Sequence[KeyRow], record_id: str
    ) -> list[KeyRow]:
        """Those of a person's keys whose rows spell the record id so: each spelling has keys, and salts, of its own."""
        found = []
        for key in claimed:
            run = Unsealing(self._opened, info).run([key], self._rows(connection, info, [key]))
            decoder = RowDecoder(info.columns, info.suite)
            decoder.take(run.main[:1], run.apart[:1])
            if decoder.table("").column("").to_pylist() == [record_id]:
                found.append(key)
        return found

    def _active(self, info: DatasetInfo, found: Sequence[KeyRow]) -> list[KeyRow]:
        """The active ones; the others must be what they say they are, for their rows are left out in silence.

        Raises VerificationError.
        """
        closed = [key for key in found if key.state != ACTIVE]
        if None in Unsealing(self._opened, info).masters(closed):
            raise VerificationError("privacy.vault_dataset", dataset=info.name)
        return [key for key in found if key.state == ACTIVE]

    def _rows(self, connection: sa.Connection, info: DatasetInfo, claimed: Sequence[KeyRow]) -> list[bulk.Row]:
        """The rows of some keys."""
        found: list[bulk.Row] = []
        for key in claimed:
            found += bulk.fetch(connection, _between(key.first, min(key.first + key.rows, info.next_row) - 1))
        return found

    # ---- a whole dataset

    def _check_totals(self, connection: sa.Connection, info: DatasetInfo) -> None:
        """Keys and rows, in all and of those that are restricted, are as many as the description says."""
        mine = keys.c.first.between(numbered(info.number)[0], info.next_row - 1)
        hidden = sa.case((keys.c.state != ACTIVE, keys.c.rows), else_=0)
        sums = [sa.func.coalesce(sa.func.sum(what), 0) for what in (keys.c.rows, hidden)]
        found = bulk.fetch(connection, sa.select(sa.func.count(), *sums).where(mine))
        if [tuple(map(int, row)) for row in found] != [(info.keys, info.rows, info.restricted)]:
            raise VerificationError("privacy.vault_dataset", dataset=info.name)

    def _runs(self, connection: sa.Connection, info: DatasetInfo, since: int) -> Generator[Run, None, None]:
        """The rows of a dataset, those of some keys after the other."""
        low, last = numbered(info.number)[0], info.next_row - 1
        statement = sa.select(keys).where(keys.c.first.between(low, last)).order_by(keys.c.first)
        if since:
            statement = statement.where(keys.c.load > since)
        with bulk.taking(connection, statement) as take_keys:
            some = _few(take_keys)
            claimed = next(some, None)
            if since:  # what came before is not looked at
                low = last + 1 if claimed is None else claimed[0][0]
            unsealing = Unsealing(self._opened, info)
            with bulk.taking(connection, _between(low, last)) as take:
                while claimed is not None:
                    counts = [key[3] for key in claimed]
                    if (least := min(counts)) < 1:
                        raise altered(info, claimed[counts.index(least)][0])
                    yield unsealing.run(claimed, take(min(sum(counts), info.rows)))
                    claimed = next(some, None)
                if nobodys := take(1):
                    raise altered(info, nobodys[0][0])

    def _table(self, info: DatasetInfo, runs: Iterator[Run], extra: Extra = (None, None, None, None)) -> pa.Table:
        """The rows of `runs` as a table, in the order in which they were loaded."""
        record_id_column, person_column, key_column, position_column = extra
        decoder = RowDecoder(info.columns, info.suite)
        positions: list[np.ndarray[Any, Any]] = []
        persons: list[pa.Array] = []
        owners: list[pa.Array] = []
        for run in runs:
            try:
                decoder.take(run.main, run.apart)
            except VerificationError:
                position = run.positions[0] if run.positions else 0
                raise VerificationError("privacy.vault_row", dataset=info.name, position=position) from None
            positions.append(np.array(run.positions, np.int64))
            if person_column is not None:
                persons.append(pa.array(run.persons, pa.binary(16)))
            if key_column is not None:
                owners.append(pa.array(run.keys, pa.binary(16)))
        table = decoder.table(record_id_column)
        for name, ids in ((person_column, persons), (key_column, owners)):
            if name is not None:
                if name in table.column_names:
                    raise ValueError("the table has a column of that name")
                table = table.append_column(name, pa.chunked_array(ids, pa.binary(16)))
        order = np.concatenate(positions) if positions else np.array([], np.int64)
        if position_column is not None:
            if position_column in table.column_names:
                raise ValueError("the table has a column of that name")
            table = table.append_column(position_column, pa.array(order, pa.int64()))
        if (order[1:] < order[:-1]).any():
            table = table.take(pa.array(np.argsort(order, kind="stable")))
        return table


def _few(take: Callable[[int], list[bulk.Row]]) -> Iterator[list[bulk.Row]]:
    """Keys, as many at a time as have about `_ROWS` rows together."""
    while some := take(_ROWS):
        if sum([key[3] for key in some]) <= 2 * _ROWS:
            yield some
            continue
        claimed, rows = [], 0
        for key in some:
            claimed.append(key)
            rows += key[3]
            if rows >= _ROWS:
                yield claimed
                claimed, rows = [], 0
        if claimed:
            yield claimed


def _between(low: int, high: int) -> sa.Select[Any]:
    return sa.select(tables.rows).where(tables.rows.c.row.between(low, high)).order_by(tables.rows.c.row)
