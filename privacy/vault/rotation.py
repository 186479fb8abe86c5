"""Rotation: every key wrapped again under a new epoch, some thousand at a time, then the older epochs destroyed.

Data is not rewritten. Readers go on meanwhile, and whoever writes documents, notes and states: they wrap in the
transaction that writes, and rotation looks for keys of older epochs once more, as a writer, before it destroys them.
Tables are loaded before it or after. Cut short anywhere, the vault is readable; the next rotation makes another epoch
and goes through all keys again, so that a copy of the vault made in between is of no use either once it has ended.

A provider that wraps under another key than it says would take everything along with the older epochs: it is asked to
open some of what it wrapped, of each batch, while those are still there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import sqlalchemy as sa

from privacy.store import bulk
from privacy.vault import tables
from privacy.vault.data_keys import KeyRow, Loads
from privacy.vault.descriptions import Descriptions
from privacy.vault.opened import Opened, check_wrap, unwrap_all
from privacy.vault.tables import ROW_BITS
from wire.canonical import encode
from wire.errors import Refused, VerificationError

_BATCH = 5_000
_TRIED = 3
"""Keys of each table that are tried, to tell a foreign provider from an altered vault."""


class _Few(NamedTuple):
    """A table of keys that are few: its name for them, and the columns that name one."""

    table: sa.Table
    what: str
    name: str
    item: str


_FEW = (
    _Few(tables.datasets, "dataset key", "name", ""),
    _Few(tables.documents, "document key", "kind", "document"),
    _Few(tables.streams, "stream key", "kind", "document"),
    _Few(tables.person_notes, "note key", "kind", "person"),
)


def is_own(opened: Opened) -> bool:
    """Whether the provider opens any of the vault's keys; also where there is none to try.

    For a vault whose index key does not open. Raises Unavailable.
    """
    tried = 0
    with opened.database.reading() as connection:
        for few in _FEW:
            for row in connection.execute(sa.select(few.table).limit(_TRIED)).mappings().all():
                tried += 1
                with suppress(VerificationError, Refused):
                    name, item = row[few.name], row[few.item] if few.item else b""
                    opened.own_key(row["epoch"], row["wrapped"], few.what, name, item)
                    return True
    return tried == 0


class Rotation:
    """Rotates the keys of an open vault."""

    def __init__(self, opened: Opened, descriptions: Descriptions) -> None:
        self._opened = opened
        self._descriptions = descriptions

    def run(self) -> int:
        """See `Vault.rotate`."""
        opened = self._opened
        opened.check_writes()
        epoch = opened.provider.new_epoch()
        opened.fault("rotate:begun")
        self._index_key(epoch)
        opened.fault("rotate:index")
        with opened.provider.batch("rotation", self._count()):
            while self._left(epoch):
                for few in _FEW:
                    self._few(few, epoch)
                self._data_keys(epoch)
        opened.fault("rotate:wrapped")
        opened.database.cut_log()
        for old in opened.provider.epochs():
            if old < epoch:
                opened.provider.destroy(old)
                opened.fault("rotate:destroyed")
        return epoch

    def _count(self) -> int:
        """How many keys are unwrapped, about: all of them, and those that are tried."""
        with self._opened.database.reading() as connection:

            def count(table: sa.Table) -> int:
                return int(bulk.fetch(connection, sa.select(sa.func.count()).select_from(table))[0][0])

            many = count(tables.keys)
            return many + many // _BATCH + 1 + 2 * sum(count(few.table) for few in _FEW)

    def _index_key(self, epoch: int) -> None:
        opened, vault = self._opened, tables.vault
        place = encode(opened.index_place())
        with opened.database.transaction() as connection:
            wrapped = opened.provider.wrap(epoch, opened.index_key, place)
            check_wrap(opened.provider, epoch, opened.index_key, wrapped, place)
            connection.execute(vault.update().values(epoch=epoch, wrapped=wrapped))

    def _left(self, epoch: int) -> int:
        """How many keys of an older epoch there are. As a writer: nobody adds one meanwhile."""
        with self._opened.database.transaction() as connection:
            older = (
                sa.select(sa.func.count()).select_from(table).where(table.c.epoch < epoch)
                for table in (tables.keys, *(few.table for few in _FEW))
            )
            return sum(int(bulk.fetch(connection, statement)[0][0]) for statement in older)

    def _few(self, few: _Few, epoch: int) -> None:
        opened, table = self._opened, few.table
        with opened.database.transaction() as connection:
            for row in connection.execute(sa.select(table).where(table.c.epoch < epoch)).mappings().all():
                name, item = row[few.name], row[few.item] if few.item else b""
                key = opened.own_key(row["epoch"], row["wrapped"], few.what, name, item)
                place = encode(opened.place(few.what, name, item=item))
                wrapped = opened.provider.wrap(epoch, key, place)
                check_wrap(opened.provider, epoch, key, wrapped, place)
                mine = table.c[few.name] == name
                if few.item:
                    mine &= table.c[few.item] == item
                connection.execute(table.update().where(mine).values(epoch=epoch, wrapped=wrapped))
        opened.fault("rotate:few")

    def _data_keys(self, epoch: int) -> None:
        keys, after = tables.keys, -(2**63)
        statement = sa.select(keys).where((keys.c.epoch < epoch) & (keys.c.first > sa.bindparam("after")))
        statement = statement.order_by(keys.c.first).limit(_BATCH)
        change = (
            keys.update().where(keys.c.first == sa.bindparam("at")).values(epoch=epoch, wrapped=sa.bindparam("wrap"))
        )
        while True:
            with self._opened.database.transaction() as connection:
                some = [KeyRow(*row) for row in bulk.fetch(connection, statement.params(after=after))]
                if not some:
                    return
                wraps = self._again(some, self._names(connection), epoch)
                bulk.run_many(
                    connection, change, [{"at": row.first, "wrap": w} for row, w in zip(some, wraps, strict=True)]
                )
                self._opened.fault("rotate:batch")
            after = some[-1].first
            self._opened.fault("rotate:committed")

    def _names(self, connection: sa.Connection) -> dict[int, tuple[str, Loads]]:
        infos = self._descriptions.all(connection)
        return {info.number: (info.name, Loads(self._opened, info)) for info in infos}

    def _again(self, rows: Sequence[KeyRow], names: Mapping[int, tuple[str, Loads]], epoch: int) -> list[bytes]:
        """The wraps of data keys under `epoch`. Raises VerificationError where one was altered or is nobody's."""
        if any(row.first >> ROW_BITS not in names for row in rows):
            raise VerificationError("privacy.vault_cell")
        places = [row.place(names[row.first >> ROW_BITS][1].of(row.load)) for row in rows]
        wraps = [(row.wrapped, place) for row, place in zip(rows, places, strict=True)]
        found = unwrap_all(self._opened.provider, [row.epoch for row in rows], wraps)
        items = []
        for row, place, key in zip(rows, places, found, strict=True):
            if key is None:
                raise VerificationError("privacy.vault_dataset", dataset=names[row.first >> ROW_BITS][0])
            items.append((key, place))
        again = self._opened.provider.wrap_many(epoch, items)
        check_wrap(self._opened.provider, epoch, items[-1][0], again[-1], items[-1][1])
        return again
