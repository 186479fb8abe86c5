"""`medveil verify`: check evidence offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the verb to the tree."""

    @app.command("verify")
    def verify(
        path: Annotated[Path, typer.Argument(readable=False, help="An evidence folder, or one evidence file.")],
        trust: Annotated[
            Path | None,
            typer.Option(
                readable=False, help="The trust file consortium.json that you pinned. Without it nothing is verified."
            ),
        ] = None,
        backend: Annotated[
            str, typer.Option(help="Curve library for proofs: arkworks, or reference (py_ecc, slow, independent).")
        ] = "arkworks",
        at_least: Annotated[
            int, typer.Option("--at-least", help="Block height that the evidence must reach, if you know of one.")
        ] = 0,
        newer_than: Annotated[
            str, typer.Option(help="Time at or after which the head must have been cosigned; in UTC without an offset.")
        ] = "",
        json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
    ) -> None:
        """Check every ledger entry, proof and receipt, offline; show who used what, and under which grant.

        Exit code 0: verified. 1: something does not hold. 3: consistent, but not pinned by a trust file.
        4: all that is shown holds, but somebody owes an explanation (findings).
        """
        from medveil.cli import language
        from medveil.verification import verify as check
        from medveil.verification.screen import show_report

        bound = None
        if newer_than:
            from medveil.history import instant

            try:
                bound = instant(newer_than, "UTC")
            except ValueError:
                raise typer.BadParameter("--newer-than is a date or time: 2026-11-22, 2026-11-22T10:00Z") from None
        if path.suffix == ".zip" and path.is_file():
            from wire.errors import Refused

            raise Refused("medveil.packed_evidence", file=str(path))
        report = check(path, trust=trust, backend=backend, at_least=at_least, newer_than=bound)
        show_report(report, as_json=json, language=language())
        if not report.pinned:
            raise typer.Exit(3)
        if report.findings:
            raise typer.Exit(4)
