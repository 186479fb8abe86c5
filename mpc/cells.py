"""Which cell of a secure sum means what, and the proof that none can wrap.

Phase 1, the gate, asks for each measure one cell for each declared group: the count of rows in which the
measure is known. Phase 2 asks, for the groups of a measure whose *noisy pooled* count reached the query's
minimum, the count again, the sum, the squares and the histogram bins: sites may be lost between the
phases, and every number of a group must be about the same sites. A query without measures has one count
of rows in each phase. Which groups passed follows from what phase 1 released alone, so every site, the
coordinator and a stranger derive the same layout; nothing about it depends on exact data.

In an exact query only the gate and the bins have noise, and the groups that pass are the same for all measures
(`hidden_exactly`).

The cells of a phase lie measure by measure, kind by kind, group by group in one vector.

A site fills a cell, in lattice units of its measure's kind (`mpc.budget`), with

    u = x + noise + offset          0 <= u <= bound

    gate, counts, bins    x = lattice * rows      0 <= rows <= max_rows
    sums            x = lattice * sum d           |sum d| <= max_rows * D
    squares         x = lattice * (2 sum d^2 - count D^2)     |..| <= max_rows * D^2
    noise           |noise| <= reach (draws beyond are redrawn)
    offset          = reach - smallest x;   bound = largest x - smallest x + 2 reach

Order of steps at a site: clamp each value to the declared bounds (at home, `privacy.local`), sum
exactly, clamp the sums to the declared bounds of a site (they already are, unless an engine is
wrong; projecting is 1-Lipschitz and costs no privacy), scale to the lattice, add noise, add the
offset. Only then is anything committed, masked or sent.

No wrap: ``sites * bound < 2^62`` for every cell, from declarations only, before a site touches its
data. Lanes are mod 2^64, so a sum of honest cells is its integer value.

What it does not stop: a site may fill in false numbers or no noise. See `mpc.secure_aggregation`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec
import pyarrow as pa

from mpc import noise
from mpc.budget import Scale, check_delta, rows_of_one_unit, scales, surely_below
from mpc.query import GATE, SUMS, Kind, Query, local_plans, table_shape
from mpc.suppression import Hidden, suppress
from privacy.local import LocalPlan
from wire.canonical import Wire, encode
from wire.domains import SUM_LAYOUT, digest
from wire.errors import Refused, VerificationError

LANE_ROOM = 2**62
"""Sums of honest cells stay below this; lanes are mod 2^64."""

Draw = Callable[[Scale, int], tuple[int, ...]]

Passed = tuple[tuple[int, ...], ...]
"""For each of the query's plans the groups that passed: indices into its group labels, rising."""


class Block(Wire, frozen=True, tag="mpc.block"):
    """Consecutive cells of one kind of one measure: `groups` x `width` of them, group by group.

    scale names measure and kind. offset, bound: see the module's docstring; the same for every cell of the block.
    """

    scale: Scale
    groups: Annotated[int, msgspec.Meta(ge=0)]
    width: Annotated[int, msgspec.Meta(ge=1)]
    offset: int
    bound: int

    @property
    def cells(self) -> int:
        """Number of cells."""
        return self.groups * self.width


class Layout(Wire, frozen=True, tag="mpc.layout"):
    """The cells of one phase. sites: of the roster; groups: for each plan, indices into its group labels, rising."""

    phase: int
    sites: int
    groups: tuple[tuple[int, ...], ...]
    blocks: tuple[Block, ...]

    @property
    def cells(self) -> int:
        """Number of cells of the phase."""
        return sum(block.cells for block in self.blocks)

    def digest(self) -> bytes:
        """32 bytes that stand for this layout in the session of the sum."""
        return digest(SUM_LAYOUT, encode(self))


def gate_layout(query: Query) -> Layout:
    """Phase 1: the count of each declared group, for each measure. Raises Refused where a cell could wrap."""
    return _layout(query, GATE, _every_group(query))


def sums_layout(query: Query, passed: Passed) -> Layout:
    """Phase 2 for the groups that `passing` returned: counts, sums, squares, bins. May be empty."""
    return _layout(query, SUMS, passed)


def most_cells(query: Query) -> int:
    """Upper bound on the cells of both phases together."""
    plans = local_plans(query)
    return len(plans[0].combinations()) * sum(1 + len(plan.numbers) for plan in plans)


def prove_no_wrap(query: Query) -> None:
    """Check that no cell of either phase can wrap, whatever the data and the noise. Raises Refused."""
    gate_layout(query)
    sums_layout(query, _every_group(query))


def prove_delta(query: Query) -> None:
    """Check that the query's delta covers the draws that are drawn again, whoever is honest. Raises Refused.

    Else a query would be paid for, and what it costs could not be stated: there would be no release.
    """
    check_delta(query, most_cells(query))


def passing(query: Query, totals: Sequence[int], sites: int) -> Passed:
    """The groups of each measure whose noisy pooled count is at least the minimum; of an exact query those
    that `hidden_exactly` leaves. Public.

    totals: the released sums of phase 1; sites: how many survived it, whose vectors are in them. Take both from
    the ledger *after* checking that they open the sum of the commitments there (`sum_coordinator.check_opening`).
    """
    layout = gate_layout(query)
    counts = noisy(layout, totals, sites)
    if query.exact:
        hidden = {one.group for one in hidden_exactly(query, totals, sites)}
        shown = tuple(group for group in _every_group(query)[0] if group not in hidden)
        return (shown,) * len(layout.blocks)
    return tuple(
        tuple(
            group
            for group, count in enumerate(counts[block.scale.measure, "gate"])
            if count >= query.minimum_group * block.scale.lattice
        )
        for block in layout.blocks
    )


def fewest_rows(query: Query) -> int:
    """Rows that a group which is shown is to have: the minimum; in an exact query, of that many units.

    Fewer units than the minimum have (minimum - 1) m rows at most, with m those of one unit. Else an exact mean could
    be one person's, whose rows alone are as many as the minimum. Noise covers m rows wherever there is any. Public.
    """
    return (query.minimum_group - 1) * rows_of_one_unit(query) + 1 if query.exact else query.minimum_group


def needed(query: Query, scale: Scale, sites: int) -> int:
    """The noisy pooled count, in lattice units, from which on a group passes. sites: how many survived phase 1.

    `fewest_rows`; in an exact query so much more that a smaller group reaches it with probability delta at most, over
    all groups and measures together. scale: of the gate of a measure. Public.
    """
    minimum = fewest_rows(query) * scale.lattice
    return minimum + surely_below(query, scale, sites, gate_layout(query).cells) if query.exact else minimum


def hidden_exactly(query: Query, totals: Sequence[int], sites: int) -> tuple[Hidden, ...]:
    """The groups that an exact query hides, of all its measures alike, and why. Public; arguments as for `passing`.

    Alike, since measures that are known of the same rows have the same counts: of a group that one of two
    tables shows, the other hides nothing.
    """
    layout = gate_layout(query)
    counts = noisy(layout, totals, sites)
    sure, rows = [], []
    for block in layout.blocks:
        scale, found = block.scale, counts[block.scale.measure, "gate"]
        spare = needed(query, scale, sites) - fewest_rows(query) * scale.lattice
        sure.append([(count - spare) // scale.lattice for count in found])
        rows.append([count // scale.lattice for count in found])
    least, fewest = ([min(group) for group in zip(*one, strict=True)] for one in (sure, rows))
    return suppress(table_shape(query), least, fewest, fewest_rows(query))


def contribution(query: Query, layout: Layout, tables: Sequence[pa.Table], draw: Draw = noise.draw) -> tuple[int, ...]:
    """A site's noised cells u (secret), 0 <= u <= bound, in the layout's order.

    tables: what the site's local engine returned for each of ``local_plans(query)`` (secret). Call it once
    for each phase of a query: a second call draws fresh noise, and two noised answers say more than one.
    Tables of another shape are a caller's bug: ValueError.
    """
    plans = local_plans(query)
    found = [_integers(plan, table) for plan, table in zip(plans, tables, strict=True)]
    out: list[int] = []
    for block in layout.blocks:
        measure, kind = block.scale.measure, block.scale.kind
        plan, columns = plans[measure], found[measure]
        lowest, highest = _range(kind, query.max_rows, plan.largest)
        exact: list[int] = []
        for group in layout.groups[measure]:
            match kind:
                case "gate" | "counts":
                    exact.append(columns["count"][group])
                case "sums":
                    exact.append(columns["sum"][group])
                case "squares":
                    exact.append(2 * columns["sum_squares"][group] - columns["count"][group] * plan.largest**2)
                case "bins":
                    exact.extend(columns[f"bin_{i}"][group] for i in range(plan.bins))
        draws = draw(block.scale, block.cells)
        for value, added in zip(exact, draws, strict=True):
            x = min(max(value, lowest), highest) * block.scale.lattice
            u = x + added + block.offset
            if not 0 <= u <= block.bound:
                raise ValueError("a draw beyond the reach of its scale")
            out.append(u)
    return tuple(out)


def _integers(plan: LocalPlan, table: pa.Table) -> dict[str, list[int]]:
    named = table.column_names == ["group", *plan.numbers]
    if not named or tuple(table.column("group").to_pylist()) != plan.group_labels():
        raise ValueError("the local table does not follow the plan")
    columns: dict[str, list[int]] = {name: table.column(name).to_pylist() for name in plan.numbers}
    if any(type(value) is not int for column in columns.values() for value in column):
        raise ValueError("the local table must hold integers only")
    return columns


def noisy(layout: Layout, totals: Sequence[int], sites: int) -> dict[tuple[int, Kind], tuple[int, ...]]:
    """The noisy pooled cells by measure and kind, in lattice units, from the released sums of so many sites. Public.

    Raises VerificationError if there are not as many totals as cells or one is outside its range.
    """
    if len(totals) != layout.cells:
        raise VerificationError("mpc.totals_shape", phase=layout.phase, cells=layout.cells, totals=len(totals))
    out: dict[tuple[int, Kind], tuple[int, ...]] = {}
    start = 0
    for block in layout.blocks:
        cells = totals[start : start + block.cells]
        for index, total in enumerate(cells, start):
            if not 0 <= total <= sites * block.bound:
                raise VerificationError("mpc.total_out_of_range", phase=layout.phase, cell=index)
        out[block.scale.measure, block.scale.kind] = tuple(total - sites * block.offset for total in cells)
        start += block.cells
    return out


def _range(kind: Kind, rows: int, largest: int) -> tuple[int, int]:
    """Smallest and largest exact value of a site's cell of `kind`, in the kind's unit."""
    if kind in ("gate", "counts", "bins"):
        return 0, rows
    reach = rows * (largest if kind == "sums" else largest**2)
    return -reach, reach


def _every_group(query: Query) -> Passed:
    plans = local_plans(query)
    return (tuple(range(len(plans[0].combinations()))),) * len(plans)


def _layout(query: Query, phase: int, groups: Passed) -> Layout:
    plans = local_plans(query)
    sites = len(query.roster)
    blocks = []
    for scale in scales(query):
        if (scale.kind == "gate") != (phase == GATE):
            continue
        plan = plans[scale.measure]
        lowest, highest = _range(scale.kind, query.max_rows, plan.largest)
        offset = scale.reach - lowest * scale.lattice
        bound = (highest - lowest) * scale.lattice + 2 * scale.reach
        if sites * bound >= LANE_ROOM:
            bits = (sites * bound).bit_length()
            raise Refused("mpc.would_wrap", kind=scale.kind, measure=plan.measure or "rows", bits=bits)
        width = plan.bins if scale.kind == "bins" else 1
        blocks.append(Block(scale, len(groups[scale.measure]), width, offset, bound))
    return Layout(phase, sites, groups, tuple(blocks))
