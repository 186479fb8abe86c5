"""The routes of one person's view: who used their data, and who gets at it now."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from medveil.gateway.erasure_told import sight_told, uses_told
from medveil.gateway.person_view import person_sights, person_view
from medveil.service.accounts.rights import Principal
from medveil.service.api.bodies import Sent
from medveil.service.api.callers import May
from medveil.service.api.fields import Column, Name, Person
from medveil.service.api.grant_routes import Sights, SightView
from medveil.service.api.path_router import PathRouter
from medveil.service.api.workplace import WRITES, Workplace

Viewer = Annotated[Principal, Depends(May("persons.view"))]


class UsesOf(Sent):
    """Who used whose data."""

    person: Person


class SightsOf(Sent):
    """Who gets at a column of whose rows."""

    person: Person
    dataset: Name
    column: Column


class PersonUse(BaseModel):
    """A use from intent to outcome. entry: its number in the trail; outcome: empty while it is under way."""

    entry: int
    time: int
    recipient: str
    dataset: str
    kind: str
    purpose: str
    grant: str
    allowed: bool
    outcome: str


class PossibleUse(PersonUse):
    """A use of a table with rows of the person. reached: whether the grant's row filter lets one through; null: not
    known."""

    reached: bool | None


class PersonUses(BaseModel):
    """Who used one person's data. noted: what looked at the person's own record; possible: what may have reached it.

    known: whether anything is or was kept of a person of this identifier; if not, it may be mistyped.
    """

    known: bool
    noted: list[PersonUse]
    possible: list[PossibleUse]


def person_routes(at: Workplace) -> APIRouter:
    """The router of ``/v1/persons``."""
    router = PathRouter(tags=["persons"])
    organisation = at.organisation

    @router.post("/v1/persons/uses", summary="Who used one person's data", responses=WRITES)
    async def uses(_who: Viewer, body: UsesOf) -> PersonUses:
        """The answer to a person who asks (PIPL 45). Whom it is about is in the body, and is kept nowhere."""
        return PersonUses(**uses_told(await asyncio.to_thread(person_view, organisation, body.person)))

    @router.post("/v1/persons/sights", summary="Who gets at one person's data", responses=WRITES)
    async def sights(request: Request, _who: Viewer, body: SightsOf) -> Sights:
        """By whom, how and for what a column of the person's rows can be used now: filters and opt-outs count."""
        found = await asyncio.to_thread(person_sights, organisation, body.person, body.dataset, body.column, at.clock())
        return Sights(sights=[SightView(**sight_told(one, request.state.language)) for one in found])

    return router
