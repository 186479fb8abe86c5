"""From the released noisy sums to the published result, and its check by a stranger.

`finish` (coordinator) and `verify_release` (anyone, offline) run the same exact arithmetic, so a
release is right if it is equal to what its totals give and its totals open the sum of the sites'
commitments. Numbers in a release are decimal text: no float, no platform.

With c, s, q, b the noisy pooled cells in natural units (lattice and fixed point divided out), N = c,
e = the plan's centre, D = its largest |v - e|:

    mean m      = e + s / N                       clipped to the measure's bounds; t = m - e
    variance V  = ((q / N + D^2) / 2 - t^2) N / (N - 1)        (q sums 2 d^2 - D^2)
    sd          = sqrt V; not given where V <= 0: the noise is larger than the variance
    histogram   = b

Histogram bins are as noisy as they come: they may be negative and need not add up to the count.

**Intervals** cover the noise of this release and nothing else: 95 percent of releases of the same
data would have the plain pooled answer inside, to first order in the noise. They are no confidence
intervals about people not in the data, and they include no error of the data. Standard deviations of
the noise, for all n sites' noise present (k in counts, s, q):

    sd(N) = sigma_c        sd(m) = sqrt(sigma_s^2 + t^2 sigma_c^2) / N
    sd(V) = sqrt(sigma_q^2 / 4 + 4 t^2 sigma_s^2 + (2 t^2 - q / (2 N))^2 sigma_c^2) / N

**Hidden.** A group whose noisy pooled count is below the query's minimum has no mean, sd or
histogram: they were never asked. Its noisy count is as public as the others (it stands in the totals
of phase 1 and was paid for), and is shown with the reason. A true count above the minimum can be
hidden, and one below it shown, by the noise.

A release is evidence of kind "release". Everything in it is public.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import isqrt
from typing import Literal

from mpc.budget import Epsilon, Kind, Scale, epsilons, rows_of_one_unit, scales
from mpc.cells import Layout, counts_layout, most_cells, noisy, passing, sums_layout
from mpc.query import COUNTS, PHASES, SUMS, Nano, Query, Salt, check_proposal, check_query, local_plan
from mpc.secure_aggregation import Contribution, Opened, check_opening, session_for
from wire import evidence, messages
from wire.canonical import Wire
from wire.errors import DecodeError, Refused, VerificationError
from wire.evidence import Header
from wire.identifiers import Handle, Hash, Name
from zkp.groups import ARKWORKS

Z95 = Fraction(1959964, 1000000)
"""Standard normal quantile 0.975."""

_PLACES = 4
_ROOT_PLACES = 15

_UNITS: dict[Kind, Literal["rows", "measure", "measure squared"]] = {
    "counts": "rows",
    "sums": "measure",
    "squares": "measure squared",
    "bins": "rows",
}


class Estimate(Wire, frozen=True, tag="mpc.estimate"):
    """A released number and its 95 percent noise interval, as decimals. value None: not resolved."""

    value: str | None
    low: str
    high: str


class GroupResult(Wire, frozen=True, tag="mpc.group_result"):
    """One group that passed. values: one of each group column; label: the plan's."""

    label: str
    values: tuple[str, ...]
    count: Estimate
    mean: Estimate
    sd: Estimate
    bins: tuple[Estimate, ...]


class HiddenGroup(Wire, frozen=True, tag="mpc.hidden_group"):
    """One group without results, and why."""

    label: str
    values: tuple[str, ...]
    reason: Literal["noisy-count-below-minimum"]
    noisy_count: str
    minimum: int

    def text(self, language: str = "en") -> str:
        """The reason in words."""
        facts = {"group": self.label, "count": self.noisy_count, "minimum": self.minimum}
        return messages.text("mpc.group_hidden", facts, language)


class NoiseStatement(Wire, frozen=True, tag="mpc.noise_statement"):
    """Standard deviation of the noise on one cell of a kind, decimals in `unit`.

    site: what one site adds; pooled: all sites together, as in the released number; required: what
    the budget needs in the pool (sigma). rho_nano: debited for the kind.
    squares: of the sum of 2 d^2 - D^2.
    """

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
    """One phase as the board has it: every site's commitment, and the opened sums."""

    phase: int
    contributions: tuple[Contribution, ...]
    opened: Opened


class Board(Wire, frozen=True, tag="mpc.board"):
    """What the ledger says about a query: a verifier takes it from replayed state, not from the release."""

    query: Handle
    query_hash: Hash
    population: Name
    roster: tuple[Name, ...]
    rho_nano: Nano
    phases: tuple[PhaseRecord, ...]
    budget_before_nano: Nano
    budget_after_nano: Nano


class Release(Wire, frozen=True, tag="mpc.release"):
    """The published result with all a stranger needs. Every field is public.

    query, salt: open query_hash of the board. unit, rows_per_person, rows_of_one_unit: the privacy
    unit in plain sight (rows_of_one_unit: rows by which neighbouring inputs differ, all sites).
    sites: whose data are in it; lost: approved but not in it (none today: one missing site ends a
    run). budget before and after: of the population, in nano-rho, before this query was reserved
    and after it was spent.
    """

    header: Header
    handle: Handle
    query: Query
    salt: Salt
    unit: Literal["row", "person"]
    rows_per_person: int
    rows_of_one_unit: int
    rho_nano: Nano
    epsilons: tuple[Epsilon, ...]
    noise: tuple[NoiseStatement, ...]
    groups: tuple[GroupResult, ...]
    hidden: tuple[HiddenGroup, ...]
    sites: tuple[Name, ...]
    lost: tuple[Name, ...]
    budget_before_nano: Nano
    budget_after_nano: Nano
    phases: tuple[PhaseRecord, ...]
    notes: tuple[DatasetNote, ...]


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
    if tuple(record.phase for record in board.phases) != (COUNTS, SUMS):
        raise VerificationError("mpc.phases_missing", query=board.query.hex(), phases=PHASES)
    counts, sums = board.phases
    first = counts_layout(query)
    _check_phase(query, salt, board, first, counts, backend)
    passed = passing(query, counts.opened.totals)
    second = sums_layout(query, passed)
    _check_phase(query, salt, board, second, sums, backend)
    shown, hidden = _results(query, passed, first, second, counts.opened.totals, sums.opened.totals)
    return Release(
        header=HEADER,
        handle=board.query,
        query=query,
        salt=salt,
        unit=query.unit,
        rows_per_person=query.rows_per_person,
        rows_of_one_unit=rows_of_one_unit(query),
        rho_nano=query.rho_nano,
        epsilons=epsilons(query, most_cells(query)),
        noise=noise_statements(query),
        groups=shown,
        hidden=hidden,
        sites=query.roster,
        lost=(),
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
    check_opening(session, record.contributions, record.opened, backend)


def noise_statements(query: Query) -> tuple[NoiseStatement, ...]:
    """The noise that a release of `query` will carry: known before anything is asked."""
    return tuple(_statement(query, scale) for scale in scales(query))


def _statement(query: Query, scale: Scale) -> NoiseStatement:
    unit = _unit(query, scale)
    site = scale.site_variance * unit**2
    required = Fraction(scale.sensitivity**2 * 10**9, 2 * scale.rho_nano) * (unit * scale.lattice) ** 2
    return NoiseStatement(
        kind=scale.kind,
        unit=_UNITS[scale.kind],
        sensitivity=_text(scale.sensitivity * unit * scale.lattice),
        rho_nano=scale.rho_nano,
        site=_text(_root(site)),
        pooled=_text(_root(site * len(query.roster))),
        required=_text(_root(required)),
    )


def _unit(query: Query, scale: Scale) -> Fraction:
    """One lattice step of a kind in its natural unit."""
    power = {"counts": 0, "sums": 1, "squares": 2, "bins": 0}[scale.kind]
    return Fraction(1, scale.lattice * query.measure.scale**power)


def _results(
    query: Query,
    passed: Sequence[int],
    first: Layout,
    second: Layout,
    counts: Sequence[int],
    sums: Sequence[int],
) -> tuple[tuple[GroupResult, ...], tuple[HiddenGroup, ...]]:
    plan = local_plan(query)
    unit = {scale.kind: _unit(query, scale) for scale in scales(query)}
    variance = {s.kind: s.site_variance * unit[s.kind] ** 2 * len(query.roster) for s in scales(query)}
    cells = {**noisy(first, counts), **noisy(second, sums)}
    place = {group: position for position, group in enumerate(passed)}
    shown: list[GroupResult] = []
    hidden: list[HiddenGroup] = []
    for index, values in enumerate(plan.combinations()):
        label = plan.label(values)
        n = cells["counts"][index] * unit["counts"]
        if index not in place:
            hidden.append(HiddenGroup(label, values, "noisy-count-below-minimum", _text(n), query.minimum_group))
            continue
        at = place[index]
        s = cells["sums"][at] * unit["sums"]
        q = cells["squares"][at] * unit["squares"]
        bins = cells["bins"][at * plan.bins : (at + 1) * plan.bins] if plan.bins else ()
        shown.append(
            GroupResult(
                label=label,
                values=values,
                count=_estimate(n, _root(variance["counts"])),
                mean=_mean(query, n, s, variance),
                sd=_sd(query, n, s, q, variance),
                bins=tuple(_estimate(b * unit["bins"], _root(variance["bins"])) for b in bins),
            )
        )
    return tuple(shown), tuple(hidden)


def _shift(query: Query, n: Fraction, s: Fraction) -> tuple[Fraction, Fraction, Fraction]:
    """t = mean - centre, clipped, and its bounds."""
    plan = local_plan(query)
    low, high = Fraction(plan.low - plan.centre, plan.scale), Fraction(plan.high - plan.centre, plan.scale)
    return min(max(s / n, low), high), low, high


def _mean(query: Query, n: Fraction, s: Fraction, variance: dict[Kind, Fraction]) -> Estimate:
    plan = local_plan(query)
    centre = Fraction(plan.centre, plan.scale)
    t, low, high = _shift(query, n, s)
    half = Z95 * _root(variance["sums"] + t**2 * variance["counts"]) / n
    return Estimate(_text(centre + t), _text(centre + max(t - half, low)), _text(centre + min(t + half, high)))


def _sd(query: Query, n: Fraction, s: Fraction, q: Fraction, variance: dict[Kind, Fraction]) -> Estimate:
    plan = local_plan(query)
    t, _, _ = _shift(query, n, s)
    largest = Fraction(plan.largest, plan.scale) ** 2
    v = (q / n + largest) / 2 - t**2
    noise = variance["squares"] / 4 + 4 * t**2 * variance["sums"] + (2 * t**2 - q / (2 * n)) ** 2 * variance["counts"]
    half = Z95 * _root(noise) / n
    sample = n / (n - 1)
    bounds = [min(max(edge, Fraction(0)), largest) * sample for edge in (v, v - half, v + half)]
    value, low, high = (_text(_root(edge)) for edge in bounds)
    return Estimate(value if v > 0 else None, low, high)


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
