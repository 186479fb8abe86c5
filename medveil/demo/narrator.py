"""What a run says while it goes: a heading a step, a few lines, progress bars on long work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

_PIPED_WIDTH = 140
"""Columns of a table where there is no terminal to ask."""


class Narrator:
    """Speaks on the terminal, or keeps silent (`quiet`). seconds: wall time of each step so far."""

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(quiet=quiet, highlight=False)
        if not self._console.is_terminal:
            self._console.width = _PIPED_WIDTH
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One step: its heading first, its wall time kept."""
        self._console.print(Text(f"\n{len(self.seconds) + 1}. {title}", style="bold cyan"))
        started = time.perf_counter()
        yield
        self.seconds[title] = time.perf_counter() - started

    def say(self, line: str, style: str = "") -> None:
        """A line of plain text under the heading. No markup is read from it."""
        self._console.print(Text("   " + line, style=style), soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> None:
        """A small table; `numbers` are the columns set to the right."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("  ")
        for place, column in enumerate(columns):
            table.add_column(column, justify="right" if place in numbers else "left", no_wrap=place in numbers)
        for row in rows:
            table.add_row("  ", *(Text(cell) for cell in row))
        self._console.print(table)

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """A progress bar; the block calls what it gets with the number of units done since the last call."""
        with Progress(
            TextColumn("   {task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        ) as bar:
            task = bar.add_task(label, total=total)
            yield lambda done: bar.advance(task, done)

    def link(self, line: str) -> None:
        """The last line: a path, alone, so that a terminal and a script can pick it up."""
        self._console.print(Text(line), soft_wrap=True)
