"""The service's line without a client library: bytes out, one answer back; and somebody who works there meanwhile."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from typing import NamedTuple

import httpx

from medveil.gateway import problems
from wire import messages

from .staffed import PASSWORD, ROOT, Staffed

TELLS = re.compile(
    rb"Traceback|File \"|\.py\b|site-packages|/tmp/|/etc/|/root/|/home/|sqlite|sqlalchemy|psycopg|pydantic|starlette"
    rb"|fastapi|uvicorn|SELECT |INSERT |UPDATE |DELETE FROM|0x[0-9a-f]{6}|<html|Exception",
    re.IGNORECASE,
)
"""What would tell of the inside."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def read_answer(connection: socket.socket, method: str) -> Answer | None:
    """One answer of known length."""
    said = b""
    while b"\r\n\r\n" not in said.removeprefix(CONTINUE):
        more = _received(connection)
        if not more:
            return None
        said += more
    head, _, body = said.removeprefix(CONTINUE).partition(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    status = int(line.split(" ")[1])
    if method.upper() == "HEAD" or status in (204, 304):
        return Answer(status, headers, b"")
    if "content-length" not in headers:
        assert headers.get("transfer-encoding") == "chunked", headers
        while not body.endswith(b"0\r\n\r\n") and (more := _received(connection)):
            body += more
        return Answer(status, headers, body)
    while len(body) < int(headers["content-length"]) and (more := _received(connection)):
        body += more
    return Answer(status, headers, body[: int(headers["content-length"])])


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65_536)
    except ConnectionError:
        return b""


def check_document(answer: Answer, what: str) -> str:
    """A problem document that tells nothing of the inside; returns its code."""
    assert not TELLS.search(answer.body + repr(answer.headers).encode()), what
    assert answer.headers["content-type"] == problems.MEDIA_TYPE, what
    assert answer.headers["x-content-type-options"] == "nosniff", what
    document = json.loads(answer.body)
    assert document["status"] == answer.status and document["code"] in messages.catalogue("en"), what
    assert document["detail"] and document["fix"] and document["title"], what
    assert document["instance"].startswith("urn:uuid:"), what
    assert set(document) <= {"type", "title", "status", "detail", "instance", "code", "kind", "fix", "errors"}, what
    return str(document["code"])


class Bystander:
    """Somebody who works at the service meanwhile, one call after the other."""

    def __init__(self, service: Staffed) -> None:
        people = service.staff.people
        people.accept(people.add(ROOT, "bystander", {"officer"}), PASSWORD)
        self.address, self.session = service.address, service.session("bystander")
        self.waits: list[float] = []
        self.wrong: list[str] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        headers = {"authorization": f"Bearer {self.session}"}
        with httpx.Client(base_url=self.address, headers=headers, timeout=20, trust_env=False) as client:
            while not self._ended.wait(0.02):
                began = time.monotonic()
                answer = client.get("/v1/about")
                self.waits.append(time.monotonic() - began)
                if answer.status_code != 200:
                    self.wrong.append(answer.text)

    def __enter__(self) -> Bystander:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(30)
