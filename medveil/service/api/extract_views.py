"""Extracts as bodies carry them, sent and shown."""

from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, Field

from connectors.layout import row_class
from medveil.gateway import granting
from medveil.gateway.extract_drafts import Draft, RiskChoice
from medveil.gateway.extract_wanted import ExtractAsk, wanted_of
from medveil.gateway.extracting import ExtractWish
from medveil.gateway.held_extracts import HeldExtract
from medveil.gateway.made_extracts import MadeExtract
from medveil.gateway.organisation import Organisation
from medveil.service.api.bodies import Sent
from medveil.service.api.fields import COLUMN, NAME, WHOLE, Code, Column, Filter, FilterView, Flag, Name
from medveil.service.api.grant_terms import Jurisdiction
from privacy.copies.extract_file import ExtractFacts
from privacy.decide import Decision
from privacy.filters import show_filter
from privacy.grants.levels import mask_text
from privacy.grants.terms import HOME
from privacy.masking.disclosure_risk import RiskPolicy, RiskReport
from privacy.uses import UseRequest
from wire.errors import Refused

MOST_GROUPS = 200
"""Offending groups that a preview shows, those of the fewest persons first."""

Columns = Annotated[list[Column], Field(default_factory=list, max_length=100)]


class NewAsk(Sent):
    """What you want of another organisation. filter: which rows, null for all."""

    holder: Name
    dataset: Name
    columns: Annotated[list[Column], Field(min_length=1, max_length=1000)]
    filter: Filter | None = None
    purpose: Code
    commercial: Flag = False
    jurisdiction: Jurisdiction = HOME


class Risk(Sent):
    """What you say of the columns that leave, by the names that they have when masked; and the limits.

    sensitive: what nobody may learn of a person. institution: the column that names institutions; amounts: their trade
    secrets. unknown: what nobody else can know of a person. Every other column counts as known to others; so do masked
    identifiers and dates, whatever you say. persons: fewest in a group that looks alike (or the grant's, if more);
    diversity: fewest different sensitive values; closeness: in millionths; institutions: fewest; dominance: percent.
    withhold: leave out the rows of groups that break a limit.
    """

    sensitive: Columns
    institution: Annotated[str, Field(max_length=64, pattern=f"{COLUMN}|^$")] = ""
    amounts: Columns
    unknown: Columns
    persons: Annotated[int, Field(ge=1, le=10**6), WHOLE] = 5
    diversity: Annotated[int, Field(ge=1, le=1000), WHOLE] = 2
    closeness: Annotated[int, Field(ge=0, le=10**6), WHOLE] = 10**6
    institutions: Annotated[int, Field(ge=3, le=1000), WHOLE] = 3
    dominance: Annotated[int, Field(ge=1, le=100), WHOLE] = 10
    withhold: Flag = False


class NewExtract(Sent):
    """An extract to look at or to make: of what somebody asked for (`ask`), or under a grant of yours (`grant`).

    With `ask`, columns, filter and purpose are those that were asked for. Without: columns: by default the grant's;
    purpose: by default the grant's, if it has one alone; filter: besides the grant's own.
    """

    ask: Annotated[str, Field(pattern="^([0-9a-f]{32})?$")] = ""
    grant: Annotated[str, Field(max_length=64, pattern=f"{NAME}|^$")] = ""
    columns: Annotated[list[Column], Field(default_factory=list, max_length=1000)]
    filter: Filter | None = None
    purpose: Annotated[str, Field(pattern="^([A-Z][A-Z0-9]{0,31})?$")] = ""
    commercial: Flag = False
    risk: Risk | None = None


class AskView(BaseModel):
    """A request for an extract. state: waiting, making, released (made, and not delivered yet), declined or delivered.

    at: ms UTC; code: why it was declined.

    extract: what came of it, or empty.
    """

    ask: str
    holder: str
    recipient: str
    dataset: str
    columns: list[str]
    filter: FilterView | None
    purpose: str
    commercial: bool
    jurisdiction: str
    at: int
    state: str
    code: str
    extract: str


class AskList(BaseModel):
    """Requests, the oldest first."""

    asks: list[AskView]


class LeavingColumn(BaseModel):
    """A column that would leave. mask: what becomes of its cells, or keep."""

    column: str
    level: int
    mask: str


class RiskView(BaseModel):
    """What was measured of the masked rows. within: whether no group breaks the limits.

    known: columns that count as known to others. persons, diversity, institutions: the fewest in a group; closeness:
    the furthest, in millionths; offending, offending_rows: groups that break a limit, and their rows.
    """

    within: bool
    known: list[str]
    rows: int
    groups: int
    offending: int
    offending_rows: int
    persons: int
    diversity: int
    closeness: int
    institutions: int
    dominated: int


class GroupView(BaseModel):
    """A group that breaks a limit. values: its cells in the known columns; reasons: which limits."""

    values: list[str | None]
    rows: int
    persons: int
    diversity: int
    closeness: int
    institutions: int
    dominated: int
    reasons: list[str]


class WithheldView(BaseModel):
    """What is left without the groups that break a limit. lost: rows that would not leave."""

    rows: int
    lost: int


class PreviewView(BaseModel):
    """What would be decided, in words, and what would leave. rule: which decided; missing: what is not met.

    Where it is denied, the rest is empty. row_class: the rows, rounded up as on the ledger. excluded: scopes of
    opt-outs that are left out. offends: the groups that break a limit, at most 200. withheld: what withholding them
    leaves, or null where there are none. leaves: whether it could be made as it is wished. other_cut: id of an extract
    of other columns or rows under this grant, which stands in its way, or empty. earlier: ids of extracts of
    this dataset that this recipient has had or is to have: each was measured alone, and together they may show more.
    """

    decision: str
    allowed: bool
    rule: str
    missing: str
    grant: str
    rows: int
    row_class: int
    columns: list[LeavingColumn]
    excluded: list[str]
    delete_by: int
    risk: RiskView | None
    offends: list[GroupView]
    withheld: WithheldView | None
    leaves: bool
    other_cut: str
    earlier: list[str]


class MadeView(BaseModel):
    """An extract that this organisation made. at: since when it is in its state, ms UTC.

    state: staged; released; leaving (its recipient may have it); delivered; withdrawn (it never left); recalled (it was
    taken back when it may have left). audit: number of the entry that announced it. columns: with what was done to
    each, or "as it is". rows: exact for whoever makes extracts or audits; else rounded up as on the ledger. risk: hash
    of the report that was measured. code: why it was taken back.
    """

    extract: str
    ask: str
    recipient: str
    grant: str
    dataset: str
    purpose: str
    columns: dict[str, str]
    rows: int
    made: int
    delete_by: int
    audit: int
    risk: str
    state: str
    at: int
    code: str


class HeldView(BaseModel):
    """An extract that came here. here: whether its file is. arrived, delete_by: ms UTC; deleted: when, or 0.

    why: person, due, or what its issuer asked for it by: erasure, consent-revoked, withdrawn.
    """

    extract: str
    issuer: str
    grant: str
    dataset: str
    purpose: str
    columns: dict[str, str]
    rows: int
    made: int
    arrived: int
    delete_by: int
    here: bool
    deleted: int
    why: str


class ExtractList(BaseModel):
    """Extracts, the oldest first. held: deleted ones too."""

    made: list[MadeView]
    held: list[HeldView]


def wish_of(body: NewExtract, organisation: Organisation) -> ExtractWish:
    """What is to be made. Raises Refused: no such request or grant, or it does not say for what."""
    risk = body.risk or Risk(sensitive=[], amounts=[], unknown=[])
    choice = RiskChoice(
        tuple(risk.sensitive),
        risk.institution,
        tuple(risk.amounts),
        tuple(risk.unknown),
        RiskPolicy(risk.persons, risk.diversity, risk.closeness, risk.institutions, risk.dominance),
        risk.withhold,
    )
    if body.ask:
        if body.columns or body.filter is not None or body.purpose:
            raise Refused("gateway.extract_as_asked", ask=body.ask)
        one = wanted_of(organisation, bytes.fromhex(body.ask))
        return ExtractWish(one.ask, body.grant, one.request, choice)
    found = [one.terms for one in granting.issued(organisation) if one.terms.grant == body.grant]
    if not found:
        raise Refused("grants.unknown", grant=body.grant or "-")
    (terms,) = found
    purpose = body.purpose or (terms.purposes[0] if len(terms.purposes) == 1 else "")
    if not purpose:
        raise Refused("gateway.extract_purpose", grant=terms.grant, purposes=", ".join(terms.purposes))
    request = UseRequest(
        holder=organisation.name,
        recipient=terms.recipient,
        dataset=terms.dataset,
        fields=tuple(dict.fromkeys(body.columns or terms.fields)),
        kind="extract",
        purpose=purpose,
        predicate=body.filter,
        commercial=body.commercial,
        jurisdiction=terms.jurisdiction,
    )
    return ExtractWish(b"", body.grant, request, choice)


def asked_view(one: ExtractAsk) -> AskView:
    """A request as it is shown."""
    request = one.request
    return AskView(
        ask=one.ask.hex(),
        holder=request.holder,
        recipient=request.recipient,
        dataset=request.dataset,
        columns=list(request.fields),
        filter=None if request.predicate is None else show_filter(request.predicate),
        purpose=request.purpose,
        commercial=request.commercial,
        jurisdiction=request.jurisdiction,
        at=one.at,
        state=one.state,
        code=one.code,
        extract=one.extract.hex(),
    )


def denied_view(decision: Decision, language: str) -> PreviewView:
    """A denial."""
    return PreviewView(
        decision=decision.text(language),
        allowed=decision.allowed,
        rule=decision.rule,
        missing=decision.missing,
        grant=decision.grant,
        rows=0,
        row_class=0,
        columns=[],
        excluded=[],
        delete_by=0,
        risk=None,
        offends=[],
        withheld=None,
        leaves=False,
        other_cut="",
        earlier=[],
    )


def draft_view(
    found: Draft, choice: RiskChoice, earlier: Iterable[MadeExtract], other: bytes, language: str
) -> PreviewView:
    """What would leave. earlier: extracts that were made before; other: id of one of another cut there, or b""."""
    decision, report = found.decision, found.measured.report
    left = found.withheld
    return PreviewView(
        decision=decision.text(language),
        allowed=True,
        rule=decision.rule,
        missing="",
        grant=decision.grant,
        rows=found.rows.num_rows,
        row_class=row_class(found.rows.num_rows),
        columns=[
            LeavingColumn(column=one.field, level=one.level, mask=mask_text(one.mask)) for one in decision.columns
        ],
        excluded=list(decision.excluded),
        delete_by=decision.delete_by,
        risk=_risk(report),
        offends=_groups(found),
        withheld=None if left is None else WithheldView(rows=left.rows, lost=found.rows.num_rows - left.rows),
        leaves=not other and (report.within or (choice.withhold and left is not None and left.rows > 0)),
        other_cut=other.hex(),
        earlier=[one.extract.hex() for one in earlier if one.brings(decision.dataset, decision.recipient)],
    )


def _risk(report: RiskReport) -> RiskView:
    return RiskView(
        within=report.within,
        known=list(report.columns.quasi),
        rows=report.rows,
        groups=report.classes,
        offending=report.offending,
        offending_rows=report.offending_rows,
        persons=report.persons,
        diversity=report.diversity,
        closeness=report.closeness,
        institutions=report.institutions,
        dominated=report.dominated,
    )


def _groups(found: Draft) -> list[GroupView]:
    """The offending groups, the smallest first."""
    known = list(found.measured.report.columns.quasi)
    shown = found.measured.groups.slice(0, MOST_GROUPS)
    facts = shown.drop_columns(known) if known else shown
    names = [name.removeprefix("_") for name in facts.column_names]
    values = [shown[name].to_pylist() for name in known]
    told = [facts[name].to_pylist() for name in facts.column_names]
    return [
        GroupView(
            values=[None if value is None else str(value) for value in (column[place] for column in values)],
            **{name: column[place] for name, column in zip(names, told, strict=True)},
        )
        for place in range(shown.num_rows)
    ]


def _done(facts: ExtractFacts) -> dict[str, str]:
    return {column.name: column.mask or "as it is" for column in facts.columns}


def made_view(one: MadeExtract, exact: bool) -> MadeView:
    """An extract that was made here. exact: whether the number of its rows is shown as it is."""
    facts = one.facts
    return MadeView(
        extract=one.extract.hex(),
        ask=one.ask.hex(),
        recipient=facts.cover.recipient,
        grant=facts.grant,
        dataset=facts.dataset,
        purpose=facts.purpose,
        columns=_done(facts),
        rows=facts.rows if exact else row_class(facts.rows),
        made=facts.made,
        delete_by=facts.delete_by,
        audit=facts.audit,
        risk=facts.risk.hex(),
        state=one.state,
        at=one.at,
        code=one.code,
    )


def held_view(one: HeldExtract, here: bool) -> HeldView:
    """An extract that came here. here: whether its file is."""
    facts = one.facts
    return HeldView(
        extract=one.extract.hex(),
        issuer=one.issuer,
        grant=facts.grant,
        dataset=facts.dataset,
        purpose=facts.purpose,
        columns=_done(facts),
        rows=facts.rows,
        made=facts.made,
        arrived=one.arrived,
        delete_by=facts.delete_by,
        here=here,
        deleted=one.deleted,
        why=one.why,
    )
