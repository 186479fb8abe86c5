"""Attacks that take more than one answer, or what is left of a query that gave none: none beats what was debited.

Noise is OpenDP's, fresh in each answer as it is at a site. Beside each attack that fails stands what it would have
gained had the noise not been fresh, or the budget not been debited: there it must succeed.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest

from mpc import cells
from mpc.query import Split, check_query
from tests.mpc import noise_statistics as statistics
from tests.mpc.attacks.conftest import ALL_HONEST, ROWS, RUNS, above
from tests.mpc.attacks.membership import shown


@pytest.fixture(scope="module")
def kept() -> dict[str, list]:
    """Answers that several attacks take."""
    return {}


@pytest.fixture
def answers(study, kept) -> list:
    """Four answers to one question, each with noise of its own: four queries that were paid for."""
    if "four" not in kept:
        kept["four"] = [study.answer() for _ in range(4)]
    return kept["four"]


def gained(scores) -> float:
    return shown(scores[::2], scores[1::2], 0.01)


def test_a_question_asked_again_costs_again(answers):
    """Four answers stay below four times the price; they are far above one: a retry or rewrite for free would tell."""
    together = sum(answer.scores() for answer in answers)
    assert above(together, 4 * ALL_HONEST) == []
    assert above(together, ALL_HONEST)
    assert gained(together) > gained(answers[0].scores())


def test_the_same_answer_given_again_tells_nothing_more(answers):
    """What an equivalent rewrite gets (`mpc.history`): the same totals, so that their average is what it was."""
    again = [answers[0].scores() for _ in range(4)]
    assert np.array_equal(sum(again) / 4, answers[0].scores())
    assert above(sum(again) / 4, ALL_HONEST) == []


def test_filters_that_slide_over_a_person_pay_for_each_step(study, answers):
    """age < 50 has them, age < 49 has not: the difference of two answers is theirs, with the noise of both.

    So is that of a table and its successor, which they left.

    Both were debited. With one noise for both, which a seed of the data would give, the difference is exact.
    """
    without = study.answer(persons_rows={})
    difference = np.array(answers[0].totals[1], dtype=float) - np.array(without.totals[1], dtype=float)
    counts = difference[: 2 * RUNS]
    assert above(counts, 2 * ALL_HONEST) == []
    assert above(answers[0].scores() + without.scores(), 2 * ALL_HONEST) == []
    same = [study.answer(*[statistics.gaussian(seed) for seed in range(4)], persons_rows=rows) for rows in ({0: 1}, {})]
    exact = np.subtract(same[0].totals[1], same[1].totals[1])[: 2 * RUNS] / same[0].layouts[1].blocks[0].scale.lattice
    assert np.array_equal(exact, [1, 0] * RUNS)


def test_two_survivor_sets_of_one_query(study):
    """The person's site is in phase 1 and lost in phase 2, or the other way: the phases' difference is that site's.

    Below what the release states for these survivors, of the phase that has the site; with a site that tells its noise
    as well.
    """
    for lost, here in (({1: (0,)}, 2), ({2: (0,)}, 1)):
        answer = study.answer(lost=lost)
        part = answer.query.split.gate if here == 1 else answer.query.rho_nano - answer.query.split.gate
        for colluders in ((), (1,)):
            rho = Fraction(part * 2, 10**9 * (4 - len(colluders)))
            assert above(answer.scores(colluders, phases=(here,)), rho) == []
        one, other = (np.array(total[: 2 * RUNS], dtype=float) for total in answer.totals)
        lattices = [layout.blocks[0].scale.lattice for layout in answer.layouts]
        difference = (one / lattices[0] - other / lattices[1]) * (1 if here == 1 else -1)
        assert above(difference - np.median(difference[1::2]), ALL_HONEST) == []


def test_phases_with_one_noise_would_give_a_lost_site_away(study):
    """Why phase 2 draws anew: else what both phases have cancels, and only the lost site's own noise covers it."""
    parts = Split(450_000_000, 450_000_000, 50_000_000, 50_000_000, 0)
    gate_rho = Fraction(parts.gate, 10**9) * ALL_HONEST

    def lost_site(*draws):
        answer = study.answer(*draws, lost={2: (0,)}, split=parts)
        gate, counts = (layout.blocks[0].scale for layout in answer.layouts)
        assert (gate.site_variance, gate.lattice) == (counts.site_variance, counts.lattice)
        first, second = (np.array(total[: 2 * RUNS]) for total in answer.totals)
        moved = gate.lattice
        own = first - 4 * answer.layouts[0].blocks[0].offset - second + 3 * answer.layouts[1].blocks[0].offset
        return ((own - ROWS * moved) * moved - moved**2 / 2) / float(gate.site_variance)

    assert above(lost_site(), gate_rho) == []
    assert above(lost_site(*[statistics.mixed(0, lambda scale, site=site: site, 1.0) for site in range(4)]), gate_rho)


def test_rosters_that_differ_by_one_site_pay_for_both(study, answers):
    """All four, and the three without the person's: subtracted, that site's numbers, under the noise of seven."""
    roster = answers[0].query.roster[1:]
    three = study.answer(persons_rows={}, roster=roster, datasets=tuple(f"{site}.visits" for site in roster))
    check_query(three.query)
    assert above(answers[0].scores() + three.scores(), 2 * ALL_HONEST) == []
    four_counts, three_counts = (
        np.array(one.totals[1][: 2 * RUNS], dtype=float) / one.layouts[1].blocks[0].scale.lattice
        for one in (answers[0], three)
    )
    difference = four_counts - three_counts
    assert above(difference - np.median(difference[1::2]), ALL_HONEST) == []


def test_a_person_at_all_sites_is_one_person(study):
    """A row at each of four sites, unit "person": noise for four rows. Declared as rows, they would be seen."""
    everywhere = dict.fromkeys(range(4), 1)
    covered = study.answer(persons_rows=everywhere, unit="person")
    assert above(covered.scores(times=4), ALL_HONEST) == []
    assert gained(covered.scores(times=4)) > 0.2, "the attack is one"
    as_rows = study.answer(*map(statistics.gaussian, range(4)), persons_rows=everywhere)
    assert above(as_rows.scores(times=4), ALL_HONEST)


def test_one_person_at_one_site_with_more_rows_than_the_cap(study):
    """Three rows are covered where three are declared; the cap is what the noise rests on."""
    capped = study.answer(persons_rows={0: 3}, unit="person", person="patient", rows_per_person=3, spread="one-site")
    assert above(capped.scores(times=3), ALL_HONEST) == []
    uncapped = study.answer(*map(statistics.gaussian, range(4)), persons_rows={0: 3})
    assert above(uncapped.scores(times=3), ALL_HONEST)


def test_who_stops_after_the_gate_and_asks_again_pays_for_each_attempt(answers):
    """The coordinator looks at the counts of four attempts, and lets the best one end: an abort is no oracle.

    Each attempt is spent where the gate is opened, so four were debited, whichever was let end.
    """
    gates = np.array([answer.scores(phases=(1,)) for answer in answers])
    best = gates.argmax(axis=0)
    ends = np.array([answer.scores(phases=(2,)) for answer in answers])
    chosen = gates.sum(axis=0) + ends[best, np.arange(2 * RUNS)]
    assert above(chosen, 4 * ALL_HONEST) == []
    assert above(gates.max(axis=0), 4 * ALL_HONEST) == []


def aborted(study, query, tables, seed: str) -> Iterator[np.ndarray]:
    """The masked counts of each site of a run that ends before survivors are named: all that ever leaves."""
    layout = cells.gate_layout(query)
    vectors = {site: cells.contribution(query, layout, tables[site]) for site in query.roster}
    run = study.consortium.run(vectors)
    run.seed = seed
    for masked in run.mask().masked:
        yield np.frombuffer(masked.cells, dtype="<u8")


def test_aborted_runs_say_nothing_however_many(study):
    """Masked vectors of five attempts, added up and averaged in any way: uniform, with or without the person.

    Without self masks the sum of a run's vectors is the sum of the cells, and the attack has them.
    """
    query = study.query()
    tables = study.tables(query, {0: 1})
    seen = [np.sum(list(aborted(study, query, tables, f"attempt-{i}")), axis=0, dtype=np.uint64) for i in range(5)]
    for lanes in (seen[0], np.sum(seen, axis=0, dtype=np.uint64)):
        spread = lanes.astype(float) / 2**64
        assert gained((spread - 0.5) * 20) == 0.0
        assert statistics.stats.kstest(spread, "uniform").pvalue > 1e-9
    layout = cells.gate_layout(query)
    bare = np.sum([cells.contribution(query, layout, tables[site]) for site in query.roster], axis=0)
    assert statistics.stats.kstest(bare / 2**64, "uniform").pvalue < 1e-9
