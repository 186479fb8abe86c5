"""A researcher's declarative question over several sites, and the salted hash that stands for it.

Everything that decides a number is in the query: measure with bounds and fixed-point scale, declared
groups, filter, histogram edges, roster, privacy unit, budget and how it is split, the colluders the
noise must survive, the size below which a group is hidden. A site approves these bytes and computes
nothing else, so a coordinator has no parameter left to lie about. The ledger sees only
``salted_hash(query, salt)``; the release carries query and salt, so that anybody can open it.

The query is public to its roster and, once released, to everybody. It holds no data.
Secure sums and noise read it through `mpc.budget` and `mpc.cells`; sites through `local_plan`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from privacy.local import GroupColumn, LocalPlan
from privacy.predicate import And, Between, Compare, Field, In, Int64, IsNull, Not, Or, Predicate
from privacy.predicate import check as check_predicate
from wire.canonical import Wire, encode
from wire.domains import QUERY, digest
from wire.errors import Refused
from wire.identifiers import Name

VERSION = 1
SALT_BYTES = 32

FEWEST_SITES = 3
"""With two sites, each would learn the other's number by subtracting its own."""
MOST_SITES = 200
MOST_CELLS = 2**17
"""Cells of one phase: the limit of verified mode."""

COUNTS = 1
SUMS = 2
PHASES = 2
"""Phase 1 asks the counts of all declared groups, phase 2 the rest for the groups that passed."""

NANO = 10**9

Salt = Annotated[bytes, msgspec.Meta(min_length=SALT_BYTES, max_length=SALT_BYTES)]

Nano = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
"""Zero-concentrated differential privacy budget in units of 10^-9 rho."""


class Measure(Wire, frozen=True, tag="mpc.measure"):
    """What is measured. low, high, edges, missing: integers in units of 1/scale (see privacy.local).

    edges: strictly rising from low to high, or empty for no histogram. low..high may be narrower than
    the column's declared bounds: values are clamped, and the noise of the mean falls with the width.
    """

    column: Field
    low: Int64
    high: Int64
    scale: Annotated[int, msgspec.Meta(ge=1, le=10**9)]
    edges: tuple[Int64, ...] = ()
    missing: tuple[Int64, ...] = ()


class Split(Wire, frozen=True, tag="mpc.split"):
    """How the query's rho is divided among the four kinds of cells, in nano-rho."""

    counts: Nano
    sums: Nano
    squares: Nano
    bins: Nano

    def total(self) -> int:
        """What the parts add up to."""
        return self.counts + self.sums + self.squares + self.bins


class Query(Wire, frozen=True, tag="mpc.query"):
    """One question. All fields public.

    roster: the sites, sorted; datasets: the one of each site, in the roster's order.
    measures: exactly one today. groups: declared domains; no group column means one group, all.
    unit: what one change of the data is. "row": one row more or less. "person": one person more or
    less, with at most rows_per_person rows at *each* site (sites cannot recognise one person, so the
    noise covers rows_per_person x sites). person: the column that names the person; "" where a row
    is its own person.
    colluders: sites assumed to subtract or skip their own noise. max_rows: public upper bound on the
    rows of any one site (its row class). delta = 10^-delta_exponent.
    minimum_group: groups whose noisy pooled count is below it are hidden.
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
    colluders: Annotated[int, msgspec.Meta(ge=0, le=MOST_SITES)]
    max_rows: Annotated[int, msgspec.Meta(ge=1, lt=2**40)]
    rho_nano: Nano
    split: Split
    delta_exponent: Annotated[int, msgspec.Meta(ge=3, le=15)]
    minimum_group: Annotated[int, msgspec.Meta(ge=2, lt=2**40)]

    @property
    def measure(self) -> Measure:
        """The one measure of today."""
        return self.measures[0]


def local_plan(query: Query) -> LocalPlan:
    """What each site computes over its own rows for `query`: exact integers, before noise."""
    measure = query.measure
    return LocalPlan(
        measure=measure.column,
        low=measure.low,
        high=measure.high,
        scale=measure.scale,
        groups=query.groups,
        edges=measure.edges,
        max_rows=query.max_rows,
        missing=measure.missing,
        person=query.person,
        rows_per_person=query.rows_per_person,
    )


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
    if len(query.measures) != 1:
        raise Refused("mpc.one_measure", measures=len(query.measures))
    plan = local_plan(query)
    plan.check()
    if query.filter is not None:
        check_predicate(query.filter)
    # Counted without building the combinations: many columns must not become many labels in memory.
    groups = 1
    for column in query.groups:
        groups *= len(column.labels())
    cells = groups * max(1, 2 + plan.bins)
    if cells > MOST_CELLS:
        raise Refused("mpc.too_many_cells", cells=cells, most=MOST_CELLS)
    if query.unit == "row":
        unit_says_itself = query.rows_per_person == 1 and not query.person
    else:
        unit_says_itself = bool(query.person) or query.rows_per_person == 1
    if not unit_says_itself:
        raise Refused("mpc.privacy_unit", unit=query.unit, rows=query.rows_per_person)
    split = query.split
    shares = (split.counts, split.sums, split.squares) + ((split.bins,) if plan.bins else ())
    if min(shares) < 1 or split.total() > query.rho_nano or (split.bins and not plan.bins):
        raise Refused("mpc.budget_split", split=split.total(), rho=query.rho_nano)
    if noise_shares(sites, query.colluders) < 1 or query.colluders > sites - 2:
        raise Refused("mpc.too_many_colluders", colluders=query.colluders, sites=sites)


def check_terms(query: Query, unit: str, rows_per_person: int, colluders: int, person: str = "") -> None:
    """Site: check that `query` promises no less than its population's terms on the ledger.

    unit, rows_per_person, colluders: as the owners registered them; person: the column that names the
    person in this site's own dataset, "" where a row is its own person. Without this check a query
    could buy more exact numbers by claiming a smaller unit. Raises Refused naming the term.
    """
    same_unit = query.unit == unit and (unit == "row" or query.person == person)
    for holds, term in (
        (same_unit, "unit"),
        (query.rows_per_person >= rows_per_person, "rows_per_person"),
        (query.colluders >= colluders, "colluders"),
    ):
        if not holds:
            raise Refused("mpc.below_terms", population=query.population, term=term)


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


def threshold(sites: int) -> int:
    """t = floor(2n / 3) + 1: the fewest survivors whose noise a release may count on (DESIGN, 7)."""
    return 2 * sites // 3 + 1


def noise_shares(sites: int, colluders: int) -> int:
    """h = t - c: the honest sites that together must bring all the noise; each brings sigma^2 / h."""
    return threshold(sites) - colluders


def normalised(query: Query) -> Query:
    """`query` with its filter in normal form: equal filters written differently become equal bytes.

    Nested And and Or are flattened, their parts sorted and made unique, double negation and one-part
    And, Or, In removed. Each step keeps the meaning in three-valued logic.
    """
    if query.filter is None:
        return query
    return msgspec.structs.replace(query, filter=_normal(query.filter))


def salted_hash(query: Query, salt: bytes) -> bytes:
    """What the ledger sees of `query`: 32 bytes over its normal form and a 32-byte salt.

    salt: fresh for each query and secret from all but the roster until the release: filters and
    groups can be guessed.
    """
    if len(salt) != SALT_BYTES:
        raise ValueError("the salt of a query hash has 32 bytes")
    return digest(QUERY, salt, encode(normalised(query)))


def _normal(node: Predicate) -> Predicate:
    match node:
        case And(parts):
            return _joined(And, parts)
        case Or(parts):
            return _joined(Or, parts)
        case Not(part):
            inner = _normal(part)
            return inner.part if isinstance(inner, Not) else Not(inner)
        case In(field, values):
            unique = {encode(Compare(field, "eq", value)): value for value in values}
            ordered = tuple(unique[key] for key in sorted(unique))
            return Compare(field, "eq", ordered[0]) if len(ordered) == 1 else In(field, ordered)
        case Compare() | Between() | IsNull():
            return node


def _joined(kind: type[And] | type[Or], parts: tuple[Predicate, ...]) -> Predicate:
    flat: dict[bytes, Predicate] = {}
    for part in map(_normal, parts):
        for piece in part.parts if isinstance(part, (And, Or)) and isinstance(part, kind) else (part,):
            flat[encode(piece)] = piece
    ordered = tuple(flat[key] for key in sorted(flat))
    return ordered[0] if len(ordered) == 1 else kind(ordered)
