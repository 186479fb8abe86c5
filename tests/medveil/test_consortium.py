"""A consortium in one process: what goes wrong in it comes out plainly."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger.contracts import AnchorGrant
from ledger.machine import Machine
from medveil.consortium import Founder, local_consortium
from privacy.keys import FileKeyProvider
from privacy.vault import Vault
from wire.errors import Refused, VerificationError

Clock = Callable[[], int]


@pytest.fixture
def founded(tmp_path: Path) -> Callable[[], Any]:
    """Found a consortium of three."""
    members = [Founder("bureau", ("bureau",)), Founder("hospital", ("hospital",)), Founder("insurer", ("insurer",))]

    def found() -> Any:
        return local_consortium(
            tmp_path / "consortium", "chain", members, "bureau", "UTC", secrets.token_bytes, lambda: 1_800_000_000_000
        )

    return found


def grant(name: str) -> Any:
    """Some op that anybody may write."""
    return AnchorGrant(name, bytes(32), 0, 2_000_000_000_000, 0)


@pytest.mark.parametrize("error", [Refused("grants.exists", grant="x"), ValueError("of the caller")])
def test_an_error_of_the_body_comes_out_as_it_is(founded: Callable[[], Any], error: Exception) -> None:
    async def run() -> None:
        async with founded() as consortium:
            await consortium["hospital"].submit(grant("one"))
            raise error

    with pytest.raises(type(error)) as raised:
        asyncio.run(run())
    assert raised.value is error


def test_a_member_whose_replica_disagrees_ends_the_run(
    founded: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who follow the ledger are not the body's: their errors come in a group, and the body is cancelled."""

    async def run() -> None:
        async with founded() as consortium:
            account = consortium["insurer"].account
            machine: Machine = account.replica.machine

            def disagree(block: Any) -> Any:
                raise VerificationError("ledger.block_differs", height=block.header.height)

            monkeypatch.setattr(machine, "replay", disagree)
            await consortium["hospital"].submit(grant("one"))
            await asyncio.sleep(60)

    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(run())
    assert raised.group_contains(VerificationError)


def test_files_are_private_and_closed_at_the_end(founded: Callable[[], Any], tmp_path: Path) -> None:
    async def run() -> None:
        async with founded() as consortium:
            await consortium["hospital"].submit(grant("one"))

    asyncio.run(run())
    for folder in (tmp_path / "consortium" / "sites").iterdir():
        assert folder.stat().st_mode & 0o077 == 0
        assert (folder / "passphrase").stat().st_mode & 0o077 == 0
    home = tmp_path / "consortium" / "sites" / "hospital"
    provider = FileKeyProvider(home / "keys", (home / "passphrase").read_text().strip())
    Vault.open(home / "vault", provider, "hospital").close()
