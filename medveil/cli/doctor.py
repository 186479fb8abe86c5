"""`medveil doctor`: is this machine and environment fit for medveil?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the verb to the tree."""

    @app.command("doctor")
    def doctor(
        home: Annotated[
            Path | None, typer.Option(readable=False, help="An organisation's home: look at who keeps its keys, too.")
        ] = None,
        json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    ) -> None:
        """Check Python, packages, names that clash, disk and clock; say what to do about each.

        With --home also its key file or token: the passphrase comes from MEDVEIL_PASSPHRASE_FILE, a token's PIN from
        MEDVEIL_PIN_FILE, or from the files that gateway.toml names.
        """
        from medveil.doctor import run

        raise typer.Exit(run(json=json, home=home))
