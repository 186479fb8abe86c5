"""The vault's tables, on SQLite and PostgreSQL alike.

A dataset has a number; its rows are numbered from `number` x 2^40 on, so that those of one dataset stand together, and
rows of one data key follow each other: a key knows its first row and how many it has, and nothing needs to search the
rows. A dataset that is loaded anew gets another number. Numbers of rows and datasets are not used twice.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from privacy.store import Application, Schema

VERSION = 2
FILE = int.from_bytes(b"mvlt", "big")
"""The number in the header of the vault's SQLite file, as in version 1."""
VAULT = Application(
    "medveil-vault",
    file=FILE,
    writer=0x6D76_7631,  # "mvv1"
    holder=0x6D76_7632,  # "mvv2"
    namespace="medveil_vault",
    # Large pages hold rows of a kilobyte without much waste. The journal is moved into the file every 64 MiB.
    pragmas=(
        "page_size=16384",
        "secure_delete=ON",
        "fullfsync=ON",
        "temp_store=MEMORY",
        "cache_size=-32768",
        "wal_autocheckpoint=4096",
    ),
)

ROW_BITS = 40
ACTIVE, RESTRICTED = 0, 1
"""States of a data key. An erased one is gone; its tombstone is in `erased`."""

_metadata = sa.MetaData()


def _integer(name: str, *, key: bool = False, null: bool = False) -> sa.Column[Any]:
    kind = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    return sa.Column(name, kind, primary_key=key, nullable=null, autoincrement=False)


def _bytes(name: str, *, key: bool = False, null: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.LargeBinary, primary_key=key, nullable=null)


def _text(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Text, primary_key=True, nullable=False)


def _table(name: str, *columns: sa.Column[Any]) -> sa.Table:
    return sa.Table(name, _metadata, *columns, sqlite_strict=True)


vault = _table("vault", _integer("one", key=True), _bytes("header"), _integer("epoch"), _bytes("wrapped"))
"""One row: whose vault this is (`VaultHeader`), and the wrapped index key."""

numbers = _table("numbers", _integer("number", key=True), _integer("state"))
"""Every number that a dataset had. state: 0 staged (a load that is not finished), 1 in use, 2 left."""
STAGED, IN_USE, LEFT = 0, 1, 2

datasets = _table(
    "datasets",
    _text("name"),
    _integer("number"),
    _integer("version"),
    _integer("epoch"),
    _bytes("wrapped"),
    _bytes("sealed"),
)
"""A dataset's key, wrapped, and its description (`DatasetInfo`), sealed."""

keys = _table(
    "keys",
    _integer("first", key=True),
    _bytes("key"),
    _bytes("person", null=True),
    _integer("rows"),
    _integer("load"),
    _integer("retain_until", null=True),
    _integer("state"),
    _integer("epoch"),
    _bytes("wrapped"),
)
"""Data keys. first: number of its first row; person: keyed id, null where a row is its own person."""
sa.Index(
    "keys_by_person", keys.c.person, postgresql_where=keys.c.person.isnot(None), sqlite_where=keys.c.person.isnot(None)
)

rows = _table(
    "rows",
    _integer("row", key=True),
    _integer("position"),
    _bytes("record", null=True),
    _bytes("sealed"),
    _bytes("apart", null=True),
)
"""Rows. position: its place in the table as loaded; record: keyed id, where it is not the person's; apart: the cells
under another suite than the rest."""
sa.Index(
    "rows_by_record", rows.c.record, postgresql_where=rows.c.record.isnot(None), sqlite_where=rows.c.record.isnot(None)
)

erased = _table("erased", _bytes("key", key=True), _integer("at"), _bytes("receipt"))
"""Tombstones of data keys that were destroyed. at: ms UTC."""

documents = _table(
    "documents",
    _text("kind"),
    _bytes("document", key=True),
    _integer("version"),
    _integer("epoch"),
    _bytes("wrapped"),
    _bytes("sealed"),
)

streams = _table(
    "streams",
    _text("kind"),
    _bytes("document", key=True),
    _integer("version"),
    _bytes("key"),
    _bytes("person", null=True),
    _integer("retain_until", null=True),
    _integer("state"),
    _bytes("blob"),
    _integer("epoch"),
    _bytes("wrapped"),
    _bytes("sealed"),
)
"""Large documents. key: id of its data key, person: keyed id, as in `keys`; blob: where its sealed text lies."""
sa.Index("streams_by_person", streams.c.person)

person_notes = _table(
    "person_notes",
    _text("kind"),
    _bytes("person", key=True),
    _integer("epoch"),
    _bytes("wrapped"),
    _bytes("sealed"),
)
"""What is kept about a person beside the records, such as opt-outs and legal holds; each under a key of its own."""

SCHEMA = Schema(VAULT, VERSION, _metadata)


def numbered(number: int) -> tuple[int, int]:
    """The first and last row that a dataset of this number can have."""
    return number << ROW_BITS, ((number + 1) << ROW_BITS) - 1
