"""A query explained before anything is proposed: what each site would compute, what would leave it, what it costs.

For the researcher who is about to ask, and for the data officer whose table is asked: both are shown the same. All of
it follows from the query and from what the ledger declares; no data is looked at, nothing is spent. The words are in
`medveil.gateway.explained_words`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import NamedTuple

from ledger.contracts import datasets, queries
from medveil.gateway.granting import book_of, judge
from medveil.gateway.ledger_account import LedgerState
from medveil.gateway.organisation import Organisation
from medveil.gateway.query_history import (
    earlier_queries,
    exact_releases,
    forgotten_queries,
    known_release,
    may_hold,
    near_releases,
    served_query,
)
from medveil.gateway.question import declaration, make_query
from medveil.gateway.serving import use_request
from mpc.budget import Epsilon, epsilons
from mpc.cells import most_cells
from mpc.history import Earlier, Forgotten, NearSums, exact_before, forgotten_beside, near_rosters, question_of
from mpc.query import GATE, SUMS, Kind, Query, columns, kinds, local_plans
from mpc.query_document import QueryDocument
from mpc.release import NoiseStatement, noise_statements
from privacy.decide import Decision
from privacy.predicate import columns as filter_columns
from privacy.uses import Declaration
from wire.secure_sum import apart


@dataclass(frozen=True)
class SitePlan:
    """One site's part. reads: every column it looks at, those of the filter too; person: the one that names the
    person, or "". What its own grant leaves out besides is the site's to know.
    """

    site: str
    dataset: str
    reads: tuple[str, ...]
    person: str


@dataclass(frozen=True)
class Leaving:
    """Numbers that leave a site: noised, masked and committed. measure: the column, "" where rows are counted only.

    cells: how many, in phase 2 at most.
    """

    phase: int
    measure: str
    kind: Kind
    cells: int


@dataclass(frozen=True)
class Beside:
    """What a query has to do with those before it: as far as this organisation knows them, and as the ledger has them.

    answered: handle of the release that answers it already, or b"". refused: earlier queries next to which it would
    disclose a site or two, so that sites refuse it that are not set to label it. exact: earlier exact queries of its
    tables, because of which sites refuse an exact one. near: earlier sums over sets of sites near its whole roster,
    next to which its release will be labelled. forgotten: queries because of which this site refuses it, since it
    approved them and does not know what they asked.
    """

    answered: bytes = b""
    refused: tuple[Earlier, ...] = ()
    near: tuple[NearSums, ...] = ()
    exact: tuple[Earlier, ...] = ()
    forgotten: tuple[Forgotten, ...] = ()


NOTHING_BESIDE = Beside()


class Answer(NamedTuple):
    """What this organisation's grants say of a query, were `recipient` to ask it now."""

    recipient: str
    decision: Decision


class OwnPart(NamedTuple):
    """A query at one of the sites that it asks: what those who have a grant for queries of its table would be told."""

    dataset: str
    decisions: tuple[Answer, ...]


@dataclass(frozen=True)
class Explanation:
    """What a query would be.

    beside: what it has to do with those before it. own: where it asks this organisation, what its grants say of it.
    groups: labels of all groups, each of which may be hidden. noise: on one cell of each kind. before, after: what the
    population has available, in nano-rho; after is negative where that is not enough.
    """

    query: Query
    sites: tuple[SitePlan, ...]
    leaving: tuple[Leaving, ...]
    groups: tuple[str, ...]
    noise: tuple[NoiseStatement, ...]
    epsilons: tuple[Epsilon, ...]
    before: int
    after: int
    beside: Beside
    own: OwnPart | None = None

    @property
    def cells(self) -> int:
        """How many numbers leave a site at most."""
        return sum(one.cells for one in self.leaving)


def explain(organisation: Organisation, document: QueryDocument, at: int | None) -> Explanation:
    """What asking would be, for the organisation that would ask, or for one that would be asked. Nothing is proposed,
    spent or written.

    at: ms UTC, the instant of its own decisions; None for whoever may not read its grants. Raises as `make_query`.
    """
    state = organisation.account.state
    query = make_query(document, state, organisation.trust.chain)
    if organisation.name in query.roster:
        earlier = earlier_queries(organisation, query.population)
        others = [one for one in earlier if question_of(one.query) != question_of(query)]
        exact = exact_before(query, others, partial(may_hold, state))
        refuses = query.exact or organisation.near.rosters == "refuse"
        forgotten = forgotten_queries(organisation, query.population) if refuses else ()
        beside = Beside(
            b"", near_rosters(query, earlier), near_sums(query, state), exact, forgotten_beside(query, forgotten)
        )
        own = None if at is None else _own(organisation, query, declaration(document), at)
        return replace(explain_query(query, state, beside), own=own)
    known = known_release(organisation, query)
    beside = Beside(
        b"" if known is None else known.handle,
        near_releases(organisation, query),
        near_sums(query, state),
        exact_releases(organisation, query) if known is None else (),
    )
    return explain_query(query, state, beside)


def explain_served(organisation: Organisation, handle: bytes) -> Explanation:
    """The same of a query that this organisation was asked to take part in, for its data officer.

    Raises Refused where it approved none under the handle.
    """
    state, query = organisation.account.state, served_query(organisation, handle).query
    earlier = earlier_queries(organisation, query.population, handle)
    return explain_query(query, state, Beside(b"", near_rosters(query, earlier), near_sums(query, state, handle)))


def explain_query(query: Query, state: LedgerState, beside: Beside = NOTHING_BESIDE) -> Explanation:
    """What a query is, beside what was before it. Raises Refused where its population is unknown."""
    available = datasets.population(state.view(), query.population).available
    return Explanation(
        query=query,
        sites=tuple(_site(query, site, name) for site, name in zip(query.roster, query.datasets, strict=True)),
        leaving=_leaving(query),
        groups=local_plans(query)[0].group_labels(),
        noise=noise_statements(query),
        epsilons=epsilons(query, most_cells(query)),
        before=available,
        after=available - query.rho_nano,
        beside=beside,
    )


def _own(site: Organisation, query: Query, declared: Declaration, at: int) -> OwnPart:
    """What this site would tell each that has a grant of its for queries of the table that is asked."""
    dataset = query.datasets[query.roster.index(site.name)]
    recipients = {
        terms.recipient
        for terms in (entry.terms for entry in book_of(site).entries())
        if terms.dataset == dataset and "query" in terms.uses
    }
    uses = ((name, use_request(query, site.name, name, declared)) for name in sorted(recipients))
    return OwnPart(dataset, tuple(Answer(name, judge(site, use, at)) for name, use in uses))


def near_sums(query: Query, state: LedgerState, but: bytes = b"") -> tuple[NearSums, ...]:
    """Earlier sums of the population over sets of sites near the query's roster. but: the query's own handle."""
    book = state.get(queries.sets_key(query.population), queries.SummedSets)
    found = []
    for number in range(1, 1 + (0 if book is None else book.sets)):
        one = state.get(queries.set_key(query.population, number), queries.SummedSet)
        if one is not None and one.query != but and (sites := apart(one.sites, query.roster)):
            found.append(NearSums(one.query, one.phase, one.sums, sites))
    return tuple(found)


def _site(query: Query, site: str, dataset: str) -> SitePlan:
    reads = {column for plan in local_plans(query) for column in plan.columns()}
    if query.filter is not None:
        reads |= filter_columns(query.filter)
    return SitePlan(site, dataset, tuple(sorted(reads)), query.person)


def _leaving(query: Query) -> tuple[Leaving, ...]:
    groups = prod(len(column.labels()) for column in query.groups)
    found = [
        Leaving(
            GATE if kind == "gate" else SUMS,
            columns(query)[index],
            kind,
            groups * (plan.bins if kind == "bins" else 1),
        )
        for index, plan in enumerate(local_plans(query))
        for kind in kinds(query, index)
    ]
    return tuple(sorted(found, key=lambda one: one.phase))
