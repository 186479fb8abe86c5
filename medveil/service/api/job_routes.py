"""The routes of jobs: list, look, follow, cancel. Only the owner's own; another's job is one that is not there."""

import uuid
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from medveil.gateway import problems
from medveil.service.accounts.rights import Principal, check
from medveil.service.api.callers import May
from medveil.service.api.events import MEDIA_TYPE, EventStream
from medveil.service.api.path_router import PathRouter
from medveil.service.work.job_tables import ENDED, Job, State
from medveil.service.work.jobs import Jobs
from wire.errors import MedveilError

_ID = "^[0-9a-f]{32}$"
JobId = Annotated[str, Path(pattern=_ID, description="The job's id, from the answer that began it.")]

_EVENT = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9]+$"},
        "event": {"enum": ["state", "step"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "retry": {"type": "integer"},
    },
}
"""One event of the stream, as the description shows it."""


class JobView(BaseModel):
    """A job as its owner sees it. created, changed: ms since 1970, UTC. problem: why it failed (RFC 9457)."""

    model_config = ConfigDict(frozen=True)

    job: str = Field(description="32 hex digits.")
    kind: str
    state: State
    cancelling: bool = Field(description="Its owner cancelled it; it ends at its next step.")
    created: int
    changed: int
    steps: int = Field(ge=0, description="How many steps are recorded.")
    total: int | None = Field(description="How many steps there will be, if that is known.")
    step: str | None = Field(description="The step that was recorded last.")
    result: str | None = Field(description="Where the result is, once it is done.")
    problem: Annotated[dict[str, Any] | None, Field(json_schema_extra=problems.or_null)]
    event: int = Field(ge=0, description="Number of its latest event.")


class JobList(BaseModel):
    """A page of jobs, the newest first. after: give this to get the next page; null on the last one."""

    jobs: list[JobView]
    after: str | None


def view(job: Job, language: str) -> JobView:
    """What the owner sees. language: of the problem's sentences, "en" or "zh"."""
    problem = None
    if job.problem is not None:
        problem = msgspec.to_builtins(problems.describe(job.problem, str(uuid.UUID(hex=job.id)), language))
    return JobView(
        job=job.id,
        kind=job.kind,
        state=job.state,
        cancelling=job.cancelling,
        created=job.created,
        changed=job.changed,
        steps=job.steps,
        total=job.total,
        step=job.step,
        result=job.result,
        problem=problem,
        event=job.events,
    )


Reader = Annotated[Principal, Depends(May("jobs.read"))]
Canceller = Annotated[Principal, Depends(May("jobs.cancel"))]


def job_routes(jobs: Jobs) -> APIRouter:
    """The router of ``/v1/jobs``."""
    router = PathRouter(tags=["jobs"])

    @router.get("/v1/jobs", summary="List your jobs", responses=problems.documented(404))
    async def list_jobs(
        request: Request,
        caller: Reader,
        state: State | None = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        after: Annotated[str | None, Query(pattern=_ID, description="Last job of the page before.")] = None,
    ) -> JobList:
        """Your jobs, the newest first."""
        found = await jobs.page(caller.id, state, limit + 1, after)
        page = [view(job, request.state.language) for job in found[:limit]]
        return JobList(jobs=page, after=page[-1].job if len(found) > limit else None)

    @router.get("/v1/jobs/{job}", summary="Look at a job", responses=problems.documented(404))
    async def get_job(request: Request, caller: Reader, job: JobId) -> JobView:
        """One job of yours."""
        return view(await jobs.get(job, caller.id), request.state.language)

    @router.get(
        "/v1/jobs/{job}/events",
        summary="Follow a job",
        response_class=Response,
        responses={
            200: {
                "description": "Server-sent events: `state` and `step`, numbered, until the job has ended.",
                "content": {MEDIA_TYPE: {"schema": _EVENT}},
            },
            204: {"description": "The job has ended and you have seen its last event: do not come back."},
            **problems.documented(404),
        },
    )
    async def follow_job(
        request: Request,
        caller: Reader,
        job: JobId,
        last_event_id: Annotated[
            str, Header(pattern="^[0-9]{1,9}$", description="Number of the last event you have; 0 for none.")
        ] = "0",
    ) -> Response:
        """A job's progress, from the beginning or from where you were."""
        found = await jobs.get(job, caller.id)
        after = int(last_event_id)
        if found.state in ENDED and after >= found.events:
            return Response(status_code=204)

        async def stands() -> bool:
            try:
                now: Principal = await request.app.state.known(request)
                check(now, "jobs.read")
            except MedveilError:
                return False
            return now.id == caller.id

        return EventStream(jobs.streams, job, caller.id, after, jobs.past, stands)

    @router.post("/v1/jobs/{job}/cancel", summary="Cancel a job", responses=problems.documented(404))
    async def cancel_job(request: Request, caller: Canceller, job: JobId) -> JobView:
        """Let a job end: waiting, at once; running, at its next step; one that has ended stays as it is."""
        return view(await jobs.cancel(job, caller.id), request.state.language)

    return router
