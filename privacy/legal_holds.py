"""Legal holds: what must not be erased while a dispute, an inspection or an inquiry needs it.

A hold names one person, one dataset, one person in one dataset, or everything. It stands between its first and last
civil day, both included; lifting it ends it with the day before. Holds are private documents of the vault: they are
never removed, so that what was held, and until when, can be shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from threading import RLock
from typing import Annotated, Protocol

import msgspec

from privacy.grants.terms import REFERENCE_LENGTH, Reference
from wire.canonical import Wire, decode, encode
from wire.dates import NO_END, Day
from wire.errors import Refused
from wire.identifiers import Name, check_name

KIND = "legal-hold"
"""The kind of document that keeps a hold, under its id."""
DOCUMENTS = "document."
"""How the names begin under which a vault has the large documents of a person, by their kind."""


settling = RLock()
"""Held while a hold is placed, and while keys are destroyed that none was found to keep: one of both comes first."""


class LegalHold(Wire, frozen=True, tag="privacy.legal_hold"):
    """A hold. person: keyed id (16 bytes, private), or empty for everybody. dataset: "" for all.

    reference: points to the order or file that demands it. since, until: civil days, both held; `NO_END`: until lifted.
    """

    hold: Name
    person: Annotated[bytes, msgspec.Meta(max_length=16)]
    dataset: Annotated[str, msgspec.Meta(max_length=64)]
    reference: Reference
    since: Day
    until: Day

    def holds(self, person: bytes, dataset: str, day: int) -> bool:
        """Whether it keeps this person's rows of this dataset on civil day `day`."""
        named = self.person in (b"", person) and self.dataset in ("", dataset)
        return named and self.since <= day <= self.until


class KeptOf(Protocol):
    """What a hold looks at of a data key: `privacy.vault.DataKey`."""

    @property
    def dataset(self) -> str:
        """The dataset of its rows."""
        ...


class HoldKeeper(Protocol):
    """What keeps holds: a vault."""

    def put_document(self, kind: str, name: str, content: bytes) -> None:
        """Keep a document."""
        ...

    def document(self, kind: str, name: str) -> bytes:
        """A document's content."""
        ...

    def documents(self, kind: str) -> tuple[str, ...]:
        """Names of the documents of one kind."""
        ...


class HeldVault(HoldKeeper, Protocol):
    """The same, with the datasets and persons that a hold can name."""

    def info(self, dataset: str) -> object:
        """A dataset's description. Raises Refused where there is none."""
        ...

    def keys_of(self, person: bytes) -> Sequence[KeptOf]:
        """The data keys of a person, by keyed id."""
        ...


def fits(reference: str) -> bool:
    """Whether a text is a `Reference`. What is not would be kept, and never read again."""
    try:
        reference.encode()
    except UnicodeEncodeError:  # bytes of a terminal that are no text
        return False
    return len(reference) <= REFERENCE_LENGTH


def check_hold(hold: LegalHold) -> None:
    """Check what the types cannot say. Raises Refused naming the field, DecodeError for a name that is none."""
    check_name(hold.hold, "legal hold")
    if hold.dataset:
        check_name(hold.dataset, "dataset")
    for field, wrong in (
        ("person", len(hold.person) not in (0, 16)),
        ("reference", not fits(hold.reference) or not hold.reference),
        ("since", not 0 <= hold.since <= NO_END),
        ("until", not hold.since <= hold.until <= NO_END),
    ):
        if wrong:
            raise Refused("privacy.hold_form", hold=hold.hold, field=field)


def place_hold(vault: HeldVault, hold: LegalHold, *, not_here_yet: bool = False) -> None:
    """Keep a hold. Again with the same it changes nothing.

    not_here_yet: the officer knows that nothing is kept yet of the person whom it names. Raises Refused: another of
    that id, a dataset that the vault does not have, a person of whom nothing is kept there, or as `check_hold`. A name
    that was mistyped would hold nothing, and what it was to keep could be erased.
    """
    check_hold(hold)
    with settling:
        if hold.hold in vault.documents(KIND):
            if _hold(vault, hold.hold) != hold:
                raise Refused("privacy.hold_exists", hold=hold.hold)
            return
        if hold.dataset and not hold.dataset.startswith(DOCUMENTS):
            vault.info(hold.dataset)
        if hold.person and not not_here_yet and not _holds_anything(vault, hold):
            raise Refused("privacy.hold_nobody", hold=hold.hold, dataset=hold.dataset or "*")
        vault.put_document(KIND, hold.hold, encode(hold))


def _holds_anything(vault: HeldVault, hold: LegalHold) -> bool:
    return any(hold.dataset in ("", key.dataset) for key in vault.keys_of(hold.person))


def lift_hold(vault: HoldKeeper, name: str, today: int) -> LegalHold:
    """End a hold with the day before civil day `today`; one that has ended stays as it is. Raises Refused: no such.

    A hold that was placed today has then stood on no day.
    """
    if name not in vault.documents(KIND):
        raise Refused("privacy.no_hold", hold=name[:64])
    hold = _hold(vault, name)
    if hold.until >= today:
        hold = msgspec.structs.replace(hold, until=max(today - 1, 0))
        vault.put_document(KIND, name, encode(hold))
    return hold


def all_holds(vault: HoldKeeper) -> tuple[LegalHold, ...]:
    """Every hold that was ever placed, by id."""
    return tuple(_hold(vault, name) for name in vault.documents(KIND))


def held_until(holds: Iterable[LegalHold], person: bytes, dataset: str, day: int) -> int | None:
    """The last civil day on which a hold that stands on `day` keeps these rows; None where none does."""
    return max((hold.until for hold in holds if hold.holds(person, dataset, day)), default=None)


def _hold(vault: HoldKeeper, name: str) -> LegalHold:
    return decode(LegalHold, vault.document(KIND, name))
