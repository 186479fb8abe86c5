"""A release, checked when it arrives: its totals are those that the ledger's receipts prove, its numbers follow.

    receipt of queries.propose   ->  salted hash, population, roster, cost: the query that was approved
    receipts of queries.release  ->  totals and blinding of each phase
    the release                  ->  query and salt behind the hash; every number worked out again from the totals

Two things are the gateway's word here, and are checked by ``medveil verify`` on an evidence folder: each site's
commitment (that they add up to the totals is checked), and the budget's state before the query.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from medveil.client.frames import table
from wire.errors import Refused, VerificationError

if TYPE_CHECKING:
    from ledger.receipts import Receipt
    from mpc.query import Query
    from mpc.release import Estimate, Release
    from wire.checkpoint import TrustFile


class Asked(msgspec.Struct, frozen=True):
    """A question as it was sent: fields as of `medveil.client.queries.Question`."""

    population: str
    measure: str
    purpose: str
    rho: str
    sites: tuple[str, ...]
    datasets: tuple[str, ...]
    low: str | None
    high: str | None
    edges: tuple[str, ...]
    by: tuple[str, ...]
    other: bool
    filter: dict[str, Any] | None
    person: str
    delta_exponent: int
    minimum_group: int


class Released:
    """A release that was verified. query: its handle, hex; release: all of it; receipts: what it was checked by.

    data: its canonical bytes: a file of these is evidence for ``medveil verify``.
    """

    def __init__(self, query: str, release: Release, data: bytes, receipts: Sequence[Receipt]) -> None:
        self.query = query
        self.release = release
        self.data = data
        self.receipts = tuple(receipts)

    def to_pandas(self) -> Any:
        """One row a group, hidden ones too: count, mean, sd, bins, each with its 95 percent noise interval.

        A group's column that is called like one of these has "group." before its name. hidden: why a group has no
        results, or None. Numbers are rounded to floats; the exact ones are in `release`. A value that the noise does
        not resolve is None.
        """
        names = [_column(group.name) for group in self.release.query.groups]
        edges = self.release.query.measure.edges
        scale = self.release.query.measure.scale
        rows: list[dict[str, Any]] = []
        for group in self.release.groups:
            row: dict[str, Any] = dict(zip(names, group.values, strict=True))
            for name, estimate in (("count", group.count), ("mean", group.mean), ("sd", group.sd)):
                row |= _numbers(name, estimate)
            for low, high, cell in zip(edges, edges[1:], group.bins, strict=False):
                row |= _numbers(f"[{Decimal(low) / scale}, {Decimal(high) / scale})", cell)
            rows.append(row | {"hidden": None})
        for hidden in self.release.hidden:
            row = dict(zip(names, hidden.values, strict=True)) | {"count": float(hidden.noisy_count)}
            rows.append(row | {"hidden": hidden.text()})
        return table(rows)

    def __repr__(self) -> str:
        return f"Released({self.query!r}, {len(self.release.groups)} groups, {len(self.release.hidden)} hidden)"


def _column(group: str) -> str:
    ours = {"hidden", *(name + end for name in ("count", "mean", "sd") for end in ("", "_low", "_high"))}
    return f"group.{group}" if group in ours else group


def _numbers(name: str, estimate: Estimate) -> dict[str, float | None]:
    value = None if estimate.value is None else float(estimate.value)
    return {name: value, f"{name}_low": float(estimate.low), f"{name}_high": float(estimate.high)}


def check_release(
    query: str, data: bytes, receipts: Sequence[Receipt], trust: TrustFile, asked: Asked | None
) -> Released:
    """The release in `data`, if it is that of `query` and holds. receipts: of what was written about it, each verified.

    asked: the question, if it is known: then the release must answer it. Raises VerificationError, DecodeError.
    """
    from ledger.contracts import queries
    from ledger.envelope import open_envelope
    from mpc.release import Board, Release, verify_release
    from wire.canonical import decode

    release = decode(Release, data)
    if release.handle.hex() != query:
        raise _differs(query, "handle")
    if release.query.chain != trust.chain:
        raise _differs(query, "chain")
    proposed: queries.ProposeQuery | None = None
    opened: dict[int, queries.Release] = {}
    for receipt in receipts:
        ops = open_envelope(receipt.envelope).envelope.ops
        for op, result in zip(ops, receipt.result.ops, strict=False):
            if result.code:
                continue
            if isinstance(op, queries.ProposeQuery) and op.query == release.handle:
                proposed = op
            elif isinstance(op, queries.Release) and op.query == release.handle:
                opened[op.phase] = op
    if proposed is None:
        raise VerificationError("client.no_proof", query=query, what="queries.propose")
    for record in release.phases:
        found = opened.get(record.phase)
        if found is None:
            raise VerificationError("client.no_proof", query=query, what=f"queries.release {record.phase}")
        if (record.opened.totals, record.opened.blinding) != (found.totals, found.blinding):
            raise _differs(query, "totals")
    if len(release.phases) != proposed.phases:
        raise _differs(query, "phases")
    board = Board(
        query=release.handle,
        query_hash=proposed.salted_hash,
        population=proposed.population,
        roster=proposed.roster,
        rho_nano=proposed.rho_nano,
        phases=release.phases,
        budget_before_nano=release.budget_before_nano,
        budget_after_nano=release.budget_after_nano,
    )
    if board.budget_before_nano - board.budget_after_nano != proposed.rho_nano:
        raise _differs(query, "budget")
    verify_release(release, board)
    if asked is not None:
        _check_answers(query, release.query, asked)
    return Released(query, release, data, receipts)


def _differs(query: str, field: str) -> VerificationError:
    return VerificationError("client.other_release", query=query, field=field)


def _check_answers(handle: str, query: Query, asked: Asked) -> None:
    """Check that `query` is what was asked, as far as that was said. Raises VerificationError naming what differs."""
    measure = query.measure
    scale = measure.scale

    def units(text: str | None, usual: int) -> Decimal | int:
        return usual if text is None else Decimal(text) * scale

    first, last = (asked.edges[0], asked.edges[-1]) if asked.edges else (None, None)
    for field, holds in (
        ("population", query.population == asked.population),
        ("measure", measure.column == asked.measure),
        ("low", measure.low == units(asked.low or first, measure.low)),
        ("high", measure.high == units(asked.high or last, measure.high)),
        ("edges", measure.edges == tuple(int(Decimal(edge) * scale) for edge in asked.edges)),
        ("sites", not asked.sites or set(query.roster) == set(asked.sites)),
        ("datasets", set(asked.datasets) <= set(query.datasets)),
        ("by", tuple(group.name for group in query.groups) == asked.by),
        ("other", all(group.other == asked.other for group in query.groups)),
        ("filter", _same_filter(query, asked)),
        ("purpose", query.purpose == asked.purpose),
        ("person", query.unit == "row" or query.person == asked.person),
        ("rho", query.rho_nano == Decimal(asked.rho) * 10**9),
        ("delta_exponent", query.delta_exponent == asked.delta_exponent),
        ("minimum_group", query.minimum_group == asked.minimum_group),
    ):
        if not holds:
            raise _differs(handle, field)


def _same_filter(query: Query, asked: Asked) -> bool:
    from medveil.gateway.filters import NoFilter, parse_filter
    from mpc.query import normalised

    try:
        wanted = None if asked.filter is None else parse_filter(asked.filter)
    except NoFilter:
        raise Refused("client.no_filter") from None
    return normalised(msgspec.structs.replace(query, filter=wanted)) == normalised(query)
