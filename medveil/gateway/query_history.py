"""Queries of before, at home: those that this organisation served, and what it knows was released.

A site keeps each query that it takes part in before it approves it, with the rows that its decision let it use. From
these, from the ledger and from nothing else it tells whether the same question was answered before, and next to which
earlier query a new one would disclose a site (`mpc.history`): what no other query was released or is being answered
says nothing about data, and neither does a refusal. What the ledger shows as approved by this site and it does not
know, since its home came back from a backup, is taken for what would disclose most.

    site         vault document "query-served", by handle
    researcher   vault documents "release", by handle, and "question", by the question's digest
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import NamedTuple
from weakref import WeakKeyDictionary

from ledger.contracts import datasets, queries
from medveil.gateway.ledger_account import FinalState, LedgerState
from medveil.gateway.organisation import MOST_PERCENT, Organisation
from medveil.gateway.query_board import read_query
from medveil.gateway.query_run import AnsweredBefore, QueryRequest
from mpc.history import (
    Earlier,
    Forgotten,
    check_exact,
    check_forgotten,
    check_rosters,
    exact_before,
    near_rosters,
    question_digest,
    question_of,
)
from mpc.query import Query, Salt
from mpc.release import Release
from privacy.decide import Decision
from privacy.predicate import Predicate
from wire.canonical import Wire, decode, encode
from wire.errors import Refused
from wire.identifiers import Handle

RELEASES = "release"
"""Kind of the vault's documents that hold releases, by handle in hex."""
_QUESTIONS = "question"
_SERVED = "query-served"


class Served(Wire, frozen=True, tag="medveil.query_served"):
    """A query that this site approved, or was about to. Private: rows, excluded are its own decision's."""

    handle: Handle
    query: Query
    salt: Salt
    rows: Predicate | None
    excluded: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Served({self.handle.hex()})"


class _Asked(Wire, frozen=True, tag="medveil.question_asked"):
    """Under which handle a question was answered."""

    handle: Handle


class _Known(NamedTuple):
    served: Served
    question: bytes


class _Approved(NamedTuple):
    """The queries that a site approved by the ledger, and that were not closed, by handle. at: the head they are of."""

    at: FinalState
    queries: dict[bytes, queries.QueryState]


_served: WeakKeyDictionary[Organisation, dict[bytes, _Known]] = WeakKeyDictionary()
"""Read once: nobody else writes these documents while an organisation is open."""
_approved: WeakKeyDictionary[Organisation, _Approved] = WeakKeyDictionary()
"""Read on from the head that was read last: the whole ledger is gone through once."""


# --- a site -------------------------------------------------------------------------------------


def _history(site: Organisation) -> dict[bytes, _Known]:
    if site not in _served:
        every = (decode(Served, site.vault.document(_SERVED, name)) for name in site.vault.documents(_SERVED))
        found = {one.handle: _Known(one, question_digest(one.query)) for one in every}
        return _served.setdefault(site, found)  # another thread may have read them, and a query been entered since
    return _served[site]


def _status(state: LedgerState, handle: bytes) -> str:
    found = read_query(state, handle)
    return "closed" if found is None else found.status


def earlier_queries(site: Organisation, population: str, but: bytes = b"") -> tuple[Earlier, ...]:
    """The queries of a population that this site served and that were answered, or may be yet. but: all except that."""
    state, approved = site.account.state, _approvals(site)
    return tuple(
        Earlier(handle, known.served.query)
        for handle, known in tuple(_history(site).items())
        if known.served.query.population == population
        and handle != but
        and (handle in approved or _status(state, handle) != "closed")
    )


def forgotten_queries(site: Organisation, population: str, but: bytes = b"") -> tuple[Forgotten, ...]:
    """The queries of a population that this site approved, by the ledger, and does not know. but: all except that."""
    known, approved = _history(site), _approvals(site)
    found = [one for handle, one in approved.items() if handle not in known and handle != but]
    found.sort(key=lambda one: one.query)
    return tuple(Forgotten(one.query, one.roster) for one in found if one.population == population)


def _approvals(site: Organisation) -> dict[bytes, queries.QueryState]:
    """The queries that `site` approved by the ledger, and that were not closed, by handle."""
    before, at = _approved.get(site), site.account.state
    return _read_on(site, before, at, _news(site.name, before, at))


async def look_through(site: Organisation) -> None:
    """Read what this site served, and on what it approved, beside the event loop: a ledger of millions of keys is a
    long way, and each document that was served is decrypted."""
    before, at = _approved.get(site), site.account.state
    await asyncio.to_thread(_history, site)
    news = await asyncio.to_thread(_news, site.name, before, at)
    if _approved.get(site) is before:  # or somebody else has
        _read_on(site, before, at, news)


def _news(site: str, before: _Approved | None, at: FinalState) -> list[queries.QueryState]:
    """The queries that `site` approved as the head `at` has them, but for those that are as they were before."""
    changed = at.changed(None if before is None else before.at, queries.QUERIES, queries.QueryState)
    return [one for one in changed if site in one.approvals]


def _read_on(
    site: Organisation, before: _Approved | None, at: FinalState, news: list[queries.QueryState]
) -> dict[bytes, queries.QueryState]:
    found = {} if before is None else before.queries
    if news:
        found = dict(found)  # another thread may be looking at that
    for one in news:
        if one.status == "closed":
            found.pop(one.query, None)
        else:
            found[one.query] = one
    _approved[site] = _Approved(at, found)
    return found


def first_version(state: LedgerState, dataset: str) -> str:
    """The name under which a table was registered at first, before it was superseded."""
    while (found := state.get(datasets.dataset_key(dataset), datasets.DatasetState)) and found.supersedes:
        dataset = found.supersedes
    return dataset


def may_hold(state: LedgerState, dataset: str, one: Earlier) -> bool:
    """Whether a table may hold rows that an earlier query asked: it is a version of a table that was asked, or its
    owner was asked in the same population and registered it after that. See `mpc.history.MayHold`."""
    first = first_version(state, dataset)
    if first in (first_version(state, name) for name in one.query.datasets):
        return True
    table, asked = state.get(datasets.dataset_key(first), datasets.DatasetState), read_query(state, one.handle)
    if table is None or asked is None or (table.population, one.query.population) != (asked.population,) * 2:
        return False
    return table.owner in one.query.roster and table.height >= asked.height


def check_near(site: Organisation, query: Query, handle: bytes, again: bool = False) -> None:
    """Check a query against those that this site served before. Raises Refused.

    Near rosters may be answered all the same (`medveil.gateway.near_sites`); a second exact query never is.
    again: whether the same question, which may have its first answer, is none of those.
    """
    state = site.account.state
    if query.exact:
        earlier = earlier_queries(site, query.population, handle)
        others = [one for one in earlier if not again or question_of(one.query) != question_of(query)]
        check_exact(query, others, partial(may_hold, state))
    refuses = site.near.rosters == "refuse"
    check_forgotten(query, forgotten_queries(site, query.population, handle), refuses)
    if refuses:
        check_rosters(query, earlier_queries(site, query.population, handle))


def check_share(site: Organisation, handle: bytes) -> None:
    """Check that who asks stays within its share of the population's budget with what this site serves it, and with
    this query. Raises Refused. What was closed costs nothing; what was forgotten counts.
    """
    if site.recipient_percent >= MOST_PERCENT:
        return
    state, approved = site.account.state, _approvals(site)
    asked = queries.query(state.view(), handle)
    entered = (read_query(state, one) for one in tuple(_history(site)) if one not in approved)
    every = {one.query: one for one in (*approved.values(), *entered) if one is not None and one.status != "closed"}
    costs = (
        one.rho_nano
        for one in every.values()
        if (one.researcher, one.population) == (asked.researcher, asked.population) and one.query != handle
    )
    spent, budget = sum(costs), datasets.population(state.view(), asked.population).budget
    most = budget * site.recipient_percent // MOST_PERCENT
    if spent + asked.rho_nano > most:
        raise Refused(
            "gateway.recipient_share",
            recipient=asked.researcher,
            population=asked.population,
            percent=site.recipient_percent,
            most=datasets.rho_text(most),
            left=datasets.rho_text(max(0, most - spent)),
            asked=datasets.rho_text(asked.rho_nano),
        )


def enter(site: Organisation, request: QueryRequest, decision: Decision) -> None:
    """Keep a query that is about to be approved; on disk when this returns. Refused as by `check_near`, `check_share`.

    Nothing is awaited between looking and keeping: of two near queries at once, one is refused.
    """
    query, handle = request.query, request.handle
    check_near(site, query, handle)
    served = Served(handle, query, request.salt, decision.rows, decision.excluded)
    known = _history(site)
    if handle not in known:  # one that is gone on with keeps its share, whatever the budget is by now
        check_share(site, handle)
        site.vault.put_document(_SERVED, handle.hex(), encode(served))
        known[handle] = _Known(served, question_digest(query))


def leave(site: Organisation, handle: bytes) -> None:
    """Forget a query that was closed: it opened nothing."""
    known = _history(site)
    if handle in known and _status(site.account.state, handle) == "closed":
        site.vault.remove_document(_SERVED, handle.hex())
        del known[handle]


def served_query(site: Organisation, handle: bytes) -> Served:
    """The query under a handle that this site approved, or was about to. Raises Refused."""
    known = _history(site).get(handle)
    if known is None:
        raise Refused("queries.not_served", query=handle.hex())
    return known.served


def answered(site: Organisation, query: Query, decision: Decision) -> AnsweredBefore | None:
    """The first release of the same question over the same rows, if this site was in its roster.

    decision: of the use that is asked now; under another filter, or with other opt-outs, it is another question.
    """
    question, state = question_digest(query), site.account.state
    found = []
    for handle, known in tuple(_history(site).items()):
        served = known.served
        if known.question != question or (served.rows, served.excluded) != (decision.rows, decision.excluded):
            continue
        asked = read_query(state, handle)
        if asked is not None and asked.status == "released":
            found.append((asked.height, AnsweredBefore(handle, served.query, served.salt)))
    return min(found, key=lambda pair: pair[0])[1] if found else None


# --- a researcher -------------------------------------------------------------------------------


def keep_release(researcher: Organisation, release: Release) -> None:
    """Keep what was released, and that it answers its question. Again, it changes nothing."""
    vault, name = researcher.vault, release.handle.hex()
    vault.put_document(RELEASES, name, encode(release))
    question = question_digest(release.query).hex()
    try:
        vault.document(_QUESTIONS, question)
    except Refused:
        vault.put_document(_QUESTIONS, question, encode(_Asked(release.handle)))


def known_release(researcher: Organisation, query: Query) -> Release | None:
    """What this researcher was released of the same question, however it was written; it may be had again."""
    try:
        asked = decode(_Asked, researcher.vault.document(_QUESTIONS, question_digest(query).hex()))
        return read_release(researcher, asked.handle)
    except Refused:
        return None


def answers(researcher: Organisation) -> frozenset[bytes]:
    """The handles of the queries, its own and others', that answered this researcher's questions."""
    vault = researcher.vault
    return frozenset(decode(_Asked, vault.document(_QUESTIONS, name)).handle for name in vault.documents(_QUESTIONS))


def read_release(researcher: Organisation, handle: bytes) -> Release:
    """The release that was kept under a handle. Raises Refused."""
    return decode(Release, researcher.vault.document(RELEASES, handle.hex()))


def near_releases(researcher: Organisation, query: Query) -> tuple[Earlier, ...]:
    """The researcher's own releases because of which sites will refuse `query`: see `mpc.history.near_rosters`.

    Sites know those of others besides.
    """
    vault = researcher.vault
    found = (decode(Release, vault.document(RELEASES, name)) for name in vault.documents(RELEASES))
    return near_rosters(query, [Earlier(one.handle, one.query) for one in found])


def exact_releases(researcher: Organisation, query: Query) -> tuple[Earlier, ...]:
    """The researcher's own releases because of which sites will refuse `query`, which is exact, as they are."""
    vault, state = researcher.vault, researcher.account.state
    found = (decode(Release, vault.document(RELEASES, name)) for name in vault.documents(RELEASES))
    earlier = [Earlier(one.handle, one.query) for one in found]
    return exact_before(query, earlier, partial(may_hold, state))
