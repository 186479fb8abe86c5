"""What an erasure does, decided before anything is done: a pure function of keys, duties, holds and the day.

    active      ->  restricted   a duty to keep runs, or a legal hold stands: storage and security only (PIPL 47)
    active      ->  erased       neither: the data key is destroyed at once
    restricted  ->  erased       when the later of both has ended

The unit is the data key: the rows of one person in one dataset that came in one load with one `retain_until`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal, Protocol

import msgspec

from privacy.legal_holds import LegalHold, held_until
from privacy.retention import over
from wire.canonical import Wire
from wire.dates import NO_END, Day
from wire.identifiers import Handle, Name

Ground = Literal["request", "consent-withdrawn", "retention-over"]
"""Why: the person asked for it; withdrew consent; or what was restricted before has been kept long enough."""
GROUNDS: tuple[Ground, ...] = ("request", "consent-withdrawn", "retention-over")

Why = Literal["retention", "hold"]


class HeldKey(Protocol):
    """What a plan looks at of a data key: `privacy.vault.DataKey`."""

    @property
    def key(self) -> bytes:
        """Its random 16-byte id."""
        ...

    @property
    def dataset(self) -> str:
        """The dataset of its rows."""
        ...

    @property
    def rows(self) -> int:
        """How many rows it opens."""
        ...

    @property
    def retain_until(self) -> int | None:
        """The last civil day on which they must be kept; None for no duty."""
        ...


class PlannedKey(Wire, frozen=True, tag="privacy.planned_key"):
    """One data key in a plan. why: what keeps it; empty for one that is erased. until: the last day of that; `NO_END`:
    a hold that has to be lifted, or a duty without an end."""

    key: Handle
    dataset: Name
    rows: Annotated[int, msgspec.Meta(ge=0)]
    why: tuple[Why, ...]
    until: Day


class ErasurePlan(Wire, frozen=True, tag="privacy.erasure_plan"):
    """What is erased now and what is restricted until when. Private: it says what is held of one person.

    erasure: 16 random bytes, its id. person: keyed id (16 bytes). day: the civil day it was made for. follows: id of
    the erasure that restricted what this one erases, or empty.
    """

    erasure: Handle
    organisation: Name
    ground: Ground
    person: Handle
    day: Day
    follows: Annotated[bytes, msgspec.Meta(max_length=16)]
    erase: tuple[PlannedKey, ...]
    restrict: tuple[PlannedKey, ...]

    @property
    def datasets(self) -> tuple[str, ...]:
        """The datasets that it concerns, sorted."""
        return tuple(sorted({one.dataset for one in (*self.erase, *self.restrict)}))


def plan_erasure(
    erasure: bytes,
    organisation: str,
    person: bytes,
    keys: Iterable[HeldKey],
    holds: Sequence[LegalHold],
    today: int,
    ground: Ground = "request",
    follows: bytes = b"",
) -> ErasurePlan:
    """The plan for the data keys of one person on civil day `today`. The order of keys and holds does not matter."""
    erase: list[PlannedKey] = []
    restrict: list[PlannedKey] = []
    for key in sorted(keys, key=lambda one: (one.dataset, one.key)):
        why: list[Why] = []
        until = 0
        if not over(key.retain_until, today):
            why.append("retention")
            until = key.retain_until if key.retain_until is not None else NO_END
        held = held_until(holds, person, key.dataset, today)
        if held is not None:
            why.append("hold")
            until = max(until, held)
        planned = PlannedKey(key.key, key.dataset, key.rows, tuple(why), until)
        (restrict if why else erase).append(planned)
    return ErasurePlan(erasure, organisation, ground, person, today, follows, tuple(erase), tuple(restrict))


def still_erasable(plan: ErasurePlan, holds: Sequence[LegalHold], today: int) -> ErasurePlan:
    """The plan as it is to be carried out on civil day `today`: what a hold keeps by then is restricted instead."""
    erase: list[PlannedKey] = []
    restrict = list(plan.restrict)
    for one in plan.erase:
        held = held_until(holds, plan.person, one.dataset, today)
        if held is None:
            erase.append(one)
        else:
            restrict.append(msgspec.structs.replace(one, why=("hold",), until=held))
    restrict.sort(key=lambda one: (one.dataset, one.key))
    return msgspec.structs.replace(plan, erase=tuple(erase), restrict=tuple(restrict))
