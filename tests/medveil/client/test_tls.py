"""Certificates are always checked, by the system's authorities or the one that was given, before anything is said."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from medveil.client import AsyncClient, Client, Session
from wire.errors import Unavailable

from .wayward import Wayward

NOW = datetime.datetime.now(datetime.UTC)


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        basics = x509.BasicConstraints(ca=True, path_length=0)
        self.file = self._write(f"{name}.pem", self._made(self.subject, self.key, (basics,), -10, 9))

    def _made(self, subject: x509.Name, key: Any, extensions: Any, begins: int, ends: int) -> x509.Certificate:
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + datetime.timedelta(days=begins))
            .not_valid_after(NOW + datetime.timedelta(days=ends))
        )
        for one in extensions:
            made = made.add_extension(one, critical=isinstance(one, x509.BasicConstraints))
        key_ids = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        made = made.add_extension(key_ids, critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return made.add_extension(issuer, critical=False).sign(self.key, hashes.SHA256())

    def _write(self, name: str, certificate: x509.Certificate) -> Path:
        (self.folder / name).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return self.folder / name

    def server(self, host: str = "127.0.0.1", begins: int = -5, ends: int = 5) -> ssl.SSLContext:
        """A server's context with a certificate for `host`, good between these days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(host))]
        except ValueError:
            names = [x509.DNSName(host)]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
        extensions = (x509.BasicConstraints(ca=False, path_length=None), x509.SubjectAlternativeName(names))
        chain = self._write("server.pem", self._made(subject, key, extensions, begins, ends))
        secret = self.folder / "server.key"
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain, secret)
        return context


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


def test_a_gateway_whose_certificate_is_of_the_given_authority(staffed: Any, ours: Authority) -> None:
    with (
        Wayward(staffed.running.port, lambda *_: "pass", ours.server()) as network,
        Client(network.address, Session(staffed.session("officer")), ca=ours.file) as client,
    ):
        assert client.account.me().name == "officer"


FAULTS: dict[str, dict[str, Any]] = {
    "system": {},
    "other authority": {},
    "other host": {"host": "192.0.2.1"},
    "expired": {"ends": -1},
    "not yet": {"begins": 2},
    "old protocol": {},
}


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("fault", FAULTS)
def test_no_word_is_said_to_anybody_else(staffed: Any, ours: Authority, tmp_path: Path, fault: str) -> None:
    server = ours.server(**FAULTS[fault])
    ca: Any = ours.file
    if fault == "system":
        ca = ""
    elif fault == "other authority":
        (tmp_path / "other").mkdir()
        ca = Authority(tmp_path / "other", "ours").file
    elif fault == "old protocol":
        server.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        server.maximum_version = ssl.TLSVersion.TLSv1_1
        server.set_ciphers("ALL:@SECLEVEL=0")
    who = Session(staffed.session("officer"))
    with Wayward(staffed.running.port, lambda *_: "pass", server) as network:
        with Client(network.address, who, ca=ca) as client, pytest.raises(Unavailable) as refused:
            client.account.me()
        assert refused.value.code == ("client.unreachable" if fault == "old protocol" else "client.not_trusted")
        assert network.seen == []


@pytest.mark.parametrize("content", [b"", b"junk", None])
def test_what_is_no_authority(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Unavailable) as bad:
        Client("https://gateway.example", ca=file)
    assert bad.value.code == "client.bad_ca"


def test_a_variable_of_the_environment_leads_nowhere_else(
    staffed: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://localhost:1")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nothing.pem"))
    who = Session(staffed.session("officer"))
    with Client(staffed.address, who) as client:
        assert client.account.me().name == "officer"

    async def later() -> str:
        async with AsyncClient(staffed.address, who) as client:
            return (await client.account.me()).name

    assert asyncio.run(later()) == "officer"
