"""kill -9 of any gateway at any step of a secure sum: nothing lost, nothing doubled, no budget spent twice.

One process an organisation, real TLS between them: a researcher that asks, three hospitals that answer, a bureau that
orders the blocks. Each is killed in turn at a random moment and started again; every query ends with its release.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.layout import schema_hash
from ledger.contracts import Column, RegisterDataset, RegisterPopulation, VoteBudget, datasets, queries
from ledger.export import verify_export
from medveil.gateway import granting
from medveil.gateway.query_board import read_board
from medveil.gateway.steps import Passing
from medveil.gateway.tables import keep_layout
from privacy.grants.terms import GrantTerms
from tests.medveil.conftest import LAYOUT, cost_by_ward, rows, study_terms
from wire.canonical import encode

from .conftest import Consortium, now
from .processes import Running

HOSPITALS = ("hospital-1", "hospital-2", "hospital-3")
MEMBERS = {"bureau": "bureau", **dict.fromkeys(HOSPITALS, "hospital"), "researcher": "researcher"}
RHO = 1_000_000
BUDGET = 1000 * RHO
_SCRIPT = Path(__file__).with_name("summing.py")


def terms(hospital: str, **changes: Any) -> GrantTerms:
    """The terms of a grant of `hospital`: the study to the researcher, unless changed."""
    named = {"grant": f"study-{hospital}", "recipient": "researcher", **changes}
    return study_terms(issuer=hospital, at=now() - 1000, **named)


async def prepare(consortium: Consortium, hospitals: Sequence[str] = HOSPITALS) -> None:
    """Tables, budget and grants, as the hospitals' people would have made them."""
    columns = tuple(Column(c.name, c.kind, c.low, c.high, c.scale, c.values) for c in LAYOUT.columns)
    async with consortium.running() as gateways:
        sites = [gateways[name].organisation for name in hospitals]
        await sites[0].submit(RegisterPopulation("stays", "row", 1, 1, tuple(hospitals)))
        for number, site in enumerate(sites, start=1):
            name = f"stays-{site.name}"
            site.vault.ingest(name, rows(number), schema_hash=schema_hash(LAYOUT))
            keep_layout(site.vault, name, LAYOUT)
            salt = secrets.token_bytes(32)
            await site.submit(RegisterDataset(name, "stays", schema_hash(LAYOUT), columns, 100, salt))
            await site.submit(VoteBudget("stays", BUDGET))
            await granting.issue(site, terms(site.name), Passing())


def campaign(consortium: Consortium, kills: int, seed: int) -> None:
    asyncio.run(prepare(consortium))
    question = consortium.folder / "query"
    question.write_bytes(encode(cost_by_ward(RHO)))
    chance = random.Random(seed)
    logs = {name: consortium.folder / f"{name}.log" for name in consortium.members}

    def start(name: str) -> Running:
        more = (str(question),) if name == "researcher" else ()
        return Running(_SCRIPT, consortium.folder / name, logs[name], *more)

    running: dict[str, Running] = {}
    try:
        for name in consortium.members:
            running[name] = start(name)
            running[name].until("serving")
        running["researcher"].until("released", timeout=120)
        names = list(consortium.members)
        for number in range(kills):
            name = names[number % len(names)]
            time.sleep(chance.random() * 1.5)
            running[name].kill()
            time.sleep(chance.random() * 0.3)
            running[name] = start(name)
            running[name].until("serving")
            if number % 3 == 2:
                running["researcher"].until("released", timeout=180)
        running["researcher"].until("released", timeout=180)
        running["researcher"].until("asking", 1, timeout=60)
    finally:
        for one in running.values():
            one.kill()
    asyncio.run(check(consortium, logs["researcher"].read_text().splitlines()))


async def whole(gateways: dict[str, Any], released: set[str]) -> Any:
    """The bureau's state with every query that a hospital wrote an intent for, and with the release of each that the
    researcher was told of: a block that was final for these when the bureau was killed is final for the bureau once it
    is cosigned again."""
    trails = [gateways[name].organisation.audit.entries() for name in HOSPITALS]
    wanted = {entry.use.query for entries in trails for entry in entries if entry.intent == 0}
    for _ in range(300):
        state = await gateways["bureau"].account.caught_up()
        found = [item for _, item in state.items(queries.QUERIES, queries.QueryState)]
        done = {item.query.hex() for item in found if item.status == "released"}
        if wanted <= {item.salted_hash for item in found} and released <= done:
            break
        await asyncio.sleep(0.1)
    return state


async def check(consortium: Consortium, said: list[str]) -> None:
    assert not [line for line in said if line.startswith("failed")], said
    released = {line.split()[2] for line in said if line.startswith("released")}
    async with AsyncExitStack() as stack:
        gateways = {name: await stack.enter_async_context(await consortium.start(name)) for name in consortium.members}
        state = await whole(gateways, released)
        found = {item.query.hex(): item for _, item in state.items(queries.QUERIES, queries.QueryState)}
        assert released <= {handle for handle, item in found.items() if item.status == "released"}
        under_way = [item for item in found.values() if item.status != "released"]
        assert len(under_way) <= 1, "only the last one may be under way"
        population = datasets.population(state.view(), "stays")
        paid = [item for item in found.values() if item.status in ("spent", "released")]
        assert population.spent == RHO * len(paid)
        assert population.reserved == RHO * sum(item.status == "reserved" for item in found.values())
        assert population.available == BUDGET - population.spent - population.reserved
        unsettled = {item.salted_hash for item in under_way}
        for name in HOSPITALS:
            entries = gateways[name].organisation.audit.entries()
            intents = [entry for entry in entries if entry.intent == 0 and entry.use.query not in unsettled]
            outcomes = [entry for entry in entries if entry.intent != 0 and entry.use.query not in unsettled]
            used = [entry.use.query for entry in intents]
            done = {item.salted_hash for item in found.values() if item.status == "released"}
            assert len(set(used)) == len(used) and set(used) == done, "one intent for each query"
            ended = {entry.use.query: entry.outcome for entry in outcomes}
            late = [one for one in done if ended.get(one) != "released"]
            assert len(outcomes) == len(ended) and len(late) <= 1, "the last release may not have been read yet"
        verify_export(await gateways["bureau"].engine.export(), consortium.trust)  # type: ignore[attr-defined]


FOUR = (*HOSPITALS, "hospital-4")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", [pytest.param("SharesDealt", marks=pytest.mark.long), "Masked"])
def test_a_sum_goes_on_without_a_hospital_that_is_killed_and_stays_away(tmp_path: Path, kind: str) -> None:
    """A process of its own for each; the one that comes back finds how it ended, and says so in its trail."""
    members = {"bureau": "bureau", **dict.fromkeys(FOUR, "hospital"), "researcher": "researcher"}
    consortium = Consortium(tmp_path, members)
    asyncio.run(prepare(consortium, FOUR))
    question = consortium.folder / "query"
    query = msgspec.structs.replace(cost_by_ward(RHO), roster=FOUR, datasets=tuple(f"stays-{name}" for name in FOUR))
    question.write_bytes(encode(query))
    logs = {name: consortium.folder / f"{name}.log" for name in consortium.members}
    running: dict[str, Running] = {}

    def start(name: str, *more: str) -> None:
        running[name] = Running(_SCRIPT, consortium.folder / name, logs[name], *more)
        running[name].until("serving")

    try:
        for name in consortium.members:
            more = ("--dies-before", kind) if name == "hospital-4" else ()
            if name != "researcher":
                start(name, "--tells", *more)
        start("researcher", str(question), "--patience", "20")
        running["researcher"].until("released 0", timeout=180)
        running["researcher"].kill()
        running["hospital-4"].kill()
        start("hospital-4", "--tells")
        for name in FOUR:
            running[name].until("ended")
    finally:
        for one in running.values():
            one.kill()
    asyncio.run(without_the_fourth(consortium))


async def without_the_fourth(consortium: Consortium) -> None:
    async with AsyncExitStack() as stack:
        gateways = {name: await stack.enter_async_context(await consortium.start(name)) for name in consortium.members}
        state = await gateways["bureau"].account.caught_up()
        found = [item for _, item in state.items(queries.QUERIES, queries.QueryState)]
        first = min(found, key=lambda item: item.height)
        assert first.status == "released" and len(first.approvals) == 4
        board = read_board(state, first.query)
        assert [record.survivors.sites for record in board.phases] == [HOSPITALS, HOSPITALS]
        for name in FOUR:
            entries = gateways[name].organisation.audit.entries()
            (intent,) = [one for one in entries if one.intent == 0 and one.use.query == first.salted_hash]
            ended = [one.outcome for one in entries if one.intent == intent.sequence]
            assert ended == ["aborted" if name == "hospital-4" else "released"], name


@pytest.mark.timeout(600)
def test_a_sum_goes_on_whoever_is_killed(tmp_path: Path) -> None:
    campaign(Consortium(tmp_path, MEMBERS), kills=6, seed=3)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_sum_goes_on_whoever_is_killed_three_hundred_times(tmp_path: Path) -> None:
    campaign(Consortium(tmp_path, MEMBERS), kills=300, seed=11)
