"""A backup of an organisation's home: its files as one moment had them, listed and signed.

    backup.json     organisation, chain, time, data version; path, length and SHA-256 of every file; signed by the
                    organisation's envelope key
    home/...        the files, SQLite databases as consistent copies

It is made of a stopped home or of a running gateway's, whole or not at all, mode 700. It holds nothing in the clear
that the home does not: the vault is encrypted in it, the key file is under the passphrase, and the passphrase, which
belongs elsewhere, is not in it; nor is the certificate of the day towards its peers, which a gateway makes anew.

Files are copied one after the other, in an order that makes what is newer explain what is older:

    service.sqlite     before the vault: its jobs name results that are there, its rows are sealed under a key there
    wallets            before the vault, which holds the passphrase of each
    keys, vault, keys  the vault is wrapped under epochs of the key file: taken again until that did not change.
                       Large documents come along (`privacy.vault.backup`); keys on a token are the token's to back up
    erased, safeguards what was erased until now, and what protects persons: after the vault, so that they know all of
                       it; newer ones are joined by the restore
    audit.sqlite       no use without its entry: after the vault, which holds what uses released
    ledger, blocks     each whole by itself; the members have what follows
    cosigned.note      last, so that it remembers as much as it can

With PostgreSQL the service's own tables are not here: pg_dump is the operator's, and the manifest says so.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import msgspec

from medveil.service.home.config import FILE, read_config
from medveil.service.home.home import CARD_FILE, CONSORTIUM, DATA_VERSION, Home
from medveil.service.home.key_providers import KEY_FILE
from privacy.vault import Vault, safeguards
from privacy.vault import vault as vaults
from wire.domains import BACKUP
from wire.durable import flush, put_in_place
from wire.errors import DecodeError, MedveilError, Refused, Unavailable, VerificationError
from wire.evidence import ListedFile, to_json, write_file
from wire.identifiers import NAME_PATTERN
from wire.signing import Signature, Signer, VerifyKey, verify

MANIFEST_FILE = "backup.json"
VERSION = 1
FILES = "home"
"""The folder of the files in a backup."""

_BEFORE_VAULT = ("service.sqlite",)
_KEYS, _VAULT = KEY_FILE, "vault/vault.sqlite"
ERASED, SAFEGUARDS = vaults.REGISTER, safeguards.FILE
_WALLETS = "wallets"
_AFTER_VAULT = ("audit.sqlite", "ledger.sqlite", "blocks.sqlite")
_PLAIN = (ERASED, SAFEGUARDS, FILE, CARD_FILE, CONSORTIUM, "data-version", "split-view.evidence", "cosigned.note")
EVIDENCE = "evidence"
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_ATTEMPTS = 20
_PIECE = 1 << 20
_LONGEST = 64 * 1024 * 1024

Name = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN, max_length=64)]


class BackupBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the organisation signs. genesis: hex, empty before it joined; created: ms UTC; database: who keeps the
    service's tables ("sqlite": they are here; "postgresql": they are the operator's to dump)."""

    version: int
    organisation: Name
    genesis: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")]
    created: int
    data_version: int
    database: Annotated[str, msgspec.Meta(pattern=r"^(sqlite|postgresql)\Z")]
    files: tuple[ListedFile, ...]


class BackupManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``backup.json``. key_id and signature: hex, ed25519 under domain BACKUP."""

    body: BackupBody
    algorithm: Annotated[int, msgspec.Meta(ge=1, le=255)]
    key_id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
    signature: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{128}\Z")]


def make_backup(home: Home, out: Path, clock: Callable[[], int]) -> BackupManifest:
    """Write a backup of `home`, which this process has open (serving or not), to `out`, which must not be there.

    Synchronous: a running gateway calls it in a thread. Raises Refused (there already, in the home), Unavailable
    (disk, keys changing without end), DecodeError (a database is damaged).
    """
    if out.exists():
        raise Refused("home.not_empty", folder=str(out))
    check_apart(out, home.folder)
    part = out.with_name(f".{out.name}.partial")
    try:
        shutil.rmtree(part, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir(mode=0o700)
        began = clock()  # a restore takes what was erased from here on for later than what is copied
        _copy_home(home.folder, home.organisation.vault, part / FILES)
        manifest = _manifest(home, part, began)
        write_file(part / MANIFEST_FILE, to_json(manifest))
        (part / MANIFEST_FILE).chmod(0o600)
        flush(part)
        put_in_place(part, out)
    except OSError:
        raise Unavailable("home.unwritable", folder=str(out)) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return manifest


def check_apart(folder: Path, other: Path) -> None:
    """Raises Refused for a folder that lies in the other one: it would be taken for a part of it."""
    if folder.resolve().is_relative_to(other.resolve()):
        raise Refused("backup.inside", folder=str(folder), other=str(other))


def _copy_home(home: Path, vault: Vault, files: Path) -> None:
    files.mkdir(mode=0o700)
    for name in _BEFORE_VAULT:
        _copy_database_if_there(home, files, name)
    if (home / _WALLETS).is_dir():
        for wallet in sorted((home / _WALLETS).iterdir()):
            if _PATH.fullmatch(wallet.name) and wallet.is_dir() and not wallet.is_symlink():
                _copy_wallet(wallet, files / _WALLETS / wallet.name)
    _copy_vault(home, files, vault)
    for name in _AFTER_VAULT:
        _copy_database_if_there(home, files, name)
    if (home / EVIDENCE).is_dir():
        for path in _regular_below(home / EVIDENCE):
            name = path.relative_to(home).as_posix()
            if _PATH.fullmatch(name) and not name.endswith(".part"):
                copy_file(path, files / name)
    for name in (*_PLAIN, *_named(home)):
        if (home / name).is_file():
            copy_file(home / name, files / name)


def _named(home: Path) -> Iterator[str]:
    """Files of the home that gateway.toml names: the people's certificate and key, a provider's secret."""
    config = read_config(home / FILE)
    provider = config.people.provider
    of_provider = (provider.secret_file, provider.authorities) if provider is not None else ()
    for name in dict.fromkeys((config.people.certificate, config.people.key, *of_provider)):
        if _PATH.fullmatch(name) and not (home / name).is_symlink():  # one elsewhere on the machine is the operator's
            yield name


def _copy_wallet(wallet: Path, files: Path) -> None:
    """One that an erasure removes meanwhile is left out: the vault, copied later, has its passphrase no more."""
    try:
        _copy_vault(wallet, files, None)
    except (OSError, MedveilError):
        if wallet.exists():
            raise
        shutil.rmtree(files, ignore_errors=True)


def _copy_vault(folder: Path, files: Path, vault: Vault | None) -> None:
    """A vault and the key file that it is wrapped under, which belong together. vault: if it is open here."""
    by_token = not (folder / _KEYS).exists()
    for _ in range(_ATTEMPTS):
        if not by_token:
            copy_file(folder / _KEYS, files / _KEYS)
        if vault is None:
            _copy_database_if_there(folder, files, _VAULT)
        else:
            vault.back_up((files / _VAULT).parent)
        if by_token or (folder / _KEYS).read_bytes() == (files / _KEYS).read_bytes():
            return
        shutil.rmtree((files / _VAULT).parent)
        (files / _KEYS).unlink()
    raise Unavailable("backup.keys_change", retry_after=60, folder=str(folder))


def _regular_below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path


def _copy_database_if_there(home: Path, files: Path, name: str) -> None:
    if (home / name).is_file():
        copy_database(home / name, files / name)


def copy_database(source: Path, target: Path) -> None:
    """A consistent, checked copy of a SQLite file that others may be writing. Raises Unavailable, DecodeError."""
    _make(target)
    address = f"{source.absolute().as_uri()}?mode=rw"
    try:
        with (
            contextlib.closing(sqlite3.connect(address, uri=True, timeout=5)) as old,
            contextlib.closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)
            new.execute("PRAGMA journal_mode=DELETE")
            sound = new.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    except sqlite3.OperationalError:
        raise Unavailable("home.unwritable", folder=str(target)) from None
    except sqlite3.Error:
        sound = False
    if not sound:
        raise DecodeError("backup.damaged", file=str(source))
    flush(target)


def copy_file(source: Path, target: Path) -> tuple[int, str]:
    """A copy for its owner alone, on disk when this returns; length and SHA-256 of what was copied. Raises OSError."""
    _make(target)
    length, found = 0, sha256()
    with source.open("rb") as old, target.open("wb") as new:
        while piece := old.read(_PIECE):
            new.write(piece)
            found.update(piece)
            length += len(piece)
        new.flush()
        os.fsync(new.fileno())
    return length, found.hexdigest()


def _make(target: Path) -> None:
    missing = [folder for folder in target.parents if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700)
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _manifest(home: Home, part: Path, at: int) -> BackupManifest:
    listed = []
    for path in _regular_below(part / FILES):
        with path.open("rb") as file:
            found = sha256()
            while piece := file.read(_PIECE):
                found.update(piece)
        name = path.relative_to(part / FILES).as_posix()
        listed.append(ListedFile(name, "home-file", path.stat().st_size, found.hexdigest()))
    listed.sort(key=lambda one: one.path)
    body = BackupBody(
        VERSION,
        home.organisation.name,
        home.trust.genesis_hash.hex() if (home.folder / CONSORTIUM).exists() else "",
        at,
        DATA_VERSION,
        "sqlite" if home.config.database == "sqlite" else "postgresql",
        tuple(listed),
    )
    return _signed(body, home.organisation.keys.newest.envelope)


def _signed(body: BackupBody, signer: Signer) -> BackupManifest:
    signature = signer.sign(BACKUP, _message(body))
    return BackupManifest(body, signature.algorithm, signature.key_id.hex(), signature.value.hex())


def _message(body: BackupBody) -> bytes:
    return msgspec.json.encode(body, order="deterministic")


def read_backup(folder: Path) -> BackupManifest:
    """The manifest of a backup, whose list of files is one. Raises Unavailable (no backup), DecodeError (not one of
    this program's, newer)."""
    try:
        with (folder / MANIFEST_FILE).open("rb") as file:
            data = file.read(_LONGEST + 1)
    except OSError:
        raise Unavailable("backup.not_there", folder=str(folder)) from None
    try:
        (version, known) = msgspec.json.decode(data, type=_Versioned).body.version, VERSION
        if version > known:
            raise DecodeError("backup.newer", folder=str(folder), version=version, known=known)
        manifest = msgspec.json.decode(data, type=BackupManifest)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise DecodeError("backup.bad_manifest", folder=str(folder)) from None
    paths = [file.path for file in manifest.body.files]
    good = version == VERSION and to_json(manifest) == data and all(map(_PATH.fullmatch, paths))
    if not good or paths != sorted(set(paths)):
        raise DecodeError("backup.bad_manifest", folder=str(folder))
    if manifest.body.data_version > DATA_VERSION:
        known = DATA_VERSION
        raise DecodeError("backup.newer", folder=str(folder), version=manifest.body.data_version, known=known)
    return manifest


class _Body(msgspec.Struct, frozen=True):
    version: int


class _Versioned(msgspec.Struct, frozen=True):
    body: _Body


def copy_checked(backup: Path, manifest: BackupManifest, target: Path) -> None:
    """Copy every file of a backup into the folder `target`, each compared with the manifest as it is copied.

    Raises VerificationError naming the first file that was changed, added or removed; OSError.
    """
    files = backup / FILES
    listed = {file.path: file for file in manifest.body.files}
    present = {path.relative_to(files).as_posix(): path for path in files.rglob("*") if not path.is_dir()}
    for name in sorted(present.keys() ^ listed.keys()):
        raise VerificationError("backup.file_changed", folder=str(backup), file=name)
    for name, file in sorted(listed.items()):
        path = present[name]
        if path.is_symlink() or not path.is_file() or copy_file(path, target / name) != (file.length, file.sha256):
            raise VerificationError("backup.file_changed", folder=str(backup), file=name)


def check_signed(manifest: BackupManifest, keys: Sequence[VerifyKey], folder: Path) -> None:
    """Check that one of `keys` signed the manifest. Raises VerificationError."""
    signature = Signature(manifest.algorithm, bytes.fromhex(manifest.key_id), bytes.fromhex(manifest.signature))
    found = [key for key in keys if key.key_id() == signature.key_id]
    try:
        verify((found or keys)[-1], BACKUP, _message(manifest.body), signature)
    except MedveilError:
        raise VerificationError(
            "backup.not_signed", folder=str(folder), organisation=manifest.body.organisation
        ) from None
