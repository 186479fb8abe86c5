"""The one gate for every way out: a pure function from a use, grants and the ledger's state to yes or no.

Queries, proofs, scores and extracts all ask here. A use is allowed by one grant that fulfils every
rule of `RULES`; permissions of several grants are never put together. Whatever is unknown, missing,
malformed or fails while being judged is a no. A no names the rule, the grant that came closest, the
condition that is missing and what to do, in English and Chinese.

Departure from policy engines such as Cedar, where a rule that errors is skipped: here it denies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from privacy.grants import HOME, LEGAL_BASES, USE_KINDS, CheckedGrant, GrantTerms, UseKind, check_terms
from privacy.predicate import Predicate, columns
from privacy.purposes import PURPOSES, covers
from wire import messages
from wire.canonical import Wire
from wire.dates import Instant, format_instant
from wire.errors import ConsentDenied, MedveilError
from wire.identifiers import Hash, Name


class UseRequest(Wire, frozen=True, tag="privacy.use_request"):
    """A use that is asked for.

    holder: the organisation whose vault holds the dataset (the one that decides). recipient: who gets
    the result. fields: every column used; those of `predicate`, the request's own row filter, are added.
    commercial: whether it serves someone's sales. jurisdiction: where the recipient processes.
    """

    holder: Name
    recipient: Name
    dataset: Name
    fields: tuple[str, ...]
    kind: UseKind
    purpose: str
    predicate: Predicate | None = None
    commercial: bool = False
    jurisdiction: str = HOME

    def all_fields(self) -> frozenset[str]:
        """Every column the use looks at."""
        return frozenset(self.fields) | (frozenset() if self.predicate is None else columns(self.predicate))


class AnchoredGrant(Wire, frozen=True, tag="privacy.anchored_grant"):
    """What the ledger says of one grant: who anchored it, which terms, until when, and its epoch now."""

    grant: Name
    issuer: Name
    commitment: Hash
    not_before: Instant
    expires: Instant
    epoch: int
    revoked: bool


class GrantState(Wire, frozen=True, tag="privacy.grant_state"):
    """The ledger's grants, as of a final block: one entry a grant."""

    anchored: tuple[AnchoredGrant, ...]

    def of(self, grant: str) -> AnchoredGrant | None:
        """The ledger's entry of a grant. Two entries of one id are none."""
        found = [entry for entry in self.anchored if entry.grant == grant]
        return found[0] if len(found) == 1 else None


class Decision(Wire, frozen=True, tag="privacy.decision"):
    """The answer. allowed only with rule "granted".

    rule: the rule that decided. grant: the grant that allows, or came closest; "" for none. missing:
    the condition that is not met, "" when allowed. rows: the grant's row filter, to be joined with
    the request's own by `privacy.local.bind`.
    """

    allowed: bool
    rule: str
    grant: str
    missing: str
    recipient: str
    dataset: str
    rows: Predicate | None = None

    @property
    def fix(self) -> str:
        """What to do about it, in English."""
        return messages.fix(self.code, self.facts())

    @property
    def code(self) -> str:
        """The message's code in the catalogues."""
        return _CODES.get(self.rule, _CODES["error"]) if not self.allowed else "privacy.granted"

    def facts(self) -> dict[str, str]:
        """What the sentence names."""
        return {
            "rule": self.rule,
            "grant": self.grant or "-",
            "missing": self.missing or "-",
            "recipient": self.recipient,
            "dataset": self.dataset,
        }

    def text(self, language: str = "en") -> str:
        """The decision in words, with the rule, the grant and the fix: "en" or "zh"."""
        return messages.text(self.code, self.facts(), language)


QUESTION = "question"
"""The rule of a denial before any grant is looked at: it is not to be had, or not the asker's to ask for."""

_CODES = {
    QUESTION: "privacy.deny_question",
    "no-grant": "privacy.deny_no_grant",
    "known-use": "privacy.deny_known_use",
    "form": "privacy.deny_form",
    "anchor": "privacy.deny_anchor",
    "revocation": "privacy.deny_revocation",
    "period": "privacy.deny_period",
    "use-kind": "privacy.deny_use_kind",
    "purpose": "privacy.deny_purpose",
    "fields": "privacy.deny_fields",
    "legal-basis": "privacy.deny_legal_basis",
    "impact-assessment": "privacy.deny_impact_assessment",
    "commercial": "privacy.deny_commercial",
    "jurisdiction": "privacy.deny_jurisdiction",
    "error": "privacy.deny_error",
}


class _Case(NamedTuple):
    request: UseRequest
    terms: GrantTerms
    commitment: bytes
    anchor: AnchoredGrant | None
    at: int


_Rule = Callable[[_Case], str]
"""What is missing, in words for both languages (names, codes, times), or "" where the rule is met."""


def _form(case: _Case) -> str:
    try:
        check_terms(case.terms)
    except MedveilError as error:
        return str(error.facts.get("field", error.code))
    return ""


def _known_use(case: _Case) -> str:
    if case.request.kind not in USE_KINDS:
        return str(case.request.kind)
    return "" if case.request.purpose in PURPOSES else case.request.purpose


def _parties(case: _Case) -> str:
    terms, request = case.terms, case.request
    same = (terms.issuer, terms.recipient, terms.dataset) == (request.holder, request.recipient, request.dataset)
    return "" if same else f"{request.holder} / {request.recipient} / {request.dataset}"


def _anchor(case: _Case) -> str:
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


def _revocation(case: _Case) -> str:
    anchor = case.anchor
    standing = anchor is not None and not anchor.revoked and anchor.epoch == case.terms.epoch
    return "" if standing else f"epoch {case.terms.epoch}"


def _period(case: _Case) -> str:
    if case.terms.not_before <= case.at < case.terms.expires:
        return ""
    return f"{format_instant(case.terms.not_before)} .. {format_instant(case.terms.expires)}"


def _use_kind(case: _Case) -> str:
    return "" if case.request.kind in case.terms.uses else case.request.kind


def _purpose(case: _Case) -> str:
    asked = case.request.purpose
    return "" if any(covers(granted, asked) for granted in case.terms.purposes) else asked


def _fields(case: _Case) -> str:
    beyond = case.request.all_fields() - set(case.terms.fields)
    if not case.request.all_fields():
        return "-"
    return ", ".join(sorted(beyond))


def _legal_basis(case: _Case) -> str:
    terms = case.terms
    if terms.legal_basis not in LEGAL_BASES:
        return "legal_basis"
    return "consent_ref" if terms.legal_basis in ("consent", "separate-consent") and not terms.consent_ref else ""


def _assessment(case: _Case) -> str:
    return "" if case.terms.pia_ref else "pia_ref"


def _commercial(case: _Case) -> str:
    request, terms = case.request, case.terms
    if not (request.commercial or PURPOSES[request.purpose].commercial):
        return ""
    return "" if terms.commercial and terms.legal_basis == "separate-consent" else "separate-consent"


def _jurisdiction(case: _Case) -> str:
    request, terms = case.request, case.terms
    if request.jurisdiction != terms.jurisdiction:
        return request.jurisdiction
    return "" if terms.jurisdiction == HOME or terms.transfer_ref else "transfer_ref"


RULES: tuple[tuple[str, _Rule], ...] = (
    ("parties", _parties),
    ("known-use", _known_use),
    ("form", _form),
    ("anchor", _anchor),
    ("revocation", _revocation),
    ("period", _period),
    ("use-kind", _use_kind),
    ("purpose", _purpose),
    ("fields", _fields),
    ("legal-basis", _legal_basis),
    ("impact-assessment", _assessment),
    ("commercial", _commercial),
    ("jurisdiction", _jurisdiction),
)
"""Every rule, in the order they are judged; a grant must meet all. "no-grant", "question" and "error" come on top."""


def not_a_question(recipient: str, dataset: str, why: str) -> Decision:
    """The denial of what no grant could allow. why: code of the error that says what is wrong with it."""
    return Decision(False, QUESTION, "", why[:200], recipient, dataset)


def decide(request: UseRequest, grants: Sequence[CheckedGrant], state: GrantState, at: int) -> Decision:
    """Whether `request` is allowed at instant `at`.

    grants: the holder's grants that passed `check_grant`, any order; the answer does not depend on
    it. state: the ledger's grants. Never raises: a fault while judging is a denial by rule "error".
    """
    try:
        return _best(request, grants, state, at)
    except Exception:  # whatever goes wrong while judging is a denial
        return Decision(False, "error", "", "grants", str(request.recipient), str(request.dataset))


def _best(request: UseRequest, grants: Sequence[CheckedGrant], state: GrantState, at: int) -> Decision:
    closest = Decision(False, "no-grant", "", "grant", request.recipient, request.dataset)
    closest_at = -1
    anchors: dict[str, AnchoredGrant | None] = {}
    for entry in state.anchored:  # two entries of one id are none: as `GrantState.of`
        anchors[entry.grant] = None if entry.grant in anchors else entry
    for grant in sorted(grants, key=lambda checked: (checked.terms.grant, checked.commitment)):
        terms = grant.terms
        rule, missing, passed = _judge(request, grant, anchors.get(terms.grant), at)
        if rule == "granted":
            return Decision(True, rule, terms.grant, "", request.recipient, request.dataset, terms.predicate)
        if rule == "parties":  # a grant for someone else is none of this recipient's business
            continue
        if passed > closest_at:
            closest = Decision(False, rule, terms.grant, missing, request.recipient, request.dataset)
            closest_at = passed
    return closest


def _judge(request: UseRequest, grant: CheckedGrant, anchor: AnchoredGrant | None, at: int) -> tuple[str, str, int]:
    """The first rule that is not met, what is missing, and how many were met before it."""
    passed = 0
    name = "state"
    try:
        case = _Case(request, grant.terms, grant.commitment, anchor, at)
        for name, rule in RULES:
            missing = rule(case)
            if missing:
                return name, missing[:200], passed
            passed += 1
    except Exception:  # a rule that cannot be judged is not met
        return "error", name, passed
    return "granted", "", passed


def require(decision: Decision) -> Decision:
    """The decision itself if it allows; raises ConsentDenied with its rule, grant and fix otherwise."""
    if not decision.allowed or decision.rule != "granted" or not decision.grant:
        raise ConsentDenied(decision.code, **decision.facts())
    return decision
