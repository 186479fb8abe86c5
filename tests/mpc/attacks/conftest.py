"""The study that all attacks play: groups that are alike, every second of which has one row more at one site."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from mpc import cells, noise
from mpc.budget import epsilon_at, split
from mpc.query import Measure, Query
from mpc.release import Board
from privacy.local import GroupColumn
from tests.mpc.attacks.membership import DELTAS, Drawn, Scores, Seen, score, shown
from tests.mpc.noise_statistics import Draw

RUNS = 1_500
"""Groups with the person, and as many without."""
ROWS = 24
"""Rows of each group at each site, all with the value in the middle: eight standard deviations of the widest noise here
lie between them and the smallest group that is shown, so that none is hidden by chance."""
RHO = 10**9
ALL_HONEST = Fraction(1, 2)
"""rho of a query for whoever knows no site's noise: h = 2 of the four bring rho = 1."""
CENTRE, EXTREME = 15, 30
BEFORE = {"gate": 1, "counts": 1, "sums": 0, "squares": -(15**2), "bins": 0}
"""What a row with the value in the middle adds to a cell of each kind."""
CHANGE = {"gate": 1, "counts": 1, "sums": 15, "squares": 15**2, "bins": 1}
"""What a row with the extreme value adds: as much as any row can."""


@dataclass(frozen=True)
class Answer:
    """One query's answer, and what each site drew for it, which nobody but the site knows.

    totals: what was opened of each phase; there: the positions in the roster of its survivors. board: of a whole run.
    """

    query: Query
    layouts: Sequence[cells.Layout]
    totals: Sequence[Sequence[int]]
    there: Sequence[Sequence[int]]
    drawn: Drawn
    board: Board | None = None

    def scores(self, colluders: Sequence[int] = (), times: int = 1, phases: Sequence[int] = (1, 2)) -> Scores:
        """The likelihood ratios of all groups, from what was opened. times: rows of the person.

        colluders: positions of the sites whose noise the attacker knows, and takes out.
        """
        total: Any = 0.0
        change = {kind: times * cell for kind, cell in CHANGE.items()}
        for phase in phases:
            there = self.there[phase - 1]
            seen = Seen.of(self.layouts[phase - 1], self.totals[phase - 1], len(there))
            before = {kind: ROWS * len(there) * cell for kind, cell in BEFORE.items()}
            assert set(colluders) <= set(there)
            total = total + score(seen.without(self.drawn, colluders), before, change)
        return total


@dataclass(frozen=True)
class Study:
    """Four hospitals, and the person that is in every second group."""

    consortium: Any
    make_query: Callable[..., Query]
    make_table: Callable[..., Any]

    def query(self, **changes: Any) -> Query:
        """One measure, no histogram, a group for each run."""
        codes = tuple(f"g{i}" for i in range(2 * RUNS))
        fields = {
            "groups": (GroupColumn("code", codes, other=False),),
            "measures": (Measure("visits", 0, 30, 1),),
            "rho_nano": RHO,
            "split": split(RHO, False),
            "minimum_group": 2,
            "max_rows": 2**20,
        }
        return self.make_query(**(fields | changes))

    def tables(self, query: Query, persons_rows: Mapping[int, int]) -> dict[str, Any]:
        """The exact tables. persons_rows: how many rows the person has, by site; at even groups alone."""
        rows = [(group, CENTRE) for group in range(2 * RUNS) for _ in range(ROWS)]
        person = [(group, EXTREME) for group in range(0, 2 * RUNS, 2)]
        made = {times: self.make_table(query, rows + person * times) for times in {0, *persons_rows.values()}}
        return {site: made[persons_rows.get(number, 0)] for number, site in enumerate(query.roster)}

    def whole(self, *draws: Draw, **changes: Any) -> Answer:
        """A query with all that belongs to it: contributions, masks, commitments, opening."""
        query, drawn = self.query(**changes), Drawn(draws or (noise.draw,))
        board = self.consortium.answer(query, self.tables(query, {0: 1}), draw=drawn)
        totals = [record.opened.totals for record in board.phases]
        every = tuple(range(len(query.roster)))
        layouts = (cells.gate_layout(query), _sums(query, totals[0], len(every)))
        return Answer(query, layouts, totals, (every, every), drawn, board)

    def answer(
        self,
        *draws: Draw,
        persons_rows: Mapping[int, int] | None = None,
        lost: Mapping[int, Sequence[int]] | None = None,
        **changes: Any,
    ) -> Answer:
        """The same sums without masks, which are exact whatever is in them. draws: by site, OpenDP's if none is given.

        lost: positions of the sites whose vectors are not in the sum of a phase.
        """
        query, drawn = self.query(**changes), Drawn(draws or (noise.draw,))
        tables = self.tables(query, {0: 1} if persons_rows is None else persons_rows)
        layouts, totals, survivors = [cells.gate_layout(query)], [], []
        for phase in (1, 2):
            if phase == 2:
                layouts.append(_sums(query, totals[0], len(survivors[0])))
            vectors = [cells.contribution(query, layouts[-1], tables[site], drawn) for site in query.roster]
            survivors.append([site for site in range(len(vectors)) if site not in (lost or {}).get(phase, ())])
            totals.append([sum(column) for column in zip(*(vectors[site] for site in survivors[-1]), strict=True)])
        return Answer(query, layouts, totals, survivors, drawn)


def _sums(query: Query, totals: Sequence[int], sites: int) -> cells.Layout:
    layout = cells.sums_layout(query, cells.passing(query, totals, sites))
    assert layout.cells == 3 * 2 * RUNS * len(query.measures), "all groups are far above the minimum"
    return layout


def above(scores: Scores, rho: Fraction, deltas: Sequence[float] = DELTAS) -> list[float]:
    """The deltas at which the attack shows more than rho-zCDP allows; none if the promise may be true."""
    with_them, without = scores[::2], scores[1::2]
    return [delta for delta in deltas if shown(with_them, without, delta) > float(epsilon_at(rho, Decimal(str(delta))))]


@pytest.fixture
def study(consortium, make_query, make_table) -> Study:
    """The study over the tests' hospitals."""
    return Study(consortium, make_query, make_table)
