"""Query documents as the command line reads them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from medveil.client import Question

File = Annotated[
    Path,
    typer.Argument(readable=False, metavar="FILE", help="The query document, JSON; - for standard input."),
]

TEMPLATE_HELP = """Print a query document to begin with, every field in it: to be kept in a file, edited, explained and
asked. Calls no gateway. What the fields mean stands in docs/client.md."""


def read_question(path: Path) -> Question:
    """The document in a file, or in standard input for "-". Raises DecodeError naming the field, Unavailable."""
    import sys

    from medveil.client import Question
    from mpc.query_document import LARGEST, read_document
    from wire.errors import Unavailable

    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(LARGEST + 1)
        else:
            with path.open("rb") as file:
                data = file.read(LARGEST + 1)
    except OSError:
        raise Unavailable("client.unreadable", file=str(path)) from None
    return Question.of(read_document(data))
