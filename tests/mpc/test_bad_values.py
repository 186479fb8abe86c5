"""What is wrong with a site's data cannot be seen: values no measure has, unknown groups, one person, none at all.

An answer that depends on data is a leak, so a whole query is played with each kind of bad table at one site: what all
sites say has the same order and the same lengths as with a good table, nothing is raised, warned of or logged, and the
site's code goes the same way, call by call, so that its time tells nothing but how many rows and persons there are,
whatever is asked.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections import Counter
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

import mpc
from connectors.arrow_engine import ArrowEngine
from mpc import cells, noise, sum_messages
from mpc.budget import split
from mpc.query import Measure, Query, local_plans
from privacy.local import RowFilter, bind
from privacy.predicate import Compare
from privacy.vault import person_names
from wire import canonical
from wire.errors import DecodeError

ROWS = 48
RHO = 10**11
FINE = 100_000
EVERY = RowFilter(None)
PRODUCT = Path(mpc.__file__).parent.parent


def table(visits=None, health=None, plan=None, rows=ROWS) -> pa.Table:
    """A site's rows: three groups by two, visits of 0 to 29; columns replaced as a test wants."""
    good = {"health": ["good", "fair", "poor"], "plan": ["yes", "yes", "yes", "no", "no", "no"]}
    return pa.table(
        {
            "visits": pa.array([float(row % 30) for row in range(rows)] if visits is None else visits, pa.float64()),
            "health": pa.array(health or [good["health"][row % 3] for row in range(rows)], pa.string()),
            "plan": pa.array(plan or [good["plan"][row % 6] for row in range(rows)], pa.string()),
            "patient": pa.array([f"p{row}" for row in range(rows)], pa.string()),
        }
    )


def of(value) -> pa.Table:
    return table(visits=[value] * ROWS)


BAD = {
    "NaN": of(math.nan),
    "a NaN": table(visits=[math.nan, *range(ROWS - 1)]),
    "missing": of(None),
    "infinite": of(math.inf),
    "minus infinite": of(-math.inf),
    "largest double": of(sys.float_info.max),
    "smallest double": of(5e-324),
    "beyond 64 bits": of(2.0**64),
    "at the edge of 64 bits": of(-(2.0**63)),
    "out of bounds": table(visits=[-1e9, 1e9] * (ROWS // 2)),
    "minus zero": of(-0.0),
    "unknown group": table(health=["zzz"] * ROWS),
    "missing group": table(health=[None] * ROWS, plan=[None] * ROWS),
    "groups with odd names": table(health=["health=good|plan=yes", "\u0000", "", "a" * 10_000] * (ROWS // 4)),
    "one group": table(health=["good"] * ROWS, plan=["yes"] * ROWS),
    "no such group": table(health=["fair"] * ROWS),
}
SMALL = {"one person": table(rows=1), "nobody": table(rows=0)}


@pytest.fixture
def query(make_query) -> Query:
    """Of persons, each with one row; a group passes with what the other three sites have."""
    return make_query(unit="person", person="patient", minimum_group=2, rho_nano=RHO, split=split(RHO, True))


def play(consortium, query: Query, first: pa.Table, seed: str = "run"):
    """Both phases, the first site over `first` and the others over good tables: what was said, and by whom."""
    tables = [first, *[table(rows=600)] * (len(query.roster) - 1)]
    exact = {
        site: tuple(ArrowEngine(one).run(plan, EVERY) for plan in local_plans(query))
        for site, one in zip(query.roster, tables, strict=True)
    }
    runs, layouts = [], [cells.gate_layout(query)]
    for phase in (1, 2):
        if phase == 2:
            layouts.append(cells.sums_layout(query, cells.passing(query, runs[0].opened.totals, len(query.roster))))
        vectors = {site: cells.contribution(query, layouts[-1], exact[site]) for site in query.roster}
        session = sum_messages.session_for(query, bytes(32), bytes(16), layouts[-1])
        run = consortium.run(vectors)
        run.session, run.seed = session, f"{seed}/{phase}"
        run.opened = run.open()
        runs.append(run)
    return runs


def said(run):
    """All that the sites say in a run, in order."""
    shares = [share for site in sorted(run.dealt) for share in run.dealt[site]]
    return [*run.keys, *shares, *run.announcements, *run.masked, *run.contributions, *run.unmaskings]


def seen(runs) -> list[tuple[str, int]]:
    """What somebody sees who reads no content: kinds and lengths."""
    return [(type(one).__name__, len(canonical.encode(one))) for run in runs for one in said(run)]


@pytest.mark.parametrize("name", [*BAD, *SMALL])
def test_no_message_tells_that_something_is_wrong(consortium, query, caplog, capfd, name):
    with caplog.at_level(logging.DEBUG):
        usual = seen(play(consortium, query, table()))
        found = seen(play(consortium, query, (BAD | SMALL)[name]))
    assert found == usual
    assert (caplog.records, capfd.readouterr()) == ([], ("", ""))


def calls(query: Query, rows: pa.Table) -> Counter[tuple[str, str]]:
    """Which functions of the product a site's own work calls, and how often."""
    found: Counter[tuple[str, str]] = Counter()

    def note(frame, event, argument):
        if event == "call" and Path(frame.f_code.co_filename).is_relative_to(PRODUCT):
            found[frame.f_code.co_filename, frame.f_code.co_qualname] += 1

    sys.setprofile(note)
    try:
        exact = tuple(ArrowEngine(rows).run(plan, EVERY) for plan in local_plans(query))
        gate = cells.gate_layout(query)
        every = [len(query.roster) * block.bound for block in gate.blocks for _ in range(block.cells)]
        sums = cells.sums_layout(query, cells.passing(query, every, len(query.roster)))
        for layout in (gate, sums):
            cells.contribution(query, layout, exact)
    finally:
        sys.setprofile(None)
    return found


def test_the_same_steps_whatever_the_values(query):
    """No branch on data: calls are the same one by one; with fewer rows too."""
    usual = calls(query, table())
    assert usual[noise.__file__, "draw"] == 5 and len(usual) > 10
    for name, rows in BAD.items():
        assert calls(query, rows) == usual, name
    spelled = (person_names.__file__, "canonical")  # once for each person that the table has, whatever is asked
    assert usual.pop(spelled) == ROWS
    for name, rows in SMALL.items():
        found = calls(query, rows)
        assert found.pop(spelled, 0) == rows.num_rows and found == usual, name


def test_the_same_work_whatever_passes_the_filter(query):
    """Whoever asks sees when a site's keys come, and may close then at no cost: it must not tell how many rows pass."""
    rows = table(rows=40_000)
    plans = [msgspec.structs.replace(plan, max_rows=2**20) for plan in local_plans(query)]
    kinds = {"visits": "number"}
    none, every = (bind(kinds, Compare("visits", "gt", edge)) for edge in (99, -1))

    def work(row_filter):
        engine = ArrowEngine(rows)
        best = []
        for _ in range(7):
            start = time.process_time()
            for plan in plans:
                found = engine.run(plan, row_filter)["count"].to_pylist()
                assert any(found) == (row_filter is every)
            best.append(time.process_time() - start)
        return min(best)

    assert 0.5 < work(none) / work(every) < 2


def test_a_branch_on_data_would_be_noticed(query, monkeypatch):
    """The test above, of an engine that handles NaN in a function of its own."""
    plain = ArrowEngine.run

    def branching(self, plan, row_filter):
        first = self._table["visits"][0].as_py()
        return plain(self if first == first else ArrowEngine(self._table), plan, row_filter)

    monkeypatch.setattr(ArrowEngine, "run", branching)
    assert calls(query, table()) != calls(query, BAD["NaN"])


def test_planted_numbers_are_in_no_message_repr_or_log(consortium, query, caplog):
    """What a site summed, and its cells, as text and as bytes of either order; shares besides.

    Numbers of ten digits and more: shorter ones stand somewhere in keys by chance.
    """
    fine = Measure("visits", 0, 30 * FINE, FINE)
    query = msgspec.structs.replace(query, measures=(fine,), split=split(RHO, False))
    marked = table(visits=[17.25] * 4_409 + [3.125] * 3_671, health=["good"] * 8_080, plan=["yes"] * 8_080, rows=8_080)
    (exact,) = [ArrowEngine(marked).run(plan, EVERY) for plan in local_plans(query)]
    planted = {abs(exact[name][0].as_py()) for name in ("sum", "sum_squares")}
    with caplog.at_level(logging.DEBUG):
        runs = play(consortium, query, marked)
    for run in runs:
        own = {value for value in planted | set(run.vectors[query.roster[0]]) if value > 10**9}
        assert own >= planted
        written = b"\n".join(canonical.encode(one) for one in said(run))
        shown = " ".join(map(repr, (run.states, run.coordinator, said(run)))) + caplog.text
        for value in own:
            assert value.to_bytes(8, "little") not in written and value.to_bytes(8, "big") not in written
            assert str(value).encode() not in written and str(value) not in shown
        for unmasking in run.unmaskings:
            for one in unmasking.shares:
                assert one.share.hex() not in shown and repr(one.share)[2:-1] not in shown
        assert run.masked[0].cells in written, "the search finds what is there"


@pytest.mark.parametrize("rho", [-1, -(10**9), 2**53, 2**64 - 1])
def test_a_rho_below_zero_or_beyond_all_reason_is_no_query(make_query, rho):
    query = make_query()
    data = canonical.encode(query)
    assert canonical.decode(Query, data) == query
    wrong = msgspec.structs.replace(query, rho_nano=rho)
    with pytest.raises(DecodeError):
        canonical.decode(Query, canonical.encode(wrong))
