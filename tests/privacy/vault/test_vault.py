"""The vault gives back exactly what went in, or says what was altered; it never gives back anything else."""

from __future__ import annotations

import io
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.keys import FileKeyProvider
from privacy.vault import Vault
from privacy.vault.rows import encode_rows, pad, unpad
from wire.errors import DecodeError, MedveilError, Refused, Unavailable, VerificationError


def same(a: pa.Table, b: pa.Table) -> bool:
    """Equality that takes NaN for NaN and tells -0.0 from 0.0."""
    return repr(a.to_pydict()) == repr(b.to_pydict()) and a.schema.types == b.schema.types


def alter(vault: Vault, statement: str, *parameters: object) -> None:
    """Edit the file from outside, as someone with the disk could."""
    vault.close()
    with sqlite3.connect(vault.path / "vault.sqlite") as database:
        assert database.execute(statement, parameters).rowcount != 0
    database.close()


def reopened(vault: Vault, provider: FileKeyProvider) -> Vault:
    return Vault.open(vault.path, provider, vault.organisation)


def test_tables_come_back_exactly(vault: Vault, table: pa.Table, people: list[str]) -> None:
    vault.ingest("plain", table)
    info = vault.ingest("named", table, people, schema_hash=b"h" * 32)
    assert same(vault.read("plain"), table)
    assert same(vault.read("named"), table)
    assert vault.read("named", "person")["person"].to_pylist() == people
    assert vault.read("plain", "person")["person"].to_pylist() == [None] * 6
    assert vault.count("named") == 6
    assert [found.name for found in vault.datasets()] == ["named", "plain"]
    assert (info.version, info.schema_hash, info.has_record_ids) == (1, b"h" * 32, True)


def test_all_types_and_empty_tables(vault: Vault) -> None:
    kinds = [pa.bool_(), pa.int8(), pa.uint64(), pa.float32(), pa.large_string(), pa.date32()]
    values = [True, -128, 2**64 - 1, 0.1, "长" * 2000, date(2025, 7, 1)]
    table = pa.table({str(kind): pa.array([value, None], kind) for kind, value in zip(kinds, values, strict=True)})
    vault.ingest("types", table)
    assert vault.read("types").equals(table)
    vault.ingest("none", table.slice(0, 0))
    assert vault.read("none").equals(table.slice(0, 0))
    vault.ingest("bare", pa.table({}))
    assert vault.count("bare") == 0


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.none() | st.integers(-(2**63), 2**63 - 1), st.none() | st.text(max_size=40)), max_size=20))
def test_any_row_survives_its_coding(rows: list[tuple[int | None, str | None]]) -> None:
    table = pa.table({"a": pa.array([row[0] for row in rows], pa.int64()), "b": pa.array([r[1] for r in rows])})
    table = table.cast(pa.schema([("a", pa.int64()), ("b", pa.string())]))
    coded = encode_rows(table.columns, table.num_rows, None)
    assert len({len(row) for row in coded}) <= 1
    assert all(len(row) % 16 == 0 for row in coded)


@given(st.binary(max_size=100), st.integers(1, 64))
def test_padding(plaintext: bytes, step: int) -> None:
    padded = pad(plaintext, step)
    assert len(padded) % step == 0
    assert unpad(padded) == plaintext


def test_a_person_has_one_key_for_all_rows(vault: Vault, table: pa.Table, people: list[str]) -> None:
    vault.ingest("named", table, people)
    assert vault.record("named", "wang-wu").num_rows == 3
    assert vault.record("named", "wang-wu")["health"].to_pylist() == ["good", None, "fair"]
    assert len({vault.salt_key("named", name) for name in people}) == 3
    with pytest.raises(Refused):
        vault.record("named", "nobody")
    with pytest.raises(Refused):
        vault.salt_key("named", "nobody")
    with sqlite3.connect(vault.path / "vault.sqlite") as database:
        assert database.execute("SELECT COUNT(*) FROM keys").fetchone() == (3,)
    database.close()


def test_nothing_private_is_in_the_file(vault: Vault, table: pa.Table, people: list[str]) -> None:
    vault.ingest("named", table, people)
    vault.put_document("wallet", "wang-wu", b"medication: imatinib")
    vault.close()
    data = b"".join(path.read_bytes() for path in vault.path.iterdir())
    for planted in ("wang-wu", "li-si", "zhao-liu", "优秀", "health", "visits", "imatinib", "poor"):
        assert planted.encode() not in data, planted
    assert b"named" in data  # the names of datasets are not hidden: the documentation says so


def test_lengths_tell_nothing(vault: Vault) -> None:
    """A category's name would show through the length of its ciphertext."""
    vault.ingest("d", pa.table({"health": ["poor", "excellent", None], "visits": [0, 2**40, 3]}))
    with sqlite3.connect(vault.path / "vault.sqlite") as database:
        assert len(database.execute("SELECT DISTINCT length(sealed) FROM rows").fetchall()) == 1
    database.close()


def test_loading_twice_needs_to_be_said(vault: Vault, table: pa.Table) -> None:
    vault.ingest("d", table)
    with pytest.raises(Refused) as raised:
        vault.ingest("d", table.slice(1))
    assert raised.value.code == "privacy.dataset_exists"
    assert vault.count("d") == 6
    assert vault.ingest("d", table.slice(1), replace=True).version == 2
    assert same(vault.read("d"), table.slice(1))


def test_a_failed_load_leaves_nothing(vault: Vault, table: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    vault.ingest("d", table)
    calls = iter(range(10**6))

    def failing(number: int) -> bytes:
        if next(calls) > 2:
            raise RuntimeError("power cut")
        return bytes(number)

    monkeypatch.setattr(vault._opened, "rand", failing)
    with pytest.raises(RuntimeError):
        vault.ingest("d", table, replace=True)
    with pytest.raises(RuntimeError):
        vault.ingest("e", table)
    assert same(vault.read("d"), table)
    assert [found.name for found in vault.datasets()] == ["d"]


def test_types_and_names_that_are_refused(vault: Vault, table: pa.Table) -> None:
    for column in (pa.array([[1]]), pa.array(["a"]).dictionary_encode(), pa.array([b"x"])):
        with pytest.raises(Refused) as raised:
            vault.ingest("d", pa.table({"c": column}))
        assert raised.value.code == "privacy.column_type"
    with pytest.raises(Refused):
        vault.ingest("d", pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]))
    with pytest.raises(DecodeError):
        vault.ingest("Bad Name", table)
    with pytest.raises(ValueError, match="one record id"):
        vault.ingest("d", table, ["one"])
    for refused in (vault.read, vault.info, vault.count):
        with pytest.raises(Refused) as raised:
            refused("d")
        assert raised.value.code == "privacy.no_dataset"


def test_documents(vault: Vault, provider: FileKeyProvider) -> None:
    vault.put_document("grant", "grant-1", b"terms")
    key = vault.document_salt_key("grant", "grant-1")
    vault.put_document("grant", "grant-1", b"terms, second version")
    vault.put_document("grant", "grant-2", b"")
    vault.put_document("wallet", "grant-1", b"w" * 5000)
    assert vault.document("grant", "grant-1") == b"terms, second version"
    assert vault.document("grant", "grant-2") == b""
    assert vault.document("wallet", "grant-1") == b"w" * 5000
    assert vault.documents("grant") == ("grant-1", "grant-2")
    assert vault.documents("nothing") == ()
    assert vault.document_salt_key("grant", "grant-1") == key != vault.document_salt_key("wallet", "grant-1")
    with pytest.raises(Refused):
        vault.document("grant", "grant-3")
    with pytest.raises(Refused):
        vault.document_salt_key("grant", "grant-3")
    vault.close()
    with reopened(vault, provider) as again:
        assert again.document("grant", "grant-1") == b"terms, second version"
        assert again.document_salt_key("grant", "grant-1") == key


EDITS: dict[str, str] = {
    "two rows swapped": "UPDATE rows SET sealed = (SELECT sealed FROM rows r WHERE r.position = 1 - rows.position)"
    " WHERE position < 2",
    "two positions swapped": "UPDATE rows SET position = 2 - position WHERE position IN (0, 2)",
    "a row copied over another": "UPDATE rows SET (sealed, position) = (SELECT sealed, position FROM rows r WHERE"
    " r.position = 0) WHERE position = 2",
    "a row removed": "DELETE FROM rows WHERE position = 2",
    "the last row removed": "DELETE FROM rows WHERE position = 5",
    "a row given another number": "UPDATE rows SET row = row + 10 WHERE position = 5",
    "a row given to a record": "UPDATE rows SET record = x'000102030405060708090a0b0c0d0e0f' WHERE position = 0",
    "a key given to another person": "UPDATE keys SET person = zeroblob(16) WHERE rows = 3",
    "a key removed": "DELETE FROM keys WHERE rows = 3",
    "a person removed, keys and rows": "DELETE FROM keys WHERE rows = 1",
    "keys swapped": "UPDATE keys SET wrapped = next.wrapped FROM (SELECT first, coalesce(lead(wrapped) OVER "
    "(ORDER BY first), first_value(wrapped) OVER (ORDER BY first)) AS wrapped FROM keys) AS next"
    " WHERE next.first = keys.first",
    "a key's row count changed": "UPDATE keys SET rows = 2",
    "a key under another epoch": "UPDATE keys SET epoch = 2",
    "a key of another load": "UPDATE keys SET load = 2",
    "a key that must be kept no longer": "UPDATE keys SET retain_until = 1",
    "a key restricted": "UPDATE keys SET state = 1 WHERE rows = 1",
    "a key's own name changed": "UPDATE keys SET key = zeroblob(16)",
    "a truncated row": "UPDATE rows SET sealed = x'00' WHERE position = 3",
    "the version changed": "UPDATE datasets SET version = 2",
    "the description changed": "UPDATE datasets SET sealed = x'0011223344556677889900112233445566778899'",
}


@pytest.mark.parametrize("edit", EDITS)
def test_edits_of_the_file_are_caught(
    edit: str, vault: Vault, provider: FileKeyProvider, table: pa.Table, people: list[str]
) -> None:
    vault.ingest("d", table, people)
    provider.new_epoch()
    alter(vault, EDITS[edit])
    with reopened(vault, provider) as again:
        with pytest.raises(VerificationError) as raised:
            again.read("d")
        assert raised.value.code in ("privacy.vault_row", "privacy.vault_dataset")
        assert "d" in str(raised.value.facts["dataset"])


@pytest.mark.parametrize(
    "edit", ["a row removed", "two positions swapped", "a key's row count changed", "keys swapped"]
)
def test_a_single_record_is_whole_or_an_error(
    edit: str, vault: Vault, provider: FileKeyProvider, table: pa.Table, people: list[str]
) -> None:
    vault.ingest("d", table, people)
    alter(vault, EDITS[edit])
    with reopened(vault, provider) as again, pytest.raises(VerificationError):
        again.record("d", "wang-wu")


def test_a_key_passes_for_nobody_elses(
    vault: Vault, provider: FileKeyProvider, table: pa.Table, people: list[str]
) -> None:
    """Somebody with the disk gives wang-wu's keys to li-si: no salt, record or row of one comes out as the other's."""
    vault.ingest("d", table, people)
    wang, li = vault.person_id("wang-wu"), vault.person_id("li-si")
    alter(
        vault,
        "UPDATE keys SET person = CASE person WHEN ? THEN ? ELSE ? END WHERE person IN (?, ?)",
        wang,
        li,
        wang,
        wang,
        li,
    )
    with reopened(vault, provider) as again:
        for ask in (again.salt_key, again.record, again.person):
            for name in ("wang-wu", "li-si"):
                with pytest.raises(VerificationError):
                    ask("d", name)


def test_who_is_restricted_cannot_be_exchanged(vault: Vault, provider: FileKeyProvider, table: pa.Table) -> None:
    """One restricted, another let go instead: as many rows as the sealed totals say, and still not believed."""
    vault.ingest("d", table, ["a", "a", "b", "b", "c", "c"])
    vault.restrict([key.key for key in vault.keys_of("a")])
    a, b = vault.person_id("a"), vault.person_id("b")
    alter(vault, "UPDATE keys SET state = 1 - state WHERE person IN (?, ?)", a, b)
    with reopened(vault, provider) as again:
        for ask in (lambda: again.read("d"), lambda: again.record("d", "a"), lambda: again.salt_key("d", "a")):
            with pytest.raises(VerificationError):
                ask()


def test_a_dataset_cannot_pass_for_another(vault: Vault, provider: FileKeyProvider, table: pa.Table) -> None:
    vault.ingest("a", table)
    vault.ingest("b", table)
    alter(vault, "UPDATE datasets SET name = CASE name WHEN 'a' THEN 'c' ELSE 'a' END")
    with reopened(vault, provider) as again, pytest.raises(VerificationError):
        again.read("a")


def test_an_older_row_does_not_come_back(vault: Vault, provider: FileKeyProvider, table: pa.Table) -> None:
    """A row of the version before, with its key, put in the place of the new one."""
    vault.ingest("d", table)
    with sqlite3.connect(vault.path / "vault.sqlite") as database:
        old = database.execute("SELECT sealed FROM rows WHERE position = 0").fetchone()
        key = database.execute("SELECT person, epoch, wrapped FROM keys ORDER BY first LIMIT 1").fetchone()
    database.close()
    vault.ingest("d", table, replace=True)
    alter(vault, "UPDATE rows SET sealed = ? WHERE position = 6", *old)
    alter(vault, "UPDATE keys SET person = ?, epoch = ?, wrapped = ? WHERE first = (SELECT min(first) FROM keys)", *key)
    with reopened(vault, provider) as again, pytest.raises(VerificationError):
        again.read("d")


@pytest.mark.parametrize(
    "edit",
    [
        "sealed = zeroblob(300)",
        "wrapped = zeroblob(60)",
        "version = version + 1",
        "sealed = (SELECT sealed FROM documents d WHERE d.kind = 'b')",
        "wrapped = (SELECT wrapped FROM documents d WHERE d.kind = 'b')",
    ],
)
def test_edited_documents_are_caught(edit: str, vault: Vault, provider: FileKeyProvider) -> None:
    vault.put_document("a", "x", b"one")
    vault.put_document("b", "x", b"two")
    alter(vault, f"UPDATE documents SET {edit} WHERE kind = 'a'")
    with reopened(vault, provider) as again:
        for call in (lambda: again.document("a", "x"), lambda: again.documents("a")):
            with pytest.raises(VerificationError) as raised:
                call()
            assert raised.value.code == "privacy.vault_document"
        assert again.document("b", "x") == b"two"


def test_any_damage_to_the_file_is_an_error_or_harmless(
    vault: Vault, provider: FileKeyProvider, table: pa.Table, people: list[str]
) -> None:
    table, people = pa.concat_tables([table] * 40).combine_chunks(), people * 40
    vault.ingest("d", table, people)
    vault.close()
    file = vault.path / "vault.sqlite"
    good = file.read_bytes()
    chance = random.Random(11)
    caught = 0
    for _ in range(500):
        data = bytearray(good)
        for _ in range(chance.choice((1, 1, 4, 64))):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        file.write_bytes(data)
        try:
            with reopened(vault, provider) as again:
                assert same(again.read("d"), table)
        except MedveilError:
            caught += 1
    assert caught > 50


def test_other_keys_do_not_open_it(vault: Vault, provider: FileKeyProvider) -> None:
    vault.close()
    with pytest.raises(VerificationError) as raised:
        Vault.open(vault.path, provider, "hospital-2")
    assert raised.value.code == "privacy.vault_of_other"
    reopened(vault, provider).close()


def test_creating_and_opening_in_the_wrong_place(vault: Vault, tmp_path: Path, provider: FileKeyProvider) -> None:
    with pytest.raises(Unavailable) as raised:
        Vault.open(tmp_path / "nowhere", provider, "hospital-1")
    assert raised.value.code == "privacy.store_missing"
    assert not (tmp_path / "nowhere").exists()
    vault.close()
    with pytest.raises(Refused) as refused:
        Vault.create(vault.path, provider, "hospital-1")
    assert refused.value.code == "privacy.store_exists"


def test_an_interrupted_creation_does_not_block_the_next(tmp_path: Path, provider: FileKeyProvider) -> None:
    def power_cut(number: int) -> bytes:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        Vault.create(tmp_path / "v", provider, "hospital-1", rand=power_cut)
    with Vault.create(tmp_path / "v", provider, "hospital-1") as made:
        assert made.datasets() == ()


def test_rotation_reads_the_same_and_kills_old_copies(
    vault: Vault, provider: FileKeyProvider, table: pa.Table, people: list[str], tmp_path: Path
) -> None:
    vault.ingest("named", table, people)
    vault.ingest("plain", table)
    vault.put_document("wallet", "a", b"one")
    salt = vault.salt_key("named", "li-si")
    vault.close()
    stolen = tmp_path / "stolen"
    stolen.mkdir()
    (stolen / "vault.sqlite").write_bytes((vault.path / "vault.sqlite").read_bytes())
    again = reopened(vault, provider)
    assert again.rotate() == 2
    assert provider.epochs() == (2,)
    assert same(again.read("named"), table)
    assert same(again.read("plain"), table)
    assert again.document("wallet", "a") == b"one"
    assert again.salt_key("named", "li-si") == salt
    again.close()
    reopened(vault, FileKeyProvider(provider.path, "correct horse")).close()
    with pytest.raises(Unavailable) as raised:
        Vault.open(stolen, provider, "hospital-1")
    assert raised.value.code == "privacy.provider_other", "none of its keys opens any more"


def test_rotation_rewrites_no_data(vault: Vault, provider: FileKeyProvider, table: pa.Table, people: list[str]) -> None:
    """Every wrap is another one, and not a byte of what they wrap."""
    vault.ingest("named", table, people, suites={"health": 2})
    vault.put_document("wallet", "a", b"one")
    vault.put_person_note("hold", "li-si", b"case")
    vault.put_stream("scan", "s", io.BytesIO(b"x" * 200_000))

    def stored() -> tuple[dict[str, list[tuple[bytes, ...]]], dict[str, tuple[bytes, int]]]:
        with closing(sqlite3.connect(vault.path / "vault.sqlite")) as database:
            own = "CREATE TEMP VIEW own_documents AS SELECT rowid, * FROM documents WHERE kind <> 'safeguards'"
            database.execute(own)  # a rotation is a safeguard, and marked as one
            rows = {
                name: database.execute(f"SELECT {what} FROM {name} ORDER BY rowid").fetchall()
                for name, what in (("rows", "sealed, apart"), ("own_documents", "sealed"), ("person_notes", "sealed"))
            }
            wraps = "SELECT wrapped FROM keys UNION ALL SELECT wrapped FROM own_documents"
            rows["wraps"] = database.execute(wraps).fetchall()
        blobs = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in vault.path.rglob("*.blob")}
        return rows, blobs

    before, blobs = stored()
    vault.rotate()
    after, same_blobs = stored()
    wraps, new_wraps = before.pop("wraps"), after.pop("wraps")
    assert len(wraps) == 4 and not set(wraps) & set(new_wraps)
    assert all(before.values()) and after == before
    assert len(blobs) == 1 and same_blobs == blobs


def test_an_interrupted_rotation_leaves_a_readable_vault(
    vault: Vault, provider: FileKeyProvider, table: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault.ingest("d", table)
    monkeypatch.setattr(provider, "destroy", lambda epoch: (_ for _ in ()).throw(RuntimeError("power cut")))
    with pytest.raises(RuntimeError):
        vault.rotate()
    monkeypatch.undo()
    assert same(vault.read("d"), table)
    assert provider.epochs() == (1, 2)
    vault.rotate()
    assert provider.epochs() == (3,)
    assert same(vault.read("d"), table)


def test_replaced_rows_do_not_stay_in_the_file(vault: Vault, table: pa.Table) -> None:
    """secure_delete: without it the deleted wrapped key stays readable in the file's free pages."""
    vault.ingest("d", table)
    with sqlite3.connect(vault.path / "vault.sqlite") as database:
        gone = [row[0] for row in database.execute("SELECT wrapped FROM keys UNION SELECT sealed FROM rows")]
    database.close()
    vault.ingest("d", table.slice(0, 1), replace=True)
    vault.close()
    data = b"".join(path.read_bytes() for path in vault.path.iterdir())
    assert len(gone) == 12
    assert not [blob for blob in gone if blob in data or blob[-32:] in data]


def test_a_second_process_is_told(vault: Vault, provider: FileKeyProvider) -> None:
    code = (
        "import sys; from pathlib import Path; from privacy.keys import FileKeyProvider\n"
        "from privacy.vault import Vault\n"
        "from wire.errors import Unavailable\n"
        "try: Vault.open(Path(sys.argv[1]), FileKeyProvider(Path(sys.argv[2]), 'correct horse'), 'hospital-1')\n"
        "except Unavailable as error: print(error.code); print(error)\n"
    )

    def run() -> str:
        command = [sys.executable, "-c", code, str(vault.path), str(provider.path)]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    assert run().startswith("database.in_use\nAnother process uses the database")
    with pytest.raises(Unavailable):
        reopened(vault, provider)
    vault.close()
    assert run() == ""
    vault.close()


def test_four_vaults_of_the_demo_size_load(
    tmp_path: Path, provider: FileKeyProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20,190 rows x 12 columns over four vaults. Not timed: the benchmark says how fast."""
    quarter = pa.table({f"c{i}": pa.array(range(i, 5048 + i), pa.int64()) for i in range(12)})
    for number in range(4):
        with Vault.create(tmp_path / f"v{number}", provider, f"hospital-{number}") as made:
            made.ingest("claims", quarter)
            assert made.read("claims").equals(quarter)


def test_errors_never_hold_values(
    vault: Vault, provider: FileKeyProvider, table: pa.Table, people: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    vault.ingest("d", table, people)
    calls: list[Callable[[], object]] = [
        lambda: vault.record("d", "secret-person"),
        lambda: vault.document("wallet", "secret-person"),
        lambda: vault.salt_key("d", "secret-person"),
    ]
    for call in calls:
        with pytest.raises(MedveilError) as raised:
            call()
        assert "secret-person" not in raised.value.text() + raised.value.text("zh") + repr(raised.value)
    assert not caplog.records
