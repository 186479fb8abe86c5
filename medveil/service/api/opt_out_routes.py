"""The routes of opt-outs: what patients do not want done with their data, taken down, looked at and withdrawn."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from medveil.gateway import problems, use_state
from medveil.service.accounts.rights import Principal
from medveil.service.api.bodies import Sent
from medveil.service.api.callers import May
from medveil.service.api.fields import Instant, Person
from medveil.service.api.path_router import PathRouter
from medveil.service.api.workplace import Workplace
from privacy.grants.opt_outs import NO_END, OptOut, Scope, reach_text

Reader = Annotated[Principal, Depends(May("opt-outs.read"))]
Manager = Annotated[Principal, Depends(May("opt-outs.manage"))]

ScopeValue = Annotated[
    str,
    Field(max_length=64, description="The purpose's code, the organisation's name, the kind of use; empty for all."),
]


class OfPerson(Sent):
    """Whose opt-outs."""

    person: Person


class NewOptOut(OfPerson):
    """What a person does not want. since: by default now; until: by default until it is withdrawn."""

    scope: Scope
    value: ScopeValue = ""
    since: Instant | None = None
    until: Instant | None = None


class Withdrawal(OfPerson):
    """Which scope of a person's opt-outs ends now."""

    scope: Scope
    value: ScopeValue = ""


class OptOutView(BaseModel):
    """One opt-out. until: null where it lasts. words: what it stops, and what goes on all the same."""

    scope: str
    value: str
    since: int
    until: int | None
    in_force: bool
    words: str


class PersonOptOutsView(BaseModel):
    """All opt-outs of one person, past ones too. known: whether anything at all is kept of the person here; null for
    who may only read opt-outs, so that a program cannot ask who is a patient."""

    known: bool | None
    opt_outs: list[OptOutView]


class ScopeView(BaseModel):
    """A scope of opt-outs, and of how many persons one is in force."""

    scope: str
    value: str
    persons: int


class ScopeList(BaseModel):
    """The scopes of opt-outs that are in force."""

    scopes: list[ScopeView]


def opt_out_routes(at: Workplace) -> APIRouter:
    """The router of ``/v1/opt-outs``."""
    router = PathRouter(tags=["opt-outs"])
    organisation = at.organisation

    def shown(person: str, found: tuple[OptOut, ...], language: str, manages: bool = True) -> PersonOptOutsView:
        now = at.clock()
        return PersonOptOutsView(
            known=bool(organisation.vault.keys_of(person)) if manages else None,
            opt_outs=[
                OptOutView(
                    scope=one.scope,
                    value=one.value,
                    since=one.since,
                    until=None if one.until == NO_END else one.until,
                    in_force=one.in_force(now),
                    words=reach_text(one, language),
                )
                for one in found
            ],
        )

    def of(person: str, language: str, manages: bool) -> PersonOptOutsView:
        return shown(person, use_state.opt_outs_of(organisation, person), language, manages)

    def added(body: NewOptOut, language: str) -> PersonOptOutsView:
        now = at.clock()
        until = NO_END if body.until is None else body.until
        said = OptOut(body.scope, body.value, now if body.since is None else body.since, until)
        if body.since is None:  # sent again, it is the one that stands
            before = use_state.opt_outs_of(organisation, body.person)
            same = (one for one in before if (one.scope_id, one.until) == (said.scope_id, until) and one.in_force(now))
            said = next(same, said)
        return shown(body.person, use_state.opt_out(organisation, body.person, said), language)

    def ended(body: Withdrawal, language: str) -> PersonOptOutsView:
        scope = OptOut(body.scope, body.value, 0).scope_id
        return shown(body.person, use_state.withdraw(organisation, body.person, scope, at.clock()), language)

    @router.get("/v1/opt-outs", summary="List the scopes of opt-outs")
    async def listed(_who: Reader) -> ScopeList:
        """Those in force, and of how many persons; whose they are is not said."""
        found = await asyncio.to_thread(use_state.opted_out, organisation, at.clock())
        return ScopeList(
            scopes=[
                ScopeView(scope=scope, value=value, persons=count) for (scope, value), count in sorted(found.items())
            ]
        )

    @router.post("/v1/opt-outs/of", summary="Look at a person's opt-outs")
    async def look(request: Request, who: Reader, body: OfPerson) -> PersonOptOutsView:
        """Past ones and those to come, too. Whether anything is kept of the person, who manages opt-outs is told."""
        manages = "opt-outs.manage" in who.rights
        return await asyncio.to_thread(of, body.person, request.state.language, manages)

    @router.post("/v1/opt-outs", summary="Take down an opt-out", responses=problems.documented(409))
    async def add(request: Request, _who: Manager, body: NewOptOut) -> PersonOptOutsView:
        """What a person does not want done with their data. Counts from the next decision on.

        A use that runs is stopped if it keeps to no opt-out of this scope; one that does keeps to those that it knew of
        when it read.
        """
        return await asyncio.to_thread(added, body, request.state.language)

    @router.post("/v1/opt-outs/withdraw", summary="Withdraw an opt-out", responses=problems.documented(409))
    async def withdraw(request: Request, _who: Manager, body: Withdrawal) -> PersonOptOutsView:
        """End a person's opt-outs of one scope now, as the person says. What was said stays on file."""
        return await asyncio.to_thread(ended, body, request.state.language)

    return router
