"""Steps 1 and 2: the consortium is founded and agrees on a privacy budget; each hospital loads its table."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from connectors.layout import Layout, row_class, schema_hash
from connectors.quality import prepare
from connectors.sources import Source
from ledger.contracts import Column, RegisterDataset, RegisterPopulation, VoteBudget
from medveil.consortium import Founder
from medveil.demo.facts import JoinFacts, LoadFacts, OrganisationFacts, SiteFacts
from medveil.demo.play import BUREAU, INSURER, REGULATOR, RESEARCHER, Play, Site, dataset_name, hospital_name
from medveil.gateway.organisation import Organisation
from wire.commitment import Place, commit, salt

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
    consortium = play.consortium
    trust = consortium.trust
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
    hospitals = consortium.with_role("hospital")
    await _vote(play.layout, hospitals)
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
    hospitals = play.consortium.with_role("hospital")
    rows = sum(table.num_rows for _, _, table in sources)
    site_facts = []
    with play.narrator.progress("encrypting records", rows) as done:
        for hospital, (source, _, table) in zip(hospitals, sources, strict=True):
            site_facts.append(_load_one(play, hospital, source, table))
            done(table.num_rows)
    for hospital in hospitals:
        await hospital.submit(_registration(layout, play.sites[hospital.name]))
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


def _load_one(play: Play, hospital: Organisation, source: str, table: pa.Table) -> SiteFacts:
    layout = play.layout
    prepared = prepare(table, layout)
    dataset = dataset_name(layout, hospital.name)
    hospital.vault.ingest(dataset, prepared.table, prepared.record_ids, schema_hash=schema_hash(layout))
    play.sites[hospital.name] = Site(hospital, source, dataset, prepared)
    report = prepared.report
    return SiteFacts(
        name=hospital.name,
        table=source,
        rows=report.rows,
        missing=report.missing,
        out_of_range=report.out_of_range,
        duplicates=report.duplicates,
        dirty_rate=report.dirty_rate,
        vault_bytes=_size(hospital.folder / "vault"),
    )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


async def _vote(layout: Layout, hospitals: Sequence[Organisation]) -> None:
    """A population of all hospitals, and its budget, which is in force once each of them has voted it."""
    owners = tuple(hospital.name for hospital in hospitals)
    population = RegisterPopulation(layout.population, layout.unit, layout.rows_per_person, layout.colluders, owners)
    await hospitals[0].submit(population)
    for hospital in hospitals:
        await hospital.submit(VoteBudget(layout.population, BUDGET_NANO))


def _registration(layout: Layout, site: Site) -> RegisterDataset:
    """A table as the ledger has it: declarations, and one salted commitment."""
    table = site.prepared.table
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    content = hashlib.sha256(sink.getvalue()).digest()
    place = Place("datasets", "register", "everyone", site.dataset, "table", 1)
    return RegisterDataset(
        dataset=site.dataset,
        population=layout.population,
        schema_hash=schema_hash(layout),
        columns=tuple(
            Column(column.name, column.kind, column.low, column.high, column.scale, column.values)
            for column in layout.columns
        ),
        row_class=row_class(table.num_rows),
        commitment=commit(salt(site.organisation.salt_key, place), content),
    )


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
