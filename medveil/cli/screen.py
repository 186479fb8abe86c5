"""What verbs print: JSON, tables, facts, progress. One way for all, on any terminal and into any file.

A cell holds what a gateway said: whatever could move a cursor or change a colour is shown as a replacement character.
Tables go to standard output, progress to standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from medveil.shown_text import json_text, plain

if TYPE_CHECKING:
    from medveil.client.jobs import Progress

_UNBOUNDED = 100_000
"""Columns of a table where no terminal has to hold it."""
_WORDS = 24
"""Columns that a text of several words has at least."""

Cell = Callable[[Any], Any]


def print_json(body: object) -> None:
    """Print as JSON, UTF-8 whatever the terminal is."""
    sys.stdout.flush()
    data = json_text(body)
    if hasattr(sys.stdout, "buffer"):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        sys.stdout.write(data.decode())


def table(rows: Iterable[Any], columns: Sequence[tuple[str, str | Cell]], *, none: str = "none") -> None:
    """Print one row a thing. columns: a heading, and a field's name (``a.b``: of a field's field) or what it shows.

    On a terminal that is too narrow, texts of several words go on in the next line; what is one word (an id, a time)
    stays whole, so that it can be copied, and the terminal breaks the line instead.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    found = list(rows)
    if not found:
        print(none)
        return
    console = Console(highlight=False)
    cells = [[Text(shown(_cell(row, what))) for _, what in columns] for row in found]
    made, narrowest = Table(box=None, pad_edge=False, header_style="dim"), 0
    for (heading, _), column in zip(columns, zip(*cells, strict=True), strict=True):
        widths = [cell.cell_len for cell in (Text(heading), *column)]
        words = any(" " in cell.plain for cell in column)
        made.add_column(heading, no_wrap=not words, overflow="fold")
        narrowest += (min(max(widths), _WORDS) if words else max(widths)) + 2
    for row in cells:
        made.add_row(*row)
    console.width = max(console.width, narrowest) if console.is_terminal else _UNBOUNDED
    console.print(made, crop=False, soft_wrap=False)


def facts(pairs: Iterable[tuple[str, Any]]) -> None:
    """Print ``name: value`` lines, aligned."""
    found = [(name, shown(value)) for name, value in pairs]
    width = max((len(name) for name, _ in found), default=0)
    for name, value in found:
        print(f"{name + ':':{width + 2}}{value}")


def of(thing: Any) -> list[tuple[str, Any]]:
    """A struct's fields, for `facts`."""
    return [(name.replace("_", " "), getattr(thing, name)) for name in thing.__struct_fields__]


def _cell(row: Any, what: str | Cell) -> Any:
    if not isinstance(what, str):
        return what(row)
    for name in what.split("."):
        row = getattr(row, name)
    return row


def shown(value: Any) -> str:
    """A value as text that a screen may show."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):
        return ", ".join(map(shown, value)) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{shown(name)} {shown(one)}" for name, one in value.items()) or "-"
    return plain(str(value))


def say(sentence: str) -> None:
    """Print lines that hold what a gateway said."""
    print("\n".join(map(shown, sentence.split("\n"))))


def typed(what: str, *, hidden: bool = False, twice: bool = False) -> str:
    """What a person types, or standard input has. Raises Refused where a secret would be shown or nothing comes, Abort
    where a person at a terminal leaves."""
    import getpass
    import warnings

    import typer

    from wire.errors import Refused

    with warnings.catch_warnings():
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            shown_by_us = not hidden and not sys.stdin.isatty()  # typer puts a space of it on standard output
            if shown_by_us:
                typer.echo(f"{what}: ", nl=False, err=True)
            text, suffix = ("", "") if shown_by_us else (what, ": ")
            said: str = typer.prompt(text, hide_input=hidden, confirmation_prompt=twice, prompt_suffix=suffix, err=True)
        except typer.Abort:
            typer.echo(err=True)  # what comes next is a line of its own
            if sys.stdin.isatty():
                raise
            raise Refused("medveil.not_answered") from None
        except getpass.GetPassWarning:
            typer.echo(err=True)
            raise Refused("client.no_terminal", what=what) from None
    return said


def agree(question: str) -> None:
    """Have a person say yes. Raises Abort on no, Refused where nothing is said and nobody is at a terminal."""
    import typer

    from wire.errors import Refused

    try:
        agreed = typer.confirm(question, err=True)
    except typer.Abort:
        typer.echo(err=True)
        if sys.stdin.isatty():
            raise
        raise Refused("medveil.not_answered") from None
    if not agreed:
        raise typer.Abort


def instant(field: str) -> Cell:
    """A field in ms since 1970 as a time in UTC; 0 and None as "-"."""

    def show(row: Any) -> str:
        from wire.dates import format_instant

        value = _cell(row, field)
        return format_instant(value) if value else "-"

    return show


def line(progress: Progress) -> None:
    """One plain line of a job's progress, on standard error."""
    print(_progress(progress), file=sys.stderr, flush=True)


def _progress(progress: Progress) -> str:
    count = f" {progress.steps}/{progress.total}" if progress.total else f" {progress.steps}" if progress.steps else ""
    step = f" {progress.step}" if progress.step and progress.state == "running" else ""
    return shown(f"{progress.state}{count}{step}{f': {progress.code}' if progress.code else ''}")


@contextmanager
def bar() -> Iterator[Callable[[Progress], None]]:
    """A bar on standard error that follows a job; it goes when the job has ended."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True, highlight=False)
    columns = (BarColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task("", total=None)

        def show(progress: Progress) -> None:
            bars.update(task, total=progress.total, completed=progress.steps, description=_progress(progress))

        yield show
