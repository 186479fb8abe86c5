"""`medveil doctor`: is this machine and environment fit for medveil?

Each check looks at one thing and says what to do about it. Nothing is changed; what is written for
the disk checks is removed again. The top-level names of the product are generic (docs/adr/0001), so
that another distribution or a folder of the same name could stand in their place: that is looked at.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata, util
from pathlib import Path

import msgspec

from medveil.shown_text import json_text
from wire.errors import MedveilError, Unavailable

PACKAGES = ("medveil", "ledger", "mpc", "connectors", "zkp", "privacy", "wire")
"""The top-level names of the product."""

OLDEST_PYTHON = (3, 11)
SPACE = 500
"""Free space that a run wants at least, in MB."""

BUILT = 1_767_225_600
"""2026-01-01 in seconds since 1970: no clock that is right shows an earlier time."""

_DISK_CLOCK = 60.0


class Finding(msgspec.Struct, frozen=True):
    """One line of the answer.

    check: what was looked at. state: "ok", "note" (works, something optional is missing) or
    "problem". value: what was found. error: the sentence and the fix, unless ok.
    """

    check: str
    state: str
    value: str
    error: MedveilError | None = None


def run(json: bool = False, language: str | None = None, home: Path | None = None) -> int:
    """Print every finding; returns 0 when there is no problem, else 1. language: "en", "zh" or the reader's.

    home: of an organisation whose keys and vault are looked at as well.
    """
    if language is None:
        from medveil.cli import language as reader

        language = reader()
    findings = list(examine(Path.cwd()))
    if home is not None:
        findings.append(_checked("keys", lambda: _keys(home)))
        findings.append(_checked("extracts", lambda: _extracts(home)))
        findings.append(_checked("vault", lambda: _vault(home)))
        if findings[-1].state == "ok":  # else what is tried would be put into a store that is not there
            findings.append(_checked("large documents", lambda: _blobs(home)))
    if json:
        rows = [
            {
                "check": finding.check,
                "state": finding.state,
                "value": finding.value,
                "code": finding.error.code if finding.error else None,
                "do": finding.error.text(language) if finding.error else None,
            }
            for finding in findings
        ]
        print(json_text(rows).decode(), end="")
    else:
        width = max(len(finding.check) for finding in findings)
        for finding in findings:
            print(f"{finding.state:8}{finding.check:{width + 2}}{finding.value}")
            if finding.error:
                print(f"{'':8}{finding.error.text(language)}")
    return 1 if any(finding.state == "problem" for finding in findings) else 0


def examine(folder: Path) -> Iterator[Finding]:
    """Every finding about this process, its packages, and `folder` as a place to work in."""
    yield _python()
    yield from _requirements()
    yield from _names()
    for check, examination in (
        ("signatures", _signatures),
        ("hybrid sealing", _hybrid_sealing),
        ("time zones", _zones),
        ("clock", lambda: _clock(folder)),
        ("file locks", lambda: _locks(folder)),
        ("durable writes", lambda: _durable_writes(folder)),
        ("free space", lambda: _space(folder)),
    ):
        yield _checked(check, examination)


def _checked(check: str, examination: Callable[[], str]) -> Finding:
    try:
        return Finding(check, "ok", examination())
    except MedveilError as error:
        return Finding(check, "problem", "-", error)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        return Finding("python", "problem", version, Unavailable("doctor.python", version=version, wanted=wanted))
    return Finding("python", "ok", version)


def _requirements() -> Iterator[Finding]:
    """Installed versions against the ranges that the distribution declares, core first, then each extra."""
    from packaging.requirements import Requirement

    try:
        declared = metadata.distribution("medveil")
    except metadata.PackageNotFoundError:
        yield Finding("medveil", "problem", "-", Unavailable("doctor.not_installed"))
        return
    yield Finding("medveil", "ok", declared.version)
    requirements = [Requirement(line) for line in declared.requires or ()]
    core = [line for line in requirements if line.marker is None or line.marker.evaluate({"extra": ""})]
    for requirement in core:
        yield _package(requirement.name, str(requirement.specifier), "medveil", optional=False)
    for extra in declared.metadata.get_all("Provides-Extra") or ():
        for requirement in requirements:
            only_here = requirement not in core and requirement.marker and requirement.marker.evaluate({"extra": extra})
            if only_here and requirement.name != "medveil":
                yield _package(requirement.name, str(requirement.specifier), f"medveil[{extra}]", optional=True)


def _package(name: str, wanted: str, source: str, *, optional: bool) -> Finding:
    from packaging.specifiers import SpecifierSet

    check = name if not optional else f"{name} ({source})"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        if optional:
            return Finding(check, "note", "-", Unavailable("doctor.extra_missing", package=name, source=source))
        return Finding(check, "problem", "-", Unavailable("doctor.package_missing", package=name, wanted=wanted))
    if not SpecifierSet(wanted).contains(version, prereleases=True):
        unfit = Unavailable("doctor.package_version", package=name, version=version, wanted=wanted, source=source)
        return Finding(check, "problem", version, unfit)
    return Finding(check, "ok", version)


def _names() -> Iterator[Finding]:
    """Whether each top-level name is ours: no other distribution brings it, and it is found beside `medveil`."""
    owners = metadata.packages_distributions()
    home = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        others = sorted(set(owners.get(name, ())) - {"medveil"})
        found = util.find_spec(name)
        place = Path(found.origin).resolve() if found and found.origin else None
        if others:
            error = Unavailable("doctor.name_taken", name=name, other=", ".join(others))
            yield Finding(f"name {name}", "problem", ", ".join(others), error)
        elif place is None or place.parent.parent != home:
            error = Unavailable("doctor.name_shadowed", name=name, place=str(place or "-"), home=str(home))
            yield Finding(f"name {name}", "problem", str(place or "-"), error)
        else:
            yield Finding(f"name {name}", "ok", "medveil's own")


def _signatures() -> str:
    """The pinned verifier: it takes a right signature and refuses the identity key (docs/adr/0005)."""
    from wire.errors import VerificationError
    from wire.signing import ED25519, Signer, VerifyKey, verify_raw

    signer = Signer(bytes(range(32)))
    verify_raw(signer.key, b"medveil", signer.sign_raw(b"medveil"))
    identity = VerifyKey(ED25519, b"\x01" + bytes(31))
    try:
        verify_raw(identity, b"medveil", b"\x01" + bytes(63))  # R = identity, S = 0: holds for any message
    except VerificationError:
        return "libsodium, strict"
    raise Unavailable("doctor.verifier")


def _keys(home: Path) -> str:
    """Whether who keeps the home's keys wraps and unwraps; which epochs there are, and how long that takes."""
    from medveil.service.home.config import FILE, passphrase, read_config
    from medveil.service.home.key_providers import open_keys

    config = read_config(home / FILE)
    guard = open_keys(home, config.organisation, config.keys, passphrase(config), os.urandom)
    try:
        epochs = guard.epochs()
        if not epochs:
            raise Unavailable("doctor.no_epochs", home=str(home))
        before = time.perf_counter()
        key = os.urandom(32)
        if guard.unwrap(epochs[-1], guard.wrap(epochs[-1], key, b"doctor"), b"doctor") != key:
            raise Unavailable("doctor.no_epochs", home=str(home))
        took = (time.perf_counter() - before) * 1000
    finally:
        guard.close()
    where = f"token {config.keys.token}" if config.keys.provider == "pkcs11" else "file"
    return f"{where}, epoch {epochs[-1]} ({len(epochs)} kept), wrapped and unwrapped in {took:.1f} ms"


def _vault(home: Path) -> str:
    """Whether the home's vault can be read, beside a gateway that runs or none; where it lies."""
    from medveil.service.home.config import FILE, passphrase, read_config
    from medveil.service.home.key_providers import open_keys
    from medveil.service.home.vault_place import blob_store, database_url
    from privacy.vault import Vault

    config = read_config(home / FILE)
    database, blobs = database_url(config.vault), blob_store(config.vault)
    guard = open_keys(home, config.organisation, config.keys, passphrase(config), os.urandom)
    try:
        with Vault.reader(home / "vault", guard, config.organisation, database=database, blobs=blobs) as vault:
            vault.check_blobs()
            return f"{vault.place}, datasets: {len(vault.datasets())}"
    finally:
        guard.close()


def _blobs(home: Path) -> str:
    """Whether the store of large documents takes, gives and removes what is put there."""
    from medveil.service.home.config import FILE, read_config
    from medveil.service.home.vault_place import try_blobs

    return try_blobs(read_config(home / FILE).vault)


def _extracts(home: Path) -> str:
    """How much of the disk extracts of others take, and how much they may."""
    from shutil import disk_usage

    from medveil.service.home.config import FILE, read_config

    shares = read_config(home / FILE).extracts
    folder = home / "extracts" / "held"
    try:
        sizes = [path.stat().st_size for path in folder.iterdir()] if folder.is_dir() else []
        free = disk_usage(home).free
    except OSError as error:
        raise Unavailable("doctor.folder", folder=str(folder), reason=type(error).__name__) from None
    held = f"{sum(sizes) / 1024**3:.1f} of {shares.whole} GiB held, {free / 1024**3:.1f} free"
    return f"{held}; {shares.issuer} an organisation, {shares.unasked} unasked"


def _hybrid_sealing() -> str:
    """Whether the cryptography package was built with ML-KEM."""
    from cryptography.exceptions import UnsupportedAlgorithm

    from wire.sealing import HYBRID, OpenKey, open, seal

    try:
        key = OpenKey.generate(os.urandom, HYBRID)
        open(key, b"doctor", seal(key.key, b"doctor", b"medveil"))
    except UnsupportedAlgorithm:
        raise Unavailable("doctor.hybrid_sealing") from None
    return "ML-KEM-768 + X25519"


def _zones() -> str:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo("Asia/Shanghai").key
    except ZoneInfoNotFoundError:
        raise Unavailable("doctor.zones") from None


def _clock(folder: Path) -> str:
    """A wall clock that is after the build, within the civil days, and agrees with the disk's."""
    from wire.dates import NO_END, format_instant

    try:
        with tempfile.TemporaryDirectory(prefix=".medveil-doctor-", dir=folder) as place:
            disk = Path(place).stat().st_mtime
    except OSError as error:
        raise Unavailable("doctor.folder", folder=str(folder), reason=type(error).__name__) from None
    wall = time.time()
    shown = format_instant(int(wall * 1000))
    last = (NO_END - 25_567) * 86_400  # civil day 25,567 is 1970-01-01
    if not BUILT <= wall < last or abs(wall - disk) > _DISK_CLOCK:
        raise Unavailable("doctor.clock", shown=shown)
    return shown


def _locks(folder: Path) -> str:
    """Whether a lock taken in `folder` keeps a second holder out."""
    from filelock import FileLock, Timeout

    try:
        with tempfile.TemporaryDirectory(prefix=".medveil-doctor-", dir=folder) as place:
            path = str(Path(place) / "lock")
            with FileLock(path):
                try:
                    with FileLock(path, timeout=0, is_singleton=False):
                        raise Unavailable("doctor.locks", folder=str(folder))
                except Timeout:
                    return "exclusive"
    except (OSError, NotImplementedError) as error:
        raise Unavailable("doctor.folder", folder=str(folder), reason=type(error).__name__) from None


def _durable_writes(folder: Path) -> str:
    """Whether `folder` takes a forced write, an atomic replacement and a WAL database."""
    try:
        with tempfile.TemporaryDirectory(prefix=".medveil-doctor-", dir=folder) as place:
            first, second = Path(place) / "first", Path(place) / "second"
            with first.open("wb") as file:
                file.write(b"medveil")
                file.flush()
                os.fsync(file.fileno())
            first.replace(second)
            database = sqlite3.connect(Path(place) / "ledger")
            try:
                (mode,) = database.execute("PRAGMA journal_mode=WAL").fetchone()
                database.execute("PRAGMA synchronous=FULL")
                database.execute("CREATE TABLE medveil (height INTEGER)")
                database.commit()
            finally:
                database.close()
            if mode != "wal" or second.read_bytes() != b"medveil":
                raise Unavailable("doctor.durable_writes", folder=str(folder))
            return "fsync, atomic replacement, SQLite WAL"
    except (OSError, sqlite3.Error) as error:
        raise Unavailable("doctor.folder", folder=str(folder), reason=type(error).__name__) from None


def _space(folder: Path) -> str:
    from shutil import disk_usage

    try:
        free = disk_usage(folder).free // 1_000_000
    except OSError as error:
        raise Unavailable("doctor.folder", folder=str(folder), reason=type(error).__name__) from None
    if free < SPACE:
        raise Unavailable("doctor.space", folder=str(folder), free=free, wanted=SPACE)
    return f"{free} MB"
