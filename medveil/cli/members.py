"""`medveil members`, `medveil receipts`, and the verbs of `medveil ledger` that ask a gateway."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medveil.cli import screen
from medveil.cli.calling import Json, Key, calling, following, hex_digits

if TYPE_CHECKING:
    from medveil.client.consortium import EntryPage
    from medveil.client.written import Written

Organisation = Annotated[str, typer.Argument(help="Name of the organisation.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many.")]
After = Annotated[str, typer.Option(help="Only entries after this place.")]


_VOTED = (
    "That is one vote; with as many as make a head final it takes effect in the next block, "
    "which is made when anybody writes something. "
    "How many that is, who is in, and what is decided: medveil members list."
)


def show_written(written: Written, as_json: bool) -> None:
    """Say what is on the ledger now, by a receipt that was verified."""
    if as_json:
        said = {"envelope": written.envelope, "organisation": written.organisation, "height": written.height}
        screen.print_json(said)
    else:
        screen.say(
            f"On the ledger in block {written.height}, by a receipt that holds: "
            f"envelope {written.envelope} of {written.organisation}"
        )


def show_entries(page: EntryPage, as_json: bool) -> None:
    """Print a page of history."""
    if as_json:
        screen.print_json(page)
        return
    columns = (
        ("place", "place"),
        ("time", screen.instant("time")),
        ("organisation", "organisation"),
        ("ops", "kinds"),
        ("result", lambda entry: entry.code or "accepted"),
        ("what happened", "events"),
        ("envelope", lambda entry: entry.envelope[:16]),
    )
    screen.table(page.entries, columns)
    if page.after:
        screen.say(f"\nMore: --after {page.after}")


def register(app: typer.Typer) -> None:
    """Add the verbs to the tree."""
    members = typer.Typer(help="Members of the consortium, and votes on who joins and leaves.", no_args_is_help=True)
    app.add_typer(members, name="members")

    @members.command("list")
    def listed(json: Json = False) -> None:
        """List the members, votes on them, and changes that are decided and not in force yet, as the gateway's replica
        has them."""
        with calling() as client:
            found = client.members.list()
        if json:
            screen.print_json(found)
            return
        columns = (
            ("organisation", "organisation"),
            ("roles", "roles"),
            ("tier", "tier"),
            ("re-executes", "re_executes"),
            ("suspended", "suspended"),
            ("envelope key", lambda member: member.keys.get("envelope", "-")),
        )
        screen.table(found.members, columns)
        for vote in found.votes:
            voters = f"{len(vote.voters)} of {vote.needed} votes ({', '.join(vote.voters)})"
            screen.say(f"{vote.about} of {vote.organisation}: {voters}")
        for change in found.changes:
            due = ", with the next write" if change.block == found.height + 1 else ""
            screen.say(f"{change.about} of {change.organisation}: decided, takes effect in block {change.block}{due}")
        screen.say(
            f"\nchain {found.chain}, block {found.height}: {found.k} make a head final; {found.sequencer} orders"
        )

    @members.command("trust")
    def trust(json: Json = False) -> None:
        """Bring the pinned trust file up to date, by changes that the members before each handed over."""
        from medveil.trust import show_trust

        with calling() as client:
            show_trust(client.members.trust(), json)

    @members.command("admit")
    def admit(
        card: Annotated[Path, typer.Argument(readable=False, help="The applicant's member card.")],
        fingerprint: Annotated[str, typer.Option(help="As its people read it out; asked for if not given.")] = "",
        json: Json = False,
    ) -> None:
        """Vote that an applicant joins, exactly as its card says."""
        from wire.errors import Unavailable

        try:
            data = card.read_bytes()
        except OSError:
            raise Unavailable("client.unreadable", file=str(card)) from None
        said = fingerprint or screen.typed("Fingerprint, as its people read it out")
        with calling() as client:
            show_written(client.members.admit(data, said), json)
        if not json:
            print(_VOTED)

    @members.command("remove")
    def remove(organisation: Organisation, json: Json = False) -> None:
        """Vote that a member leaves."""
        with calling() as client:
            show_written(client.members.remove(organisation), json)
        if not json:
            print(_VOTED)

    @members.command("suspend")
    def suspend(
        organisation: Organisation,
        lift: Annotated[bool, typer.Option("--lift", help="Take the suspension back.")] = False,
        json: Json = False,
    ) -> None:
        """Vote that a member's envelopes are refused."""
        with calling() as client:
            show_written(client.members.suspend(organisation, suspended=not lift), json)

    @members.command("rotate")
    def rotate(
        notice: Annotated[int | None, typer.Option(min=2, help="How many blocks ahead they are announced.")] = None,
        key: Key = "",
        json: Json = False,
    ) -> None:
        """Have your gateway draw new keys of all uses, and announce them on the ledger."""
        with calling() as client, following(json) as told:
            done = client.members.rotate(notice=notice, key=key, told=told)
        if json:
            screen.print_json(done)
        else:
            print(f"The new keys are announced; the gateway uses them from block {done.block} on by itself.")

    @members.command("leave")
    def leave(
        yes: Annotated[bool, typer.Option("--yes", help="Do not ask again.")] = False, json: Json = False
    ) -> None:
        """Have your organisation leave the consortium. There is no way back but a new admission."""
        if not yes:
            screen.agree("Leave the consortium?")
        with calling() as client:
            show_written(client.members.leave(), json)

    receipts = typer.Typer(help="Receipts of what your organisation wrote on the ledger.", no_args_is_help=True)
    app.add_typer(receipts, name="receipts")

    @receipts.command("list")
    def listed_receipts(after: After = "", limit: Limit = 100, json: Json = False) -> None:
        """List your organisation's envelopes, the oldest first."""
        with calling() as client:
            show_entries(client.receipts.list(after=after or None, limit=limit), json)

    @receipts.command("get")
    def get(
        envelope: Annotated[str, typer.Argument(callback=hex_digits(64), help="The envelope's id: 64 hex digits.")],
        out: Annotated[Path | None, typer.Option(readable=False, help="Where to write the receipt.")] = None,
        json: Json = False,
    ) -> None:
        """Get a receipt, verified, and write it as evidence."""
        from wire.canonical import encode
        from wire.dates import format_instant

        with calling() as client:
            receipt = client.receipts.get(envelope)
        if out is not None:
            write_evidence(out, encode(receipt))
        facts = {
            "envelope": envelope,
            "height": receipt.block.height,
            "time": format_instant(receipt.block.time),
            "organisation": receipt.result.sender,
            "result": receipt.result.in_words(),
            "file": str(out) if out else None,
        }
        if json:
            screen.print_json(facts)
        else:
            screen.facts(facts.items())


def write_evidence(out: Path, data: bytes) -> None:
    """Write an evidence file that is not there yet. Raises Refused, Unavailable."""
    from wire.errors import Refused, Unavailable
    from wire.evidence import write_file

    if out.exists():
        raise Refused("client.file_exists", file=str(out))
    try:
        write_file(out, data)
    except OSError:
        raise Unavailable("client.unwritable", file=str(out)) from None


def register_ledger(ledger: typer.Typer) -> None:
    """Add the verbs that ask a gateway to `medveil ledger`."""

    @ledger.command("head")
    def head(json: Json = False) -> None:
        """Ask the gateway how far the ledger is."""
        with calling() as client:
            found = client.ledger.head()
        if json:
            screen.print_json(found)
            return
        hidden = [(name, value) for name, value in screen.of(found) if name != "time"]
        screen.facts([*hidden, ("time", screen.instant("time")(found))])

    @ledger.command("entries")
    def entries(
        organisation: Annotated[str, typer.Option(help="Only what this organisation sent.")] = "",
        kind: Annotated[str, typer.Option(help="Only with an op of this contract, or this op.")] = "",
        since: Annotated[str, typer.Option(help="Only from this date or time on; UTC without an offset.")] = "",
        until: Annotated[str, typer.Option(help="Only before this date or time.")] = "",
        after: After = "",
        limit: Limit = 100,
        json: Json = False,
    ) -> None:
        """Ask the gateway for the ledger's history, the oldest first."""
        bounds = [_instant(option, text) for option, text in (("--since", since), ("--until", until))]
        with calling() as client:
            page = client.ledger.entries(
                organisation=organisation or None,
                kind=kind or None,
                since=bounds[0],
                until=bounds[1],
                after=after or None,
                limit=limit,
            )
        show_entries(page, json)


def _instant(option: str, text: str) -> int | None:
    from medveil.history import instant

    try:
        return instant(text, "UTC") if text else None
    except ValueError:
        raise typer.BadParameter(f"{option} is a date or time such as 2026-11-22 or 2026-11-22T10:00Z") from None
