"""Populations with their privacy budgets, tables that can be loaded, datasets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from medveil.client.exchange import Exchange, M, Part, verb
from medveil.client.frames import Rows
from medveil.client.jobs import Job, Progress, begin, wait
from medveil.client.line import fetch, get, post, same
from medveil.client.written import Written, write


class Vote(msgspec.Struct, frozen=True):
    """An owner's latest vote."""

    owner: str
    rho_nano: int

    def __str__(self) -> str:
        return f"{self.owner}: {self.rho_nano}"


class Budget(msgspec.Struct, frozen=True):
    """A population's budget in 10^-9 rho. voted: 0 before all owners agree; available: yet to be asked for."""

    voted: int
    reserved: int
    spent: int
    available: int


class Population(msgspec.Struct, frozen=True):
    """A population now. owner: whether this organisation is one of its owners.

    spread: one-site where its owners say that no person has rows at two sites; public: whether they allow exact
    numbers.

    awaited: owners that have not voted for the budget that was voted for last.
    """

    population: str
    unit: str
    rows_per_person: int
    colluders: int
    spread: str
    public: bool
    registered_by: str
    owners: tuple[str, ...]
    owner: bool
    datasets: tuple[str, ...]
    budget: Budget
    votes: tuple[Vote, ...]
    awaited: tuple[str, ...] = ()


class PopulationList(Rows, frozen=True):
    """Every population, by name."""

    populations: tuple[Population, ...]

    def rows(self) -> tuple[Population, ...]:
        """The populations."""
        return self.populations


class Source(msgspec.Struct, frozen=True):
    """A table in the gateway's data folder."""

    source: str
    table: str
    layout: str
    population: str


class BadSource(msgspec.Struct, frozen=True):
    """A folder of which nothing can be loaded. detail, fix: why, and what to do."""

    source: str
    code: str
    detail: str
    fix: str


class SourceList(Rows, frozen=True):
    """Tables that can be loaded. bad: folders of which none can."""

    sources: tuple[Source, ...]
    bad: tuple[BadSource, ...] = ()

    def rows(self) -> tuple[Source, ...]:
        """The tables."""
        return self.sources


class Column(msgspec.Struct, frozen=True):
    """A declared column. low, high: decimals, of a number; values: of a category."""

    name: str
    kind: str
    low: str | None
    high: str | None
    scale: int
    values: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} ({self.low} to {self.high})" if self.kind == "number" else self.name


class ColumnQuality(msgspec.Struct, frozen=True):
    """Counts of one column as it was read."""

    column: str
    missing: int
    out_of_range: int


class Quality(msgspec.Struct, frozen=True):
    """Counts of a table as it was read, exact: for its own organisation alone. duplicates: None where not judged."""

    rows: int
    columns: tuple[ColumnQuality, ...]
    duplicates: int | None
    dirty_cells: int


class Dataset(msgspec.Struct, frozen=True):
    """A table as the ledger declares it. row_class: its rows, rounded up to a public step; own: this organisation's.

    person: of one's own, the column that says whose a row is. quality: of one's own, where it was loaded here and one
    table was asked for.
    """

    dataset: str
    population: str
    owner: str
    own: bool
    columns: tuple[Column, ...]
    row_class: int
    schema_hash: str
    version: int
    supersedes: str | None
    superseded_by: str | None
    retired_at: int | None
    height: int
    current: bool
    person: str | None = None
    quality: Quality | None = None


class DatasetList(Rows, frozen=True):
    """Tables, by name."""

    datasets: tuple[Dataset, ...]

    def rows(self) -> tuple[Dataset, ...]:
        """The tables."""
        return self.datasets


class Populations(Part[M]):
    """``/v1/populations``."""

    @verb
    def list(self) -> Exchange[PopulationList]:
        """Every population with its terms, owners and budget."""
        return (yield from fetch(self._line, get("populations"), PopulationList))

    @verb
    def register(
        self,
        population: str,
        *,
        unit: Literal["row", "person"],
        owners: Sequence[str],
        rows_per_person: int = 1,
        colluders: int = 1,
        spread: Literal["one-site", "every-site"] = "every-site",
        public: bool = False,
    ) -> Exchange[Written]:
        """A named set of datasets with one budget. unit: what it protects; owners: named for good.

        spread: "one-site" says that no person has rows at two sites, for which nobody but the owners stands.
        public: numbers of its larger groups may be published without noise.
        """
        from ledger.contracts.datasets import RegisterPopulation

        body = {
            "population": population,
            "unit": unit,
            "rows_per_person": rows_per_person,
            "colluders": colluders,
            "spread": spread,
            "public": public,
            "owners": [*owners],
        }
        op = RegisterPopulation(population, unit, rows_per_person, colluders, tuple(owners), spread, public)
        return (yield from write(self._line, post("populations", body=body), op))

    @verb
    def vote(self, population: str, budget_nano: int) -> Exchange[Written]:
        """Vote for the population's whole budget, in 10^-9 rho; in force once all owners voted the same."""
        from ledger.contracts.datasets import VoteBudget

        call = post("populations", population, "votes", body={"budget_nano": budget_nano})
        return (yield from write(self._line, call, VoteBudget(population, budget_nano)))


class ColumnClass(msgspec.Struct, frozen=True):
    """A column as the data officer classified it. level: 1 to 5; content: what it holds, by which it is masked."""

    column: str
    level: int
    content: str = "plain"

    def __str__(self) -> str:
        return f"{self.column} {self.level}" + ("" if self.content == "plain" else f" ({self.content})")


class Classification(msgspec.Struct, frozen=True):
    """How a dataset is classified. loaded: whether a table of that name is here; classified: whether anybody has; where
    not, every column counts as level 4."""

    dataset: str
    loaded: bool
    classified: bool
    columns: tuple[ColumnClass, ...]
    minors: bool
    age_column: str
    statutory_class: str


class Datasets(Part[M]):
    """``/v1/datasets`` and ``/v1/sources``."""

    @verb
    def sources(self) -> Exchange[SourceList]:
        """Tables in the gateway's data folder: names, no row."""
        return (yield from fetch(self._line, get("sources"), SourceList))

    @verb
    def list(self, *, population: str | None = None) -> Exchange[DatasetList]:
        """What the ledger declares of each table."""
        return (yield from fetch(self._line, get("datasets", population=population), DatasetList))

    @verb
    def get(self, dataset: str) -> Exchange[Dataset]:
        """One table; of one's own also how clean it was."""
        return same((yield from fetch(self._line, get("datasets", dataset), Dataset)), dataset=dataset)

    @verb
    def begin_load(self, source: str, table: str, dataset: str, *, key: str = "") -> Exchange[Job]:
        """Begin to read, clamp, encrypt and register a table. key: of this very use, so that it is begun once."""
        body = {"source": source, "table": table, "dataset": dataset}
        return (yield from begin(self._line, post("datasets", body=body), key))

    @verb
    def load(
        self,
        source: str,
        table: str,
        dataset: str,
        *,
        key: str = "",
        told: Callable[[Progress], None] | None = None,
    ) -> Exchange[Dataset]:
        """Load a table and wait for it. told: called with each progress."""
        body = {"source": source, "table": table, "dataset": dataset}
        job = yield from begin(self._line, post("datasets", body=body), key)
        yield from wait(self._line, job.job, told)
        return same((yield from fetch(self._line, get("datasets", dataset), Dataset)), dataset=dataset)

    @verb
    def classification(self, dataset: str) -> Exchange[Classification]:
        """How a dataset of one's own is classified."""
        found = yield from fetch(self._line, get("datasets", dataset, "classification"), Classification)
        return same(found, dataset=dataset)

    @verb
    def classify(
        self,
        dataset: str,
        columns: Sequence[ColumnClass],
        *,
        minors: bool,
        age_column: str = "",
        statutory_class: str = "general",
    ) -> Exchange[Classification]:
        """Classify a dataset of one's own, in place of what it was classified as.

        minors: whether children under 14 may be in it; age_column: the column with the age in years, or "".
        """
        body = {
            "columns": [msgspec.structs.asdict(one) for one in columns],
            "minors": minors,
            "age_column": age_column,
            "statutory_class": statutory_class,
        }
        call = post("datasets", dataset, "classification", body=body)
        return same((yield from fetch(self._line, call, Classification)), dataset=dataset)

    @verb
    def retire(self, dataset: str) -> Exchange[Written]:
        """Have a table of one's own asked no more."""
        from ledger.contracts.datasets import RetireDataset

        return (yield from write(self._line, post("datasets", dataset, "retire"), RetireDataset(dataset)))
