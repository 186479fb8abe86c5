"""The routes of populations and datasets: what the ledger declares, votes on budgets, loading and retiring tables."""

import asyncio
import contextlib
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from ledger.contracts import datasets
from ledger.contracts.datasets import DatasetState, PopulationState, RegisterPopulation, RetireDataset, VoteBudget
from medveil.gateway import problems
from medveil.gateway.loading import BadSource, quality_of, source_in, sources_in
from medveil.gateway.organisation import Organisation
from medveil.gateway.tables import Tables
from medveil.service.accounts.rights import Principal
from medveil.service.api.bodies import Sent
from medveil.service.api.callers import May
from medveil.service.api.fields import (
    NAME,
    WHOLE,
    DatasetPath,
    Flag,
    Name,
    Nano,
    PopulationPath,
    Written,
    decimal_text,
)
from medveil.service.api.flow_requests import LoadRequest
from medveil.service.api.job_routes import JobView
from medveil.service.api.member_routes import Nothing
from medveil.service.api.path_router import PathRouter
from medveil.service.api.workplace import BEGINS, WRITES, Key, Workplace
from mpc.query import check_colluders
from wire.errors import Refused
from wire.secure_sum import FEWEST_SITES

Reader = Annotated[Principal, Depends(May("datasets.read"))]
Registrar = Annotated[Principal, Depends(May("datasets.register"))]
Loader = Annotated[Principal, Depends(May("datasets.load"))]
Opener = Annotated[Principal, Depends(May("populations.register"))]
Voter = Annotated[Principal, Depends(May("populations.vote"))]
Population = Annotated[str, Query(max_length=64, pattern=NAME, description="Only of this population.")]


_FILE = "^[^/\\\\\x00-\x1f]+$"


class VoteView(BaseModel):
    """An owner's latest vote."""

    owner: str
    rho_nano: int


class BudgetView(BaseModel):
    """The budget in 10^-9 rho. voted: in force, 0 before all owners agree; available: yet to be asked for."""

    voted: int
    reserved: int
    spent: int
    available: int


class PopulationView(BaseModel):
    """A population now. unit: what its budget protects; owner: whether this organisation is one of its owners.

    public: whether numbers of its larger groups may be published without noise.
    awaited: owners that have not voted for the budget that was voted for last; empty where it is in force.
    """

    population: str
    unit: str
    rows_per_person: int
    colluders: int
    spread: str
    public: bool
    registered_by: str
    owners: list[str]
    owner: bool
    datasets: list[str]
    budget: BudgetView
    votes: list[VoteView]
    awaited: list[str]


class PopulationList(BaseModel):
    """Every population, by name."""

    populations: list[PopulationView]


class NewPopulation(Sent):
    """A population to open. rows_per_person: 1 for unit row; colluders: sites assumed to pool what they know.

    spread: one-site says that no person has rows at two sites, which nobody checks; every-site for unit row.
    public: numbers of its larger groups may be published without noise.
    """

    population: Name
    unit: Literal["row", "person"]
    rows_per_person: Annotated[int, Field(ge=1, le=1_000_000), WHOLE]
    colluders: Annotated[int, Field(ge=0, le=1000), WHOLE] = 1
    spread: Literal["one-site", "every-site"] = "every-site"
    public: Flag = False
    owners: Annotated[list[Name], Field(min_length=1, max_length=1000)]


class Vote(Sent):
    """The whole budget that you vote for."""

    budget_nano: Nano


class SourceView(BaseModel):
    """A table that can be loaded: names only. dataset: under which name it was loaded, or null."""

    source: str
    table: str
    layout: str
    population: str


class BadSourceView(BaseModel):
    """A folder of which nothing can be loaded. code, detail, fix: why, and what to do, in the caller's language."""

    source: str
    code: str
    detail: str
    fix: str


class SourceList(BaseModel):
    """Tables in the folders under `[data] folder` of gateway.toml, and the folders that are wrong."""

    sources: list[SourceView]
    bad: list[BadSourceView]


class Loading(Sent):
    """Which table to load, and what it will be called on the ledger."""

    source: Annotated[str, Field(min_length=1, max_length=255, pattern=_FILE)]
    table: Annotated[str, Field(min_length=1, max_length=255, pattern=_FILE)]
    dataset: Name


class ColumnView(BaseModel):
    """A declared column. low, high: decimals, of a number; values: of a category."""

    name: str
    kind: str
    low: str | None
    high: str | None
    scale: int
    values: list[str]


class DatasetView(BaseModel):
    """A table as the ledger declares it. row_class: its rows, rounded up to a public step. current: it may be asked.

    person: the column that says whose a row is, of a table of this organisation's own that has one; the ledger does
    not declare it.
    """

    dataset: str
    population: str
    owner: str
    own: bool
    columns: list[ColumnView]
    row_class: int
    schema_hash: str
    version: int
    supersedes: str | None
    superseded_by: str | None
    retired_at: int | None
    height: int
    current: bool
    person: str | None


class DatasetList(BaseModel):
    """Tables, by name."""

    datasets: list[DatasetView]


class ColumnQualityView(BaseModel):
    """Counts of one column as it was read."""

    column: str
    missing: int
    out_of_range: int


_EXACT = frozenset({"datasets.load", "audit.read"})
"""Whoever has one of these rights sees exact counts of own tables: who loads them, and who audits."""


class QualityView(BaseModel):
    """Counts of a table as it was read: exact, so for this organisation alone. duplicates: null where not judged."""

    source: str
    table: str
    rows: int
    columns: list[ColumnQualityView]
    duplicates: int | None
    dirty_cells: int


class DatasetDetail(DatasetView):
    """A table; of one of this organisation's own, loaded here, how clean it was, for those who load or audit."""

    quality: QualityView | None


def _population(state: PopulationState, own: str) -> PopulationView:
    agreed = {vote.owner for vote in state.votes if vote.rho_nano == state.votes[-1].rho_nano}
    return PopulationView(
        population=state.population,
        unit=state.unit,
        rows_per_person=state.rows_per_person,
        colluders=state.colluders,
        spread=state.spread,
        public=state.public,
        registered_by=state.registered_by,
        owners=list(state.owners),
        owner=own in state.owners,
        datasets=list(state.datasets),
        budget=BudgetView(voted=state.budget, reserved=state.reserved, spent=state.spent, available=state.available),
        votes=[VoteView(owner=vote.owner, rho_nano=vote.rho_nano) for vote in state.votes],
        awaited=[owner for owner in state.owners if owner not in agreed],
    )


def _column(column: datasets.Column) -> ColumnView:
    number = column.kind == "number"
    return ColumnView(
        name=column.name,
        kind=column.kind,
        low=decimal_text(column.low, column.scale) if number else None,
        high=decimal_text(column.high, column.scale) if number else None,
        scale=column.scale,
        values=list(column.values),
    )


def _dataset(state: DatasetState, own: str, tables: Tables) -> DatasetView:
    person = ""
    if state.owner == own:
        with contextlib.suppress(Refused):  # not loaded here
            person = tables.layout(state.dataset).person
    return DatasetView(
        dataset=state.dataset,
        population=state.population,
        owner=state.owner,
        own=state.owner == own,
        columns=[_column(column) for column in state.columns],
        row_class=state.row_class,
        schema_hash=state.schema_hash.hex(),
        version=state.version,
        supersedes=state.supersedes,
        superseded_by=state.superseded_by,
        retired_at=state.retired_at,
        height=state.height,
        current=state.current,
        person=person or None,
    )


def _bad_source(found: BadSource, language: str) -> BadSourceView:
    detail, fix = problems.words(found.why, language)
    return BadSourceView(source=found.source, code=found.why.code, detail=detail, fix=fix)


def quality_view(organisation: Organisation, dataset: str) -> QualityView | None:
    """How clean a table of one's own was when it was loaded here; None where it was not."""
    try:
        found = quality_of(organisation, dataset)
    except Refused:
        return None
    return QualityView(
        source=found.source,
        table=found.table,
        rows=found.rows,
        columns=[
            ColumnQualityView(column=one.column, missing=one.missing, out_of_range=one.out_of_range)
            for one in found.columns
        ],
        duplicates=found.duplicates,
        dirty_cells=found.dirty_cells,
    )


def dataset_routes(at: Workplace) -> APIRouter:
    """The router of ``/v1/populations``, ``/v1/sources`` and ``/v1/datasets``."""
    router = PathRouter(tags=["datasets"])
    own = at.organisation.name

    @router.get("/v1/populations", summary="List the populations")
    async def populations(_who: Reader) -> PopulationList:
        """Each with its terms, owners and budget."""
        state = at.organisation.account.state

        def read() -> PopulationList:
            found = state.items(datasets.POPULATIONS, PopulationState)
            return PopulationList(populations=[_population(population, own) for _, population in found])

        return await asyncio.to_thread(read)

    @router.post("/v1/populations", summary="Register a population", responses=WRITES)
    async def open_population(_who: Opener, body: NewPopulation) -> Written:
        """A named set of datasets with one budget, of owners that are named for good."""
        owners = tuple(body.owners)
        if len(owners) >= FEWEST_SITES:  # of whom more are assumed than that, no query can be asked
            check_colluders(body.colluders, len(owners))
        return await at.write(
            RegisterPopulation(
                body.population, body.unit, body.rows_per_person, body.colluders, owners, body.spread, body.public
            )
        )

    @router.post("/v1/populations/{population}/votes", summary="Vote for a budget", responses=WRITES)
    async def vote(_who: Voter, population: PopulationPath, body: Vote) -> Written:
        """The budget is in force once all owners have voted the same."""
        return await at.write(VoteBudget(population, body.budget_nano))

    @router.get("/v1/sources", summary="List what can be loaded")
    async def sources(request: Request, _who: Loader) -> SourceList:
        """Names of tables in the gateway's data folder, and why a folder's cannot be loaded. No row is read."""
        if at.data is None:
            return SourceList(sources=[], bad=[])
        found, language = await asyncio.to_thread(sources_in, at.data), request.state.language
        tables = [
            SourceView(source=one.source, table=one.table, layout=one.layout.name, population=one.layout.population)
            for one in found.tables
        ]
        bad = [_bad_source(one, language) for one in found.bad]
        return SourceList(sources=tables, bad=bad)

    @router.post("/v1/datasets", status_code=202, summary="Load a table", responses=BEGINS)
    async def load(
        request: Request, response: Response, who: Loader, body: Loading, idempotency_key: Key = None
    ) -> JobView:
        """Read, clamp and encrypt a table, and register it. The result: `/v1/datasets/{dataset}`."""
        if at.data is None:
            raise Refused("gateway.no_source", source=body.source, table=body.table)
        await asyncio.to_thread(source_in, at.data, body.source, body.table)
        asked = LoadRequest(body.source, body.table, body.dataset)
        return await at.begin("dataset.load", who, asked, idempotency_key, response, request.state.language)

    @router.get("/v1/datasets", summary="List the datasets")
    async def listed(_who: Reader, population: Population = "") -> DatasetList:
        """What the ledger declares of each table: never a row, never a count."""
        state = at.organisation.account.state

        def read() -> DatasetList:
            found = state.items(datasets.DATASETS, DatasetState)
            chosen = [one for _, one in found if population in ("", one.population)]
            return DatasetList(datasets=[_dataset(one, own, at.tables) for one in chosen])

        return await asyncio.to_thread(read)

    @router.get("/v1/datasets/{dataset}", summary="Look at a dataset", responses=problems.documented(404))
    async def look(who: Reader, dataset: DatasetPath) -> DatasetDetail:
        """One table; of one of your own, if you load or audit, also how clean it was."""
        state = at.organisation.account.state.get(datasets.dataset_key(dataset), DatasetState)
        if state is None:
            raise Refused("datasets.unknown_dataset", dataset=dataset)
        # Exact counts: noise is for everybody else, colleagues who ask or bill included.
        shown = state.owner == own and not who.rights.isdisjoint(_EXACT)
        quality = await asyncio.to_thread(quality_view, at.organisation, dataset) if shown else None
        seen = await asyncio.to_thread(_dataset, state, own, at.tables)
        return DatasetDetail(**seen.model_dump(), quality=quality)

    @router.post("/v1/datasets/{dataset}/retire", summary="Retire a dataset", responses=WRITES)
    async def retire(_who: Registrar, dataset: DatasetPath, body: Nothing) -> Written:
        """Have a table of yours asked no more. What was released about it stays."""
        return await at.write(RetireDataset(dataset))

    return router
