"""What a recipient says of its use reaches whoever decides: commercial or not, and where it is worked with."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import pytest

from medveil.gateway.asking import ask
from medveil.gateway.steps import Passing
from mpc.release import Release
from privacy.uses import NOTHING_SAID, Declaration
from wire.errors import ConsentDenied
from zkp.bill_limit import Presentation

from . import test_scoring as scores

Play = Callable[[Callable[[Any], Any]], Any]

ABROAD = {"jurisdiction": "SG", "transfer_ref": "contracts/standard-1"}
SELLING = {"commercial": True, "legal_basis": "separate-consent", "consent_ref": "consents/1"}
IN_SINGAPORE, FOR_SALE = Declaration(jurisdiction="SG"), Declaration(commercial=True)

USES = pytest.mark.parametrize(
    ("granted", "declared", "missing"),
    [
        (ABROAD, IN_SINGAPORE, ""),
        (ABROAD, NOTHING_SAID, "jurisdiction"),
        (ABROAD, Declaration(jurisdiction="US"), "jurisdiction"),
        ({}, IN_SINGAPORE, "jurisdiction"),
        (SELLING, FOR_SALE, ""),
        (SELLING, NOTHING_SAID, ""),
        ({"legal_basis": "statutory-duty"}, FOR_SALE, "commercial"),
        ({"conditions": ("NCU",)}, FOR_SALE, "conditions"),
    ],
)
"""Terms of the grant, what is declared, and the rule that says no."""


@USES
def test_of_a_proof(play: Play, granted: dict[str, Any], declared: Declaration, missing: str) -> None:
    async def story(world: Any) -> None:
        bill = await world.bill()
        await world.grant_proofs(**granted)
        answer, decision = await world.limit_checked(world.request(bill), declared=declared)
        assert decision.rule == (missing or "granted")
        assert isinstance(answer, Presentation) == (not missing)

    play(story)


@USES
def test_of_scores(
    play: Play, build: Any, paillier: Any, granted: dict[str, Any], declared: Declaration, missing: str
) -> None:
    async def story(world: Any) -> None:
        model = await scores.register(world, build())
        await scores.grant(world, **granted)
        asked = await scores.ask(world, paillier, model, declared=declared)
        if missing:
            assert asked.served.rule == missing and not asked.read
        else:
            assert asked.flags.flags

    play(story)


@pytest.mark.parametrize(
    ("granted", "declared", "missing"), [(ABROAD, IN_SINGAPORE, ""), (ABROAD, NOTHING_SAID, "jurisdiction")]
)
def test_of_a_query(play: Play, granted: dict[str, Any], declared: Declaration, missing: str) -> None:
    async def story(world: Any) -> None:
        for number, site in enumerate(world.sites):
            changes = granted if number == 1 or not missing else {}
            await world.grant(f"study-{site.name}", site.name, "researcher", **changes)
        handle = secrets.token_bytes(16)
        asking = ask(world.researcher, world.query(), handle, bytes(32), Passing(), declared=declared)
        answer, parts = await world.run(world.query(), handle, asking)
        if missing:
            assert isinstance(answer, ConsentDenied)
            denied = [part.rule for part in parts if not isinstance(part, Exception) and not part.allowed]
            assert denied == [missing]
        else:
            assert isinstance(answer, Release)

    play(story)
