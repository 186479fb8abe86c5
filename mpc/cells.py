"""Which cell of a secure sum means what, and the proof that none can wrap.

Phase 1 asks one cell for each declared group: its count. Phase 2 asks, for the groups whose *noisy
pooled* count reached the query's minimum, the sum, the squares and the histogram bins. Which groups
passed follows from the released totals of phase 1 alone, so every site, the coordinator and a
stranger derive the same layout; nothing about it depends on exact data.

A site fills a cell, in lattice units of its kind (`mpc.budget`), with

    u = x + noise + offset          0 <= u <= bound

    counts, bins    x = lattice * rows            0 <= rows <= max_rows
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
from mpc.budget import Kind, Scale, scales
from mpc.query import COUNTS, SUMS, Query, local_plan
from wire.canonical import Wire, encode
from wire.domains import SUM_LAYOUT, digest
from wire.errors import Refused, VerificationError

LANE_ROOM = 2**62
"""Sums of honest cells stay below this; lanes are mod 2^64."""

Draw = Callable[[Scale, int], tuple[int, ...]]


class Block(Wire, frozen=True, tag="mpc.block"):
    """Consecutive cells of one kind: `groups` x `width` of them, group by group.

    offset, bound: see the module's docstring; the same for every cell of the block.
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
    """The cells of one phase. groups: indices into the plan's group labels, rising."""

    phase: int
    sites: int
    groups: tuple[int, ...]
    blocks: tuple[Block, ...]

    @property
    def cells(self) -> int:
        """Number of cells of the phase."""
        return sum(block.cells for block in self.blocks)

    def digest(self) -> bytes:
        """32 bytes that stand for this layout in the session of the sum."""
        return digest(SUM_LAYOUT, encode(self))


def counts_layout(query: Query) -> Layout:
    """Phase 1: the count of each declared group. Raises Refused where a cell could wrap."""
    groups = tuple(range(len(local_plan(query).combinations())))
    return _layout(query, COUNTS, groups, ("counts",))


def sums_layout(query: Query, passed: Sequence[int]) -> Layout:
    """Phase 2 for the groups that `passing` returned: sums, squares, bins. May be empty."""
    kinds: tuple[Kind, ...] = ("sums", "squares", "bins") if query.measure.edges else ("sums", "squares")
    return _layout(query, SUMS, tuple(passed), kinds)


def most_cells(query: Query) -> int:
    """Upper bound on the cells of both phases together."""
    plan = local_plan(query)
    return len(plan.combinations()) * (3 + plan.bins)


def prove_no_wrap(query: Query) -> None:
    """Check that no cell of either phase can wrap, whatever the data and the noise. Raises Refused."""
    counts_layout(query)
    sums_layout(query, range(len(local_plan(query).combinations())))


def passing(query: Query, totals: Sequence[int]) -> tuple[int, ...]:
    """Indices of the groups whose noisy pooled count is at least the minimum. Public.

    totals: the released sums of phase 1. Take them from the ledger *after* checking that they open
    the sum of the commitments there (`secure_aggregation.check_opening`).
    """
    layout = counts_layout(query)
    (block,) = layout.blocks
    counts = noisy(layout, totals)["counts"]
    return tuple(i for i, count in enumerate(counts) if count >= query.minimum_group * block.scale.lattice)


def contribution(query: Query, layout: Layout, table: pa.Table, draw: Draw = noise.draw) -> tuple[int, ...]:
    """A site's noised cells u (secret), 0 <= u <= bound, in the layout's order.

    table: what the site's local engine returned for ``local_plan(query)`` (secret). Call it once for
    each phase of a query: a second call draws fresh noise, and two noised answers say more than one.
    A table of another shape is a caller's bug: ValueError.
    """
    plan = local_plan(query)
    names = ["group", "count", "sum", "sum_squares", *(f"bin_{i}" for i in range(plan.bins))]
    if table.column_names != names or tuple(table.column("group").to_pylist()) != plan.group_labels():
        raise ValueError("the local table does not follow the plan")
    columns: dict[str, list[int]] = {name: table.column(name).to_pylist() for name in names[1:]}
    if any(type(value) is not int for column in columns.values() for value in column):
        raise ValueError("the local table must hold integers only")
    largest = plan.largest
    out: list[int] = []
    for block in layout.blocks:
        lowest, highest = _range(block.scale.kind, query.max_rows, largest)
        exact: list[int] = []
        for group in layout.groups:
            match block.scale.kind:
                case "counts":
                    exact.append(columns["count"][group])
                case "sums":
                    exact.append(columns["sum"][group])
                case "squares":
                    exact.append(2 * columns["sum_squares"][group] - columns["count"][group] * largest**2)
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


def noisy(layout: Layout, totals: Sequence[int]) -> dict[Kind, tuple[int, ...]]:
    """The noisy pooled cells by kind, in lattice units, from the released sums. Public.

    Raises VerificationError if there are not as many totals as cells or one is outside its range.
    """
    if len(totals) != layout.cells:
        raise VerificationError("mpc.totals_shape", phase=layout.phase, cells=layout.cells, totals=len(totals))
    out: dict[Kind, tuple[int, ...]] = {}
    start = 0
    for block in layout.blocks:
        cells = totals[start : start + block.cells]
        for index, total in enumerate(cells, start):
            if not 0 <= total <= layout.sites * block.bound:
                raise VerificationError("mpc.total_out_of_range", phase=layout.phase, cell=index)
        out[block.scale.kind] = tuple(total - layout.sites * block.offset for total in cells)
        start += block.cells
    return out


def _range(kind: Kind, rows: int, largest: int) -> tuple[int, int]:
    """Smallest and largest exact value of a site's cell of `kind`, in the kind's unit."""
    if kind in ("counts", "bins"):
        return 0, rows
    reach = rows * (largest if kind == "sums" else largest**2)
    return -reach, reach


def _layout(query: Query, phase: int, groups: tuple[int, ...], kinds: tuple[Kind, ...]) -> Layout:
    plan = local_plan(query)
    sites = len(query.roster)
    blocks = []
    for scale in scales(query):
        if scale.kind not in kinds:
            continue
        lowest, highest = _range(scale.kind, query.max_rows, plan.largest)
        offset = scale.reach - lowest * scale.lattice
        bound = (highest - lowest) * scale.lattice + 2 * scale.reach
        if sites * bound >= LANE_ROOM:
            raise Refused("mpc.would_wrap", kind=scale.kind, bits=(sites * bound).bit_length())
        blocks.append(Block(scale, len(groups), plan.bins if scale.kind == "bins" else 1, offset, bound))
    return Layout(phase, sites, groups, tuple(blocks))
