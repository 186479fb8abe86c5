"""Key providers of both kinds: a file, and a token of SoftHSM2 (`token`, of the tests' common fixtures)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

from privacy.keys import Argon2Cost, FileKeyProvider, KeyProvider


class Kind(Protocol):
    """How a test makes and opens providers of one kind over the same keys."""

    def create(self) -> KeyProvider: ...
    def open(self) -> KeyProvider: ...


class Files(NamedTuple):
    path: Path

    def create(self) -> KeyProvider:
        return FileKeyProvider.create(self.path, "correct horse", cost=Argon2Cost(time=1, memory=8, lanes=1))

    def open(self) -> KeyProvider:
        return FileKeyProvider(self.path, "correct horse")


@pytest.fixture(params=["file", pytest.param("pkcs11", marks=pytest.mark.softhsm)])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    """Each kind of provider in turn."""
    return Files(tmp_path / "keys") if request.param == "file" else request.getfixturevalue("token")


@pytest.fixture
def keys(kind: Kind) -> Iterator[KeyProvider]:
    """A new provider of each kind."""
    made = kind.create()
    yield made
    made.close()
