"""Filters as a client writes them, against what a gateway reads."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from medveil.client import column


def test_filters_are_what_the_gateway_reads() -> None:
    from privacy.filters import parse_filter
    from privacy.predicate import And, Between, Compare, Fixed, In, IsNull, Not, Or

    made = (
        ((column("age") >= 18) & ~(column("ward") == "east"))
        | column("cost").between(Decimal("0.5"), 3)
        | column("ward").isin(["a", "b"])
        | column("x").missing()
    )
    parsed = parse_filter(made.json)
    assert isinstance(parsed, Or)
    kinds: list[Any] = []

    def walk(node: Any) -> None:
        kinds.append(type(node))
        for name in ("parts", "part"):
            inner = getattr(node, name, ())
            for one in inner if isinstance(inner, tuple) else (inner,):
                walk(one)

    walk(parsed)
    assert {And, Or, Not, Compare, Between, In, IsNull} == set(kinds)
    assert parse_filter((column("c") != Decimal("1.50")).json) == Compare("c", "ne", Fixed(15, 10))
    for wrong in (1.5, True, None, b"x"):
        with pytest.raises(ValueError, match="whole number"):
            column("c") == wrong  # noqa: B015
    with pytest.raises(ValueError, match="and, or, not"):
        bool(column("c") < 3)
