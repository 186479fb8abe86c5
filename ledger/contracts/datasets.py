"""`datasets`: populations with one privacy budget each, the datasets in them, the owners' votes.

A population names its *owners* when it is registered, for good: they alone register tables in it and vote its
budget, each as it likes, before or after its tables stand. The budget is in force once all of them voted the same
amount; who is no member any more, or suspended, is not waited for. A later unanimous vote changes the amount. So
nobody who was not named can hold up a budget, close a population or fill it; each owner has an equal share of its
room. Whoever registers the population need not be an owner of it, and being named binds nobody who does not vote.

What was spent or reserved stays with the population for good: a table that is registered again in it, under
another name, inherits that. In another population the same records have another budget: who is asked to own one
compares the two.

A table that changed is *superseded*: its owner registers the new version under a new name, in the same
population, so that it inherits what was spent. A table that is to be asked no more is *retired*. Either
way it stays readable, and its owner an owner: what was released about it does not go away. New
queries need a current table of every site; a query that was proposed before a site's table changed goes
no further there, unless its budget is spent already.

A dataset shows its schema hash, declared column bounds, a row class (rounded up to a public step)
and a salted commitment; never a count or a row.

State keys: ``datasets/population/<name>`` -> PopulationState; ``datasets/dataset/<name>`` -> DatasetState;
``datasets/changed/<population>/<owner>`` -> Changed.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

import msgspec

from ledger.contracts.contract import Context, Contract, Event, Ids, Nano, View, state_key
from ledger.contracts.membership import MemberState, member_key, require_role
from wire.canonical import Wire
from wire.dates import Instant
from wire.errors import BudgetExhausted, Refused
from wire.identifiers import Hash, Name
from wire.keyset import Height

NAME = "datasets"
OWNERS = ("hospital", "pharmacy", "insurer", "agency")
MOST_DATASETS = 1000
"""Most current datasets of one population, in equal shares of its owners."""

Bound = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]
ColumnName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}\Z")]
Category = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
Owners = Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=1000)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class Column(Wire, frozen=True, tag="datasets.column"):
    """A declared column. number: low..high in units of 1/scale, no values. category: its values, bounds 0, scale 1."""

    name: ColumnName
    kind: Literal["number", "category"]
    low: Bound
    high: Bound
    scale: Annotated[int, msgspec.Meta(ge=1, le=10**9)]
    values: Annotated[tuple[Category, ...], msgspec.Meta(max_length=1000)]


class RegisterPopulation(Wire, frozen=True, tag="datasets.register_population"):
    """A named set of datasets with one privacy budget. By a data owner.

    unit: what the budget protects. rows_per_person: cap on the rows of one person at one site (1 for
    unit "row"). colluders: sites assumed to pool what they know, in the noise. owners: distinct members that
    are data owners, the sender among them or not. spread: at how many sites one person can have rows;
    "one-site" is the owners' word, and makes the noise smaller. public: whether sums over its larger groups may be
    published without noise. Owners agree to all of it by voting a budget.
    """

    population: Name
    unit: Literal["row", "person"]
    rows_per_person: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    colluders: Annotated[int, msgspec.Meta(ge=0, le=1000)]
    owners: Owners
    spread: Literal["one-site", "every-site"] = "every-site"
    public: bool = False


Columns = Annotated[tuple[Column, ...], msgspec.Meta(min_length=1, max_length=256)]
RowClass = Annotated[int, msgspec.Meta(ge=100, le=10**15)]
Version = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]


class RegisterDataset(Wire, frozen=True, tag="datasets.register_dataset"):
    """A table of its owner, the sender. row_class: 100, 200, 500, 1,000, ... ; commitment: salted."""

    dataset: Name
    population: Name
    schema_hash: Hash
    columns: Columns
    row_class: RowClass
    commitment: Hash


class SupersedeDataset(Wire, frozen=True, tag="datasets.supersede_dataset"):
    """The next version of a current table of the sender, under a new name: `successor`, in the same population."""

    dataset: Name
    successor: Name
    schema_hash: Hash
    columns: Columns
    row_class: RowClass
    commitment: Hash


class RetireDataset(Wire, frozen=True, tag="datasets.retire_dataset"):
    """Ask a current table of the sender no more."""

    dataset: Name


class VoteBudget(Wire, frozen=True, tag="datasets.vote_budget"):
    """An owner's vote for the population's whole budget, in nano-rho."""

    population: Name
    rho_nano: Nano


class Vote(Wire, frozen=True, tag="datasets.vote"):
    """The latest vote of an owner."""

    owner: Name
    rho_nano: Nano


class Provider(Wire, frozen=True, tag="datasets.provider"):
    """An owner with current tables in a population. tables: how many."""

    owner: Name
    tables: Annotated[int, msgspec.Meta(ge=1, le=MOST_DATASETS)]


class PopulationState(Wire, frozen=True, tag="datasets.population"):
    """A population now. budget: in force, 0 for none; reserved, spent: nano-rho; votes: in order of arrival.

    datasets: its current tables; providers: owners with a current table; changes: how often a table of it was
    superseded or retired.
    """

    population: Name
    unit: Literal["row", "person"]
    rows_per_person: int
    colluders: int
    spread: Literal["one-site", "every-site"]
    public: bool
    registered_by: Name
    owners: Owners
    datasets: Ids
    providers: tuple[Provider, ...]
    changes: Count
    votes: tuple[Vote, ...]
    budget: Count
    reserved: Count
    spent: Count

    def tables(self, owner: str) -> int:
        """How many current tables `owner` has here."""
        return sum(entry.tables for entry in self.providers if entry.owner == owner)

    def provides(self, owner: str) -> bool:
        """Whether `owner` has a current table here."""
        return self.tables(owner) > 0

    @property
    def available(self) -> int:
        """What may still be reserved; 0 also if a later vote lowered the budget below what is gone."""
        return max(0, self.budget - self.reserved - self.spent)


class DatasetState(Wire, frozen=True, tag="datasets.dataset"):
    """A registered table. height: of its registration; version: 1 for one that supersedes none.

    superseded_by: None while it is not; retired_at: time of the block that retired it, or None.
    """

    dataset: Name
    population: Name
    owner: Name
    schema_hash: Hash
    columns: tuple[Column, ...]
    row_class: int
    commitment: Hash
    height: Height
    version: Version
    supersedes: Name | None
    superseded_by: Name | None
    retired_at: Instant | None

    @property
    def current(self) -> bool:
        """Whether new queries may ask it."""
        return self.superseded_by is None and self.retired_at is None


class Changed(Wire, frozen=True, tag="datasets.changed"):
    """The latest of a population's changes that is of this owner's tables: its number, from 1."""

    change: Count


POPULATIONS, DATASETS = state_key(NAME, "population", ""), state_key(NAME, "dataset", "")
"""What the state keys of all populations and of all datasets begin with."""


def population_key(population: str) -> bytes:
    """State key of a population."""
    return state_key(NAME, "population", population)


def dataset_key(dataset: str) -> bytes:
    """State key of a dataset."""
    return state_key(NAME, "dataset", dataset)


def changed_key(population: str, owner: str) -> bytes:
    """State key of the last change to an owner's tables in a population."""
    return state_key(NAME, "changed", population, owner)


def population(view: View, name: str) -> PopulationState:
    """The population of that name. Raises Refused."""
    state = view.get(population_key(name), PopulationState)
    if state is None:
        raise Refused("datasets.unknown_population", population=name)
    return state


def current_dataset(view: View, name: str) -> DatasetState:
    """The table of that name, if it is current. Raises Refused."""
    state = view.get(dataset_key(name), DatasetState)
    if state is None:
        raise Refused("datasets.unknown_dataset", dataset=name)
    if state.superseded_by is not None:
        raise Refused("datasets.superseded", dataset=name, successor=state.superseded_by)
    if state.retired_at is not None:
        raise Refused("datasets.retired", dataset=name)
    return state


def register_population(op: RegisterPopulation, sender: str, context: Context, view: View) -> tuple[Event, ...]:
    """Open a population of the named owners, without datasets or budget."""
    require_role(view, sender, *OWNERS)
    if view.get(population_key(op.population), PopulationState) is not None:
        raise Refused("datasets.population_exists", population=op.population)
    if op.unit == "row" and (op.rows_per_person != 1 or op.spread != "every-site"):
        raise Refused("datasets.row_unit", population=op.population)
    for at, owner in enumerate(op.owners):
        if owner in op.owners[:at]:
            raise Refused("datasets.owner_twice", population=op.population, organisation=owner)
        require_role(view, owner, *OWNERS)
    state = PopulationState(
        population=op.population,
        unit=op.unit,
        rows_per_person=op.rows_per_person,
        colluders=op.colluders,
        spread=op.spread,
        public=op.public,
        registered_by=sender,
        owners=op.owners,
        datasets=(),
        providers=(),
        changes=0,
        votes=(),
        budget=0,
        reserved=0,
        spent=0,
    )
    view.put(population_key(op.population), state)
    return (Event("datasets.population", op.population),)


def _public_step(value: int) -> bool:
    while value % 10 == 0:
        value //= 10
    return value in (1, 2, 5)


def _check_table(name: str, columns: tuple[Column, ...], row_class: int) -> None:
    if not _public_step(row_class):
        raise Refused("datasets.row_class", dataset=name, row_class=row_class)
    seen: list[str] = []
    for column in columns:
        if column.kind == "number":
            fine = column.low <= column.high and not column.values
        else:
            fine = (column.low, column.high, column.scale) == (0, 0, 1) and bool(column.values)
            fine = fine and len(dict.fromkeys(column.values)) == len(column.values)
        if not fine or column.name in seen:
            raise Refused("datasets.bad_column", dataset=name, column=column.name)
        seen.append(column.name)


def _table(
    op: RegisterDataset | SupersedeDataset,
    name: str,
    population: str,
    owner: str,
    height: int,
    version: int = 1,
    supersedes: str | None = None,
) -> DatasetState:
    """A table as `op` declares it, current from `height` on."""
    return DatasetState(
        dataset=name,
        population=population,
        owner=owner,
        schema_hash=op.schema_hash,
        columns=op.columns,
        row_class=op.row_class,
        commitment=op.commitment,
        height=height,
        version=version,
        supersedes=supersedes,
        superseded_by=None,
        retired_at=None,
    )


def register_dataset(op: RegisterDataset, sender: str, context: Context, view: View) -> tuple[Event, ...]:
    """Add a dataset of the sender, one of its owners, to a population."""
    require_role(view, sender, *OWNERS)
    state = population(view, op.population)
    if view.get(dataset_key(op.dataset), DatasetState) is not None:
        raise Refused("datasets.dataset_exists", dataset=op.dataset)
    if sender not in state.owners:
        raise Refused("datasets.not_owner", organisation=sender, population=op.population)
    share = MOST_DATASETS // len(state.owners)
    if state.tables(sender) >= share:
        raise Refused("datasets.too_many", population=op.population, organisation=sender, limit=share)
    _check_table(op.dataset, op.columns, op.row_class)
    dataset = _table(op, op.dataset, op.population, sender, context.height)
    view.put(dataset_key(op.dataset), dataset)
    state = msgspec.structs.replace(state, datasets=(*state.datasets, op.dataset), providers=_counted(state, sender, 1))
    view.put(population_key(op.population), state)
    return (Event("datasets.dataset", op.dataset, (op.row_class,)),)


def _counted(state: PopulationState, owner: str, more: int) -> tuple[Provider, ...]:
    """The population's providers when `owner` has `more` tables (-1: one less)."""
    tables = more + state.tables(owner)
    others = tuple(entry for entry in state.providers if entry.owner != owner)
    return (*others, Provider(owner, tables)) if tables else others


def _of_owner(view: View, name: str, sender: str) -> DatasetState:
    """The sender's own current table. Raises Refused."""
    require_role(view, sender, *OWNERS)
    state = current_dataset(view, name)
    if state.owner != sender:
        raise Refused("datasets.not_its_owner", organisation=sender, dataset=name)
    return state


def supersede_dataset(op: SupersedeDataset, sender: str, context: Context, view: View) -> tuple[Event, ...]:
    """Put the next version in the place of a table: same population, same budget, another name."""
    old = _of_owner(view, op.dataset, sender)
    if view.get(dataset_key(op.successor), DatasetState) is not None:
        raise Refused("datasets.dataset_exists", dataset=op.successor)
    _check_table(op.successor, op.columns, op.row_class)
    dataset = _table(op, op.successor, old.population, sender, context.height, old.version + 1, op.dataset)
    view.put(dataset_key(op.successor), dataset)
    view.put(dataset_key(op.dataset), msgspec.structs.replace(old, superseded_by=op.successor))
    state = population(view, old.population)
    tables = tuple(op.successor if name == op.dataset else name for name in state.datasets)
    _change(msgspec.structs.replace(state, datasets=tables), sender, view)
    return (Event("datasets.superseded", op.dataset), Event("datasets.dataset", op.successor, (op.row_class,)))


def retire_dataset(op: RetireDataset, sender: str, context: Context, view: View) -> tuple[Event, ...]:
    """Take a table out of the population. Its owner keeps its vote; a site without a current table takes no query."""
    old = _of_owner(view, op.dataset, sender)
    view.put(dataset_key(op.dataset), msgspec.structs.replace(old, retired_at=context.time))
    state = population(view, old.population)
    tables = tuple(name for name in state.datasets if name != op.dataset)
    _change(msgspec.structs.replace(state, datasets=tables, providers=_counted(state, sender, -1)), sender, view)
    return (Event("datasets.retired", op.dataset),)


def _change(state: PopulationState, owner: str, view: View) -> None:
    """Put the population in its new state, changed once more: by `owner`."""
    change = state.changes + 1
    view.put(population_key(state.population), msgspec.structs.replace(state, changes=change))
    view.put(changed_key(state.population, owner), Changed(change))


def changed_since(view: View, population: str, owner: str, changes: int) -> bool:
    """Whether `owner` superseded or retired a table of the population after its first `changes` changes."""
    changed = view.get(changed_key(population, owner), Changed)
    return changed is not None and changed.change > changes


def vote_budget(op: VoteBudget, sender: str, context: Context, view: View) -> tuple[Event, ...]:
    """Record the sender's vote; an amount that all owners voted comes into force.

    An owner that is suspended, or no member any more, is not waited for.
    """
    state = population(view, op.population)
    if sender not in state.owners:
        raise Refused("datasets.not_owner", organisation=sender, population=op.population)
    votes = (*(vote for vote in state.votes if vote.owner != sender), Vote(sender, op.rho_nano))
    amounts = {vote.owner: vote.rho_nano for vote in votes}
    agreed = all(amounts.get(owner) == op.rho_nano for owner in state.owners if _awaited(view, owner))
    state = msgspec.structs.replace(state, votes=votes, budget=op.rho_nano if agreed else state.budget)
    view.put(population_key(op.population), state)
    if agreed:
        return (Event("datasets.budget", op.population, (op.rho_nano,)),)
    return (Event("datasets.vote", op.population, (op.rho_nano,)),)


def _awaited(view: View, owner: str) -> bool:
    state = view.get(member_key(owner), MemberState)
    return state is not None and not state.suspended


def check_available(view: View, name: str, rho_nano: int) -> PopulationState:
    """The population, if `rho_nano` of its budget is free. Raises Refused or BudgetExhausted."""
    state = population(view, name)
    if not state.budget:
        raise Refused("datasets.no_budget", population=name, votes=len(state.votes), owners=len(state.owners))
    if rho_nano > state.available:
        asked, available = rho_text(rho_nano), rho_text(state.available)
        raise BudgetExhausted("datasets.budget_exhausted", population=name, asked=asked, available=available)
    return state


def rho_text(nano: int) -> str:
    """Budget as people write it: a decimal."""
    return format(Decimal(nano).scaleb(-9).normalize(), "f")


def reserve(view: View, name: str, rho_nano: int) -> int:
    """Reserve budget; returns what was available just before. Raises Refused or BudgetExhausted."""
    state = check_available(view, name, rho_nano)
    view.put(population_key(name), msgspec.structs.replace(state, reserved=state.reserved + rho_nano))
    return state.available


def give_back(view: View, name: str, rho_nano: int) -> None:
    """Return a reservation, whole."""
    state = population(view, name)
    view.put(population_key(name), msgspec.structs.replace(state, reserved=state.reserved - rho_nano))


def spend(view: View, name: str, rho_nano: int) -> None:
    """Turn a reservation into spending, whole."""
    state = population(view, name)
    state = msgspec.structs.replace(state, reserved=state.reserved - rho_nano, spent=state.spent + rho_nano)
    view.put(population_key(name), state)


CONTRACT = Contract(
    NAME,
    1,
    {
        RegisterPopulation: register_population,
        RegisterDataset: register_dataset,
        SupersedeDataset: supersede_dataset,
        RetireDataset: retire_dataset,
        VoteBudget: vote_budget,
    },
)
