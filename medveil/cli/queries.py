"""`medveil ask` and `medveil queries`: questions over several sites, and what was released."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medveil.cli import screen
from medveil.cli.calling import Json, Key, calling, following, hex_digits
from medveil.cli.datasets import rho as in_rho
from medveil.cli.members import write_evidence
from medveil.cli.terms import parse_json

if TYPE_CHECKING:
    from medveil.client import Released
    from medveil.client.queries import Preview
    from mpc.query import Query

Handle = Annotated[str, typer.Argument(callback=hex_digits(32), help="The query's handle: 32 hex digits.")]
Out = Annotated[Path | None, typer.Option(readable=False, help="Where to write the release as evidence.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the tree."""

    @app.command("ask")
    def ask(
        population: Annotated[str, typer.Argument(help="The population to ask.")],
        measure: Annotated[str, typer.Argument(help="The column to measure.")],
        purpose: Annotated[str, typer.Option(help="For what: a code such as HMB.")],
        rho: Annotated[str, typer.Option(help="Privacy budget to spend, a decimal such as 0.25.")],
        by: Annotated[list[str] | None, typer.Option(help="A column to group by; repeat it.")] = None,
        site: Annotated[list[str] | None, typer.Option(help="Ask this site; repeat it. By default all.")] = None,
        dataset: Annotated[list[str] | None, typer.Option(help="Which table, where a site has several.")] = None,
        low: Annotated[str, typer.Option(help="Clamp below this; by default as declared.")] = "",
        high: Annotated[str, typer.Option(help="Clamp above this.")] = "",
        edges: Annotated[str, typer.Option(help="Edges of a histogram: 0,10,100.")] = "",
        filter: Annotated[str, typer.Option(help="""Which rows, as JSON: {"column": "age", "at_least": 18}.""")] = "",
        other: Annotated[bool, typer.Option("--other/--no-other", help="Group rows of unknown group.")] = True,
        person: Annotated[str, typer.Option(help="The column that names the person.")] = "",
        minimum_group: Annotated[int, typer.Option(min=2, help="Hide groups whose noisy count is below it.")] = 10,
        delta_exponent: Annotated[int, typer.Option(min=3, max=15, help="Delta is 10 to minus this.")] = 6,
        preview: Annotated[bool, typer.Option("--preview", help="Only say what it would cost and show.")] = False,
        out: Out = None,
        key: Key = "",
        json: Json = False,
    ) -> None:
        """Ask a question over several sites; prints what was released, once it is verified."""
        from medveil.client import Question

        question = Question(
            population=population,
            measure=measure,
            purpose=purpose,
            rho=rho,
            sites=tuple(site or ()),
            datasets=tuple(dataset or ()),
            low=low or None,
            high=high or None,
            edges=tuple(edge.strip() for edge in edges.split(",")) if edges else (),
            by=tuple(by or ()),
            other=other,
            filter=parse_json("--filter", filter) if filter else None,
            person=person,
            delta_exponent=delta_exponent,
            minimum_group=minimum_group,
        )
        with calling() as client:
            if preview:
                _show_preview(client.queries.preview(question), json)
                return
            with following(json) as told:
                released = client.queries.ask(question, key=key, told=told)
        if out is not None:
            write_evidence(out, released.data)
        _show_released(released, json)

    queries = typer.Typer(help="Queries that your organisation asked, or served.", no_args_is_help=True)
    app.add_typer(queries, name="queries")

    @queries.command("list")
    def listed(json: Json = False) -> None:
        """List the queries that your organisation asked, the newest first."""
        with calling() as client:
            found = client.queries.list()
        if json:
            screen.print_json(found)
            return
        columns = (
            ("query", "query"),
            ("population", "population"),
            ("sites", "roster"),
            ("rho", lambda query: in_rho(query.rho_nano)),
            ("status", "status"),
            ("block", "height"),
        )
        screen.table(found.queries, columns)

    @queries.command("show")
    def show(query: Handle, json: Json = False) -> None:
        """Show how a query stands on the ledger."""
        with calling() as client:
            found = client.queries.get(query)
        if json:
            screen.print_json(found)
        else:
            screen.facts(
                (("rho", in_rho(value)) if name == "rho nano" else (name, in_rho(value)))
                if name in ("rho nano", "budget before") and value is not None
                else (name, value)
                for name, value in screen.of(found)
            )

    @queries.command("release")
    def release(query: Handle, out: Out = None, json: Json = False) -> None:
        """Print what was released of a query, verified by proofs of the ledger."""
        with calling() as client:
            released = client.queries.release(query)
        if out is not None:
            write_evidence(out, released.data)
        _show_released(released, json)

    @queries.command("served")
    def served(
        first: Annotated[int, typer.Option(min=1, help="First entry of the audit trail.")] = 1,
        limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 100,
        json: Json = False,
    ) -> None:
        """List the parts that your organisation took, or denied, in others' queries."""
        with calling() as client:
            found = client.queries.served(first=first, limit=limit)
        if json:
            screen.print_json(found)
            return
        columns = (
            ("entry", "intent"),
            ("time", screen.instant("began")),
            ("asked by", "use.recipient"),
            ("dataset", "use.dataset"),
            ("purpose", "use.purpose"),
            ("grant", "use.grant"),
            ("decided by", "use.rule"),
            ("outcome", "outcome"),
            ("query", "query"),
            ("status", "status"),
        )
        screen.table(found.served, columns)
        if found.next:
            screen.say(f"\nMore: --first {found.next}")


_ASSUMED = {
    "all-honest": "every site adds its noise",
    "colluders": "the assumed colluders add none",
    "one-honest": "one site alone adds noise",
}


def _show_preview(preview: Preview, as_json: bool) -> None:
    if as_json:
        screen.print_json(preview)
        return
    query = preview.query
    screen.facts(
        [
            ("sites", query.roster),
            ("datasets", query.datasets),
            ("measure", query.measure),
            ("groups", tuple(str(group.get("name")) for group in query.groups)),
            ("numbers that leave at most", preview.cells),
            ("budget before", in_rho(preview.before)),
            ("budget after", in_rho(preview.after) if preview.enough else "not enough"),
        ]
    )
    print()
    costs = ("rho", lambda one: in_rho(one.rho_nano))
    screen.table(preview.noise, (("cells", "kind"), ("noise (sd)", "pooled"), ("unit", "unit"), costs))
    print()
    columns = (("if", lambda one: _ASSUMED.get(one.assumption, one.assumption)), ("epsilon", "epsilon"))
    screen.table(preview.epsilons, (*columns, ("delta", "delta")))


def _show_released(released: Released, as_json: bool) -> None:
    release = released.release
    if as_json:
        screen.print_json(
            {
                "query": released.query,
                "verified": True,
                "population": release.query.population,
                "answers_the_question": released.asked,
                "asked": _plain(release.query),
                "sites": release.sites,
                "unit": release.unit,
                "rho_nano": release.rho_nano,
                "epsilons": [_plain(one) for one in release.epsilons],
                "groups": [_plain(group) for group in release.groups],
                "hidden": [_plain(group) for group in release.hidden],
                "budget_before_nano": release.budget_before_nano,
                "budget_after_nano": release.budget_after_nano,
                "not_asked": released.declared.not_asked,
                "available_nano": released.declared.available,
                "proposed_in_block": released.declared.proposed,
                "proven_in_block": released.declared.height,
                "by_the_gateways_word": {"notes": [_plain(note) for note in release.notes]},
            }
        )
        return
    groups = [group.name for group in release.query.groups]
    columns = [(name, _value(at)) for at, name in enumerate(groups)]
    columns += [(name, _estimate(name)) for name in ("count", "mean", "sd")]
    screen.table(release.groups, columns, none="no group passed")
    if release.groups:
        print("In brackets: the 95 % interval of the noise; values beyond the measure's bounds counted as the bound.")
    for hidden in release.hidden:
        from medveil.cli import language

        print(screen.shown(hidden.text(language())))
    query, declared = release.query, released.declared
    screen.say(f"\nVerified by proofs of the ledger: query {released.query}")
    rho = f"{in_rho(release.rho_nano)} spent, {in_rho(release.budget_after_nano)} left then"
    rows = [
        ("asked", f"in block {declared.proposed}"),
        ("sites", release.sites),
        ("not asked, though owners", declared.not_asked),
        ("measured", _measured(query)),
        ("rows", "filtered" if query.filter is not None else "all"),
        ("purpose", query.purpose),
        ("rho", f"{rho}, {in_rho(declared.available)} left in block {declared.height}"),
    ]
    screen.facts((f"  {name}", value) for name, value in rows if value)
    if not released.asked:
        print("That this is what was meant to be asked, nobody checked: --json shows all of the query.")
    if release.notes:
        print("\nBy the gateway's word alone, what sites say of their tables:")
        screen.facts((f"  {note.site}", note.text) for note in release.notes)


def _measured(query: Query) -> str:
    """What a query measures, in words."""
    measure = query.measure
    low, high = (Decimal(bound) / measure.scale for bound in (measure.low, measure.high))
    by = f" by {', '.join(group.name for group in query.groups)}" if query.groups else ""
    return f"{measure.column} from {low:f} to {high:f}{by}"


def _plain(thing: object) -> object:
    """A canonical struct by its fields' names."""
    if isinstance(thing, tuple):
        return [_plain(one) for one in thing]
    names = getattr(thing, "__struct_fields__", None)
    return thing if names is None else {name: _plain(getattr(thing, name)) for name in names}


def _value(at: int) -> screen.Cell:
    return lambda group: group.values[at]


def _estimate(name: str) -> screen.Cell:
    def show(group: object) -> str:
        one = getattr(group, name)
        return f"{'not resolved' if one.value is None else one.value} ({one.low} to {one.high})"

    return show
