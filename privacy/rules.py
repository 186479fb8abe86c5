"""The rules of the one decision: each says in a word what is missing, or nothing where it is met.

A rule looks at one case: a request, a grant, what the ledger says of that grant, and what home knows of the
dataset and its people. It is pure, and it may raise: `privacy.decide` takes that for a no.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from privacy.grants import (
    CONSENTS,
    DAY,
    HOME,
    LEGAL_BASES,
    RECORD_KINDS,
    SHARING_RECORD_DAYS,
    USE_KINDS,
    GrantTerms,
)
from privacy.levels import (
    IDENTIFIED,
    IDENTIFYING,
    STATUTORY_CLASSES,
    ColumnFacts,
    adults_only,
    default_mask,
    fits,
)
from privacy.masking import Mask
from privacy.opt_outs import ScopeId, matching
from privacy.purposes import PURPOSES, covering
from privacy.uses import NOBODY, AnchoredGrant, UseRequest, UseState
from wire.dates import format_instant

DISCLOSING = frozenset(("separate-consent", "statutory-duty", "public-health-emergency"))
"""Legal bases on which a grant may let a cell that names a person leave unmasked (PIPL 23, 29)."""
_NON_COMMERCIAL = frozenset(("NCU", "NPUNCU"))
_ORIGINS = frozenset(("POA", "POARCH"))


class Case(NamedTuple):
    """What rules look at. asked: every field of the request; fields: those of the grant; fault: see `BookEntry`."""

    request: UseRequest
    asked: frozenset[str]
    terms: GrantTerms
    commitment: bytes
    fields: frozenset[str]
    fault: str
    anchor: AnchoredGrant | None
    state: UseState
    at: int


Rule = Callable[[Case], str]
"""What is missing, in words for both languages (names, codes, times), or "" where the rule is met."""


def _parties(case: Case) -> str:
    terms, request = case.terms, case.request
    same = (terms.issuer, terms.recipient, terms.dataset) == (request.holder, request.recipient, request.dataset)
    return "" if same else f"{request.holder} / {request.recipient} / {request.dataset}"


def _known_use(case: Case) -> str:
    if case.request.kind not in USE_KINDS:
        return str(case.request.kind)
    return "" if case.request.purpose in PURPOSES else case.request.purpose


def _form(case: Case) -> str:
    return case.fault


def _anchor(case: Case) -> str:
    terms, anchor = case.terms, case.anchor
    if anchor is None:
        return "AnchorGrant"
    same = (anchor.grant, anchor.issuer, anchor.commitment, anchor.not_before, anchor.expires) == (
        terms.grant,
        terms.issuer,
        case.commitment,
        terms.not_before,
        terms.expires,
    )
    return "" if same else "AnchorGrant"


def _revocation(case: Case) -> str:
    anchor = case.anchor
    standing = anchor is not None and not anchor.revoked and anchor.epoch == case.terms.epoch
    return "" if standing else f"epoch {case.terms.epoch}"


def _period(case: Case) -> str:
    if case.terms.not_before <= case.at < case.terms.expires:
        return ""
    return f"{format_instant(case.terms.not_before)} .. {format_instant(case.terms.expires)}"


def _review(case: Case) -> str:
    terms = case.terms
    if case.at < terms.review or case.at < case.state.reviewed(terms.grant, case.commitment, case.at):
        return ""
    return format_instant(terms.review)


def _use_kind(case: Case) -> str:
    return "" if case.request.kind in case.terms.uses else case.request.kind


def _purpose(case: Case) -> str:
    asked = case.request.purpose
    return asked if covering(asked).isdisjoint(case.terms.purposes) else ""


def _commercially(request: UseRequest) -> bool:
    return request.commercial or PURPOSES[request.purpose].commercial


def _conditions(case: Case) -> str:
    for condition in case.terms.conditions:
        if condition in _NON_COMMERCIAL and _commercially(case.request):
            return condition
        if condition == "NPOA" and case.request.purpose in _ORIGINS:
            return condition
    return ""


def _fields(case: Case) -> str:
    if not case.asked:
        return "-"
    return ", ".join(sorted(case.asked - case.fields))


def _level(case: Case) -> str:
    ceiling, dataset, column = case.terms.level_ceiling, case.request.dataset, case.state.column
    beyond = [name for name in case.asked if column(dataset, name).level > ceiling]
    return ", ".join(sorted(beyond))


def _statutory_class(case: Case) -> str:
    found = case.state.facts(case.request.dataset).statutory_class
    if STATUTORY_CLASSES.index(found) > STATUTORY_CLASSES.index(case.terms.class_ceiling):
        return found
    abroad = case.request.jurisdiction != HOME or case.terms.jurisdiction != HOME
    return found if found == "core" and (abroad or _commercially(case.request)) else ""


def _legal_basis(case: Case) -> str:
    terms = case.terms
    if terms.legal_basis not in LEGAL_BASES:
        return "legal_basis"
    return "consent_ref" if terms.legal_basis in CONSENTS and not terms.consent_ref else ""


def _guardian(case: Case) -> str:
    terms = case.terms
    if terms.guardian_ref or terms.legal_basis not in CONSENTS:
        return ""
    facts = case.state.facts(case.request.dataset)
    if not facts.minors:
        return ""
    kept_out = facts.age_column and (
        adults_only(terms.predicate, facts.age_column) or adults_only(case.request.predicate, facts.age_column)
    )
    return "" if kept_out else "guardian_ref"


def _assessment(case: Case) -> str:
    return "" if case.terms.pia_ref else "pia_ref"


def _commercial(case: Case) -> str:
    if not _commercially(case.request):
        return ""
    return "" if case.terms.commercial and case.terms.legal_basis == "separate-consent" else "separate-consent"


def _jurisdiction(case: Case) -> str:
    request, terms = case.request, case.terms
    if request.jurisdiction != terms.jurisdiction:
        return request.jurisdiction
    return "" if terms.jurisdiction == HOME or terms.transfer_ref else "transfer_ref"


def _masks(case: Case) -> str:
    request, terms = case.request, case.terms
    if request.kind not in RECORD_KINDS:
        return ""
    wrong = []
    for chosen, column in _chosen(case):
        naming = column.level >= IDENTIFIED and column.content in IDENTIFYING
        bare = chosen.kind == "keep" and naming and default_mask(column, request.purpose) != "keep"
        if not fits(chosen.kind, column.content) or (bare and terms.legal_basis not in DISCLOSING):
            wrong.append(chosen.field)
    return ", ".join(sorted(wrong))


def _chosen(case: Case) -> Iterator[tuple[Mask, ColumnFacts]]:
    for chosen in case.terms.masks:
        if chosen.field in case.request.fields:
            yield chosen, case.state.column(case.request.dataset, chosen.field)


def _sharing_record(case: Case) -> str:
    kept = case.terms.records_until >= case.at + SHARING_RECORD_DAYS * DAY
    return "" if kept else format_instant(case.terms.records_until)


def _opt_out(case: Case) -> str:
    person = case.request.person
    if person == NOBODY:
        return ""
    if len(person) != 16:
        return "person"
    return ", ".join(_matching(case, case.state.scopes_of(person)))


def _matching(case: Case, scopes: tuple[ScopeId, ...]) -> tuple[ScopeId, ...]:
    request = case.request
    return matching(scopes, request.purpose, request.recipient, request.kind, case.terms.legal_basis)


def left_out(case: Case) -> tuple[ScopeId, ...]:
    """The opt-out scopes whose persons an allowed use must leave out: none of a use of one person's record."""
    return _matching(case, case.state.scopes()) if case.request.person == NOBODY else ()


def masks_of(case: Case) -> Iterator[tuple[ColumnFacts, Mask]]:
    """Each field that leaves, in order, with what becomes of its cells: only records' cells are masked."""
    request = case.request
    chosen = {mask.field: mask for mask in case.terms.masks}
    for name in dict.fromkeys(request.fields):
        column = case.state.column(request.dataset, name)
        if request.kind not in RECORD_KINDS:
            yield column, Mask(name, "keep")
        else:
            yield column, chosen.get(name) or Mask(name, default_mask(column, request.purpose))


RULES: tuple[tuple[str, Rule], ...] = (
    ("parties", _parties),
    ("known-use", _known_use),
    ("form", _form),
    ("anchor", _anchor),
    ("revocation", _revocation),
    ("period", _period),
    ("review", _review),
    ("use-kind", _use_kind),
    ("purpose", _purpose),
    ("conditions", _conditions),
    ("fields", _fields),
    ("level", _level),
    ("statutory-class", _statutory_class),
    ("legal-basis", _legal_basis),
    ("guardian", _guardian),
    ("impact-assessment", _assessment),
    ("commercial", _commercial),
    ("jurisdiction", _jurisdiction),
    ("masks", _masks),
    ("sharing-record", _sharing_record),
    ("opt-out", _opt_out),
)
"""Every rule, in the order they are judged; a grant must meet all. "no-grant", "question" and "error" come on top."""
