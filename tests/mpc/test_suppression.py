"""mpc.suppression: what somebody who knows every margin of a table can reckon of its hidden groups.

The attacker here is not the code's own argument: exact linear algebra over the rationals, and a linear program, on
the equations of all margins.
"""

from __future__ import annotations

from fractions import Fraction
from hashlib import sha256
from itertools import product
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from mpc.suppression import MOST_COLUMNS, MOST_GROUPS, fits, suppress

MINIMUM = 10


def lines(shape):
    """Every line of a table: the cells that differ in one column alone."""
    cells = np.arange(int(np.prod(shape, dtype=int))).reshape(shape)
    for axis, size in enumerate(shape):
        if size > 1:
            yield from np.moveaxis(cells, axis, -1).reshape(-1, size).tolist()


def margins(shape):
    """Every margin: any columns fixed, summed over the others; the grand total is one."""
    cells = np.arange(int(np.prod(shape, dtype=int))).reshape(shape)
    axes = [axis for axis, size in enumerate(shape) if size > 1]
    for summed in product((False, True), repeat=len(axes)):
        over = [axis for axis, is_summed in zip(axes, summed, strict=True) if is_summed]
        if over:
            kept = int(np.prod([shape[axis] for axis in over]))
            last = range(len(shape) - len(over), len(shape))
            yield from np.moveaxis(cells, over, last).reshape(-1, kept).tolist()


def equations(shape, hidden, every=margins):
    """The margins' equations in the hidden cells, the shown ones subtracted."""
    column = {cell: at for at, cell in enumerate(hidden)}
    rows = {tuple(sorted(column[cell] for cell in margin if cell in column)) for margin in every(shape)}
    return [[int(at in row) for at in range(len(hidden))] for row in sorted(rows) if row]


def solvable(rows, unknowns):
    """The unknowns that the equations determine: their unit vectors lie in the span of the rows."""
    rows = [[Fraction(value) for value in row] for row in rows]
    pivots = []
    for column in range(unknowns):
        found = next((at for at in range(len(pivots), len(rows)) if rows[at][column]), None)
        if found is None:
            continue
        at = len(pivots)
        rows[at], rows[found] = rows[found], rows[at]
        rows[at] = [value / rows[at][column] for value in rows[at]]
        for other in range(len(rows)):
            if other != at and rows[other][column]:
                factor = rows[other][column]
                rows[other] = [a - factor * b for a, b in zip(rows[other], rows[at], strict=True)]
        pivots.append(column)
    return {column for at, column in enumerate(pivots) if sum(1 for value in rows[at] if value) == 1}


def interval(rows, truth, unknown):
    """The least and the largest that a hidden count can be, if none is negative."""
    sums = [sum(value for value, there in zip(truth, row, strict=True) if there) for row in rows]
    ends = []
    for sign in (1, -1):
        cost = np.zeros(len(truth))
        cost[unknown] = sign
        ends.append(sign * linprog(cost, A_eq=np.array(rows), b_eq=sums, bounds=(0, None), method="highs").fun)
    return ends


SHAPES = st.one_of(
    st.tuples(st.integers(2, 9)),
    st.tuples(st.integers(2, 6), st.integers(2, 6)),
    st.tuples(st.integers(1, 4), st.integers(2, 4), st.integers(1, 4)),
    st.tuples(st.integers(2, 3), st.integers(2, 3), st.integers(2, 3), st.integers(1, 2)),
)
COUNTS = st.one_of(st.integers(0, 3), st.integers(8, 12), st.integers(10, 60), st.integers(10, 60))


@st.composite
def tables(draw):
    shape = draw(SHAPES)
    size = int(np.prod(shape))
    return shape, draw(st.lists(COUNTS, min_size=size, max_size=size))


def hide(shape, counts):
    return suppress(shape, counts, counts, MINIMUM)


def small_cells(counts):
    return {cell for cell, count in enumerate(counts) if count < MINIMUM}


def test_one_small_group_takes_the_smallest_other_with_it():
    assert hide((4,), (30, 3, 20, 40)) == ((1, "small"), (2, "protects"))


def test_nothing_is_hidden_where_all_are_large_and_all_where_none_is():
    assert hide((2, 2), (10, 10, 10, 10)) == ()
    assert hide((2, 2), (9, 9, 9, 9)) == tuple((cell, "small") for cell in range(4))


def test_a_table_of_one_group_is_shown_or_not():
    assert hide((), (10,)) == ()
    assert hide((), (9,)) == ((0, "small"),)
    assert hide((1, 1), (9,)) == ((0, "small"),)


def test_a_box_is_hidden_around_a_small_group_of_two_columns():
    # The cheapest companions in its lines would be 20 and 21; the corner beyond them costs 99.
    table = (3, 20, 50, 21, 99, 60, 55, 61, 70)
    assert hide((3, 3), table) == ((0, "small"), (2, "protects"), (3, "protects"), (5, "protects"))


def test_small_groups_do_not_protect_each_other():
    # Both may be empty: their line's total would give both away.
    assert {one.group for one in hide((4,), (0, 0, 30, 40))} == {0, 1, 2}


def test_all_is_hidden_where_a_small_group_cannot_be_protected():
    # Each small group has large ones in its lines, but none beyond them: at least so many persons would be plain.
    found = hide((2, 2), (3, 40, 50, 4))
    assert found == ((0, "small"), (1, "withheld"), (2, "withheld"), (3, "small"))


def test_lines_of_two_hidden_groups_are_not_enough():
    """Why boxes: every line of this pattern has no hidden group or two, and one of them is known all the same."""
    shape = (6, 6)
    first, second = [(0, 0), (0, 1), (1, 1), (1, 0)], [(3, 3), (3, 4), (4, 4), (4, 3)]
    hidden = sorted(row * 6 + column for row, column in (*first, *second, (0, 3)))
    rows = equations(shape, hidden)
    assert min(sum(row) for row in rows) >= 2
    assert solvable(rows, len(hidden)) == {hidden.index(3)}


def test_two_tables_of_the_same_rows_that_hide_different_companions_give_the_small_group_away():
    """Why one exact table is answered of the same rows: each hides well, and together they hide nothing."""
    counts = (3, 20, 21, 40)
    first = {one.group for one in suppress((4,), counts, counts, MINIMUM)}
    second = {one.group for one in suppress((4,), counts, (3, 25, 21, 40), MINIMUM)}  # other noise
    assert first != second
    assert first & second == {0}  # the total less all that one of them shows


@settings(max_examples=150, deadline=None)
@given(tables())
def test_every_line_hides_none_or_all_or_two_with_the_minimum_among_them(table):
    shape, counts = table
    hidden = {one.group for one in hide(shape, counts)}
    assert small_cells(counts) <= hidden
    for line in lines(shape):
        there = [counts[cell] for cell in line if cell in hidden]
        assert not there or len(there) == len(line) or (len(there) >= 2 and sum(there) >= MINIMUM)


@settings(max_examples=80, deadline=None)
@given(tables())
def test_no_small_group_is_a_combination_of_the_margins(table):
    shape, counts = table
    hidden = [one.group for one in hide(shape, counts)]
    known = {hidden[at] for at in solvable(equations(shape, hidden), len(hidden))}
    assert not known & small_cells(counts)


@settings(max_examples=60, deadline=None)
@given(tables())
def test_no_margins_tell_a_small_group_from_an_empty_one_or_one_of_the_minimum_more(table):
    shape, counts = table
    found = hide(shape, counts)
    if any(one.why == "withheld" for one in found) or all(one.why == "small" for one in found):
        return  # nothing of a hidden table was shown; what the margins alone say, they say without it
    hidden = [one.group for one in found]
    rows = equations(shape, hidden, lines)
    truth = [counts[cell] for cell in hidden]
    for cell in small_cells(counts):
        low, high = interval(rows, truth, hidden.index(cell))
        assert low <= max(0, counts[cell] - MINIMUM) + 1e-6
        if all(any(counts[one] >= MINIMUM for one in line) for line in lines(shape) if cell in line):
            assert high >= counts[cell] + MINIMUM - 1e-6


def test_the_attacker_of_these_tests_solves_a_lone_hidden_group():
    rows = equations((3, 3), [4])
    assert solvable(rows, 1) == {0}
    assert interval(rows, [7], 0) == [7, 7]


@given(tables(), st.randoms(use_true_random=False))
def test_values_in_another_order_hide_as_well(table, random):
    """No value of a column is treated otherwise than the next, but that of boxes of equal cost the first is taken."""
    shape, counts = table
    cells = np.arange(len(counts)).reshape(shape)
    for axis, size in enumerate(shape):
        order = list(range(size))
        random.shuffle(order)
        cells = np.take(cells, order, axis=axis)
    moved = hide(shape, [counts[cell] for cell in cells.reshape(-1)])
    assert {why.why == "withheld" for why in moved} == {why.why == "withheld" for why in hide(shape, counts)}


def test_every_version_hides_the_same():
    """A release is verified by hiding again; and two versions with different companions give small groups away."""
    random, told = Random(7), sha256()
    for _ in range(400):
        shape = random.choice(((5,), (3, 4), (4, 4), (5, 3), (2, 3, 3), (3, 1, 4), (2, 2, 2, 3)))
        size = int(np.prod(shape))
        counts = [random.choice((0, 2, 9, 10, 11, 15, 30, 60)) for _ in range(size)]
        noisy = [count + random.randint(-2, 2) for count in counts]
        sure = [count - random.choice((0, 0, 0, 1, 12)) for count in counts]
        told.update(repr(suppress(shape, sure, noisy, MINIMUM)).encode())
    assert told.hexdigest() == "d29dd2aaac7b3174a3779091546d6bc7470c7b275783e09eff44e57eb3c7d4c6"


def test_tables_beyond_the_limits_are_a_callers_bug():
    assert fits((MOST_GROUPS,))
    assert not fits((MOST_GROUPS + 1,))
    assert fits((2,) * MOST_COLUMNS + (1,))
    assert not fits((2,) * (MOST_COLUMNS + 1))
    for shape, counts, minimum in (((2,), (1,), 5), ((0,), (), 5), ((1,), (4,), 0), ((2,) * 7, (1,) * 128, 5)):
        with pytest.raises(ValueError):
            suppress(shape, counts, counts, minimum)
