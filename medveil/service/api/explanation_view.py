"""An explained query as JSON: data for programs, and the same in sentences for people."""

from pydantic import BaseModel

from medveil.gateway.explained_words import words
from medveil.gateway.explaining import Explanation
from medveil.service.api.release_view import (
    EpsilonView,
    NoiseView,
    QueryTerms,
    epsilon_views,
    noise_views,
    terms_view,
)
from wire.secure_sum import apart


class SitePlanView(BaseModel):
    """One site's part. reads: columns that it looks at; person: the one that names the person, or empty."""

    site: str
    dataset: str
    reads: list[str]
    person: str


class LeavingView(BaseModel):
    """Numbers that leave a site, noised and masked. measure: the column, empty where rows are counted only."""

    phase: int
    measure: str
    kind: str
    cells: int


class NearQueryView(BaseModel):
    """An earlier query next to which this one would disclose `sites`, so that sites refuse it."""

    query: str
    roster: list[str]
    sites: list[str]


class NearSumsView(BaseModel):
    """Earlier sums over a set of sites that differs from the roster by `sites`: the release will be labelled.

    query, phase: the latest of them; sums: how many there are.
    """

    query: str
    phase: int
    sums: int
    sites: list[str]


class AnswerView(BaseModel):
    """What this organisation's grants say of it, were `recipient` to ask now. rule: which decided."""

    recipient: str
    allowed: bool
    rule: str
    grant: str
    decision: str


class SectionView(BaseModel):
    """A heading and its sentences."""

    title: str
    lines: list[str]


class ExplanationView(BaseModel):
    """What would be asked. cells: numbers that leave a site at most; before, after: available budget in 10^-9 rho.

    groups: labels of all groups, each of which may be hidden. enough: whether the budget covers it. answered: handle
    of the release that answers it already, or null; refused, near: earlier queries next to which it would disclose a
    site or two. own: where this organisation is asked, what it would answer those who have a grant for queries. words:
    all of it in sentences, in the caller's language.
    """

    query: QueryTerms
    sites: list[SitePlanView]
    leaving: list[LeavingView]
    cells: int
    groups: list[str]
    noise: list[NoiseView]
    epsilons: list[EpsilonView]
    before: int
    after: int
    enough: bool
    answered: str | None
    refused: list[NearQueryView]
    near: list[NearSumsView]
    own: list[AnswerView] | None
    words: list[SectionView]


def explanation_view(explained: Explanation, language: str) -> ExplanationView:
    """An explanation as JSON shows it."""
    beside, roster = explained.beside, explained.query.roster
    return ExplanationView(
        query=terms_view(explained.query),
        sites=[
            SitePlanView(site=one.site, dataset=one.dataset, reads=list(one.reads), person=one.person)
            for one in explained.sites
        ],
        leaving=[
            LeavingView(phase=one.phase, measure=one.measure, kind=one.kind, cells=one.cells)
            for one in explained.leaving
        ],
        cells=explained.cells,
        groups=list(explained.groups),
        noise=noise_views(explained.noise),
        epsilons=epsilon_views(explained.epsilons),
        before=explained.before,
        after=explained.after,
        enough=explained.after >= 0,
        answered=beside.answered.hex() or None,
        refused=[
            NearQueryView(
                query=one.handle.hex(), roster=list(one.query.roster), sites=list(apart(one.query.roster, roster))
            )
            for one in beside.refused
        ],
        near=[
            NearSumsView(query=one.query.hex(), phase=one.phase, sums=one.sums, sites=list(one.sites))
            for one in beside.near
        ],
        own=None
        if explained.own is None
        else [
            AnswerView(
                recipient=one.recipient,
                allowed=one.decision.allowed,
                rule=one.decision.rule,
                grant=one.decision.grant,
                decision=one.decision.text(language),
            )
            for one in explained.own.decisions
        ],
        words=[SectionView(title=one.title, lines=list(one.lines)) for one in words(explained, language)],
    )
