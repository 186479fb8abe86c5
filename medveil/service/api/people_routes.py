"""The routes of an organisation's accounts: an admin adds, changes, disables and resets; an auditor looks."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends

from medveil.gateway import problems
from medveil.service.accounts.people import People
from medveil.service.accounts.rights import Principal
from medveil.service.api.bodies import Invitation, NewPerson, NewRoles, PeopleList, PersonPath, PersonView, Reset
from medveil.service.api.callers import May
from medveil.service.api.path_router import PathRouter

Reader = Annotated[Principal, Depends(May("people.read"))]
Admin = Annotated[Principal, Depends(May("people.manage"))]
_CHANGES = problems.documented(404, 409)


def people_routes(people: People) -> APIRouter:
    """The router of ``/v1/people``."""
    router = PathRouter(tags=["people"])

    @router.get("/v1/people", summary="List the accounts")
    async def listed(who: Reader) -> PeopleList:
        """Every account, by name."""
        return PeopleList(
            people=[
                PersonView(
                    name=person.name,
                    roles=sorted(person.roles),
                    created=person.created,
                    disabled=person.disabled,
                    has_password=person.has_password,
                    has_codes=person.has_codes,
                    issuer=person.issuer,
                )
                for person in await asyncio.to_thread(people.all, who)
            ]
        )

    @router.post("/v1/people", status_code=201, summary="Add an account", responses=problems.documented(409))
    async def add(who: Admin, body: NewPerson) -> Invitation:
        """The account's invitation is shown this once."""
        return Invitation(person=body.name, invitation=await asyncio.to_thread(people.add, who, body.name, body.roles))

    @router.put("/v1/people/{person}/roles", status_code=204, summary="Set the roles", responses=_CHANGES)
    async def set_roles(who: Admin, person: PersonPath, body: NewRoles) -> None:
        """These roles and no others. A change ends its sessions; where a role is taken away, its tokens too."""
        await asyncio.to_thread(people.set_roles, who, person, body.roles)

    @router.post("/v1/people/{person}/disable", status_code=204, summary="Disable an account", responses=_CHANGES)
    async def disable(who: Admin, person: PersonPath) -> None:
        """Its sessions and tokens end. It can be enabled again; they stay ended."""
        await asyncio.to_thread(people.set_disabled, who, person, True)

    @router.post("/v1/people/{person}/enable", status_code=204, summary="Enable an account", responses=_CHANGES)
    async def enable(who: Admin, person: PersonPath) -> None:
        """Let somebody sign in again."""
        await asyncio.to_thread(people.set_disabled, who, person, False)

    @router.post("/v1/people/{person}/sign-out", status_code=204, summary="End somebody's sessions", responses=_CHANGES)
    async def end_sessions(who: Admin, person: PersonPath) -> None:
        """Wherever they are signed in. They can sign in again; their programs' tokens stay."""
        await asyncio.to_thread(people.end_sessions, who, person)

    @router.post("/v1/people/{person}/reset", summary="Reset an account", responses=_CHANGES)
    async def reset(who: Admin, person: PersonPath, body: Reset) -> Invitation:
        """For somebody who lost the password: it ends, with all sessions and tokens; the invitation is shown once."""
        secret = await asyncio.to_thread(people.reset, who, person, codes=body.codes)
        return Invitation(person=person, invitation=secret)

    return router
