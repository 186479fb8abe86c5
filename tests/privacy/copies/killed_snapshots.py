"""A process of its own: a snapshot is re-cut and added to, and its keeper killed at one of the steps; then it is used.

    python -m tests.privacy.copies.killed_snapshots FOLDER

Prints one line of JSON for each step at which the keeper was killed, and stops after one that came through.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import pyarrow as pa

from privacy.copies import snapshots as module
from privacy.copies.snapshots import Snapshots
from privacy.keys import Argon2Cost, FileKeyProvider
from privacy.vault import Vault
from tests.privacy.copies.killed_extracts import Kills, forked

NAMES = [f"person-{number % 10}" for number in range(60)]
ROWS = pa.table({"visits": list(range(60))})
ERASED = "person-3"


class Look(msgspec.Struct):
    """What was found after a kill. same: the snapshot says what the vault says; held: whether it holds the erased;
    orphans: files that nobody names, after everything was brought up to date."""

    point: str
    same: bool
    held: bool
    orphans: int


def _opened(folder: Path) -> Vault:
    return Vault.open(folder / "vault", FileKeyProvider(folder / "keys", "correct horse"), "hospital-1")


def prepared(folder: Path) -> None:
    """A snapshot of three parts; then one person of each is erased, and more is loaded."""
    provider = FileKeyProvider.create(folder / "keys", "correct horse", cost=Argon2Cost(1, 8, 1))
    with Vault.create(folder / "vault", provider, "hospital-1") as vault:
        vault.ingest("claims-1", ROWS, NAMES)
        Snapshots(vault, folder / "snapshots").refresh("claims-1")
        vault.destroy([key.key for key in vault.keys_of(ERASED)], bytes(32))
        vault.ingest("claims-1", ROWS.slice(0, 5), NAMES[4:9], append=True)


def killed(folder: Path, at: int, said: int) -> None:
    with _opened(folder) as vault:
        kills = Kills(at, said)
        for owner, name in (
            (os, "open"),
            (os, "fsync"),
            (Path, "unlink"),
            (Vault, "put_document"),
            (Vault, "remove_document"),
        ):
            kills.at(owner, name)
        Snapshots(vault, folder / "snapshots").refresh("claims-1")


def look(folder: Path, point: str) -> None:
    with _opened(folder) as vault:
        kept = Snapshots(vault, folder / "snapshots")
        found = kept.table("claims-1", "id")
        active = {key.key for key in vault.data_keys("claims-1") if key.state == "active"}
        kept.clear_leftovers()
        info = kept.info("claims-1")
        files = len(list((folder / "snapshots").iterdir()))
        assert info is not None
        seen = Look(
            point,
            found.equals(vault.read("claims-1", "id")),
            not kept.data_keys("claims-1") <= active,
            files - info.parts,
        )
    os.write(1, msgspec.json.encode(seen) + b"\n")


def main() -> None:
    module.PART_ROWS = 20
    root, at = Path(sys.argv[1]), 0
    while True:
        at += 1
        folder = root / str(at)
        folder.mkdir()
        forked(lambda: prepared(folder))  # noqa: B023 - runs before the next round
        heard, said = os.pipe()
        status = forked(lambda: killed(folder, at, said))  # noqa: B023
        os.close(said)
        point = os.read(heard, 100).decode()
        os.close(heard)
        if status == 0:
            return
        forked(lambda: look(folder, point))  # noqa: B023


if __name__ == "__main__":
    main()
