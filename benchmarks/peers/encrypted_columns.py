"""Records in encrypted columns of SQLAlchemy-Utils, in its own environment (`make peers`): one line in, one line out.

The nearest thing that a Python team picks for "encrypt what is in the database": ``StringEncryptedType`` with its
AES-GCM engine, one key for everything, each cell by itself. Left out, so that the comparison favours it: keys of
persons, binding of a cell to its row, erasure, rotation. The same rows as in benchmarks/vault.py, in one transaction.

Commands: ``write FOLDER NAME ROWS`` and ``read FOLDER NAME`` (answer: seconds), ``version``.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import sqlalchemy as sa
from sqlalchemy_utils import StringEncryptedType
from sqlalchemy_utils.types.encrypted.encrypted_type import AesGcmEngine

KEY = "a key of the benchmark"
KINDS = {"number": sa.BigInteger, "day": sa.Integer, "sex": sa.Unicode, "paid": sa.Float, "note": sa.Unicode}


def table() -> sa.Table:
    """One encrypted column for each column of the rows."""
    columns = [sa.Column(name, StringEncryptedType(kind, KEY, AesGcmEngine)) for name, kind in KINDS.items()]
    return sa.Table("records", sa.MetaData(), sa.Column("record", sa.Integer, primary_key=True), *columns)


def rows(count: int) -> list[dict[str, Any]]:
    """As `benchmarks.vault.records` makes them: what they say does not matter, only how long they are."""
    return [
        {"number": n, "day": n % 60_000, "sex": "fm"[n % 2], "paid": n / 7, "note": f"{n:016x}" * 60}
        for n in range(count)
    ]


def engine(folder: str, name: str) -> sa.Engine:
    """A plain SQLite file that commits as the vault's does."""
    made = sa.create_engine(f"sqlite:///{Path(folder) / name}.sqlite")
    with made.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        connection.exec_driver_sql("PRAGMA synchronous=FULL")
    return made


def write(folder: str, name: str, count: str) -> float:
    """Seconds to encrypt and insert `count` rows."""
    data, records, target = rows(int(count)), table(), engine(folder, name)
    records.create(target)
    began = perf_counter()
    with target.begin() as connection:
        connection.execute(records.insert(), data)
    return perf_counter() - began


def read(folder: str, name: str) -> float:
    """Seconds to read and decrypt all rows."""
    source = engine(folder, name)
    began = perf_counter()
    with source.connect() as connection:
        found = connection.execute(sa.select(table())).all()
    taken = perf_counter() - began
    if not found or found[1].number != 1:
        raise AssertionError("what was read is not what was written")
    return taken


def main() -> None:
    """Answer commands until standard input ends."""
    for line in sys.stdin:
        command, *words = line.split()
        if command == "version":
            answer = version("sqlalchemy-utils")
        else:
            answer = str(write(*words) if command == "write" else read(*words))
        print(answer, flush=True)


if __name__ == "__main__":
    main()
