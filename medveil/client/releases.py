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
from wire.dates import format_instant
from wire.errors import Refused, VerificationError

if TYPE_CHECKING:
    from ledger.receipts import ProvenValue, Receipt
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
    """A release that was verified. query: its handle, hex; release: all of it; declared: what the ledger says besides.

    data: its canonical bytes; proofs: what they were checked by. asked: whether they were also checked to answer a
    question that the caller gave.
    """

    def __init__(
        self, query: str, release: Release, data: bytes, proofs: Sequence[ProvenValue], declared: Declared, asked: bool
    ) -> None:
        self.query = query
        self.declared = declared
        self.asked = asked
        self.release = release
        self.data = data
        self.proofs = tuple(proofs)

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
    query: str, data: bytes, proofs: Sequence[ProvenValue], trust: TrustFile, asked: Asked | None
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
    return Released(query, release, data, proofs, check_declared(release, proofs, asked), asked is not None)


def check_new(released: Released, receipts: Sequence[Receipt], since: int) -> None:
    """Check that the query was proposed after `since` (ms UTC), by the time of its block: else a gateway could give
    what was released of the same question long ago. receipts: of what was written about it, each verified.

    Raises VerificationError.
    """
    from ledger.contracts.queries import ProposeQuery
    from ledger.envelope import open_envelope

    handle = released.release.handle
    for receipt in receipts:
        if receipt.block.height != released.declared.proposed or receipt.result.code:
            continue
        ops = open_envelope(receipt.envelope).envelope.ops
        if any(isinstance(op, ProposeQuery) and op.query == handle for op in ops):
            if receipt.block.time < since:
                raise VerificationError(
                    "client.earlier_release", query=released.query, time=format_instant(receipt.block.time)
                )
            return
    raise VerificationError("client.no_proof", query=released.query, what="queries.propose")


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
