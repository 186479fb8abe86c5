"""A wayward network between a client and a gateway: a real proxy of sockets that cuts, swallows and answers itself."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable

Change = Callable[[bytes], bytes]
Rule = Callable[[int, bytes], "str | bytes | Change"]
"""Number of the request and its bytes -> "pass", "cut:N" (after N bytes of the answer), "swallow" (the request
reaches the gateway, its answer nobody), "refuse", the bytes to answer with, or what is made of the answer's body."""


class Wayward:
    """Listens on a port of this machine and carries connections to another."""

    def __init__(self, port: int, rule: Rule, tls: ssl.SSLContext | None = None) -> None:
        self._to = port
        self._tls = tls
        self.rule = rule
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self.address = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}"
        self.seen: list[bytes] = []
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept)

    def __enter__(self) -> Wayward:
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._accepting.join(10)
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            if self._tls is not None:
                try:
                    client = self._tls.wrap_socket(client, server_side=True)
                except OSError:  # whoever called does not trust us
                    client.close()
                    continue
            self._open.append(client)
            thread = threading.Thread(target=self._carry, args=(len(self._threads), client))
            self._threads.append(thread)
            thread.start()

    def _carry(self, number: int, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while True:
                first = client.recv(65536)
                if not first:
                    return
                while b"\r\n\r\n" not in first or not _whole(first):
                    first += client.recv(65536)
                self.seen.append(first)
                what = self.rule(len(self.seen) - 1, first)
                if isinstance(what, bytes):
                    client.sendall(what)
                    return
                if what == "refuse":
                    return
                with socket.create_connection(("127.0.0.1", self._to)) as server:
                    self._open.append(server)
                    # one request a connection: the gateway closes it, and the whole answer is known
                    server.sendall(first.replace(b"\r\n", b"\r\nconnection: close\r\n", 1))
                    if callable(what):
                        client.sendall(_changed(b"".join(iter(lambda: server.recv(65536), b"")), what))
                        return
                    left = int(what.removeprefix("cut:")) if what.startswith("cut:") else None
                    while chunk := server.recv(65536):
                        if what == "swallow":
                            continue
                        client.sendall(chunk if left is None else chunk[:left])
                        if left is not None and (left := left - len(chunk)) <= 0:
                            return
                return


def _whole(request: bytes) -> bool:
    head, _, body = request.partition(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return len(body) >= int(value)
    return True


def _changed(answer: bytes, change: Change) -> bytes:
    """An answer with another body."""
    head, _, body = answer.partition(b"\r\n\r\n")
    kept = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length:")]
    new = change(body)
    return b"\r\n".join([*kept, b"content-length: %d" % len(new), b"", new])
