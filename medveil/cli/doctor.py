"""`medveil doctor`: is this machine and environment fit for medveil?"""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the verb to the tree."""

    @app.command("doctor")
    def doctor(json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False) -> None:
        """Check Python, packages, names that clash, disk and clock; say what to do about each."""
        from medveil.doctor import run

        raise typer.Exit(run(json=json))
