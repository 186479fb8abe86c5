"""How figures are taken: in turn, on fresh input, and what the medians and ratios mean. No clock is tested."""

from __future__ import annotations

import gc

import pytest

from benchmarks import measure
from benchmarks.measure import Effort, Figure, beside, compare, effort, in_turn, spread


def test_both_sides_run_in_turn_on_the_same_fresh_input() -> None:
    calls: list[tuple[str, int]] = []
    inputs = iter(range(100))
    rounds = in_turn(
        lambda given: calls.append(("ours", given)),
        lambda given: calls.append(("peer", given)),
        lambda: next(inputs),
        Effort(3, 0.0),
    )
    assert len(rounds) == 3
    # the warm-up, then three rounds with the order swapped every time
    assert calls == [
        ("ours", 0),
        ("peer", 0),
        ("ours", 1),
        ("peer", 1),
        ("peer", 2),
        ("ours", 2),
        ("ours", 3),
        ("peer", 3),
    ]


def test_rounds_go_on_until_the_time_is_over_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(10_000))
    monkeypatch.setattr(measure, "perf_counter", lambda: float(next(ticks)))
    # each side takes one tick, so a round takes two
    assert len(in_turn(lambda _: None, lambda _: None, lambda: None, Effort(2, 9.0))) == 5
    assert len(in_turn(lambda _: None, lambda _: None, lambda: None, Effort(7, 9.0))) == 7
    assert len(in_turn(lambda _: None, lambda _: None, lambda: None, Effort(2, 900.0, most=11))) == 11


def test_collection_is_off_while_timing_and_back_on_after_a_failure() -> None:
    seen: list[bool] = []
    in_turn(lambda _: seen.append(gc.isenabled()), lambda _: None, lambda: None, Effort(2, 0.0))
    assert seen == [True, False, False] and gc.isenabled()

    def fails(_: None) -> None:
        if not gc.isenabled():
            raise RuntimeError

    with pytest.raises(RuntimeError):
        in_turn(fails, lambda _: None, lambda: None, Effort(2, 0.0))
    assert gc.isenabled()


ROUNDS = ((1.0, 2.0), (2.0, 1.0), (4.0, 1.0))


def test_a_time_is_per_thing_and_its_ratio_is_how_many_times_as_long() -> None:
    assert beside("f", "ms", "p", ROUNDS, count=4) == Figure("f", 500.0, "ms", "p", 2.0, 0.375, 3)


def test_a_rate_is_things_a_second_and_its_ratio_is_the_share_of_the_peers() -> None:
    figure = beside("f", "records/s", "p", ROUNDS, count=4)
    assert (figure.value, figure.ratio) == (2.0, 0.5)


def test_the_ratio_is_of_pairs_and_not_of_medians() -> None:
    # a machine that is slow in some rounds slows both sides: pairs cancel it
    figure = beside("f", "s", "p", ((1.0, 1.0), (9.0, 9.0), (2.0, 2.0), (8.0, 8.0), (3.0, 3.0)))
    assert figure.ratio == 1.0 and figure.value == 3.0


def test_the_spread_is_half_the_quartile_range_over_the_median() -> None:
    assert spread([5.0]) == 0.0
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(1 / 3)


def test_compare_is_all_of_it_for_steps_without_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "QUICK", Effort(4, 0.0))
    figure = compare("f", "us", "p", lambda: None, lambda: None, quick=True)
    assert (figure.figure, figure.unit, figure.peer, figure.rounds) == ("f", "us", "p", 4)
    assert figure.value >= 0 and figure.ratio is not None


def test_quick_is_less_effort() -> None:
    assert effort(True).seconds < effort(False).seconds
    assert effort(True, Effort(9, 9.0)) == measure.QUICK and effort(False, Effort(9, 9.0)) == Effort(9, 9.0)
