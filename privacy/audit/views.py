"""Views of a trail: what was used by a recipient, under a grant, of a dataset; and what may concern one person.

Entries name no person. What concerns one is put together at home, from two sources:

    noted     uses that looked at this person's own record: views, proofs, scores, extracts, erasures. They were
              noted beside the chain, under the vault's keyed id
    possible  other uses of a dataset that holds rows of the person: a query looks at many. The grant's row filter
              says whether it could reach them; what the query itself filtered stands nowhere. So are uses of before
              an erasure of the person in it: whether one reached rows that are gone, nobody can tell any more

The answer to a person's "who used my data" (PIPL article 45) is both, told apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from privacy.audit.entries import OWN_KINDS, Entry, Outcome

_PIECE = 500
_UNDER_WAY = 1 << 63


class Trail(Protocol):
    """What a view reads: `privacy.audit.AuditTrail`."""

    def intents(self, column: str, value: str | bytes, first: int = 1, limit: int = 1000) -> tuple[Entry, ...]:
        """Intents of one recipient, dataset, grant_id or person."""
        ...

    def end(self, intent: int) -> Entry | None:
        """The entry that ended one."""
        ...


Reaches = Callable[[str, str], bool | None]
"""(dataset, grant id) -> whether the grant's row filter lets a row of the person through; None: not known any more."""


class UseSeen(msgspec.Struct, frozen=True):
    """A use from intent to outcome. ended: None while it is under way, or where the process was killed."""

    intent: Entry
    ended: Entry | None

    @property
    def outcome(self) -> Outcome:
        """How it ended, "" if it has not."""
        return "" if self.ended is None else self.ended.outcome


class PersonView(msgspec.Struct, frozen=True):
    """What may concern one person. possible: with whether the grant's filter reached a row of theirs, where known.

    known: whether rows of the person are kept, or were named in the trail: of a mistyped identifier nothing is.
    """

    noted: tuple[UseSeen, ...]
    possible: tuple[tuple[UseSeen, bool | None], ...]
    known: bool = True


def of_recipient(trail: Trail, recipient: str, first: int = 1, limit: int = 1000) -> tuple[UseSeen, ...]:
    """Up to `limit` uses by a recipient, allowed or denied, those whose intent is entry `first` or later."""
    return _seen(trail, trail.intents("recipient", recipient, first, limit))


def of_grant(trail: Trail, grant: str, first: int = 1, limit: int = 1000) -> tuple[UseSeen, ...]:
    """Up to `limit` uses under a grant, or denied by it."""
    return _seen(trail, trail.intents("grant_id", grant, first, limit))


def of_dataset(trail: Trail, dataset: str, first: int = 1, limit: int = 1000) -> tuple[UseSeen, ...]:
    """Up to `limit` uses of a dataset."""
    return _seen(trail, trail.intents("dataset", dataset, first, limit))


def of_person(
    trail: Trail, person: bytes, datasets: Sequence[str], reaches: Reaches, earlier: Sequence[bytes] = ()
) -> PersonView:
    """All that may concern a person (keyed id, 16 bytes, private). datasets: those that hold rows of theirs. earlier:
    ids that the person had before: entries are never changed, and may have them.

    Denied uses, in which nobody's row was looked at, are not among the possible ones; nor is a use that ended without
    a release, or one whose grant's filter is known to leave the person out. What an erasure took does not count as left
    out by the rows that are there now.
    """
    entries = {entry.sequence: entry for one in (person, *earlier) for entry in _all(trail, "person", one)}
    noted = _seen(trail, [entries[number] for number in sorted(entries)])
    direct = {seen.intent.sequence for seen in noted}
    erased = _erased(noted)
    possible = []
    for dataset in dict.fromkeys((*datasets, *erased)):
        for seen in _seen(trail, _all(trail, "dataset", dataset)):
            use, before = seen.intent.use, seen.intent.sequence < erased.get(dataset, 0)
            if not use.allowed or use.kind in OWN_KINDS or seen.intent.sequence in direct:
                continue
            if not before and dataset not in datasets:
                continue
            reached = reaches(dataset, use.grant) if dataset in datasets else None
            reached = reached or None if before else reached
            if seen.outcome in ("", "released") and reached is not False:
                possible.append((seen, reached))
    ordered = tuple(sorted(possible, key=lambda pair: pair[0].intent.sequence))
    return PersonView(noted, ordered, known=bool(noted or datasets))


def _erased(noted: Iterable[UseSeen]) -> dict[str, int]:
    """By dataset, the number in the trail up to which uses may have reached rows that an erasure took."""
    found: dict[str, int] = {}
    for seen in noted:
        if seen.intent.use.kind == "erasure" and seen.outcome != "failed":
            until = seen.ended.sequence if seen.ended is not None else _UNDER_WAY
            found[seen.intent.use.dataset] = max(until, found.get(seen.intent.use.dataset, 0))
    return found


def _seen(trail: Trail, intents: Iterable[Entry]) -> tuple[UseSeen, ...]:
    return tuple(UseSeen(entry, trail.end(entry.sequence)) for entry in intents)


def _all(trail: Trail, column: str, value: str | bytes) -> Iterator[Entry]:
    first = 1
    while found := trail.intents(column, value, first, _PIECE):
        yield from found
        first = found[-1].sequence + 1
