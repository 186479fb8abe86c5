"""The service's own tables in a store (`privacy.store`): people, tokens, jobs, messages, the security log.

One `MetaData` holds the tables of all parts; a part defines its own, beside the code that uses them, and
stands in `PARTS`. The data carries an application mark, a version and its owner (organisation and chain).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

import sqlalchemy as sa

from medveil.service.home.one_home import belong
from privacy import store
from privacy.store import Application, Step, mark, sqlite_file
from wire.errors import DecodeError

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

SERVICE = Application("medveil-service", file=0x6D76_6731, writer=0x6D76_6731, holder=0x6D76_6732)
"""The numbers are "mvg1" and "mvg2"."""
WRITER = SERVICE.writer
"""The advisory lock of PostgreSQL that whoever writes holds."""

__all__ = ["PARTS", "SERVICE", "VERSION", "WRITER", "Claim", "Database", "Schema", "mark", "metadata", "restore"]


@dataclass(frozen=True)
class Schema(store.Schema):
    """The service's tables, unless a test names others."""

    application: Application = SERVICE
    version: int = VERSION
    tables: sa.MetaData = metadata
    steps: Mapping[int, Step] = field(default_factory=dict)
    parts: tuple[str, ...] = PARTS


class Claim(NamedTuple):
    """Which home uses a database. id: 16 random bytes. takes_over: it came back from a backup, for its original."""

    id: bytes
    takes_over: bool


class Database(store.Database):
    """The service's open store. Make it with `open`; threads may share it."""

    @classmethod
    def open(
        cls,
        url: str,
        *,
        owner: str = "",
        home: Claim | None = None,
        backed_up: bool = False,
        schema: Schema | None = None,
        fault: Callable[[str], None] = lambda _place: None,
    ) -> Self:
        """As `at`, with the service's tables.

        home: which home uses it; then no other process and no other home does (`medveil.service.home.one_home`).
        Raises as `at`; Refused for another home's.
        """
        database = cls.at(
            url, schema or Schema(), owner=owner, alone=home is not None, backed_up=backed_up, fault=fault
        )
        if home is not None:
            try:
                with database.transaction() as connection:
                    belong(connection, home.id, taking_over=home.takes_over, place=database.place)
            except BaseException:
                database.close()
                raise
        return database


def version_of(path: Path) -> int:
    """The version of the service's data in a SQLite file. Raises DecodeError (damaged, not ours), Unavailable."""
    return sqlite_file.version_of(path, SERVICE.file)


def restore(backup: Path, target: Path, *, replace: bool = False) -> None:
    """Put the checked copy of `backup` in the place of the SQLite file `target`, durably.

    replace: what stands at `target` is kept as ``NAME.before-restore``; without it an existing file is refused.
    Sessions, tokens and nonces come back as of the backup: whoever restores ends them (`ways_in.end_all`).
    Raises Refused (target exists; backup of a newer version), DecodeError (no sound backup of ours), Unavailable
    (a process uses the target).
    """
    if version_of(backup) > VERSION:
        raise DecodeError("database.newer", place=str(backup), version=version_of(backup), known=VERSION)
    sqlite_file.put_back(backup, target, SERVICE.file, replace=replace)
