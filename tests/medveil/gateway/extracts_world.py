"""What the tests of extracts between gateways share: a table with persons, grants of it, and whole deliveries."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import pyarrow as pa
import pytest

from medveil.gateway import extract_delivery, extract_taking, use_state
from medveil.gateway.extract_delivery import ExtractOffer
from medveil.gateway.extract_drafts import RiskChoice
from medveil.gateway.extracting import ExtractWish, make_extract
from medveil.gateway.held_extracts import HeldExtract
from medveil.gateway.steps import Passing
from medveil.gateway.tables import keep_layout
from privacy.copies.extract_file import ExtractFacts
from privacy.grants.levels import ColumnFacts, DatasetFacts
from privacy.grants.terms import GrantTerms
from privacy.uses import UseRequest
from tests.medveil.conftest import LAYOUT

HOLDER, RECIPIENT = "hospital-1", "researcher"
TABLE = "visits"
FIELDS = ("ward", "seen", "cost")
ROWS = 60
CHOICE = RiskChoice(sensitive=("cost",), unknown=("seen",))
"""Shifted dates count as known whatever is said."""


def visits(count: int = ROWS) -> tuple[pa.Table, list[str]]:
    """A table of `count` visits in two wards, two of each person, and whose each is."""
    persons = [f"person-{row // 2}" for row in range(count)]
    return (
        pa.table(
            {
                "ward": pa.array(["east" if row % 4 < 2 else "west" for row in range(count)]),
                "age": pa.array([20 + row % 60 for row in range(count)], pa.int64()),
                "cost": pa.array([(7 * row) % 101 for row in range(count)], pa.int64()),
                "seen": pa.array([18_000 + row for row in range(count)], pa.date32()),
                "name": pa.array([f"欧阳{row % 7}" for row in range(count)]),
            }
        ),
        persons,
    )


def load(world: Any, count: int = ROWS, table: pa.Table | None = None) -> None:
    """Have the table in the holder's vault, classified."""
    holder = world[HOLDER]
    for one in (holder, world[RECIPIENT]):
        one.last_patience = 20
    made, persons = visits(count)
    holder.vault.ingest(TABLE, made if table is None else table, [f"r{row}" for row in range(count)], persons=persons)
    keep_layout(holder.vault, TABLE, LAYOUT)
    facts = (ColumnFacts("ward", 2), ColumnFacts("age", 3), ColumnFacts("cost", 3))
    facts += (ColumnFacts("seen", 4, "date"), ColumnFacts("name", 4, "name"))
    use_state.classify(holder, DatasetFacts(TABLE, facts))


async def grant(world: Any, name: str = "copies", **changes: Any) -> GrantTerms:
    """The holder grants extracts of four columns."""
    made: dict[str, Any] = {
        "dataset": TABLE,
        "fields": ("ward", "age", "cost", "seen", "name"),
        "purposes": ("HMB",),
        "uses": ("extract",),
        "min_group": 3,
    }
    terms: GrantTerms = await world.grant(name, HOLDER, RECIPIENT, **(made | changes))
    return terms


def request(**changes: Any) -> UseRequest:
    """What the recipient wants: ward and cost."""
    given: dict[str, Any] = {
        "holder": HOLDER,
        "recipient": RECIPIENT,
        "dataset": TABLE,
        "fields": ("ward", "cost"),
        "kind": "extract",
        "purpose": "HMB",
    }
    return UseRequest(**(given | changes))


def wish(ask: bytes = b"", choice: RiskChoice | None = None, grant: str = "", **changes: Any) -> ExtractWish:
    """What the officer has made: costs are sensitive."""
    return ExtractWish(ask, grant, request(**changes), choice or RiskChoice(sensitive=("cost",)))


async def make(world: Any, wanted: ExtractWish, steps: Any = None, **options: Any) -> ExtractFacts:
    """The holder makes an extract."""
    holder = world[HOLDER]
    return await make_extract(holder, world.tables(holder), wanted, steps or Passing(), world.now, **options)


async def offered(world: Any) -> tuple[bytes, ExtractOffer]:
    """The next offer that reaches the recipient, and its session."""
    sender, session, offer = await anext(world[RECIPIENT].openings(ExtractOffer))
    assert sender == HOLDER
    return session, offer


async def deliver(world: Any, facts: ExtractFacts, sending: Any = None, taking: Any = None) -> tuple[Any, Any]:
    """What a delivery comes to, at the holder and at the recipient."""
    extract = facts.cover.extract

    async def taken() -> HeldExtract | None:
        session, _ = await offered(world)
        return await extract_taking.take_extract(world[RECIPIENT], HOLDER, session, taking or Passing(), world.now)

    sent = extract_delivery.deliver(world[HOLDER], extract, sending or Passing(), world.now)
    done = await asyncio.gather(sent, taken(), return_exceptions=True)
    return done[0], done[1]


def watch_lists(organisation: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of documents that are listed from now on: to list them, each is unsealed."""
    listed, documents = [], organisation.vault.documents

    def listing(kind: str) -> tuple[str, ...]:
        listed.append(kind)
        return tuple(documents(kind))

    monkeypatch.setattr(organisation.vault, "documents", listing)
    return listed


def ask_id() -> bytes:
    return secrets.token_bytes(16)
