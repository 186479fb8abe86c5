"""The report: one self-contained HTML page with the run's facts and plots. Nothing is loaded from elsewhere."""

from __future__ import annotations

import os
import shutil
from importlib import resources
from pathlib import Path

from medveil.demo import plots
from medveil.demo.facts import DemoFacts
from wire.errors import Unavailable


def number(value: float | None, digits: int) -> str:
    """A number for a table cell; a dash where there is none."""
    return "–" if value is None else f"{value:,.{digits}f}"


def rho(nano: int) -> str:
    """Nano-rho as rho, in full."""
    whole, part = divmod(nano, 10**9)
    return f"{whole}.{part:09d}".rstrip("0").rstrip(".")


def counted(columns: dict[str, int]) -> str:
    """ "chol 49, thal 166" for a table cell; columns without any are left out."""
    return ", ".join(f"{name} {count:,}" for name, count in columns.items() if count) or "none"


def write_report(path: Path, facts: DemoFacts) -> None:
    """Write the page. Raises Unavailable where the `plot` extra is not installed."""
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError:
        raise Unavailable("demo.no_plots") from None
    plotted = _plots(path.parent / ".matplotlib", facts)
    source = resources.files("medveil.demo").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page = environment.from_string(source).render(
        f=facts,
        rows=sum(site.rows for site in facts.load.sites),
        shown=sum(1 for group in facts.query.groups if not group.hidden),
        plots=plotted,
        number=number,
        rho=rho,
        counted=counted,
    )
    path.write_text(page, encoding="utf-8")


def _plots(cache: Path, facts: DemoFacts) -> dict[str, str]:
    """The page's figures. matplotlib's font cache goes to `cache` and away again, unless the user keeps one."""
    kept = os.environ.get("MPLCONFIGDIR")
    os.environ["MPLCONFIGDIR"] = kept or str(cache)
    try:
        return {
            "means": plots.means(facts.query),
            "histograms": plots.histograms(facts.query),
            "budget": plots.budget(facts.query),
        }
    finally:
        if kept is None:
            del os.environ["MPLCONFIGDIR"]
            shutil.rmtree(cache, ignore_errors=True)
