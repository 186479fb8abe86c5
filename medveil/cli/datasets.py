"""`medveil populations` and `medveil datasets`: declared tables, their budgets, loading and retiring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medveil.cli import screen
from medveil.cli.calling import Json, Key, calling, following
from medveil.cli.members import show_written

if TYPE_CHECKING:
    from medveil.client.datasets import Classification
    from medveil.client.datasets import Population as PopulationTerms

Population = Annotated[str, typer.Argument(help="Name of the population.")]
Dataset = Annotated[str, typer.Argument(help="Name of the dataset.")]
_NANO = 10**9


def register(app: typer.Typer) -> None:
    """Add the verbs to the tree."""
    populations = typer.Typer(help="Populations: datasets that share one privacy budget.", no_args_is_help=True)
    app.add_typer(populations, name="populations")

    @populations.command("list")
    def listed(json: Json = False) -> None:
        """List populations with their terms and budgets, in rho, and the owners whose votes are awaited."""
        with calling() as client:
            found = client.populations.list()
        if json:
            screen.print_json(found)
            return
        columns = (
            ("population", "population"),
            ("terms", terms),
            ("owners", "owners"),
            ("datasets", "datasets"),
            ("voted", lambda one: rho(one.budget.voted)),
            ("reserved", lambda one: rho(one.budget.reserved)),
            ("spent", lambda one: rho(one.budget.spent)),
            ("available", lambda one: rho(one.budget.available)),
            ("votes", lambda one: [f"{vote.owner} {rho(vote.rho_nano)}" for vote in one.votes]),
            ("awaited", "awaited"),
        )
        screen.table(found.populations, columns)

    @populations.command("register")
    def register_population(
        population: Population,
        owner: Annotated[list[str], typer.Option(help="An organisation whose data it holds; repeat it.")],
        unit: Annotated[Literal["row", "person"], typer.Option(help="What the budget protects.")] = "person",
        rows_per_person: Annotated[int, typer.Option(min=1, help="Rows of one person that count at a site.")] = 1,
        colluders: Annotated[int, typer.Option(min=0, help="Sites assumed to pool what they know.")] = 1,
        spread: Annotated[
            Literal["one-site", "every-site"], typer.Option(help="At how many sites one person can have rows.")
        ] = "every-site",
        public: Annotated[
            bool, typer.Option("--public", help="Numbers of its larger groups may be published without noise.")
        ] = False,
        json: Json = False,
    ) -> None:
        """Register a population. Its owners then vote its budget."""
        with calling() as client:
            written = client.populations.register(
                population,
                unit=unit,
                owners=owner,
                rows_per_person=rows_per_person,
                colluders=colluders,
                spread=spread,
                public=public,
            )
        show_written(written, json)

    @populations.command("vote")
    def vote(
        population: Population,
        budget: Annotated[str, typer.Argument(metavar="RHO", help="The whole budget: a decimal such as 1 or 0.25.")],
        public: Annotated[
            bool,
            typer.Option("--public", help="Agree that numbers of its larger groups are published without noise."),
        ] = False,
        json: Json = False,
    ) -> None:
        """Vote for a population's budget, and agree to its terms. It is in force once all owners voted the same."""
        from decimal import Decimal, InvalidOperation

        from wire.errors import Refused

        try:
            nano = Decimal(budget) * _NANO
            whole = nano.is_finite() and nano == nano.to_integral_value() and nano >= 1
        except InvalidOperation:
            whole = False
        if not whole:
            raise typer.BadParameter("the budget is a decimal above 0 with at most nine places")
        with calling() as client:
            found = [one for one in client.populations.list().populations if one.population == population]
            if any(one.public for one in found) and not public:  # whoever registered it said so, not who votes
                raise Refused("populations.vote_public", population=population)
            written = client.populations.vote(population, int(nano))
        if found and not json:
            screen.say(f"{population}: {terms(found[0])}")
        show_written(written, json)

    _datasets(app)


def terms(one: PopulationTerms) -> str:
    """What owners agree to when they vote a population's budget, in words."""
    said = ["counts rows" if one.unit == "row" else f"counts persons, {_many(one.rows_per_person, 'row')} each"]
    if one.unit == "person":
        said.append("who are at one site each" if one.spread == "one-site" else "who may be at every site")
    said.append(_many(one.colluders, "colluder"))
    if one.public:
        said.append("PUBLIC: without noise")
    return ", ".join(said)


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def rho(nano: int) -> str:
    """Budget as a decimal."""
    whole, part = divmod(abs(nano), _NANO)
    return f"{'-' if nano < 0 else ''}{whole}.{part:09d}".rstrip("0").rstrip(".")


def _datasets(app: typer.Typer) -> None:
    datasets = typer.Typer(help="Datasets: declared tables; loading and retiring your own.", no_args_is_help=True)
    app.add_typer(datasets, name="datasets")

    @datasets.command("sources")
    def sources(json: Json = False) -> None:
        """List tables in the gateway's data folder that can be loaded."""
        with calling() as client:
            found = client.datasets.sources()
        if json:
            screen.print_json(found)
            return
        columns = (("source", "source"), ("table", "table"), ("layout", "layout"), ("population", "population"))
        screen.table(found.sources, columns)
        for one in found.bad:
            screen.say(f"Not {one.source}: {one.detail} {one.fix}")

    @datasets.command("list")
    def listed(
        population: Annotated[str, typer.Option(help="Only of this population.")] = "", json: Json = False
    ) -> None:
        """List what the ledger declares of each table."""
        with calling() as client:
            found = client.datasets.list(population=population or None)
        if json:
            screen.print_json(found)
            return
        columns = (
            ("dataset", "dataset"),
            ("population", "population"),
            ("owner", "owner"),
            ("rows up to", "row_class"),
            ("columns", lambda one: [column.name for column in one.columns]),
            ("version", "version"),
            ("current", "current"),
        )
        screen.table(found.datasets, columns)

    @datasets.command("show")
    def show(dataset: Dataset, json: Json = False) -> None:
        """Show one table; of your own also how clean it was."""
        with calling() as client:
            found = client.datasets.get(dataset)
        if json:
            screen.print_json(found)
            return
        facts = dict(screen.of(found))
        columns, quality = facts.pop("columns"), facts.pop("quality")
        screen.facts(facts.items())
        print()
        screen.table(
            columns,
            (
                ("column", "name"),
                ("kind", "kind"),
                ("low", "low"),
                ("high", "high"),
                ("values", "values"),
            ),
        )
        if quality is not None:
            screen.say(
                f"\n{quality.rows} rows, {shown_or(quality.duplicates)} duplicates, {quality.dirty_cells} dirty cells"
            )
            columns = (("column", "column"), ("missing", "missing"), ("out of range", "out_of_range"))
            screen.table(quality.columns, columns)

    @datasets.command("load")
    def load(
        source: Annotated[str, typer.Argument(help="The source, of medveil datasets sources.")],
        table: Annotated[str, typer.Argument(help="Its table.")],
        dataset: Annotated[str, typer.Argument(help="What it will be called on the ledger.")],
        key: Key = "",
        json: Json = False,
    ) -> None:
        """Read, clamp, encrypt and register a table, and wait for it."""
        with calling() as client, following(json) as told:
            found = client.datasets.load(source, table, dataset, key=key, told=told)
        if json:
            screen.print_json(found)
        else:
            screen.say(f"{found.dataset} is loaded and registered in population {found.population}.")

    @datasets.command("classification")
    def classification(dataset: Dataset, json: Json = False) -> None:
        """Show how a dataset of yours is classified: levels 1 to 5 of its columns (GB/T 39725), children, class."""
        with calling() as client:
            found = client.datasets.classification(dataset)
        _show_classification(found, json)

    @datasets.command("classify")
    def classify(
        dataset: Dataset,
        column: Annotated[
            list[str],
            typer.Option(
                help="NAME=LEVEL or NAME=LEVEL:CONTENT, level 1 to 5, content plain, name, identity-number, phone, "
                "address, date or free-text; repeat it. A column that is left out counts as 5."
            ),
        ],
        minors: Annotated[bool, typer.Option(help="Children under 14 may be in it.")] = True,
        age_column: Annotated[str, typer.Option(help="The column with the age in years.")] = "",
        statutory_class: Annotated[
            Literal["general", "important", "core"], typer.Option(help="Class by the Data Security Law.")
        ] = "general",
        json: Json = False,
    ) -> None:
        """Classify a dataset of yours, in place of what it was. Counts from the next decision on.

        Before the table is loaded it also says what is sealed under SM4: level 5, and identity numbers and addresses.
        """
        from medveil.client import ColumnClass

        columns = []
        for said in column:
            name, _, rest = said.partition("=")
            level, _, content = rest.partition(":")
            if not name or level not in ("1", "2", "3", "4", "5"):
                raise typer.BadParameter(f"{screen.shown(said)} is not NAME=LEVEL or NAME=LEVEL:CONTENT")
            columns.append(ColumnClass(name, int(level), content or "plain"))
        with calling() as client:
            found = client.datasets.classify(
                dataset, columns, minors=minors, age_column=age_column, statutory_class=statutory_class
            )
        _show_classification(found, json)

    @datasets.command("retire")
    def retire(dataset: Dataset, json: Json = False) -> None:
        """Have a table of yours asked no more. What was released about it stays."""
        with calling() as client:
            show_written(client.datasets.retire(dataset), json)


def shown_or(count: int | None) -> str:
    """A count, or that it was not judged."""
    return "not judged:" if count is None else str(count)


def _show_classification(found: Classification, as_json: bool) -> None:
    if as_json:
        screen.print_json(found)
        return
    if not found.loaded:
        screen.say(f"No table {found.dataset} is loaded here by now.")
    if not found.classified:
        screen.say(f"Nobody has classified {found.dataset}: its columns count as level 4.")
        return
    screen.facts(
        [
            ("dataset", found.dataset),
            ("class", found.statutory_class),
            ("children under 14", "possible" if found.minors else "no"),
            ("age column", found.age_column or "-"),
        ]
    )
    screen.table(found.columns, (("column", "column"), ("level", "level"), ("content", "content")))
    screen.say("Every other column counts as level 5.")
