"""What is told of erasures, legal holds and one person's uses: to callers of the API and at the command line alike.

Plain values, as JSON has them: instants in ms UTC with 0 for not yet, civil days as YYYY-MM-DD with None for no end.
Nothing here names a person; an erasure is told by its id, a use by its number in the trail.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from medveil.gateway.erasure_checks import CheckKept
from privacy.audit.views import PersonView, UseSeen
from privacy.erasure.plan import PlannedKey
from privacy.erasure.receipt import beyond_text
from privacy.erasure.steps import Erasure
from privacy.explain import Sight
from privacy.legal_holds import LegalHold
from wire.dates import NO_END, date_of

Told = dict[str, Any]


def erasure_told(one: Erasure, under_way: Collection[str] = (), unplanned: int | None = None) -> Told:
    """An erasure and how far it came. under_way: names, `privacy.erasure.steps.under_way`. unplanned:
    `privacy.erasure.steps.unplanned`, where that was looked at.
    """
    return {
        "erasure": one.name,
        "ground": one.plan.ground,
        "reference": one.reference,
        "state": _state(one, under_way),
        "requested": one.requested,
        "erase": [_key(key) for key in one.plan.erase],
        "restrict": [{**_key(key), "until": day_told(key.until), "why": list(key.why)} for key in one.plan.restrict],
        "destroyed": one.destroyed,
        "done": one.done,
        "rotate_by": one.rotate_by if one.plan.erase else 0,
        "rotated": one.rotated,
        "unplanned": unplanned,
        "extracts": [
            {
                "recipient": given.recipient,
                "dataset": given.dataset,
                "grant": given.grant,
                "told": given.told,
                "deleted": given.deleted,
            }
            for given in one.given
        ],
    }


def _key(key: PlannedKey) -> Told:
    return {"dataset": key.dataset, "rows": key.rows}


def _state(one: Erasure, under_way: Collection[str]) -> str:
    if one.done:
        return "done" if one.rotated or not one.plan.erase else "done, epoch not rotated"
    return "under way" if one.traces or one.name in under_way else "planned"


def due_told(one: Erasure, keys: Iterable[PlannedKey]) -> Told:
    """What may be erased by now of what an earlier erasure restricted."""
    return {"follows": one.name, "reference": one.reference, "erase": [_key(key) for key in keys]}


def hold_told(hold: LegalHold) -> Told:
    """A legal hold."""
    return {
        "hold": hold.hold,
        "of": "one person" if hold.person else "everybody",
        "dataset": hold.dataset,
        "since": day_told(hold.since),
        "until": day_told(hold.until),
        "reference": hold.reference,
    }


def check_told(checked: CheckKept, language: str) -> Told:
    """What a check saw, with what is left and what is not reached in words."""
    leftovers = [
        {"code": one.code, "facts": {fact.name: fact.said for fact in one.facts}, "words": one.text(language)}
        for one in checked.leftovers
    ]
    return {
        "erasure": checked.erasure.hex(),
        "at": checked.at,
        "keys": checked.keys,
        "files": checked.files,
        "bytes": checked.bytes,
        "unread": list(checked.unread),
        "links": list(checked.links),
        "snapshots": checked.snapshots,
        "server": checked.server,
        "leftovers": leftovers,
        "beyond": [beyond_text(what, language) for what in checked.beyond],
    }


def uses_told(view: PersonView) -> Told:
    """Who used one person's data: what looked at the person's own record, and what may have reached it."""
    possible = [{**_use(seen), "reached": reached} for seen, reached in view.possible]
    return {"known": view.known, "noted": [_use(seen) for seen in view.noted], "possible": possible}


def _use(seen: UseSeen) -> Told:
    use = seen.intent.use
    return {
        "entry": seen.intent.sequence,
        "time": seen.intent.time,
        "recipient": use.recipient,
        "dataset": use.dataset,
        "kind": use.kind,
        "purpose": use.purpose,
        "grant": use.grant,
        "allowed": use.allowed,
        "outcome": seen.outcome,
    }


def sight_told(one: Sight, language: str) -> Told:
    """A way in which somebody gets at a column."""
    return {
        "grant": one.grant,
        "recipient": one.recipient,
        "kind": one.kind,
        "purpose": one.purpose,
        "cell": one.cell,
        "mask": one.mask,
        "until": one.until,
        "words": one.text(language),
    }


def day_told(day: int) -> str | None:
    """A civil day; None for no end."""
    return None if day == NO_END else date_of(day).isoformat()
