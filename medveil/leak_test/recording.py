"""What gateways answer, byte by byte as it came, kept in files: heads, bodies, event streams.

A file is called by its number, status, method and the route's first words, so that a name tells nothing private.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import BinaryIO

import httpx

from medveil.client import AsyncClient
from medveil.client.carriers import AwaitingCarrier

_WORD = re.compile(r"[a-z][a-z-]*\Z")


class Recorder:
    """Keeps answers below a folder, those of each organisation's gateway in a folder of its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = count(1)
        self._organisations: dict[str, str] = {}  # by address

    def gateway(self, address: str, organisation: str) -> None:
        """Whose gateway answers at an address ``https://host:port``."""
        self._organisations[address] = organisation
        (self.folder / organisation).mkdir(parents=True, exist_ok=True)

    def transport(self, tls: ssl.SSLContext) -> httpx.AsyncBaseTransport:
        """What carries a client's calls and keeps the answers."""
        return _Transport(self, httpx.AsyncHTTPTransport(verify=tls))

    def open(self, request: httpx.Request, response: httpx.Response) -> BinaryIO:
        """A file for one answer, its head written."""
        words = [word for word in request.url.path.split("/")[1:3] if _WORD.match(word)]
        name = "-".join([f"{next(self._numbers):05}", str(response.status_code), request.method, *words])
        organisation = self._organisations[f"{request.url.scheme}://{request.url.netloc.decode()}"]
        file = (self.folder / organisation / name).open("xb", buffering=0)
        for field, value in response.headers.raw:
            file.write(field + b": " + value + b"\n")
        file.write(b"\n")
        return file


class _Transport(httpx.AsyncBaseTransport):
    def __init__(self, recorder: Recorder, inner: httpx.AsyncBaseTransport) -> None:
        self._recorder, self._inner = recorder, inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        heard = _Heard(response.stream, self._recorder.open(request, response))
        return httpx.Response(
            response.status_code, headers=response.headers, stream=heard, extensions=response.extensions
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Heard(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream, file: BinaryIO) -> None:
        self._inner, self._file = inner, file

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._inner:
            self._file.write(piece)
            yield piece

    async def aclose(self) -> None:
        self._file.close()
        await self._inner.aclose()


def recording(recorder: Recorder) -> type[AsyncClient]:
    """The client, whose answers are kept as well."""

    class Carrier(AwaitingCarrier):
        def __init__(self, tls: ssl.SSLContext, proxy: str, deadline: float) -> None:
            super().__init__(tls, proxy, deadline)
            self._http = httpx.AsyncClient(transport=recorder.transport(tls), trust_env=False, follow_redirects=False)

    class Recorded(AsyncClient):
        @staticmethod
        def _carried(tls: ssl.SSLContext, proxy: str, deadline: float) -> AwaitingCarrier:
            return Carrier(tls, proxy, deadline)

    return Recorded
