"""`medveil opt-outs`: what patients do not want done with their data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medveil.cli import screen
from medveil.cli.calling import Json, calling
from medveil.cli.on_files import PERSON

if TYPE_CHECKING:
    from medveil.client.opt_outs import PersonOptOuts

Scope = Annotated[
    Literal["all", "purpose", "recipient", "use"],
    typer.Argument(help="all: no secondary use; purpose, recipient, use: none of that VALUE."),
]
Value = Annotated[str, typer.Argument(help="A purpose's code, an organisation's name, or a kind of use.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the tree."""
    opt_outs = typer.Typer(
        help="Opt-outs: what patients do not want done with their data. The person's identifier is asked for, or read"
        " from standard input.",
        no_args_is_help=True,
    )
    app.add_typer(opt_outs, name="opt-outs")

    @opt_outs.command("list")
    def listed(
        person: Annotated[bool, typer.Option("--person", help="Those of one person, who is asked for.")] = False,
        json: Json = False,
    ) -> None:
        """List the scopes that are in force, and of how many persons; with --person one person's opt-outs."""
        with calling() as client:
            if person:
                _show(client.opt_outs.of(screen.typed(PERSON)), json)
                return
            found = client.opt_outs.list()
        if json:
            screen.print_json(found)
        else:
            screen.table(found.scopes, (("scope", "scope"), ("value", "value"), ("persons", "persons")))

    @opt_outs.command("add")
    def add(
        scope: Scope,
        value: Value = "",
        since: Annotated[str, typer.Option(help="From then on; a date or time, UTC without an offset.")] = "",
        until: Annotated[str, typer.Option(help="Until then; by default until it is withdrawn.")] = "",
        json: Json = False,
    ) -> None:
        """Take down what a person does not want, and say what it stops. It counts from the next decision on."""
        _of_scope(scope, value)
        begins, ends = _instant("--since", since), _instant("--until", until)
        with calling() as client:
            _show(client.opt_outs.add(screen.typed(PERSON), scope, value, since=begins, until=ends), json)
            if scope == "recipient" and value not in {one.organisation for one in client.members.list().members}:
                words = f"{value} is no member of the consortium today: was it typed right? It counts all the same."
                typer.echo(screen.shown(words), err=True)

    @opt_outs.command("withdraw")
    def withdraw(scope: Scope, value: Value = "", json: Json = False) -> None:
        """End a person's opt-outs of one scope now, as the person says. What was said stays on file."""
        _of_scope(scope, value)
        with calling() as client:
            _show(client.opt_outs.withdraw(screen.typed(PERSON), scope, value), json)


def _show(found: PersonOptOuts, as_json: bool) -> None:
    from wire.dates import format_instant

    if as_json:
        screen.print_json(found)
        return
    for one in found.opt_outs:
        ends = "" if one.until is None else f" until {format_instant(one.until)}"
        state = "" if one.in_force else " (not in force)"
        screen.say(f"{one.scope} {one.value}".strip() + f": since {format_instant(one.since)}{ends}{state}")
        print(screen.shown(f"  {one.words}"))
    if not found.opt_outs:
        screen.say("No opt-outs of this person.")
    if not found.known:
        screen.say("Nothing else is kept of a person of this identifier here: was it typed right?")


def _of_scope(scope: str, value: str) -> None:
    if scope == "all" and value:
        raise typer.BadParameter("all has no VALUE: it is every secondary use")
    if scope != "all" and not value:
        raise typer.BadParameter(f"{scope} needs a VALUE: {_VALUES[scope]}")


_VALUES = {
    "purpose": "a purpose's code, such as HRESCH",
    "recipient": "an organisation's name",
    "use": "query, score, proof, extract, view or export",
}


def _instant(option: str, text: str) -> int | None:
    from medveil.history import instant

    try:
        return instant(text, "UTC") if text else None
    except ValueError:
        raise typer.BadParameter(f"{option} is a date or time such as 2027-11-22") from None
