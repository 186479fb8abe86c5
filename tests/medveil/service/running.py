"""A gateway's service as it runs: real SQLite, real uvicorn on a socket of this machine, real sealing."""

from __future__ import annotations

import asyncio
import io
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from starlette.requests import Request

from medveil.service.accounts.rights import ROLES, Principal, rights_of
from medveil.service.api.app import Parts, make_app
from medveil.service.api.doorway import Limits
from medveil.service.api.events import StreamLimits, Streams
from medveil.service.api.rates import Rates
from medveil.service.database import Database
from medveil.service.health import Health
from medveil.service.http_protocol import PatientProtocol
from medveil.service.logs import Vocabulary, make_log
from medveil.service.metrics import Metrics
from medveil.service.security.security_trail import SecurityTrail
from medveil.service.serve import Grace, Listener, Service, bind
from medveil.service.traces import NoTraces, Traces
from medveil.service.work.job_tables import JobStore
from medveil.service.work.jobs import JobLimits, Jobs
from wire.errors import MedveilError, VerificationError

TOKENS = {"token-of-anna": "anna", "token-of-bo": "bo"}


class AesSealer:
    """AES-256-GCM with the info as associated data."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def seal(self, info: bytes, plaintext: bytes) -> bytes:
        nonce = secrets.token_bytes(12)
        return nonce + self._aead.encrypt(nonce, plaintext, info)

    def open(self, info: bytes, sealed: bytes) -> bytes:
        try:
            return self._aead.decrypt(sealed[:12], sealed[12:], info)
        except (InvalidTag, ValueError):
            raise VerificationError("wire.cannot_open") from None


class Person(Principal):
    """A person with every right, whose jobs go by the bare name."""

    @property
    def id(self) -> str:
        return self.name


async def by_token(request: Request) -> Person:
    """Who sends a token of TOKENS."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme != "Bearer" or token not in TOKENS:
        raise MedveilError("http.not_signed_in")
    name = TOKENS[token]
    return Person("person", name, frozenset(ROLES), rights_of(ROLES), name)


class Ticking:
    """A clock that moves on by a millisecond whenever it is read."""

    def __init__(self, now: int = 1_700_000_000_000) -> None:
        self.now = now

    def __call__(self) -> int:
        self.now += 1
        return self.now


@dataclass
class Set:
    """All parts of one service, to be changed before the application is made."""

    folder: Path
    key: bytes = b"k" * 32
    job_limits: JobLimits = field(default_factory=JobLimits)
    stream_limits: StreamLimits = field(default_factory=StreamLimits)
    limits: Limits = field(default_factory=Limits)
    per_address: str = "100000/minute"
    per_principal: str = "100000/minute"
    traces: Traces = field(default_factory=NoTraces)
    rand: Callable[[int], bytes] = secrets.token_bytes

    def __post_init__(self) -> None:
        self.written = io.BytesIO()
        self.vocabulary = Vocabulary()
        self.clock = Ticking()
        self.log = make_log("north", self.vocabulary, self.clock, file=self.written)
        self.metrics = Metrics("north", "0.1.0", self.vocabulary)
        self.health = Health(self.log)
        self.database = Database.open(f"sqlite:///{self.folder / 'service.db'}")
        self.store = JobStore(self.database)
        self.streams = Streams(self.log, self.metrics, self.stream_limits)
        self.jobs = Jobs(
            self.store,
            self.streams,
            sealer=AesSealer(self.key),
            clock=self.clock,
            rand=self.rand,
            log=self.log,
            metrics=self.metrics,
            traces=self.traces,
            vocabulary=self.vocabulary,
            limits=self.job_limits,
        )

    def parts(self, **others: Any) -> Parts:
        return Parts(
            **{
                "organisation": "north",
                "version": "0.1.0",
                "height": lambda: 7,
                "identify": by_token,
                "trail": SecurityTrail(self.database, self.clock),
                "jobs": self.jobs,
                "health": self.health,
                "metrics": self.metrics,
                "log": self.log,
                "traces": self.traces,
                "rates": Rates(self.metrics, self.per_address, self.per_principal),
                "vocabulary": self.vocabulary,
                "rand": self.rand,
                "limits": self.limits,
                **others,
            }
        )

    def lines(self) -> list[dict[str, Any]]:
        """The log so far."""
        return [json.loads(line) for line in self.written.getvalue().splitlines()]

    def answered(self, count: int) -> None:
        """Wait until `count` requests are in the log: a line is written after its answer has left."""
        deadline = time.monotonic() + 10
        while sum(line["event"] == "request" for line in self.lines()) < count:
            assert time.monotonic() < deadline
            time.sleep(0.002)


class Running:
    """A service in a thread with an event loop of its own, on a real socket."""

    def __init__(
        self,
        own: Set,
        protocol: type[PatientProtocol] = PatientProtocol,
        at: Callable[[str], dict[str, Any]] = lambda _: {},
        proxies: Sequence[str] = (),
        loop: asyncio.AbstractEventLoop | None = None,
        **others: Any,
    ) -> None:
        """at: parts that must know the service's address. loop: running elsewhere, to be used instead of an own one."""
        self.set = own
        self._shared = loop
        bound = bind("127.0.0.1", 0)
        self.port: int = bound.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.app = make_app(own.parts(**others, **at(self.address)))
        self._stop = asyncio.Event()
        self._listening = threading.Event()
        self.exit_code: int | None = None
        self.service = Service(
            listeners=[Listener(name="people", app=self.app, bound=bound, protocol=protocol, proxies=proxies)],
            jobs=own.jobs,
            streams=own.streams,
            health=own.health,
            log=own.log,
            vocabulary=own.vocabulary,
            grace=Grace(requests=2, jobs=2.0),
            on_listening=self._listening.set,
        )
        self._thread = threading.Thread(target=self._main, daemon=True)

    def _main(self) -> None:
        async def main() -> None:
            self.loop = asyncio.get_running_loop()
            self.exit_code = await self.service.run(self._stop)

        if self._shared is None:
            asyncio.run(main())
        else:
            asyncio.run_coroutine_threadsafe(main(), self._shared).result()

    def __enter__(self) -> Running:
        self._thread.start()
        assert self._listening.wait(20)
        return self

    def __exit__(self, *_given: object) -> None:
        self.stop()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def stop(self) -> None:
        """Ask it to stop, as a signal would."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._stop.set)

    def do(self, work: Any) -> Any:
        """Run a coroutine in the service's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def connect(self) -> socket.socket:
        """A bare connection to it."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)


ANNA = {"authorization": "Bearer token-of-anna"}
BO = {"authorization": "Bearer token-of-bo"}
