"""One home to a database: what keeps a restored home, its original or any other from using one database together.

A database outside of the home (PostgreSQL, or a file of its own) outlives it: a home that came back from a backup names
the same one as its original. Two things keep them apart:

* a process holds a lock as long as it uses the database (`privacy.store.holding`);
* the database remembers which home it is of (`belong`). A home that came back takes it over at its first start; from
  then on its original is refused, also while nothing runs.
"""

from __future__ import annotations

import sqlalchemy as sa

from wire.errors import Refused

ID_BYTES = 16

_tables = sa.MetaData()
# Not one of the service's own tables, which come and go with its version: it must be there before those are looked at.
_home = sa.Table(
    "medveil_home",
    _tables,
    sa.Column("one", sa.Integer, sa.CheckConstraint("one = 1"), primary_key=True),
    sa.Column("home", sa.LargeBinary, nullable=False),
)


def belong(connection: sa.Connection, home: bytes, *, taking_over: bool, place: str) -> None:
    """In a writing transaction: the database is of this home from here on.

    home: its 16 bytes. taking_over: it came back from a backup, and is the one from now on. Raises Refused where the
    database is another home's.
    """
    _tables.create_all(connection)
    row = connection.execute(sa.select(_home.c.home)).one_or_none()
    if row is None:
        connection.execute(_home.insert().values(one=1, home=home))
    elif taking_over:
        connection.execute(_home.update().values(home=home))
    elif bytes(row.home) != home:
        raise Refused("database.other_home", place=place)
