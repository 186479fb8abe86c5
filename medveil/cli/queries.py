"""`medveil queries`: query documents checked, explained and asked; what was released, what was served."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medveil.cli import screen
from medveil.cli.calling import Json, Key, calling, following, hex_digits
from medveil.cli.datasets import rho as in_rho
from medveil.cli.members import write_evidence
from medveil.cli.query_documents import TEMPLATE_HELP, File, read_question
from medveil.cli.released import keep_released, show_released

Handle = Annotated[str, typer.Argument(callback=hex_digits(32), help="The query's handle: 32 hex digits.")]
Out = Annotated[Path | None, typer.Option(readable=False, help="Where to write the release as evidence.")]
Page = Annotated[Path | None, typer.Option(readable=False, help="Where to write the release as a page for a browser.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the tree."""

    queries = typer.Typer(help="Queries that your organisation asked, or served.", no_args_is_help=True)
    app.add_typer(queries, name="queries")

    @queries.command("template", help=TEMPLATE_HELP)
    def template(
        population: Annotated[str, typer.Argument(help="The population to ask.")],
        columns: Annotated[list[str] | None, typer.Argument(help="Columns to measure; none counts rows.")] = None,
        purpose: Annotated[str, typer.Option(help="For what: a code such as HMB.")] = "HMB",
        rho: Annotated[str, typer.Option(help="Privacy budget to spend, a decimal.")] = "0.25",
        by: Annotated[list[str] | None, typer.Option(help="A column to group by; repeat it.")] = None,
        json: Json = False,
    ) -> None:
        from medveil.client import Group, Measure, Question
        from mpc.query_document import check_document, show_document

        measures, groups = tuple(map(Measure, columns or ())), tuple(map(Group, by or ()))
        made = Question(population=population, measures=measures, groups=groups, purpose=purpose, rho=rho)
        screen.print_json(show_document(check_document(made)))

    @queries.command("check")
    def check(file: File, json: Json = False) -> None:
        """Check a query document by itself, without a gateway: explain says whether the population takes it."""
        from mpc.query_document import check_document, show_document
        from privacy.grants.purposes import purpose

        document = check_document(read_question(file))
        purpose(document.purpose)
        if json:
            screen.print_json(show_document(document))
            return
        measured = tuple(one.column for one in document.measures) or "rows"
        screen.facts(
            (
                ("population", document.population),
                ("measures", measured),
                ("groups", tuple(one.column for one in document.groups)),
                ("rows", "filtered" if document.filter is not None else "all"),
                ("sites", document.roster or "every site with a table"),
                ("purpose", document.purpose),
                ("rho", document.rho),
                ("delta", document.delta),
            )
        )
        print("The document is in order.")

    @queries.command("explain")
    def explain(
        file: Annotated[
            Path | None, typer.Argument(readable=False, metavar="[FILE]", help="The query document; - for stdin.")
        ] = None,
        served: Annotated[
            str, typer.Option(callback=hex_digits(32, optional=True), help="A query that you served, by its handle.")
        ] = "",
        json: Json = False,
    ) -> None:
        """Say what each site would compute, what would leave it, noise, cost, what it discloses. Nothing is spent."""
        if (file is None) == (not served):
            raise typer.BadParameter("either a query document is meant, or --served with a query's handle")
        question = None if file is None else read_question(file)
        with calling() as client:
            found = client.queries.explain_served(served) if question is None else client.queries.explain(question)
        if json:
            screen.print_json(found)
        else:
            screen.say(str(found))

    @queries.command("ask")
    def ask(file: File, out: Out = None, page: Page = None, key: Key = "", json: Json = False) -> None:
        """Ask what a query document says; prints what was released, once it is verified."""
        question = read_question(file)
        with calling() as client, following(json) as told:
            released = client.queries.ask(question, key=key, told=told)
        keep_released(released, out, page)
        show_released(released, json)

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
    def release(query: Handle, out: Out = None, page: Page = None, json: Json = False) -> None:
        """Print what was released of a query, verified by proofs of the ledger."""
        with calling() as client:
            released = client.queries.release(query)
        keep_released(released, out, page)
        show_released(released, json)

    @queries.command("certificate")
    def certificate(
        query: Handle,
        out: Annotated[Path, typer.Argument(readable=False, help="Where to write the certificate.")],
        json: Json = False,
    ) -> None:
        """Write a release with all that `medveil verify` needs to replay it, in one file."""
        with calling() as client:
            data = client.queries.certificate(query)
        write_evidence(out, data)
        if json:
            screen.print_json({"file": str(out), "query": query})
            return
        screen.say(f"{out}: medveil verify {out} --trust consortium.json")

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
