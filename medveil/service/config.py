"""`gateway.toml`: where one organisation's gateway listens, where the others are, where its passphrase comes from.

    version = 1
    organisation = "hospital-1"
    passphrase_file = "/run/credentials/medveil/passphrase"   # or MEDVEIL_PASSPHRASE_FILE; mode 600
    database = "sqlite"                                       # or "postgresql+psycopg://user@host/name"

    traces = ""                                               # address of an OpenTelemetry collector; empty: none

    [people]                                                  # programs and people of the organisation
    listen = "localhost:8443"
    certificate = ""                                          # PEM files; empty: plain HTTP, on a loopback address only
    key = ""
    origins = []                                              # how it is addressed, if a proxy stands before it

    [peers]                                                   # the other organisations' gateways, mutual TLS
    listen = "*:9443"                                         # every address of this machine
    hosts = ["gateway-1"]                    # names and addresses in its own certificate

    [peers.addresses]
    bureau = "https://gateway-1:9443"

Unknown keys are refused, so that a misspelt one is not passed over.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from wire.errors import DecodeError, Refused, Unavailable
from wire.evidence import write_file
from wire.identifiers import NAME_PATTERN

VERSION = 1
FILE = "gateway.toml"
_LONGEST = 1024 * 1024

Organisation = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN, max_length=64)]
Text = Annotated[str, msgspec.Meta(max_length=1000)]


class People(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The listener for the organisation's own people and programs. certificate, key: PEM files; empty: plain HTTP.

    origins: as whom browsers and programs address it (``https://host``), if not as it listens.
    """

    listen: Text = "localhost:8443"
    certificate: Text = ""
    key: Text = ""
    origins: tuple[Text, ...] = ()


class Peers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The listener for other organisations, and where they listen. hosts: what its certificate names."""

    listen: Text = "*:9443"
    hosts: tuple[Text, ...] = ("localhost", "127.0.0.1")
    addresses: dict[Organisation, Text] = {}


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of it. Make one with `read_config`, which checks it."""

    version: int
    organisation: Organisation
    passphrase_file: Text = ""
    database: Text = "sqlite"
    traces: Text = ""
    people: People = People()
    peers: Peers = Peers()


def address(listen: str) -> tuple[str, int]:
    """Host and port of ``host:port``, ``[v6]:port`` or ``*:port`` (every IPv4 address of the machine).

    Raises Refused.
    """
    parts = urlsplit(f"//{listen.replace('*', '0.0.0.0', 1) if listen.startswith('*:') else listen}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port is None or parts.path or parts.username is not None:
        raise Refused("config.bad_address", address=listen)
    return host, port


def check_config(config: Config, where: str = FILE) -> Config:
    """`config` itself. Raises Refused (what cannot work) or DecodeError (another version)."""
    if config.version != VERSION:
        raise DecodeError("config.version", file=where, version=config.version, known=VERSION)
    host, _ = address(config.people.listen)
    address(config.peers.listen)
    if bool(config.people.certificate) != bool(config.people.key):
        raise Refused("config.half_a_certificate", file=where)
    if not config.people.certificate and not _is_loopback(host):
        raise Refused("config.plain_http", file=where, address=config.people.listen)
    for origin in config.people.origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.path or parts.query:
            raise Refused("config.bad_origin", file=where, origin=origin)
    for name, url in config.peers.addresses.items():
        parts = urlsplit(url)
        try:
            good = parts.scheme == "https" and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            good = False
        if not good or parts.path not in ("", "/") or parts.query or parts.username is not None:
            raise Refused("config.bad_peer_address", file=where, organisation=name)
    if not config.peers.hosts:
        raise Refused("config.no_hosts", file=where)
    return config


def origins(people: People) -> tuple[str, ...]:
    """As whom the service is addressed, the main origin first."""
    host, port = address(people.listen)
    shown = f"[{host}]" if ":" in host else host
    return people.origins or (f"{'https' if people.certificate else 'http'}://{shown}:{port}",)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def read_config(path: Path) -> Config:
    """The configuration at `path`. Raises Unavailable (unreadable), DecodeError (not one: says where), Refused."""
    try:
        with path.open("rb") as file:
            data = file.read(_LONGEST + 1)
    except OSError:
        raise Unavailable("config.unreadable", file=str(path)) from None
    try:
        config = msgspec.toml.decode(data if len(data) <= _LONGEST else b"?", type=Config)
    except (msgspec.MsgspecError, UnicodeError, ValueError, RecursionError) as error:
        raise DecodeError("config.bad", file=str(path), reason=_reason(error)) from None
    return check_config(config, str(path))


def _reason(error: Exception) -> str:
    """What the parser says: names of keys and places, never a value."""
    text = str(error)
    return text if isinstance(error, msgspec.ValidationError) and "`" in text else "it is not TOML as expected"


def write_config(path: Path, config: Config) -> None:
    """Write ``gateway.toml``, whole or not at all. Raises Unavailable."""
    peers = "".join(f"{_quoted(name)} = {_quoted(url)}\n" for name, url in sorted(config.peers.addresses.items()))
    text = f"""# How this gateway runs. medveil reads it when it starts.
version = {config.version}
organisation = {_quoted(config.organisation)}
passphrase_file = {_quoted(config.passphrase_file)}
database = {_quoted(config.database)}
traces = {_quoted(config.traces)}

[people]
listen = {_quoted(config.people.listen)}
certificate = {_quoted(config.people.certificate)}
key = {_quoted(config.people.key)}
origins = [{", ".join(_quoted(origin) for origin in config.people.origins)}]

[peers]
listen = {_quoted(config.peers.listen)}
hosts = [{", ".join(_quoted(host) for host in config.peers.hosts)}]

[peers.addresses]
{peers}"""
    try:
        write_file(path, text.encode())
    except OSError:
        raise Unavailable("config.unwritable", file=str(path)) from None


def _quoted(text: str) -> str:
    return json.dumps(text)  # a JSON string is a TOML basic string


def passphrase(config: Config) -> str:
    """The passphrase of the key provider, from MEDVEIL_PASSPHRASE_FILE or `passphrase_file`.

    Raises Refused where neither is named or others may read the file, Unavailable where it cannot be read.
    """
    named = os.environ.get("MEDVEIL_PASSPHRASE_FILE") or config.passphrase_file
    if not named:
        raise Refused("config.no_passphrase")
    path = Path(named)
    try:
        if path.stat().st_mode & 0o077:
            raise Refused("config.open_passphrase", file=named)
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError):
        raise Unavailable("config.unreadable", file=named) from None
    return text.rstrip("\n")
