"""The store of everything at home: SQLAlchemy Core over SQLite (the default) or PostgreSQL.

A `Schema` names the application whose data it is, its tables and its version. The data carries that mark, the version
and its owner: data of another application, another owner or a newer version is refused before anything is written.

One writer at a time, on both engines: SQLite by ``BEGIN IMMEDIATE``, PostgreSQL by an advisory lock that each
writing transaction takes first. So "look, then write" inside one `transaction` needs no further lock. A
transaction that returned is durable (``synchronous=FULL``; PostgreSQL's ``synchronous_commit``). SQLite's writers
wait by looking again and again, so that a busy one keeps the others out: those of one process take turns besides.

Errors of the drivers become `Unavailable` (busy, full, unreachable: try again) or `DecodeError` (damaged, not
ours). No message holds a statement, a parameter or a password: a URL is shown as host, port and name alone.
"""

from __future__ import annotations

import importlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, cast

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.schema import CreateSchema

from privacy.store import engine as engines
from privacy.store import sqlite_file
from privacy.store.engine import READS, Application
from privacy.store.holding import Holding
from privacy.store.turns import Turns
from wire.errors import DecodeError, Refused, Unavailable

mark = sa.Table(
    "medveil_data",
    sa.MetaData(),
    sa.Column("one", sa.Integer, sa.CheckConstraint("one = 1"), primary_key=True),
    sa.Column("application", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
)

Step = Callable[[sa.Connection], None]


_READERS_MS = 20
"""How long cutting the journal waits for those who read."""


def _no_fault(_place: str) -> None: ...


@dataclass(frozen=True)
class Schema:
    """What this program knows of an application's data: version, tables, and the way there.

    `steps[n]` leads from n to n + 1. parts: modules that define tables, imported before `tables` is looked at.
    """

    application: Application
    version: int
    tables: sa.MetaData
    steps: Mapping[int, Step] = field(default_factory=dict)
    parts: tuple[str, ...] = ()


class Database:
    """The open store. Make it with `open`; threads may share it."""

    def __init__(self, engine: sa.Engine, schema: Schema, place: str, path: Path | None) -> None:
        self._engine = engine
        self._reader = engine.execution_options(**{READS: True})
        self._application = schema.application
        self._tables = tuple(schema.tables.tables)
        self.place = place
        self.path = path
        self._turns = Turns()
        self._unwaiting: sqlite3.Connection | None = None
        self._held: Holding | None = None

    @classmethod
    def at(
        cls,
        url: str,
        schema: Schema,
        *,
        owner: str = "",
        alone: bool = False,
        backed_up: bool = False,
        fault: Callable[[str], None] = _no_fault,
    ) -> Self:
        """Open the store at `url` (``sqlite:////path/file`` or ``postgresql+psycopg://...``; secret: it may hold a
        password), make its tables if it is empty, bring older data to the present version.

        owner: whose data it is, bound at the first opening. alone: no other process that says so uses it meanwhile.
        backed_up: the operator says that a PostgreSQL database was backed up; without it older data there is refused.
        SQLite data is copied beside itself, checked, before.
        fault: called with the name of each step, for tests that stop there.
        Raises Refused (URL, another owner, no backup), DecodeError (damaged, another application's, newer),
        Unavailable (unreachable, busy, used by another process).
        """
        for part in schema.parts:
            importlib.import_module(part)
        parsed = engines.parse(url)
        path = Path(parsed.database or "") if parsed.get_backend_name() == "sqlite" else None
        place = str(path) if path else f"{parsed.host or 'local socket'}:{parsed.port or 5432}/{parsed.database or ''}"
        if path is not None:
            sqlite_file.prepare(path, schema.application.file)
        database = cls(engines.make(parsed, schema.application), schema, place, path)
        try:
            if alone:
                connect = database._connect_alone if path is None else None
                database._held = Holding.take(connect, path, place, schema.application.holder)
            database._adopt(owner, backed_up, schema, fault)
        except BaseException:
            database.close()
            raise
        return database

    @property
    def engine_name(self) -> Literal["sqlite", "postgresql"]:
        """Which engine keeps the data."""
        return "sqlite" if self.path is not None else "postgresql"

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """One writing transaction, alone: committed and durable when the block ends, undone if it raises.

        Raises Unavailable or DecodeError for the engine's own errors, ValueError for a broken constraint.
        """
        with self._turn(), self._translated(), self._engine.begin() as connection:
            if self.path is None:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(self._application.writer)))
            yield connection

    def statement(self, text: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run one statement in the driver's own words and markers, a transaction of its own; returns its rows.

        What it wrote is durable on return. It is for what every call does, and costs a fifth of a `transaction`. On
        PostgreSQL a statement that writes takes the lock `writer` itself. Raises as `transaction`.
        """
        with self._turn(), self._translated():
            borrowed = self._engine.raw_connection()
            try:
                connection: Any = borrowed.driver_connection
                if self.path is None:
                    connection.autocommit = True
                try:
                    cursor = connection.execute(text, values)
                    return cursor.fetchall() if cursor.description else []
                finally:
                    if self.path is None:
                        connection.autocommit = False
            except self._engine.dialect.loaded_dbapi.Error as error:
                raise self._wrapped(error) from None
            finally:
                borrowed.close()

    def glance(self, text: str) -> tuple[Any, ...] | None:
        """The first row of a short query on the SQLite file's latest state, in microseconds: waits for nobody.

        None where it would have to wait, or there is none. Raises as `transaction`.
        """
        cursor = self._at_once(text, ())
        return None if cursor is None else cursor.fetchone()

    def statement_at_once(self, text: str, values: Sequence[object] = ()) -> bool:
        """As `statement`, if nobody else writes: False, and nothing is done, where it would have to wait.

        What it waits for is the disk alone. It leaves the journal's tidying to `statement` and `transaction`, so that
        one in some hundreds must be one of those. False on PostgreSQL. Raises as `transaction`.
        """
        if self.path is None or not self._turns.take(0):
            return False
        try:
            return self._at_once(text, values) is not None
        finally:
            self._turns.pass_on()

    def _at_once(self, text: str, values: Sequence[object]) -> sqlite3.Cursor | None:
        """None where it is busy."""
        if self._unwaiting is None:
            with self._translated():
                borrowed = self._engine.raw_connection()
                self._unwaiting = cast(sqlite3.Connection, borrowed.driver_connection)
                borrowed.detach()  # the pool no longer counts it; it is closed with the store
                for pragma in ("busy_timeout=0", "wal_autocheckpoint=0"):
                    self._unwaiting.execute(f"PRAGMA {pragma}")
        try:
            return self._unwaiting.execute(text, values)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in sqlite_file.BUSY:
                return None
            with self._translated():
                raise self._wrapped(error) from None

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """One reading transaction: a view that no writer changes. Raises as `transaction`."""
        with self._translated(), self._reader.begin() as connection:
            if self.path is None:
                connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield connection

    def backup(self, target: Path) -> None:
        """Copy the SQLite file to the new file `target`, checked and durable, while the service runs.

        Raises Refused where `target` exists, and on PostgreSQL: there pg_dump is the operator's.
        """
        if self.path is None:
            raise Refused("database.operators_backup", place=self.place)
        sqlite_file.copy(self.path, target, self._application.file)

    def cut_log(self) -> bool:
        """Move SQLite's journal into the file and cut it, so that it keeps no deleted content.

        False where somebody reads an older state just now: call again later. On PostgreSQL deleted rows are vacuumed;
        the server's own log and replicas keep what they keep. Raises as `transaction`.
        """
        if self.path is None:
            for table in self._tables:
                self.statement(f"VACUUM {table}")
            return True
        with self._turn(), self._translated(), self._engine.connect() as connection:
            driver = cast(sqlite3.Connection, connection.connection.driver_connection)
            connection.rollback()  # a journal is not cut inside of a transaction
            try:
                driver.execute(f"PRAGMA busy_timeout={_READERS_MS}")
                return bool(driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)
            finally:
                driver.execute(f"PRAGMA busy_timeout={engines.BUSY_SECONDS * 1000:.0f}")

    def check(self) -> None:
        """Ask the engine for one row, for a readiness check. Raises as `transaction`."""
        with self.reading() as connection:
            connection.execute(sa.select(mark.c.version)).one()

    def keep_held(self) -> None:
        """See that no other process can use the database, and hold it again where the connection for that broke.

        Until it is held again nothing is written. Synchronous. Raises Unavailable (``database.in_use``: another
        process holds it; unreachable).
        """
        if self._held is not None:
            self._held.keep()

    def _connect_alone(self) -> sa.Connection:
        """A connection for the lock, which commits by itself and lasts."""
        return self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")

    def close(self) -> None:
        """Close every connection. What was committed is durable already."""
        if self._held is not None:
            self._held.close()
        if self._unwaiting is not None:
            self._unwaiting.close()
            self._unwaiting = None
        self._engine.dispose()

    def __repr__(self) -> str:
        return f"Database({self.place!r})"

    def _adopt(self, owner: str, backed_up: bool, schema: Schema, fault: Callable[[str], None]) -> None:
        """Check whose data this is, in which version; create or migrate."""
        with self.transaction() as connection:
            if self.path is None and schema.application.namespace:
                connection.execute(CreateSchema(schema.application.namespace, if_not_exists=True))
            found = set(sa.inspect(connection).get_table_names())
            if not found and (self.path is None or sqlite_file.is_unmarked(connection)):
                fault("create:begun")
                self._create(connection, schema.tables)
                if mark.name not in schema.tables.tables:
                    mark.create(connection)
                row = {"one": 1, "application": schema.application.name, "version": schema.version, "owner": owner}
                connection.execute(mark.insert().values(row))
                if self.path is not None:
                    sqlite_file.sign(connection, schema.application.file, schema.version)
                fault("create:written")
                return
            version = self._version(connection, found, owner, schema)
            if self.path is not None and not sqlite_file.is_as_made(connection, schema.tables.tables.values()):
                raise DecodeError("database.damaged", place=self.place)
        if version > schema.version:
            raise DecodeError("database.newer", place=self.place, version=version, known=schema.version)
        if version < schema.version:
            self._migrate(version, backed_up, schema, fault)
        with self.reading() as connection:
            missing = set(schema.tables.tables) - set(sa.inspect(connection).get_table_names())
        if missing:
            raise DecodeError("database.damaged", place=self.place)

    def _create(self, connection: sa.Connection, tables: sa.MetaData) -> None:
        if self.path is None:
            tables.create_all(connection)
            return
        for statement, values in engines.sqlite_tables(tables, frozenset(tables.tables)):
            connection.exec_driver_sql(statement, values)

    def _version(self, connection: sa.Connection, found: set[str], owner: str, schema: Schema) -> int:
        signed = self.path is None or sqlite_file.is_signed(connection, schema.application.file)
        row = connection.execute(sa.select(mark)).one_or_none() if signed and mark.name in found else None
        if row is None or row.application != schema.application.name:
            raise DecodeError("database.other_application", place=self.place)
        if owner and row.owner != owner:
            raise Refused("database.other_owner", place=self.place, owner=row.owner, asked=owner)
        return int(row.version)

    def _migrate(self, version: int, backed_up: bool, schema: Schema, fault: Callable[[str], None]) -> None:
        """One transaction a step, which also raises the version: a crash leaves a whole version."""
        if any(step not in schema.steps for step in range(version, schema.version)):
            raise DecodeError("database.too_old", place=self.place, version=version)
        if self.path is not None:
            aside = self.path.with_name(f"{self.path.name}.version-{version}")
            sqlite_file.copy(self.path, aside, schema.application.file, replace=True)
            fault("migrate:copied")
        elif not backed_up:
            raise Refused("database.no_backup", place=self.place, version=version, known=schema.version)
        for step in range(version, schema.version):
            with self.transaction() as connection:
                fault("migrate:begun")
                if connection.execute(sa.select(mark.c.version)).scalar_one() != step:
                    raise Unavailable("database.busy", place=self.place, retry_after=1)  # another process migrates
                schema.steps[step](connection)
                connection.execute(mark.update().values(version=step + 1))
                fault("migrate:written")
            fault("migrate:committed")

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """This process's turn to write. PostgreSQL's own lock is fair."""
        if self._held is not None:
            self._held.check()
        if self.path is None:
            yield
            return
        if not self._turns.take(engines.BUSY_SECONDS):
            raise Unavailable("database.busy", place=self.place, retry_after=1)
        try:
            yield
        finally:
            self._turns.pass_on()

    def _wrapped(self, error: Exception) -> BaseException:
        """The driver's error as SQLAlchemy would have raised it."""
        dialect = self._engine.dialect
        return exc.DBAPIError.instance(
            None, None, error, dialect.loaded_dbapi.Error, hide_parameters=True, dialect=dialect
        )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except exc.SQLAlchemyError as error:
            engines.translate(error, self.place)
        except self._engine.dialect.loaded_dbapi.Error as error:  # of `privacy.store.bulk`
            engines.translate(cast(exc.SQLAlchemyError, self._wrapped(error)), self.place)
        except UnicodeDecodeError:  # what the driver took for text
            raise DecodeError("database.damaged", place=self.place) from None
