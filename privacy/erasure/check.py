"""Looking for what an erasure destroyed, where it is said to be gone: in the vault, in files, in snapshots.

What is looked for, each with what it would mean:

    a destroyed key among the vault's keys, or its tombstone missing          it was not destroyed, or came back
    the mark of its wrap (16 random bytes) in any file of the home            a wrap has survived: a page that was not
                                                                              overwritten, a write-ahead log, a copy
    a packed file                                                             what it holds nobody saw: a copy, perhaps
    the key itself, whichever its wrap, in an older copy of the tables        a backup was left here; so does version 1
    an older copy of the key file, with destroyed epochs                      what a rotation ended can be read with it
    rows under a destroyed or restricted key in a snapshot                    it was not cut anew
    rows of the person that may be used                                       they came later, or were left out; those
                                                                              that were restricted are in use again
    a marker: text of the person's, in any file or its name                   plaintext lies about

Encrypted rows without their key are noise: they are not looked for. Files are read as they are, also those of a
database that is open. What was not looked into is named: what cannot be read, and links to elsewhere. Of a PostgreSQL
server's own files nothing can be seen from here: the report says so, and what protects there is the rotation of the
epoch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from privacy.erasure.file_search import SHORTEST_TEXT, FileSearch
from privacy.erasure.receipt import ErasureReceipt
from wire import messages
from wire.errors import MedveilError

SHORTEST_MARKER = SHORTEST_TEXT
"""Characters."""


class Tombstone(Protocol):
    """What is left of a destroyed key: `privacy.vault.Erasure`."""

    @property
    def key(self) -> bytes:
        """Its id."""
        ...


class StatedKey(Protocol):
    """What a check looks at of a data key: `privacy.vault.DataKey`."""

    @property
    def key(self) -> bytes:
        """Its id."""
        ...

    @property
    def dataset(self) -> str:
        """The dataset of its rows."""
        ...

    @property
    def state(self) -> str:
        """ "active" or "restricted"."""
        ...


class CheckedVault(Protocol):
    """What a check asks of `privacy.vault.Vault`."""

    def marks(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The first bytes of each key's wrap, of those that are there."""
        ...

    def copy_holds(self, path: Path, keys: Sequence[bytes]) -> bool:
        """Whether a file is an older copy of the tables that may have one of these keys. Raises OSError."""
        ...

    def copy_of_keys(self, path: Path) -> bool:
        """Whether a file is an older copy of the key provider's, with destroyed epochs. Raises OSError."""
        ...

    def erasures(self, since: int = 0) -> Sequence[Tombstone]:
        """What was destroyed."""
        ...

    def keys_of(self, person: str | bytes) -> Sequence[StatedKey]:
        """The data keys of a person."""
        ...


class Leftover(msgspec.Struct, frozen=True):
    """Something that should be gone and is not. code and facts: of the message catalogues."""

    code: str
    facts: Mapping[str, str | int]

    def text(self, language: str = "en") -> str:
        """The sentence and what to do, in "en" or "zh"."""
        return messages.text(self.code, dict(self.facts), language)


class CheckReport(msgspec.Struct, frozen=True):
    """What a check saw. leftovers: empty if all is gone. files, bytes: how much was read; unread: files that were not,
    by name; links: to elsewhere, which were not followed; snapshots: how many were opened; server: the vault is in a
    database server, whose files were not seen."""

    leftovers: tuple[Leftover, ...]
    keys: int
    files: int
    bytes: int
    unread: tuple[str, ...]
    snapshots: int
    server: bool
    links: tuple[str, ...] = ()


def check_erasure(
    receipt: ErasureReceipt,
    vault: CheckedVault,
    files: Iterable[Path],
    *,
    snapshots: Mapping[str, Callable[[], frozenset[bytes]]] | None = None,
    markers: Sequence[str] = (),
    server: bool = False,
    root: Path | None = None,
) -> CheckReport:
    """Look for what `receipt`, whose signature was checked, says is gone.

    files: to be read. snapshots: by dataset, what gives the ids of the data keys whose rows its snapshot holds.
    markers: texts of the person's, of at least 4 characters, that must stand nowhere (`privacy.erasure.file_search`).
    root: what file names in the report leave away. Raises what the vault raises; a file that cannot be read is
    reported, and so is a link.
    """
    keys = [one.key for one in receipt.keys]
    found = list(_in_vault(receipt, vault, keys))
    search = FileSearch((mark for one in receipt.keys for mark in one.marks), markers)
    read = size = 0
    unread: list[str] = []
    links: list[str] = []
    for path in files:
        whole = str(path.relative_to(root)) if root is not None and path.is_relative_to(root) else str(path)
        name = search.told(whole)
        if name != whole:
            found.append(Leftover("privacy.leftover_name", {"file": name}))
        if path.is_symlink():
            links.append(name)
            continue
        try:
            seen = search.within(path)
            if vault.copy_holds(path, keys):
                found.append(Leftover("privacy.leftover_copy", {"file": name}))
            if vault.copy_of_keys(path):
                found.append(Leftover("privacy.leftover_epochs", {"file": name}))
        except OSError:
            unread.append(name)
            continue
        read, size = read + 1, size + seen.size
        if seen.texts:
            found.append(Leftover("privacy.leftover_text", {"file": name}))
        if seen.marks:
            found.append(Leftover("privacy.leftover_wrap", {"file": name}))
        if seen.packed:
            found.append(Leftover("privacy.leftover_packed", {"file": name}))
    opened = 0
    out = {one.key for one in receipt.keys} | {one.key for one in receipt.restricted}
    for dataset, held in (snapshots or {}).items():
        try:
            inside = out & held()
            opened += 1
        except MedveilError as error:
            found.append(Leftover("privacy.leftover_unknown", {"dataset": dataset, "why": error.code}))
            continue
        if inside:
            found.append(Leftover("privacy.leftover_snapshot", {"dataset": dataset}))
    unique = {(one.code, tuple(sorted(one.facts.items()))): one for one in found}
    return CheckReport(tuple(unique.values()), len(keys), read, size, tuple(unread), opened, server, tuple(links))


def _in_vault(receipt: ErasureReceipt, vault: CheckedVault, keys: Sequence[bytes]) -> Iterator[Leftover]:
    there, tombstones = vault.marks(keys), {one.key for one in vault.erasures()}
    for one in receipt.keys:
        if one.key in there:
            yield Leftover("privacy.leftover_key", {"dataset": one.dataset, "key": one.key.hex()})
        elif one.key not in tombstones:
            yield Leftover("privacy.leftover_tombstone", {"dataset": one.dataset, "key": one.key.hex()})
    restricted = {one.key for one in receipt.restricted}
    for key in vault.keys_of(receipt.person):
        if key.state == "active" and key.key not in keys:  # those are told above
            code = "privacy.leftover_restricted" if key.key in restricted else "privacy.leftover_rows"
            yield Leftover(code, {"dataset": key.dataset, "key": key.key.hex()})


def files_below(*folders: Path) -> Iterator[Path]:
    """Every regular file below these folders, in order; folders that cannot be listed, and links to what is not below
    any of them: nothing is passed over without a word."""
    roots = [folder.resolve() for folder in folders]
    for folder in folders:
        yield from _below(folder, roots)


def _below(folder: Path, roots: Sequence[Path]) -> Iterator[Path]:
    try:
        inside = sorted(os.scandir(folder), key=lambda one: one.name)
    except OSError:
        yield folder  # reading it will say so
        return
    for entry in inside:
        path = folder / entry.name
        if entry.is_symlink():
            if not any(path.resolve().is_relative_to(root) for root in roots):
                yield path
        elif entry.is_dir():
            yield from _below(path, roots)
        elif entry.is_file():
            yield path
