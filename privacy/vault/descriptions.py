"""Descriptions of the datasets in a vault: columns, versions and exact totals, each sealed under a key of its own.

The totals make completeness checkable where rows may have been erased: rows and keys that are missing, added or moved
between states do not add up to what is sealed here.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import sqlalchemy as sa
from cryptography.exceptions import InvalidTag

from privacy.suites import AES_256_GCM
from privacy.vault.opened import Opened, number
from privacy.vault.rows import StoredColumn
from privacy.vault.tables import datasets
from wire.canonical import Wire, decode, encode
from wire.errors import Refused, VerificationError
from wire.identifiers import Name

Count = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]

_KEY, _DESCRIPTION = "dataset key", "dataset"


class DatasetInfo(Wire, frozen=True, tag="privacy.vault_dataset"):
    """A dataset in the vault. Private.

    version: how often it was loaded, with what was added; rows: how many are kept; keys: data keys;
    restricted: rows under restricted keys, among `rows`; suite: of rows, unless a column says another. number,
    next_row: where its rows stand (`privacy.vault.tables`); positions: how many rows were ever loaded.
    has_record_ids: rows have ids; has_persons: persons were named apart from them. changes: how often rows were erased,
    restricted or let go again: a copy of the same number, version and changes holds the same rows.
    """

    name: Name
    version: Annotated[int, msgspec.Meta(ge=1)]
    rows: Count
    columns: tuple[StoredColumn, ...]
    schema_hash: bytes
    has_record_ids: bool
    has_persons: bool = False
    suite: int = AES_256_GCM
    keys: Count = 0
    restricted: Count = 0
    number: Count = 0
    next_row: Count = 0
    positions: Count = 0
    changes: Count = 0

    @property
    def active(self) -> int:
        """Rows that may be used."""
        return self.rows - self.restricted


class Descriptions:
    """The descriptions of an open vault; every call is in a transaction of the caller's."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened

    def of(self, connection: sa.Connection, dataset: str) -> DatasetInfo:
        """One dataset's. Raises Refused (no such dataset), VerificationError (altered)."""
        row = connection.execute(sa.select(datasets).where(datasets.c.name == dataset)).one_or_none()
        if row is None:
            raise Refused("privacy.no_dataset", dataset=dataset)
        return self._info(row)

    def all(self, connection: sa.Connection) -> tuple[DatasetInfo, ...]:
        """Those of every dataset, by name."""
        return tuple(map(self._info, connection.execute(sa.select(datasets).order_by(datasets.c.name))))

    def numbers(self, connection: sa.Connection) -> dict[int, str]:
        """The names of the datasets by number, unchecked."""
        return {row.number: row.name for row in connection.execute(sa.select(datasets.c.number, datasets.c.name))}

    def put(self, connection: sa.Connection, info: DatasetInfo) -> None:
        """A new dataset's, or a new load's, under a fresh key."""
        key, epoch, wrapped = self._opened.new_key(_KEY, info.name)
        connection.execute(datasets.delete().where(datasets.c.name == info.name))
        row = {"name": info.name, "number": info.number, "version": info.version, "epoch": epoch, "wrapped": wrapped}
        connection.execute(datasets.insert().values(**row, sealed=self._sealed(key, info)))

    def change(self, connection: sa.Connection, info: DatasetInfo, **totals: int) -> DatasetInfo:
        """`info` with other totals, under the same key."""
        changed = msgspec.structs.replace(info, **totals, changes=info.changes + 1)
        row = connection.execute(sa.select(datasets).where(datasets.c.name == info.name)).one()
        connection.execute(
            datasets.update().where(datasets.c.name == info.name).values(sealed=self._sealed(self._key(row), changed))
        )
        return changed

    def _sealed(self, key: bytes, info: DatasetInfo) -> bytes:
        place = self._opened.place(_DESCRIPTION, info.name, version=info.version)
        return self._opened.seal(key, encode(info), place)

    def _key(self, row: Any) -> bytes:
        return self._opened.own_key(row.epoch, row.wrapped, _KEY, row.name)

    def _info(self, row: Any) -> DatasetInfo:
        try:
            place = self._opened.place(_DESCRIPTION, row.name, version=number(row.version))
            info = decode(DatasetInfo, self._opened.unseal(self._key(row), row.sealed, place))
        except (InvalidTag, VerificationError):
            raise VerificationError("privacy.vault_dataset", dataset=row.name) from None
        if info.number != row.number or info.name != row.name:
            raise VerificationError("privacy.vault_dataset", dataset=row.name)
        return info
