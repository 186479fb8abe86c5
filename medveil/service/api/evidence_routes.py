"""The routes of evidence: export what an outsider verifies offline, list what was exported, fetch it."""

import asyncio
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path as File
from typing import IO, Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from medveil.gateway import problems
from medveil.gateway.long_work import at_length
from medveil.service.accounts.rights import Principal
from medveil.service.api.bodies import Sent
from medveil.service.api.callers import May
from medveil.service.api.fields import Flag
from medveil.service.api.flow_requests import ExportRequest
from medveil.service.api.job_routes import JobView
from medveil.service.api.path_router import PathRouter
from medveil.service.api.workplace import BEGINS, Key, Workplace
from wire.errors import Refused, Unavailable
from wire.evidence import MANIFEST_NAME

Exporter = Annotated[Principal, Depends(May("evidence.export"))]
EvidencePath = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="Id of the evidence: 32 hex digits.")]

FOLDER = "evidence"
"""The folder of exports in an organisation's home."""
_ID = re.compile("[0-9a-f]{32}")
_IN_MEMORY = 4 * 1024 * 1024
_CHUNK = 256 * 1024


class Export(Sent):
    """collect: ask the other members for their access batches and receipts, too."""

    collect: Flag = False


class EvidenceView(BaseModel):
    """One export. files: how many; bytes: in all."""

    evidence: str
    files: int
    bytes: int


class EvidenceList(BaseModel):
    """Exports that are here."""

    evidence: list[EvidenceView]


def _files(folder: File) -> list[File]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _exports(home: File) -> list[EvidenceView]:
    """The folders with a manifest: one that is being written has none yet."""
    try:
        names = sorted(path.name for path in (home / FOLDER).iterdir() if _ID.fullmatch(path.name))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        if (home / FOLDER / name / MANIFEST_NAME).is_file():
            files = _files(home / FOLDER / name)
            found.append(
                EvidenceView(evidence=name, files=len(files), bytes=sum(path.stat().st_size for path in files))
            )
    return found


def _zipped(folder: File) -> IO[bytes]:
    """A folder as a .zip, open at its beginning; on disk where it is large. The same folder gives the same bytes."""
    whole = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - the answer closes it
    try:
        with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED) as archive:
            for path in _files(folder):
                entry = zipfile.ZipInfo(path.relative_to(folder).as_posix())
                entry.external_attr = 0o644 << 16
                with path.open("rb") as file, archive.open(entry, "w", force_zip64=True) as written:
                    while data := file.read(_CHUNK):
                        written.write(data)
        whole.seek(0)
    except OSError:
        whole.close()
        raise Unavailable("home.unwritable", folder=folder.name) from None
    return whole


def _chunks(whole: IO[bytes]) -> Iterator[bytes]:
    while data := whole.read(_CHUNK):
        yield data


class _Folder(StreamingResponse):
    """A .zip as an answer, closed however the answer ends: whoever asked may be gone before it begins."""

    def __init__(self, whole: IO[bytes], **settings: Any) -> None:
        super().__init__(_chunks(whole), **settings)
        self._whole = whole

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._whole.close()


def evidence_routes(at: Workplace) -> APIRouter:
    """The router of ``/v1/evidence``."""
    router = PathRouter(tags=["evidence"])
    home = at.organisation.folder

    @router.post("/v1/evidence", status_code=202, summary="Export evidence", responses=BEGINS)
    async def export(
        request: Request, response: Response, who: Exporter, body: Export, idempotency_key: Key = None
    ) -> JobView:
        """Write a folder that `medveil verify` checks. The result: `/v1/evidence/{evidence}`."""
        asked = ExportRequest(body.collect)
        return await at.begin("evidence.export", who, asked, idempotency_key, response, request.state.language)

    @router.get("/v1/evidence", summary="List the evidence")
    async def listed(_who: Exporter) -> EvidenceList:
        """What was exported here."""
        return EvidenceList(evidence=await asyncio.to_thread(_exports, home))

    @router.get(
        "/v1/evidence/{evidence}",
        summary="Get evidence",
        response_class=Response,
        responses={
            200: {
                "description": "The folder as a .zip.",
                "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
            },
            **problems.documented(404),
        },
    )
    async def fetch(_who: Exporter, evidence: EvidencePath) -> Response:
        """Unpack it and run `medveil verify` on the folder, against a trust file of your own."""
        folder = home / FOLDER / evidence
        if not (folder / MANIFEST_NAME).is_file():
            raise Refused("evidence.unknown", evidence=evidence)
        whole = await at_length(_zipped, folder)
        named = {"content-disposition": f'attachment; filename="evidence-{evidence}.zip"'}
        return _Folder(whole, media_type="application/zip", headers=named)

    return router
