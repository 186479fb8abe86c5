"""`medveil extract` by the gateway: ask for extracts, look at them, make and deliver them, open those that came."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medveil.cli import screen
from medveil.cli.calling import Commercial, Json, Jurisdiction, Key, calling, following, hex_digits
from medveil.cli.ending import ending_tidily
from medveil.cli.terms import parse_json

if TYPE_CHECKING:
    from medveil.client.extracts import AskList, Held, Made, Preview, Risk
    from medveil.client.filters import AnyFilter

Id = Annotated[str, typer.Argument(callback=hex_digits(32), help="The extract's id: 32 hex digits.")]
AskId = Annotated[str, typer.Argument(callback=hex_digits(32), help="The request's id: 32 hex digits.")]
Filter = Annotated[str, typer.Option(help="""Which rows, as JSON: {"column": "age", "at_least": 18}.""")]
Column = Annotated[list[str] | None, typer.Option(help="A column; repeat it.")]
AskOption = Annotated[
    str,
    typer.Option(callback=hex_digits(32, optional=True), help="Answer this request: its columns, rows and purpose."),
]
GrantOption = Annotated[str, typer.Option(help="Under this grant of yours, unasked.")]
Purpose = Annotated[str, typer.Option(help="Its purpose, a code such as HMB; by default the grant's.")]
Sensitive = Annotated[list[str] | None, typer.Option(help="A masked column that nobody may learn of a person.")]
Unknown = Annotated[list[str] | None, typer.Option(help="A masked column that nobody else can know of a person.")]
Amount = Annotated[list[str] | None, typer.Option(help="A column of institutions' trade secrets.")]
Institution = Annotated[str, typer.Option(help="The column that names institutions.")]
Persons = Annotated[int, typer.Option(min=1, help="Fewest persons that look alike, or the grant's if more.")]
Diversity = Annotated[int, typer.Option(min=1, help="Fewest different sensitive values in a group.")]
Closeness = Annotated[
    float, typer.Option(min=0, max=1, help="Furthest that a group's sensitive values may lie from everybody's.")
]
Institutions = Annotated[int, typer.Option(min=3, help="Fewest institutions in a group.")]
Dominance = Annotated[int, typer.Option(min=1, max=100, help="Percent to which one may not know another's amount.")]
Withhold = Annotated[bool, typer.Option("--withhold", help="Leave out the rows of groups that break a limit.")]


_GROUPS_SHOWN = 40
_HOW_ELSE = (
    "\nWhat is known to others makes these groups. Where others cannot know a column, say so: --sensitive COLUMN if"
    "\nnobody may learn it, --unknown COLUMN otherwise. Or let fewer columns leave, mask them more, --withhold rows."
)
_SHOWN = [(name, name) for name in ("grant", "dataset", "rows")]
_SINCE = ("since", screen.instant("at"))


def register(extract: typer.Typer) -> None:
    """Add the verbs to `medveil extract`."""
    _asking(extract)
    _making(extract)
    _holding(extract)


def _asking(extract: typer.Typer) -> None:
    @extract.command("ask")
    def ask(
        holder: Annotated[str, typer.Option("--from", help="The organisation that holds the data.")],
        dataset: Annotated[str, typer.Option(help="A dataset of theirs.")],
        column: Annotated[list[str], typer.Option(help="A column that you want; repeat it.")],
        purpose: Annotated[str, typer.Option(help="For what: a code such as HMB.")],
        filter: Filter = "",
        commercial: Commercial = False,
        jurisdiction: Jurisdiction = "CN",
        key: Key = "",
        json: Json = False,
    ) -> None:
        """Ask another organisation for an extract; its data officer answers."""
        with calling() as client, following(json) as told:
            one = client.extracts.ask(
                holder,
                dataset,
                tuple(column),
                purpose,
                filter=_filter(filter),
                commercial=commercial,
                jurisdiction=jurisdiction,
                key=key,
                told=told,
            )
        if json:
            screen.print_json(one)
        else:
            screen.say(f"{one.ask}: {holder} is asked. medveil extract asked says what they answer.")

    @extract.command("asked")
    def asked(json: Json = False) -> None:
        """List what your organisation asked others for, and what they answered."""
        with calling() as client:
            _asks(client.extracts.asked(), "of", "holder", json)

    @extract.command("wanted")
    def wanted(json: Json = False) -> None:
        """List what others want of your organisation."""
        with calling() as client:
            _asks(client.extracts.wanted(), "by", "recipient", json)

    @extract.command("decline")
    def decline(ask: AskId, key: Key = "", json: Json = False) -> None:
        """Say no to a request. Whoever asked learns that, and nothing else."""
        with calling() as client, following(json) as told:
            job = client.extracts.decline(ask, key=key, told=told)
        if json:
            screen.print_json(job)
        else:
            screen.say(f"{ask} is declined.")


def _making(extract: typer.Typer) -> None:
    @extract.command("preview")
    def preview(
        ask: AskOption = "",
        grant: GrantOption = "",
        column: Column = None,
        filter: Filter = "",
        purpose: Purpose = "",
        sensitive: Sensitive = None,
        unknown: Unknown = None,
        institution: Institution = "",
        amount: Amount = None,
        persons: Persons = 5,
        diversity: Diversity = 2,
        closeness: Closeness = 1.0,
        institutions: Institutions = 3,
        dominance: Dominance = 10,
        withhold: Withhold = False,
        json: Json = False,
    ) -> None:
        """Look at what an extract would be: the decision, rows, masks, and who could be found in it.

        Nothing is written. Every column that leaves counts as known to others unless you say what it is, by the name
        that it has when masked. Exit code 1: it could not be made like this.
        """
        _one_of(ask, grant)
        limits = persons, diversity, closeness, institutions, dominance
        with calling() as client:
            found = client.extracts.preview(
                ask=ask,
                grant=grant,
                columns=tuple(column or ()),
                filter=_filter(filter),
                purpose=purpose,
                risk=_risk(sensitive, unknown, institution, amount, limits, withhold),
            )
        if json:
            screen.print_json(found)
        else:
            _show_preview(found)
        if not found.leaves:
            raise typer.Exit(1)

    @extract.command("make")
    def make(
        ask: AskOption = "",
        grant: GrantOption = "",
        column: Column = None,
        filter: Filter = "",
        purpose: Purpose = "",
        sensitive: Sensitive = None,
        unknown: Unknown = None,
        institution: Institution = "",
        amount: Amount = None,
        persons: Persons = 5,
        diversity: Diversity = 2,
        closeness: Closeness = 1.0,
        institutions: Institutions = 3,
        dominance: Dominance = 10,
        withhold: Withhold = False,
        key: Key = "",
        json: Json = False,
    ) -> None:
        """Make an extract, announce it on the ledger, deliver it. Look at it first: medveil extract preview."""
        _one_of(ask, grant)
        limits = persons, diversity, closeness, institutions, dominance
        with calling() as client, following(json) as told:
            made = client.extracts.make(
                ask=ask,
                grant=grant,
                columns=tuple(column or ()),
                filter=_filter(filter),
                purpose=purpose,
                risk=_risk(sensitive, unknown, institution, amount, limits, withhold),
                key=key,
                told=told,
            )
        _show_made(made, json)

    @extract.command("deliver")
    def deliver(extract_id: Id, key: Key = "", json: Json = False) -> None:
        """Deliver an extract that was made and did not reach its recipient."""
        with calling() as client, following(json) as told:
            _show_made(client.extracts.deliver(extract_id, key=key, told=told), json)

    @extract.command("withdraw")
    def withdraw(extract_id: Id, json: Json = False) -> None:
        """Take back an extract that was not delivered. Where it may have left, its recipient is told to delete it."""
        with calling() as client:
            _show_made(client.extracts.withdraw(extract_id), json)


def _holding(extract: typer.Typer) -> None:
    @extract.command("list")
    def listed(json: Json = False) -> None:
        """List the extracts that your organisation made, and those that it holds or held."""
        with calling() as client:
            found = client.extracts.list()
        if json:
            screen.print_json(found)
            return
        if found.made or not found.held:
            screen.table(found.made, [("made", "extract"), ("for", "recipient"), ("state", "state"), *_SHOWN, _SINCE])
        if found.held:
            until = ("delete by", screen.instant("delete_by"))
            screen.table(found.held, [("held", "extract"), ("of", "issuer"), *_SHOWN, until, ("here", _here)])

    @extract.command("recalled")
    def recalled(json: Json = False) -> None:
        """List the extracts that recipients have to delete: after an erasure, or a revoked consent; and who has."""
        with calling() as client:
            found = client.extracts.recalled()
        if json:
            screen.print_json(found)
            return
        screen.table(
            found.recalls,
            [
                ("extract", "extract"),
                ("recipient", "recipient"),
                ("grant", "grant"),
                ("why", "why"),
                ("told", screen.instant("told")),
                ("answer", lambda one: one.answer or "none yet"),
                ("answered", screen.instant("answered")),
            ],
        )
        for words in dict.fromkeys(words for one in found.recalls for words in one.beyond):
            screen.say(f"\n{words}")

    @extract.command("get")
    def get(
        extract_id: Id,
        out: Annotated[Path, typer.Option(readable=False, help="Write it to this new file.")],
        json: Json = False,
    ) -> None:
        """Fetch a held extract, sealed as it came; medveil extract open opens it with your organisation's keys. The
        gateway notes it in its audit trail."""
        with calling() as client, ending_tidily():
            client.extracts.fetch(extract_id, out)
        if json:
            screen.print_json({"file": str(out), "extract": extract_id})
        else:
            screen.say(f"{out}: extract {extract_id}, sealed.")

    @extract.command("rows")
    def rows(
        extract_id: Id,
        out: Annotated[Path, typer.Option(readable=False, help="A new .parquet, .arrow or .csv file.")],
        json: Json = False,
    ) -> None:
        """Open a held extract by the gateway: its rows in the clear. The gateway notes it in its audit trail."""
        from wire.dates import format_instant

        if out.suffix not in (".parquet", ".arrow", ".csv"):
            raise typer.BadParameter("--out ends in one of .parquet, .arrow, .csv")
        with calling() as client, ending_tidily():
            days = [one.delete_by for one in client.extracts.list().held if one.extract == extract_id]
            client.extracts.open(extract_id, out)
        until = f"by {format_instant(days[0])}" if days else "in time"
        if json:
            screen.print_json({"file": str(out), "extract": extract_id})
        else:
            screen.say(f"{out} is not encrypted. Guard it, and delete it {until}.")

    @extract.command("delete")
    def delete(extract_id: Id, json: Json = False) -> None:
        """Delete a held extract at the gateway. Files that somebody opened it to are theirs to delete."""
        with calling() as client:
            gone: Held = client.extracts.delete(extract_id)
        if json:
            screen.print_json(gone)
        else:
            screen.say(f"{gone.extract} is deleted here.")


def _one_of(ask: str, grant: str) -> None:
    if bool(ask) == bool(grant):
        raise typer.BadParameter("name either --ask or --grant: what it answers, or under which grant it is")


def _filter(text: str) -> AnyFilter:
    return parse_json("--filter", text) if text else None


def _risk(
    sensitive: list[str] | None,
    unknown: list[str] | None,
    institution: str,
    amounts: list[str] | None,
    limits: tuple[int, int, float, int, int],
    withhold: bool,
) -> Risk:
    from medveil.client import Risk

    persons, diversity, closeness, institutions, dominance = limits
    return Risk(
        sensitive=tuple(sensitive or ()),
        institution=institution,
        amounts=tuple(amounts or ()),
        unknown=tuple(unknown or ()),
        persons=persons,
        diversity=diversity,
        closeness=round(closeness * 1_000_000),
        institutions=institutions,
        dominance=dominance,
        withhold=withhold,
    )


def _asks(found: AskList, whom: str, field: str, as_json: bool) -> None:
    if as_json:
        screen.print_json(found)
        return
    same = [(name, name) for name in ("dataset", "columns", "purpose", "state")]
    screen.table(found.asks, [("request", "ask"), (whom, field), *same, ("extract", "extract"), _SINCE])
    for one in found.asks:
        if one.code:
            print(screen.shown(f"{one.ask}: {_why(one.code)}"))


def _why(code: str, **facts: str) -> str:
    """A gateway's code in the reader's words; one of a newer version as it came."""
    from medveil.cli import language
    from wire.errors import MedveilError

    return MedveilError(code, **facts).text(language())


def _show_made(made: Made, as_json: bool) -> None:
    if as_json:
        screen.print_json(made)
    else:
        screen.say(f"{made.extract}: {made.rows} rows of {made.dataset} for {made.recipient}: {made.state}.")


def _show_preview(found: Preview) -> None:
    print(screen.shown(found.decision))
    if not found.allowed or found.risk is None:
        return
    risk, unjudged = found.risk, "not judged"
    screen.facts(
        [
            ("grant", found.grant),
            ("rows", f"{found.rows} (class {found.row_class})"),
            ("columns", tuple(str(one) for one in found.columns)),
            ("known to others", risk.known),
            ("left out", found.excluded or "nobody"),
            ("to be deleted by", screen.instant("delete_by")(found)),
            ("groups that look alike", risk.groups),
            ("fewest persons", risk.persons),
            ("fewest sensitive values", risk.diversity or f"{unjudged}: no --sensitive column"),
            ("closeness", risk.closeness / 1_000_000 if risk.diversity else f"{unjudged}: no --sensitive column"),
            ("fewest institutions", risk.institutions or f"{unjudged}: no --institution column"),
            ("dominated amounts", risk.dominated if risk.institutions else f"{unjudged}: no --institution column"),
            ("groups that break a limit", f"{risk.offending} with {risk.offending_rows} rows"),
        ]
    )
    if found.earlier:
        before = "1 extract was" if len(found.earlier) == 1 else f"{len(found.earlier)} extracts were"
        print(f"{before} made of it for this recipient before. Each was measured alone.")
    if found.other_cut:
        print(screen.shown(_why("gateway.extract_other_cut", grant=found.grant, extract=found.other_cut)))
    if found.offends:
        print()
        columns = [(name, _value(place)) for place, name in enumerate(risk.known)]
        shown = found.offends[:_GROUPS_SHOWN]
        screen.table(shown, (*columns, ("rows", "rows"), ("persons", "persons"), ("breaks", "reasons")))
        if risk.offending > len(shown):
            print(f"and {risk.offending - len(shown)} more groups; --json lists up to 200")
        print(_HOW_ELSE)
    if found.withheld is not None:
        screen.say(f"\nWithout these groups {found.withheld.rows} rows leave, {found.withheld.lost} less.")


def _here(one: Held) -> str:
    by = {"": "", "person": "deleted by a person", "due": "its day has come"}
    return "yes" if one.here else f"no: {by.get(one.why, one.why)}".removesuffix(": ")


def _value(place: int) -> screen.Cell:
    return lambda group: group.values[place]
