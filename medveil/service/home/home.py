"""An organisation's home on disk: everything that its gateway owns, for one process at a time.

    gateway.toml      how it runs
    consortium.json   the trust file that it pinned (after `medveil join`)
    card.evidence     its member card
    keys              the key provider's file, under the passphrase; none where a token keeps the keys
    vault/            records, grant terms, its own secret keys (encrypted), unless they lie where [vault] says
    snapshots/        columnar copies of datasets for queries (encrypted); not in backups: they are made anew
    extracts/         sealed files of extracts: made/, until they are delivered, and held/; not in backups
    generators        points of commitments to vectors, once many are needed; not in backups: they are made anew
    audit.sqlite      the audit trail
    cosigned.note     the last head that it cosigned
    blocks.sqlite     its copy of the ledger; ledger.sqlite too at the sequencer
    service.sqlite    people, tokens, jobs, messages (unless the database is PostgreSQL)
    tls/              its present certificate and key
    restored.json     only in a home that came back from a backup, until it has caught up
    home-id           which home a database outside of it is of; not in backups: who comes back draws another
    data-version      of this layout; a newer one is refused

Made whole or not at all; mode 700. Secret keys are in the vault, never in a file of their own.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from medveil.gateway.organisation import Clock, Organisation, Rand
from medveil.gateway.wallets import take_over
from medveil.service.database import Claim, Database
from medveil.service.home.cards import FOUNDING, MemberCard, make_card, read_card
from medveil.service.home.config import (
    FILE,
    VERSION,
    Config,
    Keys,
    Peers,
    VaultPlace,
    check_config,
    read_config,
    write_config,
)
from medveil.service.home.key_providers import create_keys, discard_keys, open_keys
from medveil.service.home.one_home import ID_BYTES
from medveil.service.home.vault_place import blob_store, database_url, discard_vault
from privacy.keys import Guarded
from wire.canonical import encode
from wire.checkpoint import TrustFile, read_trust, write_trust
from wire.checkpoint.membership import check_member
from wire.durable import flush
from wire.errors import DecodeError, Refused, Unavailable, VerificationError
from wire.evidence import write_file
from wire.keyset import Tier

DATA_VERSION = 1
CONSORTIUM = "consortium.json"
CARD_FILE = "card.evidence"
HOME_ID = "home-id"


class Home:
    """An open home. Make it with `create` or `open`; close it, or use it as a context manager."""

    def __init__(self, folder: Path, config: Config, organisation: Organisation, lock: FileLock) -> None:
        self.folder = folder
        self.config = config
        self.organisation = organisation
        self._lock = lock

    @classmethod
    def create(
        cls,
        folder: Path,
        name: str,
        roles: tuple[str, ...],
        passphrase: str,
        rand: Rand,
        clock: Clock,
        *,
        tier: Tier = "",
        re_executes: bool = True,
        hosts: tuple[str, ...] = ("localhost", "127.0.0.1"),
        chain: bytes = FOUNDING,
        keys: Keys = Keys(),  # noqa: B008 (frozen)
        vault: VaultPlace = VaultPlace(),  # noqa: B008 (frozen)
    ) -> MemberCard:
        """Make a home with fresh keys in `folder`, which must not exist or be empty; returns its card.

        passphrase: of its key file, or the PIN of the token that `keys` names. hosts: what its certificate names.
        chain: hash of the genesis that it applies to, zeros to found one. vault: where records lie; it is never changed
        later. Raises Refused, Unavailable (disk, token, database, store), DecodeError naming a role or name that cannot
        be.
        """
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise Refused("home.not_empty", folder=str(folder))
        config = check_config(Config(VERSION, name, peers=Peers(hosts=hosts), keys=keys, vault=vault))
        part = folder.with_name(f".{folder.name}.partial")
        guard: Guarded | None = None
        made = False
        try:
            shutil.rmtree(part, ignore_errors=True)
            folder.parent.mkdir(parents=True, exist_ok=True)
            part.mkdir(mode=0o700)
            guard = create_keys(part, name, keys, passphrase, rand)
            organisation = Organisation.create(
                name, roles, part, guard, rand, clock, database=database_url(vault), blobs=blob_store(vault)
            )
            made = True
            try:
                member = msgspec.structs.replace(organisation.member(re_executes), tier=tier)
                check_member(member)
                card = make_card(member, chain, organisation.keys.first.signers)
                write_config(part / FILE, config)
                write_file(part / CARD_FILE, encode(card))
                write_file(part / "data-version", f"{DATA_VERSION}\n".encode())
                write_file(part / HOME_ID, rand(ID_BYTES).hex().encode())
            finally:
                organisation.audit.close()
                organisation.vault.close()
            if folder.exists():
                folder.rmdir()
            part.rename(folder)
            made = False
            guard.close()
            guard = None  # the home is there, and keys and vault are its
            flush(folder.parent)
        except OSError:
            raise Unavailable("home.unwritable", folder=str(folder)) from None
        finally:
            if made:
                discard_vault(vault)
            if guard is not None:
                discard_keys(guard)
            shutil.rmtree(part, ignore_errors=True)
        return card

    @classmethod
    def open(cls, folder: Path, passphrase: str, rand: Rand, clock: Clock) -> Home:
        """Open the home in `folder`.

        passphrase: of its key file, or its token's PIN. Raises Unavailable (not there, in use, disk, a token that is
        away), DecodeError (newer, damaged), VerificationError (another passphrase), Refused (another PIN).
        """
        if not (folder / FILE).exists():
            raise Unavailable("home.not_there", folder=str(folder))
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise Unavailable("home.in_use", retry_after=5, folder=str(folder)) from None
        except OSError:
            raise Unavailable("home.unwritable", folder=str(folder)) from None
        try:
            _check_version(folder)
            config = read_config(folder / FILE)
            member = read_card(folder / CARD_FILE).application.member
            guard = open_keys(folder, config.organisation, config.keys, passphrase, rand)
            try:
                organisation = Organisation.open(
                    config.organisation,
                    member.roles,
                    folder,
                    guard,
                    rand,
                    clock,
                    database=database_url(config.vault),
                    blobs=blob_store(config.vault),
                )
            except BaseException:
                guard.close()
                raise
            try:
                take_over(organisation, clock)
            except BaseException:
                organisation.close()
                raise
        except BaseException:
            lock.release()
            raise
        organisation.most_limits = config.bills.limits
        organisation.near = config.queries.near
        organisation.recipient_percent = config.queries.recipient_percent
        organisation.extract_shares = config.extracts.shares
        return cls(folder, config, organisation, lock)

    @property
    def card(self) -> MemberCard:
        """Its member card. Raises DecodeError if the file is damaged."""
        return read_card(self.folder / CARD_FILE)

    @property
    def record_key(self) -> bytes:
        """The key (32 secret bytes) that seals secret rows of the service's database."""
        return self._drawn("record-key")

    @property
    def code_key(self) -> bytes:
        """The key (32 secret bytes) under which the service keeps the seeds of one-time codes."""
        return self._drawn("code-key")

    def _drawn(self, name: str) -> bytes:
        """A key of the service's, in the vault: drawn when it is first asked for."""
        vault = self.organisation.vault
        if name not in vault.documents("secrets"):
            vault.put_document("secrets", name, self.organisation.rand(32))
        return vault.document("secrets", name)

    def database(self) -> Database:
        """The service's database, opened: this home's alone from here on. Raises what `Database.open` raises."""
        url, owner = self.config.database, self.organisation.name
        if url == "sqlite":  # in the home, whose lock keeps others out
            return Database.open(f"sqlite:///{self.folder / 'service.sqlite'}", owner=owner)
        known = self._id()
        claim = Claim(known or self.organisation.rand(ID_BYTES), takes_over=known is None)
        database = Database.open(url, owner=owner, home=claim)
        if known is None:
            try:
                write_file(self.folder / HOME_ID, claim.id.hex().encode())
            except OSError:
                database.close()
                raise Unavailable("home.unwritable", folder=str(self.folder)) from None
        return database

    def _id(self) -> bytes | None:
        """Which home this is; None for one that came back from a backup and was not started yet."""
        try:
            text = (self.folder / HOME_ID).read_text(encoding="ascii")
            found = bytes.fromhex(text)
        except FileNotFoundError:
            return None
        except OSError:
            raise Unavailable("home.unwritable", folder=str(self.folder)) from None
        except ValueError:
            found = b""
        if len(found) != ID_BYTES:
            raise DecodeError("home.bad_id", file=str(self.folder / HOME_ID))
        return found

    @property
    def trust(self) -> TrustFile:
        """The trust file that it pinned. Raises Unavailable before `join`."""
        return read_trust(self.folder / CONSORTIUM)

    def join(self, trust: TrustFile) -> None:
        """Pin `trust`. Its own keys must be those that the file names, if it is a member there already.

        What is pinned stays if it knows as many changes of members or more: a home never goes back to older members.

        Raises VerificationError; Refused if another consortium was pinned before.
        """
        path = self.folder / CONSORTIUM
        pinned = read_trust(path) if path.exists() else None
        if pinned is not None and pinned.genesis_hash != trust.genesis_hash:
            raise Refused("home.joined_another", organisation=self.organisation.name)
        named = trust.latest.find(self.organisation.name)
        own = [generation.envelope.key for generation in self.organisation.keys.generations]
        if named is not None and named.keys.envelope.key not in own:
            raise VerificationError("home.other_keys", organisation=self.organisation.name)
        if pinned is None or len(pinned.changes) < len(trust.changes):
            write_trust(path, trust)

    def follow(self, trust: TrustFile) -> None:
        """Keep the pinned file as the ledger's handovers have extended it: a later start knows the members of now.

        Raises Unavailable (disk).
        """
        write_trust(self.folder / CONSORTIUM, trust)

    def close(self) -> None:
        """Let go of everything."""
        try:
            self.organisation.close()
        finally:
            self._lock.release()

    def __enter__(self) -> Home:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_version(folder: Path) -> None:
    try:
        text = (folder / "data-version").read_text(encoding="ascii").strip()
        version = int(text) if text.isdecimal() else 0
    except (OSError, UnicodeError):
        version = 0
    if version != DATA_VERSION:
        raise DecodeError("home.data_version", folder=str(folder), version=version, known=DATA_VERSION)
