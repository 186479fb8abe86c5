"""The vault beside its limit, a bare AES-GCM envelope and plain SQLite, and beside encrypted columns; and erasure.

The limit does the same main work with nothing around it: from an Arrow table, each record under a fresh key of its own,
the key wrapped, both inserted into a plain table in one transaction; and back to an Arrow table. It has no associated
data, no derived keys, no padding, no index of persons and no totals. Records are about a kilobyte, each of a person of
its own: the most keys that so many rows can have.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import msgspec
import pyarrow as pa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks import vault_extracts
from benchmarks.machine import ROOT, peer
from benchmarks.measure import CannotRun, Effort, Figure, Timed, beside, effort, in_turn, spread
from benchmarks.vault_decisions import decisions
from privacy.keys import Argon2Cost, FileKeyProvider
from privacy.vault import Vault

PEER = ROOT / ".peers" / "field-encryption" / "bin" / "python"
PEER_PROGRAM = ROOT / "benchmarks" / "peers" / "encrypted_columns.py"

RECORDS, PATIENTS = 50_000, 1_000_000
QUICK_RECORDS, QUICK_PATIENTS = 10_000, 20_000


def records(rows: int) -> pa.Table:
    """Records of about 1,000 bytes: a number, a day, a category, an amount, a note. No real data."""
    return pa.table(
        {
            "number": pa.array(range(rows), pa.int64()),
            "day": pa.array([n % 60_000 for n in range(rows)], pa.int32()),
            "sex": ["fm"[n % 2] for n in range(rows)],
            "paid": pa.array([n / 7 for n in range(rows)], pa.float64()),
            "note": [f"{n:016x}" * 60 for n in range(rows)],
        }
    )


def people(rows: int) -> list[str]:
    """A person for each record."""
    return [f"person-{number:09d}" for number in range(rows)]


class Bare:
    """The limit."""

    def __init__(self) -> None:
        self._wrapping = AESGCM(secrets.token_bytes(32))

    def write(self, path: Path, data: pa.Table) -> None:
        """Encrypt and insert, durably, in one transaction."""
        encode, wrap, rows = msgspec.msgpack.Encoder().encode, self._wrapping.encrypt, []
        for number, row in enumerate(zip(*(column.to_pylist() for column in data.columns), strict=True)):
            key, first, second = os.urandom(32), os.urandom(12), os.urandom(12)
            wrapped = first + wrap(first, key, None)
            rows.append((number, wrapped, second + AESGCM(key).encrypt(second, encode(row), None)))
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.execute("CREATE TABLE records (record INTEGER PRIMARY KEY, wrapped BLOB, sealed BLOB) STRICT")
            database.execute("BEGIN")
            database.executemany("INSERT INTO records VALUES (?, ?, ?)", rows)
            database.execute("COMMIT")

    def read(self, path: Path, schema: pa.Schema) -> pa.Table:
        """The table back."""
        decode, unwrap = msgspec.msgpack.Decoder(list).decode, self._wrapping.decrypt
        with closing(sqlite3.connect(path)) as database:
            found = database.execute("SELECT wrapped, sealed FROM records ORDER BY record").fetchall()
        rows = [
            decode(AESGCM(unwrap(wrapped[:12], wrapped[12:], None)).decrypt(sealed[:12], sealed[12:], None))
            for wrapped, sealed in found
        ]
        cells = zip(*rows, strict=True)
        return pa.table([pa.array(values, field.type) for values, field in zip(cells, schema, strict=True)], schema)


def run(quick: bool) -> Iterator[Figure]:
    """Write and read beside the limit and beside encrypted columns; erase one person; wrap all keys again; extracts
    beside plain Parquet; snapshots; decisions."""
    for part in (_throughput, _erasure, vault_extracts.figures, vault_extracts.recut):
        with TemporaryDirectory(prefix="medveil-bench-") as name:
            yield from part(Path(name), quick)
    yield from decisions(quick)


def _provider(folder: Path) -> FileKeyProvider:
    return FileKeyProvider.create(folder / "keys", secrets.token_bytes(32), cost=Argon2Cost(1, 8, 1))


def _throughput(folder: Path, quick: bool) -> Iterator[Figure]:
    count = QUICK_RECORDS if quick else RECORDS
    data, owners, bare, provider = records(count), people(count), Bare(), _provider(folder)
    few = effort(quick, Effort(7, 10.0))
    beside_it = peer("cryptography", "a bare envelope and sqlite3")
    open_vaults: list[Vault] = []

    def fresh() -> Vault:
        while open_vaults:
            open_vaults.pop().close()
        open_vaults.append(Vault.create(folder / secrets.token_hex(8) / "vault", provider, "hospital-1"))
        return open_vaults[-1]

    def bare_path(vault: Vault) -> Path:
        return vault.path.with_name("bare.sqlite")

    rounds = in_turn(
        lambda vault: vault.ingest("claims", data, owners),
        lambda vault: bare.write(bare_path(vault), data),
        fresh,
        few,
    )
    yield from _limited("vault_write", beside_it, rounds, count)
    vault = fresh()
    vault.ingest("claims", data, owners)
    bare.write(bare_path(vault), data)
    if vault.read("claims") != data or bare.read(bare_path(vault), data.schema) != data:
        raise AssertionError("what was read is not what was written")
    rounds = in_turn(
        lambda _: vault.read("claims"), lambda _: bare.read(bare_path(vault), data.schema), lambda: None, few
    )
    yield from _limited("vault_read", beside_it, rounds, count)
    yield from _beside_columns(folder, data, owners, provider, quick)
    vault.close()


def _limited(name: str, limit: str, rounds: Timed, count: int) -> Iterator[Figure]:
    """The rate, and its share of the limit's."""
    rate = beside(f"{name}_per_s", "records/s", limit, rounds, count)
    yield rate
    shares = [theirs / ours for ours, theirs in rounds]
    yield Figure(f"{name}_limit_ratio", median(shares), "share", None, None, spread(shares), len(rounds))


def _beside_columns(
    folder: Path, data: pa.Table, owners: list[str], provider: FileKeyProvider, quick: bool
) -> Iterator[Figure]:
    """The same rows in encrypted columns of SQLAlchemy-Utils, in an environment of their own."""
    if not PEER.exists():
        if quick:  # a quick run stands on its own
            return
        raise CannotRun(f"SQLAlchemy-Utils is not in {PEER.relative_to(ROOT)}: run `make peers`")
    command = [str(PEER), str(PEER_PROGRAM)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:

        def ask(line: str) -> str:
            if child.stdin is None or child.stdout is None:
                raise AssertionError("no pipes")
            child.stdin.write(line + "\n")
            child.stdin.flush()
            return child.stdout.readline().strip()

        name = f"sqlalchemy-utils {ask('version')}, StringEncryptedType with AES-GCM"
        written, read = [], []
        for number in range(2 if quick else 3):
            with Vault.create(folder / f"columns-{number}" / "vault", provider, "hospital-1") as vault:
                began = perf_counter()
                vault.ingest("claims", data, owners)
                written.append((perf_counter() - began, float(ask(f"write {folder} round-{number} {data.num_rows}"))))
                began = perf_counter()
                vault.read("claims")
                read.append((perf_counter() - began, float(ask(f"read {folder} round-{number}"))))
        if child.stdin is not None:
            child.stdin.close()
    yield beside("write_beside_columns", "records/s", name, tuple(written), data.num_rows)
    yield beside("read_beside_columns", "records/s", name, tuple(read), data.num_rows)


def _erasure(folder: Path, quick: bool) -> Iterator[Figure]:
    """One person's keys, rows and index among many; then all keys under a new epoch."""
    count = QUICK_PATIENTS if quick else PATIENTS
    names = people(count)
    data = pa.table({"visits": pa.array(range(count), pa.int64()), "plan": ["yes", "no"] * (count // 2)})
    with Vault.create(folder / "vault", _provider(folder), "hospital-1") as vault:
        vault.ingest("claims", data, names)
        taken = []
        for number in range(5 if quick else 41):
            person = names[(number * 7_919) % count]
            began = perf_counter()
            gone = vault.destroy([key.key for key in vault.keys_of(person)], bytes(32))
            taken.append((perf_counter() - began) * 1e3)
            if gone != 1 or vault.keys_of(person):
                raise AssertionError("the person is still there")
        yield Figure("erase_ms", median(taken), "ms", None, None, spread(taken), len(taken))
        left = count - len(taken)
        began = perf_counter()
        vault.rotate()
        yield Figure("rotated_keys_per_s", left / (perf_counter() - began), "keys/s", rounds=1)
