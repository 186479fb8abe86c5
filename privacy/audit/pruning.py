"""Cutting off the old end of a trail, when the law lets it go; the rest of the chain stays verifiable.

What is pruned is a beginning of the chain that ends where an anchored batch ends; never the newest batch. The head
after it is kept, and the ledger has it too: the chain goes on from there. Every entry of it must be old enough,
counted from how its use ended:

    released to others                        36 months (PIPL 56)
    denied, aborted, failed, done at home      6 months (Cybersecurity Law 21)

A grant may say a later day until which the records of sharing under it are kept (`GrantTerms.records_until`): what was
released under it stays until then. A use without an outcome, or with one after the cut, holds the cut before it.
Pruning is an entry of the chain itself, with the head at which it cut.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from privacy.audit.entries import Entry, own_use
from privacy.audit.trail import AuditTrail
from privacy.retention import LOG_MONTHS, SHARING_MONTHS, ZONE, kept_over, months_after
from wire.dates import date_of, day_at, format_instant
from wire.errors import Refused

TRAIL = "audit"
"""Stands in place of a dataset in the entry of a pruning."""

_PIECE = 2000


class Periods(msgspec.Struct, frozen=True):
    """Months for which entries are kept. logs: at least 6; shared: of what was released to others, at least 36."""

    logs: int = LOG_MONTHS
    shared: int = SHARING_MONTHS

    def __post_init__(self) -> None:
        if self.logs < LOG_MONTHS or self.shared < SHARING_MONTHS:
            raise ValueError(f"logs are kept {LOG_MONTHS} months and sharing records {SHARING_MONTHS}, or longer")

    def of(self, ended: Entry) -> int:
        """For how long the use is kept that this outcome ended."""
        return self.shared if ended.outcome == "released" else self.logs


LAW = Periods()

Promised = Mapping[str, int]
"""By grant: the instant until which records of sharing under it are kept, by its terms."""
NOTHING: Promised = MappingProxyType({})


def prunable(trail: AuditTrail, at: int, periods: Periods = LAW, zone: str = ZONE, promised: Promised = NOTHING) -> int:
    """The last entry up to which the trail may be pruned at instant `at`; 0 where nothing is old enough."""
    ends = [last for _, last in trail.anchored_batches()[:-1]]
    best, latest = 0, 0
    uses = _uses(trail, ends[-1] if ends else 0)
    for end in ends:
        while uses and uses[0][0] <= end:
            _, outcome = uses.popleft()
            if outcome is None or _until(outcome, at, periods, zone, promised) is not None:
                return best
            latest = max(latest, outcome.sequence)
        if latest <= end:
            best = end
    return best


def prune(
    trail: AuditTrail, last: int, at: int, periods: Periods = LAW, zone: str = ZONE, promised: Promised = NOTHING
) -> int:
    """Cut off entries up to `last` at instant `at`; returns how many went. Again, after a crash, it goes on.

    Raises Refused: no anchored batch ends there, or it is the newest; an entry must be kept, naming the first such and
    until when; a use among them has not ended, or ended after `last`.
    """
    if trail.pruned.last == last and last:
        _end(trail, trail.pruned.head)
        return 0
    ends = [end for _, end in trail.anchored_batches()[:-1]]
    if last not in ends:
        raise Refused("privacy.audit_cut", last=last, nearest=max((end for end in ends if end < last), default=0))
    held = _held(trail, last, at, periods, zone, promised)
    if held is not None:
        sequence, until = held
        if until is None:
            raise Refused("privacy.audit_unfinished", sequence=sequence)
        raise Refused("privacy.audit_kept", sequence=sequence, until=until)
    head = trail.entries(last, last)[0].head()
    _end(trail, head)
    trail.intent(own_use(trail.organisation, TRAIL, "pruning", head), head[:16])
    gone = trail.cut(last, at)
    _end(trail, head)
    return gone


def _end(trail: AuditTrail, head: bytes) -> None:
    """Write the outcome of prunings that have none: done where the trail was cut, failed where another is under way."""
    for intent in trail.unfinished():
        for entry in trail.entries(intent, intent):
            if entry.use.kind == "pruning" and trail.pruned.head == entry.use.query:
                trail.outcome(intent, "done")
            elif entry.use.kind == "pruning" and entry.use.query != head:
                trail.outcome(intent, "failed")


def _held(
    trail: AuditTrail, last: int, at: int, periods: Periods, zone: str, promised: Promised
) -> tuple[int, str | None] | None:
    """The first intent up to `last` that holds a cut there: until which day, or None for no outcome up to there."""
    for intent, outcome in _uses(trail, last):
        if outcome is None:
            return intent, None
        until = _until(outcome, at, periods, zone, promised)
        if until is not None:
            return intent, until
    return None


def _until(outcome: Entry, at: int, periods: Periods, zone: str, promised: Promised) -> str | None:
    """The day until which the use is kept that this outcome ended; None where instant `at` is past it."""
    months = periods.of(outcome)
    until = promised.get(outcome.use.grant, at) if outcome.outcome == "released" else at
    if at < until:
        return format_instant(until)[:10]
    if kept_over(at, outcome.time, months, zone):
        return None
    return date_of(months_after(day_at(outcome.time, zone), months)).isoformat()


def _uses(trail: AuditTrail, last: int) -> deque[tuple[int, Entry | None]]:
    """Every intent up to entry `last`, in order, with its outcome if that stands there too."""
    ended: dict[int, Entry] = {}
    intents: list[int] = []
    for first in range(trail.pruned.last + 1, last + 1, _PIECE):
        for entry in trail.entries(first, min(last, first + _PIECE - 1)):
            if entry.intent:
                ended[entry.intent] = entry
            else:
                intents.append(entry.sequence)
    return deque((intent, ended.get(intent)) for intent in intents)
