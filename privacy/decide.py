"""The one gate for every way out: a pure function from a use, grants and the state of things to yes or no.

Queries, proofs, scores, extracts, record views and exports all ask here. A use is allowed by one grant that
fulfils every rule of `privacy.rules.RULES`; permissions of several grants are never put together. Whatever is
unknown, missing, malformed or fails while being judged is a no. A no names the rule, the grant that came closest,
the condition that is missing and what to do, in English and Chinese. A yes comes with what the use must leave out
and mask.

Departure from policy engines such as Cedar, where a rule that errors is skipped: here it denies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from privacy.grants.book import BookEntry, GrantBook, StateBook, entry_of, parties_of
from privacy.grants.levels import Level
from privacy.grants.opt_outs import ScopeId
from privacy.grants.terms import DAY, CheckedGrant
from privacy.masking.masks import Mask, MaskPlan
from privacy.predicate import Predicate
from privacy.rules import RULES, Case, left_out, masks_of
from privacy.uses import AnchoredGrant, GrantState, Review, UseRequest, UseState
from wire import messages
from wire.canonical import Wire
from wire.dates import Instant
from wire.errors import ConsentDenied

__all__ = [
    "decide",
    "require",
    "not_a_question",
    "Decision",
    "ColumnUse",
    "UseRequest",
    "UseState",
    "GrantState",
    "StateBook",
    "AnchoredGrant",
    "Review",
    "GrantBook",
    "RULES",
    "QUESTION",
    "GRANTED",
]


class ColumnUse(Wire, frozen=True, tag="privacy.column_use"):
    """A column of an allowed use: its level, and what becomes of its cells (kept unless records leave)."""

    level: Level
    mask: Mask

    @property
    def field(self) -> str:
        """Its name."""
        return self.mask.field


class Decision(Wire, frozen=True, tag="privacy.decision"):
    """The answer. allowed only with rule "granted".

    rule: the rule that decided. grant: the grant that allows, or came closest; "" for none. missing:
    the condition that is not met, "" when allowed. rows: the grant's row filter, to be joined with
    the request's own by `privacy.local.bind`.

    Of an allowed use: excluded: opt-out scopes whose persons it must leave out (`grants.opt_outs`); columns: the
    request's fields, in order, with level and mask; min_group: fewest persons that share their quasi-identifiers
    in an extract; delete_by: when the recipient must have deleted this copy. None of these is told to anybody
    who is denied.
    """

    allowed: bool
    rule: str
    grant: str
    missing: str
    recipient: str
    dataset: str
    rows: Predicate | None = None
    excluded: tuple[ScopeId, ...] = ()
    columns: tuple[ColumnUse, ...] = ()
    min_group: int = 0
    delete_by: Instant = 0

    def mask_plan(self, on: int) -> MaskPlan:
        """How `privacy.masking.masks` masks a copy under this decision. on: the civil day on which ages are taken."""
        return MaskPlan(tuple(column.mask for column in self.columns), on)

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
GRANTED = "granted"

_CODES = {
    QUESTION: "privacy.deny_question",
    "no-grant": "privacy.deny_no_grant",
    "known-use": "privacy.deny_known_use",
    "form": "privacy.deny_form",
    "anchor": "privacy.deny_anchor",
    "revocation": "privacy.deny_revocation",
    "period": "privacy.deny_period",
    "review": "privacy.deny_review",
    "use-kind": "privacy.deny_use_kind",
    "purpose": "privacy.deny_purpose",
    "conditions": "privacy.deny_conditions",
    "fields": "privacy.deny_fields",
    "level": "privacy.deny_level",
    "statutory-class": "privacy.deny_statutory_class",
    "legal-basis": "privacy.deny_legal_basis",
    "guardian": "privacy.deny_guardian",
    "impact-assessment": "privacy.deny_impact_assessment",
    "commercial": "privacy.deny_commercial",
    "jurisdiction": "privacy.deny_jurisdiction",
    "classified": "privacy.deny_unclassified",
    "masks": "privacy.deny_masks",
    "filter": "privacy.deny_filter",
    "sharing-record": "privacy.deny_sharing_record",
    "opt-out": "privacy.deny_opt_out",
    "error": "privacy.deny_error",
}


def not_a_question(recipient: str, dataset: str, why: str) -> Decision:
    """The denial of what no grant could allow. why: code of the error that says what is wrong with it."""
    return Decision(False, QUESTION, "", why[:200], recipient, dataset)


def decide(request: UseRequest, grants: Sequence[CheckedGrant] | GrantBook, state: UseState, at: int) -> Decision:
    """Whether `request` is allowed at instant `at`.

    grants: the holder's grants that passed `check_grant`, any order, or a book of them; the answer does not
    depend on it. state: the ledger's grants, and what home knows of reviews, datasets and opt-outs. Never raises:
    a fault while judging is a denial by rule "error".
    """
    try:
        return _best(request, grants, state, at)
    except Exception:  # whatever goes wrong while judging is a denial
        return Decision(False, "error", "", "grants", str(request.recipient), str(request.dataset))


def _best(request: UseRequest, grants: Sequence[CheckedGrant] | GrantBook, state: UseState, at: int) -> Decision:
    asked = request.all_fields()
    if isinstance(grants, GrantBook):
        for entry in grants.likely(request):  # all that could be allowed are among them, in the same order
            decision, _ = _judged(request, asked, entry, state, at)
            if decision.allowed:
                return decision
        entries: Iterable[BookEntry] = grants.of(request.holder, request.recipient, request.dataset)
    else:
        parties = (request.holder, request.recipient, request.dataset)
        # A grant for someone else is none of this recipient's business.
        between = [entry_of(grant) for grant in grants if parties_of(grant.terms) == parties]
        entries = sorted(between, key=lambda entry: entry.order)
    closest = Decision(False, "no-grant", "", "grant", request.recipient, request.dataset)
    closest_at = -1
    for entry in entries:
        decision, passed = _judged(request, asked, entry, state, at)
        if decision.allowed:
            return decision
        if passed > closest_at:
            closest, closest_at = decision, passed
    return closest


def _judged(
    request: UseRequest, asked: frozenset[str], entry: BookEntry, state: UseState, at: int
) -> tuple[Decision, int]:
    """The decision under one grant, and how many rules it met."""
    passed = 0
    name = "state"
    grant = entry.terms.grant
    try:
        anchor = state.of(grant)
        case = Case(
            request,
            asked,
            entry.terms,
            entry.commitment,
            entry.fields,
            entry.filtered,
            entry.fault,
            anchor,
            state,
            at,
        )
        for name, rule in RULES:
            missing = rule(case)
            if missing is not None:
                return Decision(False, name, grant, missing[:200] or "-", request.recipient, request.dataset), passed
            passed += 1
        name = "terms"
        return _allowed(case), passed
    except Exception:  # a rule that cannot be judged is not met
        return Decision(False, "error", grant, name, request.recipient, request.dataset), passed


def _allowed(case: Case) -> Decision:
    terms, request = case.terms, case.request
    return Decision(
        allowed=True,
        rule=GRANTED,
        grant=terms.grant,
        missing="",
        recipient=request.recipient,
        dataset=request.dataset,
        rows=terms.predicate,
        excluded=left_out(case),
        columns=tuple([ColumnUse(column.level, mask) for column, mask in masks_of(case)]),
        min_group=terms.min_group,
        delete_by=min(terms.delete_by, case.at + terms.keep_days * DAY),
    )


def require(decision: Decision) -> Decision:
    """The decision itself if it allows; raises ConsentDenied with its rule, grant and fix otherwise."""
    if not decision.allowed or decision.rule != GRANTED or not decision.grant:
        raise ConsentDenied(decision.code, **decision.facts())
    return decision
