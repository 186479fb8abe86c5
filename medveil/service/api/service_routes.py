"""The routes of the service itself: how it stands, and a backup of it while it runs."""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from medveil import __version__
from medveil.service.accounts.rights import Principal
from medveil.service.api.callers import May
from medveil.service.api.path_router import PathRouter
from medveil.service.api.workplace import Workplace
from medveil.service.home.home import DATA_VERSION

Reader = Annotated[Principal, Depends(May("service.read"))]


class JobCounts(BaseModel):
    """Jobs that have not ended."""

    running: int
    waiting: int


class ServiceView(BaseModel):
    """How this service stands. started: ms since 1970, UTC."""

    organisation: str
    version: str
    data_version: int
    chain: str
    genesis: str
    height: int
    sequencer: bool = Field(description="Whether this gateway orders the blocks.")
    started: int
    jobs: JobCounts
    data_folder: bool = Field(description="Whether there is a folder of tables to load.")
    catching_up: bool = Field(
        description="Whether this gateway came back from a backup and has not caught up: it cosigns nothing and no use "
        "begins until the others have gone on without it."
    )


def service_routes(at: Workplace) -> APIRouter:
    """The router of ``/v1/service``."""
    router = PathRouter(tags=["service"])
    started = at.clock()

    @router.get("/v1/service", summary="How the service stands")
    async def look(_who: Reader) -> ServiceView:
        """Version, ledger, jobs."""
        account = at.organisation.account
        running, waiting = at.jobs.counts
        return ServiceView(
            organisation=at.organisation.name,
            version=__version__,
            data_version=DATA_VERSION,
            chain=account.trust.chain,
            genesis=account.trust.genesis_hash.hex(),
            height=account.state.height,
            sequencer=account.trust.sequencer == at.organisation.name,
            started=started,
            jobs=JobCounts(running=running, waiting=waiting),
            data_folder=at.data is not None,
            catching_up=at.catching_up(),
        )

    return router
