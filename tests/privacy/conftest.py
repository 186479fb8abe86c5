"""What the tests of privacy share: cheap keys, a vault, one good grant with its request and state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from privacy.decide import AnchoredGrant, GrantState, UseRequest
from privacy.grants.terms import CheckedGrant, GrantTerms, check_grant, plain_terms, sign_grant
from privacy.keys import Argon2Cost, FileKeyProvider
from privacy.predicate import Compare
from privacy.vault import Vault
from wire.signing import Signer

CHEAP = Argon2Cost(time=1, memory=8, lanes=1)
NOT_BEFORE, NOW, EXPIRES = 1_000_000, 2_000_000, 3_000_000


@pytest.fixture
def cheap() -> Argon2Cost:
    return CHEAP


@pytest.fixture
def provider(tmp_path: Path) -> FileKeyProvider:
    return FileKeyProvider.create(tmp_path / "keys", "correct horse", cost=CHEAP)


@pytest.fixture
def table() -> pa.Table:
    """Six rows of three people, with nulls, NaN, text in Chinese and every integer width's edges."""
    return pa.table(
        {
            "visits": pa.array([0, 3, None, 60, 2**63 - 1, -(2**63)], pa.int64()),
            "cost": pa.array([1.5, None, float("nan"), -0.0, float("inf"), 2.0**-1074], pa.float64()),
            "health": pa.array(["good", "poor", None, "", "优秀", "fair"], pa.string()),
            "seen": pa.array([0, 20_000, None, -5, 1, 2], pa.int32()).cast(pa.date32()),
            "plan": pa.array([True, False, None, True, True, False], pa.bool_()),
        }
    )


@pytest.fixture
def people() -> list[str]:
    return ["wang-wu", "li-si", "wang-wu", "zhao-liu", "li-si", "wang-wu"]


@pytest.fixture
def vault(tmp_path: Path, provider: FileKeyProvider) -> Iterator[Vault]:
    with Vault.create(tmp_path / "vault", provider, "hospital-1") as made:
        yield made


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def vault_url(request: pytest.FixtureRequest) -> str:
    """Where a vault keeps its tables: in its folder, then on PostgreSQL."""
    return "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def signer() -> Signer:
    return Signer(b"s" * 32)


@pytest.fixture
def salt_key() -> bytes:
    return b"k" * 32


@pytest.fixture
def terms() -> GrantTerms:
    return plain_terms(
        "grant-1",
        "hospital-1",
        "university",
        "claims-1",
        ("visits", "health", "plan"),
        purposes=("HRESCH",),
        uses=("query",),
        legal_basis="consent",
        not_before=NOT_BEFORE,
        expires=EXPIRES,
        recipient_contact="data office",
        predicate=Compare("visits", "ge", 0),
        consent_ref="consents/2025-07",
        pia_ref="pia/12",
        delete_by=EXPIRES + 1000,
    )


@pytest.fixture
def request_() -> UseRequest:
    return UseRequest(
        holder="hospital-1",
        recipient="university",
        dataset="claims-1",
        fields=("visits", "health"),
        kind="query",
        purpose="HRESCH",
        predicate=Compare("plan", "eq", "yes"),
    )


@pytest.fixture
def now() -> int:
    return NOW


@pytest.fixture
def issue(signer: Signer, salt_key: bytes) -> Callable[..., tuple[CheckedGrant, GrantState]]:
    """Sign, check and anchor terms; keyword arguments change the ledger's entry."""

    def made(terms: GrantTerms, **changes: Any) -> tuple[CheckedGrant, GrantState]:
        checked = check_grant(sign_grant(terms, signer, salt_key), signer.key)
        entry: dict[str, Any] = {
            "grant": terms.grant,
            "issuer": terms.issuer,
            "commitment": checked.commitment,
            "not_before": terms.not_before,
            "expires": terms.expires,
            "epoch": terms.epoch,
            "revoked": False,
        }
        return checked, GrantState((AnchoredGrant(**(entry | changes)),))

    return made
