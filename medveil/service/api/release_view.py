"""A release and what it asked, as JSON: every number a decimal text or a whole number, nothing left out but proofs."""

from collections.abc import Sequence

from pydantic import BaseModel

from medveil.service.api.fields import FilterView, decimal_text
from mpc.budget import Epsilon
from mpc.query import Measure, Query
from mpc.release import Estimate, GroupResult, HiddenGroup, MeasureResult, NoiseStatement, Release
from privacy.filters import show_filter


class MeasureView(BaseModel):
    """What is measured. low, high, edges, missing: decimals. weight: its share of the cost beside the others'."""

    column: str
    low: str
    high: str
    edges: list[str]
    missing: list[str]
    weight: int


class GroupColumnView(BaseModel):
    """A column to group by and its declared values."""

    name: str
    values: list[str]
    other: bool


class QueryTerms(BaseModel):
    """A query: all that decides a number in it. delta: 10 to the power of -delta_exponent.

    exact: whether the numbers of the groups that pass have no noise, and no differential privacy.
    """

    population: str
    roster: list[str]
    datasets: list[str]
    measures: list[MeasureView]
    groups: list[GroupColumnView]
    filter: FilterView | None
    purpose: str
    unit: str
    person: str
    rows_per_person: int
    spread: str
    colluders: int
    max_rows: int
    rho_nano: int
    delta_exponent: int
    minimum_group: int
    exact: bool


class NoiseView(BaseModel):
    """Standard deviation of the noise on one cell of a measure's kind, decimals in `unit`.

    measure: its column, empty where rows are counted only.
    site: what one site adds; pooled: all sites together, as in the released number; required: what the budget needs.
    """

    measure: str
    kind: str
    unit: str
    sensitivity: str
    rho_nano: int
    site: str
    pooled: str
    required: str


class EpsilonView(BaseModel):
    """Epsilon at delta, decimals, under an assumption on who adds noise."""

    assumption: str
    epsilon: str
    delta: str


class EstimateView(BaseModel):
    """A released number and its 95 percent noise interval, decimals. value: null where the noise hides it."""

    value: str | None
    low: str
    high: str


class GroupView(BaseModel):
    """A group that passed. mean, sd: null where rows are counted only."""

    label: str
    values: list[str]
    count: EstimateView
    mean: EstimateView | None
    sd: EstimateView | None
    bins: list[EstimateView]


class HiddenView(BaseModel):
    """A group that is hidden, and why."""

    label: str
    values: list[str]
    reason: str
    noisy_count: str
    minimum: int


class ResultView(BaseModel):
    """What was found of one measure. measure: its column, empty where rows are counted only."""

    measure: str
    groups: list[GroupView]
    hidden: list[HiddenView]


class NoteView(BaseModel):
    """What a site's dataset says about itself."""

    site: str
    dataset: str
    text: str


class PhaseSitesView(BaseModel):
    """Whose data are in the sums of a phase, and who was lost. Phase 1 decides which groups pass."""

    phase: int
    sites: list[str]
    lost: list[str]


class DisclosureView(BaseModel):
    """Earlier sums over sites that differ from those of a phase by `sites` alone, and what both disclose, in words.

    query, other_phase: the latest of them; sums: how many there are over the same sites.
    """

    phase: int
    query: str
    other_phase: int
    sums: int
    sites: list[str]
    words: str


class ReleaseView(BaseModel):
    """A release. rows_of_one_unit: rows by which neighbouring inputs differ; results: by measure.

    sites: whose data are in the groups' numbers; lost: sites of the query that are not; survivors: both by phase.
    disclosures: what it says of single sites together with earlier sums. protection: what protects persons in it, in
    words.

    budget_before_nano, budget_after_nano: of the population, in 10^-9 rho.
    """

    query: QueryTerms
    unit: str
    rows_per_person: int
    spread: str
    rows_of_one_unit: int
    rho_nano: int
    epsilons: list[EpsilonView]
    noise: list[NoiseView]
    results: list[ResultView]
    sites: list[str]
    lost: list[str]
    survivors: list[PhaseSitesView]
    disclosures: list[DisclosureView]
    protection: str
    budget_before_nano: int
    budget_after_nano: int
    notes: list[NoteView]


def terms_view(query: Query) -> QueryTerms:
    """A query as JSON shows it."""
    return QueryTerms(
        population=query.population,
        roster=list(query.roster),
        datasets=list(query.datasets),
        measures=[_measure(measure) for measure in query.measures],
        groups=[
            GroupColumnView(name=group.name, values=list(group.values), other=group.other) for group in query.groups
        ],
        filter=None if query.filter is None else show_filter(query.filter),
        purpose=query.purpose,
        unit=query.unit,
        person=query.person,
        rows_per_person=query.rows_per_person,
        spread=query.spread,
        colluders=query.colluders,
        max_rows=query.max_rows,
        rho_nano=query.rho_nano,
        delta_exponent=query.delta_exponent,
        minimum_group=query.minimum_group,
        exact=query.exact,
    )


def noise_views(noise: Sequence[NoiseStatement]) -> list[NoiseView]:
    """Noise statements as JSON shows them."""
    return [
        NoiseView(
            measure=one.measure,
            kind=one.kind,
            unit=one.unit,
            sensitivity=one.sensitivity,
            rho_nano=one.rho_nano,
            site=one.site,
            pooled=one.pooled,
            required=one.required,
        )
        for one in noise
    ]


def epsilon_views(epsilons: Sequence[Epsilon]) -> list[EpsilonView]:
    """Epsilons as JSON shows them."""
    return [EpsilonView(assumption=one.assumption, epsilon=one.epsilon, delta=one.delta) for one in epsilons]


def _measure(measure: Measure) -> MeasureView:
    return MeasureView(
        column=measure.column,
        low=decimal_text(measure.low, measure.scale),
        high=decimal_text(measure.high, measure.scale),
        edges=[decimal_text(edge, measure.scale) for edge in measure.edges],
        missing=[decimal_text(one, measure.scale) for one in measure.missing],
        weight=measure.weight,
    )


def _estimate(one: Estimate) -> EstimateView:
    return EstimateView(value=one.value, low=one.low, high=one.high)


def _group(one: GroupResult) -> GroupView:
    return GroupView(
        label=one.label,
        values=list(one.values),
        count=_estimate(one.count),
        mean=None if one.mean is None else _estimate(one.mean),
        sd=None if one.sd is None else _estimate(one.sd),
        bins=[_estimate(cell) for cell in one.bins],
    )


def _hidden(one: HiddenGroup) -> HiddenView:
    return HiddenView(
        label=one.label,
        values=list(one.values),
        reason=one.reason,
        noisy_count=one.noisy_count,
        minimum=one.minimum,
    )


def _result(one: MeasureResult) -> ResultView:
    return ResultView(
        measure=one.measure,
        groups=[_group(group) for group in one.groups],
        hidden=[_hidden(group) for group in one.hidden],
    )


def release_view(release: Release, language: str) -> ReleaseView:
    """A release as JSON shows it, its sentences in "en" or "zh"."""
    return ReleaseView(
        query=terms_view(release.query),
        unit=release.unit,
        rows_per_person=release.rows_per_person,
        spread=release.spread,
        rows_of_one_unit=release.rows_of_one_unit,
        rho_nano=release.rho_nano,
        epsilons=epsilon_views(release.epsilons),
        noise=noise_views(release.noise),
        results=[_result(one) for one in release.results],
        sites=list(release.sites),
        lost=list(release.lost),
        survivors=[
            PhaseSitesView(phase=one.phase, sites=list(one.sites), lost=list(one.lost)) for one in release.survivors
        ],
        disclosures=[
            DisclosureView(
                phase=one.phase,
                query=near.query.hex(),
                other_phase=near.phase,
                sums=near.sums,
                sites=list(near.sites),
                words=near.text(release.handle, one.phase, language),
            )
            for one in release.phases
            for near in one.near
        ],
        protection=release.protection(language),
        budget_before_nano=release.budget_before_nano,
        budget_after_nano=release.budget_after_nano,
        notes=[NoteView(site=one.site, dataset=one.dataset, text=one.text) for one in release.notes],
    )
