"""`medveil show`: print an evidence file as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the verb to the tree."""

    @app.command("show")
    def show(
        path: Annotated[Path, typer.Argument(readable=False, help="An evidence file.")],
        json: Annotated[bool, typer.Option("--json", help="It is JSON either way.")] = False,
    ) -> None:
        """Print an evidence file as JSON. Shows, does not verify."""
        from medveil.verification.screen import show_file

        show_file(path)
