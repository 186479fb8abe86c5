"""People of running gateways: accounts with passwords and one-time codes, made and used over HTTPS as in real life."""

from __future__ import annotations

import base64
import json
import os
import secrets
import ssl
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pyotp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ledger.receipts import Receipt, verify_receipt
from medveil.service.accounts.passwords import Hashing, Passwords
from medveil.service.accounts.people import People
from medveil.service.accounts.rights import Principal, rights_of
from medveil.service.home.config import FILE, Data, write_config
from wire.canonical import decode
from wire.checkpoint import TrustFile

from .conftest import Consortium, free_port, now

ROOT = Principal("person", "root", frozenset({"admin"}), rights_of({"admin"}), "root")
PASSWORD = "seven wet lanterns hum quietly"


def certificate(folder: Path) -> Path:
    """A self-signed certificate of 127.0.0.1, and its key beside it: ``web.pem``, ``web.key``."""
    import datetime
    import ipaddress

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
    today = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(hours=1))
        .not_valid_after(today + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    (folder / "web.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "web.key").touch(mode=0o600)
    (folder / "web.key").write_bytes(private)
    return folder / "web.pem"


class Office:
    """A home made ready to be served to its people over HTTPS: where it listens, and their invitations."""

    def __init__(self, consortium: Consortium, name: str, roles: tuple[str, ...], data: Path | None = None) -> None:
        self.name, self.roles = name, roles
        self.port = free_port()
        self.address = f"https://127.0.0.1:{self.port}"
        with consortium.home(name) as home:
            self.pem = certificate(home.folder)
            people = msgspec.structs.replace(
                home.config.people, listen=f"127.0.0.1:{self.port}", certificate="web.pem", key="web.key"
            )
            config = msgspec.structs.replace(home.config, people=people, data=Data(str(data) if data else ""))
            write_config(home.folder / FILE, config)
            database = home.database()
            try:
                accounts = People(
                    database, name, clock=now, rand=secrets.token_bytes, passwords=Passwords(Hashing(1, 8, 1))
                )
                accounts.invite_first_admin("root")
                self.invitations = {role: accounts.add(ROOT, role, {role}) for role in roles}
            finally:
                database.close()

    def ready(self, seconds: float = 60) -> None:
        """Wait until it is ready."""
        end = time.monotonic() + seconds
        while True:
            try:
                last = httpx.get(f"{self.address}/health/ready", verify=self._tls(), timeout=5).text
                if json.loads(last)["ready"]:
                    return
            except httpx.HTTPError as error:
                last = repr(error)
            assert time.monotonic() < end, last
            time.sleep(0.1)

    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.pem))

    def person(self, role: str) -> Colleague:
        """Somebody of that role, signed in with password and one-time code."""
        client = httpx.Client(base_url=self.address, verify=self._tls(), timeout=60, trust_env=False)
        taken = {"invitation": self.invitations[role], "password": PASSWORD}
        assert client.post("/v1/invitations/accept", json=taken).status_code == 200
        begun = client.post("/v1/sign-in", json={"name": role, "password": PASSWORD, "carrier": "bearer"})
        client.headers["authorization"] = f"Bearer {begun.json()['session']}"
        seed = pyotp.parse_uri(client.post("/v1/me/codes", json={"password": PASSWORD}).json()["uri"])
        assert isinstance(seed, pyotp.TOTP)
        assert client.post("/v1/me/codes/confirm", json={"code": seed.now()}).status_code == 200
        return Colleague(client)


class Colleague:
    """A person of a gateway, over HTTPS."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def get(self, path: str) -> Any:
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def bytes_of(self, path: str) -> bytes:
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.content

    def write(self, path: str, body: Any, trust: TrustFile) -> Receipt:
        """A write of one op: its receipt, which holds."""
        answer = self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        receipt = decode(Receipt, base64.b64decode(answer.json()["receipt"]))
        verify_receipt(receipt, trust)
        return receipt

    def begin(self, path: str, body: Any, key: str = "") -> str:
        """Begin a job; returns its address."""
        answer = self.client.post(path, json=body, headers={"idempotency-key": key or os.urandom(8).hex()})
        assert answer.status_code == 202, answer.text
        assert answer.headers["location"] == f"/v1/jobs/{answer.json()['job']}"
        return answer.headers["location"]

    def follow(self, job: str, timeout: float = 120) -> list[dict[str, Any]]:
        """The job's events, as a stream tells them, until it has ended."""
        told: list[dict[str, Any]] = []
        with self.client.stream("GET", f"{job}/events", timeout=timeout) as stream:
            assert stream.status_code == 200 and stream.headers["content-type"].startswith("text/event-stream")
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    told.append(json.loads(line.removeprefix("data:")))
                    if told[-1].get("state") in ("done", "failed", "cancelled"):
                        return told
        raise AssertionError(told)

    def done(self, path: str, body: Any) -> str:
        """Begin a job and follow it to its good end; returns where its result is."""
        job = self.begin(path, body)
        told = self.follow(job)
        assert told[-1]["state"] == "done", self.get(job)
        return str(told[-1]["result"])

    def close(self) -> None:
        self.client.close()
