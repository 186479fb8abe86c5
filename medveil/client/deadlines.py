"""How long one answer may take in all, from the call to its last byte, however busily it drips.

httpx bounds each single read: whoever sends a byte now and then keeps a reader for ever. In an event loop
``asyncio.timeout`` ends that. Where a call blocks, every wait on the socket gets what is left of the whole: the pool
of `transport` opens connections that know it, for each thread its own.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any

import httpcore
import httpx

_PIECE = 16 * 1024
_until: ContextVar[float | None] = ContextVar("until", default=None)


class Late(Exception):
    """The time for the whole answer is over."""


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """What is read and written inside, over connections of `transport`, takes no longer. Raises Late."""
    until = time.monotonic() + seconds
    before = _until.set(until)
    try:
        yield
    except httpx.TimeoutException:
        if time.monotonic() >= until:
            raise Late from None
        raise
    finally:
        _until.reset(before)


def transport(tls: ssl.SSLContext, proxy: str, limits: httpx.Limits) -> httpx.HTTPTransport:
    """What carries a blocking client's calls. proxy: address of an HTTP proxy, or empty."""
    return _Transport(tls, proxy, limits)


class _Transport(httpx.HTTPTransport):
    """httpx's own, over a pool whose connections know the deadline."""

    def __init__(self, tls: ssl.SSLContext, proxy: str, limits: httpx.Limits) -> None:
        via = httpx.Proxy(proxy) if proxy else None
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls,
            proxy=None if via is None else httpcore.Proxy(str(via.url), via.raw_auth, via.headers.raw, tls),
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=_Backend(),
        )


def _left(timeout: float | None, over: type[Exception]) -> float | None:
    """`timeout`, but no more than what is left of the whole. Raises `over` where nothing is."""
    until = _until.get()
    if until is None:
        return timeout
    left = until - time.monotonic()
    if left <= 0:
        raise over
    return left if timeout is None else min(timeout, left)


class _Backend(httpcore.NetworkBackend):
    """Opens sockets."""

    def __init__(self) -> None:
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._inner.connect_tcp(host, port, left, local_address, socket_options))


class _Stream(httpcore.NetworkStream):
    """One connection."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _PIECE):  # the inner one begins its wait anew for what is left of a piece
            self._inner.write(buffer[start : start + _PIECE], _left(timeout, httpcore.WriteTimeout))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, _left(timeout, httpcore.ConnectTimeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    def close(self) -> None:
        self._inner.close()
