"""The command line: one tree. Each part registers its verbs; heavy imports happen when a verb runs."""

from __future__ import annotations

import codecs
import copy
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from medveil.cli import (
    audit,
    backup,
    calling,
    claims,
    consortium,
    datasets,
    demo,
    doctor,
    erasure,
    extracts,
    grants,
    jobs,
    leak_test,
    ledger,
    members,
    opt_outs,
    people,
    queries,
    screen,
    show,
    sign_in,
    trail,
    trust,
    up,
    verify,
    zkp,
)

app = typer.Typer(
    name="medveil",
    help="Use each other's health-insurance data without seeing it.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

OFFLINE = (demo, up, consortium, backup, erasure, trail, verify, show, ledger, trust, zkp, extracts, doctor, leak_test)
"""Parts that work on files, without a gateway to call."""
CALLING = (sign_in, people, members, datasets, grants, queries, claims, opt_outs, audit, jobs)
"""Parts whose verbs call the gateway that one is signed in to."""

for part in (*OFFLINE, *CALLING):
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
    gateway: Annotated[
        str,
        typer.Option(envvar="MEDVEIL_GATEWAY", help="Address of the gateway to call; else that signed in to last."),
    ] = "",
    program: Annotated[
        Path | None,
        typer.Option(readable=False, envvar="MEDVEIL_PROGRAM", help="Call as the program whose file this is."),
    ] = None,
    deadline: Annotated[
        int | None,
        typer.Option(
            min=1, max=86_400, envvar="MEDVEIL_DEADLINE", help="Seconds that one answer may take; by default 300."
        ),
    ] = None,
) -> None:
    """Use each other's health-insurance data without seeing it.

    Errors come in English, or in Chinese with MEDVEIL_LANGUAGE=zh. Sign in first: medveil sign-in GATEWAY NAME.
    """
    calling.chosen.gateway, calling.chosen.program, calling.chosen.deadline = gateway, program, deadline


def language() -> str:
    """The reader's language: MEDVEIL_LANGUAGE, or the locale's, "en" or "zh"; "en" where no Chinese can be shown."""
    wanted = os.environ.get("MEDVEIL_LANGUAGE") or os.environ.get("LC_ALL") or os.environ.get("LANG") or "en"
    return "zh" if wanted.lower().startswith("zh") and _shows_chinese() else "en"


def _shows_chinese() -> bool:
    """Whether standard output and standard error can both carry it: a terminal or a file in another code cannot."""
    for stream in (sys.stdout, sys.stderr):
        try:
            "可用不可见".encode(getattr(stream, "encoding", None) or "utf-8")
        except (UnicodeEncodeError, LookupError):
            return False
    return True


def called(words: Sequence[str]) -> typer.Typer:
    """The tree, or of it the one branch that `words` call: to make all of them takes longer than many a verb."""
    groups = [group for group in app.registered_groups if group.name in words[:1]]
    commands = [command for command in app.registered_commands if command.name in words[:1]]
    if len(groups) + len(commands) != 1:
        return app  # a root option, help, a word that nobody knows
    branch = copy.copy(app)
    branch.registered_groups, branch.registered_commands = groups, commands
    return branch


def main() -> None:
    """Entry point of the console script: runs a verb, turns every error into a sentence and an exit code.

    Exit codes: 0 done; 1 refused, wrong or unavailable; 2 wrong usage; 3 consistent but not pinned;
    4 verified, with findings; 130 interrupted. MEDVEIL_TRACEBACK=1 shows where an error came from.
    """
    codecs.register_error("medveil", _nearest)
    for stream in (
        sys.stdout,
        sys.stderr,
    ):  # a terminal that cannot show a character shows the nearest, the run goes on
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="medveil")
    as_json, tree = "--json" in sys.argv[1:], called(sys.argv[1:])
    try:
        if not as_json:
            tree()
        code = tree(standalone_mode=False)  # else it would say in words of its own what a program is to read
        sys.exit(code if isinstance(code, int) else 0)
    except typer.TyperException as error:
        _print_error("medveil.usage", error.format_message())
        sys.exit(error.exit_code)
    except Exception as error:
        from wire.errors import DecodeError

        if os.environ.get("MEDVEIL_TRACEBACK"):
            raise
        if isinstance(error, UnicodeError):
            error = DecodeError("medveil.not_text")
        elif isinstance(error, OSError):
            error = _of_path(error)
        if as_json:
            _say_json(error)
        else:
            _say(_sentence(error))
        sys.exit(1)


def _of_path(error: OSError) -> Exception:
    """What a path that was typed, and is not as it should be, is in words; any other fault of a disk as it came."""
    from wire.errors import Unavailable

    if not isinstance(error.filename, str):
        return error
    if isinstance(error, FileNotFoundError):
        return Unavailable("medveil.no_such_path", path=error.filename)
    if isinstance(error, PermissionError):
        return Unavailable("medveil.path_denied", path=error.filename)
    if isinstance(error, (IsADirectoryError, NotADirectoryError)):
        return Unavailable("medveil.other_path", path=error.filename)
    return error


_NEAREST = {"…": "...", "–": "-", "—": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "×": "x", "≥": ">=", "≤": "<="}


def _nearest(error: UnicodeError) -> tuple[str, int]:
    """What stands for characters that a stream cannot carry."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_NEAREST.get(one, "?") for one in error.object[error.start : error.end]), error.end


def _say_json(error: Exception) -> None:
    """What a program reads about `error`, on standard error: its code, sentence and fix."""
    from wire.errors import Refused, Unavailable

    if isinstance(error, typer.Abort):
        error = Refused("medveil.not_answered")
    more = {"retry_after": error.retry_after} if isinstance(error, Unavailable) and error.retry_after else {}
    _print_error(getattr(error, "code", "medveil.fault"), _sentence(error), **more)


def _print_error(code: str, text: str, **more: object) -> None:
    import json

    print(json.dumps({"error": {"code": code, "text": text, **more}}), file=sys.stderr)


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
    print(f"medveil: {screen.shown(sentence)}", file=sys.stderr)
