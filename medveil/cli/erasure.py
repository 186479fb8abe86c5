"""`medveil erasure`: one person's data at home, from the plan to the receipt; the gateway is stopped meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medveil.cli import screen

if TYPE_CHECKING:
    from medveil.service.home.home import Home
    from privacy.erasure import Erasure

HomeFolder = Annotated[Path, typer.Argument(readable=False, help="The organisation's home; its gateway is stopped.")]
Id = Annotated[str, typer.Argument(help="The erasure's id, 32 hex digits.")]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
FOUND = 4
"""Exit code of a check that found something: as of medveil verify."""


def register(app: typer.Typer) -> None:
    """Add the verbs to the tree."""
    erasure = typer.Typer(
        help="Erase one person's data at home: plan, apply, check, show. On a home whose gateway is stopped.",
        no_args_is_help=True,
    )
    app.add_typer(erasure, name="erasure")
    _doing(erasure)
    _looking(erasure)
    _holds(erasure)


def _doing(erasure: typer.Typer) -> None:
    @erasure.command("plan")
    def plan(
        home: HomeFolder,
        due: Annotated[
            bool, typer.Option("--due", help="No person: what was restricted before and nothing keeps any more.")
        ] = False,
        ground: Annotated[
            Literal["request", "consent-withdrawn"], typer.Option(help="Why it is asked for.")
        ] = "request",
        reference: Annotated[str, typer.Option(help="Where the request is filed.")] = "",
        rotate_within: Annotated[
            int, typer.Option(min=1, max=366, help="Days within which the key epoch is to be rotated.")
        ] = 30,
        json: Json = False,
    ) -> None:
        """Say what would be erased now and what restricted until when, and keep that as a plan. Nothing is erased yet.

        The person's identifier, as the tables have it, is asked for, or read from standard input.
        """
        from medveil.gateway import erasing
        from privacy.erasure import DAY_MS

        within = rotate_within * DAY_MS
        with _opened(home) as opened:
            if due:
                made = erasing.plan_due(opened.organisation, _now(), rotate_within=within)
            else:
                person = screen.typed("Identifier of the person")
                made = (
                    erasing.plan(
                        opened.organisation,
                        person,
                        _now(),
                        ground=ground,
                        reference=reference,
                        rotate_within=within,
                    ),
                )
        if json:
            screen.print_json([_told(one) for one in made])
            return
        for one in made:
            _show(one)
            screen.say(f"Nothing is erased yet. Go on: medveil erasure apply {home} {one.name} --receipt FILE\n")
        if not made:
            screen.say("Nothing that was restricted may be erased by now.")

    @erasure.command("apply")
    def apply(
        home: HomeFolder,
        name: Id,
        receipt: Annotated[
            Path, typer.Option(readable=False, help="Where to write the signed receipt; must not be there yet.")
        ],
        rotate: Annotated[
            bool, typer.Option("--rotate", help="Rotate the key epoch at once: older copies become useless.")
        ] = False,
        json: Json = False,
    ) -> None:
        """Carry out a plan: destroy keys, restrict what must be kept, and write a receipt. Interrupted, it goes on.

        For a plan that was carried out, it writes the receipt as of now.
        """
        from medveil.gateway import erasing
        from privacy.erasure import erasure as erasure_of
        from wire.canonical import encode
        from wire.errors import Refused
        from wire.evidence import write_file

        if receipt.exists():
            raise Refused("client.file_exists", file=str(receipt))
        with _opened(home) as opened:
            erasing.apply(opened.organisation, name, _now)
            if rotate:
                erasing.rotate(opened.organisation, _now)
            made = erasing.receipt_of(opened.organisation, name, _now())
            done = erasure_of(opened.organisation.vault, name)
            write_file(receipt, encode(made))
        if json:
            screen.print_json({"receipt": str(receipt), **_told(done)})
            return
        _show(done)
        screen.say(f"{receipt}: the receipt, signed by {made.organisation}. It is the person's; keep a copy.")
        screen.say(f"Check it: medveil erasure check {home} {receipt}")


def _looking(erasure: typer.Typer) -> None:
    @erasure.command("check")
    def check(
        home: HomeFolder,
        receipt: Annotated[Path, typer.Argument(readable=False, help="What erasure apply wrote.")],
        marker: Annotated[
            list[str] | None, typer.Option(help="Text of the person's that must stand in no file; once for each.")
        ] = None,
        json: Json = False,
    ) -> None:
        """Look for what a receipt says is gone: in the vault, in every file of the home, write-ahead logs included.

        Exits with 4 where something is left.
        """
        from medveil.cli import language
        from medveil.gateway import erasing
        from medveil.verification.kinds import register_all
        from privacy.erasure_receipt import ErasureReceipt, beyond_text
        from wire import evidence
        from wire.errors import DecodeError

        register_all()
        read = evidence.read(evidence.read_file(receipt))
        if not isinstance(read, ErasureReceipt):
            raise DecodeError("privacy.no_receipt", file=str(receipt))
        with _opened(home) as opened:
            server = opened.config.database != "sqlite"
            found = erasing.check(
                opened.organisation, read, home, markers=marker or (), besides=[receipt], server=server
            )
        spoken = language()
        if json:
            body = {"erasure": read.erasure.hex(), "keys": found.keys, "files": found.files, "bytes": found.bytes}
            leftovers = [{"code": one.code, **one.facts} for one in found.leftovers]
            screen.print_json({**body, "unread": found.unread, "leftovers": leftovers})
        else:
            screen.say(
                f"The receipt is of {read.organisation}, signed. {found.keys} destroyed keys were looked for in the"
                f" vault and in {found.files} files ({found.bytes:,} bytes)."
            )
            for name in found.unread:
                screen.say(f"  not readable: {name}")
            for one in found.leftovers:
                screen.say(f"  left: {one.text(spoken)}")
            if not found.leftovers:
                screen.say("Nothing of it is left here.")
            screen.say("\nWhat an erasure at home does not reach:")
            for what in read.beyond:
                screen.say(f"  {beyond_text(what, spoken)}")
        if found.leftovers:
            raise typer.Exit(FOUND)

    @erasure.command("show")
    def show(
        home: HomeFolder,
        name: Annotated[str, typer.Argument(help="The erasure's id; without one, all are listed.")] = "",
        json: Json = False,
    ) -> None:
        """Show one erasure, or list all of them with what waits: what is under way, when the epoch is to be rotated."""
        from privacy import erasure as erasing
        from wire.dates import format_instant

        with _opened(home) as opened:
            vault = opened.organisation.vault
            found = [erasing.erasure(vault, name)] if name else list(erasing.erasures(vault))
            due = erasing.rotation_due(vault)
        if json:
            screen.print_json({"erasures": [_told(one) for one in found], "rotate_by": due})
            return
        if name:
            _show(found[0])
            return
        columns: tuple[tuple[str, Any], ...] = (
            ("erasure", "name"),
            ("requested", screen.instant("requested")),
            ("ground", "plan.ground"),
            ("keys", lambda one: len(one.plan.erase)),
            ("restricted", lambda one: len(one.plan.restrict)),
            ("state", _state),
        )
        screen.table(found, columns)
        if due:
            screen.say(f"\nRotate the key epoch by {format_instant(due)}: medveil erasure apply ... --rotate")


def _holds(erasure: typer.Typer) -> None:
    @erasure.command("hold")
    def hold(
        home: HomeFolder,
        name: Annotated[str, typer.Argument(help="The hold's id.")],
        reference: Annotated[str, typer.Option(help="The order or file that demands it.")],
        dataset: Annotated[str, typer.Option(help="Of this dataset alone.")] = "",
        everybody: Annotated[bool, typer.Option("--everybody", help="Of all persons; else one is asked for.")] = False,
        until: Annotated[str, typer.Option(help="Last day, YYYY-MM-DD; else until it is lifted.")] = "",
        json: Json = False,
    ) -> None:
        """Place a legal hold: what it names is not erased while it stands."""
        from privacy.legal_holds import LegalHold, place_hold
        from wire.dates import NO_END

        last = _day(until) if until else NO_END
        with _opened(home) as opened:
            vault = opened.organisation.vault
            person = b"" if everybody else vault.person_id(screen.typed("Identifier of the person"))
            placed = LegalHold(name, person, dataset, reference, _today(), last)
            place_hold(vault, placed)
        _say_hold(placed, json)

    @erasure.command("lift")
    def lift(home: HomeFolder, name: Annotated[str, typer.Argument(help="The hold's id.")], json: Json = False) -> None:
        """Lift a legal hold, from today on. What it kept is erased by erasure plan --due, where that was asked for."""
        from privacy.legal_holds import lift_hold

        with _opened(home) as opened:
            lifted = lift_hold(opened.organisation.vault, name, _today())
        _say_hold(lifted, json)

    @erasure.command("holds")
    def holds(home: HomeFolder, json: Json = False) -> None:
        """List the legal holds, those that have ended too."""
        from privacy.legal_holds import all_holds

        with _opened(home) as opened:
            found = all_holds(opened.organisation.vault)
        if json:
            screen.print_json([_hold_told(one) for one in found])
            return
        columns: tuple[tuple[str, Any], ...] = (
            ("hold", "hold"),
            ("of", lambda one: "one person" if one.person else "everybody"),
            ("dataset", lambda one: one.dataset or "all"),
            ("since", lambda one: _date(one.since)),
            ("until", lambda one: _date(one.until)),
            ("reference", "reference"),
        )
        screen.table(found, columns)


# ---- what is shown


def _told(one: Erasure) -> dict[str, Any]:
    """An erasure for programs: counts and days; who it is about, only by the vault's keyed id."""
    return {
        "erasure": one.name,
        "ground": one.plan.ground,
        "state": _state(one),
        "requested": one.requested,
        "erase": [{"dataset": key.dataset, "rows": key.rows} for key in one.plan.erase],
        "restrict": [
            {"dataset": key.dataset, "rows": key.rows, "until": _date(key.until), "why": list(key.why)}
            for key in one.plan.restrict
        ],
        "destroyed": one.destroyed,
        "rotate_by": one.rotate_by,
        "rotated": one.rotated,
        "extracts": [
            {"recipient": given.recipient, "grant": given.grant, "told": given.told, "deleted": given.deleted}
            for given in one.given
        ],
    }


def _state(one: Erasure) -> str:
    if one.done:
        return "done" if one.rotated or not one.plan.erase else "done, epoch not rotated"
    return "under way" if one.traces else "planned"


def _show(one: Erasure) -> None:
    from wire.dates import format_instant

    screen.say(f"Erasure {one.name} ({one.plan.ground}): {_state(one)}")
    for key in one.plan.erase:
        screen.say(f"  {'erased' if one.destroyed else 'erase'}: {key.rows} rows of {key.dataset}")
    for key in one.plan.restrict:
        screen.say(f"  restricted: {key.rows} rows of {key.dataset}, until {_date(key.until)} ({', '.join(key.why)})")
    if one.plan.erase and one.done and not one.rotated:
        screen.say(
            f"  Backups from before are useless once the key epoch is rotated, by {format_instant(one.rotate_by)}."
        )
    for given in one.given:
        deleted = f"deleted {format_instant(given.deleted)}" if given.deleted else "not acknowledged as deleted"
        screen.say(f"  extract of {given.dataset} to {given.recipient} under {given.grant}: {deleted}")


def _say_hold(hold: Any, json: bool) -> None:
    if json:
        screen.print_json(_hold_told(hold))
    else:
        screen.say(
            f"{hold.hold}: holds {hold.dataset or 'all datasets'} from {_date(hold.since)} to {_date(hold.until)}."
        )


def _hold_told(hold: Any) -> dict[str, Any]:
    whom = "one person" if hold.person else "everybody"
    days = {"since": _date(hold.since), "until": _date(hold.until)}
    return {"hold": hold.hold, "of": whom, "dataset": hold.dataset, **days, "reference": hold.reference}


def _date(day: int) -> str:
    from wire.dates import NO_END, date_of

    return "no end" if day == NO_END else date_of(day).isoformat()


# ---- the home


def _opened(home: Path) -> Home:
    """The home, this process's alone. The passphrase comes from MEDVEIL_PASSPHRASE_FILE or gateway.toml."""
    import secrets

    from medveil.service.home.config import FILE, passphrase, read_config
    from medveil.service.home.home import Home

    return Home.open(home, passphrase(read_config(home / FILE)), secrets.token_bytes, _now)


def _day(text: str) -> int:
    from datetime import date

    from wire.dates import day_of

    try:
        return day_of(date.fromisoformat(text))
    except ValueError:
        raise typer.BadParameter("--until is a day: YYYY-MM-DD") from None


def _today() -> int:
    from privacy.retention import ZONE
    from wire.dates import day_at

    return day_at(_now(), ZONE)


def _now() -> int:
    import time

    return time.time_ns() // 1_000_000
