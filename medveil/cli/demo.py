"""`medveil demo`: one consortium on this machine does the main job on real data."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the verb to the tree."""

    @app.command("demo")
    def demo(
        data: Annotated[
            Path | None,
            typer.Option(
                readable=False,  # an unreadable path gets the program's own sentence
                help="Folder of CSV tables, one a site. Default: the RAND Health Insurance Experiment.",
            ),
        ] = None,
        out: Annotated[
            Path, typer.Option(readable=False, help="Folder for the results. An earlier run's are replaced.")
        ] = Path("medveil-demo"),
        json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON instead of text.")] = False,
        processes: Annotated[
            bool, typer.Option("--processes", help="Run each organisation's gateway as a process of its own, with TLS.")
        ] = False,
    ) -> None:
        """Play one consortium: join, load, grant, query, prove, settle, score, audit, report."""
        began = perf_counter()
        from medveil.demo.run import run

        try:
            run(data, out, as_json=json, began=began, processes=processes)
        except KeyboardInterrupt:
            typer.echo("medveil: interrupted; nothing half-written is left.", err=True)
            raise typer.Exit(130) from None
