"""The route of backups: the home of a running gateway, copied while it goes on."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from medveil.gateway.long_work import at_length
from medveil.service.accounts.rights import Principal
from medveil.service.api.callers import May
from medveil.service.api.job_routes import JobView
from medveil.service.api.member_routes import Nothing
from medveil.service.api.path_router import PathRouter
from medveil.service.api.workplace import BEGINS, Key, Workplace
from medveil.service.home.backup import make_backup
from medveil.service.home.home import Home
from medveil.service.work.journal import Journal
from wire.canonical import Wire
from wire.dates import format_instant
from wire.errors import Refused

Keeper = Annotated[Principal, Depends(May("service.manage"))]
KIND = "service.backup"


class BackupRequest(Wire, frozen=True, tag="medveil.backup_request"):
    """Back the home up. The same each time: what an Idempotency-Key names does not change by the clock."""


class BackupTime(Wire, frozen=True, tag="medveil.backup_time"):
    """When the job began, ms UTC: it names the backup."""

    at: int


def backup_routes(at: Workplace, folder: Path | None) -> APIRouter:
    """The router of ``/v1/service/backup``. folder: where backups go; None: nowhere."""
    router = PathRouter(tags=["service"])

    @router.post("/v1/service/backup", status_code=202, summary="Back the home up", responses=BEGINS)
    async def backup(
        request: Request, response: Response, who: Keeper, body: Nothing, idempotency_key: Key = None
    ) -> JobView:
        """Copy this organisation's home, while it runs, to a new folder in the one that gateway.toml names.

        The job's result is that folder's path on the gateway's machine, as gateway.toml has it.
        """
        if folder is None:
            raise Refused("backup.no_folder", organisation=at.organisation.name)
        return await at.begin(KIND, who, BackupRequest(), idempotency_key, response, request.state.language)

    return router


def register_backup(at: Workplace, home: Home, folder: Path | None) -> None:
    """Make the job of a backup known. home: the one that this process has open."""

    async def run(journal: Journal) -> str:
        async def beginning() -> BackupTime:
            return BackupTime(at.clock())

        if folder is None:
            raise Refused("backup.no_folder", organisation=at.organisation.name)
        began = await journal.once("beginning", BackupTime, beginning)
        day = format_instant(began.at).replace(":", "").replace(" ", "-")
        out = folder / f"{at.organisation.name}-{day}-{journal.job[:8]}"
        if not out.exists():  # else this job had come so far when it was cut short: a backup is whole or not there
            await at_length(make_backup, home, out, at.clock)
        return (Path(home.config.backups) / out.name).as_posix()

    at.jobs.register(KIND, run)
