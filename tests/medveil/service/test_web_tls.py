"""TLS of the people's listener, from files as gateway.toml names them: what it speaks, and what it counts."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from medveil.service.api.app import make_app
from medveil.service.home.config import People
from medveil.service.serve import STOPPED, Listener, Service, bind
from medveil.service.web_tls import server_context
from wire.errors import Unavailable

from .running import ANNA, Set

Make = Callable[..., Set]


@pytest.fixture
def certificate(tmp_path: Path) -> str:
    """``cert.pem`` and ``key.pem`` in the folder; returns what a client trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "north")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - timedelta(minutes=1)).not_valid_after(now + timedelta(hours=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    text = made.sign(key, SHA256()).public_bytes(serialization.Encoding.PEM)
    plain = serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (tmp_path / "cert.pem").write_bytes(text)
    (tmp_path / "key.pem").write_bytes(secret)
    return text.decode()


def handshake(port: int, context: ssl.SSLContext) -> str:
    """The version that was agreed on, or the failure's name."""
    try:
        plain = socket.create_connection(("127.0.0.1", port), 10)
        with plain, context.wrap_socket(plain, server_hostname="localhost") as connection:
            return str(connection.version())
    except ssl.SSLError as error:
        return str(error.reason)


def test_new_versions_and_strong_suites_alone(make_set: Make, tmp_path: Path, certificate: str) -> None:
    context = server_context(tmp_path, People(certificate="cert.pem", key="key.pem"))
    assert context is not None
    own, bound = make_set(), bind("127.0.0.1", 0)
    port = bound.getsockname()[1]

    def towards(lowest: ssl.TLSVersion, highest: ssl.TLSVersion, suites: str = "") -> ssl.SSLContext:
        made = ssl.create_default_context(cadata=certificate)
        if suites:
            made.set_ciphers(suites + ":@SECLEVEL=0")
        made.minimum_version, made.maximum_version = lowest, highest
        return made

    async def main() -> int:
        stop = asyncio.Event()
        service = Service(
            listeners=[Listener(name="people", app=make_app(own.parts()), bound=bound, tls=context)],
            jobs=own.jobs,
            streams=own.streams,
            health=own.health,
            log=own.log,
            vocabulary=own.vocabulary,
        )
        running = asyncio.create_task(service.run(stop))
        one, two, three = ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
        async with httpx.AsyncClient(verify=towards(two, three), headers=ANNA, trust_env=False) as client:
            answer = await client.get(f"https://localhost:{port}/v1/about")
        assert answer.status_code == 200
        assert answer.headers["strict-transport-security"] == "max-age=63072000; includeSubDomains"
        assert await asyncio.to_thread(handshake, port, towards(two, three)) == "TLSv1.3"
        strong = towards(two, two, "ECDHE-ECDSA-AES128-GCM-SHA256")
        assert await asyncio.to_thread(handshake, port, strong) == "TLSv1.2"
        assert context.refusals.total() == 0
        with pytest.warns(DeprecationWarning, match="deprecated"):
            old = towards(one, one, "ALL")
        assert "PROTOCOL" in await asyncio.to_thread(handshake, port, old)
        weak = towards(two, two, "ECDHE-ECDSA-AES128-SHA256")
        assert (await asyncio.to_thread(handshake, port, weak)).endswith("HANDSHAKE_FAILURE")
        with pytest.raises(httpx.HTTPError):
            await asyncio.to_thread(httpx.get, f"http://localhost:{port}/v1/about", timeout=5)
        assert context.refusals.total() >= 2
        stop.set()
        return await running

    assert asyncio.run(main()) == STOPPED


def test_files_that_are_none(tmp_path: Path, certificate: str) -> None:
    assert server_context(tmp_path, People()) is None
    for wrong in (People(certificate="none.pem", key="key.pem"), People(certificate="key.pem", key="cert.pem")):
        with pytest.raises(Unavailable):
            server_context(tmp_path, wrong)
