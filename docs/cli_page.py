"""Write the reference of the command line, `docs/cli.md`, from the tree itself: ``python docs/cli_page.py``.

A test compares the page with the tree, so that neither can be changed without the other.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

PAGE = Path(__file__).parent / "cli.md"

_HEAD = """# The command line

This page is written by `docs/cli_page.py` from the tree itself; `medveil VERB --help` says the same.

* Every verb takes `--json`: then standard output is JSON and nothing else, and an error is one line of JSON on standard
  error: `{"error": {"code": ..., "text": ...}}`.
* Exit codes: 0 done; 1 refused, wrong or unavailable; 2 wrong usage; 3 consistent but not pinned; 4 verified, with
  findings; 130 interrupted.
* Errors come in English, or in Chinese with MEDVEIL_LANGUAGE=zh. MEDVEIL_TRACEBACK=1 shows where one came from.
* Verbs that call a gateway use the session of `medveil sign-in`, kept with mode 600 in the user's configuration folder
  (MEDVEIL_CONFIG names another). What they write or release is verified by the trust file pinned there.
* Jobs show a bar on a terminal and plain lines elsewhere, on standard error. Ctrl-C leaves the job at the gateway.
* Completion: `medveil --install-completion`.
"""


def page(tree: Any) -> str:
    """The whole page. tree: the root command."""
    lines = [_HEAD, "## Before the verb", "", *_parameters(tree), "", "## Verbs", ""]
    verbs = [*_verbs(tree, "medveil")]
    for name, command in verbs:
        lines.append(f"* [`{name}`](#{name.replace(' ', '-')}): {_first(command.help)}")
    for name, command in verbs:
        lines += ["", f"### {name}", "", _flowing(command.help), "", f"    {_usage(name, command)}", ""]
        lines += _parameters(command)
    return "\n".join(lines).rstrip() + "\n"


def _verbs(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    for inner in command.commands:
        found = command.commands[inner]
        if hasattr(found, "commands"):
            yield from _verbs(found, f"{name} {inner}")
        else:
            yield f"{name} {inner}", found


def _first(text: str) -> str:
    return _flowing(text.split("\n\n")[0])


def _flowing(text: str) -> str:
    """Paragraphs, each on one line; one that is marked to keep its lines (click's ``\\b``) as a list, or as JSON."""
    return "\n\n".join(_paragraph(part) for part in text.strip().split("\n\n"))


def _paragraph(text: str) -> str:
    if text.startswith("\b\n"):
        kept = textwrap.dedent(text[2:])
        start = "    " if kept.startswith("{") else "* "
        return "\n".join(start + line for line in kept.splitlines())
    return " ".join(text.split())


def _usage(name: str, command: Any) -> str:
    arguments = []
    for one in command.params:
        if one.param_type_name == "argument":
            shown = (one.metavar or one.name).upper() + ("..." if one.nargs == -1 else "")
            arguments.append(shown if one.required else f"[{shown}]")
    return " ".join([name, *arguments, "[OPTIONS]"])


def _parameters(command: Any) -> list[str]:
    lines = []
    for one in command.params:
        if one.param_type_name == "argument":
            said = f"`{(one.metavar or one.name).upper()}`"
        else:
            names = ", ".join(f"`{name}`" for name in (*one.opts, *one.secondary_opts))
            kind = "" if one.is_flag else f" {_kind(one)}"
            said = f"{names}{kind}"
        more = [words for holds, words in _more(one) if holds]
        lines.append(f"* {said}: {one.help or ''}{f' ({chr(59).join(more)})' if more else ''}".rstrip(": "))
    return lines


def _kind(one: Any) -> str:
    """What an option's value is."""
    annotation = one.type_descriptor.annotation
    choices = [choice for part in (annotation, *get_args(annotation)) for choice in get_args(part) or ()]
    named = [f"`{choice}`" for choice in choices if isinstance(choice, str) and choice]
    if named:
        return " or ".join(named)
    kinds = {str: "TEXT", int: "NUMBER", Path: "PATH"}
    return next((kinds[part] for part in (annotation, *choices, *get_args(annotation)) if part in kinds), "TEXT")


def _more(one: Any) -> Iterator[tuple[bool, str]]:
    shown = one.param_type_name == "option" and not one.is_flag and one.default not in (None, "", ())
    yield one.param_type_name == "option" and one.required, "required"
    yield bool(one.multiple or one.nargs == -1), "may be repeated"
    yield shown and not callable(one.default), f"default `{one.default}`"
    yield bool(getattr(one, "envvar", None)), f"or {getattr(one, 'envvar', '')}"


def main() -> None:
    """Write the page."""
    from typer.main import get_command

    from medveil.cli import app

    PAGE.write_text(page(get_command(app)), encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    main()
