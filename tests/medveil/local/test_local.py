"""A local consortium's folder: tables as files, certificates, founding whole or not at all."""

from __future__ import annotations

import socket
import ssl
import stat
import threading
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from connectors.files import read_csv
from connectors.sources import load_sources
from medveil.demo.join_and_load import founders
from medveil.local.desk import _unpack
from medveil.local.founding import STATE, found_local, read_state
from medveil.local.tables import count_sites, place_tables
from medveil.local.web_certificates import issue
from medveil.service.home.config import FILE, passphrase, read_config
from wire.errors import DecodeError, MedveilError, Refused


def test_the_default_data_as_files(tmp_path: Path) -> None:
    """What a hospital reads from its file is what it had of the default data."""
    folders = [tmp_path / f"hospital-{number}" for number in range(1, count_sites(None) + 1)]
    layout, placed = place_tables(None, folders)
    for folder, one, (site, read_layout, table) in zip(folders, placed, load_sources(), strict=True):
        assert (one.source, one.table, layout) == (layout.name, site, read_layout)
        assert read_csv(folder / one.source / f"{one.table}.csv", layout).equals(table)


def test_own_data_as_files(tmp_path: Path, data: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b", "c")]
    _, placed = place_tables(data, folders)
    assert [one.table for one in placed] == ["site-0", "site-1", "site-2"]
    for folder, one in zip(folders, placed, strict=True):
        assert (folder / "costs" / f"{one.table}.csv").read_bytes() == (data / f"{one.table}.csv").read_bytes()
        assert [path.name for path in folder.iterdir()] == ["costs"]


def test_founded_whole_or_not_at_all(tmp_path: Path, data: Path) -> None:
    place = tmp_path / "local"
    (data / "site-1.csv").write_text("cost,sex\n1,female,ragged\n")
    with pytest.raises(DecodeError):
        found_local(place, founders(3), "bureau", "local", "Asia/Shanghai", data)
    (data / "site-1.csv").write_text("cost,sex\n1,female\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("x")
    for work in (
        lambda: found_local(tmp_path / "other", founders(3), "bureau", "local", "Asia/Shanghai", data),
        lambda: read_state(tmp_path / "other"),
    ):
        with pytest.raises(Refused) as caught:
            work()
        assert caught.value.code == "local.not_ours"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "other"] and read_state(place) is None
    state = found_local(place, founders(3), "bureau", "local", "Asia/Shanghai", data)
    assert read_state(place) == state and state.members[0].organisation == "bureau" and not state.seeded
    ports = set()
    for member in state.members:
        config = read_config(place / "homes" / member.organisation / FILE)
        assert len(passphrase(config)) == 32 and member.people.startswith("https://localhost:")
        assert bool(config.data.folder) == (member.source == "costs")
        ports |= {config.people.listen, config.peers.listen}
    assert len(ports) == 2 * len(state.members)
    for path in (place, *place.rglob("*")):
        private = path.is_dir() or path.name in ("keys", "web.key", STATE) or path.parent.name == "passphrases"
        if private and path.parent in (place, place / "homes", place / "passphrases"):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    (place / STATE).write_text("{}")
    with pytest.raises(DecodeError):
        read_state(place)


def test_certificates_hold_for_this_machine_alone(tmp_path: Path) -> None:
    authority, issued = issue(["one", "two"], datetime.now(UTC))
    (tmp_path / "ca.pem").write_bytes(authority)
    certificate, key = issued["one"]
    (tmp_path / "one.pem").write_bytes(certificate + key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "one.pem")
    client = ssl.create_default_context(cafile=tmp_path / "ca.pem")
    client.verify_flags |= ssl.VERIFY_X509_STRICT

    def shake(name: str) -> None:
        here, there = socket.socketpair()

        def serve() -> None:
            try:
                server.wrap_socket(there, server_side=True).close()
            except (ssl.SSLError, OSError):
                there.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            client.wrap_socket(here, server_hostname=name).close()
        finally:
            here.close()
            thread.join()

    shake("localhost")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake("gateway.example")
    other, _ = issue(["one"], datetime.now(UTC))
    (tmp_path / "ca.pem").write_bytes(other)
    client = ssl.create_default_context(cafile=tmp_path / "ca.pem")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake("localhost")


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/../../out", "folder/"])
def test_an_archive_does_not_lead_out(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "e.zip", "w") as packed:
        packed.writestr("manifest.json", "{}")
        packed.writestr(name, "x")
    with pytest.raises(MedveilError) as caught:
        _unpack(tmp_path / "e.zip", tmp_path / "deep" / "evidence")
    assert caught.value.code == "local.bad_archive"
    assert not (tmp_path / "deep" / "out").exists() and not (tmp_path / "out").exists()
