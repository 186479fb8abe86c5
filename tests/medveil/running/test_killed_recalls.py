"""kill -9 of a gateway that recalls an extract, or of the one that deletes it, at each of their steps: it ends once.

One process an organisation, real TLS between them: a hospital whose consents are revoked, an insurer that has extracts
under them, a bureau that orders the blocks.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from medveil.gateway import extract_delivery, extract_taking, granting
from medveil.gateway.extract_delivery import ExtractOffer
from medveil.gateway.extracting import make_extract
from medveil.gateway.held_extracts import ever_held, held_path
from medveil.gateway.steps import Passing
from medveil.gateway.tables import VaultTables
from privacy.erasure.recalls import recalls
from privacy.grants.terms import SignedGrant
from tests.medveil.conftest import study_terms
from tests.medveil.gateway.extracts_world import TABLE, load, wish

from .conftest import Consortium, now
from .processes import Running

MEMBERS = {"bureau": "bureau", "hospital-1": "hospital", "insurer": "insurer"}
_SCRIPT = Path(__file__).with_name("recalling.py")
ISSUES, TAKES = 4, 4
"""Steps of one recall, at either side."""


async def prepare(consortium: Consortium, count: int) -> None:
    """Extracts under so many consents, made and delivered."""
    async with consortium.running() as gateways:
        hospital, insurer = gateways["hospital-1"].organisation, gateways["insurer"].organisation
        load({"hospital-1": hospital, "researcher": insurer})
        tables = VaultTables.of(hospital, now)

        async def take(facts: Any) -> None:
            async for sender, session, offer in insurer.openings(ExtractOffer):
                if offer.extract == facts.cover.extract:
                    await extract_taking.take_extract(insurer, sender, session, Passing(), now)
                    return

        for number in range(count):
            name = f"copies-{number}"
            changes: dict[str, Any] = {"dataset": TABLE, "fields": ("ward", "cost"), "uses": ("extract",)}
            terms = study_terms(name, "hospital-1", "insurer", now() - 1000, min_group=3, **changes)
            await granting.issue(hospital, terms, Passing())
            async for sender, session, signed in insurer.openings(SignedGrant):
                if signed.terms.grant == name:
                    await granting.take(insurer, sender, signed)
                    await insurer.forget(session, sender)
                    break
            wanted = wish(recipient="insurer", grant=name)
            facts = await make_extract(hospital, tables, wanted, Passing(), now)
            await asyncio.gather(extract_delivery.deliver(hospital, facts.cover.extract, Passing(), now), take(facts))


class Campaign:
    """Gateways of a consortium, to be killed at chosen steps of theirs."""

    def __init__(self, consortium: Consortium) -> None:
        self.consortium = consortium
        self.logs = {name: consortium.folder / f"{name}.log" for name in consortium.members}
        self.running: dict[str, Running] = {}
        self.revoked: list[str] = []

    def start(self, name: str, point: int = 0) -> None:
        grants = self.revoked if name == "hospital-1" else []
        self.running[name] = Running(_SCRIPT, self.consortium.folder / name, self.logs[name], str(point), *grants)

    def again(self, name: str, point: int = 0) -> None:
        self.running[name].kill()
        self.start(name, point)

    def dies(self, name: str, point: int) -> None:
        """Revoke one more consent, and kill `name` at its `point`-th step of what follows."""
        self.revoked.append(f"copies-{len(self.revoked)}")
        self.again(name, point)
        if name != "hospital-1":
            self.running[name].until("serving")
            self.again("hospital-1")
        assert self.running[name].process.wait(120) == -signal.SIGKILL
        self.again(name)
        self.running[name].until("serving")
        self.running["hospital-1"].until(f"heard {len(self.revoked)}", timeout=120)

    def run(self, deaths: list[tuple[str, int]]) -> None:
        try:
            for name in self.consortium.members:
                self.start(name)
                self.running[name].until("serving")
            for name, point in deaths:
                self.dies(name, point)
        finally:
            for one in self.running.values():
                one.kill()


def campaign(consortium: Consortium, deaths: list[tuple[str, int]]) -> None:
    """One extract more than is recalled stays."""
    asyncio.run(prepare(consortium, len(deaths) + 1))
    Campaign(consortium).run(deaths)
    with consortium.home("hospital-1") as home:
        found = recalls(home.organisation.vault)
    assert len(found) == len(deaths) and len({one.extract for one in found}) == len(deaths)
    assert all(one.deleted and one.why == "consent-revoked" for one in found)
    with consortium.home("insurer") as home:
        organisation = home.organisation
        for one in ever_held(organisation):
            gone = one.extract in {recall.extract for recall in found}
            assert bool(one.deleted) == gone and held_path(organisation, one.extract).exists() != gone
        assert len(ever_held(organisation)) == len(deaths) + 1


@pytest.fixture
def three(tmp_path: Path) -> Consortium:
    return Consortium(tmp_path, MEMBERS)


@pytest.mark.timeout(600)
def test_a_recall_ends_once_whoever_is_killed(three: Consortium) -> None:
    campaign(three, [("hospital-1", 2), ("insurer", 2)])


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_recall_ends_once_whoever_is_killed_at_any_step(three: Consortium) -> None:
    points = [("hospital-1", point) for point in range(1, ISSUES + 1)]
    campaign(three, points + [("insurer", point) for point in range(1, TAKES + 1)])
