"""Turns: given in the order of asking, not lost by who stops waiting."""

from __future__ import annotations

import threading
import time

from privacy.store.turns import Turns


def _waiting(turns: Turns, number: int) -> None:
    while len(turns._waiting) < number:
        time.sleep(0.001)


def test_who_lets_go_does_not_come_before_those_who_wait() -> None:
    turns, came = Turns(), []
    assert turns.take(1)

    def wait(name: str) -> None:
        assert turns.take(5)
        came.append(name)
        turns.pass_on()

    threads = []
    for number, name in enumerate("abc", start=1):
        threads.append(threading.Thread(target=wait, args=(name,)))
        threads[-1].start()
        _waiting(turns, number)
    turns.pass_on()
    assert turns.take(5)  # asked last
    came.append("again")
    turns.pass_on()
    for thread in threads:
        thread.join()
    assert came == ["a", "b", "c", "again"]


def test_who_stops_waiting_is_left_out_and_the_turn_is_not_lost() -> None:
    turns = Turns()
    assert turns.take(1)
    assert not turns.take(0.01)
    turns.pass_on()
    assert turns.take(0)
    turns.pass_on()
    assert turns.take(0)


def test_one_at_a_time_under_many_threads_that_give_up() -> None:
    turns, inside, most, got = Turns(), 0, 0, 0
    counting = threading.Lock()

    def work() -> None:
        nonlocal inside, most, got
        for _ in range(200):
            if turns.take(0.0005):
                with counting:
                    inside += 1
                    most, got = max(most, inside), got + 1
                with counting:
                    inside -= 1
                turns.pass_on()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1 and got > 0
    assert turns.take(0)
