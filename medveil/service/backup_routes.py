"""The route of backups: the home of a running gateway, copied while it goes on."""

import asyncio
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from medveil.service.backup import make_backup
from medveil.service.callers import May
from medveil.service.home import Home
from medveil.service.job_routes import JobView
from medveil.service.journal import Journal
from medveil.service.member_routes import Nothing
from medveil.service.path_router import PathRouter
from medveil.service.rights import Principal
from medveil.service.workplace import BEGINS, Key, Workplace
from wire.canonical import Wire, decode
from wire.dates import format_instant
from wire.errors import Refused

Keeper = Annotated[Principal, Depends(May("service.manage"))]
KIND = "service.backup"


class BackupRequest(Wire, frozen=True, tag="medveil.backup_request"):
    """Back the home up. at: ms UTC; it names the backup."""

    at: int


def backup_routes(at: Workplace, folder: Path | None) -> APIRouter:
    """The router of ``/v1/service/backup``. folder: where backups go; None: nowhere."""
    router = PathRouter(tags=["service"])

    @router.post("/v1/service/backup", status_code=202, summary="Back the home up", responses=BEGINS)
    async def backup(
        request: Request, response: Response, who: Keeper, body: Nothing, idempotency_key: Key = None
    ) -> JobView:
        """Copy this organisation's home, while it runs, to a new folder in the one that gateway.toml names."""
        if folder is None:
            raise Refused("backup.no_folder", organisation=at.organisation.name)
        asked = BackupRequest(at.clock())
        return await at.begin(KIND, who, asked, idempotency_key, response, request.state.language)

    return router


def register_backup(at: Workplace, home: Home, folder: Path | None) -> None:
    """Make the job of a backup known. home: the one that this process has open."""

    async def run(journal: Journal) -> str:
        asked = decode(BackupRequest, journal.request)
        if folder is None:
            raise Refused("backup.no_folder", organisation=at.organisation.name)
        day = format_instant(asked.at).replace(":", "").replace(" ", "-")
        out = folder / f"{at.organisation.name}-{day}-{journal.job[:8]}"
        if not out.exists():  # else this job had come so far when it was cut short: a backup is whole or not there
            await asyncio.to_thread(make_backup, home, out, at.clock)
        return "/v1/service"

    at.jobs.register(KIND, run)
