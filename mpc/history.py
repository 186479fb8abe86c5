"""What a query has to do with those before it: the same question again, rosters and survivors that differ by little.

**Same answer.** `question_of` is a query as a question: normal form of the filter, measures, groups and
values in one order; datasets (whose names are their versions), roster, purpose, budget and all else as they are. Equal
questions have equal exact numbers and equal noise scales; the answer that was given first is given again, at no cost.

**Near rosters.** Two sums over rosters that differ by one site or two give, subtracted, what these sites added, up to
the noise. So a query is refused next to an earlier one of its population that asks for the same numbers: which share a
measured column, or one of which counts rows alone. Whatever the filters: that two of them have no row in common is not
looked into.

**Near survivors.** Sites are lost in spite of equal rosters. The ledger keeps, for each population, over which sets of
sites sums were fixed (`ledger.contracts.queries`), and with the survivors of a phase those earlier sets that differ by
one site or two. A release carries them as `NearSums`.

**Exact.** Of the same rows one exact question is answered. With another filter, grouping, measure or roster, a table's
next version, or only other noise in what decides which groups are hidden, the exact numbers could be subtracted from
each other, down to one person. So an exact query is refused next to any other over one of its tables, or over one that
this superseded or that superseded this; or over a table that the same owner had in the population before this one was
registered in it: who loads a table anew and retires the old one has most of its rows in both. And since groups were
found large enough with the sites of phase 1, phase 2 opens over the same.

**Forgotten.** A site whose home came back from a backup finds queries on the ledger that it approved, and does not know
what they asked. The ledger has their rosters: a query over a near one is refused, and so is any exact query of their
population.

Everything here reads queries, rosters and the ledger; nothing depends on data, so a refusal says nothing about them.
What three and more releases say together, of rosters that differ by more, only their noise covers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, NamedTuple

import msgspec

from mpc.normal_form import normal
from mpc.query import Measure, Query
from privacy.local import GroupColumn
from wire import messages
from wire.canonical import Wire, encode
from wire.domains import QUERY, digest
from wire.errors import Refused
from wire.identifiers import Handle, Name
from wire.secure_sum import FEWEST_APART, apart


class NearSums(Wire, frozen=True, tag="mpc.near_sums"):
    """Earlier sums of a population, over a set of sites that is near the survivors of a phase.

    query, phase: the latest of those sums; sums: how many there are over just those sites; sites: which are in one of
    the two sets only, one or two, sorted.
    """

    query: Handle
    phase: Annotated[int, msgspec.Meta(ge=1, le=4)]
    sums: Annotated[int, msgspec.Meta(ge=1)]
    sites: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=FEWEST_APART - 1)]

    def said(self, own: bytes, phase: int) -> tuple[str, dict[str, str]]:
        """Code and facts of what the sums of `phase` of the query `own` disclose together with these."""
        facts = {
            "phase": str(phase),
            "other_phase": str(self.phase),
            "sums": str(self.sums),
            "query": self.query.hex(),
            "sites": ", ".join(self.sites),
        }
        return "mpc.near_own_phase" if self.query == own else "mpc.near_survivors", facts

    def text(self, own: bytes, phase: int, language: str = "en") -> str:
        """The same in words."""
        return messages.text(*self.said(own, phase), language)


class Earlier(NamedTuple):
    """A query of before, under its handle on the ledger."""

    handle: bytes
    query: Query


class Forgotten(NamedTuple):
    """A query that a site approved, as the ledger has it, of which the site does not know any more what it asked."""

    handle: bytes
    roster: tuple[str, ...]


def question_of(query: Query) -> Query:
    """`query` as one of all that ask the same: equal for two of them, however they are written."""
    measures = sorted((_measure(one) for one in query.measures), key=encode)
    groups = sorted((_group(one) for one in query.groups), key=encode)
    return msgspec.structs.replace(
        query,
        measures=tuple(measures),
        groups=tuple(groups),
        filter=None if query.filter is None else normal(query.filter),
    )


def question_digest(query: Query) -> bytes:
    """32 bytes for the question that a query is. Filters can be guessed: not for strangers before the release."""
    return digest(QUERY, b"question", encode(question_of(query)))


def _measure(measure: Measure) -> Measure:
    return msgspec.structs.replace(measure, missing=tuple(sorted(set(measure.missing))))


def _group(group: GroupColumn) -> GroupColumn:
    return msgspec.structs.replace(group, values=tuple(sorted(group.values)))


def same_numbers(query: Query, other: Query) -> bool:
    """Whether two queries of one population ask for numbers of which one can be subtracted from the other's."""
    columns, others = ({measure.column for measure in one.measures} for one in (query, other))
    return query.population == other.population and (not columns or not others or not columns.isdisjoint(others))


def near_rosters(query: Query, earlier: Iterable[Earlier]) -> tuple[Earlier, ...]:
    """Those of `earlier` next to which `query` would disclose a site or two, in their order."""
    return tuple(one for one in earlier if same_numbers(query, one.query) and apart(query.roster, one.query.roster))


def check_rosters(query: Query, earlier: Iterable[Earlier]) -> None:
    """Check that `query` does not disclose a site or two next to one of `earlier`.

    earlier: queries that were answered, or are being answered. Raises Refused naming the first, the sites, and the
    roster that may be asked instead.
    """
    for one in near_rosters(query, earlier):
        raise Refused(
            "mpc.near_roster",
            query=one.handle.hex(),
            sites=", ".join(apart(query.roster, one.query.roster)),
            roster=", ".join(one.query.roster),
            fewest=FEWEST_APART,
        )


MayHold = Callable[[str, Earlier], bool]
"""Whether a table may hold rows that an earlier query asked, by what the ledger says of both."""


def exact_before(query: Query, earlier: Iterable[Earlier], may_hold: MayHold) -> tuple[Earlier, ...]:
    """Those of `earlier` that asked rows exactly which tables of `query` may hold, if it is exact as well."""
    if not query.exact:
        return ()
    return tuple(one for one in earlier if one.query.exact and any(may_hold(name, one) for name in query.datasets))


def check_exact(query: Query, earlier: Iterable[Earlier], may_hold: MayHold) -> None:
    """Check that no rows of an exact query were asked exactly before.

    earlier: as for `check_rosters`, the same question among them or not: its answer can be had again, another
    one cannot. Raises Refused naming the first.
    """
    for one in exact_before(query, earlier, may_hold):
        raise Refused("mpc.exact_before", query=one.handle.hex(), population=query.population)


def forgotten_beside(query: Query, forgotten: Iterable[Forgotten]) -> tuple[Forgotten, ...]:
    """Those of `forgotten`, all of the query's population, next to which `query` could disclose a site or a person."""
    return tuple(one for one in forgotten if query.exact or apart(query.roster, one.roster))


def check_forgotten(query: Query, forgotten: Iterable[Forgotten], rosters: bool = True) -> None:
    """Check that `query` discloses nothing next to one of `forgotten`, whatever that asked.

    rosters: whether near rosters are refused; an exact query is, next to any. Raises Refused naming the first.
    """
    for one in forgotten_beside(query, forgotten):
        if query.exact:
            raise Refused("mpc.exact_forgotten", query=one.handle.hex(), population=query.population)
        if rosters:
            raise Refused(
                "mpc.near_forgotten",
                query=one.handle.hex(),
                sites=", ".join(apart(query.roster, one.roster)),
                roster=", ".join(one.roster),
                fewest=FEWEST_APART,
            )


def check_exact_sites(query: Query, decided: Sequence[str], summed: Sequence[str]) -> None:
    """Check that an exact query's sums are over the sites with which its groups were found large enough.

    decided, summed: the survivors of phase 1 and 2. Raises Refused.
    """
    if query.exact and set(decided) != set(summed):
        raise Refused("mpc.exact_sites", sites=", ".join(sorted(set(decided) ^ set(summed))))
