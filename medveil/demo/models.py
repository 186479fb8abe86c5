"""The bureau's linear models of the demo: features, secret weights, public limit.

A real bureau keeps its weights to itself; these are stated so that the demo can be read and repeated.
The model of the RAND data asks for over-use: visits that neither chronic disease nor physical limits
explain. A folder of one's own gets a model drawn by the bureau over its first number columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from connectors.layout import Layout
from mpc.scoring import LARGEST_WEIGHT, Feature, readable
from wire.errors import Refused

WEIGHT_RANGE = (-40, 40)
"""Declared range of every weight, public."""

_MOST_FEATURES = 6


class ModelPlan(NamedTuple):
    """What the bureau builds its encrypted model from. weights: secret; the rest public."""

    name: str
    features: tuple[Feature, ...]
    weights: tuple[int, ...]
    limit: int


_BUILT_IN: dict[str, tuple[str, dict[str, int], int]] = {
    # Eight visits a year that nothing explains reach the limit.
    "randhie": ("over-use", {"mdvis": 12, "disea": -1, "physlm": -2, "hlthp": -30, "hlthf": -10}, 96),
    "heart": ("cardiac-workload", {"age": 2, "trestbps": 1, "chol": 1, "thalach": -2, "oldpeak": 3}, 280),
}
_FEATURE_SCALE = {"physlm": 10, "oldpeak": 10}


def plan_model(layout: Layout, rand: Callable[[int], bytes]) -> ModelPlan:
    """The model for tables of `layout`. rand: the bureau's, for a layout without a model of its own."""
    numbers = [column.name for column in layout.read_columns if column.kind == "number"]
    name, weights, limit = _BUILT_IN.get(layout.name, ("", {}, 0))
    if weights and set(weights) <= set(numbers):  # a table of one's own may bear a built-in layout's name
        features = tuple(_feature(layout, column) for column in weights)
        return ModelPlan(name, features, tuple(weights.values()), limit)
    columns = numbers[:_MOST_FEATURES]
    if not columns:
        raise Refused("demo.no_numbers", layout=layout.name)
    features = tuple(_feature(layout, column) for column in columns)
    drawn = _draw(len(columns), rand)
    while readable(features, drawn):  # weights that spell a record would be refused by any reviewer
        drawn = _draw(len(columns), rand)
    # Three quarters of the way from the lowest to the highest score that is possible.
    lowest = sum(w * f.low * f.scale for w, f in zip(drawn, features, strict=True))
    highest = sum(w * f.high * f.scale for w, f in zip(drawn, features, strict=True))
    return ModelPlan(f"{layout.name}-score", features, drawn, lowest + 3 * (highest - lowest) // 4)


def plan_reader(plan: ModelPlan) -> tuple[ModelPlan, tuple[int, int]]:
    """A model that spells a record in one exact score, made from the features of `plan`; and its declared range.

    Each weight is larger than all that the features before it can add up to. Where no such weights are within the
    largest range that a model may declare, they are 1, 10^3, 10^6 all the same.
    """
    features = sorted(plan.features, key=lambda one: (one.high - one.low) * one.scale)[:3]
    below, weights = 0, list[int]()
    for one in features:
        weights.append(below // one.scale + 1)
        below += weights[-1] * (one.high - one.low) * one.scale
    declared = -LARGEST_WEIGHT, LARGEST_WEIGHT
    if max(weights) > LARGEST_WEIGHT or not readable(features, weights):
        weights, declared = [1, 10**3, 10**6][-len(features) :], WEIGHT_RANGE
    limit = sum(one.high * one.scale for one in features)
    return ModelPlan(f"{plan.name}-reader", tuple(features), tuple(weights), limit), declared


def _draw(count: int, rand: Callable[[int], bytes]) -> tuple[int, ...]:
    return tuple(1 + rand(1)[0] % WEIGHT_RANGE[1] for _ in range(count))


def _feature(layout: Layout, name: str) -> Feature:
    """A column as a model sees it: whole bounds around the declared ones; missing counts as the middle."""
    column = layout.column(name)
    low, high = column.low // column.scale, -(-column.high // column.scale)
    return Feature(name, low, high, _FEATURE_SCALE.get(name, 1), (low + high) // 2)
