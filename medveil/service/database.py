"""The service's own store: SQLAlchemy Core over SQLite (the default) or PostgreSQL.

One `MetaData` holds the tables of all parts; a part defines its own, beside the code that uses them, and
stands in `PARTS`. The data carries an application mark, a version and its owner (organisation and chain):
data of another application, another owner or a newer version is refused before anything is written.

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
from typing import Any, Literal, NamedTuple, NoReturn, cast

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.pool import ConnectionPoolEntry

from medveil.service import sqlite_file
from medveil.service.home.one_home import Holding, belong
from medveil.service.security.turns import Turns
from wire.errors import DecodeError, Refused, Unavailable

VERSION = 1
PARTS = (
    "medveil.service.security.security_log",
    "medveil.service.accounts.people",
    "medveil.service.accounts.throttling",
    "medveil.service.accounts.ways_in",
    "medveil.service.accounts.standing",
    "medveil.service.accounts.used_nonces",
    "medveil.service.accounts.oidc",
    "medveil.service.work.job_tables",
    "medveil.network.post",
)
"""Modules that define tables. Whoever adds tables names its module here."""

metadata = sa.MetaData()

_BUSY_SECONDS = 5
_POOL = 9
"""Connections at most: eight at work, and one that holds the database."""
WRITER = 0x6D76_6731
"""The advisory lock of PostgreSQL that whoever writes holds: "mvg1"."""

mark = sa.Table(
    "medveil_data",
    metadata,
    sa.Column("one", sa.Integer, sa.CheckConstraint("one = 1"), primary_key=True),
    sa.Column("application", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
)
_APPLICATION = "medveil-service"

Step = Callable[[sa.Connection], None]


def _no_fault(_place: str) -> None: ...


@dataclass(frozen=True)
class Schema:
    """The version that this program knows, its tables, and the way there: `steps[n]` leads from n to n + 1."""

    version: int = VERSION
    steps: Mapping[int, Step] = field(default_factory=dict)
    tables: sa.MetaData = metadata
    parts: tuple[str, ...] = PARTS


class Claim(NamedTuple):
    """Which home uses a database. id: 16 random bytes. takes_over: it came back from a backup, for its original."""

    id: bytes
    takes_over: bool


class Database:
    """The open store. Make it with `open`; threads may share it."""

    def __init__(self, engine: sa.Engine, place: str, path: Path | None) -> None:
        self._engine = engine
        self._reader = engine.execution_options(medveil_reads=True)
        self.place = place
        self.path = path
        self._turns = Turns()
        self._unwaiting: sqlite3.Connection | None = None
        self._held: Holding | None = None

    @classmethod
    def open(
        cls,
        url: str,
        *,
        owner: str = "",
        home: Claim | None = None,
        backed_up: bool = False,
        schema: Schema | None = None,
        fault: Callable[[str], None] = _no_fault,
    ) -> Database:
        """Open the store at `url` (``sqlite:////path/file`` or ``postgresql+psycopg://...``; secret: it may hold a
        password), make its tables if it is empty, bring older data to the present version.

        owner: whose data it is, bound at the first opening. home: which home uses it; then no other process and no
        other home does (`medveil.service.home.one_home`). backed_up: the operator says that a PostgreSQL database was
        backed up; without it older data there is refused. SQLite data is copied beside itself, checked, before.
        fault: called with the name of each step, for tests that stop there.
        Raises Refused (URL, another owner or home, no backup), DecodeError (damaged, another application's, newer),
        Unavailable (unreachable, busy, used by another process).
        """
        schema = schema or Schema()
        for part in schema.parts:
            importlib.import_module(part)
        parsed = _parsed(url)
        path = Path(parsed.database or "") if parsed.get_backend_name() == "sqlite" else None
        place = str(path) if path else f"{parsed.host or 'local socket'}:{parsed.port or 5432}/{parsed.database or ''}"
        if path is not None:
            sqlite_file.prepare(path)
        database = cls(_engine(parsed), place, path)
        try:
            if home is not None:
                database._held = Holding.take(database._connect_alone if path is None else None, path, place)
            database._adopt(owner, backed_up, schema, fault)
            if home is not None:
                with database.transaction() as connection:
                    belong(connection, home.id, taking_over=home.takes_over, place=place)
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
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(WRITER)))
            yield connection

    def statement(self, text: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run one statement in the driver's own words and markers, a transaction of its own; returns its rows.

        What it wrote is durable on return. It is for what every call does, and costs a fifth of a `transaction`. On
        PostgreSQL a statement that writes takes the lock `WRITER` itself. Raises as `transaction`.
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
        sqlite_file.copy(self.path, target)

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
            found = set(sa.inspect(connection).get_table_names())
            if not found and (self.path is None or sqlite_file.is_unmarked(connection)):
                fault("create:begun")
                schema.tables.create_all(connection)
                if mark.name not in schema.tables.tables:
                    mark.create(connection)
                row = {"one": 1, "application": _APPLICATION, "version": schema.version, "owner": owner}
                connection.execute(mark.insert().values(row))
                if self.path is not None:
                    sqlite_file.sign(connection)
                fault("create:written")
                return
            version = self._version(connection, found, owner)
        if version > schema.version:
            raise DecodeError("database.newer", place=self.place, version=version, known=schema.version)
        if version < schema.version:
            self._migrate(version, backed_up, schema, fault)
        with self.reading() as connection:
            missing = set(schema.tables.tables) - set(sa.inspect(connection).get_table_names())
        if missing:
            raise DecodeError("database.damaged", place=self.place)

    def _version(self, connection: sa.Connection, found: set[str], owner: str) -> int:
        signed = self.path is None or sqlite_file.is_signed(connection)
        row = connection.execute(sa.select(mark)).one_or_none() if signed and mark.name in found else None
        if row is None or row.application != _APPLICATION:
            raise DecodeError("database.other_application", place=self.place)
        if owner and row.owner != owner:
            raise Refused("database.other_owner", place=self.place, owner=row.owner, asked=owner)
        return int(row.version)

    def _migrate(self, version: int, backed_up: bool, schema: Schema, fault: Callable[[str], None]) -> None:
        """One transaction a step, which also raises the version: a crash leaves a whole version."""
        if any(step not in schema.steps for step in range(version, schema.version)):
            raise DecodeError("database.too_old", place=self.place, version=version)
        if self.path is not None:
            sqlite_file.copy(self.path, self.path.with_name(f"{self.path.name}.version-{version}"), replace=True)
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
        if not self._turns.take(_BUSY_SECONDS):
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
            _raise(error, self.place)


def restore(backup: Path, target: Path, *, replace: bool = False) -> None:
    """Put the checked copy of `backup` in the place of the SQLite file `target`, durably.

    replace: what stands at `target` is kept as ``NAME.before-restore``; without it an existing file is refused.
    Sessions, tokens and nonces come back as of the backup: whoever restores ends them (`ways_in.end_all`).
    Raises Refused (target exists; backup of a newer version), DecodeError (no sound backup of ours), Unavailable
    (a process uses the target).
    """
    if sqlite_file.version_of(backup) > VERSION:
        raise DecodeError("database.newer", place=str(backup), version=sqlite_file.version_of(backup), known=VERSION)
    sqlite_file.put_back(backup, target, replace=replace)


def _parsed(url: str) -> sa.URL:
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


def _engine(url: sa.URL) -> sa.Engine:
    pool: dict[str, Any] = {"pool_size": _POOL, "max_overflow": 0, "pool_timeout": _BUSY_SECONDS}
    if url.get_backend_name() == "sqlite":
        arguments: dict[str, Any] = {"timeout": _BUSY_SECONDS, "check_same_thread": False}
        engine = sa.create_engine(url, hide_parameters=True, connect_args=arguments, **pool)
        event.listen(engine, "connect", _connected)
        event.listen(engine, "begin", _begun)
        return engine
    options = f"-c lock_timeout={_BUSY_SECONDS}s -c statement_timeout=30s -c idle_in_transaction_session_timeout=60s"
    # A machine that is gone without a word is noticed in 25 s: what its connections held is free then.
    options += " -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
    arguments = {"connect_timeout": _BUSY_SECONDS, "options": options, "application_name": "medveil", **_trust(url)}
    try:
        return sa.create_engine(url, hide_parameters=True, pool_pre_ping=True, connect_args=arguments, **pool)
    except ModuleNotFoundError:
        raise Refused("database.no_driver") from None


def _trust(url: sa.URL) -> dict[str, str]:
    """TLS with a checked certificate towards another machine, unless the address says otherwise (``?sslmode=``)."""
    here = not url.host or url.host.startswith("/") or url.host in ("localhost", "127.0.0.1", "::1")
    return {} if here or "host" in url.query or "sslmode" in url.query else {"sslmode": "verify-full"}


def _connected(connection: Any, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself; _begun does
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "trusted_schema=OFF"):
        connection.execute(f"PRAGMA {pragma}")


def _begun(connection: sa.Connection) -> None:
    reads = connection.get_execution_options().get("medveil_reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _raise(error: exc.SQLAlchemyError, place: str) -> NoReturn:
    """The driver's error as one of ours; its own text, which may hold data, is dropped."""
    cause = error.orig if isinstance(error, exc.DBAPIError) else None
    number: int = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    state: str = getattr(cause, "sqlstate", None) or ""
    if isinstance(error, exc.IntegrityError | exc.DataError) or state == "25006":  # a write where only reads go
        raise ValueError("a constraint of the database was broken") from None
    if number in sqlite_file.DAMAGED or state.startswith("XX"):
        raise DecodeError("database.damaged", place=place) from None
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
