"""A consortium at work: services of its organisations, and what their people do there through clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from service.working import Consorted, now

from medveil.client import Client, Session, Terms

SITES = ("hospital-1", "hospital-2", "hospital-3")
DAY = 86_400_000
LAYOUT = """
version = 1
name = "stays"
population = "stays"
unit = "row"
colluders = 1
record_id = "id"
about = "Made up for tests."
about_zh = "测试数据。"
split_rule = "As made."
split_rule_zh = "原样。"

[[columns]]
name = "cost"
kind = "number"
title = "Cost"
title_zh = "费用"
low = 0
high = 100

[[columns]]
name = "age"
kind = "number"
title = "Age"
title_zh = "年龄"
low = 0
high = 120

[[columns]]
name = "ward"
kind = "category"
title = "Ward"
title_zh = "病区"
values = ["east", "west"]
"""


def table(site: int) -> str:
    """A hospital's table as its file has it."""
    rows = (f"{row},{(7 * row + site) % 101},{(3 * row) % 121},{'east' if row % 3 else 'west'}" for row in range(60))
    return "\n".join(["id,cost,age,ward", *rows]) + "\n"


class World:
    """Services of three hospitals, a researcher and a regulator, and what their people do through clients."""

    def __init__(self, consorted: Consorted, services: dict[str, Any]) -> None:
        self.consorted = consorted
        self.services = services
        self.trust = consorted.trust

    def client(self, name: str, role: str, address: str = "", **more: Any) -> Client:
        service = self.services[name]
        who = Session(service.session(role))
        return Client(address or service.address, who, trust=self.trust, clock=service.clock, **more)


@contextmanager
def running(make: Callable[[str], Path], *others: str) -> Iterator[World]:
    """A world with the three hospitals' tables loaded. make: a new folder of this name; others: who else is there."""
    with Consorted(make("consortium")) as consorted, ExitStack() as stack:
        services = {}
        for name in (*SITES, *others):
            data = make(f"data-{name}")
            (data / "stays").mkdir()
            (data / "stays" / "dataset.toml").write_text(LAYOUT, encoding="utf-8")
            (data / "half-done").mkdir()
            (data / "half-done" / "dataset.toml").write_text("version = 1\n", encoding="utf-8")
            if name in SITES:
                (data / "stays" / "rows.csv").write_text(table(SITES.index(name)), encoding="utf-8")
            services[name] = stack.enter_context(consorted.service(name, make(f"service-{name}"), data))
        made = World(consorted, services)
        fill(made)
        yield made


def fill(world: World) -> None:
    """Everybody's tables, votes and grants, each by its own people. An insurer owns a part, and has no table yet."""
    others = [name for name in world.services if name.startswith("insurer")]
    with world.client("hospital-1", "officer") as first:
        first.populations.register("stays", unit="row", owners=(*SITES, *others))
    for name in others:
        with world.client(name, "officer") as officer:
            officer.populations.vote("stays", 10**9)

    def at_home(name: str) -> None:
        with world.client(name, "officer") as officer:
            (source,) = officer.datasets.sources().sources
            told: list[Any] = []
            dataset = officer.datasets.load(source.source, source.table, f"stays-{name}", told=told.append)
            assert dataset.own and dataset.quality is not None and dataset.quality.rows == 60
            assert told[-1].state == "done"
            officer.populations.vote("stays", 10**9)
            grant = officer.grants.issue(terms(name))
            assert grant.status == "in-force" and grant.terms.issuer == name

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(at_home, SITES))


def terms(site: str, **changes: Any) -> Terms:
    given = {
        "grant": f"study-{site}",
        "recipient": "researcher-1",
        "dataset": f"stays-{site}",
        "fields": ("cost", "ward"),
        "purposes": ("HMB",),
        "uses": ("query",),
        "legal_basis": "separate-consent",
        "consent_ref": "consents/1",
        "pia_ref": "assessments/1",
        "not_before": now() - 1000,
        "expires": now() + DAY,
        "delete_by": now() + 2 * DAY,
    }
    return Terms(**given | changes)
