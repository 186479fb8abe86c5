"""Data keys on both engines: one for a person, dataset, load and retention; restricted, erased, and never back."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

from privacy.keys import FileKeyProvider
from privacy.vault import DataKey, Vault
from wire.errors import DecodeError, Refused, Unavailable, VerificationError

RECEIPT = b"r" * 32
PEOPLE = ["wang-wu", "li-si", "wang-wu", "zhao-liu", "li-si", "wang-wu"]


@pytest.fixture
def either(tmp_path: Path, provider: FileKeyProvider, vault_url: str) -> Iterator[Vault]:
    """A vault on SQLite and on PostgreSQL, one after the other."""
    with Vault.create(tmp_path / "vault", provider, "hospital-1", database=vault_url, clock=lambda: 1_000) as made:
        yield made


@pytest.fixture
def again(tmp_path: Path, provider: FileKeyProvider, vault_url: str) -> Callable[[], Vault]:
    return lambda: Vault.open(tmp_path / "vault", provider, "hospital-1", database=vault_url)


def ids(keys: tuple[DataKey, ...]) -> list[bytes]:
    return [key.key for key in keys]


def test_a_person_has_a_key_for_each_dataset_load_and_retention(either: Vault, table: pa.Table) -> None:
    days = [10, None, 20, None, None, 10]
    either.ingest("claims", table, persons=PEOPLE, retain_until=days)
    either.ingest("claims", table.slice(0, 2), persons=["wang-wu", "new"], retain_until=30, append=True)
    either.ingest("visits", table, PEOPLE)
    keys = either.keys_of("wang-wu")
    found = {(key.dataset, key.load, key.retain_until): key.rows for key in keys}
    assert found == {("claims", 1, 10): 2, ("claims", 1, 20): 1, ("claims", 2, 30): 1, ("visits", 1, None): 3}
    assert {key.person for key in keys} == {either.person_id("wang-wu")}
    assert {key.state for key in keys} == {"active"}
    assert len(set(ids(keys))) == 4
    assert either.keys_of(either.person_id("wang-wu")) == keys
    assert either.keys_of("nobody") == ()
    assert len(list(either.data_keys())) == 6 + 3 and len(list(either.data_keys("visits"))) == 3
    assert either.person("claims", "wang-wu")["visits"].to_pylist() == [0, None, -(2**63), 0]
    assert either.person("claims", either.person_id("new")).num_rows == 1


def test_rows_without_a_person_are_their_own(either: Vault, table: pa.Table) -> None:
    either.ingest("d", table)
    own = either.read("d", person_column="who")["who"].to_pylist()
    assert len(set(own)) == 6
    (key,) = either.keys_of(own[2])
    assert (key.key, key.person, key.rows) == (own[2], own[2], 1)
    assert either.destroy([key.key], RECEIPT) == 1
    assert either.read("d", person_column="who")["who"].to_pylist() == own[:2] + own[3:]


def test_records_and_persons_apart(either: Vault, table: pa.Table) -> None:
    bills = ["b1", "b2", "b1", "b4", "b5", "b6"]
    info = either.ingest("bills", table, bills, persons=PEOPLE)
    assert (info.has_record_ids, info.has_persons) == (True, True)
    assert either.read("bills", "bill")["bill"].to_pylist() == bills
    assert either.record("bills", "b1")["visits"].to_pylist() == [0, None]
    assert either.record("bills", "b6").num_rows == 1
    assert either.person("bills", "wang-wu").num_rows == 3
    assert either.salt_key("bills", "b1") == either.salt_key("bills", "b6") != either.salt_key("bills", "b2")
    for refused in (either.record, either.salt_key):
        with pytest.raises(Refused):
            refused("bills", "wang-wu")


def test_adding_keeps_order_and_shows_what_is_new(either: Vault, table: pa.Table) -> None:
    either.ingest("d", table, PEOPLE)
    assert either.ingest("d", table.slice(0, 1), ["li-si"], append=True).version == 2
    assert either.ingest("d", table.slice(1, 2), ["x", "y"], append=True).version == 3
    assert either.read("d", "p")["p"].to_pylist() == [*PEOPLE, "li-si", "x", "y"]
    assert either.read("d", "p", since=1)["p"].to_pylist() == ["li-si", "x", "y"]
    assert either.read("d", "p", since=2)["p"].to_pylist() == ["x", "y"]
    assert either.read("d", since=3).num_rows == 0
    for other in (table.drop_columns(["plan"]), table.rename_columns(["a", "b", "c", "d", "e"])):
        with pytest.raises(Refused) as raised:
            either.ingest("d", other, PEOPLE, append=True)
        assert raised.value.code == "privacy.schema_differs"
    for changed in ({"schema_hash": b"x" * 32}, {"suites": {"health": 2}}, {"persons": PEOPLE}):
        with pytest.raises(Refused):
            either.ingest("d", table, PEOPLE, append=True, **changed)  # type: ignore[arg-type]
    assert either.count("d") == 9


def test_batches_come_in_one_after_the_other(either: Vault) -> None:
    rows = 40_000
    batches = [pa.record_batch({"n": pa.array(range(i, i + 4_000), pa.int64())}) for i in range(0, rows, 4_000)]
    people = [f"p{i % 977}" for i in range(rows)]
    source = pa.RecordBatchReader.from_batches(batches[0].schema, batches)
    info = either.ingest("d", source, persons=people)
    assert info.rows == rows
    assert either.read("d")["n"].to_pylist() == list(range(rows))
    assert either.person("d", "p3")["n"].to_pylist() == list(range(3, rows, 977))
    short = pa.RecordBatchReader.from_batches(batches[0].schema, batches[:2])
    with pytest.raises(ValueError, match="per row"):
        either.ingest("e", short, persons=people)
    assert [found.name for found in either.datasets()] == ["d"]


def test_restricted_rows_are_kept_and_not_used(either: Vault, table: pa.Table) -> None:
    either.ingest("d", table, PEOPLE)
    keys = ids(either.keys_of("wang-wu"))
    assert either.restrict(keys) == 1
    assert either.restrict(keys) == 0
    assert either.read("d", "p")["p"].to_pylist() == ["li-si", "zhao-liu", "li-si"]
    assert (either.count("d"), either.info("d").rows, either.info("d").restricted) == (3, 6, 3)
    assert [key.state for key in either.keys_of("wang-wu")] == ["restricted"]
    for closed in (either.record, either.person, either.salt_key):
        with pytest.raises(Refused):
            closed("d", "wang-wu")
    either.rotate()
    assert either.unrestrict(keys) == 1
    assert either.read("d", "p")["p"].to_pylist() == PEOPLE
    with pytest.raises(Refused) as raised:
        either.restrict([*keys, bytes(16)])
    assert raised.value.code == "privacy.no_key"
    assert either.count("d") == 6


def test_erasing_a_person_reaches_every_dataset_and_nobody_else(
    either: Vault, table: pa.Table, again: Callable[[], Vault]
) -> None:
    either.ingest("d", table, PEOPLE, retain_until=[1, 2, 3, 4, 5, 6])
    either.ingest("d", table, PEOPLE, append=True)
    either.ingest("e", table, persons=PEOPLE)
    either.restrict(ids(either.keys_of("wang-wu"))[:1])
    keys = ids(either.keys_of("wang-wu"))
    assert either.destroy(keys, RECEIPT) == len(keys) == 5
    assert either.destroy(keys, RECEIPT) == 0
    assert either.keys_of("wang-wu") == ()
    others = [name for name in PEOPLE if name != "wang-wu"]
    for _ in range(2):
        assert either.read("d", "p")["p"].to_pylist() == others * 2
        assert either.read("e").num_rows == 3
        assert (either.info("d").rows, either.info("d").keys, either.info("d").restricted) == (6, 5, 0)
        with pytest.raises(Refused):
            either.salt_key("d", "wang-wu")
        assert sorted(found.key for found in either.erasures()) == sorted(keys)
        assert {(found.receipt, found.at) for found in either.erasures()} == {(RECEIPT, 1_000)}
        either.rotate()
        either.close()
        either = again()
    assert either.erasures(since=1_001) == ()
    either.ingest("d", table.slice(0, 1), ["wang-wu"], append=True)
    assert len(either.keys_of("wang-wu")) == 1
    either.close()


def test_unknown_keys_are_passed_by(either: Vault, table: pa.Table) -> None:
    either.ingest("d", table, PEOPLE)
    (key,) = ids(either.keys_of("wang-wu"))
    other = bytes([key[0] ^ 1]) + key[1:]
    assert either.destroy([bytes(16), other, b"short", b"\xff" * 16], RECEIPT) == 0
    assert either.read("d").num_rows == 6
    assert either.erasures() == () and either.register.entries() == ()


def test_the_register_ends_what_an_interrupted_erasure_began(
    either: Vault, table: pa.Table, again: Callable[[], Vault]
) -> None:
    either.ingest("d", table, PEOPLE)
    keys = ids(either.keys_of("wang-wu"))

    def stop(place: str) -> None:
        if place == "destroy:registered":
            raise RuntimeError("power cut")

    either._opened.fault = stop
    with pytest.raises(RuntimeError):
        either.destroy(keys, RECEIPT)
    assert either.read("d").num_rows == 6
    either.close()
    with again() as vault:
        assert vault.read("d").num_rows == 3
        assert vault.keys_of("wang-wu") == ()
        assert [found.key for found in vault.erasures()] == keys


def test_a_backup_brings_nothing_back_unless_the_register_is_lost(
    vault: Vault, provider: FileKeyProvider, table: pa.Table, tmp_path: Path
) -> None:
    vault.ingest("d", table, PEOPLE)
    vault.close()
    shutil.copy(vault.path / "vault.sqlite", tmp_path / "backup")
    with Vault.open(vault.path, provider, "hospital-1") as opened:
        opened.destroy(ids(opened.keys_of("wang-wu")), RECEIPT)
    shutil.copy(tmp_path / "backup", vault.path / "vault.sqlite")
    with Vault.open(vault.path, provider, "hospital-1") as opened:
        assert opened.read("d", "p")["p"].to_pylist() == ["li-si", "zhao-liu", "li-si"]
        assert len(opened.erasures()) == 1
    shutil.copy(tmp_path / "backup", vault.path / "vault.sqlite")
    with Vault.reader(vault.path, provider, "hospital-1", register=tmp_path / "elsewhere") as opened:
        assert opened.read("d").num_rows == 6  # said in docs/limitations.md
    (tmp_path / "erased").unlink()
    with Vault.open(vault.path, provider, "hospital-1") as opened:
        assert opened.read("d").num_rows == 6


def test_a_lost_register_is_made_again_from_the_tombstones(
    vault: Vault, provider: FileKeyProvider, table: pa.Table, tmp_path: Path
) -> None:
    vault.ingest("d", table, PEOPLE)
    vault.destroy(ids(vault.keys_of("wang-wu")), RECEIPT)
    before = vault.register.entries()
    vault.close()
    (tmp_path / "erased").unlink()
    with Vault.open(vault.path, provider, "hospital-1") as opened:
        assert opened.register.entries() == before != ()


def test_a_damaged_register_is_said(vault: Vault, provider: FileKeyProvider, table: pa.Table, tmp_path: Path) -> None:
    vault.ingest("d", table)
    keys = [key.key for key in vault.data_keys()]
    vault.destroy(keys[:2], RECEIPT)
    vault.close()
    file = tmp_path / "erased"
    good = file.read_bytes()
    for at in range(0, len(good), 7):
        file.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(DecodeError) as raised:
            Vault.open(vault.path, provider, "hospital-1")
        assert raised.value.code == "privacy.register_damaged"
    for cut in range(1, 72):  # an entry that a crash cut short was not erased yet, or is a tombstone already
        file.write_bytes(good[:-cut])
        with Vault.open(vault.path, provider, "hospital-1") as opened:
            assert len(opened.register.entries()) == 2
    other = Vault.create(tmp_path / "other" / "vault", provider, "hospital-1")
    other.close()
    file.write_bytes(good)
    with pytest.raises(DecodeError):
        Vault.open(tmp_path / "other" / "vault", provider, "hospital-1", register=file)


def test_registers_can_be_joined(vault: Vault, table: pa.Table, tmp_path: Path) -> None:
    vault.ingest("d", table)
    keys = [key.key for key in vault.data_keys()]
    vault.destroy(keys[:1], RECEIPT)
    shutil.copy(tmp_path / "erased", tmp_path / "older")
    vault.destroy(keys[1:3], RECEIPT)
    assert vault.register.join(tmp_path / "older") == 0
    shutil.move(tmp_path / "erased", tmp_path / "newer")
    shutil.copy(tmp_path / "older", tmp_path / "erased")
    assert vault.register.join(tmp_path / "newer") == 2
    for missing in (tmp_path / "mistyped", tmp_path):
        with pytest.raises(Unavailable) as raised:
            vault.register.join(missing)
        assert (raised.value.code, raised.value.facts["path"]) == ("privacy.no_register", str(missing))
    (tmp_path / "rubbish").write_bytes(b"rubbish" * 20)
    with pytest.raises(DecodeError) as damaged:
        vault.register.join(tmp_path / "rubbish")
    assert damaged.value.facts["path"] == str(tmp_path / "rubbish"), "the one that was named, not the vault's own"
    assert [entry.key for entry in vault.register.entries()] == keys[:3]


def test_erased_bytes_are_not_in_the_file(vault: Vault, table: pa.Table) -> None:
    vault.ingest("d", table, PEOPLE)
    vault.put_person_note("opt-out", "wang-wu", b"no research")
    with sqlite3.connect(vault.path / "vault.sqlite") as database:
        gone = [row[0] for row in database.execute("SELECT wrapped FROM keys WHERE rows = 3")]
        mine = "SELECT sealed FROM rows JOIN keys ON keys.rows = 3 AND row BETWEEN first AND first + 2"
        gone += [row[0] for row in database.execute(mine)]
        gone += [row[0] for row in database.execute("SELECT sealed FROM person_notes")]
    database.close()
    assert len(gone) == 5
    vault.destroy(ids(vault.keys_of("wang-wu")), RECEIPT)
    assert vault.remove_person_note("opt-out", "wang-wu")
    data = b"".join(path.read_bytes() for path in vault.path.iterdir())
    assert not [blob for blob in gone if blob in data or blob[-32:] in data]


def test_notes_about_persons(either: Vault, again: Callable[[], Vault]) -> None:
    either.put_person_note("opt-out", "wang-wu", b"one")
    either.put_person_note("opt-out", "wang-wu", b"two")
    either.put_person_note("opt-out", either.person_id("li-si"), b"")
    either.put_person_note("hold", "wang-wu", b"case 7")
    expected = {(either.person_id("wang-wu"), b"two"), (either.person_id("li-si"), b"")}
    assert set(either.person_notes("opt-out")) == expected
    either.rotate()
    assert set(either.person_notes("opt-out")) == expected
    assert list(either.person_notes("none")) == []
    either.close()
    with again() as vault:
        assert vault.remove_person_note("opt-out", "wang-wu")
        assert not vault.remove_person_note("opt-out", "wang-wu")
        assert [content for _, content in vault.person_notes("opt-out")] == [b""]
        assert [content for _, content in vault.person_notes("hold")] == [b"case 7"]


def test_fields_under_sm4(either: Vault, table: pa.Table, vault_url: str) -> None:
    info = either.ingest("d", table, PEOPLE, suites={"health": 2, "plan": 2})
    assert [column.suite for column in info.columns] == [1, 1, 2, 1, 2]
    either.ingest("whole", table, PEOPLE, suite=2)
    either.ingest("mixed", table, PEOPLE, suite=2, suites={"cost": 1})
    for name in ("d", "whole", "mixed"):
        assert repr(either.read(name).to_pydict()) == repr(table.to_pydict())
        assert either.record(name, "wang-wu").num_rows == 3
    for wrong in ({"suite": 3}, {"suites": {"health": 0}}):
        with pytest.raises(Refused) as raised:
            either.ingest("x", table, **wrong)  # type: ignore[arg-type]
        assert raised.value.code == "privacy.unknown_suite"
    with pytest.raises(ValueError, match="no column"):
        either.ingest("x", table, suites={"nothing": 2})
    if not vault_url:
        either.close()
        with sqlite3.connect(either.path / "vault.sqlite") as database:
            database.execute("UPDATE rows SET apart = (SELECT apart FROM rows r WHERE r.position = 0)")
        database.close()
        again = Vault.open(either.path, either._opened.provider, "hospital-1")
        with again as vault, pytest.raises(VerificationError):
            vault.read("d")


def test_one_writes_and_others_read(either: Vault, provider: FileKeyProvider, table: pa.Table, vault_url: str) -> None:
    def reader() -> Vault:
        return Vault.reader(
            either.path, FileKeyProvider(provider.path, "correct horse"), "hospital-1", database=vault_url
        )

    either.ingest("d", table, PEOPLE)
    either.put_document("grant", "g", b"terms")
    with reader() as one, reader() as other:
        for vault in (one, other):
            assert vault.read("d").num_rows == 6
            assert vault.document("grant", "g") == b"terms"
        either.ingest("d", table, PEOPLE, append=True)
        either.destroy(ids(either.keys_of("wang-wu")), RECEIPT)
        assert one.read("d").num_rows == other.read("d").num_rows == 6
        for write in (
            lambda: one.ingest("x", table),
            lambda: one.put_document("a", "b", b""),
            lambda: one.destroy([bytes(16)], RECEIPT),
            lambda: one.restrict([]),
            lambda: one.put_person_note("a", "b", b""),
            lambda: one.remove_person_note("a", "b"),
            lambda: one.rotate(),
        ):
            with pytest.raises(ValueError, match="to read"):
                write()
        with pytest.raises(Unavailable) as raised:
            Vault.open(either.path, provider, "hospital-1", database=vault_url)
        assert raised.value.code == "database.in_use"


def test_an_erasure_waits_for_a_reader_that_is_about_to_end(vault: Vault, provider: FileKeyProvider) -> None:
    """Else the journal keeps the wraps until somebody tidies it."""
    vault.ingest("d", pa.table({"n": [1, 2]}), persons=["wang-wu", "li-si"])
    (key,) = [key.key for key in vault.keys_of("wang-wu")]
    mark = vault.marks([key])[key]
    journal = vault.path / "vault.sqlite-wal"
    with closing(sqlite3.connect(vault.path / "vault.sqlite", check_same_thread=False)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM keys").fetchone()
        threading.Timer(0.5, reader.rollback).start()
        assert vault.destroy([key], RECEIPT) == 1
    assert mark not in journal.read_bytes() and mark not in (vault.path / "vault.sqlite").read_bytes()
