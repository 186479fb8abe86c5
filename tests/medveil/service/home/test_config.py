"""`gateway.toml`: what is written is read; what cannot work, or is misspelt, is refused in words."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from medveil.service.home.config import (
    Bills,
    Config,
    Extracts,
    Peers,
    People,
    Provider,
    Queries,
    address,
    passphrase,
    read_config,
    write_config,
)
from wire.errors import DecodeError, MedveilError, Refused, Unavailable

GOOD = """
version = 1
organisation = "hospital-1"
"""
PROVIDER = Provider(
    issuer="https://id.example/realm",
    client_id="medveil",
    secret_file="secret",
    required={"acr": ("urn:a", 'b"'), "amr": ("mfa",)},
    authorities="ca.pem",
    name_claim='"name"',
    scopes=("openid", "groups"),
    roles={"groups": {"claims team": "clerk", "a.b": "officer"}, "https://id.example/dept": {"审计": "auditor"}},
)
NAMED = """[people.provider]
issuer = "https://id.example"
client_id = "medveil"
[people.provider.roles.groups]
staff = "clerk"
"""


def test_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    for config in (
        Config(1, "hospital-1"),
        Config(
            1,
            "hospital-1",
            passphrase_file='C:\\"quoted"\n',
            database="postgresql+psycopg://me@db/medveil",
            people=People(
                "[::1]:1", "cert.pem", "key.pem", ("https://a.example",), ("127.0.0.1", "10.0.0.0/24"), PROVIDER
            ),
            peers=Peers("*:9443", ("a.example", "10.0.0.1"), {"bureau": "https://b:9", "insurer-2.x": "https://c"}),
            bills=Bills(limits=7),
            queries=Queries("label", "stop", 25),
            extracts=Extracts(whole=500, issuer=100, unasked=0),
        ),
    ):
        write_config(path, config)
        assert read_config(path) == config and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "more,code",
    [
        ("people = 3", "config.bad"),
        ('[people]\nlisten_on = "x:1"', "config.bad"),
        ("[peers]\nhosts = [1]", "config.bad"),
        ("[bills]\nlimits = 0", "config.bad"),
        ("[queries]\nrecipient_percent = 0", "config.bad"),
        ("[queries]\nrecipient_percent = 101", "config.bad"),
        ("[extracts]\nunasked = -1", "config.bad"),
        ("[extracts]\nissuer = 0.5", "config.bad"),
        ('[people]\nlisten = "nowhere"', "config.bad_address"),
        ('[people]\nlisten = "*:8443"', "config.plain_http"),
        ('[people]\nlisten = "gateway.example:8443"', "config.plain_http"),
        ('[people]\nlisten = "localhost:99999"', "config.bad_address"),
        ('[people]\ncertificate = "x"', "config.half_a_certificate"),
        ('[peers]\nlisten = "/tmp/socket"', "config.bad_address"),
        ("[peers]\nhosts = []", "config.no_hosts"),
        ('[peers.addresses]\nbureau = "http://b:1"', "config.bad_peer_address"),
        ('[peers.addresses]\nbureau = "https://b:1/path"', "config.bad_peer_address"),
        ('[peers.addresses]\nbureau = "https://me@b:1"', "config.bad_peer_address"),
        ('[peers.addresses]\nbureau = "https://b:x"', "config.bad_peer_address"),
        ('[peers.addresses]\nBureau = "https://b:1"', "config.bad"),
        ("[", "config.bad"),
        (NAMED.replace("https://id.example", "http://id.example"), "config.bad_provider"),
        (NAMED.replace("https://id.example", "https://id.example/?x"), "config.bad_provider"),
        (NAMED.replace("https://id.example", "https://[id"), "config.bad_provider"),
        (NAMED.replace('"medveil"', '""'), "config.bad_provider"),
        (NAMED.replace('"medveil"', '"medveil"\nscopes = ["profile"]'), "config.bad_provider"),
        (NAMED.replace('"clerk"', '"king"'), "config.bad_provider"),
        (NAMED.replace('staff = "clerk"', ""), "config.bad_provider"),
        (NAMED.replace('"medveil"', '"medveil"\nsecret = "in the open"'), "config.bad"),
        (NAMED.partition("[people.provider.roles")[0], "config.bad"),
        (NAMED.replace('"medveil"', '"medveil"\nrequired = {acr = []}'), "config.bad_provider"),
        ('[people]\nproxies = ["*"]', "config.bad_proxy"),
        ('[people]\nproxies = ["0.0.0.0/0"]', "config.bad_proxy"),
        ('[people]\nproxies = ["gateway.example"]', "config.bad_proxy"),
    ],
    ids=range(34),
)
def test_what_cannot_work(tmp_path: Path, more: str, code: str) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(GOOD + more)
    with pytest.raises(MedveilError) as caught:
        read_config(path)
    assert caught.value.code == code and caught.value.text("zh") and "{" not in caught.value.text()


def test_versions_and_files(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    with pytest.raises(Unavailable):
        read_config(path)
    path.write_text(GOOD.replace("1\n", "2\n", 1))
    with pytest.raises(DecodeError) as caught:
        read_config(path)
    assert caught.value.code == "config.version"
    path.write_bytes(b"#" * 2_000_000)
    with pytest.raises(DecodeError):
        read_config(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DecodeError):
        read_config(path)


def test_addresses() -> None:
    assert address("localhost:1") == ("localhost", 1) and address("*:2") == ("0.0.0.0", 2)
    assert address("[::1]:65535") == ("::1", 65535)
    for bad in ("", ":1", "x", "x:", "x:0x1", "a:1/b", "me@a:1"):
        with pytest.raises(Refused):
            address(bad)


def test_what_is_no_toml_is_said_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(GOOD + 'traces = ""s3cret\n')
    with pytest.raises(DecodeError, match=r"not TOML as expected, at line \d+, column \d+") as caught:
        read_config(path)
    assert "s3cret" not in caught.value.text()


def test_a_credential_of_systemd_is_read_by_an_access_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handed = tmp_path / "credentials" / "medveil.service"
    handed.mkdir(parents=True)
    file = handed / "passphrase"
    file.write_text("a long one\n")
    file.chmod(0o440)  # its mask: root's file, read by the service's user
    monkeypatch.setenv("MEDVEIL_PASSPHRASE_FILE", str(file))
    with pytest.raises(Refused):
        passphrase(Config(1, "x"))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(handed))
    assert passphrase(Config(1, "x")) == "a long one"
    for open_to_more in (0o460, 0o444):
        file.chmod(open_to_more)
        with pytest.raises(Refused):
            passphrase(Config(1, "x"))
    other = tmp_path / "passphrase"
    other.write_text("a long one\n")
    other.chmod(0o440)
    monkeypatch.setenv("MEDVEIL_PASSPHRASE_FILE", str(other))
    with pytest.raises(Refused):
        passphrase(Config(1, "x"))


def test_the_passphrase_is_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "passphrase"
    file.write_text("a long one\n")
    file.chmod(0o600)
    config = msgspec.structs.replace(Config(1, "x"), passphrase_file=str(file))
    assert passphrase(config) == "a long one"
    file.chmod(0o640)
    with pytest.raises(Refused):
        passphrase(config)
    monkeypatch.setenv("MEDVEIL_PASSPHRASE_FILE", str(tmp_path / "none"))
    with pytest.raises(Unavailable):
        passphrase(config)
    monkeypatch.delenv("MEDVEIL_PASSPHRASE_FILE")
    with pytest.raises(Refused):
        passphrase(Config(1, "x"))
