"""Figures as a table or as JSON, and beside the committed baseline."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import LOWER_IS_BETTER, Figure

BASELINES = Path(__file__).resolve().parent / "baselines"

Row = dict[str, Any]
"""One figure as JSON: bench, figure, value, unit, peer, ratio, machine, commit; besides spread, rounds, quick."""


def row(bench: str, figure: Figure, machine: str, commit: str, quick: bool) -> Row:
    """The JSON object of one figure."""
    return {
        "bench": bench,
        "figure": figure.figure,
        "value": _rounded(figure.value),
        "unit": figure.unit,
        "peer": figure.peer,
        "ratio": None if figure.ratio is None else _rounded(figure.ratio),
        "machine": machine,
        "commit": commit,
        "spread": _rounded(figure.spread),
        "rounds": figure.rounds,
        "quick": quick,
    }


def _rounded(value: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f"{value:.4g}")


def line(figure: Row) -> str:
    """One JSON object on one line."""
    return json.dumps(figure, ensure_ascii=False)


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def table(figures: Sequence[Row]) -> str:
    """The figures for people, aligned."""
    head = ("figure", "value", "unit", "+-", "ratio", "beside")
    cells = [
        (
            f"{one['bench']}.{one['figure']}",
            _number(one["value"]),
            one["unit"],
            f"{one['spread']:.0%}" if one["rounds"] else "",
            "" if one["ratio"] is None else _number(one["ratio"]),
            one["peer"] or "",
        )
        for one in figures
    ]
    return _aligned([head, *cells], right={1, 3, 4})


def _aligned(rows: Sequence[Sequence[str]], right: set[int]) -> str:
    widths = [max(len(one[column]) for one in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            text.rjust(width) if column in right else text.ljust(width)
            for column, (text, width) in enumerate(zip(one, widths, strict=True))
        ).rstrip()
        for one in rows
    )


def baselines(folder: Path | None = None) -> list[Path]:
    """The committed baselines, ``YYYY-MM-DD.json``, oldest first."""
    return sorted((folder or BASELINES).glob("[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9].json"))


def read_baseline(path: Path) -> dict[tuple[str, str], Row]:
    """A baseline's figures by bench and name."""
    figures: list[Row] = json.loads(path.read_text(encoding="utf-8"))
    return {(one["bench"], one["figure"]): one for one in figures}


def write_baseline(path: Path, figures: Sequence[Row]) -> None:
    """Write a JSON array with one figure a line. What `path` holds of other benches stays."""
    benches = {one["bench"] for one in figures}
    kept = [one for one in read_baseline(path).values() if one["bench"] not in benches] if path.exists() else []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[\n" + ",\n".join(line(one) for one in (*kept, *figures)) + "\n]\n", encoding="utf-8")


def comparison(figures: Sequence[Row], baseline: Mapping[tuple[str, str], Row], name: str) -> str:
    """The figures beside a baseline's. `change` is of the value; a ratio's own change outlives another machine."""
    rows: list[tuple[str, ...]] = [("figure", "now", "then", "unit", "change", "", "ratio now", "ratio then")]
    other_machine = quick = False
    for one in figures:
        before = baseline.get((one["bench"], one["figure"]))
        if before is None or before["unit"] != one["unit"]:
            rows.append((f"{one['bench']}.{one['figure']}", _number(one["value"]), "new", one["unit"], "", "", "", ""))
            continue
        alike = before["machine"] == one["machine"] and before["quick"] == one["quick"]
        other_machine |= before["machine"] != one["machine"]
        quick |= before["quick"] != one["quick"]
        change = one["value"] / before["value"] - 1
        rows.append(
            (
                f"{one['bench']}.{one['figure']}",
                _number(one["value"]),
                _number(before["value"]),
                one["unit"],
                f"{change:+.0%}",
                _verdict(change, one) if alike else "",
                *("" if of["ratio"] is None else _number(of["ratio"]) for of in (one, before)),
            )
        )
    said = [f"Beside the baseline {name}:", _aligned(rows, right={1, 2, 4, 6, 7})]
    if other_machine:
        said.append("Another machine than the baseline's: compare ratios, not values.")
    if quick:
        said.append("One side was measured with --quick, on smaller inputs: fixed costs weigh more there.")
    return "\n".join(said)


def _verdict(change: float, one: Row) -> str:
    """A word where a value moved by more than three spreads and a tenth."""
    if abs(change) <= max(0.1, 3 * one["spread"]):
        return ""
    return "better" if (change < 0) == (one["unit"] in LOWER_IS_BETTER) else "worse"
