"""`medveil serve`: one organisation's gateway as a process.

    home -> gateway (ledger, post, peers' listener) -> jobs -> application -> people's listener
                                                     -> reception of what peers begin, anchoring of the audit trail

It runs until it is told to stop, or until a part that must run fails. Exit codes: `medveil.service.serve`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ledger.engines.clock import steady
from medveil import __version__
from medveil.gateway import extracting
from medveil.gateway.accounting import EVERY, keep_anchoring
from medveil.gateway.held_extracts import tidy_held
from medveil.gateway.organisation import Organisation
from medveil.gateway.reception import AtHome
from medveil.gateway.tables import VaultTables
from medveil.gateway.wallets import Wallets
from medveil.service.accounts.oidc_setup import provider_client, provider_sign_in
from medveil.service.accounts.staff import Staff
from medveil.service.api.app import Parts, make_app
from medveil.service.api.backup_routes import backup_routes, register_backup
from medveil.service.api.events import Streams
from medveil.service.api.rates import Rates
from medveil.service.api.workplace import Workplace
from medveil.service.due_erasures import DueErasures
from medveil.service.gateway import Gateway
from medveil.service.health import Health, database_writable, disk_above_floor
from medveil.service.home.config import FILE, address, origins, passphrase, read_config
from medveil.service.home.home import Home
from medveil.service.logs import Log, Vocabulary, about, make_log
from medveil.service.metrics import Metrics
from medveil.service.recall_rounds import RecallRounds
from medveil.service.security.key_alerts import KeyAlerts
from medveil.service.serve import Closing, Followed, Listener, Service, bind, run, settle
from medveil.service.traces import make_traces
from medveil.service.upkeep import Upkeep
from medveil.service.web_tls import server_context
from medveil.service.work.flow_kinds import MAKE_EXTRACT, flow_routers, register_flows
from medveil.service.work.job_tables import JobStore
from medveil.service.work.jobs import Jobs
from medveil.service.work.receiving import receiving
from medveil.service.work.record_sealer import RecordSealer
from privacy.keys.own_memory import keep_own_memory
from wire.errors import Refused, Unavailable

_AGAIN = 60.0
"""Seconds until anchoring is tried again after a refusal."""


def serve(folder: Path, as_json: bool = False) -> None:
    """Run the gateway whose home is `folder`. Raises what keeps it from starting; ends the process otherwise.

    as_json: say that it listens in one line of JSON on standard output.
    """
    keep_own_memory()
    secret = passphrase(read_config(folder / FILE))

    async def main() -> int:
        home = await asyncio.to_thread(Home.open, folder, secret, secrets.token_bytes, now)
        gateway = await Gateway.start(home, now, steady=steady)
        try:
            service = _service(gateway, as_json)
        except BaseException:
            await gateway.stop()
            raise
        return await service.run()

    sys.exit(run(main))


def now() -> int:
    """The time, ms UTC."""
    return time.time_ns() // 1_000_000


def _service(gateway: Gateway, as_json: bool) -> Service:
    """Everything around a running gateway."""
    home, config = gateway.home, gateway.home.config
    name = gateway.organisation.name
    vocabulary = Vocabulary()
    log = make_log(name, vocabulary, now)
    metrics, traces = Metrics(name, __version__, vocabulary), make_traces(name, __version__, config.traces or None)
    health, streams = Health(log), Streams(log, metrics)
    health.add("database", database_writable(gateway.database))
    health.add("disk", disk_above_floor(home.folder))
    health.add("ledger", gateway.follows)
    jobs = Jobs(
        JobStore(gateway.database),
        streams,
        sealer=RecordSealer(home.record_key),
        clock=now,
        rand=secrets.token_bytes,
        log=log,
        metrics=metrics,
        traces=traces,
        vocabulary=vocabulary,
    )
    organisation = gateway.organisation
    wallets = Wallets(organisation)
    tables = VaultTables.of(organisation, now)
    tables.snapshots.clear_leftovers()
    at = Workplace(
        organisation=organisation,
        engine=gateway.engine,
        jobs=jobs,
        tables=tables,
        data=home.folder / config.data.folder if config.data.folder else None,
        clock=now,
        rand=secrets.token_bytes,
        snapshots=tables.snapshots,
        catching_up=lambda: gateway.returning is not None,
    )
    backups = home.folder / config.backups if config.backups else None
    register_flows(at, wallets)
    register_backup(at, home, backups)
    extracting.tidy(organisation)
    with contextlib.suppress(Unavailable):  # a disk that refuses: `medveil erasure check` names what is left
        wallets.sweep()
    reception = receiving(organisation, AtHome(tables, wallets), jobs, now)
    anchoring = Anchoring(organisation, log)
    health.add("audit", anchoring.works)
    staff = Staff.of(gateway.database, name, home.code_key, origins(config.people), clock=now, rand=secrets.token_bytes)
    organisation.guard.alert = KeyAlerts(staff.trail.note, log)
    closing = [Closing("staff", staff.close)]
    provider = None
    if config.people.provider is not None:
        client = provider_client(home.folder, config.people.provider)
        closing.append(Closing("provider", client.close))
        provider = provider_sign_in(home.folder, config.people.provider, staff, client)
    parts = Parts(
        organisation=name,
        version=__version__,
        height=lambda: gateway.account.state.height,
        identify=staff.identify,
        trail=staff.trail,
        jobs=jobs,
        health=health,
        metrics=metrics,
        log=log,
        traces=traces,
        rates=Rates(metrics),
        vocabulary=vocabulary,
        rand=secrets.token_bytes,
        routers=[*staff.routers(provider), *flow_routers(at), backup_routes(at, backups)],
    )
    host, port = address(config.people.listen)
    tls = server_context(home.folder, config.people)

    def refusals() -> dict[str, Mapping[str, int]]:
        own = {} if tls is None else {"people": tls.refusals}
        return {"peers": gateway.tls.listening.refusals, **own}

    metrics.watch(lambda: gateway.post.traffic, refusals)
    vocabulary.add("peers", "people", "upkeep", "recalls", "erasures")
    recalls = RecallRounds(
        organisation,
        log=log,
        clock=now,
        waiting=lambda: gateway.returning is not None,
        making=lambda: any(job.kind == MAKE_EXTRACT for job in jobs.store.unfinished()),
    )

    def tidy() -> None:
        organisation.vault.tidy_blobs()
        organisation.vault.tidy()

    upkeep = Upkeep(
        jobs,
        refusals,
        gateway.post.prune,
        lambda: tidy_held(organisation, now),
        log=log,
        clock=now,
        tidy=tidy,
    )
    erasures = DueErasures(organisation, tables.snapshots, wallets, log=log, clock=now, waiting=at.catching_up)
    health.add("erasures", erasures.punctual)
    people = Listener(
        name="people", app=make_app(parts), bound=bind(host, port), tls=tls, proxies=config.people.proxies
    )
    return Service(
        listeners=(people,),
        jobs=jobs,
        streams=streams,
        health=health,
        log=log,
        vocabulary=vocabulary,
        follow=(
            Followed("ledger", gateway.followed),
            Followed("reception", reception.attend),
            Followed("anchoring", anchoring.run),
            Followed("upkeep", upkeep.run),
            Followed("recalls", recalls.run),
            Followed("erasures", erasures.run),
        ),
        close=(
            *closing,
            Closing("wallets", wallets.close),
            Closing("gateway", gateway.stop),
            Closing("traces", traces.close),
        ),
        on_listening=_ready(gateway, as_json),
    )


class Anchoring:
    """Keeps the audit trail anchored. A refusal (a suspension, a trail that is an old copy) does not end the process:
    it is logged, shown as not ready, and tried again. every, again: seconds until an entry is anchored, and until it
    is tried again."""

    def __init__(self, organisation: Organisation, log: Log, every: float = EVERY, again: float = _AGAIN) -> None:
        self._organisation = organisation
        self._log = log
        self._every = every
        self._again = again
        self._refused = False

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                await keep_anchoring(self._organisation, self._every)
            except Refused as error:
                self._refused = True
                self._log.error("part.failed", part="anchoring", **about(error))
            await asyncio.sleep(self._again)
            self._refused = False

    async def works(self) -> bool:
        """A check of readiness."""
        return not self._refused


def _ready(gateway: Gateway, as_json: bool) -> Callable[[], None]:
    def tell() -> None:
        settle()
        place = f"{gateway.peers[0]}:{gateway.peers[1]}"
        if as_json:
            said = {"organisation": gateway.organisation.name, "peers": place}
            print(json.dumps(said), flush=True)
            return
        # With its end at once: the log writes to the same place.
        sys.stderr.write(f"medveil: {gateway.organisation.name} is serving; peers at {place}\n")
        sys.stderr.flush()

    return tell
