"""Where a home's vault lies, as gateway.toml says: a SQLite file in the home or PostgreSQL; its large documents in the
home's folder or a store that `pyarrow.fs` reaches by a URI.

The password of a database comes from a file of its own or by the ways of libpq (its password file, a certificate), the
keys of a bucket by the ways of the store's own tools (environment, role of the machine): gateway.toml holds neither.
"""

from __future__ import annotations

import secrets
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from medveil.service.home.config import VaultPlace, secret_in
from wire.errors import MedveilError, Refused, Unavailable

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


def database_url(place: VaultPlace) -> str:
    """The URL (secret) of the vault's database; "" for SQLite. Raises Refused (others may read the password's file),
    Unavailable (it cannot be read)."""
    if place.database == "sqlite":
        return ""
    if not place.password_file:
        return place.database
    from privacy.store.engine import parse

    return parse(place.database).set(password=secret_in(Path(place.password_file))).render_as_string(False)


def blob_store(place: VaultPlace) -> FileSystem | None:
    """The store of large documents; None for the home's folder. Nobody is asked yet.

    Raises Refused for a URI that pyarrow cannot use.
    """
    if not place.blobs:
        return None
    import pyarrow as pa
    from pyarrow import fs

    try:
        found, path = fs.FileSystem.from_uri(place.blobs)
    except (pa.ArrowException, OSError, ValueError):
        raise Refused("config.bad_vault", file="gateway.toml", key="blobs") from None
    return fs.SubTreeFileSystem(path, found)


def discard_vault(place: VaultPlace, claimed: bool = True) -> None:
    """Take back what was put into a database and a store for a home that was not finished; files go with its folder.

    claimed: the store is this home's alone; one that was another's before stays that.
    """
    from privacy.vault.backup import take_away

    with suppress(MedveilError):  # what is left is named when somebody tries again
        take_away(database_url(place), blob_store(place) if claimed else None)


def try_blobs(place: VaultPlace) -> str:
    """Write, read and remove a few bytes in the store of large documents; where it is. Raises Unavailable, Refused."""
    from privacy.vault.blobs import NAME_BYTES, Blobs

    store = blob_store(place)
    if store is None:
        return "the home"
    blobs, name, probe = Blobs(Path(), store), secrets.token_bytes(NAME_BYTES), secrets.token_bytes(32)
    blobs.write(name, [probe])
    try:
        found = blobs.read(name)
        with nullcontext() if found is None else found:
            if found is None or found.read(2 * len(probe)) != probe:
                raise Unavailable("privacy.store_failed", path=blobs.place, reason="other bytes", retry_after=5)
    finally:
        blobs.remove(name)
    return place.blobs.partition("?")[0]
