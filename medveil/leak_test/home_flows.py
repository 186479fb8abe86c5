"""What data officers do at home while gateways run: copies of rows for others, opt-outs, questions about one person,
an erasure. Planted patients are in all of it.
"""

from __future__ import annotations

import asyncio
import csv
import tempfile
import time
from pathlib import Path

from medveil.client import AsyncClient, ColumnClass, Risk
from medveil.client.extracts import Ask
from medveil.leak_test.flows import RESEARCH, dataset_of, must, refused, terms_of, until_held
from medveil.leak_test.scene import Scene
from wire.errors import ConsentDenied, MedveilError, Refused

_COLUMNS = ("cost", "identity", "sex")
_CLASSES = (
    ColumnClass("cost", 3),
    ColumnClass("age", 3),
    ColumnClass("days", 3),
    ColumnClass("sex", 2),
    ColumnClass("identity", 4, "identity-number"),
    ColumnClass("diagnosis", 5),
)
_ANY_RISK = Risk(unknown=("cost",), persons=1, diversity=1)
"""Planted patients are alone in their groups, and have to be in the copy."""
_CAREFUL = Risk(unknown=("cost",))


async def extract(scene: Scene) -> None:
    """A copy of rows: asked for, previewed, refused, made, delivered, opened, deleted; another is declined."""
    hospital, researcher = scene.planted[0], scene.with_role("researcher")
    name, dataset = hospital.hospital, dataset_of(hospital.hospital)
    grant = f"copy-{name}"
    terms = terms_of(grant, name, researcher, _COLUMNS, RESEARCH, "extract", min_group=1)
    async with scene.acting(name) as officer, scene.acting(researcher) as recipient:
        await officer.datasets.classify(dataset, _CLASSES, minors=False)
        await officer.grants.issue(terms)
        await until_held(recipient, grant)
        asked = [await recipient.extracts.ask(name, dataset, _COLUMNS, RESEARCH) for _ in range(2)]
        for one in asked:
            await _wanted(officer, one)
        seen = await officer.extracts.preview(ask=asked[0].ask, risk=_CAREFUL)
        must(seen.allowed and not seen.leaves and seen.offends, "preview of a copy")
        must(isinstance(await refused(officer.extracts.make(ask=asked[0].ask, risk=_CAREFUL)), Refused), "small groups")
        made = await officer.extracts.make(ask=asked[0].ask, risk=_ANY_RISK)
        must(made.state == "delivered" and "identity" not in made.columns, "copy")
        await officer.extracts.decline(asked[1].ask)
        costs = {one.cost / 100 for one in hospital.patients}
        with tempfile.TemporaryDirectory(dir=scene.folder.parent) as own:  # of whoever opens it, and gone
            rows = await recipient.extracts.open(made.extract, Path(own) / "rows.csv")
            with rows.open(encoding="utf-8", newline="") as file:
                must(costs <= {float(row["cost"]) for row in csv.DictReader(file)}, "opened copy")
            sealed = await recipient.extracts.fetch(made.extract, Path(own) / "copy.extract")
            must(sealed.stat().st_size, "sealed copy")
        await recipient.extracts.list()
        await officer.extracts.list()
        again = await officer.extracts.make(grant=grant, columns=_COLUMNS, purpose=RESEARCH, risk=_ANY_RISK)
        await recipient.extracts.delete(again.extract)  # the first stays, and is searched
        denied = officer.extracts.make(grant=grant, columns=("diagnosis",), purpose=RESEARCH, risk=_ANY_RISK)
        must(isinstance(await refused(denied), ConsentDenied), "denied copy")


async def _wanted(officer: AsyncClient, asked: Ask) -> None:
    """Until a request has come."""
    end = time.monotonic() + 60
    while asked.ask not in [one.ask for one in (await officer.extracts.wanted()).asks]:
        must(time.monotonic() < end, "request of a copy")
        await asyncio.sleep(0.1)


async def persons(scene: Scene) -> None:
    """Opt-outs of planted patients, questions about one, a legal hold; the same of somebody who is not there."""
    for hospital in scene.planted[1:]:
        one, other = hospital.patients[0].identity, hospital.patients[1].identity
        async with scene.acting(hospital.hospital) as officer:
            await officer.opt_outs.add(one, "all")
            await officer.opt_outs.add(one, "recipient", scene.with_role("insurer"))
            must((await officer.opt_outs.of(one)).known, "opt-outs")
            must(isinstance(await refused(officer.opt_outs.add(one, "some", one)), MedveilError), "bad opt-out")
            must((await officer.opt_outs.list()).scopes, "opt-outs")
            await officer.opt_outs.withdraw(one, "all")
            await officer.persons.uses(one)
            await officer.persons.sights(one, dataset_of(hospital.hospital), "cost")
            await officer.holds.place("court-case", "court/1", person=other)
            restricted = await officer.erasures.plan(other, reference="requests/held")
            must(not restricted.erase and restricted.restrict, "erasure under a hold")
            nobody = scene.planted[0].patients[0].identity
            must(not (await officer.opt_outs.of(nobody)).known, "opt-outs of nobody")
            must(isinstance(await refused(officer.erasures.plan(nobody)), Refused), "erasure of nobody")


async def erase(scene: Scene) -> None:
    """A planted patient is erased while the gateway runs; the receipt is checked, with the patient's own words."""
    hospital = scene.planted[2]
    gone = hospital.patients[2]
    async with scene.acting(hospital.hospital) as officer:
        planned = await officer.erasures.plan(gone.identity, reference="requests/1")
        done = await officer.erasures.apply(planned.erasure)
        must(done.destroyed and done.erase, "erasure at a running gateway")
        receipt = await officer.erasures.receipt(planned.erasure)
        await asyncio.to_thread((scene.folder / "evidence" / "running-receipt.evidence").write_bytes, receipt)
        checked = await officer.erasures.check(receipt, [gone.identity, gone.name, gone.visit])
        must(not checked.leftovers, "check of an erasure at a running gateway")
        await officer.erasures.rotate()
        await officer.erasures.due()
