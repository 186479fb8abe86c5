"""`medveil trail`: the audit trail: one person's view; on a stopped gateway's home, provenance and pruning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medveil.cli import screen
from medveil.cli.on_files import PERSON, HomeOption, at, now, opened

HomeFolder = Annotated[
    Path, typer.Option("--home", readable=False, help="The organisation's home; its gateway is stopped.")
]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]

_PIECE = 1000


def register(app: typer.Typer) -> None:
    """Add the verbs to the tree."""
    trail = typer.Typer(
        help="The audit trail: who used one person's data; on a home whose gateway is stopped, provenance, pruning.",
        no_args_is_help=True,
    )
    app.add_typer(trail, name="trail")

    @trail.command("person")
    def person(home: HomeOption = None, json: Json = False) -> None:
        """Tell who used one person's data: what looked at their own record, and what may have reached it.

        The person's identifier, as the tables have it, is asked for, or read from standard input.
        """
        whom = screen.typed(PERSON)
        with at(home) as place:
            found = place.persons.uses(whom)
        if json:
            screen.print_json(found)
            return
        screen.say("Uses that looked at this person's own record:")
        screen.table(found.noted, _COLUMNS)
        screen.say("\nUses of tables that have or had rows of this person, which may have reached them:")
        reached = ("reached", lambda one: "by the grant's filter" if one.reached else "not known")
        screen.table(found.possible, (*_COLUMNS, reached))
        if not found.known:
            screen.say("\nNothing is or was kept of a person of this identifier here: was it typed right?")

    @trail.command("provenance")
    def provenance(
        home: HomeFolder,
        out: Annotated[Path, typer.Option(readable=False, help="The .json file to write; must not be there yet.")],
        recipient: Annotated[str, typer.Option(help="Only uses by this organisation.")] = "",
        grant: Annotated[str, typer.Option(help="Only uses under this grant.")] = "",
        dataset: Annotated[str, typer.Option(help="Only uses of this dataset.")] = "",
        json: Json = False,
    ) -> None:
        """Write uses as W3C PROV (PROV-JSON): activities, datasets, releases, grants as plans. No person is in it."""
        from medveil.client.credentials import write_private
        from privacy.audit.provenance import prov_json
        from privacy.audit.views import UseSeen
        from wire.errors import Refused

        if out.exists():
            raise Refused("client.file_exists", file=str(out))
        uses: list[UseSeen] = []
        with opened(home) as found:
            trail = found.organisation.audit
            for first in range(1, trail.last + 1, _PIECE):
                for entry in trail.entries(first, first + _PIECE - 1):
                    use = entry.use
                    wanted = ((recipient, use.recipient), (grant, use.grant), (dataset, use.dataset))
                    if not entry.intent and all(asked in ("", has) for asked, has in wanted):
                        uses.append(UseSeen(entry, trail.end(entry.sequence)))
        write_private(out, prov_json(uses), new=True)
        if json:
            screen.print_json({"file": str(out), "uses": len(uses)})
        else:
            screen.say(f"{out}: {len(uses)} uses.")

    @trail.command("prune")
    def prune(
        home: HomeFolder,
        last: Annotated[
            int, typer.Option(min=0, help="The last entry to go; without it, what may go is told and nothing goes.")
        ] = 0,
        json: Json = False,
    ) -> None:
        """Cut off the old end of the trail: what was released to others after 36 months, everything else after 6.

        What was released under a grant stays as long as its terms say, where that is longer.

        Only where a batch on the ledger ends, and never the newest; the rest stays verifiable.
        """
        from medveil.gateway.granting import records_kept
        from privacy.audit import pruning

        with opened(home) as found:
            trail, kept = found.organisation.audit, records_kept(found.organisation)
            gone = pruning.prune(trail, last, now(), promised=kept) if last else 0
            pruned, may = trail.pruned.last, pruning.prunable(trail, now(), promised=kept)
        if json:
            screen.print_json({"pruned": gone, "last": pruned, "prunable": may})
        elif last:
            screen.say(f"{gone} entries are gone; the trail begins with entry {pruned + 1}.")
        else:
            screen.say(f"Entries up to {may} may go: --last {may}" if may else "Nothing is old enough.")


_COLUMNS: tuple[tuple[str, Any], ...] = (
    ("entry", "entry"),
    ("time", screen.instant("time")),
    ("used by", "recipient"),
    ("dataset", "dataset"),
    ("use", "kind"),
    ("purpose", "purpose"),
    ("grant", "grant"),
    ("outcome", lambda seen: seen.outcome or "under way"),
)
