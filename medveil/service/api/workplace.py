"""What the routes of an organisation's flows work with: the organisation, the ledger's history, its jobs, its data.

A write of one op is answered at once with its receipt; what takes longer begins a job.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import Header, Response

from ledger.contracts import Op
from ledger.engines import Engine
from ledger.envelope import envelope_id
from medveil.gateway import problems
from medveil.gateway.organisation import Clock, Organisation
from medveil.gateway.tables import Tables
from medveil.service.accounts.rights import Principal
from medveil.service.api.fields import Written
from medveil.service.api.job_routes import JobView, view
from medveil.service.work.jobs import Jobs
from privacy.copies.snapshots import Snapshots
from wire.canonical import Wire, encode
from wire.errors import Refused

Key = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=128,
        pattern="^[!-~]+$",
        description="A name of yours for this very request: sent again, it finds the job of the first time.",
    ),
]
"""The ``Idempotency-Key`` of a request that begins a job."""

WRITES: dict[int | str, dict[str, Any]] = problems.documented(404, 409)
"""What the contracts may answer to a write, besides the general answers."""

_LOCATION = {"Location": {"description": "Where to look at the job.", "schema": {"type": "string"}}}
BEGINS: dict[int | str, dict[str, Any]] = {202: {"headers": _LOCATION}, **problems.documented(404, 409)}
"""What a route answers that begins a job."""


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """One organisation at work. engine: its door to the ledger's history. data: the folder of tables to load, or None.

    tables: its own tables. rand: fresh random bytes. catching_up: whether its home came back from a backup and has not
    caught up.
    """

    organisation: Organisation
    engine: Engine
    jobs: Jobs
    tables: Tables
    data: Path | None
    clock: Clock
    rand: Callable[[int], bytes]
    snapshots: Snapshots
    catching_up: Callable[[], bool]

    def check_others(self, *organisations: str) -> None:
        """Check that each is a member to ask, and not this organisation itself. Raises Refused."""
        for name in organisations:
            if name == self.organisation.name:
                raise Refused("peers.oneself", organisation=name)
            if self.organisation.trust.latest.find(name) is None:
                raise Refused("organisations.unknown", organisation=name)

    async def write(self, *ops: Op) -> Written:
        """Write `ops` as one envelope of this organisation. Raises Refused with the contract's reason."""
        receipt = await self.organisation.submit(*ops)
        return Written(
            envelope=envelope_id(receipt.envelope).hex(),
            height=receipt.block.height,
            receipt=base64.b64encode(encode(receipt)).decode("ascii"),
        )

    async def begin(
        self, kind: str, caller: Principal, asked: Wire, key: str | None, response: Response, language: str
    ) -> JobView:
        """Begin a job of `caller`; says in `response` where it is. key: as in `Key`."""
        job = await self.jobs.start(kind, caller.id, encode(asked), None if key is None else _own(kind, key))
        response.headers["location"] = f"/v1/jobs/{job.id}"
        return view(job, language)

    async def begun(
        self, kind: str, caller: Principal, sent: bytes, key: str | None, response: Response, language: str
    ) -> JobView | None:
        """The job of the first request under `key`, where what is asked is worked out from more than was `sent`.

        Ask before that is worked out: it may have become another meanwhile, or be refused. Raises Refused.
        """
        job = None if key is None else await self.jobs.begun(kind, caller.id, _own(kind, key), sent)
        if job is None:
            return None
        response.headers["location"] = f"/v1/jobs/{job.id}"
        return view(job, language)


def _own(kind: str, key: str) -> str:
    """A caller's key, apart from those for other kinds of jobs."""
    return f"{kind}/{key}"
