"""The study of a layout as a question: what cannot be asked is said before anything is written."""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from connectors.dataset import load_layout, parse_layout
from connectors.layout import Layout, local_plan
from medveil.demo import run
from medveil.demo.models import plan_model
from medveil.demo.play import counted_rows
from medveil.demo.query import check_question, plain_answer
from wire.errors import Refused, Unavailable

OWN = """
version = 1
name = "own"
population = "own"
unit = "person"
person = "patient"
rows_per_person = 2
columns = [
  { name = "cost", kind = "number", low = 0, high = 100 },
  { name = "sex", kind = "category", values = ["female", "male"] },
]
[study]
title = "Cost by sex"
measure = "cost"
groups = ["sex"]
edges = [0, 10, 50]
minimum = 20
"""


@pytest.fixture
def own() -> Layout:
    return parse_layout(OWN.encode(), "dataset.toml")


def refusal(layout: Layout, rows: list[int]) -> str:
    with pytest.raises(Refused) as caught:
        check_question(layout, rows)
    return caught.value.code


def test_what_can_be_asked(own: Layout) -> None:
    check_question(own, [400, 0, 1])
    check_question(load_layout("heart"), [303, 294, 123, 200])
    check_question(load_layout("randhie"), [5047, 5048, 5047, 5048])


def test_what_cannot(own: Layout) -> None:
    assert refusal(own, [0, 0, 0]) == "demo.no_records"
    assert refusal(msgspec.structs.replace(own, study=None), [9, 9, 9]) == "demo.no_study"
    assert refusal(msgspec.structs.replace(own, colluders=5), [9, 9, 9]) == "mpc.too_many_colluders"
    assert own.study is not None
    tiny = msgspec.structs.replace(own.study, minimum=2)
    assert refusal(msgspec.structs.replace(own, study=tiny), [9, 9, 9]) == "gateway.small_groups"


def test_the_plain_answer_counts_what_the_query_counts(own: Layout) -> None:
    """Two rows of a person at most, unknown costs left out, unknown groups under "other", costs cut at 50."""
    table = pa.table(
        {
            "patient": ["a", "a", "a", "a", "b", "c", None, None, None],
            "cost": [1.0, None, 2.0, 3.0, 80.0, 20.0, 4.0, 5.0, 6.0],
            "sex": ["male", "male", "male", "male", "female", None, "male", "female", "female"],
        }
    )
    plan = local_plan(own, 100)
    counted = counted_rows(table, plan)
    assert counted["cost"].to_pylist() == [1.0, 2.0, 80.0, 20.0, 4.0, 5.0]
    plain = plain_answer(counted, plan)
    assert plain["sex=male"] == (3, pytest.approx(7 / 3), pytest.approx(1.5275252), [3, 0])
    assert plain["sex=female"][:2] == (2, pytest.approx(27.5))
    assert plain["sex=other"][:2] == (1, 20.0)


def test_a_table_of_ones_own_may_be_called_randhie(own: Layout) -> None:
    for name in ("randhie", "heart"):
        model = plan_model(msgspec.structs.replace(own, name=name), secrets.token_bytes)
        assert [feature.name for feature in model.features] == ["cost"]
    assert plan_model(load_layout("randhie"), secrets.token_bytes).name == "over-use"


@pytest.mark.parametrize("package", ["phe", "jinja2", "matplotlib"])
def test_a_missing_package_is_said_before_the_first_step(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "find_spec", lambda name: None if name == package else object())
    with pytest.raises(Unavailable, match=package):
        run.run(None, tmp_path / "out")
    assert not (tmp_path / "out").exists()
