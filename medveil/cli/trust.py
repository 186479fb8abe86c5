"""`medveil trust`: look at a trust file, and follow the members through their changes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[Path, typer.Argument(readable=False, help="The trust file consortium.json that you pinned.")]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the tree."""
    trust = typer.Typer(
        help="Look at a trust file, and follow the members through their changes.", no_args_is_help=True
    )
    app.add_typer(trust, name="trust")

    @trust.command("show")
    def show(file: File, json: Json = False) -> None:
        """Say whom the file names, since when, and with which keys."""
        from medveil.trust import show_trust
        from wire.checkpoint import read_trust

        show_trust(read_trust(file), as_json=json)

    @trust.command("update")
    def update(
        file: File,
        evidence: Annotated[
            list[Path],
            typer.Argument(readable=False, help="Ledger exports, snapshots or handovers, from anybody."),
        ],
        out: Annotated[
            Path | None, typer.Option(readable=False, help="Where to write it, if not in its place.")
        ] = None,
        json: Json = False,
    ) -> None:
        """Add changes of members and keys, each handed over by the members before it.

        The evidence may come from anybody: a change counts only if as many members as were needed before it cosigned
        it. Exit code 1: something does not hold, and the file is as it was.
        """
        from medveil.trust import say_update, show_trust, update_trust

        before, after = update_trust(file, evidence, out)
        if json:
            show_trust(after, as_json=True)
        else:
            say_update(before, after, file)
