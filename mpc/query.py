"""A researcher's declarative question over several sites, and the salted hash that stands for it.

Everything that decides a number is in the query: measures with bounds and fixed-point scale, declared
groups, filter, histogram edges, roster, privacy unit, budget and how it is split, the colluders the
noise must survive, the size below which a group is hidden. A site approves these bytes and computes
nothing else, so a coordinator has no parameter left to lie about. The ledger sees only
``salted_hash(query, salt)``; the release carries query and salt, so that anybody can open it.

A query has one way to be written: roster, measures and group columns are sorted by name, weights have no
common divisor, and the hash is over the filter's normal form.

The query is public to its roster and, once released, to everybody. It holds no data.
Secure sums and noise read it through `mpc.budget` and `mpc.cells`; sites through `local_plans`.
"""

from __future__ import annotations

from math import gcd, prod
from typing import Annotated, Literal

import msgspec

from mpc.normal_form import normal
from mpc.suppression import MOST_COLUMNS, MOST_GROUPS, fits
from privacy.local import GroupColumn, LocalPlan
from privacy.predicate import Field, Int64, Predicate
from privacy.predicate import check as check_predicate
from wire.canonical import Wire, encode
from wire.domains import QUERY, digest
from wire.errors import Refused
from wire.identifiers import Name
from wire.secure_sum import FEWEST_SITES, threshold

VERSION = 1
SALT_BYTES = 32

MOST_SITES = 200
MOST_MEASURES = 16
MOST_MISSING = 100
"""Values of a measure that mean "not known": a site looks for each of them in all of its rows."""
MOST_CELLS = 2**17
"""Cells of one phase: the limit of verified mode."""

GATE = 1
SUMS = 2
PHASES = 2
"""Phase 1 asks the counts of all declared groups, which decide who passes; phase 2 asks the groups that passed for all
that is released of them, counts included, so that it rests on the same sites."""

Kind = Literal["gate", "counts", "sums", "squares", "bins"]
KINDS: tuple[Kind, ...] = ("gate", "counts", "sums", "squares", "bins")
EXACT: tuple[Kind, ...] = ("counts", "sums", "squares")
"""The kinds without noise in an exact query. Which groups pass is decided by noisy counts there, too, and the bins of a
histogram are small groups of their own: both are noised in every query."""

EXACT_DELTA_EXPONENT = 6
"""delta of an exact query is 10^-6 at most: so likely its noise lifts any group that is too small to be shown."""

NANO = 10**9

Spread = Literal["one-site", "every-site"]

Salt = Annotated[bytes, msgspec.Meta(min_length=SALT_BYTES, max_length=SALT_BYTES)]

Nano = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
"""Zero-concentrated differential privacy budget in units of 10^-9 rho."""


class Measure(Wire, frozen=True, tag="mpc.measure"):
    """What is measured. low, high, edges, missing: integers in units of 1/scale (see privacy.local).

    edges: strictly rising from low to high, or empty for no histogram. low..high may be narrower than
    the column's declared bounds: values are clamped, and the noise of the mean falls with the width.
    weight: the measure's share of each kind's rho, beside the other measures' weights.
    """

    column: Field
    low: Int64
    high: Int64
    scale: Annotated[int, msgspec.Meta(ge=1, le=10**9)]
    edges: tuple[Int64, ...] = ()
    missing: tuple[Int64, ...] = ()
    weight: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1


class Split(Wire, frozen=True, tag="mpc.split"):
    """How the query's rho is divided among the kinds of cells, in nano-rho, over all measures together.

    gate: the counts of phase 1. A kind's part is divided among the measures that have it by their weights
    (`share`). A kind that no measure has gets nothing.
    """

    gate: Nano
    counts: Nano
    sums: Nano
    squares: Nano
    bins: Nano

    def total(self) -> int:
        """What the parts add up to."""
        return self.gate + self.counts + self.sums + self.squares + self.bins


class Query(Wire, frozen=True, tag="mpc.query"):
    """One question. All fields public.

    roster: the sites, sorted; datasets: the one of each site, in the roster's order.
    measures: up to 16, sorted by column; none asks the number of rows by group and nothing else.
    groups: declared domains, sorted by name; no group column means one group, all.
    unit: what one change of the data is. "row": one row more or less. "person": one person more or
    less, with at most rows_per_person rows of each measure at *each* site. person: the column that names
    the person; "" where a row is its own person.
    spread: at how many sites one person can have rows. Sites cannot recognise one person, so the noise
    covers rows_per_person x sites ("every-site", the only one for unit "row"), unless the population's
    owners declared that each person is at one site ("one-site").
    colluders: sites assumed to subtract or skip their own noise. max_rows: public upper bound on the
    rows of any one site (its row class). delta = 10^-delta_exponent.
    minimum_group: groups whose noisy pooled count is below it are hidden.
    exact: whether the numbers of the groups that pass have no noise (`EXACT`), and then no differential privacy. For
    populations alone whose owners declared them public; there more groups are hidden (`mpc.suppression`).
    """

    version: Annotated[int, msgspec.Meta(ge=1, le=255)]
    chain: Name
    population: Name
    roster: tuple[Name, ...]
    datasets: tuple[Name, ...]
    measures: tuple[Measure, ...]
    groups: tuple[GroupColumn, ...]
    filter: Predicate | None
    purpose: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
    unit: Literal["row", "person"]
    person: str
    rows_per_person: Annotated[int, msgspec.Meta(ge=1, le=10**6)]
    spread: Spread
    colluders: Annotated[int, msgspec.Meta(ge=0, le=MOST_SITES)]
    max_rows: Annotated[int, msgspec.Meta(ge=1, lt=2**40)]
    rho_nano: Nano
    split: Split
    delta_exponent: Annotated[int, msgspec.Meta(ge=3, le=15)]
    minimum_group: Annotated[int, msgspec.Meta(ge=2, lt=2**40)]
    exact: bool = False


def local_plans(query: Query) -> tuple[LocalPlan, ...]:
    """What each site computes over its own rows for `query`: exact integers, before noise.

    One plan for each measure, in their order; for a query without measures one that counts rows. The
    groups are the same in all of them.
    """
    return tuple(_plan(query, measure) for measure in query.measures or (None,))


def table_shape(query: Query) -> tuple[int, ...]:
    """How many values each group column has: the table that the groups are, row order as in the local plans."""
    return tuple(len(column.labels()) for column in query.groups)


def columns(query: Query) -> tuple[str, ...]:
    """The column of each of `local_plans`; "" where rows are counted only."""
    return tuple(measure.column for measure in query.measures) or ("",)


def kinds(query: Query, measure: int) -> tuple[Kind, ...]:
    """The kinds of cells that a measure has. measure: index into `local_plans`."""
    if not query.measures:
        return ("gate", "counts")
    return KINDS if query.measures[measure].edges else KINDS[:-1]


def noised(query: Query, kind: Kind) -> bool:
    """Whether the cells of a kind have noise, and a part of rho that pays for it."""
    return not (query.exact and kind in EXACT)


def share(query: Query, measure: int, kind: Kind) -> int:
    """What a measure's cells of `kind` are debited, in nano-rho, rounded down: the kind's part by weights.

    measure: index into `local_plans`, of a measure that has the kind. 0 for a kind without noise.
    """
    part: int = getattr(query.split, kind)
    if not query.measures:
        return part
    whole = sum(one.weight for index, one in enumerate(query.measures) if kind in kinds(query, index))
    return part * query.measures[measure].weight // whole


def check_query(query: Query) -> None:
    """Check what the types cannot say. Every site and the researcher run it before anything else.

    Looks at declarations only, never at data. That the numbers fit the lanes is proved by
    `mpc.cells`. Raises Refused naming the field.
    """
    if query.version != VERSION:
        raise Refused("mpc.query_version", version=query.version)
    sites = len(query.roster)
    if not FEWEST_SITES <= sites <= MOST_SITES:
        raise Refused("mpc.roster_size", sites=sites, fewest=FEWEST_SITES, most=MOST_SITES)
    if list(query.roster) != sorted(set(query.roster)):
        raise Refused("mpc.roster_order")
    if len(query.datasets) != sites:
        raise Refused("mpc.one_dataset_a_site", sites=sites, datasets=len(query.datasets))
    measured = [measure.column for measure in query.measures]
    if len(measured) > MOST_MEASURES:
        raise Refused("mpc.too_many_measures", measures=len(measured), most=MOST_MEASURES)
    for measure in query.measures:
        if len(measure.missing) > MOST_MISSING:
            raise Refused(
                "mpc.too_many_missing", measure=measure.column, missing=len(measure.missing), most=MOST_MISSING
            )
    if measured != sorted(set(measured)):
        raise Refused("mpc.measure_order")
    if measured and gcd(*(measure.weight for measure in query.measures)) != 1:
        raise Refused("mpc.measure_weights")
    plans = local_plans(query)
    for plan in plans:
        plan.check()
    if [column.name for column in query.groups] != sorted(column.name for column in query.groups):
        raise Refused("mpc.group_order")
    if query.filter is not None:
        check_predicate(query.filter)
    # Counted without building the combinations: many columns must not become many labels in memory.
    shape = table_shape(query)
    groups = prod(shape)
    cells = groups * sum(len(plan.numbers) for plan in plans)
    if cells > MOST_CELLS:
        raise Refused("mpc.too_many_cells", cells=cells, most=MOST_CELLS)
    if query.unit == "row":
        unit_says_itself = query.rows_per_person == 1 and not query.person and query.spread == "every-site"
    else:
        unit_says_itself = bool(query.person) or query.rows_per_person == 1
    if not unit_says_itself:
        raise Refused("mpc.privacy_unit", unit=query.unit, rows=query.rows_per_person, spread=query.spread)
    if query.exact and not fits(shape):
        raise Refused("mpc.exact_too_large", groups=groups, most=MOST_GROUPS, columns=MOST_COLUMNS)
    if query.exact and query.delta_exponent < EXACT_DELTA_EXPONENT:
        raise Refused("mpc.exact_delta", exponent=EXACT_DELTA_EXPONENT)
    # Two exact counts, one of them without the rows of a chosen value, are subtracted: that many have the value.
    if query.exact and len(query.measures) > 1 and any(measure.missing for measure in query.measures):
        raise Refused("mpc.exact_missing")
    _check_split(query)
    check_colluders(query.colluders, sites)


def check_colluders(colluders: int, sites: int) -> None:
    """Check that sums over so many sites withstand so many that collude. Raises Refused."""
    most = most_colluders(sites)
    if colluders > most:
        raise Refused("mpc.too_many_colluders", colluders=colluders, sites=sites, most=most)


def _check_split(query: Query) -> None:
    every = range(len(local_plans(query)))
    there = [(index, kind) for index in every for kind in kinds(query, index) if noised(query, kind)]
    unused = sum(getattr(query.split, kind) for kind in KINDS if kind not in {one for _, one in there})
    if min(share(query, *one) for one in there) < 1 or unused or query.split.total() > query.rho_nano:
        raise Refused("mpc.budget_split", split=query.split.total(), rho=query.rho_nano)


def check_terms(
    query: Query,
    *,
    unit: str,
    rows_per_person: int,
    colluders: int,
    spread: Spread,
    public: bool = False,
    person: str = "",
) -> None:
    """Site: check that `query` promises no less than its population's terms on the ledger.

    unit, rows_per_person, colluders, spread, public: as the owners registered them; person: the column that names the
    person in this site's own dataset, "" where a row is its own person. Without this check a query
    could buy more exact numbers by claiming a smaller unit. Raises Refused naming the term.
    """
    if query.unit == unit == "person" and query.person != person:
        raise Refused("mpc.other_person", population=query.population)
    for holds, term in (
        (query.unit == unit, "unit"),
        (query.rows_per_person >= rows_per_person, "rows_per_person"),
        (query.colluders >= colluders, "colluders"),
        (spread in ("one-site", query.spread), "spread"),
    ):
        if not holds:
            raise Refused("mpc.below_terms", population=query.population, term=term)
    if query.exact and not public:
        raise Refused("mpc.not_public", population=query.population)


def check_proposal(
    query: Query,
    salt: bytes,
    *,
    query_hash: bytes,
    population: str,
    roster: tuple[str, ...],
    rho_nano: int,
    phases: int = PHASES,
) -> None:
    """Check that what the ledger has under a query's handle is `query`: hash, population, roster, cost.

    A site runs it before it approves, since the ledger debits what was proposed there, not what the
    query's noise costs. Raises Refused naming the term.
    """
    for holds, term in (
        (salted_hash(query, salt) == query_hash, "query"),
        (query.population == population, "population"),
        (query.roster == roster, "roster"),
        (query.rho_nano == rho_nano, "rho_nano"),
        (phases == PHASES, "phases"),
    ):
        if not holds:
            raise Refused("mpc.not_as_proposed", population=query.population, term=term)


def noise_shares(sites: int, colluders: int) -> int:
    """h = t - c: the honest sites that together must bring all the noise; each brings sigma^2 / h."""
    return threshold(sites) - colluders


def most_colluders(sites: int) -> int:
    """The most sites that a query may assume to collude: min(t - 1, 2t - n - 1), and two honest ones at least.

    So many learn no sum but the released one even if the coordinator and the ledger are with them
    (`mpc.secure_aggregation`), and leave at least one share of the noise (`noise_shares`).
    """
    t = threshold(sites)
    return min(t - 1, 2 * t - sites - 1, sites - 2)


def normalised(query: Query) -> Query:
    """`query` with its filter in normal form (`mpc.normal_form`): equal filters written differently become equal."""
    if query.filter is None:
        return query
    return msgspec.structs.replace(query, filter=normal(query.filter))


def salted_hash(query: Query, salt: bytes) -> bytes:
    """What the ledger sees of `query`: 32 bytes over its normal form and a 32-byte salt.

    salt: fresh for each query and secret from all but the roster until the release: filters and
    groups can be guessed.
    """
    if len(salt) != SALT_BYTES:
        raise ValueError("the salt of a query hash has 32 bytes")
    return digest(QUERY, salt, encode(normalised(query)))


def _plan(query: Query, measure: Measure | None) -> LocalPlan:
    return LocalPlan(
        measure=measure.column if measure else None,
        low=measure.low if measure else 0,
        high=measure.high if measure else 0,
        scale=measure.scale if measure else 1,
        groups=query.groups,
        edges=measure.edges if measure else (),
        max_rows=query.max_rows,
        missing=measure.missing if measure else (),
        person=query.person,
        rows_per_person=query.rows_per_person,
    )
