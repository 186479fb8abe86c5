"""`gateway.toml`: where one organisation's gateway listens, where the others are, where its passphrase comes from.

    version = 1
    organisation = "hospital-1"
    passphrase_file = "/run/credentials/medveil/passphrase"   # or MEDVEIL_PASSPHRASE_FILE; mode 600
    database = "sqlite"                                       # or "postgresql://user@host/name"

    traces = ""                                               # address of an OpenTelemetry collector; empty: none
    backups = ""                                              # folder of the backups that a running gateway makes

    [keys]                                                    # who keeps the keys that wrap all others
    provider = "file"                                         # "keys" in the home; or "pkcs11", a token:
    module = ""                                               # path of its PKCS#11 library
    token = ""                                                # its label
    name = ""                                                 # of the keys on it; empty: the organisation's
    pin_file = ""                                             # or MEDVEIL_PIN_FILE; mode 600
    patience = 10                                             # seconds that the token may take for one answer
    rate = 10000                                              # data keys a second, and
    burst = 50000                                             # at once, that are unwrapped undeclared

    [vault]                                                   # where records lie, encrypted; never changed later
    database = "sqlite"                                       # or "postgresql://user@host/name"
    password_file = ""                                        # that database's; mode 600, outside of the home
    blobs = ""                                                # of large documents: "file:///path", "s3://bucket/folder"

    [people]                                                  # programs and people of the organisation
    listen = "localhost:8443"
    certificate = ""                                          # PEM files; empty: plain HTTP, on a loopback address only
    key = ""
    origins = []                                              # how it is addressed, if a proxy stands before it
    proxies = []                                              # that proxy's addresses: X-Forwarded-For is believed

    [people.provider]                                         # sign-in by OpenID Connect, besides local accounts
    issuer = "https://id.example"                             # to the letter as the provider gives it
    client_id = "medveil"
    secret_file = "provider-secret"                           # mode 600; empty: a public client
    authorities = ""                                          # PEM: who issued its certificate; empty: this machine's
    name_claim = "preferred_username"                         # gives the account its name
    scopes = ["openid", "profile"]

    [people.provider.required]                                # each claim must have one of these values
    acr = ["urn:example:two-factors"]

    [people.provider.roles.groups]                            # claim, its value, the role; nobody else gets in
    claims-team = "clerk"

    [peers]                                                   # the other organisations' gateways, mutual TLS
    listen = "*:9443"                                         # every address of this machine
    hosts = ["gateway-1"]                    # names and addresses in its own certificate

    [peers.addresses]
    bureau = "https://gateway-1:9443"

    [data]
    folder = ""                                               # tables that officers may load: docs/dataset-toml.md

    [bills]
    limits = 3                                                # of one bill, that one organisation is answered about

    [queries]                                                 # next to an earlier one that differs by one or two sites
    near_rosters = "refuse"                                   # or "label": the release says which sites are disclosed
    near_survivors = "label"                                  # or "stop": before anything is opened, but paid for
    recipient_percent = 100                                   # of a population's budget, that one recipient may spend

    [extracts]                                                # of others, held here and on their way; in GiB
    whole = 128                                               # of all organisations together
    issuer = 64                                               # of one
    unasked = 8                                               # of what one sends unasked; 0: none is taken

Unknown keys are refused, so that a misspelt one is not passed over.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from medveil.gateway.extract_shares import GIB, ExtractShares
from medveil.gateway.near_sites import NearSites
from medveil.service.accounts.rights import ROLES
from wire.errors import DecodeError, Refused, Unavailable
from wire.evidence import write_file
from wire.identifiers import NAME_PATTERN

VERSION = 1
FILE = "gateway.toml"
_LONGEST = 1024 * 1024

Organisation = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN, max_length=64)]
Text = Annotated[str, msgspec.Meta(max_length=1000)]


class Provider(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A provider of OpenID Connect that people may sign in by. roles: claim -> value -> role.

    required: claim -> values, of which an id token must have one (``acr``, ``amr``: how somebody proved who they are).

    secret_file, authorities: from the home if they are relative; authorities: PEM, empty for this machine's own.
    """

    issuer: Text
    client_id: Text
    roles: dict[Text, dict[Text, Text]]
    required: dict[Text, tuple[Text, ...]] = {}
    secret_file: Text = ""
    authorities: Text = ""
    name_claim: Text = "preferred_username"
    scopes: tuple[Text, ...] = ("openid", "profile")


class People(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The listener for the organisation's own people and programs. certificate, key: PEM files; empty: plain HTTP.

    origins: as whom browsers and programs address it (``https://host``), if not as it listens.
    proxies: addresses or networks of the proxy that stands before it: its word counts for who calls.
    provider: whom people may sign in by, besides local accounts.
    """

    listen: Text = "localhost:8443"
    certificate: Text = ""
    key: Text = ""
    origins: tuple[Text, ...] = ()
    proxies: tuple[Text, ...] = ()
    provider: Provider | None = None


class Peers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The listener for other organisations, and where they listen. hosts: what its certificate names."""

    listen: Text = "*:9443"
    hosts: tuple[Text, ...] = ("localhost", "127.0.0.1")
    addresses: dict[Organisation, Text] = {}


class Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tables to load. folder: below it, a folder a source, each with a dataset.toml and .csv files; empty: none."""

    folder: Text = ""


class Bills(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is said of own bills. limits: about how many different limits of one bill each organisation is answered."""

    limits: Annotated[int, msgspec.Meta(ge=1, le=40)] = 3


class Queries(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What this site does about queries that would give single sites away: `medveil.gateway.near_sites`.

    recipient_percent: of a population's budget, how much the queries of one recipient may cost here.
    """

    near_rosters: Literal["refuse", "label"] = "refuse"
    near_survivors: Literal["label", "stop"] = "label"
    recipient_percent: Annotated[int, msgspec.Meta(ge=1, le=100)] = 100

    @property
    def near(self) -> NearSites:
        """The same as an organisation takes it."""
        return NearSites(self.near_rosters, self.near_survivors)


class Extracts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What extracts that others made may take of the disk: see `medveil.gateway.extract_shares`. In GiB."""

    whole: Annotated[int, msgspec.Meta(ge=0, le=2**20)] = ExtractShares().whole // GIB
    issuer: Annotated[int, msgspec.Meta(ge=0, le=2**20)] = ExtractShares().issuer // GIB
    unasked: Annotated[int, msgspec.Meta(ge=0, le=2**20)] = ExtractShares().unasked // GIB

    @property
    def shares(self) -> ExtractShares:
        """The same in bytes."""
        return ExtractShares(self.whole * GIB, self.issuer * GIB, self.unasked * GIB)


class Keys(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who keeps the keys of the epochs: see `medveil.service.home.key_providers`. name: empty for the organisation's.

    pin_file: the token's PIN. patience: seconds. rate, burst: see `privacy.keys.Guarded`.
    """

    provider: Literal["file", "pkcs11"] = "file"
    module: Text = ""
    token: Text = ""
    name: Annotated[str, msgspec.Meta(pattern=rf"^\Z|{NAME_PATTERN}", max_length=64)] = ""
    pin_file: Text = ""
    patience: Annotated[int, msgspec.Meta(ge=1, le=300)] = 10
    rate: Annotated[int, msgspec.Meta(ge=1, le=10**9)] = 10_000
    burst: Annotated[int, msgspec.Meta(ge=1, le=10**9)] = 50_000


class VaultPlace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the vault lies: see `medveil.service.home.vault_place`. blobs: a URI of `pyarrow.fs`; empty: the home."""

    database: Text = "sqlite"
    password_file: Text = ""
    blobs: Text = ""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of it. Make one with `read_config`, which checks it."""

    version: int
    organisation: Organisation
    passphrase_file: Text = ""
    database: Text = "sqlite"
    traces: Text = ""
    backups: Text = ""
    people: People = People()
    peers: Peers = Peers()
    data: Data = Data()
    bills: Bills = Bills()
    queries: Queries = Queries()
    extracts: Extracts = Extracts()
    keys: Keys = Keys()
    vault: VaultPlace = VaultPlace()


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
    for proxy in config.people.proxies:
        if not _is_network(proxy):
            raise Refused("config.bad_proxy", file=where, proxy=proxy)
    if config.people.provider is not None:
        _check_provider(config.people.provider, where)
    for name, url in config.peers.addresses.items():
        parts = urlsplit(url)
        try:
            good = parts.scheme == "https" and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            good = False
        if not good or parts.path not in ("", "/") or parts.query or parts.username is not None:
            raise Refused("config.bad_peer_address", file=where, organisation=name)
    by_token = config.keys.provider == "pkcs11"
    if by_token != bool(config.keys.module) or by_token != bool(config.keys.token):
        raise Refused("config.bad_keys", file=where)
    _check_vault(config.vault, where)
    if not config.peers.hosts:
        raise Refused("config.no_hosts", file=where)
    return config


def _check_vault(vault: VaultPlace, where: str) -> None:
    """Raises Refused, naming the key that cannot work. A secret in an address would lie in every backup."""
    server = vault.database != "sqlite"
    try:
        base, blobs = urlsplit(vault.database), urlsplit(vault.blobs)
        database = base.scheme in ("postgresql", "postgresql+psycopg") and base.password is None
        free = not blobs.username and not blobs.fragment and "key" not in blobs.query.lower()
        here = blobs.scheme == "file" and not blobs.netloc and len(blobs.path) > 1 and not blobs.query
        stored = free and (here or (blobs.scheme == "s3" and bool(blobs.netloc)))
    except ValueError:
        database = stored = False
    holds = {
        "database": database or not server,
        "password_file": not vault.password_file or (server and Path(vault.password_file).is_absolute()),
        "blobs": stored or not vault.blobs,
    }
    for key, held in holds.items():
        if not held:
            raise Refused("config.bad_vault", file=where, key=key)


def _check_provider(provider: Provider, where: str) -> None:
    """Raises Refused, naming the key that cannot work."""
    try:
        parts = urlsplit(provider.issuer)
        safe = parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or ""))
        issuer = safe and bool(parts.hostname) and not (parts.query or parts.fragment or parts.username)
    except ValueError:
        issuer = False
    mapped = [role for values in provider.roles.values() for role in values.values()]
    holds = {
        "issuer": issuer,
        "client_id": bool(provider.client_id),
        "name_claim": bool(provider.name_claim),
        "scopes": "openid" in provider.scopes,
        "required": all(provider.required.values()),
        "roles": bool(mapped) and set(mapped) <= set(ROLES),
    }
    for key, held in holds.items():
        if not held:
            raise Refused("config.bad_provider", file=where, key=key)


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


def _is_network(text: str) -> bool:
    """One address, or a network that is not everybody."""
    try:
        return ipaddress.ip_network(text).prefixlen > 0
    except ValueError:
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
    if isinstance(error, msgspec.ValidationError) and "`" in text:
        return text
    place = re.search(r"\(at (line \d+, column \d+)\)$", text)
    return "it is not TOML as expected" + (f", at {place[1]}" if place else "")


def write_config(path: Path, config: Config) -> None:
    """Write ``gateway.toml``, whole or not at all. Raises Unavailable."""
    peers = "".join(f"{_quoted(name)} = {_quoted(url)}\n" for name, url in sorted(config.peers.addresses.items()))
    text = f"""# How this gateway runs. medveil reads it when it starts.
version = {config.version}
organisation = {_quoted(config.organisation)}
passphrase_file = {_quoted(config.passphrase_file)}
database = {_quoted(config.database)}
traces = {_quoted(config.traces)}
backups = {_quoted(config.backups)}
{_keys_text(config.keys)}
[vault]
database = {_quoted(config.vault.database)}
password_file = {_quoted(config.vault.password_file)}
blobs = {_quoted(config.vault.blobs)}

[people]
listen = {_quoted(config.people.listen)}
certificate = {_quoted(config.people.certificate)}
key = {_quoted(config.people.key)}
origins = [{", ".join(_quoted(origin) for origin in config.people.origins)}]
proxies = [{", ".join(_quoted(proxy) for proxy in config.people.proxies)}]
{_provider_text(config.people.provider)}
[peers]
listen = {_quoted(config.peers.listen)}
hosts = [{", ".join(_quoted(host) for host in config.peers.hosts)}]

[peers.addresses]
{peers}
[data]
folder = {_quoted(config.data.folder)}

[bills]
limits = {config.bills.limits}

[queries]
near_rosters = {_quoted(config.queries.near_rosters)}
near_survivors = {_quoted(config.queries.near_survivors)}
recipient_percent = {config.queries.recipient_percent}

[extracts]
whole = {config.extracts.whole}
issuer = {config.extracts.issuer}
unasked = {config.extracts.unasked}
"""
    try:
        write_file(path, text.encode())
    except OSError:
        raise Unavailable("config.unwritable", file=str(path)) from None


def _keys_text(keys: Keys) -> str:
    lines = ["", "[keys]", f"provider = {_quoted(keys.provider)}"]
    if keys.provider == "pkcs11":
        lines += [f"{key} = {_quoted(getattr(keys, key))}" for key in ("module", "token", "name", "pin_file")]
        lines.append(f"patience = {keys.patience}")
    lines += [f"rate = {keys.rate}", f"burst = {keys.burst}"]
    return "\n".join(lines) + "\n"


def _provider_text(provider: Provider | None) -> str:
    if provider is None:
        return ""
    keys = ("issuer", "client_id", "secret_file", "authorities", "name_claim")
    lines = ["", "[people.provider]", *(f"{key} = {_quoted(getattr(provider, key))}" for key in keys)]
    lines.append(f"scopes = [{', '.join(_quoted(scope) for scope in provider.scopes)}]")
    if provider.required:
        lines += ["", "[people.provider.required]"]
        for claim, wanted in sorted(provider.required.items()):
            lines.append(f"{_quoted(claim)} = [{', '.join(_quoted(value) for value in wanted)}]")
    for claim, values in sorted(provider.roles.items()):
        lines += ["", f"[people.provider.roles.{_quoted(claim)}]"]
        lines += [f"{_quoted(value)} = {_quoted(role)}" for value, role in sorted(values.items())]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text)  # a JSON string is a TOML basic string


def passphrase(config: Config) -> str:
    """What opens the key provider: its file's passphrase, from MEDVEIL_PASSPHRASE_FILE or `passphrase_file`; or its
    token's PIN, from MEDVEIL_PIN_FILE or `pin_file`.

    Raises Refused where neither is named or others may read the file,
    Unavailable where it cannot be read.
    """
    if config.keys.provider == "pkcs11":
        named = os.environ.get("MEDVEIL_PIN_FILE") or config.keys.pin_file
        if not named:
            raise Refused("config.no_pin")
        return secret_in(Path(named))
    named = os.environ.get("MEDVEIL_PASSPHRASE_FILE") or config.passphrase_file
    if not named:
        raise Refused("config.no_passphrase")
    return secret_in(Path(named))


def secret_in(path: Path) -> str:
    """The secret in a file, without its last line end. Raises Refused (others may read it), Unavailable.

    A credential that systemd hands to the service (LoadCredential) is root's; the service's user reads it by an access
    list, whose mask stands where a group's right would. Its folder is closed to everybody else.
    """
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    handed = bool(credentials) and path.parent == Path(credentials or "")
    try:
        if path.stat().st_mode & (0o037 if handed else 0o077):
            raise Refused("config.open_passphrase", file=str(path))
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError):
        raise Unavailable("config.unreadable", file=str(path)) from None
    return text.rstrip("\n")
