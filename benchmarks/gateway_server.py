"""The processes that the bench of the gateway asks: ``python -m benchmarks.gateway_server FOLDER bare|whole``.

Both serve one route with the service's own server settings. `bare` is FastAPI and nothing else. `whole` is the
gateway's application: doorway, a session looked up in the store, a right, a decision on a signed grant, and an
entry in the security log that is durable before the answer leaves. Prints one line of JSON when it is ready.
"""

import asyncio
import json
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Annotated

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fastapi import APIRouter, Depends, FastAPI
from pydantic import BaseModel

from medveil.service.accounts.passwords import Hashing, Passwords
from medveil.service.accounts.rights import Principal, rights_of
from medveil.service.accounts.staff import Staff
from medveil.service.api.app import TELEMETRY_OFF, Parts, make_app
from medveil.service.api.callers import May
from medveil.service.api.events import StreamLimits, Streams
from medveil.service.api.path_router import PathRouter
from medveil.service.api.rates import Rates
from medveil.service.database import Database
from medveil.service.health import Health
from medveil.service.logs import Vocabulary, make_log
from medveil.service.metrics import Metrics
from medveil.service.serve import Grace, Listener, Service, bind, run, settle
from medveil.service.traces import NoTraces
from medveil.service.work.job_tables import JobStore
from medveil.service.work.jobs import Jobs
from medveil.service.work.journal import Journal
from privacy.decide import AnchoredGrant, GrantState, UseRequest, decide, require
from privacy.grants.terms import CheckedGrant, check_grant, plain_terms, sign_grant
from wire.signing import Signer

PATH = "/v1/uses/claims-1"
MANY = "1000000000/minute"
PASSWORD = "seven wet lanterns hum"


class Use(BaseModel):
    """What both answer."""

    dataset: str
    grant: str
    allowed: bool


class Sealer:
    """AES-256-GCM with the info as associated data."""

    def __init__(self) -> None:
        self._aead = AESGCM(secrets.token_bytes(32))

    def seal(self, info: bytes, plaintext: bytes) -> bytes:
        """Nonce and ciphertext."""
        nonce = secrets.token_bytes(12)
        return nonce + self._aead.encrypt(nonce, plaintext, info)

    def open(self, info: bytes, sealed: bytes) -> bytes:
        """The plaintext."""
        return self._aead.decrypt(sealed[:12], sealed[12:], info)


def clock() -> int:
    """ms UTC."""
    return int(time.time() * 1000)


def a_grant(now: int) -> tuple[CheckedGrant, GrantState]:
    """One signed grant, as anchored on a ledger. Of nobody."""
    signer = Signer(bytes(32))
    terms = plain_terms(
        "grant-1",
        "hospital-1",
        "university",
        "claims-1",
        ("visits", "health", "plan"),
        purposes=("HRESCH",),
        uses=("query",),
        legal_basis="consent",
        not_before=now - 1000,
        expires=now + 10**9,
        recipient_contact="data office",
        consent_ref="consents/2025-07",
        pia_ref="pia/12",
        delete_by=now + 2 * 10**9,
    )
    checked = check_grant(sign_grant(terms, signer, bytes(32)), signer.key)
    entry = AnchoredGrant("grant-1", "hospital-1", checked.commitment, now - 1000, now + 10**9, 0, False)
    return checked, GrantState((entry,))


def bare_app() -> FastAPI:
    """One route, and nothing around it."""
    app = FastAPI(openapi_url=None, telemetry=TELEMETRY_OFF)

    @app.get("/v1/uses/{dataset}")
    async def use(dataset: str) -> Use:
        return Use(dataset=dataset, grant="grant-1", allowed=True)

    return app


def deciding_route(staff: Staff) -> APIRouter:
    """The same route, decided and audited."""
    router = PathRouter()
    grant, state = a_grant(clock())

    @router.get("/v1/uses/{dataset}")
    async def use(who: Annotated[Principal, Depends(May("grants.read"))], dataset: str) -> Use:
        asked = UseRequest("hospital-1", "university", dataset, ("visits", "health"), "query", "HRESCH")
        decision = require(decide(asked, [grant], state, clock()))
        await staff.trail.note(who.actor, "use.decided", f"dataset:{dataset}", decision.grant)
        return Use(dataset=dataset, grant=decision.grant, allowed=decision.allowed)

    return router


async def main(folder: Path, how: str) -> int:
    """Serve until a signal."""
    bound = bind("127.0.0.1", 0)
    address = f"http://127.0.0.1:{bound.getsockname()[1]}"
    database = Database.open(f"sqlite:///{folder / how}.sqlite")
    passwords = Passwords(Hashing(1, 8, 1))
    staff = Staff.of(
        database,
        "north",
        bytes(32),
        [address],
        clock=clock,
        rand=secrets.token_bytes,
        passwords=passwords,
        codes_for=frozenset(),
    )
    staff.people.accept(staff.people.invite_first_admin("root"), PASSWORD)
    admin = Principal("person", "root", frozenset({"admin"}), rights_of({"admin"}), "root")
    staff.people.accept(staff.people.add(admin, "ada", {"officer"}), PASSWORD)
    session = staff.sign_in.sign_in("ada", PASSWORD, address="127.0.0.1").session

    vocabulary = Vocabulary()
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 (a device)
        log = make_log("north", vocabulary, clock, file=nowhere)
        metrics = Metrics("north", "0", vocabulary)
        streams = Streams(log, metrics, StreamLimits(streams=2000, per_owner=2000))
        jobs = Jobs(
            JobStore(database),
            streams,
            sealer=Sealer(),
            clock=clock,
            rand=secrets.token_bytes,
            log=log,
            metrics=metrics,
            traces=NoTraces(),
            vocabulary=vocabulary,
        )

        async def waits(_journal: Journal) -> str:
            await asyncio.Event().wait()
            return ""

        jobs.register("waits", waits)
        job = await jobs.start("waits", "person:ada", b"")
        health = Health(log)
        parts = Parts(
            organisation="north",
            version="0",
            height=lambda: 7,
            identify=staff.identify,
            trail=staff.trail,
            jobs=jobs,
            health=health,
            metrics=metrics,
            log=log,
            traces=NoTraces(),
            rates=Rates(metrics, MANY, MANY),
            vocabulary=vocabulary,
            rand=secrets.token_bytes,
            routers=[*staff.routers(), deciding_route(staff)],
        )
        app = make_app(parts) if how == "whole" else bare_app()
        print(json.dumps({"port": bound.getsockname()[1], "session": session, "job": job.id}), flush=True)
        service = Service(
            listeners=[Listener(name="people", app=app, bound=bound)],
            jobs=jobs,
            streams=streams,
            health=health,
            log=log,
            vocabulary=vocabulary,
            grace=Grace(requests=1, jobs=0.1),
            on_listening=settle,
        )
        return await service.run()


if __name__ == "__main__":
    sys.exit(run(lambda: main(Path(sys.argv[1]), sys.argv[2])))
