"""The same erasure where the vault is in PostgreSQL: nothing of the keys in any table, and what a check says of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from privacy.erasure import steps as erasure
from privacy.erasure.check import check_erasure, files_below
from privacy.keys import FileKeyProvider
from privacy.vault import Vault
from tests.privacy.erasure.conftest import MARKERS, WANG, Home, fill, opened
from tests.privacy.erasure.test_steps import STEPS, Stopped, check_whole
from wire.signing import Signer

pytestmark = pytest.mark.postgres


@pytest.fixture
def home(tmp_path: Path, provider: FileKeyProvider, postgres_url: str) -> Iterator[Home]:
    Vault.create(tmp_path / "vault", provider, "hospital-1", database=postgres_url).close()
    made = opened(tmp_path, provider, postgres_url)
    fill(made.vault)
    yield made
    made.vault.close()
    made.trail.close()


@pytest.mark.parametrize("stop", [1, 3, 4, 6, len(STEPS)])
def test_stopped_it_goes_on(stop: int, home: Home) -> None:
    planned = home.plan()
    steps: list[str] = []

    def fault(step: str) -> None:
        steps.append(step)
        if len(steps) == stop:
            raise Stopped

    with pytest.raises(Stopped):
        home.apply(planned.name, fault)
    assert steps == STEPS[:stop]
    check_whole(home)


def test_no_table_holds_a_destroyed_key(home: Home, postgres_url: str) -> None:
    import psycopg

    receipt = erasure.receipt(home.vault, home.apply(home.plan().name).name, Signer(b"o" * 32), home.clock())
    report = check_erasure(receipt, home.vault, files_below(home.folder), markers=MARKERS, server=True)
    assert report.leftovers == () and report.server and report.files
    socket = postgres_url.rsplit("host=", 1)[1]
    with psycopg.connect(f"host={socket} user=medveil dbname=postgres") as connection:
        tables = connection.execute(
            "SELECT table_schema || '.' || table_name, column_name FROM information_schema.columns"
            " WHERE data_type = 'bytea' AND table_schema NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        assert any(table.endswith(".keys") and column == "wrapped" for table, column in tables)
        for table, column in tables:
            for key in receipt.keys:
                found = connection.execute(
                    f"SELECT COUNT(*) FROM {table} WHERE position(%s::bytea IN {column}) > 0", (key.mark,)
                ).fetchone()
                assert found == (0,), (table, column)
    assert [key.state for key in home.vault.keys_of(WANG)] == ["restricted"] * 2
