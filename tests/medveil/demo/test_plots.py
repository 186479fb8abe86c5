"""Plots of answers in any script: no warning, and room for what the reader's browser will set."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

from medveil.demo.facts import GroupFacts, QueryFacts


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if "MPLCONFIGDIR" not in os.environ:
        monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path_factory.mktemp("matplotlib")))
    yield


def facts(*labels: str) -> QueryFacts:
    groups = [
        GroupFacts(
            label=label,
            noisy_count=300.0,
            hidden="",
            count=300.0,
            mean=2.0,
            mean_low=1.0,
            mean_high=3.0,
            sd=1.0,
            histogram=[100.0, 200.0],
            plain_count=300,
            plain_mean=2.1,
            plain_sd=1.0,
            plain_histogram=[101, 199],
        )
        for label in labels
    ]
    return QueryFacts(
        measure="每年费用",
        unit="元",
        by=["性别"],
        bounds=[0, 5000],
        edges=[0, 100, 5000],
        rows_policy="",
        minimum=50,
        groups=groups,
        rho_nano=1,
        budget_before_nano=4,
        budget_after_nano=3,
        noise=[],
        epsilons=[],
        privacy_unit="row",
        sites=["a"],
        messages=0,
        bytes_carried=0,
        explained=[],
    )


def width(svg: str) -> float:
    found = re.search(r'viewBox="0 0 ([\d.]+) ', svg)
    assert found
    return float(found.group(1))


def test_chinese_labels_are_text_with_room_and_without_warnings() -> None:
    from medveil.demo import plots

    picture = plots.means(facts("女性受访者", "男性受访者"))
    assert "女性受访者" in picture and "每年费用" in picture
    assert width(picture) > width(plots.means(facts("women", "men")))
    assert "男性受访者" in plots.histograms(facts("女性受访者", "男性受访者"))


def test_nothing_to_plot_is_no_plot() -> None:
    from medveil.demo import plots

    assert plots.means(facts()) == plots.histograms(facts()) == ""
