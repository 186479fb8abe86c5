"""The rules of the one decision: each says in a word what is missing, or nothing where it is met.

A rule looks at one case: a request, a grant, what the ledger says of that grant, and what home knows of the
dataset and its people. It is pure, and it may raise: `privacy.decide` takes that for a no.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from privacy.grants.levels import (
    IDENTIFIED,
    IDENTIFYING,
    STATUTORY_CLASSES,
    ColumnFacts,
    adults_only,
    default_mask,
    fits,
    unmasked,
)
from privacy.grants.opt_outs import ScopeId, matching
from privacy.grants.purposes import PURPOSES, covering
from privacy.grants.terms import (
    CONSENTS,
    DAY,
    HOME,
    LEGAL_BASES,
    RECORD_KINDS,
    SHARING_RECORD_DAYS,
    USE_KINDS,
    GrantTerms,
)
from privacy.masking.masks import Mask
from privacy.predicate import columns
from privacy.uses import NOBODY, AnchoredGrant, UseRequest, UseState
from wire.dates import format_instant

DISCLOSING = frozenset(("separate-consent", "statutory-duty", "public-health-emergency"))
"""Legal bases on which a grant may let a cell that names a person leave unmasked (PIPL 23, 29)."""
_NON_COMMERCIAL = frozenset(("NCU", "NPUNCU"))
_ORIGINS = frozenset(("POA", "POARCH"))


class Case(NamedTuple):
    """What rules look at. asked: every field of the request; fields, filtered, fault: see `BookEntry`."""

    request: UseRequest
    asked: frozenset[str]
    terms: GrantTerms
    commitment: bytes
    fields: frozenset[str]
    filtered: frozenset[str]
    fault: str
    anchor: AnchoredGrant | None
    state: UseState
    at: int


Rule = Callable[[Case], str | None]
"""What is missing, in words for both languages (names, codes, times), or None where the rule is met: never "",
which a request could say of itself."""


def _listed(names: Iterable[str]) -> str | None:
    return ", ".join(sorted(names)) or None


def _named(reference: str) -> bool:
    """Whether a reference names anything: blanks, of whatever width, do not."""
    return any(map(str.isalnum, reference))


def _parties(case: Case) -> str | None:
    terms, request = case.terms, case.request
    same = (terms.issuer, terms.recipient, terms.dataset) == (request.holder, request.recipient, request.dataset)
    return None if same else f"{request.holder} / {request.recipient} / {request.dataset}"


def _known_use(case: Case) -> str | None:
    if case.request.kind not in USE_KINDS:
        return str(case.request.kind)
    return None if case.request.purpose in PURPOSES else case.request.purpose


def _form(case: Case) -> str | None:
    return case.fault or None


def _anchor(case: Case) -> str | None:
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
    return None if same else "AnchorGrant"


def _revocation(case: Case) -> str | None:
    anchor = case.anchor
    standing = anchor is not None and not anchor.revoked and anchor.epoch == case.terms.epoch
    return None if standing else f"epoch {case.terms.epoch}"


def _period(case: Case) -> str | None:
    if case.terms.not_before <= case.at < case.terms.expires:
        return None
    return f"{format_instant(case.terms.not_before)} .. {format_instant(case.terms.expires)}"


def _review(case: Case) -> str | None:
    terms = case.terms
    if case.at < terms.review or case.at < case.state.reviewed(terms.grant, case.commitment, case.at):
        return None
    return format_instant(terms.review)


def _use_kind(case: Case) -> str | None:
    return None if case.request.kind in case.terms.uses else case.request.kind


def _purpose(case: Case) -> str | None:
    asked = case.request.purpose
    return asked if covering(asked).isdisjoint(case.terms.purposes) else None


def _commercially(request: UseRequest) -> bool:
    return request.commercial or PURPOSES[request.purpose].commercial


def _conditions(case: Case) -> str | None:
    for condition in case.terms.conditions:
        if condition in _NON_COMMERCIAL and _commercially(case.request):
            return condition
        if condition == "NPOA" and case.request.purpose in _ORIGINS:
            return condition
    return None


def _fields(case: Case) -> str | None:
    if not case.asked or "" in case.asked:
        return "-"
    return _listed(case.asked - case.fields)


def _level(case: Case) -> str | None:
    ceiling, dataset, column = case.terms.level_ceiling, case.request.dataset, case.state.column
    above = [name for name in case.asked | case.filtered if column(dataset, name).level > ceiling]
    return _listed(above) if above else None


def _statutory_class(case: Case) -> str | None:
    found = case.state.facts(case.request.dataset).statutory_class
    if STATUTORY_CLASSES.index(found) > STATUTORY_CLASSES.index(case.terms.class_ceiling):
        return found
    abroad = case.request.jurisdiction != HOME or case.terms.jurisdiction != HOME
    return found if found == "core" and (abroad or _commercially(case.request)) else None


def _legal_basis(case: Case) -> str | None:
    terms = case.terms
    if terms.legal_basis not in LEGAL_BASES:
        return "legal_basis"
    return "consent_ref" if terms.legal_basis in CONSENTS and not _named(terms.consent_ref) else None


def _guardian(case: Case) -> str | None:
    terms = case.terms
    if _named(terms.guardian_ref) or terms.legal_basis not in CONSENTS:
        return None
    facts = case.state.facts(case.request.dataset)
    if not facts.minors:
        return None
    kept_out = facts.age_column and (
        adults_only(terms.predicate, facts.age_column) or adults_only(case.request.predicate, facts.age_column)
    )
    return None if kept_out else "guardian_ref"


def _assessment(case: Case) -> str | None:
    return None if _named(case.terms.pia_ref) else "pia_ref"


def _commercial(case: Case) -> str | None:
    if not _commercially(case.request):
        return None
    return None if case.terms.commercial and case.terms.legal_basis == "separate-consent" else "separate-consent"


def _jurisdiction(case: Case) -> str | None:
    request, terms = case.request, case.terms
    if request.jurisdiction != terms.jurisdiction:
        return request.jurisdiction
    return None if terms.jurisdiction == HOME or _named(terms.transfer_ref) else "transfer_ref"


def _masks(case: Case) -> str | None:
    request, terms = case.request, case.terms
    if request.kind not in RECORD_KINDS:
        return None
    wrong = []
    for chosen, column in _chosen(case):
        naming = column.level >= IDENTIFIED and column.content in IDENTIFYING
        bare = chosen.kind == "keep" and naming and default_mask(column, request.purpose) != "keep"
        if not fits(chosen.kind, column.content) or (bare and terms.legal_basis not in DISCLOSING):
            wrong.append(chosen.field)
    return _listed(wrong)


def _chosen(case: Case) -> Iterator[tuple[Mask, ColumnFacts]]:
    for chosen in case.terms.masks:
        if chosen.field in case.request.fields:
            yield chosen, case.state.column(case.request.dataset, chosen.field)


def _classified(case: Case) -> str | None:
    """What cells hold must be known before they leave, unless none would be masked anyway."""
    request = case.request
    if request.kind not in RECORD_KINDS or unmasked(request.purpose):
        return None
    return None if case.state.facts(request.dataset).columns else request.dataset


def _filter(case: Case) -> str | None:
    """A filter that the recipient chooses tells the cells it looks at, one question a bit, whatever their mask."""
    request = case.request
    if request.kind not in RECORD_KINDS or request.predicate is None:
        return None
    chosen = {mask.field: mask for mask in case.terms.masks}
    column, dataset, purpose = case.state.column, request.dataset, request.purpose
    masks = (_mask_of(column(dataset, name), name, purpose, chosen) for name in columns(request.predicate))
    return _listed(mask.field for mask in masks if mask.kind != "keep")


def _sharing_record(case: Case) -> str | None:
    kept = case.terms.records_until >= case.at + SHARING_RECORD_DAYS * DAY
    return None if kept else format_instant(case.terms.records_until)


def _opt_out(case: Case) -> str | None:
    person = case.request.person
    if person == NOBODY:
        return None
    if len(person) != 16:
        return "person"
    return _listed(_matching(case, case.state.scopes_of(person)))


def _matching(case: Case, scopes: tuple[ScopeId, ...]) -> tuple[ScopeId, ...]:
    request = case.request
    return matching(scopes, request.purpose, request.recipient, request.kind, case.terms.legal_basis)


def left_out(case: Case) -> tuple[ScopeId, ...]:
    """The opt-out scopes whose persons an allowed use must leave out: none of a use of one person's record."""
    return _matching(case, case.state.scopes()) if case.request.person == NOBODY else ()


def masks_of(case: Case) -> Iterator[tuple[ColumnFacts, Mask]]:
    """Each field that leaves, in order, with what becomes of its cells: only records' cells are masked."""
    request, column_of = case.request, case.state.column
    records = request.kind in RECORD_KINDS
    chosen = {mask.field: mask for mask in case.terms.masks}
    for name in dict.fromkeys(request.fields):
        column = column_of(request.dataset, name)
        yield column, _mask_of(column, name, request.purpose, chosen) if records else Mask(name, "keep")


def _mask_of(column: ColumnFacts, name: str, purpose: str, chosen: Mapping[str, Mask]) -> Mask:
    """What becomes of a column's cells in a copy of records. chosen: the grant's masks, by field."""
    found = chosen.get(name)
    return found if found is not None else Mask(name, default_mask(column, purpose))


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
    ("classified", _classified),
    ("masks", _masks),
    ("filter", _filter),
    ("sharing-record", _sharing_record),
    ("opt-out", _opt_out),
)
"""Every rule, in the order they are judged; a grant must meet all. "no-grant", "question" and "error" come on top."""
