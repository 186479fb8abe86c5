"""`medveil grants`: what your organisation permits others to do with its data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medveil.cli import screen
from medveil.cli.calling import Json, Key, calling, following
from medveil.cli.members import show_written
from medveil.cli.on_files import PERSON
from medveil.cli.terms import BILLS, MEANINGS, made_terms, parse_json, read_terms
from medveil.shown_text import json_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medveil.client.grants import GrantedUse, GrantList, Sight

TermsFile = Annotated[
    Path,
    typer.Argument(readable=False, metavar="TERMS", help="JSON file of the terms; - for standard input."),
]
Basis = Literal[
    "consent", "separate-consent", "contract", "statutory-duty", "public-health-emergency", "public-record", "other-law"
]

_TEMPLATE_HELP = """Print the terms of a grant as JSON, filled in for a dataset of yours and a recipient, to edit.

What only you can know stands as FILL IN. Then: medveil grants preview TERMS, and medveil grants issue TERMS.

\b
""" + "\n".join(f"{name}: {meaning}" for name, meaning in MEANINGS.items())


def register(app: typer.Typer) -> None:
    """Add the verbs to the tree."""
    grants = typer.Typer(help="Grants: who may use which of your data, for what, until when.", no_args_is_help=True)
    app.add_typer(grants, name="grants")

    @grants.command("list")
    def listed(json: Json = False) -> None:
        """List the grants that your organisation issued."""
        with calling() as client:
            _show(client.grants.list(), json)

    @grants.command("held")
    def held(json: Json = False) -> None:
        """List the grants that others gave your organisation."""
        with calling() as client:
            _show(client.grants.held(), json)

    @grants.command("template", help=_TEMPLATE_HELP)
    def template(
        dataset: Annotated[str, typer.Argument(help="A dataset of yours, or bills.")],
        recipient: Annotated[str, typer.Argument(help="The organisation that may use it.")],
        purpose: Annotated[list[str], typer.Option(help="A purpose, a code such as HMB.")],
        use: Annotated[
            list[str] | None, typer.Option(help="query (default), score, proof (default of bills), extract.")
        ] = None,
        field: Annotated[list[str] | None, typer.Option(help="A column; by default all of the dataset.")] = None,
        grant: Annotated[str, typer.Option(help="The grant's id; by default made of use, dataset, recipient.")] = "",
        days: Annotated[int, typer.Option(min=1, max=3660, help="How long it holds; as long again to delete.")] = 90,
        legal_basis: Annotated[Basis, typer.Option(help="What the processing rests on.")] = "separate-consent",
        consent_ref: Annotated[str, typer.Option(help="Where the consents are filed.")] = "",
        pia_ref: Annotated[str, typer.Option(help="Where the impact assessment is filed.")] = "",
        out: Annotated[Path | None, typer.Option(readable=False, help="Write it to this new file.")] = None,
        json: Json = False,
    ) -> None:
        import time

        from medveil.client.credentials import write_private

        with calling() as client:
            made = made_terms(
                dataset,
                recipient,
                declared=client.datasets.list(),
                persons=frozenset(
                    one.population for one in client.populations.list().populations if one.unit == "person"
                ),
                grant=grant,
                fields=field or [],
                purposes=purpose,
                uses=[*(use or (["proof"] if dataset == BILLS else ["query"]))],
                days=days,
                legal_basis=legal_basis,
                consent_ref=consent_ref,
                pia_ref=pia_ref,
                now=time.time_ns() // 1_000_000,
            )
        if out is None:
            screen.print_json(made)
            return
        write_private(out, json_text(made), new=True)
        if json:
            screen.print_json({"file": str(out), "terms": made})
        else:
            print(f"{out}: terms to edit; medveil grants template --help says what each field means.")
            print(f"Then: medveil grants issue {out}")

    @grants.command("preview")
    def preview(
        terms: TermsFile,
        kind: Annotated[str, typer.Option(help="The use: query, extract, score or proof.")],
        purpose: Annotated[str, typer.Option(help="Its purpose, a code such as HMB.")],
        field: Annotated[
            list[str] | None, typer.Option(help="A column it uses; by default those of the terms.")
        ] = None,
        filter: Annotated[str, typer.Option(help="The rows it uses, as JSON; by default all.")] = "",
        recipient: Annotated[str, typer.Option(help="Who uses it; by default the recipient of the terms.")] = "",
        json: Json = False,
    ) -> None:
        """Try terms out: what would be decided of a use. Nothing is issued. Exit code 1: it would be denied."""
        from medveil.client import Use

        read = read_terms(terms)
        use = Use(
            fields=tuple(field or read.fields),
            kind=kind,
            purpose=purpose,
            filter=parse_json("--filter", filter) if filter else None,
            recipient=recipient,
        )
        with calling() as client:
            decision = client.grants.preview(read, use)
        if json:
            screen.print_json(decision)
        else:
            print(screen.shown(decision.decision))
        if not decision.allowed:
            raise typer.Exit(1)

    @grants.command("issue")
    def issue(terms: TermsFile, key: Key = "", json: Json = False) -> None:
        """Sign terms, anchor them on the ledger, send them to the recipient. For the terms: medveil grants template."""
        read = read_terms(terms)
        with calling() as client, following(json) as told:
            grant = client.grants.issue(read, key=key, told=told)
        if json:
            screen.print_json(grant)
        else:
            screen.say(f"{grant.terms.grant} is issued to {grant.terms.recipient}: {grant.status}.")

    @grants.command("explain")
    def explain(
        recipient: Annotated[str, typer.Argument(help="The organisation that would use it.")],
        dataset: Annotated[str, typer.Argument(help="A dataset of yours, or bills.")],
        json: Json = False,
    ) -> None:
        """Explain what an organisation may do with a dataset of yours now, and why not: grant by grant."""
        with calling() as client:
            found = client.grants.explain(recipient, dataset)
        _say(found, found.uses, f"No grant of yours lets {recipient} do anything with {dataset}.", json)

    @grants.command("seen")
    def seen(
        dataset: Annotated[str, typer.Argument(help="A dataset of yours, or bills.")],
        column: Annotated[str, typer.Argument(help="A column of it.")],
        person: Annotated[
            bool, typer.Option("--person", help="Of one person's rows, who is asked for: opt-outs and filters count.")
        ] = False,
        json: Json = False,
    ) -> None:
        """Explain who gets at a column of a dataset of yours now, how and for what."""
        whom = screen.typed(PERSON) if person else ""
        with calling() as client:
            found = client.persons.sights(whom, dataset, column) if person else client.grants.seen(dataset, column)
        whose = " of this person" if person else ""
        _say(found, found.sights, f"Nobody gets at {column} of {dataset}{whose}.", json)

    @grants.command("review")
    def review(
        grant: Annotated[str, typer.Argument(help="Id of the grant.")],
        following: Annotated[str, typer.Option("--next", help="Until when; a date or time, UTC without an offset.")],
        json: Json = False,
    ) -> None:
        """Confirm a grant of yours: it goes on until the next review, or its end."""
        from medveil.history import instant
        from wire.dates import format_instant

        try:
            until = instant(following, "UTC")
        except ValueError:
            raise typer.BadParameter("--next is a date or time such as 2027-11-22") from None
        with calling() as client:
            made = client.grants.review(grant, until)
        if json:
            screen.print_json(made)
        else:
            screen.say(f"{made.grant} is confirmed until {format_instant(made.next)}.")

    @grants.command("receipt")
    def receipt(
        grant: Annotated[str, typer.Argument(help="Id of the grant.")],
        out: Annotated[Path, typer.Option(readable=False, help="Write the signed receipt to this new file.")],
        fhir: Annotated[
            Path | None, typer.Option(readable=False, help="Write its FHIR Consent, JSON, to this new file too.")
        ] = None,
        json: Json = False,
    ) -> None:
        """Hand out a grant of yours as a signed FHIR Consent (R4B). medveil verify checks it, show prints it."""
        from medveil.client.credentials import write_private
        from privacy.grants.consent_receipt import ConsentReceipt
        from wire.canonical import decode

        with calling() as client:
            data = client.grants.receipt(grant)
        consent = decode(ConsentReceipt, data).consent
        write_private(out, data, new=True)
        if fhir is not None:
            write_private(fhir, consent, new=True)
        if json:
            screen.print_json({"file": str(out), "fhir": None if fhir is None else str(fhir)})
        else:
            print(f"{out}: the receipt of {grant}. Check it with: medveil verify {out} --trust consortium.json")

    @grants.command("revoke")
    def revoke(grant: Annotated[str, typer.Argument(help="Id of the grant.")], json: Json = False) -> None:
        """Revoke a grant for good. Running uses stop at their next step."""
        with calling() as client:
            show_written(client.grants.revoke(grant), json)


def _say(found: object, explained: Sequence[GrantedUse | Sight], nothing: str, as_json: bool) -> None:
    """What is explained, a sentence for each; `nothing` where there is none."""
    if as_json:
        screen.print_json(found)
        return
    for sentence in [one.words for one in explained] or [nothing]:
        print(screen.shown(sentence))


def _show(found: GrantList, as_json: bool) -> None:
    if as_json:
        screen.print_json(found)
        return
    columns = (
        ("grant", "terms.grant"),
        ("status", "status"),
        ("of", "terms.issuer"),
        ("to", "terms.recipient"),
        ("dataset", "terms.dataset"),
        ("fields", "terms.fields"),
        ("uses", "terms.uses"),
        ("purposes", "terms.purposes"),
        ("until", screen.instant("terms.expires")),
    )
    screen.table(found.grants, columns)
