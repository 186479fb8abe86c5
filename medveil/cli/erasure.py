"""`medveil erasure`: one person's data, from the plan to the receipt, at a gateway or on a stopped one's home."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medveil.cli import screen
from medveil.cli.calling import following, hex_digits
from medveil.cli.on_files import PERSON, HomeOption, OnFiles, at

if TYPE_CHECKING:
    from medveil.client.erasures import Erasure, ErasureCheck, ErasureList, Hold

Id = Annotated[str, typer.Argument(callback=hex_digits(32), help="The erasure's id: 32 hex digits.")]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
Within = Annotated[int, typer.Option(min=1, max=366, help="Days within which the key epoch is to be rotated.")]
LARGEST_MARKERS = 1024 * 1024
FOUND = 4
"""Exit code of a check that found something: as of medveil verify."""


def register(app: typer.Typer) -> None:
    """Add the verbs to the tree."""
    erasure = typer.Typer(
        help="Erase one person's data: plan, apply, check, show; legal holds. At the gateway, or with --home on the"
        " files of one that is stopped.",
        no_args_is_help=True,
    )
    app.add_typer(erasure, name="erasure")
    _doing(erasure)
    _looking(erasure)
    _holds(erasure)


def _doing(erasure: typer.Typer) -> None:
    @erasure.command("plan")
    def plan(
        due: Annotated[
            bool, typer.Option("--due", help="No person: what was restricted before and nothing keeps any more.")
        ] = False,
        ground: Annotated[
            Literal["request", "consent-withdrawn"], typer.Option(help="Why it is asked for.")
        ] = "request",
        reference: Annotated[str, typer.Option(help="Where the request is filed.")] = "",
        rotate_within: Within = 30,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Say what would be erased now and what restricted until when, and keep that as a plan. Nothing is erased yet.

        The person's identifier, in any spelling, is asked for, or read from standard input.
        """
        person = "" if due else screen.typed(PERSON)
        made: list[Erasure]
        with at(home) as place:
            if due:
                made = [*place.erasures.plan_due(rotate_days=rotate_within).erasures]
            else:
                one = place.erasures.plan(person, ground=ground, reference=reference, rotate_days=rotate_within)
                made = [one]
        if json:
            screen.print_json(made)
            return
        where = "" if home is None else f" --home {home}"
        for one in made:
            _show(one)
            screen.say(f"Nothing is erased yet. Go on: medveil erasure apply {one.erasure} --receipt FILE{where}\n")
        if not made:
            screen.say("Nothing that was restricted may be erased by now.")

    @erasure.command("apply")
    def apply(
        name: Id,
        receipt: Annotated[
            Path, typer.Option(readable=False, help="Where to write the signed receipt; must not be there yet.")
        ],
        rotate: Annotated[
            bool, typer.Option("--rotate", help="Rotate the key epoch at once: older copies become useless.")
        ] = False,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Carry out a plan: destroy keys, restrict what must be kept, and write a receipt. Interrupted, it goes on.

        For a plan that was carried out, it writes the receipt as of now.
        """
        import msgspec

        from medveil.client.credentials import write_private

        _may_write(receipt)
        with at(home) as place, following(json) as told:
            done = place.erasures.apply(name, told=told)
            if rotate:
                every: ErasureList = place.erasures.rotate(told=told)
                done = next((one for one in every.erasures if one.erasure == name), done)
            write_private(receipt, place.erasures.receipt(name), new=True)
        if json:
            screen.print_json({"receipt": str(receipt), **msgspec.to_builtins(done)})
            return
        _show(done)
        where = "" if home is None else f" --home {home}"
        screen.say(f"{receipt}: the receipt, signed. It is the person's; keep a copy.")
        screen.say(f"Check it: medveil erasure check {receipt}{where}")

    @erasure.command("rotate")
    def rotate(home: HomeOption = None, json: Json = False) -> None:
        """Rotate the vault's key epoch: older copies of it become useless. A gateway does so by the stated date."""
        with at(home) as place, following(json) as told:
            found: ErasureList = place.erasures.rotate(told=told)
        if json:
            screen.print_json(found)
        else:
            screen.say("Every key is wrapped under a new epoch; the older ones are destroyed.")


def _markers(path: Path) -> list[str]:
    """The texts in a file or on standard input: an argument would stand in the list of processes and in a history."""
    from privacy.erasure.check import SHORTEST_MARKER
    from wire.errors import DecodeError
    from wire.evidence import read_file

    if path != Path("-"):
        data = read_file(path, LARGEST_MARKERS)
    elif len(data := sys.stdin.buffer.read(LARGEST_MARKERS + 1)) > LARGEST_MARKERS:
        raise DecodeError("wire.too_long", kind="input", length=len(data), limit=LARGEST_MARKERS)
    try:
        texts = [text for text in map(str.strip, data.decode().splitlines()) if text]
    except UnicodeDecodeError:
        raise DecodeError("medveil.not_text") from None
    if any(len(text) < SHORTEST_MARKER for text in texts):
        raise typer.BadParameter(f"a text has at least {SHORTEST_MARKER} characters: shorter ones stand anywhere")
    return texts


def _looking(erasure: typer.Typer) -> None:
    @erasure.command("check")
    def check(
        receipt: Annotated[Path, typer.Argument(readable=False, help="What erasure apply wrote.")],
        markers: Annotated[
            Path | None,
            typer.Option(
                readable=False,
                allow_dash=True,
                help="File of texts of the person's that must stand in no file, one a line; - for standard input.",
            ),
        ] = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Look for what a receipt says is gone: in the vault, in every file of the home, write-ahead logs included.

        Exits with 4 where something is left, or a file cannot be read.
        """
        from wire.evidence import read_file

        texts = [] if markers is None else _markers(markers)
        data = read_file(receipt)
        found: ErasureCheck
        with at(home) as place, following(json) as told:
            if isinstance(place, OnFiles):
                found = place.erasures.check(data, texts, besides=receipt)
            else:
                found = place.erasures.check(data, texts, told=told)
        if json:
            screen.print_json(found)
        else:
            _show_check(found)
        if found.leftovers or found.unread:
            raise typer.Exit(FOUND)

    @erasure.command("show")
    def show(
        name: Annotated[str, typer.Argument(help="The erasure's id; without one, all are listed.")] = "",
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Show one erasure, or list all of them with what waits: what is under way, when the epoch is to be rotated."""
        from wire.dates import format_instant

        with at(home) as place:
            if name:
                one: Erasure = place.erasures.get(hex_digits(32)(name))
                if json:
                    screen.print_json(one)
                else:
                    _show(one)
                return
            found: ErasureList = place.erasures.list()
        if json:
            screen.print_json(found)
            return
        columns: tuple[tuple[str, Any], ...] = (
            ("erasure", "erasure"),
            ("requested", screen.instant("requested")),
            ("ground", "ground"),
            ("keys", lambda one: len(one.erase)),
            ("restricted", lambda one: len(one.restrict)),
            ("state", "state"),
        )
        screen.table(found.erasures, columns)
        if found.rotate_by:
            screen.say(f"\nThe key epoch is to be rotated by {format_instant(found.rotate_by)}: medveil erasure rotate")


def _holds(erasure: typer.Typer) -> None:
    @erasure.command("hold")
    def hold(
        name: Annotated[str, typer.Argument(help="The hold's id.")],
        reference: Annotated[str, typer.Option(help="The order or file that demands it.")],
        dataset: Annotated[str, typer.Option(help="Of this dataset alone.")] = "",
        everybody: Annotated[bool, typer.Option("--everybody", help="Of all persons; else one is asked for.")] = False,
        until: Annotated[str, typer.Option(help="Last day, YYYY-MM-DD; else until it is lifted.")] = "",
        not_here_yet: Annotated[
            bool, typer.Option("--not-here-yet", help="Of somebody of whom nothing is kept so far.")
        ] = False,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Place a legal hold: what it names is not erased while it stands."""
        last = _day(until) if until else None
        person = None if everybody else screen.typed(PERSON)
        with at(home) as place:
            placed: Hold = place.holds.place(
                name, reference, person=person, dataset=dataset, until=last, not_here_yet=not_here_yet
            )
        _say_hold(placed, json)

    @erasure.command("lift")
    def lift(
        name: Annotated[str, typer.Argument(help="The hold's id.")], home: HomeOption = None, json: Json = False
    ) -> None:
        """Lift a legal hold, from today on. What it kept is erased by erasure plan --due, where that was asked for."""
        with at(home) as place:
            lifted: Hold = place.holds.lift(name)
        if json:
            screen.print_json(lifted)
        elif lifted.until is not None and lifted.since is not None and lifted.until < lifted.since:
            screen.say(f"{name}: lifted; it held nothing on any day.")
        else:
            held = f"{_until(lifted.since)} to {_until(lifted.until)}"
            screen.say(f"{name}: lifted; it held {lifted.dataset or 'all datasets'} from {held}.")

    @erasure.command("holds")
    def holds(home: HomeOption = None, json: Json = False) -> None:
        """List the legal holds, those that have ended too."""
        with at(home) as place:
            found = place.holds.list()
        if json:
            screen.print_json(found)
            return
        columns: tuple[tuple[str, Any], ...] = (
            ("hold", "hold"),
            ("of", "of"),
            ("dataset", lambda one: one.dataset or "all"),
            ("since", lambda one: _until(one.since)),
            ("until", lambda one: _until(one.until)),
            ("reference", "reference"),
        )
        screen.table(found.holds, columns)


def _may_write(receipt: Path) -> None:
    """Look before keys are destroyed whether the receipt will have a place. Raises Refused, Unavailable."""
    import os

    from wire.errors import Refused, Unavailable

    if receipt.exists():
        raise Refused("client.file_exists", file=str(receipt))
    if not os.access(receipt.parent, os.W_OK | os.X_OK):
        raise Unavailable("client.unwritable", file=str(receipt))


# ---- what is shown


def _show(one: Erasure) -> None:
    from wire.dates import format_instant

    screen.say(f"Erasure {one.erasure} ({one.ground}): {one.state}")
    for key in one.erase:
        screen.say(f"  {'erased' if one.destroyed else 'erase'}: {_rows(key.rows)} of {key.dataset}")
    for kept in one.restrict:
        why = ", ".join(kept.why)
        screen.say(f"  restricted: {_rows(kept.rows)} of {kept.dataset}, until {_until(kept.until)} ({why})")
    if one.erase and one.done and not one.rotated:
        screen.say(
            f"  Backups from before are useless once the key epoch is rotated, by {format_instant(one.rotate_by)}."
        )
    if one.unplanned:
        screen.say(f"  {one.unplanned} rows of the person came since and may be used: plan it again.")
    for given in one.extracts:
        deleted = f"deleted {format_instant(given.deleted)}" if given.deleted else "not acknowledged as deleted"
        screen.say(f"  extract of {given.dataset} to {given.recipient} under {given.grant}: {deleted}")


def _show_check(found: ErasureCheck) -> None:
    screen.say(
        f"The receipt is signed. {found.keys} destroyed keys were looked for in the vault and in {found.files} files"
        f" ({found.bytes:,} bytes)."
    )
    for name in found.unread:
        screen.say(f"  not readable: {name}")
    for name in found.links:
        screen.say(f"  a link to elsewhere, not followed: {name}")
    for one in found.leftovers:
        screen.say(f"  left: {one.words}")
    if found.server:
        screen.say("The vault is in a database server: of the server's own files nothing was seen.")
    if not found.leftovers:
        screen.say("Nothing of it is left here." if not found.unread else "Nothing of it was found elsewhere.")
    screen.say("\nWhat an erasure at home does not reach:")
    for what in found.beyond:
        screen.say(f"  {what}")


def _say_hold(hold: Hold, json: bool) -> None:
    if json:
        screen.print_json(hold)
    else:
        of = hold.dataset or "all datasets"
        screen.say(f"{hold.hold}: holds {of} from {_until(hold.since)} to {_until(hold.until)}.")


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _until(day: str | None) -> str:
    return "no end" if day is None else day


def _day(text: str) -> str:
    from datetime import date

    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise typer.BadParameter("--until is a day: YYYY-MM-DD") from None
