"""The engines below the store: SQLite and PostgreSQL, how they are opened, and their errors in words.

No message holds a statement, a parameter or a password: a URL is shown as host, port and name alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NoReturn

import sqlalchemy as sa
from sqlalchemy import event, exc, util
from sqlalchemy.pool import ConnectionPoolEntry

from privacy.store import sqlite_file
from wire.errors import DecodeError, Refused, Unavailable

BUSY_SECONDS = 5
READS = "medveil_reads"
"""The execution option of a connection that only reads."""

_POOL = 9
"""Connections at most: eight at work, and one that holds the database."""
_COMPILED: Any = util.LRUCache(1000)
"""SQLite's statements in its own words, for all files of the process."""


@dataclass(frozen=True)
class Application:
    """Whose data a database holds. file: the number in a SQLite file's header.

    writer, holder: PostgreSQL's advisory locks of whoever writes, and of the one process. namespace: its schema on
    PostgreSQL, so that two applications can share a database; "" for the default one. pragmas: of SQLite, besides and
    before its own.
    """

    name: str
    file: int
    writer: int
    holder: int
    namespace: str = ""
    pragmas: tuple[str, ...] = ()


def parse(url: str) -> sa.URL:
    """An address that medveil knows: a SQLite file's or a PostgreSQL database's. Raises Refused."""
    try:
        parsed = sa.make_url(url)
    except (exc.ArgumentError, ValueError):
        raise Refused("database.url") from None
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        if not parsed.database or parsed.database == ":memory:" or parsed.query or parsed.database.startswith("file:"):
            raise Refused("database.url")
        return parsed
    if parsed.drivername in ("postgresql", "postgresql+psycopg") and parsed.database:
        return parsed.set(drivername="postgresql+psycopg")
    raise Refused("database.url")


def make(url: sa.URL, application: Application) -> sa.Engine:
    """The engine of a URL that `parse` gave. Raises Refused where the driver is not installed."""
    pool: dict[str, Any] = {"pool_size": _POOL, "max_overflow": 0, "pool_timeout": BUSY_SECONDS}
    if url.get_backend_name() == "sqlite":
        arguments: dict[str, Any] = {"timeout": BUSY_SECONDS, "check_same_thread": False}
        own = {"compiled_cache": _COMPILED}
        engine = sa.create_engine(url, hide_parameters=True, connect_args=arguments, execution_options=own, **pool)
        engine.dialect = _sqlite()
        event.listen(engine, "connect", partial(_connected, application.pragmas))
        event.listen(engine, "begin", _begun)
        return engine
    options = f"-c lock_timeout={BUSY_SECONDS}s -c statement_timeout=30s -c idle_in_transaction_session_timeout=60s"
    # A machine that is gone without a word is noticed in 25 s: what its connections held is free then.
    if application.namespace:
        options += f" -c search_path={application.namespace}"
    options += " -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
    arguments = {"connect_timeout": BUSY_SECONDS, "options": options, "application_name": "medveil", **_trust(url)}
    try:
        return sa.create_engine(url, hide_parameters=True, pool_pre_ping=True, connect_args=arguments, **pool)
    except ModuleNotFoundError:
        raise Refused("database.no_driver") from None


@cache
def _sqlite() -> sa.Dialect:
    """SQLite's dialect, one for all files of the process: what was compiled for one holds for all."""
    memory = sa.create_engine("sqlite://")
    try:
        with memory.connect():  # the dialect learns what it speaks to
            return memory.dialect
    finally:
        memory.dispose()


@cache
def sqlite_tables(tables: sa.MetaData, _names: frozenset[str]) -> tuple[tuple[str, Any], ...]:
    """Statements, with their values, that make `tables`, of those names, in an empty SQLite file: as in memory."""
    made: list[tuple[str, Any]] = []

    def heard(_connection: object, _cursor: object, statement: str, values: Any, *_: object) -> None:
        made.append((statement, values))

    memory = sa.create_engine("sqlite://")
    event.listen(memory, "before_cursor_execute", heard)
    try:
        with memory.connect() as connection:
            tables.create_all(connection, checkfirst=False)
    finally:
        memory.dispose()
    return tuple(made)


def _trust(url: sa.URL) -> dict[str, str]:
    """TLS with a checked certificate towards another machine, unless the address says otherwise (``?sslmode=``)."""
    here = not url.host or url.host.startswith("/") or url.host in ("localhost", "127.0.0.1", "::1")
    return {} if here or "host" in url.query or "sslmode" in url.query else {"sslmode": "verify-full"}


def _connected(pragmas: tuple[str, ...], connection: Any, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself; _begun does
    for pragma in (*pragmas, "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "trusted_schema=OFF"):
        connection.execute(f"PRAGMA {pragma}")


def _begun(connection: sa.Connection) -> None:
    reads = connection.get_execution_options().get(READS, False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def translate(error: exc.SQLAlchemyError, place: str) -> NoReturn:
    """The driver's error as one of ours; its own text, which may hold data, is dropped."""
    cause = error.orig if isinstance(error, exc.DBAPIError) else None
    number: int = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    state: str = getattr(cause, "sqlstate", None) or ""
    if number in sqlite_file.DAMAGED or state.startswith("XX"):
        raise DecodeError("database.damaged", place=place) from None
    if isinstance(error, exc.IntegrityError | exc.DataError) or state == "25006":  # a write where only reads go
        raise ValueError("a constraint of the database was broken") from None
    busy = number in sqlite_file.BUSY or state in ("55P03", "57014", "40001", "40P01", "53300")
    if busy or isinstance(error, exc.TimeoutError):
        raise Unavailable("database.busy", place=place, retry_after=1) from None
    if number == sqlite_file.FULL or state == "53100":
        raise Unavailable("database.full", place=place, retry_after=60) from None
    refused = state == "42501" or state.startswith("57P")  # not permitted; the server stops
    if refused or isinstance(error, exc.OperationalError | exc.InterfaceError | exc.InternalError):
        raise Unavailable("database.unreachable", place=place, retry_after=5) from None
    if type(error) is exc.DatabaseError:
        raise DecodeError("database.damaged", place=place) from None
    raise ValueError("a statement does not fit the database") from None
