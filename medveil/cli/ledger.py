"""`medveil ledger`: replay an exported ledger, and read it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medveil.cli.members import register_ledger

Export = Annotated[Path, typer.Argument(readable=False, help="A ledger export: ledger.evidence of an evidence folder.")]
Trust = Annotated[
    Path | None,
    typer.Option(
        readable=False, help="The trust file consortium.json that you pinned. Without it nothing is verified."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
UNPINNED = 3
"""Exit code: consistent, but not pinned by a trust file."""


def register(app: typer.Typer) -> None:
    """Add the verbs to the tree."""
    ledger = typer.Typer(help="Replay an exported ledger, and read it; ask the gateway.", no_args_is_help=True)
    app.add_typer(ledger, name="ledger")
    register_ledger(ledger)

    @ledger.command("verify")
    def verify(export: Export, trust: Trust = None, json: Json = False) -> None:
        """Replay every block from genesis to the same roots; say what was checked.

        Exit code 0: verified. 1: something does not hold, with its block and entry. 3: consistent, but not pinned.
        """
        from medveil.history import read_history, show_verified

        history = read_history(export, trust)
        show_verified(history, as_json=json)
        if not history.pinned:
            raise typer.Exit(UNPINNED)

    @ledger.command("show")
    def show(
        export: Export,
        organisation: Annotated[str, typer.Option(help="Only what this organisation sent.")] = "",
        since: Annotated[
            str, typer.Option(help="Only blocks from this date or time on; without an offset in the consortium's zone.")
        ] = "",
        until: Annotated[str, typer.Option(help="Only blocks before this date or time.")] = "",
        kind: Annotated[
            str, typer.Option(help="Only with an op of this kind: a contract (grants) or an op (grants.anchor).")
        ] = "",
        trust: Trust = None,
        json: Json = False,
    ) -> None:
        """List the envelopes of an export, replayed first, by organisation, time and kind of op.

        Exit codes as of `medveil ledger verify`.
        """
        from ledger.reading import Selection
        from medveil.history import instant, read_export, read_history, show_entries
        from wire.checkpoint import trust_of

        bounds: list[int | None] = []
        zone = trust_of(read_export(export).founding).zone if since or until else ""
        for option, text in (("--since", since), ("--until", until)):
            try:
                bounds.append(instant(text, zone) if text else None)
            except ValueError:
                raise typer.BadParameter(
                    f"{option} is a date or time such as 2026-11-22 or 2026-11-22T10:00Z"
                ) from None
        history = read_history(export, trust, Selection(organisation, bounds[0], bounds[1], kind))
        show_entries(history, as_json=json)
        if not history.pinned:
            raise typer.Exit(UNPINNED)

    @ledger.command("snapshot")
    def snapshot(
        export: Export,
        out: Annotated[Path, typer.Argument(readable=False, help="Where to write the snapshot.")],
        trust: Trust = None,
        json: Json = False,
    ) -> None:
        """Replay an export and write the state at its head: an engine or replica starts from it without replaying.

        Exit codes as of `medveil ledger verify`.
        """
        from medveil.history import write_snapshot

        made = write_snapshot(export, trust, out)
        if json:
            from medveil.cli.screen import print_json

            print_json({"file": str(out), "height": made.block.height, "keys": len(made.entries)})
        else:
            typer.echo(f"{out}: the state of block {made.block.height}, {len(made.entries)} keys")
        if trust is None:
            raise typer.Exit(UNPINNED)
