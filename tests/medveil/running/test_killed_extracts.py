"""kill -9 of a gateway that makes extracts, or of one that takes them, at their own steps: each leaves once, with its
entry.

One process an organisation, real TLS between them: a hospital that makes, an insurer that takes, a bureau that orders
the blocks.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from medveil.extracts.opening import Recipient
from medveil.gateway import granting
from medveil.gateway.held_extracts import HELD, ever_held, held, held_path
from medveil.gateway.made_extracts import FOLDER, MADE, made
from medveil.gateway.steps import Passing
from tests.medveil.conftest import study_terms
from tests.medveil.gateway.extracts_world import ROWS, TABLE, load

from .conftest import Consortium, now
from .processes import Running

MEMBERS = {"bureau": "bureau", "hospital-1": "hospital", "insurer": "insurer"}
_SCRIPT = Path(__file__).with_name("extracting.py")


async def prepare(consortium: Consortium) -> None:
    """A table and a grant, as the hospital's people would have made them."""
    async with consortium.running() as gateways:
        hospital = gateways["hospital-1"].organisation
        load({"hospital-1": hospital, "researcher": gateways["insurer"].organisation})
        changes: dict[str, Any] = {"dataset": TABLE, "fields": ("ward", "cost"), "uses": ("extract",), "min_group": 3}
        terms = study_terms("copies", "hospital-1", "insurer", now() - 1000, **changes)
        await granting.issue(hospital, terms, Passing())


class Campaign:
    """Gateways of a consortium, to be killed at chosen steps of theirs."""

    def __init__(self, consortium: Consortium) -> None:
        self.consortium = consortium
        self.logs = {name: consortium.folder / f"{name}.log" for name in consortium.members}
        self.running: dict[str, Running] = {}

    def start(self, name: str, point: int = 0) -> None:
        more = ("make",) if name == "hospital-1" else ()
        self.running[name] = Running(_SCRIPT, self.consortium.folder / name, self.logs[name], str(point), *more)

    def said(self, name: str, word: str) -> list[str]:
        return [line for line in self.logs[name].read_text().splitlines() if line.startswith(word)]

    def dies(self, name: str, point: int) -> None:
        """Start a gateway anew that kills itself at its `point`-th step; and again one that does not."""
        self.running[name].kill()
        self.start(name, point)
        one = self.running[name]
        assert one.process.wait(120) == -signal.SIGKILL
        one.kill()
        self.start(name)
        self.running[name].until("serving")
        self.running["hospital-1"].until("made", timeout=120)

    def run(self, choose: Any) -> None:
        try:
            for name in self.consortium.members:
                self.start(name)
                self.running[name].until("serving")
            self.running["hospital-1"].until("made", 2, timeout=120)
            first, second = self.said("hospital-1", "making")[:2]
            makes = int(second.split()[2]) - int(first.split()[2])
            takes = int(self.said("insurer", "taken")[0].split()[1])
            assert makes > 8 and takes > 4
            for name, points in (("hospital-1", makes), ("insurer", takes)):
                for point in choose(range(1, points + 1)):
                    self.dies(name, point)
        finally:
            for one in self.running.values():
                one.kill()
        assert self.said("hospital-1", "failed") == []


def check(consortium: Consortium) -> None:
    """No extract without its entry, none twice, none lost; the last one may be under way."""
    with consortium.home("hospital-1") as home:
        entries = home.organisation.audit.entries()
        own = made(home.organisation)
        lying = {path.name for path in (home.organisation.folder / FOLDER / MADE).iterdir()}
    with consortium.home("insurer") as home:
        organisation = home.organisation
        keys = [one.seal for one in organisation.keys.generations]
        recipient = Recipient("insurer", keys, consortium.trust)
        here = held(organisation)
        assert here == ever_held(organisation)
        for one in here:
            facts, rows = recipient.open(held_path(organisation, one.extract), now())
            assert facts == one.facts and rows.num_rows == facts.rows == ROWS
        kept = {path.name for path in (organisation.folder / FOLDER / HELD).iterdir() if path.name[0] != "."}
    assert kept == {f"{one.extract.hex()}.extract" for one in here}
    intents = {entry.sequence: entry for entry in entries if entry.intent == 0}
    outcomes = [entry for entry in entries if entry.intent]
    assert len({entry.intent for entry in outcomes}) == len(outcomes), "one outcome for each intent"
    assert {entry.outcome for entry in outcomes} == {"released"}
    assert len(intents) - len(outcomes) <= 1
    nonces = [entry.nonce for entry in intents.values()]
    assert len(set(nonces)) == len(nonces), "one intent for each extract"
    released = {intents[entry.intent].nonce for entry in outcomes}
    delivered = {one.extract for one in own if one.state == "delivered"}
    assert delivered <= {one.extract for one in here} <= released
    assert len(released - delivered) <= 1
    assert len({name for name in lying if name[0] != "."}) <= 1


def campaign(consortium: Consortium, choose: Any) -> None:
    asyncio.run(prepare(consortium))
    Campaign(consortium).run(choose)
    check(consortium)


@pytest.fixture
def three(tmp_path: Path) -> Consortium:
    return Consortium(tmp_path, MEMBERS)


@pytest.mark.timeout(600)
def test_extracts_leave_once_whoever_is_killed(three: Consortium) -> None:
    def some(points: Sequence[int]) -> list[int]:
        return [points[len(points) // 2], points[-1]]

    campaign(three, some)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_extracts_leave_once_whoever_is_killed_at_any_step(three: Consortium) -> None:
    campaign(three, list)
