"""Mutated requests to every route, by every kind of caller: no fault, no leak, and always a problem document."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from medveil.service.api.doorway import Limits

from ..bare_line import Answer, Bystander, check_document, read_answer
from ..mutated import POISON, Made, Maker, described
from ..oidc_provider import Provider
from ..staffed import PASSWORD, Staffed
from ..working import Consorted

SLOW = 3.0
"""Seconds that anybody else may wait meanwhile, on a machine that others use too."""


def ask(port: int, made: Made) -> Answer | None:
    """Send the bytes and read one answer; None if the connection ended without one."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        try:
            connection.sendall(made.bytes())
        except OSError:
            pass  # it was refused before all of it was sent; the answer may be there
        return read_answer(connection, made.method)


def check(made: Made, answer: Answer | None, secrets: set[str]) -> None:
    """What every answer is, whatever was asked."""
    what = described(made)
    if answer is None:
        assert made.framing, what
        return
    said = (what, answer.status, answer.body[:600])
    assert answer.status < 500, said
    assert "server" not in answer.headers and answer.headers["x-content-type-options"] == "nosniff", said
    everything = answer.body + repr(answer.headers).encode()
    assert not any(secret.encode() in everything for secret in secrets), what
    if made.forged:  # refused as nobody's, or before anybody is asked who it is
        assert answer.status in (401, 405, 413), said
    if answer.status < 400:
        return
    assert POISON.encode() not in everything, said
    if made.method.upper() != "HEAD":
        check_document(answer, str(said))


def campaign(folder: Path, count: int, seed: int, note: Callable[[str, object], None]) -> None:
    """Send at least `count` requests and check everything said above."""
    settings: dict[str, Any] = {"limits": Limits(body_seconds=0.15), "per_address": "1000000/minute"}
    settings["per_principal"] = "1000000/minute"
    with (
        Provider() as openid,
        Consorted(folder / "consortium") as consorted,
        consorted.service("hospital-1", folder / "here", folder, issuer=openid.issuer, settings=settings) as service,
    ):
        openid.reset(lambda: service.clock() // 1000)
        with Staffed(folder / "abroad", issuer=openid.issuer) as abroad:
            abroad.rand(1000)
            foreign, _ = abroad.token("officer", {"ledger.read"})
        maker, port = Maker(service, foreign, seed), service.running.port
        statuses: Counter[int] = Counter()
        met: Counter[tuple[str, str]] = Counter()
        forged, sent, began = 0, 0, time.monotonic()
        with Bystander(service) as other:
            while sent < count:
                if sent % 100 == 0:
                    maker.ended()
                    service.clock.pass_time(20)
                for made in maker.next():
                    answer = ask(port, made)
                    check(made, answer, maker.secrets | {PASSWORD, bytes(range(32)).hex()})
                    sent += 1
                    forged += made.forged
                    statuses[answer.status if answer else 0] += 1
                    met[made.route.method, made.route.path] += 1
        seconds = time.monotonic() - began
        assert service.send("GET", "/v1/about", service.session("officer")).status_code == 200
        assert {(route.method, route.path) for route in maker.routes} == set(met)
        assert {200, 400, 401, 403, 404, 405, 422} <= set(statuses), statuses
        assert forged > count / 20 and statuses[0] < count / 20
        assert not other.wrong and len(other.waits) > 10 and max(other.waits) < SLOW, (other.wrong, other.waits)
        written = service.set.written.getvalue()
        faults = [line for line in service.set.lines() if line["event"] in ("fault", "part.failed", "denial_not_kept")]
        assert faults == [] and b"medveil_faults_total 0.0" in service.set.metrics.render()
        told = written + service.set.metrics.render() + repr(service.entries()).encode()
        assert POISON.encode() not in told and not any(secret.encode() in told for secret in maker.secrets)
        figures = {"requests": sent, "forged": forged, "statuses": dict(sorted(statuses.items())), "seconds": seconds}
        for name, figure in {**figures, "routes": len(met), "slowest_other": max(other.waits)}.items():
            note(name, figure)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    for name in ("here", "abroad"):
        (tmp_path / name).mkdir()
    yield tmp_path


def test_five_hundred_requests(folder: Path, record_property: Callable[[str, object], None]) -> None:
    campaign(folder, 500, 5, record_property)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_ten_thousand_requests(folder: Path, record_property: Callable[[str, object], None]) -> None:
    campaign(folder, 10_000, 11, record_property)
