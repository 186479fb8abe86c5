"""The vault beside bare AES-GCM and SQLite: what a key for every record costs."""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pyarrow
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks.machine import peer
from benchmarks.measure import Effort, Figure, beside, effort, in_turn
from privacy.keys import Argon2Cost, FileKeyProvider
from privacy.vault import Vault


def table(rows: int) -> pyarrow.Table:
    """Ten columns of numbers and two of categories, about as wide as the demo's tables. No real data."""
    source = secrets.token_bytes(10 * rows)
    columns: dict[str, Any] = {f"number_{c}": [b / 4 for b in source[c * rows : (c + 1) * rows]] for c in range(10)}
    for name, values in (("health", ("excellent", "good", "fair", "poor")), ("plan", ("yes", "no"))):
        columns[name] = [values[b % len(values)] for b in source[:rows]]
    return pyarrow.table(columns)


def bare_write(path: Path, data: pyarrow.Table, cipher: AESGCM) -> None:
    """One key for everything, no associated data, no padding; the same durability."""
    encoder = msgspec.msgpack.Encoder()
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("CREATE TABLE rows (position INTEGER PRIMARY KEY, sealed BLOB) STRICT")
        sealed = []
        for position, row in enumerate(zip(*(column.to_pylist() for column in data.columns), strict=True)):
            nonce = os.urandom(12)
            sealed.append((position, nonce + cipher.encrypt(nonce, encoder.encode(row), None)))
        database.execute("BEGIN")
        database.executemany("INSERT INTO rows VALUES (?, ?)", sealed)
        database.execute("COMMIT")


def bare_read(path: Path, names: list[str], cipher: AESGCM) -> pyarrow.Table:
    """The table back."""
    decoder = msgspec.msgpack.Decoder(list)
    with closing(sqlite3.connect(path)) as database:
        found = database.execute("SELECT sealed FROM rows ORDER BY position").fetchall()
    rows = [decoder.decode(cipher.decrypt(blob[:12], blob[12:], None)) for (blob,) in found]
    return pyarrow.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))


def run(quick: bool) -> Iterator[Figure]:
    """Ingest and read 20,000 rows of 12 columns (2,000 with --quick), each row with a key of its own."""
    data = table(2_000 if quick else 20_000)
    rows, names = data.num_rows, data.column_names
    cipher = AESGCM(secrets.token_bytes(32))
    bare = peer("cryptography", "one AES-GCM key, sqlite3")
    few = effort(quick, Effort(5, 10.0))
    with TemporaryDirectory(prefix="medveil-bench-") as name:
        folder = Path(name)
        provider = FileKeyProvider.create(folder / "keys", secrets.token_bytes(32), cost=Argon2Cost(1, 8, 1))
        with Vault.create(folder / "vault", provider, "hospital-1") as vault:

            def fresh() -> str:
                return f"d{secrets.token_hex(8)}"

            def bare_path(dataset: str) -> Path:
                return folder / f"{dataset}.sqlite"

            rounds = in_turn(
                lambda dataset: vault.ingest(dataset, data),
                lambda dataset: bare_write(bare_path(dataset), data, cipher),
                fresh,
                few,
            )
            yield beside("ingest", "records/s", bare, rounds, rows)

            vault.ingest("read", data)
            bare_write(bare_path("read"), data, cipher)
            if vault.read("read") != data or bare_read(bare_path("read"), names, cipher) != data:
                raise AssertionError("what was read is not what was written")
            rounds = in_turn(
                lambda _: vault.read("read"), lambda _: bare_read(bare_path("read"), names, cipher), lambda: None, few
            )
            yield beside("read", "records/s", bare, rounds, rows)
