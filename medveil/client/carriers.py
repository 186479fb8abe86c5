"""The two carriers of exchanges over HTTP: one that blocks, one in an event loop. httpx does the work.

Both do the same with each effect and hold nothing besides the connections: when the exchange ends, in whatever way,
an answer that was still open is closed; when the carrier is closed, every connection is. Redirects are not followed
(a secret would go with them), certificates are always checked, and no variable of the environment leads elsewhere.
Compressed answers are not asked for and not taken: a few thousand bytes of one can stand for all of the memory.
An answer is there as a whole within the deadline or not at all; a stream that is followed has none.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

from medveil.client.exchange import (
    LARGEST,
    Answer,
    Broken,
    Carrier,
    Effect,
    Exchange,
    Listen,
    Next,
    Pause,
    Request,
    Send,
    Tell,
    Work,
)
from wire.errors import DecodeError, Unavailable

try:
    import httpx
except ModuleNotFoundError:
    raise Unavailable("client.not_installed") from None

from medveil.client.deadlines import Late, transport, within

_CONNECT_S = 10.0
_LIMITS = httpx.Limits(max_connections=32, max_keepalive_connections=8, keepalive_expiry=30)


class _Ended(Exception):
    """The exchange returned. value: what."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


class _Walk:
    """One exchange on its way: what it wants next."""

    def __init__(self, exchange: Exchange[Any]) -> None:
        self._exchange = exchange
        self._given: Any = None
        self._error: BaseException | None = None

    def next(self) -> Effect:
        """The next effect. Raises _Ended, or what the exchange raises."""
        given, error = self._given, self._error
        self._given = self._error = None
        try:
            return self._exchange.throw(error) if error is not None else self._exchange.send(given)
        except StopIteration as stop:
            raise _Ended(stop.value) from None

    def give(self, value: Any) -> None:
        """What the effect gave."""
        self._given = value

    def fail(self, error: BaseException) -> None:
        """What the effect raised."""
        self._error = error

    def close(self) -> None:
        """End the exchange where it stands."""
        self._exchange.close()


_USUAL: dict[str, Any] = {"trust_env": False, "follow_redirects": False}


def _of(client: httpx.Client | httpx.AsyncClient, request: Request) -> httpx.Request:
    seconds = httpx.Timeout(request.seconds, connect=_CONNECT_S)
    headers = [*request.headers, ("accept-encoding", "identity")]
    return client.build_request(request.method, request.url, headers=headers, content=request.content, timeout=seconds)


def _check_plain(response: httpx.Response) -> None:
    if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise DecodeError("client.unexpected_answer")


def _answer(response: httpx.Response, body: bytes) -> Answer:
    return Answer(response.status_code, {name.lower(): value for name, value in response.headers.items()}, body)


def _broken(error: Exception) -> Broken:
    """Whether the gateway may have seen the request, by how it failed."""
    if isinstance(error, Late):
        return Broken(sent=True, late=True)
    unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.ProxyError)
    refused: BaseException | None = error
    while refused is not None and not isinstance(refused, ssl.SSLCertVerificationError):
        refused = refused.__cause__ or refused.__context__
    return Broken(sent=not unsent, trusted=refused is None)


def _grown(body: bytearray, chunk: bytes) -> None:
    body += chunk
    if len(body) > LARGEST:
        raise DecodeError("client.too_large", limit=LARGEST)


class BlockingCarrier(Carrier):
    """Carries exchanges out where it is called. It may be used by several threads at once.

    deadline: seconds for one whole answer.
    """

    def __init__(self, tls: ssl.SSLContext, proxy: str, deadline: float) -> None:
        self._http = httpx.Client(transport=transport(tls, proxy, _LIMITS), **_USUAL)
        self._deadline = deadline

    def run(self, exchange: Exchange[Any]) -> Any:
        """Its result."""
        walking = self._walk(exchange)
        while True:
            try:
                next(walking)
            except StopIteration as stop:
                return stop.value

    def iterate(self, exchange: Exchange[Any]) -> Iterator[Any]:
        """What it tells, as it tells it."""
        yield from self._walk(exchange)

    def _walk(self, exchange: Exchange[Any]) -> Generator[Any, None, Any]:
        walk, chunks = _Walk(exchange), contextlib.ExitStack()
        opened: Iterator[bytes] = iter(())
        try:
            while True:
                try:
                    effect = walk.next()
                except _Ended as ended:
                    return ended.value
                if isinstance(effect, Tell):
                    yield effect.item
                    continue
                try:
                    if isinstance(effect, Listen):
                        chunks.close()
                        answer, opened = self._listen(effect.request, chunks)
                        walk.give(answer)
                    elif isinstance(effect, Next):
                        walk.give(next(opened, None))
                    else:
                        walk.give(self._perform(effect))
                except (httpx.TransportError, Late) as error:
                    walk.fail(_broken(error))
                except Exception as error:
                    walk.fail(error)
        finally:
            walk.close()
            chunks.close()

    def _perform(self, effect: Send | Pause | Work) -> Any:
        if isinstance(effect, Work):
            return effect.task()
        if isinstance(effect, Pause):
            return time.sleep(effect.seconds)
        with within(self._deadline):
            response = self._http.send(_of(self._http, effect.request), stream=True)
            try:
                return _answer(response, self._read(response))
            finally:
                response.close()

    def _listen(self, request: Request, chunks: contextlib.ExitStack) -> tuple[Answer, Iterator[bytes]]:
        with within(self._deadline):
            response = self._http.send(_of(self._http, request), stream=True)
            chunks.callback(response.close)
            if response.status_code != 200:
                return _answer(response, self._read(response)), iter(())
        _check_plain(response)
        return _answer(response, b""), response.iter_raw()

    def _read(self, response: httpx.Response) -> bytes:
        _check_plain(response)
        body = bytearray()
        for chunk in response.iter_raw():
            _grown(body, chunk)
        return bytes(body)

    def close(self) -> None:
        """Close every connection."""
        self._http.close()


class AwaitingCarrier(Carrier):
    """Carries exchanges out in the event loop that awaits them. Work is done in a thread.

    deadline: seconds for one whole answer.
    """

    def __init__(self, tls: ssl.SSLContext, proxy: str, deadline: float) -> None:
        via = httpx.Proxy(proxy, ssl_context=tls if proxy.startswith("https:") else None) if proxy else None
        self._http = httpx.AsyncClient(verify=tls, proxy=via, limits=_LIMITS, **_USUAL)
        self._deadline = deadline

    async def run(self, exchange: Exchange[Any]) -> Any:
        """Its result."""
        result: list[Any] = []
        async with contextlib.aclosing(self._walk(exchange, result)) as walking:
            async for _ in walking:
                pass
        return result[0]

    async def iterate(self, exchange: Exchange[Any]) -> AsyncIterator[Any]:
        """What it tells, as it tells it."""
        async with contextlib.aclosing(self._walk(exchange, [])) as walking:
            async for item in walking:
                yield item

    async def _walk(self, exchange: Exchange[Any], result: list[Any]) -> Any:
        walk, chunks = _Walk(exchange), contextlib.AsyncExitStack()
        opened: AsyncIterator[bytes] = _nothing()
        try:
            while True:
                try:
                    effect = walk.next()
                except _Ended as ended:
                    result.append(ended.value)
                    return
                if isinstance(effect, Tell):
                    yield effect.item
                    continue
                try:
                    if isinstance(effect, Listen):
                        await chunks.aclose()
                        answer, opened = await self._listen(effect.request, chunks)
                        walk.give(answer)
                    elif isinstance(effect, Next):
                        walk.give(await anext(opened, None))
                    else:
                        walk.give(await self._perform(effect))
                except (httpx.TransportError, Late) as error:
                    walk.fail(_broken(error))
                except Exception as error:
                    walk.fail(error)
        finally:
            walk.close()
            await chunks.aclose()

    async def _perform(self, effect: Send | Pause | Work) -> Any:
        if isinstance(effect, Work):
            return await asyncio.to_thread(effect.task)
        if isinstance(effect, Pause):
            return await asyncio.sleep(effect.seconds)
        async with _within(self._deadline):
            response = await self._http.send(_of(self._http, effect.request), stream=True)
            try:
                return _answer(response, await self._read(response))
            finally:
                await response.aclose()

    async def _listen(self, request: Request, chunks: contextlib.AsyncExitStack) -> tuple[Answer, AsyncIterator[bytes]]:
        async with _within(self._deadline):
            response = await self._http.send(_of(self._http, request), stream=True)
            chunks.push_async_callback(response.aclose)
            if response.status_code != 200:
                return _answer(response, await self._read(response)), _nothing()
        _check_plain(response)
        return _answer(response, b""), response.aiter_raw()

    async def _read(self, response: httpx.Response) -> bytes:
        _check_plain(response)
        body = bytearray()
        async for chunk in response.aiter_raw():
            _grown(body, chunk)
        return bytes(body)

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()


@contextlib.asynccontextmanager
async def _within(seconds: float) -> AsyncIterator[None]:
    """What is awaited inside takes no longer. Raises Late."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Late from None


async def _nothing() -> AsyncIterator[bytes]:
    none: tuple[bytes, ...] = ()
    for chunk in none:
        yield chunk
