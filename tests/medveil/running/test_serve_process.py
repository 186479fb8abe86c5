"""`medveil serve` as people run it: a whole consortium of processes, an administrator's first hour, an ordered end."""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pyotp
import pytest
from typer.testing import CliRunner

from medveil.cli import app
from medveil.service.accounts.oidc_setup import CALLBACK
from medveil.service.home.config import FILE, Provider, write_config
from tests.medveil.service.oidc_provider import CLIENT, SECRET
from tests.medveil.service.oidc_provider import Provider as OpenId

from .conftest import PASS, free_port

ROOT = Path(__file__).resolve().parents[3]


class Served:
    """One `medveil serve`."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        program = "import sys; from medveil.cli import main; sys.argv[0] = 'medveil'; main()"
        self.log = home / "serve.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", program, "serve", str(home)], env=environment, stdout=log, stderr=log
            )

    def ready(self, about: str) -> dict[str, Any]:
        """What `/health/ready` says; a process that ended, or took too long, fails with what its log says."""
        end = time.monotonic() + 120  # four processes start at once, beside other tests
        while True:
            try:
                answer = httpx.get(f"{about}/health/ready", timeout=5)
                if answer.status_code == 200:
                    return dict(answer.json())
                last = answer.text
            except httpx.HTTPError as error:
                last = repr(error)
            assert self.process.poll() is None and time.monotonic() < end, (
                last,
                self.process.poll(),
                self.log.read_text(),
            )
            time.sleep(0.1)

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    file = tmp_path / "passphrase"
    file.write_text(PASS)
    file.chmod(0o600)
    monkeypatch.setenv("MEDVEIL_PASSPHRASE_FILE", str(file))
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def openid() -> Iterator[OpenId]:
    """A provider that really runs, and dates its tokens by the time of this machine."""
    with OpenId() as started:
        started.reset(lambda: int(time.time()))
        yield started


def named(openid: OpenId, folder: Path) -> Provider:
    """The provider as gateway.toml names it, its secret in a file of the home."""
    secret = folder / "provider-secret"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o600)
    roles = {"groups": {"claims-team": "clerk"}}
    return Provider(issuer=openid.issuer, client_id=CLIENT, secret_file=secret.name, roles=roles)


def sign_in_by(openid: OpenId, gateway: str) -> dict[str, Any]:
    """Who somebody is at the gateway after a browser's way to the provider and back."""
    openid.back = gateway + CALLBACK
    with httpx.Client(headers={"origin": gateway}, timeout=20) as browser:
        begun = browser.post(gateway + "/v1/sign-in/provider")
        assert begun.status_code == 200, begun.text
        back = browser.get(browser.get(begun.json()["url"]).headers["location"])
        assert back.status_code == 303, back.text
        return dict(browser.get(gateway + "/v1/me").json())


def turned_away(peers: str, people: str) -> int:
    """How many failed handshakes the metrics show after a stranger without a certificate, and one without TLS."""
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(httpx.HTTPError), httpx.Client(verify=stranger) as client:
        client.get(peers)
    with pytest.raises(httpx.HTTPError):
        httpx.get(peers.replace("https:", "http:"))
    found = re.findall(r'medveil_tls_refused_total{listener="peers",.*} (\d+)', httpx.get(f"{people}/metrics").text)
    return sum(map(int, found))


def test_a_consortium_of_processes(consortium: Any, environment: dict[str, str], openid: OpenId) -> None:
    ports = {name: free_port() for name in consortium.members}
    for name, port in ports.items():
        with consortium.home(name) as home:
            provider = named(openid, home.folder) if name == "insurer" else None
            people = msgspec.structs.replace(home.config.people, listen=f"127.0.0.1:{port}", provider=provider)
            write_config(home.folder / FILE, msgspec.structs.replace(home.config, people=people))
    invited = CliRunner().invoke(app, ["invite-admin", str(consortium.folder / "insurer"), "anna"])
    assert invited.exit_code == 0, (invited.output, invited.exception)
    invitation = invited.output.splitlines()[-1].strip()
    served = {name: Served(consortium.folder / name, environment) for name in consortium.members}
    try:
        for name, port in ports.items():
            about = f"http://127.0.0.1:{port}"
            assert served[name].ready(about)["ready"] is True
            denied = httpx.get(f"{about}/v1/about")
            assert denied.status_code == 401 and denied.headers["content-type"].startswith("application/problem+json")
        second = CliRunner().invoke(app, ["invite-admin", str(consortium.folder / "insurer"), "bo"])
        assert getattr(second.exception, "code", "") == "home.in_use"

        with httpx.Client(base_url=f"http://127.0.0.1:{ports['insurer']}", timeout=20) as anna:
            password = "a horse that reads staples backwards 9"
            taken = anna.post("/v1/invitations/accept", json={"invitation": invitation, "password": password})
            assert taken.status_code in (200, 201), taken.text
            signed_in = anna.post("/v1/sign-in", json={"name": "anna", "password": password, "carrier": "bearer"})
            assert signed_in.status_code in (200, 201), signed_in.text
            anna.headers["authorization"] = f"Bearer {signed_in.json()['session']}"
            assert signed_in.json()["enrolling"] and anna.get("/v1/people").status_code == 403
            begun = anna.post("/v1/me/codes", json={"password": password})
            seed = pyotp.parse_uri(begun.json()["uri"])
            assert isinstance(seed, pyotp.TOTP)
            finished = anna.post("/v1/me/codes/confirm", json={"code": seed.now()})
            assert len(finished.json()["codes"]) >= 8, finished.text
            assert [person["name"] for person in anna.get("/v1/people").json()["people"]] == ["anna"]
            about = anna.get("/v1/about").json()
            assert about["organisation"] == "insurer"
            assert anna.get("/v1/security-log").status_code == 200
        ada = sign_in_by(openid, f"http://127.0.0.1:{ports['insurer']}")
        assert (ada["name"], ada["roles"]) == ("ada", ["clerk"])
        assert httpx.post(f"http://127.0.0.1:{ports['regulator']}/v1/sign-in/provider").status_code in (404, 405)
        assert turned_away(consortium.addresses["insurer"], f"http://127.0.0.1:{ports['insurer']}") == 2
        for one in served.values():
            assert one.end() == 0, one.log.read_text()
    finally:
        for one in served.values():
            one.process.kill()
            one.process.wait(30)
    lines = (consortium.folder / "insurer" / "serve.log").read_text().splitlines()
    events = [json.loads(line)["event"] for line in lines if line.startswith("{")]
    assert events[-1] == "stopped" and "listening" in events
    assert not any(secret in line for line in lines for secret in (password, invitation, SECRET))
