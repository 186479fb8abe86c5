"""A table with values that no measure has, of one person, of nobody: at the gateways nothing of it can be seen.

The same question is asked of one table after the other, each the successor of the one before. What every site sends,
posts and writes down has the same order and the same lengths as with a table in which nothing is wrong.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from ledger.contracts import SupersedeDataset, datasets
from medveil.gateway.tables import keep_layout
from wire import canonical

Play = Callable[[Callable[[Any], Any]], Any]
ROWS = 60
PLANTED = 7_305_918_264_531.0
ODD = (PLANTED, math.nan, math.inf, -math.inf, 1e308, -1e308, 2.0**63, -0.0, 5e-324, 101.0, -1.0, None)


def table(costs: list[float | None], wards: list[str | None]) -> pa.Table:
    """A hospital's rows."""
    ages = pa.array([40] * len(costs), pa.int64())
    return pa.table({"cost": pa.array(costs, pa.float64()), "age": ages, "ward": pa.array(wards, pa.string())})


TABLES = {
    "good": table([float(7 * row % 101) for row in range(ROWS)], ["east", "east", "west"] * (ROWS // 3)),
    "odd": table((ODD * ROWS)[:ROWS], ["east", "nowhere", None] * (ROWS // 3)),
    "one-person": table([3.0], ["east"]),
    "nobody": table([], []),
}
RHO = 240_000_000
"""Four of them are in the budget; with its noise, both groups pass by what the other two sites have, at 5 sigma."""


def recorded(world: Any, seen: dict[str, list[Any]]) -> None:
    """Write down what leaves each site from now on: to whom, what, how long; and what it says on the ledger."""

    def listen(site: Any) -> None:
        send, submit = site.send, site.submit

        async def sent(recipient: str, session: bytes, message: Any) -> None:
            data = canonical.encode(message)
            seen[site.name].append((recipient, type(message).__name__, len(data)))
            seen["bytes"].append(data)
            await send(recipient, session, message)

        async def posted(*ops: Any) -> Any:
            seen[site.name].append(("ledger", *(type(op).__name__ for op in ops)))
            seen["bytes"] += [canonical.encode(op) for op in ops]
            return await submit(*ops)

        site.send, site.submit = sent, posted

    for site in world.sites:
        listen(site)


def test_a_table_in_which_all_is_wrong_looks_like_any_other(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    async def story(world: Any) -> None:
        await world.grant_study()
        site, name = world["hospital-1"], "stays-hospital-1"
        seen: dict[str, list[Any]] = {}
        found = {}
        recorded(world, seen)
        for number, (kind, rows) in enumerate(TABLES.items()):
            state = world.researcher.account.state
            old = datasets.current_dataset(state.view(), name)
            name = f"stays-{number:05}"
            seen.update({one.name: [] for one in world.sites} | {"bytes": []})
            await world.researcher.account.caught_up()
            salt = secrets.token_bytes(32)
            await site.submit(SupersedeDataset(old.dataset, name, old.schema_hash, old.columns, old.row_class, salt))
            site.vault.ingest(name, rows, schema_hash=bytes(old.schema_hash))
            keep_layout(site.vault, name, world.layout)
            await world.grant(f"study-{number:05}", "hospital-1", "researcher", dataset=name)
            seen.update({one.name: [] for one in world.sites} | {"bytes": []})
            before = {one.name: len(world.entries(one.name)) for one in world.sites}
            caplog.clear()
            names = (name, "stays-hospital-2", "stays-hospital-3")
            release = await world.released(world.query(datasets=names, rho_nano=RHO))
            assert not any(one.hidden for one in release.results)
            trail = {
                one.name: [
                    (entry.outcome, entry.intent is None) for entry in world.entries(one.name)[before[one.name] :]
                ]
                for one in world.sites
            }
            logged = [(record.name, record.levelname, record.msg) for record in caplog.records]
            found[kind] = ({one.name: list(seen[one.name]) for one in world.sites}, trail, logged)
            assert str(int(PLANTED)) not in caplog.text
            assert not any(str(int(PLANTED)).encode() in data for data in seen["bytes"])
        said = {entry[1] for entry in found["good"][0]["hospital-1"]}
        assert {"RoundKeys", "SharesDealt", "Masked", "Unmasking", "ApproveQuery", "Contribute"} <= said
        for kind in TABLES:
            assert found[kind] == found["good"], kind

    with caplog.at_level(logging.DEBUG, logger="medveil"):
        play(story)
