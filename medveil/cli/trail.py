"""`medveil trail`: the audit trail of a home whose gateway is stopped: one person's view, provenance, pruning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medveil.cli import screen

if TYPE_CHECKING:
    from medveil.service.home.home import Home
    from privacy.audit.views import UseSeen

HomeFolder = Annotated[Path, typer.Argument(readable=False, help="The organisation's home; its gateway is stopped.")]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]

_PIECE = 1000


def register(app: typer.Typer) -> None:
    """Add the verbs to the tree."""
    trail = typer.Typer(
        help="The audit trail of a home whose gateway is stopped: one person's view, provenance, pruning.",
        no_args_is_help=True,
    )
    app.add_typer(trail, name="trail")

    @trail.command("person")
    def person(home: HomeFolder, json: Json = False) -> None:
        """Tell who used one person's data: what looked at their own record, and what may have reached it.

        The person's identifier, as the tables have it, is asked for, or read from standard input.
        """
        from medveil.gateway.person_view import person_view

        with _opened(home) as opened:
            found = person_view(opened.organisation, screen.typed("Identifier of the person"))
        if json:
            possible = [{**_told(seen), "reached": reached} for seen, reached in found.possible]
            screen.print_json({"noted": [_told(seen) for seen in found.noted], "possible": possible})
            return
        screen.say("Uses that looked at this person's own record:")
        screen.table(found.noted, _COLUMNS)
        screen.say("\nUses of tables with rows of this person, which may have reached them:")
        reached: tuple[tuple[str, Any], ...] = (
            *((heading, _of_first(what)) for heading, what in _COLUMNS),
            ("reached", lambda pair: "by the grant's filter" if pair[1] else "not known"),
        )
        screen.table(found.possible, reached)

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
        from privacy.audit.provenance import prov_json
        from privacy.audit.views import UseSeen
        from wire.errors import Refused
        from wire.evidence import write_file

        if out.exists():
            raise Refused("client.file_exists", file=str(out))
        uses: list[UseSeen] = []
        with _opened(home) as opened:
            trail = opened.organisation.audit
            for first in range(1, trail.last + 1, _PIECE):
                for entry in trail.entries(first, first + _PIECE - 1):
                    use = entry.use
                    wanted = ((recipient, use.recipient), (grant, use.grant), (dataset, use.dataset))
                    if not entry.intent and all(asked in ("", has) for asked, has in wanted):
                        uses.append(UseSeen(entry, trail.end(entry.sequence)))
        write_file(out, prov_json(uses))
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

        Only where a batch on the ledger ends, and never the newest; the rest stays verifiable.
        """
        from privacy.audit import pruning

        with _opened(home) as opened:
            trail = opened.organisation.audit
            gone = pruning.prune(trail, last, _now()) if last else 0
            now, may = trail.pruned.last, pruning.prunable(trail, _now())
        if json:
            screen.print_json({"pruned": gone, "last": now, "prunable": may})
        elif last:
            screen.say(f"{gone} entries are gone; the trail begins with entry {now + 1}.")
        else:
            screen.say(f"Entries up to {may} may go: --last {may}" if may else "Nothing is old enough.")


_COLUMNS: tuple[tuple[str, Any], ...] = (
    ("entry", "intent.sequence"),
    ("time", screen.instant("intent.time")),
    ("used by", "intent.use.recipient"),
    ("dataset", "intent.use.dataset"),
    ("use", "intent.use.kind"),
    ("purpose", "intent.use.purpose"),
    ("grant", "intent.use.grant"),
    ("outcome", lambda seen: seen.outcome or "under way"),
)


def _of_first(what: Any) -> screen.Cell:
    """A column of the first of two."""

    def show(pair: tuple[UseSeen, bool | None]) -> Any:
        value: Any = pair[0]
        if not isinstance(what, str):
            return what(value)
        for name in what.split("."):
            value = getattr(value, name)
        return value

    return show


def _told(seen: UseSeen) -> dict[str, Any]:
    use = seen.intent.use
    return {
        "entry": seen.intent.sequence,
        "time": seen.intent.time,
        "recipient": use.recipient,
        "dataset": use.dataset,
        "kind": use.kind,
        "purpose": use.purpose,
        "grant": use.grant,
        "allowed": use.allowed,
        "outcome": seen.outcome,
    }


def _opened(home: Path) -> Home:
    """The home, this process's alone. The passphrase comes from MEDVEIL_PASSPHRASE_FILE or gateway.toml."""
    import secrets

    from medveil.service.home.config import FILE, passphrase, read_config
    from medveil.service.home.home import Home

    return Home.open(home, passphrase(read_config(home / FILE)), secrets.token_bytes, _now)


def _now() -> int:
    import time

    return time.time_ns() // 1_000_000
