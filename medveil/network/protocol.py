"""The listener: uvicorn, with the peer's certificate in the scope of each request and limits of time and size.

The certificate comes from the TLS connection itself and never from a header. uvicorn leaves out what a listener on
the open network needs, and it is here: the ASGI TLS extension; limits of time for the TLS handshake, for a request that
arrives and for an answer that is not read; a limit of size for the head of a request (its httptools parser has none);
and a limit of one peer's connections.

Spec: ASGI HTTP and WebSocket 2.3, ASGI TLS extension 0.2.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Generator, MutableMapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from cryptography import x509
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import Server, ServerState

from wire.errors import Unavailable, VerificationError

if TYPE_CHECKING:
    import socket
    from types import TracebackType
    from typing import Self

    from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, Scope

_VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
_SUITES = {"TLS_AES_128_GCM_SHA256": 0x1301, "TLS_AES_256_GCM_SHA384": 0x1302, "TLS_CHACHA20_POLY1305_SHA256": 0x1303}
"""The suites of RFC 8446; of older ones the extension says None."""
_PIECE = 65_536
"""Bytes of an answer that are given to TLS at once."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a listener bears. Times in whole or broken seconds, sizes in bytes.

    connections: at that many open ones a request is answered with 503. head_bytes: method, path, headers and trailers
    of one request, give or take what one read brings (256 KiB at most). handshake_seconds: for the TLS handshake, from
    the TCP connection on. head_seconds: for the head of a request, from the connection or the request's first byte
    on. body_seconds: for the rest of it, not counting time in which the app does not read. answer_seconds: for a peer
    to read an answer, from the moment on when more of it waits than goes on the way at once; as long as the longest
    question of ours is asked. each: connections of one organisation. idle_seconds: between two
    requests. closing_seconds: for the goodbye of TLS, what is still to be sent included; idle clients rarely say
    theirs, so a stop takes that long. grace_seconds: for running requests when the listener stops.
    """

    connections: int = 4096
    backlog: int = 1024
    head_bytes: int = 65_536
    handshake_seconds: float = 10
    head_seconds: float = 10
    body_seconds: float = 60
    answer_seconds: float = 60
    each: int = 256
    idle_seconds: int = 60
    closing_seconds: float = 2
    grace_seconds: int = 10


def peer_certificate(scope: MutableMapping[str, Any]) -> bytes:
    """The certificate (DER) with which the peer of this request's connection proved itself, from the ASGI scope.

    TLS has checked it against the members of the time of the handshake: ask `certificates.organisation_of` about now.
    Raises VerificationError if there is none.
    """
    chain = scope.get("extensions", {}).get("tls", {}).get("client_cert_chain", ())
    if not chain:
        raise VerificationError("network.no_certificate")
    return ssl.PEM_cert_to_DER_cert(chain[0])


def _tls_extension(transport: asyncio.BaseTransport) -> dict[str, Any] | None:
    """What the ASGI TLS extension says of a connection; None if it is not over TLS."""
    connection = transport.get_extra_info("ssl_object")
    if connection is None:
        return None
    suite = connection.cipher()
    leaf = connection.getpeercert(binary_form=True)
    return {
        "server_cert": None,
        "client_cert_chain": () if leaf is None else (ssl.DER_cert_to_PEM_cert(leaf),),
        "client_cert_name": None if leaf is None else x509.load_der_x509_certificate(leaf).subject.rfc4514_string(),
        "client_cert_error": None,
        "tls_version": _VERSIONS.get(connection.version()),
        "cipher_suite": _SUITES.get(suite[0]) if suite else None,
    }


def _issuer(transport: asyncio.BaseTransport) -> str | None:
    """Who issued the peer's certificate; None without one. The subject is what the peer wrote itself.

    The issuer it wrote itself, too, but TLS has looked for an authority of that name: in whatever case, however spaced
    (RFC 5280, section 7.1). So it is read here.
    """
    leaf = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
    if leaf is None:
        return None
    issuer = x509.load_der_x509_certificate(leaf).issuer
    return ",".join(" ".join(str(attribute.value).casefold().split()) for attribute in issuer)


async def _tell(
    app: ASGI3Application,
    extension: dict[str, Any],
    scope: Scope,
    receive: ASGIReceiveCallable,
    send: ASGISendCallable,
) -> None:
    """Run `app` with the TLS extension in its scope, and send its answer in pieces.

    What TLS is given at once goes to the connection whole and holds up nobody: only a further piece waits for the peer.
    """

    async def in_pieces(message: Any) -> None:
        body = message.get("body", b"")
        if message["type"] != "http.response.body" or len(body) <= _PIECE:
            await send(message)
            return
        for start in range(0, len(body), _PIECE):
            last = start + _PIECE >= len(body)
            more = message.get("more_body", False) if last else True
            await send({"type": "http.response.body", "body": body[start : start + _PIECE], "more_body": more})

    told: MutableMapping[str, Any] = scope  # type: ignore[assignment]
    told["extensions"] = {**(told.get("extensions") or {}), "tls": dict(extension)}
    await app(scope, receive, in_pieces)


class ListenerState(ServerState):
    """What the connections of one listener share. closing: no request is taken any more.

    open_of: connections by the issuer of the peer's certificate, which TLS has checked: one of the members.
    """

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.limits = limits
        self.closing = False
        self.open_of: Counter[str] = Counter()


class _Guard(asyncio.Protocol):
    """What both parsers' protocols get: the TLS extension, and deadlines for the request that is arriving.

    Which part is awaited is read off uvicorn's own state: the latest request (`cycle`) is answered, or its body
    has not come whole, or it is running and nothing is awaited.
    """

    server_state: ListenerState
    app: ASGI3Application
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    cycle: Any
    flow: Any

    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _peer: str | None = None
    _awaited: tuple[str, object] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        try:
            extension = _tls_extension(transport)
        except ValueError:  # OpenSSL reads certificates that the library refuses
            self.transport.abort()
            return
        if extension is not None:
            self.app = partial(_tell, self.app, extension)
            self._peer = _issuer(transport)
        if self._peer is not None:
            self.server_state.open_of[self._peer] += 1
            if self.server_state.open_of[self._peer] > self.server_state.limits.each:
                self.transport.abort()  # others find room, and what one peer can make wait for it is bounded
                return
        if self.server_state.closing:  # its handshake was under way when the listener closed
            self.transport.abort()  # asyncio hands over what comes until a goodbye is said
            return
        self._await("head")

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._await("head")
        else:
            self._await("body" if self.cycle.more_body else None)

    def on_response_complete(self) -> None:
        super().on_response_complete()  # type: ignore[misc]
        if not self.flow.write_paused:
            self._stop_waiting()
        # The next request may have come already, in part. If not, the keep-alive deadline of uvicorn runs now.
        self._await("body" if not self.cycle.response_complete and self.cycle.more_body else None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._await(None)
        self._stop_waiting()
        if self._peer is not None:
            self.server_state.open_of[self._peer] -= 1
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.server_state.limits.answer_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        if self.cycle is None or self.cycle.response_complete:  # else the peer has read some of it: its time runs on
            self._stop_waiting()
        super().resume_writing()

    def _stop_waiting(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _await(self, part: Literal["head", "body"] | None) -> None:
        """Let the deadline of `part` of the present request run, unless it does already."""
        awaited = None if part is None else (part, self.cycle)
        if awaited == self._awaited:
            return
        self._awaited = awaited
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if part is not None and not self.transport.is_closing():
            limits = self.server_state.limits
            seconds = limits.head_seconds if part == "head" else limits.body_seconds
            self._deadline = self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        self._deadline = None
        if self.flow.read_paused:  # it is the app that is slow
            self._deadline = self.loop.call_later(self.server_state.limits.body_seconds, self._late)
        elif not self.transport.is_closing():
            self.transport.close()


class H11Peer(_Guard, H11Protocol):  # type: ignore[misc]
    """The pure Python parser. It limits heads by itself."""


class HttpToolsPeer(_Guard, HttpToolsProtocol):  # type: ignore[misc]
    """The parser in C, which reads on for ever: what it has called back with is counted, and what it has not."""

    _fields = 0
    _unheard = 0
    _heard = False

    def data_received(self, data: bytes) -> None:
        self._heard = False
        super().data_received(data)
        self._unheard = 0 if self._heard else self._unheard + len(data)
        if self._unheard > self.server_state.limits.head_bytes and not self.transport.is_closing():
            self.send_400_response("Invalid HTTP request received.")

    def on_message_begin(self) -> None:
        self._fields = 0
        self._hear(0)
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._hear(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._hear(len(name) + len(value))
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._hear(0)
        super().on_body(body)

    def _hear(self, length: int) -> None:
        self._heard = True
        self._fields += length
        if self._fields > self.server_state.limits.head_bytes:
            raise ValueError  # the parser turns it into its own error, and uvicorn that into 400


class _Server(Server):
    """uvicorn's server on one socket of ours, with the arguments of TLS that its configuration does not know."""

    def __init__(self, config: Config, sock: socket.socket, tls: ssl.SSLContext | None, limits: Limits) -> None:
        super().__init__(config)
        self.server_state: ListenerState = ListenerState(limits)
        self._sock = sock
        self._tls = tls
        self.accepts = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals to the process: it has more than one listener, and work besides."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            self.should_exit = True
            return
        limits = self.server_state.limits
        self.servers = [
            await asyncio.get_running_loop().create_server(
                self._connection,
                sock=self._sock,
                ssl=self._tls,
                backlog=limits.backlog,
                ssl_handshake_timeout=limits.handshake_seconds if self._tls else None,
                ssl_shutdown_timeout=limits.closing_seconds if self._tls else None,
            )
        ]
        self.started = True
        self.accepts.set()

    def _connection(self) -> asyncio.BaseProtocol:
        assert issubclass(self.config.http_protocol_class, HttpToolsPeer | H11Peer)
        return self.config.http_protocol_class(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        state = self.server_state
        state.closing = True
        await super().shutdown(sockets)
        if state.tasks:  # uvicorn cancels what outlives the grace, and does not wait
            await asyncio.wait(list(state.tasks), timeout=state.limits.closing_seconds)
        for connection in list(state.connections):
            connection.transport.abort()


class Listener:
    """One listening socket of the process, served by uvicorn on the running event loop until `stop`.

    app: any ASGI application. sock: bound; it is closed in the end. tls: None behind a proxy on the same machine.
    parser: "httptools" (C, the default) or "h11". lifespan: whether start and stop of the app are this listener's to
    tell; by default the process does that itself, since it has several listeners. `async with` starts and stops it.
    """

    def __init__(
        self,
        app: Any,
        sock: socket.socket,
        tls: ssl.SSLContext | None,
        limits: Limits | None = None,
        parser: Literal["httptools", "h11"] = "httptools",
        lifespan: Literal["on", "off"] = "off",
    ) -> None:
        limits = limits or Limits()
        config = Config(
            app,
            http=HttpToolsPeer if parser == "httptools" else H11Peer,
            ws="none",
            loop="none",
            lifespan=lifespan,
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=limits.connections,
            backlog=limits.backlog,
            timeout_keep_alive=limits.idle_seconds,
            timeout_graceful_shutdown=limits.grace_seconds,
            h11_max_incomplete_event_size=limits.head_bytes,
        )
        self.address: tuple[str, int] = sock.getsockname()[:2]
        self._server = _Server(config, sock, tls, limits)
        self._run: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when it accepts connections. Raises OSError, or Unavailable if the app refuses to start."""
        self._run = asyncio.create_task(self._server.serve(), name=f"listener {self.address}")
        accepts = asyncio.create_task(self._server.accepts.wait())
        try:
            await asyncio.wait((self._run, accepts), return_when=asyncio.FIRST_COMPLETED)
        finally:
            accepts.cancel()
        if not self._server.accepts.is_set():
            self._server._sock.close()
            self._run.result()
            raise Unavailable("network.no_start", address=f"{self.address[0]}:{self.address[1]}")

    async def stop(self) -> None:
        """Take no more connections, let running requests end (`grace_seconds`), and return when all is closed."""
        if self._run is not None:
            self._server.should_exit = True
            await self._run

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


class PeerServer(Listener):
    """The listener for other organisations: mutual TLS or nothing.

    tls: a context that asks for certificates, as `certificates.PeerTls.listening`. The app finds out who
    asks by `peer_certificate` and `certificates.organisation_of`.
    """

    def __init__(
        self,
        app: Any,
        sock: socket.socket,
        tls: ssl.SSLContext,
        limits: Limits | None = None,
        parser: Literal["httptools", "h11"] = "httptools",
        lifespan: Literal["on", "off"] = "off",
    ) -> None:
        if tls.verify_mode != ssl.CERT_REQUIRED:
            raise ValueError("a listener for peers asks for certificates")
        super().__init__(app, sock, tls, limits, parser, lifespan)
