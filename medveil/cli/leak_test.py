"""`medveil leak-test`: does anything of a patient get where it must not?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medveil.cli import screen


def register(app: typer.Typer) -> None:
    """Add the verb to the tree."""

    @app.command("leak-test")
    def leak_test(
        out: Annotated[
            Path | None, typer.Option(readable=False, help="Keep the whole run in this new folder, to look at.")
        ] = None,
        quick: Annotated[
            bool,
            typer.Option(
                "--quick", help="Leave out accounts of each role, credentials on files and the processes' memory."
            ),
        ] = False,
        json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
    ) -> None:
        """Plant made-up patients in a consortium of this machine, run every flow, search for them everywhere.

        Prints where was searched, how much, and what was found; exits with 1 where something is that must not be.
        """
        from medveil.leak_test.run import leak_test as run
        from medveil.leak_test.run import told

        verdict, kept = run(out, quick, lambda line: typer.echo(line, err=True))
        if json:
            screen.print_json({"good": verdict.good, "folder": None if kept is None else str(kept), "verdict": verdict})
            raise typer.Exit(0 if verdict.good else 1)
        typer.echo(f"{verdict.markers} markers of made-up patients, {verdict.spellings:,} spellings.")
        screen.table(
            verdict.rows,
            (
                ("place", "place"),
                ("searched", lambda row: f"{row.items:,}"),
                ("bytes", lambda row: f"{row.bytes:,}"),
                ("meant to be there", lambda row: f"{row.expected:,}"),
                ("found", lambda row: f"{row.leaks:,}"),
                ("closed to this user", lambda row: f"{row.closed:,}" if row.closed else ""),
            ),
        )
        for one in verdict.allowed:
            typer.echo(f"Meant to be there ({one.found:,} in {one.place}): {one.reason}.")
        for line in (*told(verdict), *verdict.faults):
            typer.echo(line)
        if kept is not None:
            typer.echo(f"The run is kept in {kept}")
        typer.echo("Nothing leaks." if verdict.good else "The test did not pass.")
        raise typer.Exit(0 if verdict.good else 1)
