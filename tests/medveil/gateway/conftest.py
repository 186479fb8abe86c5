"""A bureau's Paillier key, made once, and models under it."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest

from mpc.scoring import Feature, ModelOpening, PaillierSecret, ScoreModel, build_model, generate_key

Build = Callable[..., tuple[ScoreModel, ModelOpening]]


@pytest.fixture(scope="session")
def paillier() -> PaillierSecret:
    """The bureau's secret key."""
    pytest.importorskip("phe", reason="install medveil[scoring]")
    return generate_key()


@pytest.fixture
def build(paillier: PaillierSecret) -> Build:
    """Build a model: 2 cost - age >= limit, unless columns and weights are others."""

    def made(
        name: str = "over-use",
        columns: tuple[str, ...] = ("cost", "age"),
        weights: tuple[int, ...] = (2, -1),
        limit: int = 60,
    ) -> tuple[ScoreModel, ModelOpening]:
        features = tuple(Feature(column, 0, 100, 1, 50) for column in columns)
        return build_model(paillier, name, features, weights, -10, 10, limit, secrets.token_bytes)

    return made
