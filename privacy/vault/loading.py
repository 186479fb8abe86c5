"""Loading a table into the vault: part by part, and seen by nobody before the last part is on disk.

    staged     a number for the dataset; parts of some thousand rows, each a transaction: keys and rows
    in use     one transaction: the description, and with it all rows at once; what it replaces is deleted, unless
               some of it has to be kept

A load that was cut short leaves rows under a staged number, or beyond the last row that the description knows: they are
nobody's, and the next opening of the vault deletes them. In a part, rows of one person that are kept equally long stand
together, under one data key.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from threading import Lock
from typing import TypeAlias

import msgspec
import pyarrow as pa
import sqlalchemy as sa

from privacy.legal_holds import LegalHold
from privacy.retention import ZONE
from privacy.store import bulk
from privacy.suites import check_suite
from privacy.vault import tables
from privacy.vault.data_keys import Loads
from privacy.vault.descriptions import DatasetInfo, Descriptions
from privacy.vault.opened import Opened
from privacy.vault.parts import Owners, seal_part
from privacy.vault.rows import TYPES, StoredColumn
from privacy.vault.tables import IN_USE, LEFT, STAGED, numbered, numbers
from wire.dates import NO_END, date_of, day_at
from wire.errors import MedveilError, Refused, Unavailable, VerificationError
from wire.identifiers import check_name

PART = 16_384
"""Rows of a part: in memory at once, and in one transaction."""

Source: TypeAlias = pa.Table | pa.RecordBatchReader


class Loading:
    """Loads tables into an open vault, one at a time."""

    def __init__(
        self,
        opened: Opened,
        descriptions: Descriptions,
        holds: Callable[[], Iterable[LegalHold]] = tuple,
        hear: Callable[[Iterable[str]], None] = lambda names: None,
    ) -> None:
        """holds: every legal hold that was placed, read anew at each call. hear: told whose rows come, before they are
        there (`privacy.vault.awaited`)."""
        self._opened = opened
        self._descriptions = descriptions
        self._holds, self._hear = holds, hear
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
            self.clean_up()  # what a load left that could not undo itself stands where this one's rows go
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
            used = self._descriptions.numbers(connection)
            spans = [numbered(number) for (number,) in staged if number not in used]
            for name in used.values():
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
            if before is not None and not append:
                self._check_replaceable(connection, before)
            if before is not None and append:
                if _shape(before) != _shape(new):
                    raise Refused("privacy.schema_differs", dataset=new.name)
                return _changed(before, version=before.version + 1), before
            found = bulk.fetch(connection, sa.select(sa.func.max(numbers.c.number)))
            number = (found[0][0] or 0) + 1
            connection.execute(numbers.insert().values(number=number, state=STAGED))
        self._opened.fault("ingest:staged")
        # Positions go on where those of the replaced table ended: none stands for two rows of one dataset.
        version, positions = (1, 0) if before is None else (before.version + 1, before.positions)
        first = numbered(number)[0]
        return _changed(new, version=version, number=number, next_row=first, positions=positions), before

    def _fill(self, info: DatasetInfo, before: DatasetInfo | None, source: Source, owners: Owners) -> DatasetInfo:
        opened, appends = self._opened, before is not None and before.number == info.number
        place = Loads(opened, info).of(info.version)
        taken = loaded = made = width = 0
        for batch in _parts(source):
            own = owners.part(taken, taken + batch.num_rows)
            own.check(batch.num_rows)
            self._hear(own.persons or own.record_ids or ())
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
                self._check_replaceable(connection, before)  # a hold may have been placed meanwhile
                _delete(connection, *numbered(before.number))
                connection.execute(numbers.update().where(numbers.c.number == before.number).values(state=LEFT))
            opened.fault("ingest:written")
        opened.fault("ingest:committed")
        if opened.database.path is not None:
            with contextlib.suppress(Unavailable):  # it is loaded all the same
                opened.database.cut_log()
        return info

    def _check_replaceable(self, connection: sa.Connection, before: DatasetInfo) -> None:
        """Raises Refused where a duty or a legal hold keeps rows of `before` today: loading over it destroys them.

        The days are those in the table of keys: whoever can change them there can delete the rows as well.
        """
        keys, today = tables.keys.c, day_at(self._opened.clock(), ZONE)
        mine = keys.first.between(*numbered(before.number))
        kept = sa.select(sa.func.coalesce(sa.func.sum(keys.rows), 0), sa.func.max(keys.retain_until))
        rows, until = bulk.fetch(connection, kept.where(mine & (keys.retain_until >= today)))[0]
        if rows:
            day = date_of(min(until, NO_END - 1)).isoformat()
            raise Refused("privacy.replace_retained", dataset=before.name, rows=int(rows), until=day)
        for hold in self._holds():
            if hold.holds(hold.person, before.name, today):
                whose = (keys.person == hold.person) | (keys.key == hold.person) if hold.person else sa.true()
                if bulk.fetch(connection, sa.select(keys.first).where(mine & whose).limit(1)):
                    raise Refused("privacy.replace_held", dataset=before.name, hold=hold.hold)

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
