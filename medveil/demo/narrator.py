"""What a run says while it goes: a heading a step, a few lines, progress bars on long work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

_INDENT = "  "
_PIPED_WIDTH = 140
"""Columns of a table where there is no terminal to ask."""


class Narrator:
    """Speaks on the terminal, or keeps silent (`quiet`). seconds: wall time of each step so far.

    began: of `time.perf_counter`, from which `elapsed` counts; now, by default.
    """

    def __init__(self, quiet: bool = False, began: float | None = None) -> None:
        self._began = time.perf_counter() if began is None else began
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

    def elapsed(self) -> float:
        """Seconds since the run began: the steps, and what lies before and between them."""
        return time.perf_counter() - self._began

    def say(self, line: str, style: str = "") -> None:
        """A line of plain text under the heading, wrapped at words on a terminal. No markup is read from it."""
        if self._console.is_terminal:
            self._console.print(Padding(Text(line, style=style), (0, 0, 0, 3), expand=False))
        else:
            self._console.print(Text(f"   {line}".rstrip(), style=style), soft_wrap=True)

    def command(self, line: str) -> None:
        """A command under the heading: never broken over lines, so that it can be copied."""
        self._console.print(Text(f"   {line}"), soft_wrap=True)

    def table(
        self, columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = (), keys: int = 1
    ) -> None:
        """A small table; `numbers` are the columns set to the right.

        Wider than the terminal, it goes on below, beside its first `keys` columns again; no cell is cut.
        """
        for places in self._blocks(columns, rows, keys):
            table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
            table.add_column(_INDENT)
            for place in places:
                right = place in numbers
                table.add_column(columns[place], justify="right" if right else "left", overflow="fold", no_wrap=right)
            for row in rows:
                table.add_row(_INDENT, *(Text(row[place]) for place in places))
            self._console.print(table)

    def _blocks(self, columns: Sequence[str], rows: Sequence[Sequence[str]], keys: int) -> list[list[int]]:
        """The places of the columns, cut so that each block fits the terminal; each begins with the key columns."""
        widths = [max(cell_len(cell) for cell in cells) + 2 for cells in zip(columns, *rows, strict=True)]
        room = self._console.width - len(_INDENT) - 2 - sum(widths[:keys])
        blocks = [list(range(keys))]
        left = room
        for place in range(keys, len(columns)):
            if widths[place] > left and len(blocks[-1]) > keys:
                blocks.append(list(range(keys)))
                left = room
            blocks[-1].append(place)
            left -= widths[place]
        return blocks

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
