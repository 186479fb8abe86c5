"""A line to one other gateway: questions over mutual TLS, answers in canonical bytes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import TypeVar

import aiohttp
from yarl import URL

from medveil.network.answers import read_answer
from wire.canonical import LARGEST, Wire
from wire.errors import Unavailable, VerificationError

W = TypeVar("W", bound=Wire)

CONNECT_SECONDS = 10.0
_MOST_CONNECTIONS = 64
_IDLE_SECONDS = 45.0
"""A connection that nobody used for so long is left: below the listener's own limit, which would close it under us."""


class PeerLine:
    """See `medveil.network.remote_engine.Line`. It connects when first asked, and again when the line broke.

    url: ``https://host:port`` of the peers' listener; contexts: TLS contexts whose one trust anchor is that of
    `organisation`, so that nobody else can answer; when one leads to no answer, the next one is tried the next time.
    """

    def __init__(self, organisation: str, url: str, contexts: Sequence[ssl.SSLContext]) -> None:
        self.organisation = organisation
        self._url = url
        self._contexts = tuple(contexts)
        self._turn = 0
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    def _calls(self) -> aiohttp.ClientSession:
        """The connections, those of all contexts apart from each other: it is made in the loop that uses it."""
        if self._closed:
            raise Unavailable("network.unreachable", retry_after=5, organisation=self.organisation)
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_MOST_CONNECTIONS, keepalive_timeout=_IDLE_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("user-agent", "accept", "accept-encoding"),
                headers={"content-type": "application/octet-stream"},
                auto_decompress=False,
                trust_env=False,
            )
        return self._session

    async def ask(self, method: str, path: str, kind: type[W], body: bytes = b"", timeout: float = 30.0) -> W:
        """The answer, which is a `kind`. Raises what was told; Unavailable if nobody answers in time and properly."""
        turn = self._turn
        try:
            async with (
                asyncio.timeout(timeout),
                self._calls().request(
                    method,
                    URL(self._url + path, encoded=True),
                    data=body or None,
                    ssl=self._contexts[turn],
                    timeout=aiohttp.ClientTimeout(sock_connect=min(CONNECT_SECONDS, timeout)),
                    allow_redirects=False,
                ) as response,
            ):
                answer = bytearray()
                async for chunk in response.content.iter_any():
                    answer += chunk
                    if len(answer) > LARGEST:
                        raise Unavailable("network.bad_answer", organisation=self.organisation)
                if response.status != 200:
                    raise Unavailable("network.transport", organisation=self.organisation, status=response.status)
        except (aiohttp.ClientError, ssl.SSLError, TimeoutError, OSError):
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
            self._turn = (turn + 1) % len(self._contexts)

    async def close(self) -> None:
        """Hang up."""
        self._closed = True
        if self._session is not None:
            await self._session.close()
