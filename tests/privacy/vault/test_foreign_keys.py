"""A provider that is not the vault's is unavailable, and nothing is lost; a vault that was altered is that."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from privacy.keys import Argon2Cost, FileKeyProvider, KeyProvider
from privacy.vault import Vault
from wire.errors import Unavailable, VerificationError

CHEAP = Argon2Cost(time=1, memory=8, lanes=1)
OPENINGS: tuple[Callable[..., Vault], ...] = (Vault.open, Vault.reader)


def filled(path: Path, provider: KeyProvider, url: str = "") -> Path:
    with Vault.create(path, provider, "hospital-1", database=url) as vault:
        vault.ingest("visits", pa.table({"n": [1, 2]}), persons=["li", "wu"])
        vault.put_document("grant", "g", b"terms")
    return path


def check_whole(path: Path, provider: KeyProvider, url: str = "") -> None:
    for opening in OPENINGS:
        with opening(path, provider, "hospital-1", database=url) as vault:
            assert vault.read("visits")["n"].to_pylist() == [1, 2] and vault.document("grant", "g") == b"terms"


def check_unavailable(path: Path, provider: KeyProvider, url: str = "") -> None:
    for opening in OPENINGS:
        with pytest.raises(Unavailable) as raised:
            opening(path, provider, "hospital-1", database=url)
        assert raised.value.code == "privacy.provider_other" and raised.value.retry_after


def test_a_foreign_key_file_is_unavailable_and_nothing_is_lost(
    vault_url: str, provider: FileKeyProvider, tmp_path: Path
) -> None:
    path = filled(tmp_path / "vault", provider, vault_url)
    other = FileKeyProvider.create(tmp_path / "other", "correct horse", cost=CHEAP)
    check_unavailable(path, other, vault_url)
    other.new_epoch()
    check_unavailable(path, other, vault_url)
    check_whole(path, provider, vault_url)


def test_a_vault_that_is_empty_knows_its_keys_too(provider: FileKeyProvider, tmp_path: Path) -> None:
    Vault.create(tmp_path / "vault", provider, "hospital-1").close()
    check_unavailable(tmp_path / "vault", FileKeyProvider.create(tmp_path / "other", "correct horse", cost=CHEAP))
    Vault.open(tmp_path / "vault", provider, "hospital-1").close()


def test_an_older_copy_of_the_key_file_is_unavailable(provider: FileKeyProvider, tmp_path: Path) -> None:
    path = filled(tmp_path / "vault", provider)
    shutil.copy(provider.path, tmp_path / "older")
    with Vault.open(path, provider, "hospital-1") as vault:
        vault.rotate()
    check_unavailable(path, FileKeyProvider(tmp_path / "older", "correct horse"))
    check_whole(path, provider)


@pytest.mark.softhsm
def test_another_set_of_keys_on_a_token_is_unavailable(token: Any, tmp_path: Path) -> None:
    own, other = token.create("hospital-1"), token.create("hospital-2")
    try:
        path = filled(tmp_path / "vault", own)
        check_unavailable(path, other)
        check_whole(path, own)
    finally:
        own.close()
        other.close()


@pytest.mark.parametrize("change", ["wrapped = randomblob(60)", "wrapped = zeroblob(0)", "epoch = 7", "epoch = 0"])
def test_an_altered_vault_is_altered(change: str, provider: FileKeyProvider, tmp_path: Path) -> None:
    path = filled(tmp_path / "vault", provider)
    with closing(sqlite3.connect(path / "vault.sqlite")) as database:
        database.execute(f"UPDATE vault SET {change}")
        database.commit()
    for opening in OPENINGS:
        with pytest.raises(VerificationError) as raised:
            opening(path, provider, "hospital-1")
        assert raised.value.code == "privacy.vault_keys"


def test_one_key_that_opens_is_enough_to_know_an_altered_vault(provider: FileKeyProvider, tmp_path: Path) -> None:
    path = filled(tmp_path / "vault", provider)
    with closing(sqlite3.connect(path / "vault.sqlite")) as database:
        database.execute("UPDATE vault SET wrapped = randomblob(60)")
        database.execute("UPDATE datasets SET wrapped = randomblob(60)")
        database.execute("UPDATE documents SET wrapped = randomblob(60) WHERE kind = 'grant'")
        database.commit()
    with pytest.raises(VerificationError):
        Vault.open(path, provider, "hospital-1")
