"""A release, checked when it arrives: its totals are those that the ledger proves, its numbers follow.

    proven values of the ledger  ->  the query's salted hash, population, roster, cost; each phase's commitments, totals
                                     and blinding; the budget before; what the population and its tables declare
    the release                  ->  query and salt behind the hash; every number worked out again from the totals

What sites say about their tables beside the numbers (`notes`) is nobody's but theirs, and comes by the gateway's word.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from medveil.client.declared import Declared, check_declared
from medveil.client.frames import table
from medveil.client.release_page import release_page
from wire.errors import VerificationError

if TYPE_CHECKING:
    from ledger.receipts import ProvenValue, Receipt
    from mpc.query import Measure, Query
    from mpc.query_document import QueryDocument
    from mpc.release import Estimate, Release
    from wire.checkpoint import TrustFile


class Released:
    """A release that was verified. query: its handle, hex; release: all of it; declared: what the ledger says besides.

    data: its canonical bytes; proofs: what they were checked by. asked: whether they were also checked to answer a
    question that the caller gave. earlier: whether the question was answered before
    it was asked just now, by the heights that the gateway says.
    """

    def __init__(
        self,
        query: str,
        release: Release,
        data: bytes,
        proofs: Sequence[ProvenValue],
        declared: Declared,
        asked: bool,
    ) -> None:
        self.query = query
        self.declared = declared
        self.asked = asked
        self.earlier = False
        self.release = release
        self.data = data
        self.proofs = tuple(proofs)

    def to_pandas(self) -> Any:
        """One row a measure and group, hidden ones too: count, mean, sd, bins, each with its 95 percent noise interval.

        measure: its column, empty where rows were counted only. A group's column that is called like one of these has
        "group." before its name. hidden: why a group has no results, or None. Numbers are rounded to floats; the exact
        ones are in `release`. A value that the noise does not resolve is None.
        """
        from mpc.query import local_plans

        names = [_column(group.name) for group in self.release.query.groups]
        rows: list[dict[str, Any]] = []
        for plan, result in zip(local_plans(self.release.query), self.release.results, strict=True):
            edges = [Decimal(edge) / plan.scale for edge in plan.edges]
            for group in result.groups:
                row: dict[str, Any] = {"measure": result.measure} | dict(zip(names, group.values, strict=True))
                for name, estimate in (("count", group.count), ("mean", group.mean), ("sd", group.sd)):
                    row |= {} if estimate is None else _numbers(name, estimate)
                for low, high, cell in zip(edges, edges[1:], group.bins, strict=False):
                    row |= _numbers(f"[{low}, {high})", cell)
                rows.append(row | {"hidden": None})
            for hidden in result.hidden:
                row = {"measure": result.measure} | dict(zip(names, hidden.values, strict=True))
                rows.append(row | {"count": float(hidden.noisy_count), "hidden": hidden.text()})
        return table(rows)

    def page(self, language: str = "en") -> str:
        """All of it as HTML: a table a measure, hidden groups with the reason, cost, epsilons. language: "en", "zh"."""
        return release_page(self.query, self.release, self.declared, self.earlier, language)

    def _repr_html_(self) -> str:
        return self.page()

    def __repr__(self) -> str:
        groups = sum(len(result.groups) for result in self.release.results)
        hidden = sum(len(result.hidden) for result in self.release.results)
        return f"Released({self.query!r}, {groups} groups, {hidden} hidden)"


def _column(group: str) -> str:
    ours = {"measure", "hidden", *(name + end for name in ("count", "mean", "sd") for end in ("", "_low", "_high"))}
    return f"group.{group}" if group in ours else group


def _numbers(name: str, estimate: Estimate) -> dict[str, float | None]:
    value = None if estimate.value is None else float(estimate.value)
    return {name: value, f"{name}_low": float(estimate.low), f"{name}_high": float(estimate.high)}


def check_release(
    query: str,
    data: bytes,
    proofs: Sequence[ProvenValue],
    trust: TrustFile,
    asked: QueryDocument | None,
) -> Released:
    """The release in `data`, if it is that of `query` and holds. proofs: of what the ledger says of it, each verified.

    asked: the question, if it is known: then the release must answer it. Raises VerificationError, DecodeError.
    """
    from mpc.release import Release
    from wire.canonical import decode

    release = decode(Release, data)
    if release.handle.hex() != query:
        raise _differs(query, "handle")
    if release.query.chain != trust.chain:
        raise _differs(query, "chain")
    if asked is not None:
        _check_answers(query, release.query, asked)
    declared = check_declared(release, proofs, asked)
    return Released(query, release, data, proofs, declared, asked is not None)


def check_new(released: Released, receipts: Sequence[Receipt], since: int) -> None:
    """Check that the answer is as new as it can be: the query was proposed after `since` (ms UTC), by the time of its
    block, or it answered the same question before and its tables are still the current ones. Else a gateway could give
    what was released long ago. receipts: of what this organisation wrote about the query, each verified.

    Raises VerificationError.
    """
    from ledger.contracts.queries import ProposeQuery
    from ledger.envelope import open_envelope

    handle = released.release.handle
    for receipt in receipts:
        if receipt.block.height != released.declared.proposed or receipt.result.code:
            continue
        ops = open_envelope(receipt.envelope).envelope.ops
        asked = any(isinstance(op, ProposeQuery) and op.query == handle for op in ops)
        if asked and receipt.block.time >= since:
            return
    if released.declared.superseded:
        tables = ", ".join(released.declared.superseded)
        raise VerificationError("client.earlier_release", query=released.query, tables=tables)


def _differs(query: str, field: str) -> VerificationError:
    return VerificationError("client.other_release", query=query, field=field)


def _check_answers(handle: str, query: Query, asked: QueryDocument) -> None:
    """Check that `query` is what was asked, as far as that was said. Raises VerificationError naming what differs."""
    wanted = {one.column: one for one in asked.measures}
    grouped = {one.column: one.other for one in asked.groups}
    for field, holds in (
        ("population", query.population == asked.population),
        ("measures", {measure.column for measure in query.measures} == wanted.keys()),
        ("roster", not asked.roster or set(query.roster) == set(asked.roster)),
        ("datasets", set(asked.datasets) <= set(query.datasets)),
        ("groups", {group.name: group.other for group in query.groups} == grouped),
        ("filter", _same_filter(query, asked)),
        ("purpose", query.purpose == asked.purpose),
        ("person", query.unit == "row" or query.person == asked.person),
        ("rho", query.rho_nano == asked.rho_nano),
        ("delta", query.delta_exponent == asked.delta_exponent),
        ("minimum_group", query.minimum_group == asked.minimum_group),
        ("exact", query.exact == asked.exact),
    ):
        if not holds:
            raise _differs(handle, field)
    for measure in query.measures:
        one = wanted[measure.column]
        edges = tuple(Decimal(edge) * measure.scale for edge in one.edges)
        low, high = (_units(one.low, measure, edges[:1]), _units(one.high, measure, edges[-1:]))
        missing = sorted(Decimal(value) * measure.scale for value in one.missing)
        for field, holds in (
            ("low", low is None or measure.low == low),
            ("high", high is None or measure.high == high),
            ("edges", measure.edges == edges),
            ("missing", list(measure.missing) == missing),
        ):
            if not holds:
                raise _differs(handle, field)


def _units(text: str, measure: Measure, edge: Sequence[Decimal]) -> Decimal | None:
    """A bound as it was asked, in the measure's unit; None where it was left open."""
    return Decimal(text) * measure.scale if text else edge[0] if edge else None


def _same_filter(query: Query, asked: QueryDocument) -> bool:
    from mpc.history import question_of
    from privacy.filters import parse_filter

    wanted = None if asked.filter is None else parse_filter(asked.filter)
    return question_of(msgspec.structs.replace(query, filter=wanted)) == question_of(query)
