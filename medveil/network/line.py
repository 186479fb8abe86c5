"""A line to one other gateway: questions over mutual TLS, answers in canonical bytes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import Any, TypeVar

import httpx

from medveil.network.answers import read_answer
from wire.canonical import LARGEST, Wire
from wire.errors import Unavailable, VerificationError

W = TypeVar("W", bound=Wire)

CONNECT_SECONDS = 10.0


class PeerLine:
    """See `medveil.network.remote_engine.Line`. It connects when first asked, and again when the line broke.

    url: ``https://host:port`` of the peers' listener; contexts: TLS contexts whose one trust anchor is that of
    `organisation`, so that nobody else can answer; when one leads to no answer, the next one is tried the next time.
    """

    def __init__(self, organisation: str, url: str, contexts: Sequence[ssl.SSLContext]) -> None:
        self.organisation = organisation
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=16, keepalive_expiry=60)
        self._clients = [
            httpx.AsyncClient(base_url=url, verify=context, limits=limits, trust_env=False, http2=False)
            for context in contexts
        ]
        self._turn = 0

    async def ask(self, method: str, path: str, kind: type[W], body: bytes = b"", timeout: float = 30.0) -> W:
        """The answer, which is a `kind`. Raises what was told; Unavailable if nobody answers in time and properly."""
        limit = httpx.Timeout(timeout, connect=min(CONNECT_SECONDS, timeout))
        turn = self._turn
        headers = {"content-type": "application/octet-stream"}
        try:
            async with (
                asyncio.timeout(timeout),
                self._clients[turn].stream(
                    method,
                    path,
                    content=body or None,
                    headers=headers,
                    timeout=limit,
                    extensions={"trace": _Handshake()},
                ) as response,
            ):
                answer = bytearray()
                async for chunk in response.aiter_raw():
                    answer += chunk
                    if len(answer) > LARGEST:
                        raise Unavailable("network.bad_answer", organisation=self.organisation)
                if response.status_code != 200:
                    raise Unavailable("network.transport", organisation=self.organisation, status=response.status_code)
        except (httpx.HTTPError, ssl.SSLError, TimeoutError, OSError):
            self._other_way(turn)
            raise Unavailable("network.unreachable", retry_after=5, organisation=self.organisation) from None
        try:
            return read_answer(bytes(answer), kind, self.organisation)
        except VerificationError as error:
            if error.code != "network.other_authority":
                raise
            self._other_way(turn)  # one of the two does not know yet which key is in force
            raise Unavailable("network.key_changing", retry_after=1, organisation=self.organisation) from None

    def _other_way(self, turn: int) -> None:
        if turn == self._turn:
            self._turn = (turn + 1) % len(self._clients)

    async def close(self) -> None:
        """Hang up."""
        for client in self._clients:
            await client.aclose()


class _Handshake:
    """Follows one request of httpx (its ``trace`` extension) and closes a connection whose TLS handshake is cancelled.

    httpcore closes one whose handshake fails, and forgets one whose question is given up meanwhile: its socket would
    stay open until it is collected as garbage.
    """

    def __init__(self) -> None:
        self._stream: Any = None

    async def __call__(self, event: str, info: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            self._stream = info["return_value"]
        elif event == "connection.start_tls.failed" and self._stream is not None:
            await self._stream.aclose()
