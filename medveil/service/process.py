"""`medveil serve`: one organisation's gateway as a process.

    home -> gateway (ledger, post, peers' listener) -> jobs -> application -> people's listener

It runs until it is told to stop, or until a part that must run fails. Exit codes: `medveil.service.serve`.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ledger.engines.clock import steady
from medveil import __version__
from medveil.service.app import Parts, make_app
from medveil.service.config import FILE, address, origins, passphrase, read_config
from medveil.service.events import Streams
from medveil.service.gateway import Gateway
from medveil.service.health import Health, database_writable, disk_above_floor
from medveil.service.home import Home
from medveil.service.job_tables import JobStore
from medveil.service.jobs import Jobs
from medveil.service.logs import Vocabulary, make_log
from medveil.service.metrics import Metrics
from medveil.service.rates import Rates
from medveil.service.record_sealer import RecordSealer
from medveil.service.serve import Closing, Followed, Listener, Service, bind, run
from medveil.service.staff import Staff
from medveil.service.traces import make_traces
from medveil.service.web_tls import server_context


def serve(folder: Path) -> None:
    """Run the gateway whose home is `folder`. Raises what keeps it from starting; ends the process otherwise."""
    secret = passphrase(read_config(folder / FILE))

    async def main() -> int:
        home = await asyncio.to_thread(Home.open, folder, secret, secrets.token_bytes, now)
        gateway = await Gateway.start(home, now, steady=steady)
        try:
            service = _service(gateway)
        except BaseException:
            await gateway.stop()
            raise
        return await service.run()

    sys.exit(run(main))


def now() -> int:
    """The time, ms UTC."""
    return time.time_ns() // 1_000_000


def _service(gateway: Gateway) -> Service:
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
    staff = Staff.of(gateway.database, name, home.code_key, origins(config.people), clock=now, rand=secrets.token_bytes)
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
        routers=staff.routers(),
    )
    host, port = address(config.people.listen)
    people = Listener(
        name="people", app=make_app(parts), bound=bind(host, port), tls=server_context(home.folder, config.people)
    )
    return Service(
        listeners=(people,),
        jobs=jobs,
        streams=streams,
        health=health,
        log=log,
        vocabulary=vocabulary,
        follow=(Followed("ledger", gateway.followed),),
        close=(Closing("staff", staff.close), Closing("gateway", gateway.stop), Closing("traces", traces.close)),
        on_listening=_ready(gateway),
    )


def _ready(gateway: Gateway) -> Callable[[], None]:
    def tell() -> None:
        place = f"{gateway.peers[0]}:{gateway.peers[1]}"
        print(f"medveil: {gateway.organisation.name} is serving; peers at {place}", file=sys.stderr, flush=True)

    return tell
