"""From the released noisy sums to the published result, and its check by a stranger.

`finish` (coordinator) and `verify_release` (anyone, offline) run the same exact arithmetic, so a
release is right if it is equal to what its totals give and its totals open the sum of the sites'
commitments. Numbers in a release are decimal text: no float, no platform.

For each measure, with c, s, q, b its noisy pooled cells of phase 2 in natural units (lattice and fixed point
divided out), N = c, e = the plan's centre, D = its largest |v - e|:

    mean m      = e + s / N                       clipped to the measure's bounds; t = m - e
    variance V  = ((q / N + D^2) / 2 - t^2) N / (N - 1)        (q sums 2 d^2 - D^2)
    sd          = sqrt V; not given where V <= 0: the noise is larger than the variance
    histogram   = b

Histogram bins are as noisy as they come: they may be negative and need not add up to the count. So is the count,
which is asked again in phase 2: where it comes out below 2, mean and sd are not given.

**Intervals** cover the noise of this release and nothing else: 95 percent of releases of the same
data would have the plain pooled answer inside, to first order in the noise. They are no confidence
intervals about people not in the data, and they include no error of the data. Standard deviations of
the noise, for the noise of all sites whose data are in the sum (k in counts, s, q):

    sd(N) = sigma_c        sd(m) = sqrt(sigma_s^2 + t^2 sigma_c^2) / N
    sd(V) = sqrt(sigma_q^2 / 4 + 4 t^2 sigma_s^2 + (2 t^2 - q / (2 N))^2 sigma_c^2) / N

A query without measures gives N alone.

**Hidden.** Decided measure by measure. A group whose noisy pooled count of phase 1 is below the query's minimum
has no results of the measure: they were never asked. That count is public (it stands in the totals of phase 1
and was paid for), and is shown with the reason. A true count above the minimum can be hidden, and one below it
shown, by the noise.

**Exact.** In a release of an exact query counts, means and standard deviations have no noise and no interval, and no
differential privacy: see `mpc.query.EXACT`. Groups are hidden for all measures alike (`mpc.cells.hidden_exactly`), and
the survivors of both phases are the same, since a group was found large enough with those of phase 1.

**Sites.** Of the roster, at least t = floor(2n/3) + 1 survive each phase. A group's numbers all come from
phase 2, hence from the same sites; phase 1, which may have had others, decides only which groups passed.

A release is evidence of kind "release". Everything in it is public.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import isqrt
from typing import Literal, NamedTuple

from mpc.budget import Epsilon, Scale, epsilons, rows_of_one_unit, scales
from mpc.cells import (
    Layout,
    Passed,
    fewest_rows,
    gate_layout,
    hidden_exactly,
    most_cells,
    needed,
    noisy,
    passing,
    sums_layout,
)
from mpc.history import NearSums, check_exact_sites
from mpc.query import (
    GATE,
    PHASES,
    SUMS,
    Kind,
    Nano,
    Query,
    Salt,
    Spread,
    check_proposal,
    check_query,
    columns,
    local_plans,
)
from mpc.sum_coordinator import check_opening
from mpc.sum_messages import Opened, Parties, Sites, Survivors, check_listed, session_for
from mpc.suppression import Why
from privacy.local import LocalPlan
from wire import evidence, messages
from wire.canonical import Wire
from wire.errors import DecodeError, ProtocolAbort, Refused, VerificationError
from wire.evidence import Header
from wire.identifiers import Handle, Hash, Name
from zkp.groups import ARKWORKS

Z95 = Fraction(1959964, 1000000)
"""Standard normal quantile 0.975."""

_PLACES = 4
_ROOT_PLACES = 15

_FEWEST_ROWS = 2
"""Pooled rows of a group below which nothing is divided by them."""

_UNITS: dict[Kind, Literal["rows", "measure", "measure squared"]] = {
    "gate": "rows",
    "counts": "rows",
    "sums": "measure",
    "squares": "measure squared",
    "bins": "rows",
}


HiddenFor = Literal["noisy-count-below-minimum", "perhaps-small", "protects-another", "withheld"]

_HIDDEN_FOR: dict[HiddenFor, tuple[str, str]] = {
    "noisy-count-below-minimum": ("mpc.group_hidden", "mpc.groups_hidden"),
    "perhaps-small": ("mpc.group_perhaps_small", "mpc.groups_perhaps_small"),
    "protects-another": ("mpc.group_protects", "mpc.groups_protect"),
    "withheld": ("mpc.group_withheld", "mpc.groups_withheld"),
}
"""What is said of one group, and of several."""
_WHY: dict[Why, HiddenFor] = {"small": "perhaps-small", "protects": "protects-another", "withheld": "withheld"}


class Estimate(Wire, frozen=True, tag="mpc.estimate"):
    """A released number and its 95 percent noise interval, as decimals. value None: not resolved."""

    value: str | None
    low: str
    high: str


class GroupResult(Wire, frozen=True, tag="mpc.group_result"):
    """One group that passed. values: one of each group column; label: the plan's.

    mean, sd: None, and no bins, where rows are counted only.
    """

    label: str
    values: tuple[str, ...]
    count: Estimate
    mean: Estimate | None
    sd: Estimate | None
    bins: tuple[Estimate, ...]


class HiddenGroup(Wire, frozen=True, tag="mpc.hidden_group"):
    """One group without results, and why. noisy_count: of phase 1; minimum: what it had to reach.

    reason: of an exact query "perhaps-small" (for one of its measures), "protects-another", "withheld" (a small
    group of the table could not be protected: nothing of it is shown); else "noisy-count-below-minimum".
    """

    label: str
    values: tuple[str, ...]
    reason: HiddenFor
    noisy_count: str
    minimum: int

    def text(self, language: str = "en") -> str:
        """The reason in words."""
        facts = {"group": self.label, "count": self.noisy_count, "minimum": self.minimum}
        return messages.text(_HIDDEN_FOR[self.reason][0], facts, language)


def hidden_words(hidden: Sequence[HiddenGroup], language: str = "en") -> tuple[str, ...]:
    """Why these groups of a measure are hidden, in words: a sentence for all that are hidden for the same reason."""
    found: dict[tuple[HiddenFor, int], list[HiddenGroup]] = {}
    for one in hidden:
        found.setdefault((one.reason, one.minimum), []).append(one)
    return tuple(_said(together, language) for together in found.values())


def _said(together: Sequence[HiddenGroup], language: str) -> str:
    first = together[0]
    if len(together) == 1:
        return first.text(language)
    named = ("、" if language == "zh" else ", ").join(f"{one.label} ({one.noisy_count})" for one in together)
    return messages.text(_HIDDEN_FOR[first.reason][1], {"groups": named, "minimum": first.minimum}, language)


class MeasureResult(Wire, frozen=True, tag="mpc.measure_result"):
    """What was found of one measure, group by group. measure: its column, "" where rows are counted only."""

    measure: str
    groups: tuple[GroupResult, ...]
    hidden: tuple[HiddenGroup, ...]


class NoiseStatement(Wire, frozen=True, tag="mpc.noise_statement"):
    """Standard deviation of the noise on one cell of a measure's kind, decimals in `unit`.

    measure: its column, "" where rows are counted only. site: what one site adds; pooled: all sites in the sum
    together, as in the released number; required: what the budget needs in the pool (sigma). rho_nano: debited
    for the measure's kind. squares: of the sum of 2 d^2 - D^2.
    """

    measure: str
    kind: Kind
    unit: Literal["rows", "measure", "measure squared"]
    sensitivity: str
    rho_nano: Nano
    site: str
    pooled: str
    required: str


class DatasetNote(Wire, frozen=True, tag="mpc.dataset_note"):
    """What a site's dataset says about itself beside the numbers: its released dirty-data rate."""

    site: Name
    dataset: Name
    text: str


class PhaseRecord(Wire, frozen=True, tag="mpc.phase_record"):
    """One phase as the board has it: who took part, whose vectors are summed, with commitments, and the opened sums.

    near: earlier sums of the population next to which these disclose a site or two (`mpc.history`).
    """

    phase: int
    parties: Parties
    survivors: Survivors
    opened: Opened
    near: tuple[NearSums, ...] = ()


class Board(Wire, frozen=True, tag="mpc.board"):
    """What the ledger says about a query: a verifier takes it from replayed state, not from the release."""

    query: Handle
    query_hash: Hash
    population: Name
    roster: Sites
    approvals: Sites
    rho_nano: Nano
    phases: tuple[PhaseRecord, ...]
    budget_before_nano: Nano
    budget_after_nano: Nano


class PhaseSites(Wire, frozen=True, tag="mpc.phase_sites"):
    """Whose data are in the sums of a phase, and who of the roster was lost before it was opened."""

    phase: int
    sites: Sites
    lost: Sites


class Release(Wire, frozen=True, tag="mpc.release"):
    """The published result with all a stranger needs. Every field is public.

    query, salt: open query_hash of the board. unit, rows_per_person, spread, rows_of_one_unit: the privacy
    unit in plain sight (rows_of_one_unit: rows by which neighbouring inputs differ, all sites). results: one
    for each measure of the query, in its order, or the one count of rows.
    sites: whose data are in the groups' numbers, the survivors of phase 2; lost: approved but not in them;
    survivors: the same of each phase. epsilons, noise: with the noise of those. budget before and after: of the
    population, in nano-rho, before this query was reserved and after it was spent.
    """

    header: Header
    handle: Handle
    query: Query
    salt: Salt
    unit: Literal["row", "person"]
    rows_per_person: int
    spread: Spread
    rows_of_one_unit: int
    rho_nano: Nano
    epsilons: tuple[Epsilon, ...]
    noise: tuple[NoiseStatement, ...]
    results: tuple[MeasureResult, ...]
    sites: Sites
    lost: Sites
    survivors: tuple[PhaseSites, ...]
    budget_before_nano: Nano
    budget_after_nano: Nano
    phases: tuple[PhaseRecord, ...]
    notes: tuple[DatasetNote, ...]

    def protection(self, language: str = "en") -> str:
        """What protects persons in this release, in words."""
        facts = {"population": self.query.population, "minimum": fewest_rows(self.query)}
        facts |= {"exponent": self.query.delta_exponent}
        return messages.text("mpc.protected_exact" if self.query.exact else "mpc.protected_noised", facts, language)

    def disclosures(self, language: str = "en") -> tuple[str, ...]:
        """What this release discloses of single sites together with earlier sums, in words: see `mpc.history`."""
        return tuple(near.text(self.handle, one.phase, language) for one in self.phases for near in one.near)


HEADER = evidence.register("release", 1, Release)


def finish(
    query: Query, salt: bytes, board: Board, notes: Sequence[DatasetNote] = (), backend: str = ARKWORKS
) -> Release:
    """The release of `query`, from the board after both phases.

    backend: the curve library. Raises Refused (the query's declarations, or not as proposed),
    VerificationError or DecodeError (the board's numbers do not belong to this query or do not open).
    """
    check_query(query)
    check_proposal(
        query,
        salt,
        query_hash=board.query_hash,
        population=board.population,
        roster=board.roster,
        rho_nano=board.rho_nano,
    )
    if set(board.approvals) != set(board.roster):
        raise VerificationError("mpc.not_approved", query=board.query.hex())
    if tuple(record.phase for record in board.phases) != (GATE, SUMS):
        raise VerificationError("mpc.phases_missing", query=board.query.hex(), phases=PHASES)
    gate, sums = board.phases
    first = gate_layout(query)
    _check_phase(query, salt, board, first, gate, backend)
    passed = passing(query, gate.opened.totals, len(gate.survivors.sites))
    second = sums_layout(query, passed)
    _check_phase(query, salt, board, second, sums, backend)
    check_exact_sites(query, gate.survivors.sites, sums.survivors.sites)
    there = tuple(len(record.survivors.sites) for record in board.phases)
    survivors = tuple(_sites(query, record) for record in board.phases)
    return Release(
        header=HEADER,
        handle=board.query,
        query=query,
        salt=salt,
        unit=query.unit,
        rows_per_person=query.rows_per_person,
        spread=query.spread,
        rows_of_one_unit=rows_of_one_unit(query),
        rho_nano=query.rho_nano,
        epsilons=epsilons(query, most_cells(query), there),
        noise=noise_statements(query, there),
        results=_results(query, passed, (first, second), board.phases),
        sites=survivors[-1].sites,
        lost=survivors[-1].lost,
        survivors=survivors,
        budget_before_nano=board.budget_before_nano,
        budget_after_nano=board.budget_after_nano,
        phases=board.phases,
        notes=tuple(notes),
    )


def verify_release(release: Release, board: Board, backend: str = ARKWORKS) -> None:
    """Check a release against the board. Raises VerificationError; returns nothing.

    Every number is computed again from the totals, the totals are checked against the sum of the
    commitments on the board, and query and salt against the hash there. Notes are text that the
    exporter vouches for: not checked here.
    """
    try:
        again = finish(release.query, release.salt, board, release.notes, backend)
    except (Refused, DecodeError) as error:
        if error.code == "mpc.not_as_proposed":
            raise VerificationError("mpc.not_this_query", query=board.query.hex()) from None
        raise VerificationError("mpc.release_unsound", query=board.query.hex(), why=error.code) from None
    for name in Release.__struct_fields__:
        if getattr(again, name) != getattr(release, name):
            raise VerificationError("mpc.release_differs", query=board.query.hex(), field=name)


def _check_phase(
    query: Query, salt: bytes, board: Board, layout: Layout, record: PhaseRecord, backend: str = ARKWORKS
) -> None:
    session = session_for(query, salt, board.query, layout)
    parties, survivors = record.parties, record.survivors
    try:
        check_listed(session, parties.sites, session.roster, "parties")
        check_listed(session, survivors.sites, parties.sites, "survivors")
    except ProtocolAbort:
        raise VerificationError("mpc.not_the_roster", phase=layout.phase) from None
    if {(one.query, one.phase) for one in (parties, survivors)} != {(board.query, layout.phase)}:
        raise VerificationError("mpc.not_the_roster", phase=layout.phase)
    check_opening(session, survivors, record.opened, backend)


def _sites(query: Query, record: PhaseRecord) -> PhaseSites:
    there = record.survivors.sites
    return PhaseSites(record.phase, there, tuple(site for site in query.roster if site not in there))


def noise_statements(query: Query, survivors: Sequence[int] = ()) -> tuple[NoiseStatement, ...]:
    """The noise that a release of `query` will carry: known before anything is asked, but for the sites that are lost.

    survivors: how many sites survived each phase, all of the roster by default.
    """
    there = tuple(survivors) or (len(query.roster),) * PHASES
    return tuple(_statement(query, scale, _of_kind(scale.kind, there)) for scale in scales(query))


def _of_kind(kind: Kind, survivors: Sequence[int]) -> int:
    """How many sites are in the sums of a kind."""
    return survivors[0] if kind == "gate" else survivors[1]


def _statement(query: Query, scale: Scale, sites: int) -> NoiseStatement:
    unit = _unit(query, scale)
    site = scale.site_variance * unit**2
    required = Fraction(0)
    if scale.rho_nano:
        required = Fraction(scale.sensitivity**2 * 10**9, 2 * scale.rho_nano) * (unit * scale.lattice) ** 2
    return NoiseStatement(
        measure=columns(query)[scale.measure],
        kind=scale.kind,
        unit=_UNITS[scale.kind],
        sensitivity=_text(scale.sensitivity * unit * scale.lattice),
        rho_nano=scale.rho_nano,
        site=_text(_root(site)),
        pooled=_text(_root(site * sites)),
        required=_text(_root(required)),
    )


def _unit(query: Query, scale: Scale) -> Fraction:
    """One lattice step of a measure's kind in its natural unit."""
    power = {"gate": 0, "counts": 0, "sums": 1, "squares": 2, "bins": 0}[scale.kind]
    return Fraction(1, scale.lattice * local_plans(query)[scale.measure].scale ** power)


def _results(
    query: Query, passed: Passed, layouts: Sequence[Layout], phases: Sequence[PhaseRecord]
) -> tuple[MeasureResult, ...]:
    there = [len(record.survivors.sites) for record in phases]
    lattice: dict[tuple[int, Kind], tuple[int, ...]] = {}
    for layout, record, sites in zip(layouts, phases, there, strict=True):
        lattice |= noisy(layout, record.opened.totals, sites)
    gate, gated = layouts[0], phases[0].opened.totals
    because = {one.group: _WHY[one.why] for one in hidden_exactly(query, gated, there[0])} if query.exact else {}
    minima = [-(-needed(query, block.scale, there[0]) // block.scale.lattice) for block in gate.blocks]
    found: list[dict[Kind, Pooled]] = [{} for _ in passed]
    for scale in scales(query):
        unit = _unit(query, scale)
        variance = scale.site_variance * unit**2 * _of_kind(scale.kind, there)
        cells = tuple(total * unit for total in lattice[scale.measure, scale.kind])
        found[scale.measure][scale.kind] = Pooled(cells, variance)
    return tuple(
        _result(plan, groups, kinds, minimum, because)
        for plan, groups, kinds, minimum in zip(local_plans(query), passed, found, minima, strict=True)
    )


class Pooled(NamedTuple):
    """The noisy pooled cells of one kind of a measure, in its natural unit, and the variance of the noise on each."""

    cells: tuple[Fraction, ...]
    variance: Fraction


def _result(
    plan: LocalPlan,
    passed: Sequence[int],
    pooled: Mapping[Kind, Pooled],
    minimum: int,
    because: Mapping[int, HiddenFor],
) -> MeasureResult:
    """One measure's results. minimum: what a noisy count had to reach; because: why, where a query is exact."""
    place = {group: position for position, group in enumerate(passed)}
    variance = {kind: of_kind.variance for kind, of_kind in pooled.items()}
    shown: list[GroupResult] = []
    hidden: list[HiddenGroup] = []
    for index, values in enumerate(plan.combinations()):
        label = plan.label(values)
        if index not in place:
            n = pooled["gate"].cells[index]
            reason = because.get(index, "noisy-count-below-minimum")
            hidden.append(HiddenGroup(label, values, reason, _text(n), minimum))
            continue
        at = place[index]
        n = pooled["counts"].cells[at]
        count = _estimate(n, _root(variance["counts"]))
        if plan.measure is None:
            shown.append(GroupResult(label, values, count, None, None, ()))
            continue
        s, q = pooled["sums"].cells[at], pooled["squares"].cells[at]
        bins = pooled["bins"].cells[at * plan.bins : (at + 1) * plan.bins] if plan.bins else ()
        shown.append(
            GroupResult(
                label=label,
                values=values,
                count=count,
                mean=_mean(plan, n, s, variance),
                sd=_sd(plan, n, s, q, variance),
                bins=tuple(_estimate(b, _root(variance["bins"])) for b in bins),
            )
        )
    return MeasureResult(plan.measure or "", tuple(shown), tuple(hidden))


def _shift(plan: LocalPlan, n: Fraction, s: Fraction) -> tuple[Fraction, Fraction, Fraction]:
    """t = mean - centre, clipped, and its bounds."""
    low, high = Fraction(plan.low - plan.centre, plan.scale), Fraction(plan.high - plan.centre, plan.scale)
    return min(max(s / n, low), high), low, high


def _mean(plan: LocalPlan, n: Fraction, s: Fraction, variance: Mapping[Kind, Fraction]) -> Estimate:
    centre = Fraction(plan.centre, plan.scale)
    if n < _FEWEST_ROWS:
        return Estimate(None, _text(Fraction(plan.low, plan.scale)), _text(Fraction(plan.high, plan.scale)))
    t, low, high = _shift(plan, n, s)
    half = Z95 * _root(variance["sums"] + t**2 * variance["counts"]) / n
    return Estimate(_text(centre + t), _text(centre + max(t - half, low)), _text(centre + min(t + half, high)))


def _sd(plan: LocalPlan, n: Fraction, s: Fraction, q: Fraction, variance: Mapping[Kind, Fraction]) -> Estimate:
    largest = Fraction(plan.largest, plan.scale) ** 2
    if n < _FEWEST_ROWS:
        return Estimate(None, "0", _text(_root(2 * largest)))
    t, _, _ = _shift(plan, n, s)
    v = (q / n + largest) / 2 - t**2
    noise = variance["squares"] / 4 + 4 * t**2 * variance["sums"] + (2 * t**2 - q / (2 * n)) ** 2 * variance["counts"]
    half = Z95 * _root(noise) / n
    sample = n / (n - 1)
    bounds = [min(max(edge, Fraction(0)), largest) * sample for edge in (v, v - half, v + half)]
    value, low, high = (_text(_root(edge)) for edge in bounds)
    return Estimate(value if v > 0 or not noise else None, low, high)


def _estimate(value: Fraction, sd: Fraction) -> Estimate:
    return Estimate(_text(value), _text(value - Z95 * sd), _text(value + Z95 * sd))


def _root(value: Fraction) -> Fraction:
    """Square root, rounded down at 15 places: integers only."""
    square = value.numerator * 10 ** (2 * _ROOT_PLACES) // value.denominator
    return Fraction(isqrt(square), 10**_ROOT_PLACES)


def _text(value: Fraction) -> str:
    """Decimal text of at most four places, half to even, without trailing zeros."""
    scaled = round(value * 10**_PLACES)
    sign, digits = "-" if scaled < 0 else "", abs(scaled)
    whole, part = divmod(digits, 10**_PLACES)
    return f"{sign}{whole}.{part:0{_PLACES}d}".rstrip("0").rstrip(".")
