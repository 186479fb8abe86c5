"""Any cell of the vault's tables changed: the same values come out, or an error in words; never another value."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from privacy.keys import FileKeyProvider
from privacy.vault import Vault
from wire.errors import MedveilError

TABLES = ("vault", "datasets", "keys", "rows", "documents", "person_notes", "numbers", "erased")


def _filled(vault: Vault, table: pa.Table, people: list[str]) -> None:
    vault.ingest("d", table, people, suites={"health": 2}, retain_until=100)
    vault.ingest("d", table, people, suites={"health": 2}, append=True)
    vault.ingest("e", table, [f"r{n}" for n in range(6)], persons=people)
    vault.put_document("grant", "g", b"terms")
    vault.put_person_note("opt-out", "wang-wu", b"no research")
    vault.destroy([key.key for key in vault.keys_of("zhao-liu")], b"r" * 32)
    vault.restrict([vault.keys_of("li-si")[0].key])


def _seen(vault: Vault) -> str:
    """All that the vault says."""
    tables = [vault.read(name, "r", person_column="p").to_pydict() for name in ("d", "e")]
    records = [vault.record("e", "r1").to_pydict(), vault.person("d", "wang-wu").to_pydict()]
    keys = [key for name in ("wang-wu", "li-si", "zhao-liu") for key in vault.keys_of(name)]
    said = [vault.document("grant", "g"), list(vault.person_notes("opt-out")), vault.documents("grant")]
    salts = [vault.salt_key("d", "wang-wu"), vault.document_salt_key("grant", "g")]
    return repr((tables, records, keys, said, salts, vault.datasets()))


def _other(chance: random.Random, value: Any, values: list[Any]) -> Any:
    """Something else for a cell: a flipped bit, a cut, another row's value, another number."""
    kind = chance.randrange(4)
    if kind == 0 and len(values) > 1:
        return chance.choice(values)
    if isinstance(value, bytes) and value:
        if kind == 1:
            return value[: chance.randrange(len(value))]
        if kind == 2:
            return value + b"\x00"
        at = chance.randrange(len(value))
        return value[:at] + bytes([value[at] ^ 1 << chance.randrange(8)]) + value[at + 1 :]
    if isinstance(value, int):
        return value + chance.choice((-1, 1, 2, 256, 2**40))
    return None if kind == 3 else chance.choice(values)


def _campaign(vault: Vault, provider: FileKeyProvider, rounds: int, seed: int) -> tuple[int, int]:
    """How many changes were noticed, and how many said nothing else than before."""
    before = _seen(vault)
    vault.close()
    file = vault.path / "vault.sqlite"
    good = vault.path / "good"
    shutil.copy(file, good)
    chance = random.Random(seed)
    caught = harmless = 0
    while caught + harmless < rounds:
        shutil.copy(good, file)
        table = chance.choice(TABLES)
        with closing(sqlite3.connect(file, isolation_level=None)) as database:
            columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            column = chance.choice(columns)
            values = [row[0] for row in database.execute(f"SELECT {column} FROM {table} ORDER BY rowid")]
            at = chance.randrange(len(values))
            other = _other(chance, values[at], values)
            where = f"rowid = (SELECT rowid FROM {table} ORDER BY rowid LIMIT 1 OFFSET {at})"
            try:
                database.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (other,))
            except (sqlite3.IntegrityError, OverflowError):
                continue
        for journal in ("-wal", "-shm"):
            file.with_name(file.name + journal).unlink(missing_ok=True)
        try:
            with Vault.open(vault.path, provider, "hospital-1") as again:
                after = _seen(again)
        except MedveilError:
            caught += 1
            continue
        assert after == before, (table, column, values[at], other)
        harmless += 1
    return caught, harmless


def test_500_changed_cells(vault: Vault, provider: FileKeyProvider, table: pa.Table, people: list[str]) -> None:
    _filled(vault, table, people)
    caught, harmless = _campaign(vault, provider, 500, 3)
    assert caught > 250 and harmless > 0


@pytest.mark.long
def test_10_000_changed_cells(vault: Vault, provider: FileKeyProvider, table: pa.Table, people: list[str]) -> None:
    _filled(vault, table, people)
    caught, _ = _campaign(vault, provider, 10_000, 4)
    assert caught > 5_000


def test_register_lines_that_were_changed(tmp_path: Path, vault: Vault, table: pa.Table) -> None:
    vault.ingest("d", table)
    keys = [key.key for key in vault.data_keys()]
    vault.destroy(keys[:3], b"r" * 32)
    good = (tmp_path / "erased").read_bytes()
    known = set(vault.register.entries())
    chance = random.Random(5)
    for _ in range(500):
        at = chance.randrange(len(good))
        bad = good[:at] + bytes([good[at] ^ 1 << chance.randrange(8)]) + good[at + 1 :]
        (tmp_path / "erased").write_bytes(bad if chance.randrange(4) else good[:at])
        try:
            assert set(vault.register.entries()) <= known
        except MedveilError:
            continue
