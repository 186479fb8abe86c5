"""Grants and what decisions read beside them, indexed: a decision costs the same with ten grants or ten thousand.

A book is built once from grants that passed `check_grant` and never changes; a grant that is issued makes a new
one. It holds no word of the ledger: whether a grant stands is asked of the state at each decision, so that a
revocation counts from the next call on. `privacy.decide` gives the same answer with a book as with a list.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from privacy.grants.levels import ColumnFacts, DatasetFacts
from privacy.grants.opt_outs import ScopeId
from privacy.grants.purposes import covered
from privacy.grants.terms import VERSION, CheckedGrant, GrantTerms, check_terms
from privacy.predicate import columns
from privacy.uses import NEVER, AnchoredGrant, GrantState, UseRequest
from wire.errors import MedveilError

Parties = tuple[str, str, str]
"""(holder, recipient, dataset)"""


class BookEntry(NamedTuple):
    """A grant, read once.

    fields: granted; filtered: those that its row filter looks at; fault: the field in which its terms are malformed,
    or "".
    """

    terms: GrantTerms
    commitment: bytes
    fields: frozenset[str]
    filtered: frozenset[str]
    fault: str
    version: int = VERSION

    @property
    def checked(self) -> CheckedGrant:
        """The grant as it came."""
        return CheckedGrant(self.terms, self.commitment, self.version)

    @property
    def order(self) -> tuple[str, bytes]:
        """Grants are judged in this order, whatever order they came in."""
        return self.terms.grant, self.commitment


def entry_of(grant: CheckedGrant) -> BookEntry:
    """The entry of one grant."""
    terms = grant.terms
    try:
        check_terms(terms)
        fault = ""
    except MedveilError as error:
        fault = str(error.facts.get("field", error.code))
    filtered = frozenset[str]() if terms.predicate is None or fault else columns(terms.predicate)
    return BookEntry(terms, grant.commitment, frozenset(terms.fields), filtered, fault, grant.version)


def parties_of(terms: GrantTerms) -> Parties:
    """Between whom, and of what."""
    return terms.issuer, terms.recipient, terms.dataset


class _Shelf:
    """The grants of one (holder, recipient, dataset), in order, and those of them that name a use and a purpose."""

    __slots__ = ("entries", "likely")

    def __init__(self, entries: list[BookEntry]) -> None:
        self.entries = tuple(sorted(entries, key=lambda entry: entry.order))
        self.likely: dict[tuple[str, str], list[BookEntry]] = {}
        for entry in self.entries:
            asked = dict.fromkeys(code for granted in entry.terms.purposes for code in covered(granted))
            for kind in dict.fromkeys(entry.terms.uses):
                for code in asked:
                    self.likely.setdefault((kind, code), []).append(entry)


class GrantBook:
    """Checked grants by holder, recipient and dataset."""

    def __init__(self, grants: Iterable[CheckedGrant]) -> None:
        found: dict[Parties, list[BookEntry]] = {}
        self._size = 0
        for grant in grants:
            found.setdefault(parties_of(grant.terms), []).append(entry_of(grant))
            self._size += 1
        self._shelves = {parties: _Shelf(entries) for parties, entries in found.items()}

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:
        return f"GrantBook({self._size})"

    def of(self, holder: str, recipient: str, dataset: str) -> tuple[BookEntry, ...]:
        """The grants between these parties of that dataset, in order."""
        shelf = self._shelves.get((holder, recipient, dataset))
        return shelf.entries if shelf is not None else ()

    def likely(self, request: UseRequest) -> tuple[BookEntry, ...] | list[BookEntry]:
        """Those that could allow `request`: of its parties, for its kind of use and its purpose, in order."""
        shelf = self._shelves.get((request.holder, request.recipient, request.dataset))
        return shelf.likely.get((request.kind, request.purpose), ()) if shelf is not None else ()

    def entries(self) -> tuple[BookEntry, ...]:
        """All of them, by parties and in order."""
        return tuple(entry for parties in sorted(self._shelves) for entry in self._shelves[parties].entries)


class StateBook:
    """A `GrantState`, indexed: answers as it does. Built anew when the ledger or home has moved on."""

    def __init__(self, state: GrantState) -> None:
        self._anchors: dict[str, AnchoredGrant | None] = {}
        for entry in state.anchored:  # two entries of one id are none
            self._anchors[entry.grant] = None if entry.grant in self._anchors else entry
        self._reviews: dict[tuple[str, bytes], list[tuple[int, int]]] = {}
        for one in state.reviews:
            self._reviews.setdefault((one.grant, one.commitment), []).append((one.at, one.next))
        names = [facts.dataset for facts in state.datasets]
        if len(set(names)) != len(names):
            raise ValueError("a dataset has one classification")
        self._facts = {facts.dataset: facts for facts in state.datasets}
        self._columns: dict[str, dict[str, ColumnFacts]] = {}
        for facts in state.datasets:
            kept = self._columns.setdefault(facts.dataset, {})
            for column in facts.columns:
                kept.setdefault(column.name, column)
        self._scopes = state.opt_outs.scopes
        self._scopes_of: dict[bytes, tuple[ScopeId, ...]] = {}
        for person in state.opt_outs.persons:
            self._scopes_of[person.person] = self._scopes_of.get(person.person, ()) + person.scopes

    def of(self, grant: str) -> AnchoredGrant | None:
        """See `privacy.uses.UseState.of`."""
        return self._anchors.get(grant)

    def reviewed(self, grant: str, commitment: bytes, at: int) -> int:
        """See `privacy.uses.UseState.reviewed`."""
        held = self._reviews.get((grant, commitment), ())
        return max((following for made, following in held if made <= at), default=NEVER)

    def facts(self, dataset: str) -> DatasetFacts:
        """See `privacy.uses.UseState.facts`."""
        return self._facts.get(dataset) or DatasetFacts(dataset)

    def column(self, dataset: str, name: str) -> ColumnFacts:
        """See `privacy.uses.UseState.column`."""
        try:
            return self._columns[dataset][name]
        except KeyError:
            return self.facts(dataset).column(name)

    def scopes(self) -> tuple[ScopeId, ...]:
        """See `privacy.uses.UseState.scopes`."""
        return self._scopes

    def scopes_of(self, person: bytes) -> tuple[ScopeId, ...]:
        """See `privacy.uses.UseState.scopes_of`."""
        return self._scopes_of[person]
