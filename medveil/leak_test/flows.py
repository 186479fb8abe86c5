"""What the consortium does while it is watched: every flow that gateways have, asked for by people's clients.

Each step must come out as it should: a flow that did not run has shown nothing.
"""

from __future__ import annotations

import asyncio
import signal
import time
import zipfile
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from medveil.client import AsyncClient, Feature, Group, Measure, Question, Terms, Use, column
from medveil.client.filters import AnyFilter
from medveil.leak_test.patients import BROKEN, NAME, yuan
from medveil.leak_test.scene import Scene
from medveil.local.founding import ADMIN
from wire.errors import ConsentDenied, MedveilError, Refused
from wire.money import LARGEST

_DAY = 86_400_000
RESEARCH = "HMB"
_PROOF, _FRAUD = "ELIGVER", "FRAUD"
_BILLS = "bills"


class Flow(NamedTuple):
    """A step. name: what a person reads."""

    name: str
    run: Callable[[Scene], Awaitable[None]]


def must(holds: object, flow: str) -> None:
    """Raises Refused where a flow did not come out as it should."""
    if not holds:
        raise Refused("leak_test.flow", flow=flow)


async def seed(scene: Scene) -> None:
    """People, the population's budget, the hospitals' tables."""
    await scene.seeding.seed()
    for hospital in scene.planted:
        async with scene.acting(hospital.hospital) as client:
            loaded = await client.datasets.get(dataset_of(hospital.hospital))
            quality = loaded.quality
            must(quality and quality.columns[-1].out_of_range == len(hospital.patients), "load")


async def load_with_a_fault(scene: Scene) -> None:
    """A table that cannot be loaded: the refusal names a line and a column."""
    for hospital in scene.planted:
        async with scene.acting(hospital.hospital) as client:
            await client.datasets.sources()
            no = await refused(client.datasets.load(BROKEN, "rows", f"{BROKEN}-{hospital.hospital}"))
            must(no and "cost" in no.text(), "load with a fault")


async def grant(scene: Scene) -> None:
    """Grants to the researcher; a preview; one with a row filter that itself is private."""
    researcher = scene.with_role("researcher")
    for hospital in scene.planted:
        fields = ("cost", "identity", "sex")
        terms = terms_of(f"study-{hospital.hospital}", hospital.hospital, researcher, fields, RESEARCH, "query")
        other = terms_of(
            f"filtered-{hospital.hospital}",
            hospital.hospital,
            researcher,
            ("cost", "days"),
            "CLINTRCH",
            "query",
            rows=column("cost") < hospital.filtered,
        )
        async with scene.acting(hospital.hospital) as client:
            use = Use(fields=("age",), kind="query", purpose=RESEARCH)
            must(not (await client.grants.preview(terms, use)).allowed, "preview")
            for one in (terms, other):
                issued = await client.grants.issue(one)
                must(issued.status == "in-force", "grant")


async def query(scene: Scene) -> None:
    """A question that is denied, one that is released."""
    allowed = Question(
        population=NAME,
        measures=(Measure("cost", edges=("0", "1000", "5000")),),
        groups=(Group("sex"),),
        purpose=RESEARCH,
        rho="0.25",
        person="identity",
    )
    denied = Question(
        population=NAME,
        measures=(Measure("days", low="0", high="60"),),
        groups=(Group("sex"),),
        purpose=RESEARCH,
        rho="0.125",
        person="identity",
    )
    async with scene.acting(scene.with_role("researcher")) as client:
        await _until(client, len(scene.planted))
        await client.queries.explain(allowed)
        must(isinstance(await refused(client.queries.ask(denied)), ConsentDenied), "denied query")
        released = await client.queries.ask(allowed)
        must(released.release.results[0].groups, "query")
        await client.queries.receipts(released.query)
    for hospital in scene.planted:
        async with scene.acting(hospital.hospital) as client:
            await client.queries.served()


async def prove(scene: Scene) -> None:
    """Bills of planted patients; proofs that one is within a limit, and that one is not."""
    insurer = scene.with_role("insurer")
    for hospital in scene.planted[:2]:
        name = hospital.hospital
        terms = terms_of(f"claims-{name}", name, insurer, ("amount",), _PROOF, "proof", dataset=_BILLS)
        async with scene.acting(name) as client:
            bills = [await client.bills.issue(one.wallet, yuan(one.billed), "CNY") for one in hospital.patients[:2]]
            await client.bills.list()
            await client.bills.get(bills[0].handle)
            await client.grants.issue(terms)
        async with scene.acting(insurer) as client:
            asked: dict[str, Any] = {"hospital": name, "currency": "CNY", "purpose": _PROOF, "grant": terms.grant}
            asked |= {"handle": bills[0].handle}
            proof = await client.eligibility.ask(limit=yuan(LARGEST), **asked)
            await client.eligibility.evidence(proof.nonce)
            must(await refused(client.eligibility.ask(limit="100.00", **asked)), "proof over the limit")


async def score(scene: Scene) -> None:
    """A reviewed model over a hospital's records, planted ones among them."""
    bureau, regulator = scene.with_role("bureau"), scene.with_role("regulator")
    hospital = scene.planted[1]
    terms = terms_of(f"score-{hospital.hospital}", hospital.hospital, bureau, ("age", "days"), _FRAUD, "score")
    features = (Feature("age", 0, 120, 1, 60), Feature("days", 0, 60, 1, 30))
    async with (
        scene.acting(bureau) as owner,
        scene.acting(regulator) as reviewer,
        scene.acting(hospital.hospital) as server,
    ):
        await server.grants.issue(terms)
        proposing = asyncio.ensure_future(
            owner.models.propose(
                "over-use", features, (2, 3), weight_low=-9, weight_high=9, limit=150, regulator=regulator
            )
        )
        while not (shown := (await reviewer.models.shown()).models):
            if proposing.done():
                proposing.result()
            await asyncio.sleep(0.1)
        await reviewer.models.review(shown[0].review, approve=True)
        await proposing
        scored = await owner.scores.ask(
            hospital=hospital.hospital, model="over-use", dataset=dataset_of(hospital.hospital), purpose=_FRAUD
        )
        records = (await server.scores.records(scored.session)).records
        planted = {f"record/{one.visit}" for one in hospital.patients}
        must(planted <= {one.record for one in records}, "score")


async def evidence(scene: Scene) -> None:
    """The audit trail, anchored; evidence of everybody, fetched and unpacked."""
    for hospital in scene.planted:
        async with scene.acting(hospital.hospital) as client:
            await client.audit.anchor()
            await client.audit.entries()
            must((await client.audit.flows()).flows, "audit")
    for organisation, collect in ((scene.with_role("regulator"), True), (scene.planted[0].hospital, False)):
        async with scene.acting(organisation) as client:
            name = await client.evidence.export(collect=collect)
            archive = await client.evidence.fetch(name, scene.folder / "evidence" / f"{organisation}.zip")
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(scene.folder / "evidence" / organisation)


async def backup(scene: Scene) -> None:
    """A backup of a hospital, and of the sequencer, while they run."""
    for organisation in (scene.planted[0].hospital, scene.with_role("bureau")):
        async with scene.acting(organisation, ADMIN) as client:
            must((await client.service.backup()).state == "done", "backup")


async def crash(scene: Scene) -> None:
    """Two hospitals end in the middle of a load: one by kill -9, one as by a fault of its own. Both go on."""
    for place, number in ((0, signal.SIGKILL), (2, signal.SIGABRT)):
        name = scene.planted[place].hospital
        async with scene.acting(name) as client:
            member = scene.member(name)
            job = await client.datasets.begin_load(member.source, member.table, f"again-{name}")
            await asyncio.sleep(0.05)
            await scene.crash(name, number)
        await scene.processes.again(name)
        async with scene.acting(name) as client:
            must((await client.jobs.wait(job.job)).state == "done", "load after a crash")
            await client.datasets.list()


async def refused(asking: Awaitable[object]) -> MedveilError | None:
    """What a call is refused with; None where it is not."""
    try:
        await asking
    except MedveilError as no:
        return no
    return None


async def until_held(recipient: AsyncClient, grant: str) -> None:
    """Until the recipient has a grant."""
    end = time.monotonic() + 60
    while grant not in [one.terms.grant for one in (await recipient.grants.held()).grants]:
        must(time.monotonic() < end, "grant")
        await asyncio.sleep(0.1)


async def _until(client: AsyncClient, grants: int) -> None:
    """Until the recipient has the grants."""
    end = time.monotonic() + 60
    while len((await client.grants.held()).grants) < grants:
        must(time.monotonic() < end, "grant")
        await asyncio.sleep(0.1)


def dataset_of(hospital: str) -> str:
    """The table of a hospital's patients."""
    return f"{NAME}-{hospital}"


def terms_of(
    name: str,
    issuer: str,
    recipient: str,
    fields: tuple[str, ...],
    purpose: str,
    use: str,
    *,
    dataset: str = "",
    rows: AnyFilter = None,
    min_group: int = 5,
) -> Terms:
    """Terms of a grant for thirty days. rows: its filter."""
    at = time.time_ns() // 1_000_000 - 1000
    return Terms(
        grant=name,
        recipient=recipient,
        dataset=dataset or dataset_of(issuer),
        fields=fields,
        purposes=(purpose,),
        uses=(use,),
        legal_basis="separate-consent",
        not_before=at,
        expires=at + 30 * _DAY,
        delete_by=at + 60 * _DAY,
        filter=rows,
        consent_ref="consents/2026-11",
        pia_ref=f"assessments/{name}",
        min_group=min_group,
    )
