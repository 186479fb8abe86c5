"""uvicorn's HTTP protocol with patience that ends: what a slow or hostile connection may hold, and for how long.

uvicorn closes a connection that idles between requests. These it leaves open, and this subclass does not:

* header fields that come a byte at a time, or without end (uvicorn's parser sets no limit)
* a body that still comes after its answer went out: it is thrown away for a moment, then the connection closes,
  so that a caller who sends first and reads later still gets the refusal
* a caller that does not read its answer: the write buffer stays full, the task behind it waits for ever
* more connections than the process can carry

The application can cut a connection with ``scope["extensions"]["medveil.abort"]()``. A request that does not
parse is answered with a problem document.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import uuid
from asyncio import TimerHandle, Transport
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from medveil.gateway import problems
from wire.errors import MedveilError


class PatientProtocol(HttpToolsProtocol):
    """One connection. The limits are class attributes: a subclass sets others."""

    header_seconds: float = 10.0
    """From the first byte of a request, or from the connection's beginning, to the end of its header fields."""
    header_bytes: int = 64 * 1024
    write_seconds: float = 30.0
    """How long a full write buffer may stay full."""
    linger_seconds: float = 2.0
    """How long the rest of a body is thrown away after the answer."""
    most_connections: int = 8192

    _reading: TimerHandle | None = None
    _writing: TimerHandle | None = None
    _lingering: TimerHandle | None = None
    _begun = False
    _in_body = False
    _unfinished = 0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol.connection_made`."""
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            self._cut()
            return
        self._reading = self.loop.call_later(self.header_seconds, self._cut)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol.connection_lost`."""
        for name in ("_reading", "_writing", "_lingering"):
            self._end(name)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol.data_received`."""
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_body:
            return  # the application limits bodies, and `on_response_complete` what comes after
        if self.cycle is None or self.cycle.response_complete or self._begun:
            if self._begun:
                self._unfinished += len(data)
                if self._unfinished > self.header_bytes:
                    self._refuse("http.headers_too_large")
                    return
            if self._reading is None:
                self._reading = self.loop.call_later(self.header_seconds, self._cut)

    def on_message_begin(self) -> None:
        """See `HttpToolsProtocol.on_message_begin`."""
        super().on_message_begin()
        self._begun, self._unfinished = True, 0
        self.scope["extensions"] = {"medveil.abort": self._cut}  # type: ignore[dict-item]

    def on_headers_complete(self) -> None:
        """See `HttpToolsProtocol.on_headers_complete`."""
        self._begun, self._in_body = False, True
        self._end("_reading")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """See `HttpToolsProtocol.on_message_complete`."""
        self._in_body = False
        self._end("_lingering")
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """See `HttpToolsProtocol.on_response_complete`."""
        super().on_response_complete()
        if self._in_body and not self.transport.is_closing() and self._lingering is None:
            self._lingering = self.loop.call_later(self.linger_seconds, self.transport.close)

    def pause_writing(self) -> None:
        """See `asyncio.Protocol.pause_writing`."""
        super().pause_writing()
        if self._writing is None:
            self._writing = self.loop.call_later(self.write_seconds, self._cut)

    def resume_writing(self) -> None:
        """See `asyncio.Protocol.resume_writing`."""
        self._end("_writing")
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer a request that does not parse. msg: the parser's, not shown."""
        self._refuse("http.bad_request")

    def _refuse(self, code: str) -> None:
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if cycle.response_started or self.pipeline or not self._in_body:
                self._cut()  # another answer is due first, or under way: this one would be taken for it
                return
            cycle.disconnected = True  # it is this very request's body: nobody else answers it
            cycle.message_event.set()
        answer = problems.answer(MedveilError(code), str(uuid.uuid4()), "en", headers={"connection": "close"})
        head = [f"HTTP/1.1 {answer.status} {problems.TITLES[answer.status][0]}"]
        head += [f"{name}: {value}" for name, value in (*answer.headers, ("x-content-type-options", "nosniff"))]
        self.transport.write("\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + answer.body)
        self.transport.close()

    def _cut(self) -> None:
        """Close at once and throw away what was not sent, in the kernel too: whoever did not read it will not."""
        bound = self.transport.get_extra_info("socket")
        if bound is not None:
            with contextlib.suppress(OSError):
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _end(self, name: str) -> None:
        timer: Any = getattr(self, name)
        if timer is not None:
            timer.cancel()
            setattr(self, name, None)
