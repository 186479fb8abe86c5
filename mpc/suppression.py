"""Which groups of an exact table are hidden, so that nobody reckons a small one from the rest.

In an exact query (`mpc.query.Query.exact`) the groups that are shown have no noise. Whoever knows the totals of a
table, over each line of it, then subtracts what is shown from them. So it is not enough to hide the small groups
(*primary* suppression): of each line others must be hidden with them (*complementary*), and such that the equations
of all lines together leave the small ones open.

The table has an axis for each group column, a cell for each declared group. A *line* is all cells that differ in one
column alone; every other margin is a sum of lines. What is known of a cell before anything exact is asked is a count
that is *surely* there (`mpc.cells.sure_counts`, from noisy counts alone). A cell is *large* if that reaches the
minimum, else *small*. All small cells are hidden. A *box* of a small cell p is p, a cell q that differs from it in
every column, and all mixes of the two: 2^columns corners, *even* or *odd* by the number of columns in which they
differ from p. Adding one to the even corners and taking one from the odd ones changes no line, so that with a hidden
box p may be larger by the least odd corner, and smaller by the least even one, for all that anybody can tell. For each
small cell p there are hidden

    down   a box whose even corners but p are all large
    up     a box whose odd corners are all large; where a line of p has no large cell, and nothing of it is shown
           therefore, one in which only the neighbours of p in the other lines are large

and where one of them is not to be had, everything is. Both may be one box. Hence, whoever knows every margin of
the table exactly, all that is shown and that no count is negative

* cannot tell p from p - minimum, or from nobody at all where p is smaller than that;
* cannot tell it from p + minimum, unless a line of p is hidden whole;
* finds in every line no hidden cell, or none that is shown, or two hidden ones or more, the minimum among them.

A column with one value is no axis: its margins are the cells themselves. With no axis left there is one cell, which
is shown or not.

Deterministic, on integers; nothing in here sees data. Of all boxes the one is taken whose corners, as far as they are
not hidden yet, have the fewest noisy rows; of equal ones the first.
Sources: the hypercube method of statistical disclosure control (A. Hundepohl et al., *Statistical Disclosure
Control*, Wiley 2012, section 4.4), with large and small told by noisy counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from math import prod
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

MOST_GROUPS = 4096
MOST_COLUMNS = 6
"""Of more than one value. Limits of an exact query: a box has 2^columns corners and is looked for among all groups."""

Why = Literal["small", "protects", "withheld"]
"""Why a group is hidden: it may be small; it protects a small one; no small one of the table could be protected."""

_MOST_ROWS = 2**50
"""Counts above it cost no more: 64 of them add up in 64 bits."""

_Cells = npt.NDArray[np.int64]
_Marks = npt.NDArray[np.bool_]


class Hidden(NamedTuple):
    """A hidden group: index in the order of the table's cells, the last column fastest, and why."""

    group: int
    why: Why


def fits(shape: Sequence[int]) -> bool:
    """Whether a table is small enough to be asked exactly. shape: values of each group column."""
    return prod(shape) <= MOST_GROUPS and sum(axis > 1 for axis in shape) <= MOST_COLUMNS


def suppress(shape: Sequence[int], sure: Sequence[int], counts: Sequence[int], minimum: int) -> tuple[Hidden, ...]:
    """The groups of a table that are hidden, rising.

    shape: values of each group column, each at least 1; sure: what is surely there of each cell, below zero or
    not; counts: noisy counts, by which the cheapest box is chosen; minimum: at least 1. All public whole numbers, in
    one unit. Raises ValueError where they do not fit together, or the table does not fit (`fits`).
    """
    if minimum < 1 or min(shape, default=1) < 1 or not len(sure) == len(counts) == prod(shape) or not fits(shape):
        raise ValueError("the counts do not follow the table")
    small = dict.fromkeys(cell for cell, count in enumerate(sure) if count < minimum)
    axes = tuple(axis for axis in shape if axis > 1)
    table = _Table(axes, small, counts)
    if axes and not all(table.protect(cell) for cell in small):
        return tuple(Hidden(cell, "small" if cell in small else "withheld") for cell in range(len(sure)))
    marked = np.flatnonzero(table.hidden).tolist()
    return tuple(Hidden(cell, "small" if cell in small else "protects") for cell in marked)


class _Table:
    """The table while boxes are hidden. axes: of more than one value; small: the cells that are not large."""

    def __init__(self, axes: tuple[int, ...], small: Iterable[int], counts: Sequence[int]) -> None:
        self.axes = axes
        self.hidden: _Marks = np.zeros(prod(axes), dtype=np.bool_)
        self.hidden[list(small)] = True
        self.hidden = self.hidden.reshape(axes)
        self.large = ~self.hidden
        self.alive = [np.any(self.large, axis=at, keepdims=True) for at in range(len(axes))]
        rows = [min(max(count, 0), _MOST_ROWS) + 1 for count in counts]  # + 1: as few empty groups as will do
        self.rows: _Cells = np.array(rows, dtype=np.int64).reshape(axes)

    def protect(self, cell: int) -> bool:
        """Hide the boxes of a small cell. False if they are not to be had."""
        place = tuple(int(one) for one in np.unravel_index(cell, self.axes))
        down, up = self._boxes(place)
        both = down & up
        wanted = (both,) if both.any() else (down, up)
        if not all(boxes.any() for boxes in wanted):
            return False
        for boxes in wanted:
            self._hide(place, boxes)
        return True

    def _boxes(self, place: tuple[int, ...]) -> tuple[_Marks, _Marks]:
        """Which cells q are the far corner of a box that lets the cell at `place` be smaller, and larger."""
        far: _Marks = np.ones(self.axes, dtype=np.bool_)
        for axis, at in enumerate(place):
            far[(slice(None),) * axis + (at,)] = False
        down, up = far.copy(), far
        alive = [lines[(*place[:axis], 0, *place[axis + 1 :])] for axis, lines in enumerate(self.alive)]
        for differs in product((False, True), repeat=len(place)):
            columns = sum(differs)
            if columns % 2:
                if all(alive) or (columns == 1 and alive[differs.index(True)]):
                    up &= self.large[_corner(place, differs)]
            elif columns:
                down &= self.large[_corner(place, differs)]
        return down, up

    def _hide(self, place: tuple[int, ...], boxes: _Marks) -> None:
        """Hide the box of the cell at `place` that costs least. boxes: the far corners to choose from."""
        shown = np.where(self.hidden, 0, self.rows)
        cost = np.zeros(self.axes, dtype=np.int64)
        for differs in product((False, True), repeat=len(place)):
            cost += shown[_corner(place, differs)]
        far = np.unravel_index(np.argmin(np.where(boxes, cost, np.iinfo(np.int64).max)), self.axes)
        self.hidden[np.ix_(*([at, int(other)] for at, other in zip(place, far, strict=True)))] = True


def _corner(place: tuple[int, ...], differs: Sequence[bool]) -> tuple[slice, ...]:
    """Index that gives, for each far corner q, the corner with q's value in the columns that differ."""
    return tuple(slice(None) if other else slice(at, at + 1) for at, other in zip(place, differs, strict=True))
