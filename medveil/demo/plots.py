"""The report's plots: matplotlib figures as inline SVG, text kept as text.

Set MPLCONFIGDIR before the first plot: matplotlib writes its font cache there.
"""

from __future__ import annotations

import io
import unicodedata
import warnings
from collections.abc import Sequence
from typing import Any

from medveil.demo.facts import QueryFacts
from wire.errors import Unavailable

_EM = 10 / 72
"""Inches of one em of a label."""
_INK, _SOFT, _ACCENT, _PALE, _WARN = "#16202a", "#5a6875", "#0b6e6e", "#9fd0d0", "#a1490c"


def _pyplot() -> Any:
    try:
        import matplotlib

        matplotlib.use("svg")
        matplotlib.rcParams.update(
            {
                "svg.fonttype": "none",
                "svg.hashsalt": "medveil",
                "font.family": "sans-serif",
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.edgecolor": _SOFT,
                "text.color": _INK,
                "axes.labelcolor": _SOFT,
                "xtick.color": _SOFT,
                "ytick.color": _INK,
            }
        )
        from matplotlib import pyplot
    except ImportError:
        raise Unavailable("demo.no_plots") from None
    return pyplot


def _svg(figure: Any, labels: Sequence[str] = ()) -> str:
    """labels: texts at the left edge. The reader's browser sets them in its own font, with characters that
    matplotlib's lacks and takes for narrow: the picture gets room for these."""
    from matplotlib.transforms import Bbox

    wide = max((sum(unicodedata.east_asian_width(one) in "WF" for one in label) for label in labels), default=0)
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        box = figure.get_tightbbox().padded(0.1)
        whole = Bbox.from_extents(box.x0 - wide * _EM / 2, box.y0, box.x1, box.y1)
        figure.savefig(buffer, format="svg", bbox_inches=whole, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def means(query: QueryFacts) -> str:
    """Each shown group's mean with its noise interval, the plain mean as a cross."""
    plt = _pyplot()
    shown = [group for group in query.groups if not group.hidden and group.mean is not None]
    if not shown:
        return ""
    figure, axes = plt.subplots(figsize=(9, 0.5 * len(shown) + 1.1))
    rows = list(range(len(shown)))[::-1]
    labels = [group.label for group in shown]
    for row, group in zip(rows, shown, strict=True):
        if group.mean is None or group.mean_low is None or group.mean_high is None:
            continue
        axes.plot([group.mean_low, group.mean_high], [row, row], color=_PALE, linewidth=9, solid_capstyle="round")
        axes.plot(group.mean, row, "o", color=_ACCENT, markersize=7)
        if group.plain_mean is not None:
            axes.plot(group.plain_mean, row, "x", color=_WARN, markersize=7, markeredgewidth=1.8)
    axes.set_yticks(rows, labels)
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_xlabel(f"Mean: {query.measure}" + (f" ({query.unit})" if query.unit else ""))
    axes.grid(axis="x", color="#dde3e8", linewidth=0.8)
    axes.set_axisbelow(True)
    try:
        return _svg(figure, labels)
    finally:
        plt.close(figure)


def histograms(query: QueryFacts) -> str:
    """The histogram of each shown group, the plain one as an outline."""
    plt = _pyplot()
    shown = [group for group in query.groups if not group.hidden and group.histogram]
    if not shown:
        return ""
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    figure, grid = plt.subplots(lines, columns, figsize=(9, 1.9 * lines), squeeze=False)
    places = list(range(len(query.edges) - 1))
    ticks = [f"{edge:g}" for edge in query.edges]
    for axes, group in zip(grid.flat, shown, strict=False):
        axes.bar([place + 0.5 for place in places], group.histogram, width=0.86, color=_PALE)
        axes.stairs(group.plain_histogram, list(range(len(query.edges))), color=_WARN, linewidth=1.3)
        axes.set_title(group.label, fontsize=9, loc="left", color=_INK)
        axes.set_xticks(range(len(ticks)), ticks, fontsize=7)
        axes.tick_params(axis="y", labelsize=7)
    for axes in list(grid.flat)[len(shown) :]:
        axes.axis("off")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.tight_layout()
    try:
        return _svg(figure)
    finally:
        plt.close(figure)


def budget(query: QueryFacts) -> str:
    """The population's budget: spent before, by this query, and left."""
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(9, 0.7))
    spent = query.budget_before_nano - query.budget_after_nano
    axes.barh(0, query.budget_after_nano / 1e9, color=_PALE)
    axes.barh(0, spent / 1e9, left=query.budget_after_nano / 1e9, color=_ACCENT)
    axes.text(query.budget_after_nano / 2e9, 0, "left", ha="center", va="center", fontsize=9)
    axes.text(
        (query.budget_after_nano + spent / 2) / 1e9, 0, "this query", ha="center", va="center", fontsize=9, color="w"
    )
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("rho (zCDP)", fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlim(0, query.budget_before_nano / 1e9)
    try:
        return _svg(figure)
    finally:
        plt.close(figure)
