"""Loading a table into the vault: part by part, and seen by nobody before the last part is on disk.

    staged     a number for the dataset; parts of some thousand rows, each a transaction: keys and rows
    in use     one transaction: the description, and with it all rows at once; what it replaces is deleted

A load that was cut short leaves rows under a staged number, or beyond the last row that the description knows: they are
nobody's, and the next opening of the vault deletes them. In a part, rows of one person that are kept equally long stand
together, under one data key.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from threading import Lock
from typing import TypeAlias

import msgspec
import pyarrow as pa
import sqlalchemy as sa

from privacy.store import bulk
from privacy.suites import check_suite
from privacy.vault import tables
from privacy.vault.data_keys import Loads
from privacy.vault.descriptions import DatasetInfo, Descriptions
from privacy.vault.opened import Opened
from privacy.vault.parts import Owners, seal_part
from privacy.vault.rows import TYPES, StoredColumn
from privacy.vault.tables import IN_USE, LEFT, STAGED, numbered, numbers
from wire.errors import MedveilError, Refused, VerificationError
from wire.identifiers import check_name

PART = 16_384
"""Rows of a part: in memory at once, and in one transaction."""

Source: TypeAlias = pa.Table | pa.RecordBatchReader


class Loading:
    """Loads tables into an open vault, one at a time."""

    def __init__(self, opened: Opened, descriptions: Descriptions) -> None:
        self._opened = opened
        self._descriptions = descriptions
        self.alone = Lock()
        """Held while a table is loaded, and by a rotation."""

    def load(
        self,
        dataset: str,
        source: Source,
        owners: Owners,
        *,
        schema_hash: bytes,
        suites: Mapping[str, int],
        suite: int,
        replace: bool,
        append: bool,
    ) -> DatasetInfo:
        """See `Vault.ingest`."""
        self._opened.check_writes()
        columns = _columns(check_name(dataset, "dataset"), source.schema, suites, check_suite(suite))
        if isinstance(source, pa.Table):
            owners.check(source.num_rows)
        new = DatasetInfo(
            dataset, 1, 0, columns, schema_hash, owners.record_ids is not None, owners.persons is not None, suite
        )
        with self.alone:
            info, before = self._begin(new, replace, append)
            try:
                return self._fill(info, before, source, owners)
            except BaseException:
                with contextlib.suppress(MedveilError):  # the next opening does it then
                    self._undo(info)
                raise

    def clean_up(self) -> None:
        """Delete what interrupted loads left."""
        with self._opened.database.reading() as connection:
            staged = bulk.fetch(connection, sa.select(numbers.c.number).where(numbers.c.state != IN_USE))
            spans = [numbered(number) for (number,) in staged]
            for name in self._descriptions.numbers(connection).values():
                with contextlib.suppress(VerificationError):  # whoever reads it is told
                    info = self._descriptions.of(connection, name)
                    spans.append((info.next_row, numbered(info.number)[1]))
            left = [span for span in spans if _any_row(connection, *span)]
        for low, high in left:
            with self._opened.database.transaction() as connection:
                _delete(connection, low, high)
        if staged:
            with self._opened.database.transaction() as connection:
                connection.execute(numbers.update().where(numbers.c.state == STAGED).values(state=LEFT))

    # ---- the steps

    def _begin(self, new: DatasetInfo, replace: bool, append: bool) -> tuple[DatasetInfo, DatasetInfo | None]:
        """The description of the load, with no row yet, and that of what it replaces."""
        with self._opened.database.transaction() as connection:
            try:
                before = self._descriptions.of(connection, new.name)
            except Refused:
                before = None
            if before is not None and not (replace or append):
                raise Refused("privacy.dataset_exists", dataset=new.name)
            if before is not None and append:
                if _shape(before) != _shape(new):
                    raise Refused("privacy.schema_differs", dataset=new.name)
                return _changed(before, version=before.version + 1), before
            found = bulk.fetch(connection, sa.select(sa.func.max(numbers.c.number)))
            number = (found[0][0] or 0) + 1
            connection.execute(numbers.insert().values(number=number, state=STAGED))
        self._opened.fault("ingest:staged")
        version = 1 if before is None else before.version + 1
        return _changed(new, version=version, number=number, next_row=numbered(number)[0]), before

    def _fill(self, info: DatasetInfo, before: DatasetInfo | None, source: Source, owners: Owners) -> DatasetInfo:
        opened, appends = self._opened, before is not None and before.number == info.number
        place = Loads(opened, info).of(info.version)
        taken = loaded = made = width = 0
        for batch in _parts(source):
            own = owners.part(taken, taken + batch.num_rows)
            own.check(batch.num_rows)
            keys, rows, width = seal_part(
                opened, info, place, batch, own, (info.next_row + loaded, info.positions + loaded), width
            )
            opened.fault("ingest:sealed")
            with opened.database.transaction() as connection:
                bulk.insert(connection, tables.keys, keys)
                opened.fault("ingest:keys")
                bulk.insert(connection, tables.rows, rows)
                opened.fault("ingest:rows")
            opened.fault("ingest:part")
            taken += batch.num_rows
            loaded += len(rows)
            made += len(keys)
        owners.check(taken)
        with opened.database.transaction() as connection:
            if appends:  # rows may have been erased meanwhile
                info = _changed(self._descriptions.of(connection, info.name), version=info.version)
            info = _changed(
                info,
                rows=info.rows + loaded,
                keys=info.keys + made,
                next_row=info.next_row + loaded,
                positions=info.positions + loaded,
            )
            self._descriptions.put(connection, info)
            connection.execute(numbers.update().where(numbers.c.number == info.number).values(state=IN_USE))
            if before is not None and not appends:
                _delete(connection, *numbered(before.number))
                connection.execute(numbers.update().where(numbers.c.number == before.number).values(state=LEFT))
            opened.fault("ingest:written")
        opened.fault("ingest:committed")
        if opened.database.path is not None:
            opened.database.cut_log()
        return info

    def _undo(self, info: DatasetInfo) -> None:
        """Delete what a failed load wrote."""
        with self._opened.database.transaction() as connection:
            found = bulk.fetch(
                connection, sa.select(tables.datasets.c.number).where(tables.datasets.c.name == info.name)
            )
            if (info.number,) in found:
                info = self._descriptions.of(connection, info.name)
            _delete(connection, info.next_row, numbered(info.number)[1])
            staged = (numbers.c.number == info.number) & (numbers.c.state == STAGED)
            connection.execute(numbers.update().where(staged).values(state=LEFT))


def _columns(dataset: str, schema: pa.Schema, suites: Mapping[str, int], suite: int) -> tuple[StoredColumn, ...]:
    columns = tuple(
        StoredColumn(field.name, str(field.type), check_suite(suites.get(field.name, suite))) for field in schema
    )
    names = {column.name for column in columns}
    if len(names) != len(columns):
        raise Refused("privacy.column_twice", dataset=dataset)
    for column in columns:
        if column.kind not in TYPES:
            raise Refused("privacy.column_type", dataset=dataset, column=column.name, kind=column.kind)
    if unknown := set(suites) - names:
        raise ValueError(f"no column {min(unknown)!r}")
    return columns


def _parts(source: Source) -> Iterator[pa.RecordBatch]:
    if isinstance(source, pa.Table):
        yield from source.to_batches(max_chunksize=PART)
        return
    for batch in source:
        for start in range(0, batch.num_rows, PART):
            yield batch.slice(start, PART)


def _shape(info: DatasetInfo) -> tuple[object, ...]:
    return info.columns, info.schema_hash, info.has_record_ids, info.has_persons, info.suite


def _changed(info: DatasetInfo, **others: int) -> DatasetInfo:
    return msgspec.structs.replace(info, **others)


def _any_row(connection: sa.Connection, low: int, high: int) -> bool:
    for column in (tables.keys.c.first, tables.rows.c.row):
        if bulk.fetch(connection, sa.select(column).where(column.between(low, high)).limit(1)):
            return True
    return False


def _delete(connection: sa.Connection, low: int, high: int) -> None:
    connection.execute(tables.rows.delete().where(tables.rows.c.row.between(low, high)))
    connection.execute(tables.keys.delete().where(tables.keys.c.first.between(low, high)))
