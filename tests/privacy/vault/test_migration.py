"""A vault's file of version 1 opens as the present one: same rows, salts and documents; or it stays as it was."""

from __future__ import annotations

import shutil
import sqlite3
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from privacy.keys import FileKeyProvider
from privacy.vault import Erasure, Vault
from wire.errors import Refused, VerificationError

OLD = Path(__file__).resolve().parents[2] / "vectors" / "vault" / "version-1"
"""Written by the last program that wrote version 1."""
SALT = "088d6e0f73d3e31ce56194fe19182e7727ef3f292bba53d983d99ad371003546"
DOCUMENT_SALT = "815cfdebec92adf7dc28f0cf57c1c7bfb7d6d8ec92ae175a65d3d9165318caae"
PEOPLE = ["wang-wu", "li-si", "wang-wu", "zhao-liu"]
TABLE = pa.table(
    {
        "visits": pa.array([0, 3, None, 60], pa.int64()),
        "cost": pa.array([1.5, None, -0.0, 2.0], pa.float64()),
        "health": ["good", "poor", None, "优秀"],
        "seen": pa.array([date(1970, 1, 1), date(2024, 10, 4), None, date(1969, 12, 27)], pa.date32()),
    }
)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    (tmp_path / "home" / "vault").mkdir(parents=True)
    shutil.copy(OLD / "keys", tmp_path / "home" / "keys")
    shutil.copy(OLD / "vault.sqlite", tmp_path / "home" / "vault" / "vault.sqlite")
    return tmp_path / "home"


def opened(home: Path) -> Vault:
    return Vault.open(home / "vault", FileKeyProvider(home / "keys", "correct horse"), "hospital-1")


@pytest.mark.parametrize("how", ["now", "by the register"])
def test_an_erasure_leaves_no_copy_of_version_1(old: Path, how: str) -> None:
    """It holds the person's rows and keys, wrapped under the epoch that is in use."""
    copy = old / "vault" / "vault.sqlite.version-1"
    with opened(old) as vault:
        keys = [key.key for key in vault.keys_of("wang-wu")]
        assert copy.exists() and vault.copy_holds(copy, keys) and not vault.copy_holds(old / "keys", keys)
        assert not vault.copy_holds(old / "vault" / "vault.sqlite", keys), "that is the vault"
        if how == "now":
            vault.destroy(keys, b"r" * 32)
        else:
            vault.register.append(Erasure(key, b"r" * 32, 1) for key in keys)
    if how == "by the register":
        opened(old).close()
    assert not copy.exists()


def test_all_of_it_is_there_and_salts_are_what_they_were(old: Path) -> None:
    for _ in range(2):
        with opened(old) as vault:
            assert vault.read("named").equals(TABLE)
            assert vault.read("named", "person")["person"].to_pylist() == PEOPLE
            assert vault.read("plain").equals(TABLE)
            assert vault.read("none").equals(TABLE.slice(0, 0))
            assert [(i.name, i.version, i.rows, i.keys) for i in vault.datasets()] == [
                ("named", 2, 4, 3), ("none", 1, 0, 0), ("plain", 1, 4, 4),
            ]  # fmt: skip
            assert vault.info("named").schema_hash == b"h" * 32
            assert vault.salt_key("named", "wang-wu").hex() == SALT
            assert vault.document("grant", "grant-1") == b"terms, second"
            assert vault.document_salt_key("grant", "grant-1").hex() == DOCUMENT_SALT
            assert vault.record("named", "wang-wu").num_rows == 2
            assert len(vault.keys_of("wang-wu")) == 1
    assert sorted(path.name for path in (old / "vault").iterdir()) == [
        "vault.sqlite", "vault.sqlite.held", "vault.sqlite.version-1",
    ]  # fmt: skip


def test_it_goes_on_as_any_vault(old: Path) -> None:
    with opened(old) as vault:
        vault.ingest("named", TABLE, PEOPLE, schema_hash=b"h" * 32, append=True)
        assert vault.read("named").num_rows == 8
        vault.destroy([key.key for key in vault.keys_of("wang-wu")], b"r" * 32)
        assert vault.read("named", "person")["person"].to_pylist() == ["li-si", "zhao-liu"] * 2
        vault.rotate()
        assert not (old / "vault" / "vault.sqlite.version-1").exists()
        with pytest.raises(Refused):
            vault.salt_key("named", "wang-wu")


def test_a_damaged_one_stays_as_it_was(old: Path) -> None:
    file = old / "vault" / "vault.sqlite"
    with sqlite3.connect(file) as database:
        database.execute("UPDATE rows SET sealed = zeroblob(80) WHERE dataset = 'plain' AND position = 2")
    database.close()
    before = file.read_bytes()
    for _ in range(2):
        with pytest.raises(VerificationError) as raised:
            opened(old)
        assert (raised.value.code, raised.value.facts["position"]) == ("privacy.vault_row", 2)
    assert file.read_bytes() == before


def test_what_an_interrupted_one_left_is_no_hindrance(old: Path) -> None:
    (old / "vault" / "vault.sqlite.migrating").write_bytes(b"half")
    with opened(old) as vault:
        assert vault.read("plain").equals(TABLE)
    assert not (old / "vault" / "vault.sqlite.migrating").exists()
