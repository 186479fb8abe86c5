"""The routes of how datasets are classified: levels of columns after GB/T 39725, children, the statutory class."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from medveil.gateway import use_state
from medveil.service.accounts.rights import Principal
from medveil.service.api.bodies import Sent
from medveil.service.api.callers import May
from medveil.service.api.fields import COLUMN, WHOLE, Column, DatasetPath, Flag
from medveil.service.api.path_router import PathRouter
from medveil.service.api.workplace import WRITES, Workplace
from privacy.grants.levels import ColumnFacts, Content, DatasetFacts, StatutoryClass

Reader = Annotated[Principal, Depends(May("datasets.read"))]
Classifier = Annotated[Principal, Depends(May("datasets.classify"))]


class ColumnClass(Sent):
    """A column. level: 1 to 5; content: what it holds, by which it is masked where records leave."""

    column: Column
    level: Annotated[int, Field(ge=1, le=5), WHOLE]
    content: Content = "plain"


class Classification(Sent):
    """A dataset of yours, as `privacy.grants.levels` says. A column that is left out counts as level 5.

    minors: whether children under 14 may be in it. age_column: the column with the age in years, or empty.
    """

    columns: Annotated[list[ColumnClass], Field(min_length=1, max_length=1000)]
    minors: Flag
    age_column: Annotated[str, Field(max_length=64, pattern=f"{COLUMN}|^$")] = ""
    statutory_class: StatutoryClass = "general"


class ColumnClassView(BaseModel):
    """A column as it is classified."""

    column: str
    level: int
    content: str


class ClassificationView(BaseModel):
    """How a dataset is classified. loaded: whether a table of that name is here; classified: whether anybody has; where
    not, every column counts as level 4."""

    dataset: str
    loaded: bool
    classified: bool
    columns: list[ColumnClassView]
    minors: bool
    age_column: str
    statutory_class: str


def _shown(at: Workplace, facts: DatasetFacts) -> ClassificationView:
    return ClassificationView(
        dataset=facts.dataset,
        loaded=any(info.name == facts.dataset for info in at.organisation.vault.datasets()),
        classified=bool(facts.columns),
        columns=[ColumnClassView(column=one.name, level=one.level, content=one.content) for one in facts.columns],
        minors=facts.minors,
        age_column=facts.age_column,
        statutory_class=facts.statutory_class,
    )


def classification_routes(at: Workplace) -> APIRouter:
    """The router of ``/v1/datasets/{dataset}/classification``."""
    router = PathRouter(tags=["datasets"])

    @router.get("/v1/datasets/{dataset}/classification", summary="See how a dataset is classified")
    async def look(_who: Reader, dataset: DatasetPath) -> ClassificationView:
        """As your data officer classified it. It says nothing of any person."""
        facts = await asyncio.to_thread(use_state.classified, at.organisation, dataset)
        return await asyncio.to_thread(_shown, at, facts)

    @router.post("/v1/datasets/{dataset}/classification", summary="Classify a dataset", responses=WRITES)
    async def classify(_who: Classifier, dataset: DatasetPath, body: Classification) -> ClassificationView:
        """In place of what it was classified as. Counts from the next decision on, also before it is loaded."""
        columns = tuple(ColumnFacts(one.column, one.level, one.content) for one in body.columns)
        facts = DatasetFacts(dataset, columns, body.minors, body.age_column, body.statutory_class)
        await asyncio.to_thread(use_state.classify, at.organisation, facts)
        return await asyncio.to_thread(_shown, at, facts)

    return router
