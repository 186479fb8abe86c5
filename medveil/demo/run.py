"""One run of the demo: the steps in order, into a staged folder that replaces the last run's only when whole."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import msgspec

from connectors.sources import Source, load_sources
from ledger.engines.clock import steady
from medveil import __version__
from medveil.consortium import local_consortium
from medveil.demo import audit as auditing
from medveil.demo.at_home import ERASURE, at_home
from medveil.demo.desk import Desk, LocalDesk
from medveil.demo.eligibility import ask_eligibility
from medveil.demo.facts import DemoFacts
from medveil.demo.grant import PURPOSE, grant
from medveil.demo.insured import sign_up
from medveil.demo.join_and_load import founders, join, load
from medveil.demo.limit import prove_limit
from medveil.demo.narrator import Narrator
from medveil.demo.play import BUREAU, CHAIN, PROOFS, RECEIPTS, ZONE, Play, now, rand
from medveil.demo.query import check_question, query
from medveil.demo.report import write_report
from medveil.demo.score import score
from medveil.demo.settle import settle
from medveil.demo.stage import stage
from wire.checkpoint import TrustFile
from wire.dates import format_instant
from wire.errors import Unavailable
from wire.evidence import SUFFIX


def run(
    data: Path | None, out: Path, as_json: bool = False, began: float | None = None, processes: bool = False
) -> None:
    """Play the consortium on `data` (None: the default data) into folder `out`; prints as it goes.

    began: of `time.perf_counter`, when the command began to load; now, by default. processes: each organisation's
    gateway is a process of its own, with TLS between them and towards their people; else all are in this one.

    Raises MedveilError with one sentence for bad data or a folder that cannot be used; `out` is then
    as it was.
    """
    narrator = Narrator(quiet=as_json, began=began)
    check_installed()
    sources = load_sources(data)  # wrong data, and questions nobody can ask, are said before anything is written
    check_question(sources[0][1], [table.num_rows for _, _, table in sources])
    with stage(out) as folder:
        try:
            facts = asyncio.run(_play(folder, data, sources, narrator, processes))
        except BaseExceptionGroup as group:
            raise _first(group) from None
        with narrator.step("Report"):
            write_report(folder / "report.html", facts)
            narrator.say("One page with the same facts and plots; it loads nothing from elsewhere.")
    if as_json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(facts), indent=2) + b"\n")
        return
    narrator.say("")
    narrator.say(f"{narrator.elapsed():.1f} s in all. Check the evidence, and what was proved, yourself, offline:")
    narrator.command(f"medveil verify {out / 'evidence'} --trust {out / 'consortium.json'}")
    for proof in ("eligibility", *(f"settlement-{one.layer}" for one in facts.settle.payments)):
        shown = out / PROOFS / proof
        narrator.command(f"medveil zkp verify {shown}{SUFFIX} --question {shown}-question{SUFFIX}")
    narrator.command(f"medveil verify {out / RECEIPTS / ERASURE} --trust {out / 'consortium.json'}")
    narrator.link(str(out / "report.html"))


class Stage(NamedTuple):
    """What the organisations run on: see `Play`."""

    desks: Mapping[str, Desk]
    trust: TrustFile
    carried: Callable[[], tuple[int, int]] | None
    homes: Path
    data: Path


def check_installed() -> None:
    """Whether the packages of the later steps are there: said before the first. Raises Unavailable."""
    for package in ("phe", "jinja2", "matplotlib"):
        if find_spec(package) is None:
            raise Unavailable("demo.parts_missing", package=package)


@asynccontextmanager
async def _one_process(folder: Path, sites: int) -> AsyncIterator[Stage]:
    """Every organisation in this process, with an in-memory channel between them."""
    async with local_consortium(folder, CHAIN, founders(sites), BUREAU, ZONE, rand, now, steady=steady) as consortium:
        members, homes = consortium.organisations, consortium.homes
        desks = {name: LocalDesk(member, homes[name], now) for name, member in members.items()}
        yield Stage(desks, consortium.trust, consortium.post.carried, folder / "sites", folder / "data")


@asynccontextmanager
async def _processes(folder: Path, data: Path | None, sites: int, narrator: Narrator) -> AsyncIterator[Stage]:
    """A process for each organisation; its people act through its API."""
    from medveil.local.desk import process_desks

    place = folder / "sites"
    async with process_desks(place, founders(sites), BUREAU, CHAIN, ZONE, data, narrator.say) as (desks, trust):
        shutil.copy(place / "consortium.json", folder / "consortium.json")
        yield Stage(desks, trust, None, place / "homes", place / "data")


async def _play(
    folder: Path, data: Path | None, sources: Sequence[Source], narrator: Narrator, processes: bool
) -> DemoFacts:
    layout = sources[0][1]
    sites = len(sources)
    started = format_instant(now())
    async with AsyncExitStack() as stack:
        with narrator.step("Join"):
            chosen = _processes(folder, data, sites, narrator) if processes else _one_process(folder, sites)
            stage = await stack.enter_async_context(chosen)
            play = Play(stage.desks, stage.trust, stage.carried, narrator, folder, stage.homes, stage.data, layout)
            joined = await join(play)
        with narrator.step("Load"):
            loaded = await load(play, sources)
        with narrator.step("Grant"):
            granted = await grant(play)
        with narrator.step("Query"):
            asked = await query(play, PURPOSE)
        with narrator.step("Limit"):
            limited = await prove_limit(play)
        with narrator.step("Eligibility"):
            insured = sign_up(play)
            proven = await ask_eligibility(play, insured)
        with narrator.step("Settle"):
            settled = await settle(play, insured)
        with narrator.step("Score"):
            scored = await score(play)
        with narrator.step("At home"):
            kept = await at_home(play)
        with narrator.step("Audit"):
            evidence = await auditing.export(play)
            audited = auditing.audit(play, evidence)
        return DemoFacts(
            version=__version__,
            started=started,
            join=joined,
            load=loaded,
            grant=granted,
            query=asked,
            limit=limited,
            eligibility=proven,
            settle=settled,
            score=scored,
            at_home=kept,
            audit=audited,
            seconds=dict(narrator.seconds),
            elapsed=narrator.elapsed(),
        )


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error behind a group of tasks that ended together."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
