"""`medveil up`: a whole consortium on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the verb to the tree."""

    @app.command("up")
    def up(
        folder: Annotated[
            Path, typer.Argument(readable=False, help="The consortium's folder: made when it is not there.")
        ],
        data: Annotated[
            Path | None,
            typer.Option(readable=False, help="Folder with the hospitals' tables, when it is founded; else RAND's."),
        ] = None,
        json: Annotated[bool, typer.Option("--json", help="Say everything as JSON, an object a line.")] = False,
    ) -> None:
        """Run a local consortium, a process for each organisation, until Ctrl-C; found and seed it the first time.

        One person plays every organisation here: it is for trying and testing, never for real records.
        """
        from medveil.local.up import run_up

        raise typer.Exit(run_up(folder, data, json))
