"""Many rows at once, past SQLAlchemy's per-row work: what goes into a table and comes out of it by the million.

The statements are still Core's; only parameters and rows are the driver's own tuples. To be called inside a
transaction of `Database`, which turns the driver's errors into words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, cast

import sqlalchemy as sa

Row = tuple[Any, ...]

_AT_ONCE = 5_000
_numbers = count()


def insert(connection: sa.Connection, table: sa.Table, rows: Iterable[Row]) -> None:
    """Add rows, each with a value for every column of `table` in its order."""
    driver: Any = connection.connection.driver_connection
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" * len(table.columns))
        driver.executemany(f"INSERT INTO {table.name} ({names}) VALUES ({marks})", rows)
        return
    kinds = ["int8" if isinstance(column.type, sa.Integer) else _KINDS[type(column.type)] for column in table.columns]
    with driver.cursor() as cursor, cursor.copy(f"COPY {table.name} ({names}) FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(kinds)
        for row in rows:
            copy.write_row(row)


_KINDS: dict[type, str] = {sa.LargeBinary: "bytea", sa.Text: "text"}


def run_many(connection: sa.Connection, statement: sa.Update | sa.Delete, rows: Sequence[dict[str, Any]]) -> int:
    """Run a statement once for each set of parameters; returns how many rows it changed in all."""
    if not rows:
        return 0
    compiled = statement.compile(dialect=connection.dialect)
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        names = cast(Sequence[str], compiled.positiontup)
        fixed = compiled.params
        cursor = driver.executemany(
            compiled.string, [[row[name] if name in row else fixed[name] for name in names] for row in rows]
        )
        return int(cursor.rowcount)
    with driver.cursor() as cursor:
        cursor.executemany(compiled.string, [{**compiled.params, **row} for row in rows])
        return int(cursor.rowcount)


def fetch(connection: sa.Connection, statement: sa.Select[Any]) -> list[Row]:
    """All rows of a SELECT, as the driver's tuples."""
    return cast(list[Row], _cursor(connection, statement).fetchall())


def stream(connection: sa.Connection, statement: sa.Select[Any], size: int = _AT_ONCE) -> Iterator[list[Row]]:
    """The rows of a SELECT, `size` at a time, so that they need not all be in memory."""
    cursor = _cursor(connection, statement, streamed=True)
    try:
        while found := cursor.fetchmany(size):
            yield found
    finally:
        cursor.close()


@contextmanager
def taking(connection: sa.Connection, statement: sa.Select[Any]) -> Iterator[Callable[[int], list[Row]]]:
    """A function that gives the next so many rows of a SELECT, which need not all be in memory."""
    cursor = _cursor(connection, statement, streamed=True)
    try:
        yield lambda many: cursor.fetchmany(many) if many > 0 else []
    finally:
        cursor.close()


def _cursor(connection: sa.Connection, statement: sa.Select[Any], streamed: bool = False) -> Any:
    compiled = statement.compile(dialect=connection.dialect, compile_kwargs={"render_postcompile": True})
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        names = cast(Sequence[str], compiled.positiontup or ())
        return driver.execute(compiled.string, [compiled.params[name] for name in names])
    name = f"medveil_rows_{next(_numbers)}" if streamed else ""
    cursor = driver.cursor(name=name, binary=True)
    cursor.execute(compiled.string, compiled.params)
    return cursor
