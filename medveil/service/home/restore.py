"""The way back: a home from a backup, and the mark that it is not what it was.

A home that comes back from a backup is consistent in itself and wrong about the world: it forgot what its organisation
cosigned, wrote, sent and noted since. What that could do, and what keeps it from it (`medveil.service.home.returned`):

    cosign a head that contradicts one it cosigned since       it cosigns nothing until that cannot be
    order blocks in the place of those that others have        the sequencer takes them back from the members first
    go on with an audit chain that is shorter than anchored    no new use while the ledger knows more of it
    take up jobs whose randomness was used since               jobs of the backup end as failed
    send other messages in places that are taken               the post of the backup is emptied
    let in what was ended or used up since                     sessions, tokens, invitations, recovery codes end

What protects persons is taken over from the lost home, if its register of erasures and its log of safeguards are left:
destroyed keys, restrictions, legal holds, opt-outs, recalls, erasures under way and dates of rotation. Rows of the
backup that were loaded over before their person was erased are erased, too (`privacy.erasure.brought_back`).

What it cannot mend is said by `restore` and in docs/operations.md: records, grants and accounts are those of the day of
the backup.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import msgspec

from ledger.engines.block_copy import DATA_VERSION as BLOCKS_VERSION
from ledger.engines.migration import DATA_VERSION as LEDGER_VERSION
from medveil.gateway.organisation import Rand
from medveil.service.database import VERSION as DATABASE_VERSION
from medveil.service.database import version_of
from medveil.service.home.backup import (
    ERASED,
    SAFEGUARDS,
    BackupManifest,
    check_apart,
    check_signed,
    copy_checked,
    read_backup,
)
from medveil.service.home.config import FILE, VaultPlace, check_config, read_config, write_config
from medveil.service.home.home import Home
from medveil.service.home.key_providers import open_keys
from medveil.service.home.vault_place import blob_store, database_url, discard_vault
from privacy.erasure import steps
from privacy.erasure.brought_back import erase_again
from privacy.vault import Vault
from privacy.vault.backup import check_backup, put_back
from wire.durable import flush
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


class BroughtBack(NamedTuple):
    """A home that was made of a backup. again: how many persons' rows the backup had and an erasure of after it had
    not: they are restricted, and the gateway erases them."""

    manifest: BackupManifest
    again: int


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
) -> BroughtBack:
    """Make the home of a backup in `folder`, which must not be there or be empty; whole or not at all.

    passphrase: of the backup's key file, or the PIN of the token that keeps its keys. erased: the lost home, or another
    folder with its register of erasures and its log of safeguards, or the register's file there (`kept_apart`): what
    they name is erased here too, and protected as it was.
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
            vault_of = home.organisation.vault
            named = erased is not None and _take_over(vault_of, erased)
            steps.restored(vault_of, rotate_again=vault_of.epochs_are_back())
            made = manifest.body
            again = len(erase_again(vault_of, made.organisation, rand, made.created, clock()))
        if named:
            Home.open(part, passphrase, rand, clock).close()  # opening it removes what the register names
        if not moved:
            write_mark(part, Restored(1, manifest.body.created, clock()))
        if folder.exists():
            folder.rmdir()
        flush(part)
        part.rename(folder)
        put = None  # the home is there, and the vault is its
        flush(folder.parent)
    except OSError:
        raise Unavailable("home.unwritable", folder=str(folder)) from None
    finally:
        if put is not None:
            discard_vault(*put)
        shutil.rmtree(part, ignore_errors=True)
    return BroughtBack(manifest, again)


def kept_apart(erased: Path) -> tuple[Path, Path]:
    """Where the register of erasures and the log of safeguards are. erased: their folder, or the register there."""
    folder = erased if erased.is_dir() else erased.parent
    return (folder / ERASED if erased.is_dir() else erased), folder / SAFEGUARDS


def _take_over(vault: Vault, erased: Path) -> bool:
    """Take over what protected persons in the lost home; whether the register named anything new.

    Raises Unavailable where nothing is there: with a path that was mistyped all of it would stay forgotten.
    """
    register, log = kept_apart(erased)
    if log.is_file():
        vault.take_over(log)
    if register.is_file() or not (erased.is_dir() and log.is_file()):
        return vault.register.join(register) > 0
    return False


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
    try:
        shutil.rmtree(copy)
    except OSError:
        discard_vault(config.vault, claimed)
        raise
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
