"""The command line: one tree. Each part registers its verbs; heavy imports happen when a verb runs."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from medveil.cli import consortium, demo, doctor, ledger, show, trust, verify

app = typer.Typer(
    name="medveil",
    help="Use each other's health-insurance data without seeing it (可用不可见).",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

for part in (demo, consortium, verify, show, ledger, trust, doctor):
    part.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        from medveil import __version__

        typer.echo(f"medveil {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Errors come in English, or in Chinese with MEDVEIL_LANGUAGE=zh."""


def language() -> str:
    """The reader's language: MEDVEIL_LANGUAGE, or the locale's, "en" or "zh"."""
    wanted = os.environ.get("MEDVEIL_LANGUAGE") or os.environ.get("LC_ALL") or os.environ.get("LANG") or "en"
    return "zh" if wanted.lower().startswith("zh") else "en"


def main() -> None:
    """Entry point of the console script: runs a verb, turns every error into a sentence and an exit code.

    Exit codes: 0 done; 1 refused, wrong or unavailable; 2 wrong usage; 3 consistent but not pinned;
    4 verified, with findings; 130 interrupted. MEDVEIL_TRACEBACK=1 shows where an error came from.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that cannot show a character shows "?", the run goes on
        sys.stdout.reconfigure(errors="replace")
    try:
        app()
    except Exception as error:
        if os.environ.get("MEDVEIL_TRACEBACK"):
            raise
        _say(_sentence(error))
        sys.exit(1)


def _sentence(error: Exception) -> str:
    """What a person reads about `error`."""
    import sqlite3

    from wire.errors import MedveilError

    if isinstance(error, MedveilError):
        return error.text(language())
    if isinstance(error, (OSError, sqlite3.Error)):
        return f"the disk did not take or give what was needed ({type(error).__name__}). Check space and permissions."
    return (
        f"the program has an error of its own ({type(error).__name__}). "
        "Run again with MEDVEIL_TRACEBACK=1 to see where, and report it."
    )


def _say(sentence: str) -> None:
    print(f"medveil: {sentence}", file=sys.stderr)
