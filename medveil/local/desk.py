"""The desk of an organisation that runs as a process: what its people do, done through its gateway's own API.

It speaks as a person who is signed in, and believes nothing that the client does not verify.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import zipfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pyarrow as pa

from connectors.layout import Layout
from ledger.contracts import RegisterPopulation
from medveil.client import AsyncClient, Feature, Group, Measure, Question, Terms, Use
from medveil.client.grants import Decision as Previewed
from medveil.consortium import Founder
from medveil.demo.desk import Desk, Registered
from medveil.demo.home_desk import HomeDesk
from medveil.gateway.explained_words import Section
from medveil.gateway.exporting import Exported
from medveil.gateway.loading import ColumnCounts, TableQuality
from medveil.gateway.models import ModelPlan
from medveil.gateway.scoring import FlagOf, ScoreFlags
from medveil.local.founding import CONSORTIUM, found_local
from medveil.local.home_desk import ClientHomeDesk
from medveil.local.processes import Processes
from medveil.local.seeding import Seeding
from mpc import query as asked
from mpc.paillier_key import LENGTHS
from mpc.query import Query
from mpc.release import Release
from privacy.decide import Decision, UseRequest
from privacy.grants.levels import mask_text
from privacy.grants.terms import GrantTerms
from wire.canonical import decode
from wire.checkpoint import TrustFile, read_trust
from wire.errors import MedveilError, Refused, Unavailable
from wire.money import Amount
from zkp.bill_limit import Presentation

_LOOK = 0.1
"""Seconds between looks at what another organisation may have sent."""


class ClientDesk:
    """See `medveil.demo.desk.Desk`. clients: by language, of a person of the organisation who may do all of it.

    patience: seconds that `review` waits.
    """

    def __init__(self, name: str, clients: Mapping[str, AsyncClient], patience: float = 120.0) -> None:
        self.name = name
        self.home: HomeDesk = ClientHomeDesk(clients)
        self._client = clients["en"]
        self._patience = patience
        self._issued: dict[tuple[str, str], GrantTerms] = {}  # by recipient and dataset

    async def register_population(self, population: RegisterPopulation) -> None:
        """See `Desk.register_population`."""
        await self._client.populations.register(
            population.population,
            unit="person" if population.unit == "person" else "row",
            owners=population.owners,
            rows_per_person=population.rows_per_person,
            colluders=population.colluders,
            spread=population.spread,
            public=population.public,
        )

    async def vote(self, population: str, budget_nano: int) -> None:
        """See `Desk.vote`."""
        await self._client.populations.vote(population, budget_nano)

    async def load(self, dataset: str, layout: Layout, table: pa.Table, source: str) -> TableQuality:
        """See `Desk.load`. The table is the file `source` in the gateway's own data folder."""
        found = (await self._client.datasets.load(layout.name, source, dataset, key=dataset)).quality
        if found is None:
            raise Unavailable("local.no_quality", organisation=self.name, dataset=dataset)
        columns = tuple(ColumnCounts(one.column, one.missing, one.out_of_range) for one in found.columns)
        return TableQuality(dataset, layout.name, source, found.rows, columns, found.duplicates, found.dirty_cells)

    async def issue(self, terms: GrantTerms) -> None:
        """See `Desk.issue`."""
        await self._client.grants.issue(_terms(terms))
        self._issued[terms.recipient, terms.dataset] = terms

    async def preview(self, use: UseRequest) -> Decision:
        """See `Desk.preview`: by the grant that was issued last for that recipient and dataset."""
        terms = self._issued[use.recipient, use.dataset]
        asked = Use(fields=use.fields, kind=use.kind, purpose=use.purpose, recipient=use.recipient, dataset=use.dataset)
        found: Previewed = await self._client.grants.preview(_terms(terms), asked)
        return Decision(found.allowed, found.rule, terms.grant, found.missing, use.recipient, use.dataset)

    async def explain(self, query: Query) -> tuple[Section, ...]:
        """See `Desk.explain`."""
        explained = await self._client.queries.explain(question_of(query))
        return tuple(Section(one.title, one.lines) for one in explained.words)

    async def ask(self, query: Query) -> Release:
        """See `Desk.ask`. The client checks that the release holds and answers this question."""
        return (await self._client.queries.ask(question_of(query))).release

    async def issue_bill(self, person: str, amount: Amount) -> bytes:
        """See `Desk.issue_bill`."""
        bill = await self._client.bills.issue(person, *_money(amount))
        return bytes.fromhex(bill.handle)

    async def check_limit(self, hospital: str, handle: bytes, limit: Amount, purpose: str, grant: str) -> Presentation:
        """See `Desk.check_limit`."""
        shown, currency = _money(limit)
        proof = await self._client.eligibility.ask(
            hospital=hospital, handle=handle.hex(), limit=shown, currency=currency, purpose=purpose, grant=grant
        )
        return decode(Presentation, await self._client.eligibility.evidence(proof.nonce))

    async def propose_model(self, regulator: str, plan: ModelPlan) -> Registered:
        """See `Desk.propose_model`."""
        await self._propose(regulator, plan)
        found = next(one for one in (await self._client.models.list()).models if one.model == plan.model)
        return Registered(bytes.fromhex(found.digest), LENGTHS[0])

    async def propose_unchecked(self, regulator: str, plan: ModelPlan) -> None:
        """See `Desk.propose_unchecked`: a gateway that runs does not leave its checks out, and says so."""
        try:
            await self._propose(regulator, plan)
        except (Refused, Unavailable):
            raise
        except MedveilError as no:  # what its API does not even take
            raise Refused("local.own_no", organisation=self.name, words=no.text()) from None

    async def _propose(self, regulator: str, plan: ModelPlan) -> None:
        await self._client.models.propose(
            plan.model,
            [Feature(one.name, one.low, one.high, one.scale, one.missing) for one in plan.features],
            plan.weights,
            weight_low=plan.weight_low,
            weight_high=plan.weight_high,
            limit=plan.limit,
            regulator=regulator,
        )

    async def review(self, model: str) -> None:
        """See `Desk.review`."""
        try:
            async with asyncio.timeout(self._patience):
                while True:
                    for one in (await self._client.models.shown()).models:
                        if one.model == model and one.status == "waiting":
                            await self._client.models.review(one.review, approve=True)
                            return
                    await asyncio.sleep(_LOOK)
        except TimeoutError:
            raise Unavailable("channel.timeout", organisation=self.name, seconds=int(self._patience)) from None

    async def ask_scores(self, hospital: str, model: str, dataset: str, purpose: str) -> ScoreFlags:
        """See `Desk.ask_scores`."""
        found = await self._client.scores.ask(hospital=hospital, model=model, dataset=dataset, purpose=purpose)
        flags = tuple(FlagOf(bytes.fromhex(flag.handle), flag.reached) for flag in found.flags)
        return ScoreFlags(bytes.fromhex(found.session), hospital, model, dataset, flags)

    async def scored(self, session: bytes) -> dict[bytes, str]:
        """See `Desk.scored`."""
        found = await self._client.scores.records(session.hex())
        return {bytes.fromhex(one.handle): one.record for one in found.records}

    async def export_evidence(self, folder: Path) -> Exported:
        """See `Desk.export_evidence`: written at the gateway, fetched from there."""
        name = await self._client.evidence.export(collect=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
            archive = await self._client.evidence.fetch(name, Path(beside) / "evidence.zip")
            files = await asyncio.to_thread(_unpack, archive, folder)
        return Exported(files, 0, ())


@asynccontextmanager
async def process_desks(
    folder: Path,
    founders: Sequence[Founder],
    sequencer: str,
    chain: str,
    zone: str,
    data: Path | None,
    say: Callable[[str], None],
) -> AsyncIterator[tuple[dict[str, Desk], TrustFile]]:
    """Found a consortium in `folder`, run a process for each organisation, and sit at each one's desk.

    Of the tables, none is left in `folder` but in the vaults.

    Raises what founding and starting raise; Unavailable if a process ends by itself meanwhile.
    """
    state = await asyncio.to_thread(found_local, folder, founders, sequencer, chain, zone, data)
    running = asyncio.current_task()
    assert running is not None  # a coroutine runs in a task
    ended: list[Unavailable] = []

    def on_end(organisation: str, code: int) -> None:
        ended.append(Unavailable("local.died", organisation=organisation, exit=code))
        running.cancel()

    processes = Processes(folder, state, lambda organisation, line: None, on_end)
    try:
        await processes.start(lambda member: None)
        say(f"{len(state.members)} gateways run, a process for each organisation, with TLS between them.")
        seeding = Seeding(folder, state, lambda sentence: None)
        await seeding.enrol()
        async with AsyncExitStack() as stack:
            desks: dict[str, Desk] = {
                member.organisation: ClientDesk(
                    member.organisation,
                    {
                        language: await stack.enter_async_context(seeding.acting(member, language=language))
                        for language in ("en", "zh")
                    },
                )
                for member in state.members
            }
            yield desks, read_trust(folder / CONSORTIUM)
    except asyncio.CancelledError:
        if ended:
            raise ended[0] from None
        raise
    finally:
        await processes.stop()
        shutil.rmtree(folder / "data", ignore_errors=True)  # tables in the clear, which nobody needs any more


def _unpack(archive: Path, folder: Path) -> int:
    """Unpack what the gateway sent into the new `folder`; how many files. Raises Refused for paths that lead out."""
    with zipfile.ZipFile(archive) as packed:
        names = packed.namelist()
        for name in names:
            target = (folder / name).resolve()
            if not target.is_relative_to(folder.resolve()) or name.endswith("/"):
                raise Refused("local.bad_archive", file=archive.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with packed.open(name) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file)
    return len(names)


def question_of(query: Query) -> Question:
    """The question that `query` answers, as a person asks it: numbers as decimals. Without a filter."""
    return Question(
        population=query.population,
        measures=tuple(map(_asked, query.measures)),
        groups=tuple(Group(group.name, group.other) for group in query.groups),
        purpose=query.purpose,
        rho=f"{Decimal(query.rho_nano).scaleb(-9):f}",
        roster=query.roster,
        datasets=query.datasets,
        person=query.person,
        delta=f"1e-{query.delta_exponent}",
        minimum_group=query.minimum_group,
        exact=query.exact,
    )


def _asked(measure: asked.Measure) -> Measure:
    def decimals(*values: int) -> tuple[str, ...]:
        return tuple(f"{Decimal(value) / measure.scale:f}" for value in values)

    low, high = decimals(measure.low, measure.high)
    return Measure(measure.column, low, high, decimals(*measure.edges), decimals(*measure.missing), measure.weight)


def _money(amount: Amount) -> tuple[str, str]:
    return str(amount).removesuffix(f" {amount.currency}"), amount.currency


def _terms(terms: GrantTerms) -> Terms:
    return Terms(
        grant=terms.grant,
        recipient=terms.recipient,
        dataset=terms.dataset,
        fields=terms.fields,
        purposes=terms.purposes,
        uses=terms.uses,
        legal_basis=terms.legal_basis,
        not_before=terms.not_before,
        expires=terms.expires,
        delete_by=terms.delete_by,
        recipient_contact=terms.recipient_contact,
        commercial=terms.commercial,
        consent_ref=terms.consent_ref,
        pia_ref=terms.pia_ref,
        jurisdiction=terms.jurisdiction,
        transfer_ref=terms.transfer_ref,
        epoch=terms.epoch,
        conditions=terms.conditions,
        guardian_ref=terms.guardian_ref,
        level_ceiling=terms.level_ceiling,
        class_ceiling=terms.class_ceiling,
        masks={mask.field: mask_text(mask) for mask in terms.masks},
        min_group=terms.min_group,
        keep_days=terms.keep_days,
        review=terms.review,
        records_until=terms.records_until,
    )
