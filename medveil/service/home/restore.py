"""The way back: a home from a backup, and the mark that it is not what it was.

A home that comes back from a backup is consistent in itself and wrong about the world: it forgot what its organisation
cosigned, wrote, sent and noted since. What that could do, and what keeps it from it (`medveil.service.home.returned`):

    cosign a head that contradicts one it cosigned since       it cosigns nothing until that cannot be
    order blocks in the place of those that others have        the sequencer takes them back from the members first
    go on with an audit chain that is shorter than anchored    no new use while the ledger knows more of it
    take up jobs whose randomness was used since               jobs of the backup end as failed
    send other messages in places that are taken               the post of the backup is emptied
    let in what was ended or used up since                     sessions, tokens, invitations, recovery codes end

What it cannot mend is said by `restore` and in docs/operations.md: records, grants and accounts are those of the day of
the backup; keys that were destroyed since are back.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec

from ledger.engines.block_copy import DATA_VERSION as BLOCKS_VERSION
from ledger.engines.migration import DATA_VERSION as LEDGER_VERSION
from medveil.gateway.organisation import Rand
from medveil.service.database import VERSION as DATABASE_VERSION
from medveil.service.database import version_of
from medveil.service.home.backup import BackupManifest, check_apart, check_signed, copy_checked, flush, read_backup
from medveil.service.home.config import FILE, VaultPlace, check_config, read_config, write_config
from medveil.service.home.home import Home
from medveil.service.home.key_providers import open_keys
from medveil.service.home.vault_place import blob_store, database_url, discard_vault
from privacy.vault.backup import check_backup, put_back
from wire.errors import DecodeError, Refused, Unavailable, VerificationError
from wire.evidence import write_file

MARK = "restored.json"

_LEDGERS = {"ledger.sqlite": LEDGER_VERSION, "blocks.sqlite": BLOCKS_VERSION}


class Restored(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``restored.json``: this home came back from a backup, and is not done with it.

    backed_up, restored: ms UTC. settled: the service's tables were seen to; recovered: the sequencer's ledger was.
    """

    version: int
    backed_up: int
    restored: int
    settled: bool = False
    recovered: bool = False


def restore(
    backup: Path,
    folder: Path,
    passphrase: str,
    rand: Rand,
    clock: Callable[[], int],
    *,
    moved: bool = False,
    erased: Path | None = None,
    vault: VaultPlace | None = None,
) -> BackupManifest:
    """Make the home of a backup in `folder`, which must not be there or be empty; whole or not at all.

    passphrase: of the backup's key file, or the PIN of the token that keeps its keys. erased: the register of erasures
    of the home that was lost, or another that is newer than the backup: what it names is erased here too.
    vault: where its vault is to lie, if not as the backup's gateway.toml says; it may have lain anywhere before.
    moved: nobody has started the original since the backup was made, so nothing was forgotten, and no mark is left.
    Raises Refused, Unavailable (disk, no register there), DecodeError (newer, damaged), VerificationError (changed,
    another passphrase).
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Refused("home.not_empty", folder=str(folder))
    manifest = read_backup(backup)
    check_apart(folder, backup)
    part = folder.with_name(f".{folder.name}.partial")
    put: tuple[VaultPlace, bool] | None = None
    try:
        shutil.rmtree(part, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir(mode=0o700)
        copy_checked(backup, manifest, part)
        _check_versions(part)
        _check_module(part, backup)
        _check_epochs(part, passphrase, rand)
        if vault is not None:
            write_config(part / FILE, check_config(msgspec.structs.replace(read_config(part / FILE), vault=vault)))
        put = _put_vault(part, passphrase, rand)
        with Home.open(part, passphrase, rand, clock) as home:
            keys = [generation.envelope.key for generation in home.organisation.keys.generations]
            check_signed(manifest, keys, backup)
            if home.organisation.name != manifest.body.organisation:
                raise VerificationError(
                    "backup.not_signed", folder=str(backup), organisation=manifest.body.organisation
                )
            named = 0 if erased is None else home.organisation.vault.register.join(erased)
        if named:
            Home.open(part, passphrase, rand, clock).close()  # opening it removes what the register names
        if not moved:
            write_mark(part, Restored(1, manifest.body.created, clock()))
        if folder.exists():
            folder.rmdir()
        flush(part)
        part.rename(folder)
        flush(folder.parent)
        put = None
    except OSError:
        raise Unavailable("home.unwritable", folder=str(folder)) from None
    finally:
        if put is not None:
            discard_vault(*put)
        shutil.rmtree(part, ignore_errors=True)
    return manifest


def _check_module(folder: Path, backup: Path) -> None:
    """The token's library is none that came with the backup: it is loaded before a signature can be checked, since the
    keys for that are behind the token. Raises Refused."""
    module = read_config(folder / FILE).keys.module
    if "/" in module and any(Path(module).resolve().is_relative_to(one.resolve()) for one in (folder, backup)):
        raise Refused("restore.module_inside", module=module)


def _check_epochs(folder: Path, secret: str, rand: Rand) -> None:
    """The keys' epochs that the vault is wrapped under are still there. Raises Refused, and as the key providers."""
    config = read_config(folder / FILE)
    guard = open_keys(folder, config.organisation, config.keys, secret, rand)
    try:
        check_backup(folder / "vault", guard)
    finally:
        guard.close()


def _put_vault(folder: Path, secret: str, rand: Rand) -> tuple[VaultPlace, bool] | None:
    """Put the vault where gateway.toml says, if that is elsewhere than in the home; returns where it was put, and
    whether the store of large documents was nobody's before.

    Raises Refused where there is a vault already: it is not for a restore to remove one.
    """
    config = read_config(folder / FILE)
    if config.vault.database == "sqlite" and not config.vault.blobs:
        return None
    copy = folder / "vault-copy"
    (folder / "vault").rename(copy)
    guard = open_keys(folder, config.organisation, config.keys, secret, rand)
    try:
        database, blobs = database_url(config.vault), blob_store(config.vault)
        claimed = put_back(copy, folder / "vault", guard, database=database, blobs=blobs)
    finally:
        guard.close()
    shutil.rmtree(copy)
    return config.vault, claimed


def _check_versions(folder: Path) -> None:
    """The databases that opening a home does not open are not newer. Raises DecodeError."""
    service = folder / "service.sqlite"
    if service.exists():
        version = version_of(service)
        if version > DATABASE_VERSION:
            raise DecodeError("database.newer", place=str(service), version=version, known=DATABASE_VERSION)
    for name, known in _LEDGERS.items():
        path = folder / name
        if not path.exists():
            continue
        try:
            with closing(sqlite3.connect(path)) as db:
                (version,) = db.execute("PRAGMA user_version").fetchone()
        except sqlite3.Error:
            raise DecodeError("backup.damaged", file=str(path)) from None
        if version > known:
            raise DecodeError("ledger.data_version", path=str(path), version=version, known=known)


def read_mark(folder: Path) -> Restored | None:
    """The mark in a home; None where there is none. Raises DecodeError if it is damaged, Unavailable."""
    try:
        data = (folder / MARK).read_bytes()
    except FileNotFoundError:
        return None
    except OSError:
        raise Unavailable("home.unwritable", folder=str(folder)) from None
    try:
        mark = msgspec.json.decode(data, type=Restored)
    except (msgspec.MsgspecError, UnicodeError):
        mark = None
    if mark is None or mark.version != 1:
        raise DecodeError("restore.bad_mark", file=str(folder / MARK))
    return mark


def write_mark(folder: Path, mark: Restored) -> None:
    """Put the mark, durably. Raises OSError."""
    write_file(folder / MARK, msgspec.json.encode(mark) + b"\n")
    (folder / MARK).chmod(0o600)
    flush(folder)


def lift_mark(folder: Path) -> None:
    """Take the mark away, durably. Raises OSError."""
    (folder / MARK).unlink(missing_ok=True)
    flush(folder)
