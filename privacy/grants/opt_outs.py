"""Opt-outs: what a patient does not want done with their data, beyond what grants and law allow.

A patient says to the organisation that keeps the records: no secondary use at all, or none for a purpose, by a
recipient, or in a way of use; from an instant on, until another. It is kept at home under the patient's keyed
id (`privacy.vault`, note kind `NOTE`), sealed, and nothing of it goes anywhere.

    scope id    "all" | "purpose:HRESCH" | "recipient:university" | "use:extract"

A decision works on scope ids, not on persons: it says which scopes a use must leave out (`Decision.excluded`),
and whoever carries the use out leaves out the persons behind them (`OptOutRegister.persons`): general ones are
cut out of snapshots, scoped ones when the rows are read. A use of one named person's record is denied outright.

What an opt-out does not reach: "all" leaves treatment, payment of the patient's own care and what patients ask
for themselves alone; and where the grant rests on a statutory duty or a public-health emergency the law puts
the patient's word aside (PIPL 13 and 44). Everything else, other scopes of "purpose" and so on included, it does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

import msgspec

from privacy.grants.purposes import covering, meaning, purpose
from privacy.grants.terms import USE_KINDS, LegalBasis
from wire import messages
from wire.canonical import Wire, decode, encode
from wire.dates import Instant, format_instant
from wire.errors import DecodeError, Refused
from wire.identifiers import Handle, check_name

NOTE = "opt-out"
"""Kind of the notes about persons in the vault that hold opt-outs."""
VERSION = 1
NO_END = 2**63 - 1
"""`until` of an opt-out that lasts."""
MOST_OF_ONE = 100
"""Most opt-outs of one person."""

Scope = Literal["all", "purpose", "recipient", "use"]
ScopeId = Annotated[str, msgspec.Meta(min_length=3, max_length=80)]

ALL: ScopeId = "all"
PRIMARY = frozenset(("TREAT", "HPAYMT", "PATRQT"))
"""Purposes that "all" leaves alone, with what is below them."""
OVERRIDING: frozenset[LegalBasis] = frozenset(("statutory-duty", "public-health-emergency"))
"""Bases on which no opt-out counts."""


class OptOut(Wire, frozen=True, tag="privacy.opt_out"):
    """One opt-out, in force while since <= now < until. value: of the scope; "" where it is "all"."""

    scope: Scope
    value: Annotated[str, msgspec.Meta(max_length=64)]
    since: Instant
    until: Instant = NO_END

    @property
    def scope_id(self) -> ScopeId:
        """What decisions call it."""
        return self.scope if self.scope == ALL else f"{self.scope}:{self.value}"

    def in_force(self, at: int) -> bool:
        """Whether it holds at that instant."""
        return self.since <= at < self.until


class PersonOptOuts(Wire, frozen=True, tag="privacy.person_opt_outs"):
    """All opt-outs of one person, past ones too: the content of the person's note. Secret."""

    version: Annotated[int, msgspec.Meta(ge=1, le=255)]
    opt_outs: Annotated[tuple[OptOut, ...], msgspec.Meta(max_length=MOST_OF_ONE)]

    def __repr__(self) -> str:
        return "PersonOptOuts()"


class PersonScopes(Wire, frozen=True, tag="privacy.person_scopes"):
    """The scopes in force of one person (keyed id)."""

    person: Handle
    scopes: tuple[ScopeId, ...]


class OptOutState(Wire, frozen=True, tag="privacy.opt_out_state"):
    """What a decision reads. scopes: those in force of anybody; persons: of those whom requests name.

    Of a person who is not among `persons` nothing is known: whoever asks about a person puts them here.
    """

    scopes: tuple[ScopeId, ...] = ()
    persons: tuple[PersonScopes, ...] = ()

    def of(self, person: bytes) -> tuple[ScopeId, ...]:
        """The scopes of one person. Raises LookupError for one of whom nothing is known."""
        found = [one.scopes for one in self.persons if one.person == person]
        if not found:
            raise LookupError("nobody looked up the opt-outs of this person")
        return tuple(scope for scopes in found for scope in scopes)


_REACH = {
    "all": "privacy.opt_out_all",
    "purpose": "privacy.opt_out_purpose",
    "recipient": "privacy.opt_out_recipient",
    "use": "privacy.opt_out_use",
}
_WITHDRAWN = {"en": "it is withdrawn", "zh": "撤回"}


def reach_text(opt_out: OptOut, language: str = "en") -> str:
    """What an opt-out stops, and which uses go on all the same, in "en" or "zh"."""
    until = _WITHDRAWN[language] if opt_out.until == NO_END else format_instant(opt_out.until)
    value = opt_out.value
    if opt_out.scope == "purpose":
        value = f"{value} ({purpose(value).title(language)})"
    facts = {"since": format_instant(opt_out.since), "until": until, "value": value}
    said = messages.sentence(_REACH[opt_out.scope], facts, language)
    return said + ("" if language == "zh" else " ") + messages.sentence("privacy.opt_out_duty", {}, language)


def check_opt_out(opt_out: OptOut) -> None:
    """Check what the types cannot say. Raises Refused."""
    match opt_out.scope:
        case "all":
            known = opt_out.value == ""
        case "purpose":
            known = purpose(opt_out.value).code == opt_out.value
        case "recipient":
            known = _is_name(opt_out.value)
        case "use":
            known = opt_out.value in USE_KINDS
    if not known or not opt_out.since < opt_out.until:
        raise Refused("privacy.opt_out_form", scope=opt_out.scope)


def _is_name(value: str) -> bool:
    try:
        check_name(value)
    except DecodeError:
        return False
    return True


def note_of(opt_outs: Iterable[OptOut]) -> bytes:
    """The content of a person's note (secret). Raises Refused for one that is none, or too many."""
    kept = tuple(dict.fromkeys(opt_outs))
    for opt_out in kept:
        check_opt_out(opt_out)
    if len(kept) > MOST_OF_ONE:
        raise Refused("privacy.opt_outs_many", limit=MOST_OF_ONE)
    return encode(PersonOptOuts(VERSION, kept))


def opt_outs_in(content: bytes) -> tuple[OptOut, ...]:
    """The opt-outs that a note holds. Raises DecodeError, Refused."""
    found = decode(PersonOptOuts, content)
    if found.version != VERSION:
        raise Refused("privacy.opt_out_form", scope="version")
    for opt_out in found.opt_outs:
        check_opt_out(opt_out)
    return found.opt_outs


def withdrawn(opt_outs: Iterable[OptOut], scope_id: str, at: int) -> tuple[OptOut, ...]:
    """The opt-outs of a person after those of one scope ended at `at`; one that had not begun is gone."""
    left = []
    for one in opt_outs:
        if one.scope_id != scope_id or one.until <= at:
            left.append(one)
        elif one.since < at:
            left.append(msgspec.structs.replace(one, until=at))
    return tuple(left)


def matching(scopes: Iterable[ScopeId], asked: str, recipient: str, kind: str, legal_basis: str) -> tuple[ScopeId, ...]:
    """Those of `scopes` that a use falls under, sorted. asked: its purpose; legal_basis: of its grant."""
    if legal_basis in OVERRIDING:
        return ()
    under = {f"recipient:{recipient}", f"use:{kind}", *(f"purpose:{code}" for code in meaning(asked))}
    if covering(asked).isdisjoint(PRIMARY):
        under.add(ALL)
    return tuple(sorted(under.intersection(scopes)))


class OptOutRegister:
    """All opt-outs at home, by person and by scope. Secret: it stays in the process that holds the vault.

    notes: keyed person ids and contents as the vault gives them out; several of one person count together. Raises
    DecodeError, Refused for a note that is none: persons are never left in because their opt-out could not be read.
    """

    def __init__(self, notes: Iterable[tuple[bytes, bytes]]) -> None:
        self._of: dict[bytes, tuple[OptOut, ...]] = {}
        for person, content in notes:
            self._of[person] = tuple(dict.fromkeys((*self._of.get(person, ()), *opt_outs_in(content))))
        self._by_scope: dict[ScopeId, list[tuple[bytes, OptOut]]] = {}
        for person, opt_outs in self._of.items():
            for one in opt_outs:
                self._by_scope.setdefault(one.scope_id, []).append((person, one))

    @property
    def opt_outs(self) -> Mapping[bytes, tuple[OptOut, ...]]:
        """By person."""
        return self._of

    def state(self, at: int, persons: Iterable[bytes] = ()) -> OptOutState:
        """What a decision at instant `at` reads. persons: those whom its request names."""
        in_force = (scope for scope, held in self._by_scope.items() if any(one.in_force(at) for _, one in held))
        named = tuple(PersonScopes(person, self.scopes_of(person, at)) for person in persons)
        return OptOutState(tuple(sorted(in_force)), named)

    def scopes_of(self, person: bytes, at: int) -> tuple[ScopeId, ...]:
        """The scopes of one person at instant `at`, sorted."""
        return tuple(sorted({one.scope_id for one in self._of.get(person, ()) if one.in_force(at)}))

    def persons(self, scopes: Iterable[ScopeId], at: int) -> frozenset[bytes]:
        """Keyed ids of the persons whom a use must leave out. scopes: `Decision.excluded`, or (ALL,) for snapshots."""
        found = (pair for scope in scopes for pair in self._by_scope.get(scope, ()))
        return frozenset(person for person, one in found if one.in_force(at))

    def __repr__(self) -> str:
        return f"OptOutRegister({len(self._of)})"
