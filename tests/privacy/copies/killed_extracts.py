"""A process of its own: an extract is made and the maker killed at one of its steps; then what is left is looked at.

    python -m tests.privacy.copies.killed_extracts FOLDER      FOLDER/terms: the grant's terms, canonical

Prints one line of JSON for each step at which the maker was killed, and stops after a maker that came through. Makers
and lookers are forked, so that nothing is imported twice; this process itself never runs Arrow.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

import privacy.copies.encrypted_parquet as parquet
import privacy.copies.extracts as extracts
from privacy.audit import AuditTrail
from privacy.copies.extracts import clear_leftovers, open_extract, was_released
from privacy.grants.terms import GrantTerms
from tests.privacy.copies.extracting import Issuer, issuer_in
from wire.canonical import decode
from wire.errors import MedveilError
from wire.sealing import OpenKey

EXTRACT = b"e" * 16
KEY = OpenKey(1, b"o" * 32)

_CALLS = 4
"""Of one function: the pages of a file are written alike."""


class Look(msgspec.Struct):
    """What stood there after a kill. opens: files that the recipient's key opens; anchored: whether the ledger holds
    the intent; again: outcomes of the trail after the maker ran once more; left: files beside the extract."""

    point: str
    rows: list[int]
    opens: list[str]
    anchored: bool
    intents: int
    again: list[str]
    left: list[str]


def table() -> pa.Table:
    return pa.table({"visits": list(range(500)), "cost": [1.5] * 500, "health": ["good"] * 500})


class Kills:
    """Steps counted; the process ends before the one numbered `at`, as if the power failed."""

    def __init__(self, at: int, said: int) -> None:
        self._left, self._said = at, said

    def at(self, owner: Any, name: str) -> None:
        """Make the first calls of `owner.name` two steps each: before it and after it."""
        inner: Callable[..., Any] = getattr(owner, name)
        calls = count()

        def counted(*arguments: Any, **options: Any) -> Any:
            if next(calls) >= _CALLS:
                return inner(*arguments, **options)
            self._step(f"before {name}")
            answer = inner(*arguments, **options)
            self._step(f"after {name}")
            return answer

        setattr(owner, name, counted)

    def _step(self, name: str) -> None:
        self._left -= 1
        if self._left == 0:
            os.write(self._said, name.encode())
            os.kill(os.getpid(), signal.SIGKILL)


def make(folder: Path, issuer: Issuer) -> None:
    """What a gateway does, also after a crash."""
    path = folder / "a.extract"
    wanted = msgspec.structs.replace(issuer.wanted(KEY.key, 500), extract=EXTRACT)
    if was_released(path, EXTRACT):
        for intent in issuer.trail.unfinished():
            issuer.trail.outcome(intent, "released")
        return
    issuer.make(path, table(), wanted)


def killed(folder: Path, terms: GrantTerms, at: int, said: int) -> None:
    kills = Kills(at, said)
    for owner, name in (
        (os, "open"),
        (os, "fsync"),
        (os, "link"),
        (Path, "unlink"),
        (parquet._Sink, "write"),
        (extracts, "seal_end"),
        (AuditTrail, "_append"),
        (AuditTrail, "anchored"),
    ):
        kills.at(owner, name)
    with issuer_in(folder, terms) as issuer:
        make(folder, issuer)


def look(folder: Path, terms: GrantTerms, point: str) -> None:
    with issuer_in(folder, terms) as issuer:
        rows: list[int] = []
        opens: list[str] = []
        for path in sorted(folder.glob("*a.extract*")):
            try:
                _, found = open_extract(path, [KEY], [issuer.signer.key], terms.recipient, issuer.now)
            except MedveilError:
                continue
            assert found.equals(table().select(["health", "cost", "visits"]))
            rows.append(found.num_rows)
            opens.append(path.name)
        entries = issuer.trail.entries()
        intents = [entry.sequence for entry in entries if entry.nonce == EXTRACT]
        anchored = bool(intents) and issuer.trail.last - issuer.trail.waiting() >= intents[0]
        clear_leftovers(folder)
        make(folder, issuer)
        after = issuer.trail.entries()
        intents = [entry.sequence for entry in after if entry.nonce == EXTRACT]
        _, found = open_extract(folder / "a.extract", [KEY], [issuer.signer.key], terms.recipient, issuer.now)
        rows.append(found.num_rows)
        left = [path.name for path in sorted(folder.glob("*a.extract*"))]
        outcomes = [entry.outcome for entry in after]
        seen = Look(point, rows, opens, anchored, len(intents), outcomes, left)
    os.write(1, msgspec.json.encode(seen) + b"\n")


def forked(step: Callable[[], None]) -> int:
    """How a child that runs `step` ended: its signal, or 0."""
    child = os.fork()
    if child == 0:
        try:
            step()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), status
    return status


def main() -> None:
    folder = Path(sys.argv[1])
    terms = decode(GrantTerms, (folder / "terms").read_bytes())
    at = 0
    while True:
        at += 1
        place = folder / str(at)
        place.mkdir()
        heard, said = os.pipe()
        status = forked(lambda: killed(place, terms, at, said))  # noqa: B023 - runs before the next round
        os.close(said)
        point = os.read(heard, 100).decode()
        os.close(heard)
        if status == 0:
            return
        forked(lambda: look(place, terms, point))  # noqa: B023


if __name__ == "__main__":
    main()
