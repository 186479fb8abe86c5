"""A release and what it asked, as JSON: every number a decimal text or a whole number, nothing left out but proofs."""

from collections.abc import Sequence

from pydantic import BaseModel

from medveil.gateway.filters import show_filter
from medveil.service.api.fields import FilterView, decimal_text
from mpc.budget import Epsilon
from mpc.query import Query
from mpc.release import Estimate, GroupResult, NoiseStatement, Release


class MeasureView(BaseModel):
    """What is measured. low, high, edges: decimals."""

    column: str
    low: str
    high: str
    edges: list[str]


class GroupColumnView(BaseModel):
    """A column to group by and its declared values."""

    name: str
    values: list[str]
    other: bool


class QueryTerms(BaseModel):
    """A query: all that decides a number in it. delta: 10 to the power of -delta_exponent."""

    population: str
    roster: list[str]
    datasets: list[str]
    measure: MeasureView
    groups: list[GroupColumnView]
    filter: FilterView | None
    purpose: str
    unit: str
    person: str
    rows_per_person: int
    colluders: int
    max_rows: int
    rho_nano: int
    delta_exponent: int
    minimum_group: int


class NoiseView(BaseModel):
    """Standard deviation of the noise on one cell of a kind, decimals in `unit`.

    site: what one site adds; pooled: all sites together, as in the released number; required: what the budget needs.
    """

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
    """A group that passed."""

    label: str
    values: list[str]
    count: EstimateView
    mean: EstimateView
    sd: EstimateView
    bins: list[EstimateView]


class HiddenView(BaseModel):
    """A group that is hidden, and why."""

    label: str
    values: list[str]
    reason: str
    noisy_count: str
    minimum: int


class NoteView(BaseModel):
    """What a site's dataset says about itself."""

    site: str
    dataset: str
    text: str


class ReleaseView(BaseModel):
    """A release. rows_of_one_unit: rows by which neighbouring inputs differ; lost: sites that are not in it.

    budget_before_nano, budget_after_nano: of the population, in 10^-9 rho.
    """

    query: QueryTerms
    unit: str
    rows_per_person: int
    rows_of_one_unit: int
    rho_nano: int
    epsilons: list[EpsilonView]
    noise: list[NoiseView]
    groups: list[GroupView]
    hidden: list[HiddenView]
    sites: list[str]
    lost: list[str]
    budget_before_nano: int
    budget_after_nano: int
    notes: list[NoteView]


def terms_view(query: Query) -> QueryTerms:
    """A query as JSON shows it."""
    measure = query.measure
    return QueryTerms(
        population=query.population,
        roster=list(query.roster),
        datasets=list(query.datasets),
        measure=MeasureView(
            column=measure.column,
            low=decimal_text(measure.low, measure.scale),
            high=decimal_text(measure.high, measure.scale),
            edges=[decimal_text(edge, measure.scale) for edge in measure.edges],
        ),
        groups=[
            GroupColumnView(name=group.name, values=list(group.values), other=group.other) for group in query.groups
        ],
        filter=None if query.filter is None else show_filter(query.filter),
        purpose=query.purpose,
        unit=query.unit,
        person=query.person,
        rows_per_person=query.rows_per_person,
        colluders=query.colluders,
        max_rows=query.max_rows,
        rho_nano=query.rho_nano,
        delta_exponent=query.delta_exponent,
        minimum_group=query.minimum_group,
    )


def noise_views(noise: Sequence[NoiseStatement]) -> list[NoiseView]:
    """Noise statements as JSON shows them."""
    return [
        NoiseView(
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


def _estimate(one: Estimate) -> EstimateView:
    return EstimateView(value=one.value, low=one.low, high=one.high)


def _group(one: GroupResult) -> GroupView:
    return GroupView(
        label=one.label,
        values=list(one.values),
        count=_estimate(one.count),
        mean=_estimate(one.mean),
        sd=_estimate(one.sd),
        bins=[_estimate(cell) for cell in one.bins],
    )


def release_view(release: Release) -> ReleaseView:
    """A release as JSON shows it."""
    return ReleaseView(
        query=terms_view(release.query),
        unit=release.unit,
        rows_per_person=release.rows_per_person,
        rows_of_one_unit=release.rows_of_one_unit,
        rho_nano=release.rho_nano,
        epsilons=epsilon_views(release.epsilons),
        noise=noise_views(release.noise),
        groups=[_group(one) for one in release.groups],
        hidden=[
            HiddenView(
                label=one.label,
                values=list(one.values),
                reason=one.reason,
                noisy_count=one.noisy_count,
                minimum=one.minimum,
            )
            for one in release.hidden
        ],
        sites=list(release.sites),
        lost=list(release.lost),
        budget_before_nano=release.budget_before_nano,
        budget_after_nano=release.budget_after_nano,
        notes=[NoteView(site=one.site, dataset=one.dataset, text=one.text) for one in release.notes],
    )
