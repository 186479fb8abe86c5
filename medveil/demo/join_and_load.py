"""Steps 1 and 2: the consortium is founded and agrees on a privacy budget; each hospital loads its table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from connectors.layout import Layout
from connectors.quality import prepare
from connectors.sources import Source
from ledger.contracts import RegisterPopulation
from medveil.consortium import Founder
from medveil.demo.facts import JoinFacts, LoadFacts, OrganisationFacts, SiteFacts
from medveil.demo.play import BUREAU, INSURER, REGULATOR, RESEARCHER, Play, Site, dataset_name, hospital_name

BUDGET_NANO = 1_000_000_000
"""The population's whole budget: rho = 1."""


def founders(sites: int) -> list[Founder]:
    """Who founds the demo's consortium: `sites` hospitals and the four others."""
    hospitals = [Founder(hospital_name(number), ("hospital",)) for number in range(1, sites + 1)]
    return [
        *hospitals,
        Founder(INSURER, ("insurer",)),
        Founder(BUREAU, ("bureau",)),
        Founder(RESEARCHER, ("researcher",)),
        Founder(REGULATOR, ("regulator",)),
    ]


async def join(play: Play) -> JoinFacts:
    """Say who joined, and by which rule history becomes final; then the hospitals vote their budget."""
    trust = play.trust
    facts = JoinFacts(
        chain=trust.chain,
        genesis=trust.genesis_hash.hex(),
        organisations=[
            OrganisationFacts(
                member.organisation,
                list(member.roles),
                member.re_executes,
                member.keys.envelope.key.key_id().hex(),
            )
            for member in trust.members
        ],
        sequencer=trust.sequencer,
        k=trust.k,
        cosigners=len(trust.latest.re_executing),
        population=play.layout.population,
        budget_nano=BUDGET_NANO,
    )
    hospitals = play.hospitals
    await _vote(play, hospitals)
    say = play.narrator.say
    say(f"{len(trust.members)} organisations made their keys and founded chain {trust.chain}:")
    say(", ".join(member.organisation for member in trust.members) + ".")
    say(f"Genesis {facts.genesis[:16]}…; {facts.sequencer} orders blocks; a block is final once {facts.k} of")
    say(f"{facts.cosigners} organisations replayed and cosigned it. Trust file: consortium.json.")
    say(f"The {len(hospitals)} hospitals own population {facts.population}; all voted it a privacy budget of rho 1.")
    return facts


async def load(play: Play, sources: Sequence[Source]) -> LoadFacts:
    """Clean, encrypt and register each hospital's table."""
    layout = play.layout
    rows = sum(table.num_rows for _, _, table in sources)
    site_facts = []
    with play.narrator.progress("encrypting records", rows) as done:
        for hospital, (source, _, table) in zip(play.hospitals, sources, strict=True):
            site_facts.append(await _load_one(play, hospital, source, table))
            done(table.num_rows)
    facts = LoadFacts(
        title=layout.study.label.title if layout.study else layout.name,
        source=layout.about.title,
        split_rule=layout.split_rule.title,
        unit=_unit(layout),
        population=layout.population,
        sites=site_facts,
    )
    _tell(play, facts)
    return facts


def _unit(layout: Layout) -> str:
    """The privacy unit in plain words."""
    if layout.unit == "row":
        return "row: one row more or less"
    most = layout.rows_per_person
    return f"person: all rows of one person, of which at most {most} count{'s' if most == 1 else ''} at a site"


async def _load_one(play: Play, hospital: str, source: str, table: pa.Table) -> SiteFacts:
    dataset = dataset_name(play.layout, hospital)
    quality = await play.desks[hospital].load(dataset, play.layout, table, source)
    play.sites[hospital] = Site(hospital, source, dataset, prepare(table, play.layout))
    return SiteFacts(
        name=hospital,
        table=source,
        rows=quality.rows,
        missing={column.column: column.missing for column in quality.columns},
        out_of_range={column.column: column.out_of_range for column in quality.columns},
        duplicates=quality.duplicates,
        dirty_rate=quality.dirty_rate,
        vault_bytes=_size(play.homes / hospital / "vault"),
    )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


async def _vote(play: Play, hospitals: Sequence[str]) -> None:
    """A population of all hospitals, and its budget, which is in force once each of them has voted it."""
    layout = play.layout
    population = RegisterPopulation(
        layout.population, layout.unit, layout.rows_per_person, layout.colluders, tuple(hospitals)
    )
    await play.desks[hospitals[0]].register_population(population)
    for hospital in hospitals:
        await play.desks[hospital].vote(layout.population, BUDGET_NANO)


def _tell(play: Play, facts: LoadFacts) -> None:
    say = play.narrator.say
    say(facts.source)
    say(facts.split_rule)
    play.narrator.table(
        ["hospital", "records", "missing cells", "out of range", "duplicates", "dirty rate"],
        [
            [
                f"{site.name} ({site.table})" if site.table != site.name else site.name,
                f"{site.rows:,}",
                f"{sum(site.missing.values()):,}",
                f"{sum(site.out_of_range.values()):,} clamped",
                "not judged" if site.duplicates is None else f"{site.duplicates:,}",
                f"{100 * site.dirty_rate:.3f} %",
            ]
            for site in facts.sites
        ],
        numbers=(1, 2, 3, 4, 5),
    )
    say(f"Each record is encrypted under its own key. Privacy unit: {facts.unit}.")
