"""A use that is asked for, and all that a decision about it reads besides grants: the ledger's state and home's.

`UseState` is what rules ask; `GrantState` answers as plain data of one instant, `privacy.grants.book.StateBook`
answers the same faster where there is much of it.
"""

from __future__ import annotations

from typing import Annotated, Protocol

import msgspec

from privacy.grants.levels import ColumnFacts, DatasetFacts
from privacy.grants.opt_outs import OptOutState, ScopeId
from privacy.grants.terms import HOME, Jurisdiction, UseKind
from privacy.predicate import Predicate, columns
from wire.canonical import Wire
from wire.dates import Instant
from wire.identifiers import Hash, Name

NOBODY = b""
"""`UseRequest.person` of a use that is about many."""


class Declaration(Wire, frozen=True, tag="privacy.declaration"):
    """What a recipient says of its own use, in the message that asks for it, under its signature: nobody else knows.

    commercial: whether it serves someone's sales. jurisdiction: where the recipient processes.
    """

    commercial: bool = False
    jurisdiction: Jurisdiction = HOME


NOTHING_SAID = Declaration()
"""Not commercial, and in the mainland."""


class UseRequest(Wire, frozen=True, tag="privacy.use_request"):
    """A use that is asked for.

    holder: the organisation whose vault holds the dataset (the one that decides). recipient: who gets
    the result. fields: every column used; those of `predicate`, the request's own row filter, are added.
    commercial: whether it serves someone's sales. jurisdiction: where the recipient processes. person: keyed id
    (16 bytes, the holder's own) where it is about one person's record, or `NOBODY`.
    """

    holder: Name
    recipient: Name
    dataset: Name
    fields: tuple[str, ...]
    kind: UseKind
    purpose: str
    predicate: Predicate | None = None
    commercial: bool = False
    jurisdiction: str = HOME
    person: Annotated[bytes, msgspec.Meta(max_length=16)] = NOBODY

    def all_fields(self) -> frozenset[str]:
        """Every column the use looks at."""
        return frozenset(self.fields) | (frozenset() if self.predicate is None else columns(self.predicate))


class AnchoredGrant(Wire, frozen=True, tag="privacy.anchored_grant"):
    """What the ledger says of one grant: who anchored it, which terms, until when, and its epoch now."""

    grant: Name
    issuer: Name
    commitment: Hash
    not_before: Instant
    expires: Instant
    epoch: int
    revoked: bool


class Review(Wire, frozen=True, tag="privacy.review"):
    """The issuer looked at a grant again and lets it go on. next: when it looks again. Kept at home."""

    grant: Name
    commitment: Hash
    at: Instant
    next: Instant


class UseState(Protocol):
    """What rules ask about a grant, a dataset or a person."""

    def of(self, grant: str) -> AnchoredGrant | None:
        """The ledger's entry of a grant. Two entries of one id are none."""
        ...

    def reviewed(self, grant: str, commitment: bytes, at: int) -> int:
        """The latest `next` of the reviews of these very terms that were made by `at`; the least instant for none."""
        ...

    def facts(self, dataset: str) -> DatasetFacts:
        """How the data officer classified a dataset; an unclassified one where nobody did."""
        ...

    def column(self, dataset: str, name: str) -> ColumnFacts:
        """How one column of it is classified."""
        ...

    def scopes(self) -> tuple[ScopeId, ...]:
        """Scopes of opt-outs that are in force."""
        ...

    def scopes_of(self, person: bytes) -> tuple[ScopeId, ...]:
        """Those of one person. Raises LookupError for one whom nobody looked up."""
        ...


NEVER = -(2**63)


class GrantState(Wire, frozen=True, tag="privacy.grant_state"):
    """The ledger's grants as of a final block, one entry a grant; and what home knows: reviews, datasets, opt-outs."""

    anchored: tuple[AnchoredGrant, ...]
    reviews: tuple[Review, ...] = ()
    datasets: tuple[DatasetFacts, ...] = ()
    opt_outs: OptOutState = OptOutState()

    def of(self, grant: str) -> AnchoredGrant | None:
        """See `UseState.of`."""
        found = [entry for entry in self.anchored if entry.grant == grant]
        return found[0] if len(found) == 1 else None

    def reviewed(self, grant: str, commitment: bytes, at: int) -> int:
        """See `UseState.reviewed`."""
        held = (one for one in self.reviews if (one.grant, one.commitment) == (grant, commitment))
        return max((one.next for one in held if one.at <= at), default=NEVER)

    def facts(self, dataset: str) -> DatasetFacts:
        """See `UseState.facts`. ValueError for two classifications of one dataset: which holds is not known."""
        found = [facts for facts in self.datasets if facts.dataset == dataset]
        if len(found) > 1:
            raise ValueError("a dataset has one classification")
        return found[0] if found else DatasetFacts(dataset)

    def column(self, dataset: str, name: str) -> ColumnFacts:
        """See `UseState.column`."""
        return self.facts(dataset).column(name)

    def scopes(self) -> tuple[ScopeId, ...]:
        """See `UseState.scopes`."""
        return self.opt_outs.scopes

    def scopes_of(self, person: bytes) -> tuple[ScopeId, ...]:
        """See `UseState.scopes_of`."""
        return self.opt_outs.of(person)
