"""Reading tables back out of the vault: every row that may be used, or an error; never another value.

A read goes over one state of the database. It takes the data keys of the dataset in the order of their rows, unwraps
them some thousand at a time, and holds each row against the key that claims it. What is sealed in the description must
add up; restricted keys are counted and left closed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
from cryptography.exceptions import InvalidTag

from privacy.keys import NONCE_BYTES
from privacy.store import bulk
from privacy.suites import AES_256_GCM, SM4_GCM, data_cipher, unseal
from privacy.vault import tables
from privacy.vault.data_keys import KeyRow, Loads
from privacy.vault.descriptions import DatasetInfo, Descriptions
from privacy.vault.opened import Opened, unwrap_all
from privacy.vault.places import APART, MAIN, NOBODY, key_place, where_row
from privacy.vault.rows import RowDecoder
from privacy.vault.tables import ACTIVE, ROW_BITS, keys, numbered
from wire.domains import SALT, keyed
from wire.errors import Refused, VerificationError

_KEYS, _ROWS = 8_192, 16_384
"""Data keys that are unwrapped at once, and about how many rows are in memory together."""


class _Run(NamedTuple):
    """Rows of some keys, decrypted but not decoded, each list in the same order."""

    main: list[bytes]
    apart: list[bytes]
    positions: list[int]
    persons: list[bytes]
    keys: list[bytes]


Extra = tuple[str | None, str | None, str | None]
"""Names of the columns beside the data: record ids, keyed person ids, data keys' ids; None: not wanted."""


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
            with self._opened.provider.batch(f"read {dataset}", info.keys):
                return self._table(info, self._runs(connection, info, since), extra)

        return self._opened.reading(read)

    def record(self, dataset: str, record_id: str) -> pa.Table:
        """See `Vault.record`."""

        def read(connection: sa.Connection) -> pa.Table:
            info = self._descriptions.of(connection, dataset)
            if not info.has_persons:
                return self._of_person(connection, info, self._opened.person_id(record_id))
            claimed = self._keys_of_record(connection, info, record_id)
            record = self._opened.record_id(dataset, record_id)
            rows = [self._decrypted(info, claimed, self._rows(connection, claimed), record)]
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
            master = next(self._masters(info, claimed[:1]))
            if master is None:
                raise VerificationError("privacy.vault_dataset", dataset=dataset)
            return keyed(master, SALT)

        return self._opened.reading(read)

    # ---- what belongs together

    def _of_person(self, connection: sa.Connection, info: DatasetInfo, person: bytes) -> pa.Table:
        claimed = self._keys_of_person(connection, info, person)
        if not claimed:
            raise Refused("privacy.no_record", dataset=info.name)
        rows = self._decrypted(info, claimed, self._rows(connection, claimed))
        return self._table(info, iter([rows]))

    def _keys_of_person(self, connection: sa.Connection, info: DatasetInfo, person: bytes) -> list[KeyRow]:
        """Active keys of a person in a dataset."""
        low, _ = numbered(info.number)
        mine = keys.c.first.between(low, info.next_row - 1) & (keys.c.state == ACTIVE)
        statement = sa.select(keys).where((keys.c.person == person) & mine).order_by(keys.c.first)
        return [KeyRow(*row) for row in bulk.fetch(connection, statement)]

    def _keys_of_record(self, connection: sa.Connection, info: DatasetInfo, record_id: str) -> list[KeyRow]:
        """Active keys under which a record has rows."""
        table, record = tables.rows, self._opened.record_id(info.name, record_id)
        low, _ = numbered(info.number)
        mine = (table.c.record == record) & table.c.row.between(low, info.next_row - 1)
        found: dict[int, KeyRow] = {}
        for (row,) in bulk.fetch(connection, sa.select(table.c.row).where(mine).order_by(table.c.row)):
            before = sa.select(keys).where(keys.c.first.between(low, row)).order_by(keys.c.first.desc()).limit(1)
            for key in map(KeyRow._make, bulk.fetch(connection, before)):
                if key.first <= row < key.first + key.rows and key.state == ACTIVE:
                    found[key.first] = key
        return list(found.values())

    def _rows(self, connection: sa.Connection, claimed: Sequence[KeyRow]) -> list[bulk.Row]:
        """The rows of some keys."""
        found: list[bulk.Row] = []
        for key in claimed:
            found += _rows_between(connection, key.first, key.first + key.rows - 1)
        return found

    # ---- a whole dataset

    def _check_totals(self, connection: sa.Connection, info: DatasetInfo) -> None:
        """Keys and rows, in all and of those that are restricted, are as many as the description says."""
        count, total = sa.func.count(), sa.func.coalesce(sa.func.sum(keys.c.rows), 0)
        mine = keys.c.first.between(numbered(info.number)[0], info.next_row - 1)
        statement = sa.select(keys.c.state, count, total).where(mine).group_by(keys.c.state)
        found = {state: (int(many), int(rows)) for state, many, rows in bulk.fetch(connection, statement)}
        restricted = sum(rows for state, (_, rows) in found.items() if state != ACTIVE)
        sums = sum(many for many, _ in found.values()), sum(rows for _, rows in found.values()), restricted
        if sums != (info.keys, info.rows, info.restricted):
            raise VerificationError("privacy.vault_dataset", dataset=info.name)

    def _runs(self, connection: sa.Connection, info: DatasetInfo, since: int) -> Iterator[_Run]:
        """The rows of a dataset, those of some keys after the other."""
        low, _ = numbered(info.number)
        statement = sa.select(keys).where(keys.c.first.between(low, info.next_row - 1)).order_by(keys.c.first)
        if since:
            statement = statement.where(keys.c.load > since)
        for claimed in _few(bulk.stream(connection, statement, _KEYS)):
            if since:
                low = max(low, claimed[0].first)
            last = claimed[-1].first + claimed[-1].rows - 1
            yield self._decrypted(info, claimed, _rows_between(connection, low, last))
            low = last + 1
        if not since and _rows_between(connection, low, info.next_row - 1, 1):
            raise VerificationError("privacy.vault_row", dataset=info.name, position=low & ((1 << ROW_BITS) - 1))

    def _masters(self, info: DatasetInfo, claimed: Sequence[KeyRow]) -> Iterator[bytes | None]:
        """The data keys of those of `claimed` that are active; None for one that was altered."""
        loads, epochs, items = Loads(self._opened, info).of, [], []
        for _, key, person, count, load, retain_until, state, epoch, wrapped in claimed:
            if state == ACTIVE:
                epochs.append(epoch)
                items.append((wrapped, key_place(loads(load), key, person, count, retain_until, state)))
        return iter(unwrap_all(self._opened.provider, epochs, items))

    def _decrypted(
        self, info: DatasetInfo, claimed: Sequence[KeyRow], rows: Sequence[bulk.Row], only: bytes | None = None
    ) -> _Run:
        """The rows of `claimed`, which are all that there are between the first and the last, decrypted.

        Restricted ones are passed by. only: a record's id; rows of others are passed by as well. Raises
        VerificationError naming the first row that was altered, is missing or is nobody's.
        """
        masters, loads = self._masters(info, claimed), Loads(self._opened, info).of
        out = _Run([], [], [], [], [])
        main, apart, positions, persons, own = out
        two = any(column.suite != info.suite for column in info.columns)
        second_suite = SM4_GCM if info.suite == AES_256_GCM else AES_256_GCM
        suite, at, row_number = info.suite, 0, 0
        try:
            for first, key, person, count, load, _, state, _, _ in claimed:
                row_number = first
                mine = rows[at : at + count]
                at += count
                if len(mine) != count or mine[0][0] != first or mine[-1][0] != first + count - 1:
                    raise InvalidTag
                if state != ACTIVE:
                    continue
                master = next(masters)
                if master is None:
                    raise InvalidTag
                decrypt = data_cipher(suite, master).decrypt
                second = data_cipher(second_suite, master) if two else None
                who = person or key
                prefix = loads(load) + who
                for row_number, position, record, sealed, other in mine:
                    if only is not None and record != only:
                        continue
                    where = prefix + (record or NOBODY) + where_row(row_number, position)
                    main.append(decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], where + MAIN))
                    if second is not None:
                        apart.append(unseal(second, other, where + APART))
                    positions.append(position)
                    persons.append(who)
                    own.append(key)
            if at != len(rows):
                row_number = rows[at][0]
                raise InvalidTag
        except (InvalidTag, TypeError, ValueError, OverflowError, AttributeError, struct.error):  # cells of other kinds
            position = row_number & ((1 << ROW_BITS) - 1)
            raise VerificationError("privacy.vault_row", dataset=info.name, position=position) from None
        return out

    def _table(self, info: DatasetInfo, runs: Iterator[_Run], extra: Extra = (None, None, None)) -> pa.Table:
        """The rows of `runs` as a table, in the order in which they were loaded."""
        record_id_column, person_column, key_column = extra
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
        if (order[1:] < order[:-1]).any():
            table = table.take(pa.array(np.argsort(order, kind="stable")))
        return table


def _few(found: Iterator[list[bulk.Row]]) -> Iterator[list[KeyRow]]:
    """The keys, as many at a time as have about `_ROWS` rows together."""
    for some in found:
        claimed, rows = [], 0
        for key in map(KeyRow._make, some):
            claimed.append(key)
            rows += key.rows
            if rows >= _ROWS:
                yield claimed
                claimed, rows = [], 0
        if claimed:
            yield claimed


def _rows_between(connection: sa.Connection, low: int, high: int, limit: int | None = None) -> list[bulk.Row]:
    table = tables.rows
    statement = sa.select(table).where(table.c.row.between(low, high)).order_by(table.c.row)
    return bulk.fetch(connection, statement if limit is None else statement.limit(limit))
