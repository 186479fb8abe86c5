"""The extracts that an organisation makes: what is kept of each, from the body on its disk to the recipient's word.

    staged -> released -> leaving -> delivered
                 |           |
             withdrawn    recalled

Until the last bytes of a file are sent, which hold its key, its recipient has noise: what is taken back by then has
never left. From the moment on at which they are about to be sent it may have, and its recipient is told to delete it.
"""

from __future__ import annotations

from pathlib import Path
from threading import RLock
from typing import Annotated, Literal

import msgspec

from medveil.gateway.extract_bytes import remove
from medveil.gateway.organisation import Organisation
from privacy.copies.extract_file import ExtractFacts
from privacy.copies.extracts import SUFFIX, was_released
from privacy.decide import Decision, UseRequest
from privacy.vault.places import ID_BYTES
from wire.canonical import Wire, decode, encode
from wire.dates import Instant
from wire.errors import DecodeError, Refused, Unavailable, VerificationError

FOLDER = "extracts"
MADE = "made"
"""Folders of an organisation's home: extracts it made, until they are delivered, beside those it holds."""

_MADE = "extract-made"

ExtractState = Literal["staged", "released", "leaving", "delivered", "withdrawn", "recalled"]

settling = RLock()
"""Held, in a thread, while the state of an extract is looked at and changed: its delivery, people, erasures and rounds
do so side by side."""


class Basis(Wire, frozen=True, tag="medveil.extract_basis"):
    """What the rows of an extract rest on. Secret.

    decision: as it was when the rows were read. table, changes: of the vault's description of the dataset then:
    `changes` counts erasures and restrictions, and not what is added. left_out: keyed ids (16 bytes each, sorted) of
    those who objected, joined.
    """

    request: UseRequest
    decision: Decision
    table: int
    changes: int
    left_out: bytes

    def without(self) -> frozenset[bytes]:
        """Who was left out, by keyed id (secret)."""
        return frozenset(self.left_out[at : at + ID_BYTES] for at in range(0, len(self.left_out), ID_BYTES))

    def __repr__(self) -> str:
        return f"Basis({self.decision.grant!r})"


class MadeExtract(Wire, frozen=True, tag="medveil.made_extract"):
    """An extract of this organisation. at: of its latest state.

    staged: its body stands on disk, nobody has its key; released: the file is here, to be delivered; leaving: its last
    bytes are about to be sent, or were: the recipient may have it; delivered: the recipient has it, nothing is left
    here; withdrawn: it was released and never left, and is gone; recalled: it was taken back when it may have left, and
    its recipient is told to delete it. code: why, or "". cut: keyed hash of columns and row filter that were wished,
    b"" in notes of before. basis: until it is delivered or taken back.
    """

    ask: Annotated[bytes, msgspec.Meta(max_length=16)]
    facts: ExtractFacts
    state: ExtractState
    at: Instant
    code: Annotated[str, msgspec.Meta(max_length=100)] = ""
    cut: Annotated[bytes, msgspec.Meta(max_length=32)] = b""
    basis: Basis | None = None

    @property
    def extract(self) -> bytes:
        """Its id."""
        return self.facts.cover.extract

    @property
    def undelivered(self) -> bool:
        """Whether it is on its way: released, and neither with its recipient for good nor taken back."""
        return self.state in ("released", "leaving")

    @property
    def ended(self) -> bool:
        """Whether it was delivered or taken back: nothing of it is to stand here."""
        return self.state in ("delivered", "withdrawn", "recalled")

    @property
    def out(self) -> bool:
        """Whether its recipient has it, may have it, or is to have it."""
        return self.undelivered or self.state in ("delivered", "recalled")

    @property
    def may_have_left(self) -> bool:
        """Whether its recipient may have it, or may have had it, by what is noted here.

        Versions that kept no basis did not note when the last bytes went.
        """
        unknown = self.state == "released" and self.basis is None
        return unknown or self.state in ("leaving", "delivered", "recalled")

    def brings(self, dataset: str, recipient: str) -> bool:
        """Whether it brought rows of that dataset to that recipient, or is to."""
        return (self.facts.dataset, self.facts.cover.recipient) == (dataset, recipient) and self.out


def made_folder(holder: Organisation) -> Path:
    """Where extracts stand that this organisation made; it is there when this returns. Raises Unavailable."""
    folder = holder.folder / FOLDER / MADE
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable("privacy.store_failed", path=str(folder), reason=error.strerror or "I/O") from None
    return folder


def made_path(holder: Organisation, extract: bytes) -> Path:
    """Where the file of an extract stands until it is delivered."""
    return made_folder(holder) / f"{extract.hex()}{SUFFIX}"


def stands(holder: Organisation, extract: bytes) -> bool:
    """Whether the file of an extract stands here, as it is released. One that is damaged goes: nobody could open it.

    Raises Unavailable.
    """
    path = made_path(holder, extract)
    try:
        return was_released(path, extract)
    except (DecodeError, VerificationError):
        remove(path)
        return False


def made(holder: Organisation) -> tuple[MadeExtract, ...]:
    """What this organisation made, the oldest first."""
    found = (find_made(holder, bytes.fromhex(name)) for name in holder.vault.documents(_MADE))
    return tuple(sorted((one for one in found if one is not None), key=lambda one: (one.facts.made, one.extract)))


def find_made(holder: Organisation, extract: bytes) -> MadeExtract | None:
    """One of them; None where there is none."""
    kept = holder.vault.find_document(_MADE, extract.hex())
    return None if kept is None else decode(MadeExtract, _of_today(kept))


def _of_today(kept: bytes) -> bytes:
    """What is kept of an extract, as it is written today: one of before has no basis, as if its rows rested on nothing
    that is known."""
    fields = msgspec.msgpack.decode(kept)
    if not isinstance(fields, list) or len(fields) != len(MadeExtract.__struct_fields__):  # the tag, and one field less
        return kept
    return msgspec.msgpack.encode([*fields, None])


def made_of(holder: Organisation, extract: bytes) -> MadeExtract:
    """One of them. Raises Refused where there is none."""
    found = find_made(holder, extract)
    if found is None:
        raise Refused("extracts.unknown", extract=extract.hex())
    return found


def keep_made(holder: Organisation, one: MadeExtract) -> MadeExtract:
    """Keep how an extract stands; returns it."""
    holder.vault.put_document(_MADE, one.extract.hex(), encode(one))
    return one


def forget_made(holder: Organisation, extract: bytes) -> None:
    """Keep nothing of an extract that was never released."""
    holder.vault.remove_document(_MADE, extract.hex())


def moved(holder: Organisation, one: MadeExtract, state: ExtractState, at: int, code: str = "") -> MadeExtract:
    """Keep that an extract is in another state from instant `at` on; returns it as it stands then.

    What it rests on is forgotten once nothing of it leaves any more: it names who objected.
    """
    basis = one.basis if state in ("released", "leaving") else None
    return keep_made(holder, msgspec.structs.replace(one, state=state, at=at, code=code, basis=basis))
