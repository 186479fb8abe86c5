"""Organisations with keys, memberships of them at different times, and a listener of one of them."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
import uvloop

from medveil.network.certificates import (
    DAYS,
    anchor,
    client_context,
    issue,
    organisation_of,
    server_context,
    store,
)
from medveil.network.protocol import Limits, PeerServer, peer_certificate
from wire.checkpoint.membership import Membership
from wire.errors import VerificationError
from wire.keyset import KeySet, Member, SealingKey, SignatureKey
from wire.sealing import SealKey
from wire.signing import Signer, VerifyKey

DAY = 86_400_000
HOSTS = ("localhost", "127.0.0.1")


def now() -> int:
    """The instant, ms."""
    return time.time_ns() // 1_000_000


def seed(organisation: str, use: str = "tls", generation: int = 0) -> bytes:
    """The secret key of an organisation for a use; each rotation is a generation."""
    return sha256(f"{organisation}/{use}/{generation}".encode()).digest()


def key(organisation: str, generation: int = 0) -> VerifyKey:
    """The public tls key."""
    return Signer(seed(organisation, "tls", generation)).key


def members(**generations: int) -> Membership:
    """A membership of the named organisations, each with its tls key of that generation."""

    def one(name: str, generation: int) -> Member:
        uses = (
            SignatureKey(Signer(seed(name, use, generation)).key, 0) for use in ("envelope", "cosign", "http", "tls")
        )
        return Member(name, ("hospital",), KeySet(*uses, SealingKey(SealKey(1, bytes(32)), 0)), True)

    return Membership(0, 1, tuple(one(name, generation) for name, generation in generations.items()))


def certificate(
    folder: Path, organisation: str, *, name: str = "", generation: int = 0, days: int = DAYS, age: int = 0
) -> Path:
    """A certificate on disk, under the tls key of `organisation`, in `name`, issued `age` days ago."""
    place = folder / f"{organisation}-{name}-{generation}-{days}-{age}"
    place.mkdir(exist_ok=True)
    authority = seed(organisation, "tls", generation)
    return store(issue(authority, name or organisation, HOSTS, now() - age * DAY, secrets.token_bytes, days), place)


class Field:
    """What the tests of this room start from."""

    DAY = DAY
    HOSTS = HOSTS
    now = staticmethod(now)
    seed = staticmethod(seed)
    key = staticmethod(key)
    members = staticmethod(members)

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def certificate(self, organisation: str, **how: int | str) -> Path:
        """See `certificate`."""
        make: Callable[..., Path] = certificate
        return make(self.folder, organisation, **how)


@pytest.fixture
def field(tmp_path: Path) -> Field:
    """Organisations, and a folder for their certificates."""
    return Field(tmp_path)


Story = Callable[["Scene"], Awaitable[None]]


class Scene:
    """The bureau's listener, with the insurer and a hospital for members."""

    def __init__(self, field: Any, parser: Literal["httptools", "h11"], limits: Limits | None = None) -> None:
        self.field = field
        self.membership = field.members(bureau=0, insurer=0, hospital=0)
        self.anchors = {name: anchor(name, field.key(name)) for name in ("bureau", "insurer", "hospital")}
        self.tls = server_context(field.certificate("bureau"), self.anchors.values())
        self.scopes: list[dict[str, Any]] = []
        self.ended: list[str] = []
        sock = socket.create_server(("127.0.0.1", 0))
        self.server = PeerServer(self.app, sock, self.tls, limits, parser)
        self.port = self.server.address[1]

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """Says who asks; /slow takes its time, /body reads to the end, /late does so later, /much answers much."""
        self.scopes.append(scope)
        status, answer = 200, ""
        try:
            answer = organisation_of(peer_certificate(scope), self.membership, self.field.now())
        except VerificationError as error:
            status, answer = 403, error.code
        if scope["path"] == "/slow":
            try:
                await asyncio.sleep(0.6)
            except asyncio.CancelledError:
                self.ended.append("cancelled")
                raise
        if scope["path"] == "/late":
            await asyncio.sleep(1)
        if scope["path"] in ("/body", "/late"):
            while True:
                event = await receive()
                if event["type"] == "http.disconnect":
                    self.ended.append("disconnected")
                    return
                if not event["more_body"]:
                    break
        body = json.dumps(answer).encode() if scope["path"] != "/much" else bytes(100_000_000)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def context(self, organisation: str = "insurer", peer: str = "bureau", **how: Any) -> ssl.SSLContext:
        """What `organisation` connects to `peer` with."""
        return client_context(self.field.certificate(organisation, **how), self.anchors[peer])

    def client(self, context: ssl.SSLContext | None = None) -> httpx.AsyncClient:
        """An HTTP client of the insurer, or with the context given."""
        base = f"https://127.0.0.1:{self.port}"
        return httpx.AsyncClient(base_url=base, verify=context or self.context(), trust_env=False, timeout=10)

    async def ask(self, context: ssl.SSLContext | None = None, path: str = "/") -> tuple[int, str]:
        """One request on a connection of its own: status, and the answer."""
        async with self.client(context) as client:
            response = await client.get(path)
            return response.status_code, response.json()

    async def open(self, context: ssl.SSLContext | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection of the insurer's, for saying what no proper client would."""
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=context or self.context(), server_hostname="x")

    async def refused(self, context: ssl.SSLContext) -> str:
        """Why the listener refuses a connection: the alert's name. In TLS 1.3 it comes with the first read."""

        def connect() -> str:
            with socket.create_connection(("127.0.0.1", self.port), 10) as plain:
                try:
                    with context.wrap_socket(plain, server_hostname="x") as connection:
                        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                        return "accepted" if connection.recv(1) else "no word"
                except ssl.SSLError as error:
                    return str(error.reason)

        return await asyncio.to_thread(connect)

    async def arrived(self) -> None:
        """Wait until there is a request."""
        while not self.scopes:
            await asyncio.sleep(0.005)

    async def check_up(self) -> None:
        """The listener serves a member as if nothing had happened."""
        assert await self.ask() == (200, "insurer")


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=["asyncio-httptools", "asyncio-h11", "uvloop-httptools", "uvloop-h11"])
def play(request: pytest.FixtureRequest, field: Any) -> Callable[..., None]:
    """Tell a story at a running listener, on each event loop and with each parser; it is up in the end."""
    loop, parser = request.param.split("-")

    def tell(story: Story, limits: Limits | None = None, check: bool = True) -> None:
        async def whole() -> None:
            scene = Scene(field, parser, limits)
            async with scene.server:
                await story(scene)
                if check:
                    await scene.check_up()
                before = len(scene.scopes)
            assert len(scene.scopes) == before
            with pytest.raises(OSError):
                await asyncio.open_connection("127.0.0.1", scene.port)

        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            faults: list[dict[str, Any]] = []
            runner.get_loop().set_exception_handler(lambda _, context: faults.append(context))
            runner.run(asyncio.wait_for(whole(), 60))
            assert not faults

    return tell


@pytest.fixture
def scene_of() -> type[Scene]:
    """For tests that start the listener themselves."""
    return Scene
