"""Rows of a dataset of many runs, on both engines: what does not fit is named by its row, whatever was read before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import sqlalchemy as sa

from privacy.keys import FileKeyProvider
from privacy.vault import SM4_GCM, Vault, reading
from privacy.vault.tables import ROW_BITS, keys, rows
from wire.errors import VerificationError

ROWS = 1_500
RECEIPT = b"r" * 32
DATA = pa.table({"n": pa.array(range(ROWS), pa.int64()), "name": [f"name {n}" for n in range(ROWS)]})
PEOPLE = [f"p{n * n % 700}" for n in range(ROWS)]
"""Some have one row, some many, and they stand among each other."""


@pytest.fixture
def either(tmp_path: Path, provider: FileKeyProvider, vault_url: str) -> Iterator[Vault]:
    """A vault on SQLite and on PostgreSQL, one after the other."""
    with Vault.create(tmp_path / "vault", provider, "hospital-1", database=vault_url) as made:
        yield made


def changed(vault: Vault, statement: sa.Update | sa.Delete) -> None:
    with vault._opened.database.transaction() as connection:
        assert connection.execute(statement).rowcount == 1


def numbers(vault: Vault, position: int) -> tuple[int, int]:
    """The number of the row at a position, and of the first row of its key."""
    with vault._opened.database.reading() as connection:
        row = connection.execute(sa.select(rows.c.row).where(rows.c.position == position)).scalar_one()
        first = sa.select(sa.func.max(keys.c.first)).where(keys.c.first <= row)
        return row, connection.execute(first).scalar_one()


def named(vault: Vault) -> int:
    with pytest.raises(VerificationError) as raised:
        vault.read("d")
    assert raised.value.code == "privacy.vault_row" and raised.value.facts["dataset"] == "d"
    return int(raised.value.facts["position"])


def within(number: int) -> int:
    return number & ((1 << ROW_BITS) - 1)


def test_runs_are_many_and_some_keys_span_more_than_one(either: Vault) -> None:
    whole = ["same"] * (3 * reading._ROWS) + PEOPLE[3 * reading._ROWS :]
    either.ingest("d", DATA, persons=whole)
    either.ingest("d", DATA.slice(0, 300), persons=PEOPLE[:300], append=True)
    assert either.read("d") == pa.concat_tables([DATA, DATA.slice(0, 300)])
    assert either.read("d", since=1) == DATA.slice(0, 300)
    assert either.person("d", "same")["n"].to_pylist() == list(range(3 * reading._ROWS))


def test_restricted_and_erased_among_the_others(either: Vault) -> None:
    either.ingest("d", DATA, persons=PEOPLE, suites={"name": SM4_GCM})
    hidden, gone = set(PEOPLE[40:50]), set(PEOPLE[60:90]) - set(PEOPLE[40:50])
    either.restrict([key.key for person in hidden for key in either.keys_of(person)])
    either.destroy([key.key for person in gone for key in either.keys_of(person)], RECEIPT)
    stay = [n for n, person in enumerate(PEOPLE) if person not in hidden | gone]
    assert either.read("d", person_column="who").drop_columns(["who"]) == DATA.take(pa.array(stay))
    who = either.read("d", person_column="who")["who"].to_pylist()
    assert who == [either.person_id(PEOPLE[n]) for n in stay]


@pytest.mark.parametrize("position", [0, 255, 256, 257, 900, ROWS - 1])
def test_the_row_that_was_altered_is_named(either: Vault, position: int) -> None:
    either.ingest("d", DATA, persons=PEOPLE, suites={"name": SM4_GCM})
    row, _ = numbers(either, position)
    changed(either, rows.update().where(rows.c.row == row).values(position=position + 10_000))
    assert named(either) == within(row)


@pytest.mark.parametrize("column", ["sealed", "apart"])
def test_a_row_of_other_bytes_is_named(either: Vault, column: str) -> None:
    either.ingest("d", DATA, persons=PEOPLE, suites={"name": SM4_GCM})
    row, _ = numbers(either, 700)
    for cell in (b"", b"x" * 7, b"x" * 20, b"x" * 200):
        changed(either, rows.update().where(rows.c.row == row).values({column: cell}))
        assert named(either) == within(row)


def test_a_missing_row_is_named_by_its_key_and_one_too_many_by_itself(either: Vault) -> None:
    either.ingest("d", DATA, persons=PEOPLE)
    row, first = numbers(either, 1_000)
    with either._opened.database.reading() as connection:
        cells = connection.execute(sa.select(rows).where(rows.c.row == row)).one()._asdict()
    changed(either, rows.delete().where(rows.c.row == row))
    assert named(either) == within(first)
    with either._opened.database.transaction() as connection:
        connection.execute(rows.insert().values(**cells))
    assert either.read("d") == DATA
    _, last = numbers(either, ROWS - 1)
    erased = next(key for key in either.data_keys("d") if key.key[8:] == last.to_bytes(8, "big"))
    either.destroy([erased.key], RECEIPT)
    with either._opened.database.transaction() as connection:
        connection.execute(rows.insert().values(**{**cells, "row": last}))
    assert named(either) == within(last)


def test_an_altered_key_is_named_by_its_first_row(either: Vault) -> None:
    either.ingest("d", DATA, persons=PEOPLE)
    _, first = numbers(either, 800)
    mine = keys.c.first == first
    with either._opened.database.reading() as connection:
        good = connection.execute(sa.select(keys).where(mine)).one()._asdict()
    for column, cell in (("wrapped", b"x" * 60), ("wrapped", b""), ("person", bytes(16)), ("load", 2)):
        changed(either, keys.update().where(mine).values({column: cell}))
        assert named(either) == within(first), column
        changed(either, keys.update().where(mine).values(good))
    for column, number in (("load", -1), ("retain_until", -1), ("retain_until", 2**40)):
        changed(either, keys.update().where(mine).values({column: number}))
        with pytest.raises(VerificationError) as raised:
            either.read("d")
        assert raised.value.code == "privacy.vault_cell"
        changed(either, keys.update().where(mine).values(good))
    assert either.read("d") == DATA


def test_counts_that_add_up_are_still_held_against_the_rows(either: Vault) -> None:
    """Another number of rows for two keys, so that the totals are right."""
    either.ingest("d", DATA, persons=PEOPLE)
    firsts = sorted({numbers(either, position)[1] for position in (10, 20)})
    for shift in (1, 2**40, -(2**40)):
        for first, by in zip(firsts, (shift, -shift), strict=True):
            changed(either, keys.update().where(keys.c.first == first).values(rows=keys.c.rows + by))
        with pytest.raises(VerificationError):
            either.read("d")
        for position in (10, 20):
            with pytest.raises(VerificationError):
                either.person("d", PEOPLE[position])
        for first, by in zip(firsts, (shift, -shift), strict=True):
            changed(either, keys.update().where(keys.c.first == first).values(rows=keys.c.rows - by))
    assert either.read("d") == DATA
