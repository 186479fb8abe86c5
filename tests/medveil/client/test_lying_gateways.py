"""Gateways that lie, flood or stall: nothing of it is returned as an answer, and the client stays as it is."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from medveil.client import Client, Session, Terms, column
from medveil.client import carriers as carriers_module
from medveil.client.events import EventReader
from medveil.client.filters import as_json
from medveil.client.releases import _column
from wire.errors import DecodeError, MedveilError, Unavailable, VerificationError

from .wayward import Wayward

ASKED, OTHER = "a" * 32, "b" * 32
Said = Callable[[str, str], "bytes | dict[str, Any] | None"]


def answer(body: bytes, kind: bytes = b"application/json", more: bytes = b"") -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\n%scontent-length: %d\r\n\r\n"
    return head % (kind, more, len(body)) + body


def stream(body: bytes) -> bytes:
    return answer(body, b"text/event-stream")


@contextmanager
def gateway(said: Said) -> Iterator[tuple[Client, Wayward]]:
    """A client of a gateway that says this to (method, path)."""

    def rule(_number: int, request: bytes) -> bytes:
        method, path, _ = request.split(b" ", 2)
        told = said(method.decode(), path.decode())
        return told if isinstance(told, bytes) else answer(json.dumps(told).encode())

    with Wayward(0, rule) as network, Client(network.address, Session("secret")) as client:
        yield client, network


def job(name: str, result: str = "/v1/x/n") -> dict[str, Any]:
    state = {"state": "done", "cancelling": False, "created": 1, "changed": 1, "steps": 1, "total": None}
    return {"job": name, "kind": "k", "step": None, "result": result, "problem": None, "event": 1, **state}


def events(name: str) -> bytes:
    data = json.dumps({"job": name, "state": "done", "steps": 1, "at": 1})
    return stream(f"id: 1\ndata: {data}\n\n".encode())


@pytest.mark.parametrize("layers", [1, 2])
def test_a_small_answer_that_unpacks_to_all_memory_is_not_unpacked(layers: int) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    body = b"".join(packer.compress(bytes(1 << 20)) for _ in range(100)) + packer.flush()
    for _ in range(layers - 1):
        body = gzip.compress(body)
    coded = b"content-encoding: " + b", ".join([b"gzip"] * layers) + b"\r\n"
    with gateway(lambda *_: answer(body, more=coded)) as (client, network):
        with pytest.raises(DecodeError) as packed:
            client.account.me()
        assert packed.value.code == "client.unexpected_answer"
        assert b"accept-encoding: identity" in network.seen[0].lower()


def test_an_event_of_empty_lines_without_end_is_not_taken() -> None:
    reader = EventReader()
    with pytest.raises(DecodeError):
        for _ in range(100):
            reader.feed(b"data:\n" * 10_000)


def test_streams_that_end_with_nothing_in_them_are_not_followed_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    class Sleepless:
        def sleep(self, seconds: float) -> None:
            slept.append(seconds)
            assert len(slept) < 1000

    monkeypatch.setattr(carriers_module, "time", Sleepless())
    with gateway(lambda *_: stream(b"")) as (client, _), pytest.raises(Unavailable) as gone:
        client.jobs.wait(ASKED)
    assert gone.value.code == "client.unreachable"

    def zero(*_: str) -> bytes:
        if len(slept) > 20:
            return events(ASKED)
        return stream(b"retry: 0\n\n")

    slept.clear()
    with gateway(zero) as (client, _):
        list(client.jobs.follow(ASKED))
    assert min(slept) >= 0.2  # it does not choose to be asked without a pause


def test_what_was_told_is_not_told_again() -> None:
    """A gateway that begins at the beginning, whatever the client says that it has heard."""
    states = ["waiting", "running", "done"]
    asked: list[str] = []

    def said(_method: str, _path: str) -> bytes:
        asked.append("")
        shown = states[: len(asked)]
        told = [json.dumps({"job": ASKED, "state": state, "steps": 1, "at": 1}) for state in shown]
        return stream(
            "".join(f"id: {number}\nretry: 1\ndata: {one}\n\n" for number, one in enumerate(told, 1)).encode()
        )

    with gateway(said) as (client, _):
        assert [progress.state for progress in client.jobs.follow(ASKED)] == states
    assert len(asked) == 3


SWITCHED: list[Said] = [
    lambda _, path: events(OTHER) if path.endswith("/events") else job(ASKED),
    lambda _, path: events(ASKED) if path.endswith("/events") else job(OTHER),
]


@pytest.mark.parametrize("said", SWITCHED)
def test_another_job_is_not_the_one_that_was_asked_for(said: Said) -> None:
    with gateway(said) as (client, _), pytest.raises(VerificationError) as switched:
        client.jobs.wait(ASKED)
    assert switched.value.facts == {"field": "job"}


PROOF = {
    "nonce": "n",
    "handle": "h",
    "limit": "500.00",
    "currency": "CNY",
    "audience": "insurer",
    "purpose": "p",
    "grant": "g",
    "chain": "c",
    "commitment": "00",
}


@pytest.mark.parametrize(
    "lie", [{}, {"limit": "50000"}, {"limit": "x"}, {"handle": "i"}, {"nonce": "m"}, {"grant": "other"}]
)
def test_a_proof_of_something_else_is_no_answer(lie: dict[str, str]) -> None:
    def said(method: str, path: str) -> Any:
        if path.endswith("/events"):
            return events(ASKED)
        return PROOF | lie if path == "/v1/eligibility/n" else job(ASKED, "/v1/eligibility/n")

    def ask(client: Client) -> Any:
        wanted = {"handle": "h", "limit": "500", "currency": "CNY", "purpose": "p", "grant": "g"}
        return client.eligibility.ask(hospital="north", **wanted)

    with gateway(said) as (client, _):
        if not lie:
            assert ask(client).limit == "500.00"
            return
        with pytest.raises(VerificationError) as other:
            ask(client)
        assert other.value.facts["field"] in lie


TERMS = Terms(
    grant="g",
    recipient="r",
    dataset="d",
    fields=("age", "ward"),
    purposes=("p",),
    uses=("query",),
    legal_basis="consent",
    not_before=1,
    expires=2,
    delete_by=3,
    filter=as_json(column("ward").isin(["east"])),
)


def granted(**lie: Any) -> dict[str, Any]:
    made = {"issuer": "north", "version": 2, "review": TERMS.expires, "records_until": 10**12}
    terms = {name: getattr(TERMS, name) for name in TERMS.__struct_fields__} | made | lie
    return {"grants": [{"terms": terms, "status": "in-force", "revoked_at": None}]}


@pytest.mark.parametrize(
    ("listed", "field"),
    [
        ({"grants": []}, "grant"),
        (granted(fields=["age", "ward", "name"]), "fields"),
        (granted(recipient="somebody"), "recipient"),
        (granted(expires=2**40), "expires"),
        (granted(level_ceiling=5), "level_ceiling"),
        (granted(masks={"age": "keep"}), "masks"),
        (granted(filter=None), "filter"),
        (granted(filter={"op": "?"}), "filter"),
        (granted(), ""),
    ],
)
def test_a_grant_that_was_issued_otherwise_is_told(listed: dict[str, Any], field: str) -> None:
    def said(method: str, path: str) -> Any:
        if path.endswith("/events"):
            return events(ASKED)
        return listed if (method, path) == ("GET", "/v1/grants") else job(ASKED)

    with gateway(said) as (client, _):
        if not field:
            assert client.grants.issue(TERMS).status == "in-force"
            return
        with pytest.raises(MedveilError) as other:
            client.grants.issue(TERMS)
        assert other.value.facts == {"field": field}


def test_whole_numbers_stay_whole_in_a_table() -> None:
    exact = 2**53 + 1
    jobs = [job(ASKED), job(OTHER) | {"total": exact}]
    with gateway(lambda *_: {"jobs": jobs, "after": None}) as (client, _):
        frame = client.jobs.list().to_pandas()
    assert str(frame["total"].dtype) == "Int64" and int(frame["total"][1]) == exact
    assert frame["total"].isna().tolist() == [True, False] and frame["step"].isna().all()


def test_an_instant_that_is_in_no_calendar_is_no_answer() -> None:
    with (
        gateway(lambda *_: {"jobs": [job(ASKED) | {"created": 2**62}], "after": None}) as (client, _),
        pytest.raises(DecodeError),
    ):
        client.jobs.list().to_pandas()


def test_a_group_that_is_called_like_a_result_keeps_a_column() -> None:
    assert [_column(name) for name in ("ward", "count", "sd_low", "hidden")] == [
        "ward",
        "group.count",
        "group.sd_low",
        "group.hidden",
    ]


def test_evidence_is_fetched_for_its_owner_alone(tmp_path: Path) -> None:
    with gateway(lambda *_: answer(b"PK", b"application/zip")) as (client, _):
        out = client.evidence.fetch("e", tmp_path / "e.zip")
    assert out.read_bytes() == b"PK" and out.stat().st_mode & 0o077 == 0
    assert [*tmp_path.iterdir()] == [out]
