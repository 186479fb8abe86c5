"""Rates: never more than the limit in a window, however the hits fall, and whoever waits as told gets in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medveil.service.api.rates import Rates, Window, network
from medveil.service.logs import Vocabulary
from medveil.service.metrics import Metrics


@given(st.integers(1, 9), st.lists(st.floats(0, 40), max_size=80))
def test_a_fixed_window_never_has_more_and_waiting_helps(most: int, steps: list[float]) -> None:
    now = 1000.0
    window = Window(most, 60, lambda: now)
    let: list[float] = []
    for step in steps:
        now += step
        wait = window.hit("a")
        if wait:
            assert 0 < wait <= 120
            now += wait + 1e-6
            assert window.hit("a") == 0
        let.append(now)
    for number in {int(at // 60) for at in let}:
        assert sum(int(at // 60) == number for at in let) <= most


def test_a_burst_at_a_windows_edge_is_no_double_share() -> None:
    now = 1079.0  # a second before a window ends
    window = Window(10, 60, lambda: now)
    assert sum(window.hit("a") == 0 for _ in range(20)) == 10
    assert window.hit("b") == 0
    now = 1081.0
    assert sum(window.hit("a") == 0 for _ in range(20)) == 0
    now = 1080.0 + 30
    assert sum(window.hit("a") == 0 for _ in range(20)) == 5


def test_memory_is_of_two_windows() -> None:
    now = 0.0
    window = Window(10, 60, lambda: now)
    for number in range(50):
        now = 60.0 * number
        for key in range(100):
            window.hit(f"{number}-{key}")
        assert len(window._now) + len(window._before) <= 200


@pytest.mark.parametrize("text", ["", "10", "0/minute", "-1/minute", "10/fortnight", "10/minute;"])
def test_what_is_no_rate_is_a_bug(text: str) -> None:
    with pytest.raises(ValueError, match="no rate"):
        Rates(Metrics("north", "0", Vocabulary()), text)


def test_an_ipv6_host_counts_by_its_network() -> None:
    assert network("2001:db8::1") == network("2001:db8::2") != network("2001:db8:0:1::1")
    assert network("192.0.2.1") != network("192.0.2.2") and network("nonsense") == "?"
