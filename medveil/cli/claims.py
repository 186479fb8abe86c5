"""`medveil bills`, `eligibility`, `models`, `scores`: claims between insurers, hospitals and the bureau."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medveil.cli import screen
from medveil.cli.calling import Commercial, Json, Jurisdiction, Key, calling, following, hex_digits
from medveil.cli.members import write_evidence
from medveil.cli.on_files import PERSON
from medveil.cli.terms import parse_json, read_text

if TYPE_CHECKING:
    from medveil.client.claims import Scores

Currency = Annotated[str, typer.Option(help="Three letters, such as CNY.")]
Purpose = Annotated[str, typer.Option(help="For what: a code such as ELIGVER.")]
Handle = Annotated[str, typer.Argument(callback=hex_digits(32), help="The bill's handle: 32 hex digits.")]
Hospital = Annotated[str, typer.Option(help="The hospital that is asked.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the tree."""
    _bills(app)
    _eligibility(app)
    _models(app)
    _scores(app)


def _bills(app: typer.Typer) -> None:
    bills = typer.Typer(help="Bills: committed to on the ledger, their amounts known to nobody there.",
                        no_args_is_help=True)  # fmt: skip
    app.add_typer(bills, name="bills")

    @bills.command("issue")
    def issue(
        amount: Annotated[str, typer.Argument(help="A decimal, such as 128.50.")],
        person: Annotated[
            str, typer.Option(help="Whose wallet takes it, where a name of your own says so; else you are asked.")
        ] = "",
        currency: Currency = "CNY",
        key: Key = "",
        json: Json = False,
    ) -> None:
        """Issue a bill; prints the handle under which it stands on the ledger.

        The person's identifier is asked for, or read from standard input: give it as your tables have it, in any
        spelling, so that an erasure of the person finds wallet and bill.
        """
        person = person or screen.typed(PERSON)
        with calling() as client, following(json) as told:
            bill = client.bills.issue(person, amount, currency, key=key, told=told)
        if json:
            screen.print_json(bill)
        else:
            screen.facts(screen.of(bill))

    @bills.command("list")
    def listed(json: Json = False) -> None:
        """List your organisation's bills."""
        with calling() as client:
            found = client.bills.list()
        if json:
            screen.print_json(found)
            return
        columns = (("handle", "handle"), ("hospital", "hospital"), ("currency", "currency"), ("block", "height"))
        screen.table(found.bills, columns)

    @bills.command("show")
    def show(handle: Handle, json: Json = False) -> None:
        """Show one bill as the ledger has it."""
        with calling() as client:
            bill = client.bills.get(handle)
        if json:
            screen.print_json(bill)
        else:
            screen.facts(screen.of(bill))


def _eligibility(app: typer.Typer) -> None:
    eligibility = typer.Typer(help="Eligibility: proofs that a bill is within a limit.", no_args_is_help=True)
    app.add_typer(eligibility, name="eligibility")

    @eligibility.command("ask")
    def ask(
        handle: Handle,
        limit: Annotated[str, typer.Argument(help="A decimal: is the bill at most this?")],
        hospital: Hospital,
        purpose: Purpose,
        grant: Annotated[str, typer.Option(help="The hospital's grant that you ask under.")],
        currency: Currency = "CNY",
        commercial: Commercial = False,
        jurisdiction: Jurisdiction = "CN",
        key: Key = "",
        json: Json = False,
    ) -> None:
        """Have the insured person prove that a bill is within a limit."""
        with calling() as client, following(json) as told:
            proof = client.eligibility.ask(
                hospital=hospital,
                handle=handle,
                limit=limit,
                currency=currency,
                purpose=purpose,
                grant=grant,
                commercial=commercial,
                jurisdiction=jurisdiction,
                key=key,
                told=told,
            )
        if json:
            screen.print_json(proof)
        else:
            screen.say(f"Proven: bill {proof.handle} is at most {proof.limit} {proof.currency} (proof {proof.nonce}).")

    @eligibility.command("show")
    def show(
        nonce: Annotated[str, typer.Argument(callback=hex_digits(64), help="The proof: 64 hex digits.")],
        out: Annotated[Path | None, typer.Option(readable=False, help="Where to write it as evidence.")] = None,
        json: Json = False,
    ) -> None:
        """Show a proof that was given, and write it as evidence."""
        with calling() as client:
            proof = client.eligibility.get(nonce)
            if out is not None:
                write_evidence(out, client.eligibility.evidence(nonce))
        if json:
            screen.print_json(proof)
        else:
            screen.facts(screen.of(proof))


def _models(app: typer.Typer) -> None:
    models = typer.Typer(help="Score models: proposed, reviewed, registered.", no_args_is_help=True)
    app.add_typer(models, name="models")

    @models.command("propose")
    def propose(
        file: Annotated[
            Path,
            typer.Argument(readable=False, metavar="MODEL", help="JSON file: model, features, weights, bounds, limit."),
        ],
        regulator: Annotated[str, typer.Option(help="Who reviews it.")],
        key: Key = "",
        json: Json = False,
    ) -> None:
        """Show a model to a regulator, and register it once it is signed: waits for the review.

        \b
        {"model": "over-use", "limit": 96, "weight_low": -40, "weight_high": 40,
         "features": [{"name": "mdvis", "low": 0, "high": 60, "scale": 1},
                      {"name": "disea", "low": 0, "high": 60, "scale": 1}],
         "weights": [12, -1]}

        A feature is a number column of the tables, with its declared range; scale: times what, where it has decimals.
        A record is flagged whose weighted sum reaches the limit. Only the regulator is shown the weights.
        """
        import msgspec

        from medveil.client import Feature

        said = parse_json(str(file), read_text(file))
        try:
            features = msgspec.convert(said.pop("features"), type=tuple[Feature, ...])
            model, weights = str(said.pop("model")), msgspec.convert(said.pop("weights"), type=tuple[int, ...])
            bounds = {
                name: msgspec.convert(said.pop(name), type=int) for name in ("weight_low", "weight_high", "limit")
            }
        except (KeyError, msgspec.ValidationError):
            raise typer.BadParameter("the file has model, features, weights, weight_low, weight_high, limit") from None
        with calling() as client, following(json) as told:
            done = client.models.propose(model, features, weights, **bounds, regulator=regulator, key=key, told=told)
        if json:
            screen.print_json(done)
        else:
            screen.say(f"{model} was reviewed by {regulator} and is registered.")

    @models.command("list")
    def listed(json: Json = False) -> None:
        """List the registered models."""
        with calling() as client:
            found = client.models.list()
        if json:
            screen.print_json(found)
            return
        columns = (("model", "model"), ("owner", "owner"), ("reviewer", "reviewer"), ("block", "height"))
        screen.table(found.models, columns)

    @models.command("shown")
    def shown(json: Json = False) -> None:
        """List the models that wait for a review by your organisation."""
        with calling() as client:
            found = client.models.shown()
        if json:
            screen.print_json(found)
            return
        columns = (
            ("review", "review"),
            ("model", "model"),
            ("owner", "owner"),
            (
                "features",
                lambda one: [f"{f.name} x {w}" for f, w in zip(one.features, one.weights or (), strict=False)],
            ),
            ("limit", "limit"),
            ("status", "status"),
        )
        screen.table(found.models, columns)

    @models.command("review")
    def reviewed(
        review: Annotated[str, typer.Argument(help="The review, of medveil models shown.")],
        approve: Annotated[bool, typer.Option("--approve/--refuse", help="Sign it, or tell its owner no.")],
        key: Key = "",
        json: Json = False,
    ) -> None:
        """Sign a model that was shown to your organisation, or refuse to."""
        with calling() as client, following(json) as told:
            done = client.models.review(review, approve=approve, key=key, told=told)
        if json:
            screen.print_json(done)
        else:
            screen.say(f"The model is {'signed' if approve else 'refused'}; its owner was told.")


def _show_scores(found: Scores, as_json: bool) -> None:
    if as_json:
        screen.print_json(found)
        return
    screen.table(found.flags, (("record", "handle"), ("reaches the limit", "reached")))
    reached = sum(bool(flag.reached) for flag in found.flags)
    print(f"\n{reached} of {len(found.flags)} records of {found.dataset} reach the limit of {found.model}.")
    print(f"Session {found.session}: medveil scores show {found.session}")


def _scores(app: typer.Typer) -> None:
    scores = typer.Typer(help="Encrypted scores of a hospital's records.", no_args_is_help=True)
    app.add_typer(scores, name="scores")

    @scores.command("ask")
    def ask(
        model: Annotated[str, typer.Argument(help="The registered model.")],
        dataset: Annotated[str, typer.Argument(help="The dataset whose records are scored.")],
        hospital: Hospital,
        purpose: Purpose,
        commercial: Commercial = False,
        jurisdiction: Jurisdiction = "CN",
        key: Key = "",
        json: Json = False,
    ) -> None:
        """Have a hospital score its records under a model, unseen."""
        with calling() as client, following(json) as told:
            found = client.scores.ask(
                hospital=hospital,
                model=model,
                dataset=dataset,
                purpose=purpose,
                commercial=commercial,
                jurisdiction=jurisdiction,
                key=key,
                told=told,
            )
        _show_scores(found, json)

    @scores.command("show")
    def show(session: Annotated[str, typer.Argument(help="Of an earlier answer.")], json: Json = False) -> None:
        """Show what was answered."""
        with calling() as client:
            found = client.scores.get(session)
        _show_scores(found, json)

    @scores.command("records")
    def records(
        session: Annotated[str, typer.Argument(help="The session, of the audit trail.")], json: Json = False
    ) -> None:
        """Show which of your own records the handles of a session stand for. Private to the hospital."""
        with calling() as client:
            found = client.scores.records(session)
        if json:
            screen.print_json(found)
        else:
            screen.table(found.records, (("handle", "handle"), ("record", "record")))
