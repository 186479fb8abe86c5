"""One process writes: also when the lock of whoever did is lost, or the vault is reached by another path."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from privacy.keys import FileKeyProvider
from privacy.vault import Vault
from privacy.vault.tables import VAULT
from wire.errors import Unavailable


def busy(call: object) -> str:
    with pytest.raises(Unavailable) as raised:
        call()  # type: ignore[operator]
    return raised.value.code


@pytest.mark.postgres
def test_whose_connection_broke_does_not_write_beside_another(
    tmp_path: Path, provider: FileKeyProvider, postgres_url: str
) -> None:
    import psycopg

    def opened() -> Vault:
        return Vault.open(tmp_path / "vault", provider, "hospital-1", database=postgres_url)

    Vault.create(tmp_path / "vault", provider, "hospital-1", database=postgres_url).close()
    with opened() as first:
        first.ingest("d", pa.table({"n": [1]}), persons=["wang-wu"])
        first.keep_held()
        assert busy(opened) == "database.in_use"
        with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as admin:
            query = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s"
            assert admin.execute(query, (VAULT.holder,)).fetchall() == [(True,)]
        with opened() as second:
            second.put_document("grant", "g", b"terms")
            assert busy(first.keep_held) == "database.in_use"
            for call in (
                lambda: first.put_document("grant", "h", b"terms"),
                lambda: first.destroy([key.key for key in first.keys_of("wang-wu")], b"r" * 32),
            ):
                assert busy(call) == "database.in_use"
            assert first.read("d").num_rows == second.read("d").num_rows == 1
        assert first.register.entries() == (), "what cannot be carried out is not promised"
        first.keep_held()
        first.put_document("grant", "h", b"terms")
        assert first.documents("grant") == ("g", "h")


def test_a_link_to_the_vaults_folder_is_the_same_vault(vault: Vault, provider: FileKeyProvider, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(vault.path)
    assert busy(lambda: Vault.open(tmp_path / "link", provider, "hospital-1")) == "database.in_use"
