"""What is meant to be where it is found, and why: nothing else may be.

Each rule names the place, whose it is, the kinds of marker, and the reason that the report prints. Each of those that
`SEEN` names must be found as well: otherwise the search, or what records the answers, does not work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from medveil.leak_test import places
from medveil.leak_test.patients import (
    BILLED_FOR,
    CLAIMED,
    IDENTITY,
    PASSPHRASE,
    PASSWORD,
    SEED,
    SESSION,
    Marker,
)
from medveil.leak_test.places import Place


class Rule(NamedTuple):
    """What may be found. owner: in the owner's own only; names: whether a place's name is one that may hold it."""

    place: str
    kinds: frozenset[str]
    owner: bool
    names: Callable[[str], bool]
    reason: str


def _anywhere(name: str) -> bool:
    return True


def _named(*parts: str) -> Callable[[str], bool]:
    return lambda name: any(part in name for part in parts)


_EVERY = frozenset(
    ("name", "name in Latin letters", "identity number", "phone", "address", "diagnosis", "remark", "record id", "cost",
     "faulty cell")
)  # fmt: skip

INPUT = Rule(places.INPUT, _EVERY, False, _anywhere, "the tables that the hospitals were given to load")
SCORED = Rule(
    places.ANSWERS,
    frozenset(("record id",)),
    True,
    _named("-GET-scores"),
    "a hospital's staff may see which of its own records were scored",
)
TERMS = Rule(
    places.ANSWERS,
    frozenset(("filter of a grant",)),
    False,
    _named("/hospital-", "/researcher-"),
    "a grant's terms are known to its issuer and to its recipient",
)
OPENED = Rule(
    places.ANSWERS,
    frozenset(("cost",)),
    False,
    lambda name: "/researcher-" in name and name.endswith("-POST-extracts"),
    "who opens a copy that was granted gets its rows",
)
TYPED = Rule(
    places.ERRORS,
    frozenset(("what a caller typed",)),
    True,
    _named("-404-GET-datasets"),
    "a dataset that is not there is named to the caller that named it",
)
KEPT = Rule(
    places.OTHER,
    frozenset((PASSPHRASE, PASSWORD, SEED)),
    False,
    _named("consortium/passphrases/", "consortium/people.json"),
    "one person plays all organisations here, and their secrets lie in files of that person's own",
)
GIVEN = Rule(
    places.ANSWERS,
    frozenset((SESSION,)),
    True,
    _named("-POST-sign-in"),
    "who signs in gets a session",
)
ENROLLED = Rule(
    places.ANSWERS, frozenset((SEED,)), True, _named("-POST-me"), "who sets up one-time codes gets their seed"
)
RECIPIENT = Rule(
    places.MEMORY,
    frozenset(("filter of a grant",)),
    False,
    _named("researcher-"),
    "a grant's terms are known to its recipient",
)

HELD = Rule(
    places.MEMORY,
    frozenset(("cost",)),
    False,
    _named("researcher-"),
    "a copy that was granted is opened in its recipient's memory",
)

SIGNED = Rule(
    places.OWN,
    frozenset((IDENTITY, BILLED_FOR, CLAIMED)),
    False,
    _anywhere,
    "issuers say to the insured person what they sign, and she opens an amount to its payer",
)

RULES = (INPUT, SIGNED, SCORED, TERMS, OPENED, TYPED, KEPT, GIVEN, ENROLLED, RECIPIENT, HELD)
SEEN = (INPUT, SCORED, TERMS, OPENED, KEPT, GIVEN, ENROLLED)
"""What must be found, for the test to count."""


def expected(place: Place, marker: Marker) -> Rule | None:
    """The rule by which a marker may be found in a place, if there is one."""
    for rule in RULES:
        if rule.place != place.place or marker.kind not in rule.kinds or not rule.names(place.name):
            continue
        if not rule.owner or place.organisation == marker.owner:
            return rule
    return None
