"""Decisions explained: what may somebody do with a dataset and why; who can see a field of this person.

Explaining asks the very rules that decide (`privacy.rules.RULES`), all of them and of every grant, and never a
reading of its own, so that an explanation cannot promise what a decision denies. It is for the data officer and
for the patient whose data they are; a recipient gets its decisions and no more.

    uses(holder, recipient, dataset)    every grant x use x purpose: allowed with which fields, or which rules fail
    judged(request)                     every grant between these parties: each rule's verdict of one request
    who_sees(person's field)            every recipient, use and purpose by which the field of this person counts
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa

from privacy.decide import ColumnUse, Decision, GrantBook, decide
from privacy.grants.book import BookEntry
from privacy.grants.opt_outs import ScopeId, matching
from privacy.grants.purposes import covered, purpose
from privacy.grants.terms import RECORD_KINDS, CheckedGrant, GrantTerms, UseKind
from privacy.masking.masks import MaskKind
from privacy.predicate import And, Between, Compare, Fixed, In, IsNull, Not, Or, Predicate, to_arrow
from privacy.rules import RULES, Case
from privacy.uses import UseRequest, UseState
from wire import messages
from wire.dates import format_instant

USE_TITLES: dict[UseKind, tuple[str, str]] = {
    "query": ("noised sums", "加噪汇总"),
    "proof": ("a proof about a record", "关于记录的证明"),
    "score": ("flags of a reviewed model", "经审查模型的标记"),
    "extract": ("an extract of rows", "行数据提取"),
    "view": ("a look at a record", "查看单条记录"),
    "export": ("records in bulk", "批量导出"),
}
MASK_TITLES: dict[MaskKind, tuple[str, str]] = {
    "keep": ("as it is", "原样"),
    "surname": ("surname only", "仅姓氏"),
    "identity": ("age band, sex, county", "年龄段、性别、区县"),
    "phone": ("first three and last four digits", "前三后四位"),
    "region": ("region only", "仅地区"),
    "band": ("in bands", "分段"),
    "shift": ("shifted per patient", "按患者平移"),
    "pseudonym": ("a keyed name of it", "假名"),
    "drop": ("left out", "不提供"),
}
_SIGNS = {"eq": "=", "ne": "≠", "lt": "<", "le": "≤", "gt": ">", "ge": "≥"}
_ALL_ROWS = ("all", "全部")
_NONE = ("nobody", "无")


def _in(words: tuple[str, str], language: str) -> str:
    return words[1] if language == "zh" else words[0]


class Verdict(NamedTuple):
    """What one rule says of a request under one grant. missing: "" where it is met."""

    rule: str
    missing: str

    @property
    def met(self) -> bool:
        """Whether the rule is met."""
        return not self.missing


class GrantVerdicts(NamedTuple):
    """Every rule's verdict of one request under one grant."""

    grant: str
    request: UseRequest
    verdicts: tuple[Verdict, ...]

    @property
    def allowed(self) -> bool:
        """Whether all rules are met."""
        return all(verdict.met for verdict in self.verdicts)

    def text(self, language: str = "en") -> tuple[str, ...]:
        """A sentence for each rule that is not met, as a denial by it would read; none where all are."""
        request = self.request
        return tuple(
            Decision(False, verdict.rule, self.grant, verdict.missing, request.recipient, request.dataset).text(
                language
            )
            for verdict in self.verdicts
            if not verdict.met
        )


class GrantedUse(NamedTuple):
    """One way in which a grant can be used, or cannot, at the instant that was asked about.

    fields: those that can be used so; columns: the same with level and mask; excluded: opt-out scopes left out;
    verdicts: of a use of all granted fields; until: when it ends or rests, ms UTC. purpose: as granted; narrower: the
    purposes below it for which it can be used so, too. commercial: whether also for somebody's sales.
    """

    terms: GrantTerms
    kind: UseKind
    purpose: str
    fields: tuple[str, ...]
    columns: tuple[ColumnUse, ...]
    excluded: tuple[ScopeId, ...]
    verdicts: GrantVerdicts
    until: int
    narrower: tuple[str, ...] = ()
    commercial: bool = False

    @property
    def allowed(self) -> bool:
        """Whether any field can be used so."""
        return bool(self.fields)

    def text(self, language: str = "en") -> str:
        """In words, "en" or "zh"."""
        terms = self.terms
        facts = {
            "grant": terms.grant,
            "recipient": terms.recipient,
            "dataset": terms.dataset,
            "use": _in(USE_TITLES[self.kind], language),
            "purpose": f"{self.purpose} ({purpose_title(self.purpose, language)})",
        }
        gap = "" if language == "zh" else " "
        why = gap.join(self.verdicts.text(language))
        if not self.allowed:
            return messages.text("privacy.explain_not", {**facts, "why": why}, language)
        facts["fields"] = ", ".join(_masked(column, language) for column in self.columns)
        facts["rows"] = in_words(terms.predicate, language)
        facts["excluded"] = ", ".join(self.excluded) or _in(_NONE, language)
        facts["until"] = format_instant(self.until)
        said = messages.text("privacy.explain_may", facts, language)
        if self.commercial:
            said += gap + messages.sentence("privacy.explain_commercially", {"grant": terms.grant}, language)
        return said if len(self.fields) == len(terms.fields) else said + gap + why  # why not all granted fields


class Sight(NamedTuple):
    """A way in which somebody gets at one field of one person.

    mask: "keep" where only results leave, not cells; "drop" where the cell does not leave, and the grant's row filter
    tells something of it all the same.
    """

    recipient: str
    grant: str
    field: str
    kind: UseKind
    purpose: str
    mask: MaskKind
    until: int

    @property
    def cell(self) -> bool:
        """Whether the recipient gets the person's own cell, masked or not; otherwise it only counts in a result."""
        return self.kind in RECORD_KINDS and self.mask != "drop"

    def text(self, language: str = "en") -> str:
        """In words, "en" or "zh"."""
        facts = {
            "recipient": self.recipient,
            "grant": self.grant,
            "field": self.field,
            "use": _in(USE_TITLES[self.kind], language),
            "purpose": f"{self.purpose} ({purpose_title(self.purpose, language)})",
            "mask": _in(MASK_TITLES[self.mask], language),
            "until": format_instant(self.until),
        }
        return messages.text("privacy.explain_cell" if self.cell else "privacy.explain_counted", facts, language)


def judged(
    request: UseRequest, grants: Iterable[CheckedGrant] | GrantBook, state: UseState, at: int
) -> tuple[GrantVerdicts, ...]:
    """Each rule's verdict of `request`, for every grant of its holder, recipient and dataset, in order of grants.

    A rule that cannot be judged is not met: missing says "error".
    """
    book = grants if isinstance(grants, GrantBook) else GrantBook(grants)
    entries = book.of(request.holder, request.recipient, request.dataset)
    return tuple(_verdicts(request, entry, state, at) for entry in entries)


def _verdicts(request: UseRequest, entry: BookEntry, state: UseState, at: int) -> GrantVerdicts:
    found = []
    for name, rule in RULES:
        try:
            anchor = state.of(entry.terms.grant)
            case = Case(
                request,
                request.all_fields(),
                entry.terms,
                entry.commitment,
                entry.fields,
                entry.filtered,
                entry.fault,
                anchor,
                state,
                at,
            )
            missing = rule(case)
            found.append(Verdict(name, "" if missing is None else missing or "-"))
        except Exception:  # as `decide` takes it
            found.append(Verdict(name, "error"))
    return GrantVerdicts(entry.terms.grant, request, tuple(found))


def uses(
    holder: str, recipient: str, dataset: str, grants: Iterable[CheckedGrant] | GrantBook, state: UseState, at: int
) -> tuple[GrantedUse, ...]:
    """What `recipient` may do with the holder's `dataset` at instant `at`, and why not: by grant, use and purpose."""
    book = grants if isinstance(grants, GrantBook) else GrantBook(grants)
    found = []
    for entry in book.of(holder, recipient, dataset):
        for kind in entry.terms.uses:
            for code in entry.terms.purposes:
                found.append(_granted(entry, kind, code, state, at))
    return tuple(found)


def _granted(entry: BookEntry, kind: UseKind, code: str, state: UseState, at: int) -> GrantedUse:
    terms = entry.terms
    alone = [entry.checked]

    def asked(fields: tuple[str, ...], purpose: str = code, commercial: bool = False) -> UseRequest:
        return UseRequest(
            holder=terms.issuer,
            recipient=terms.recipient,
            dataset=terms.dataset,
            fields=fields,
            kind=kind,
            purpose=purpose,
            commercial=commercial,
            jurisdiction=terms.jurisdiction,
        )

    usable = tuple(name for name in terms.fields if decide(asked((name,)), alone, state, at).allowed)
    decision = decide(asked(usable), alone, state, at)
    below = [narrower for narrower in covered(code) if narrower != code] if decision.allowed else []
    rest = max(terms.review, state.reviewed(terms.grant, entry.commitment, at))
    return GrantedUse(
        terms=terms,
        kind=kind,
        purpose=code,
        fields=usable if decision.allowed else (),
        columns=decision.columns,
        excluded=decision.excluded,
        verdicts=_verdicts(asked(terms.fields), entry, state, at),
        until=min(terms.expires, rest),
        narrower=tuple(one for one in below if decide(asked(usable, one), alone, state, at).allowed),
        commercial=decision.allowed and decide(asked(usable, commercial=True), alone, state, at).allowed,
    )


def who_sees(
    field: str,
    dataset: str,
    grants: Iterable[CheckedGrant] | GrantBook,
    state: UseState,
    at: int,
    *,
    scopes: Iterable[ScopeId] = (),
    rows: pa.Table | None = None,
) -> tuple[Sight, ...]:
    """By whom, how and what for a field of one person can be used at instant `at`.

    scopes: the person's opt-outs in force. rows: the person's own rows of `dataset` (secret), by which grants whose
    row filter leaves all of them out are passed over; None takes every grant in. Column left out by a mask: no sight.
    """
    book = grants if isinstance(grants, GrantBook) else GrantBook(grants)
    opted_out = tuple(scopes)
    found = []
    for entry in book.entries():
        terms = entry.terms
        named = field in entry.fields or field in entry.filtered
        if terms.dataset != dataset or not named or not _reaches(terms.predicate, rows):
            continue
        for kind in terms.uses:
            for code in terms.purposes:
                if matching(opted_out, code, terms.recipient, kind, terms.legal_basis):
                    continue
                use = _granted(entry, kind, code, state, at)
                mask: MaskKind = next((column.mask.kind for column in use.columns if column.field == field), "drop")
                told = use.allowed and field in entry.filtered  # rows were chosen by it
                if (field in use.fields and mask != "drop") or told:
                    if field not in use.fields and kind not in RECORD_KINDS:
                        mask = "keep"
                    found.append(Sight(terms.recipient, terms.grant, field, kind, code, mask, use.until))
    return tuple(found)


def _reaches(predicate: Predicate | None, rows: pa.Table | None) -> bool:
    if predicate is None or rows is None:
        return True
    try:
        return bool(rows.filter(to_arrow(predicate)).num_rows)
    except (pa.ArrowException, KeyError, ValueError):  # a column that is not there: the grant may reach it
        return True


def purpose_title(code: str, language: str = "en") -> str:
    """A purpose in words; its code where it is unknown."""
    try:
        return purpose(code).title(language)
    except Exception:
        return code


def _masked(column: ColumnUse, language: str) -> str:
    if column.mask.kind == "keep":
        return column.field
    said = _in(MASK_TITLES[column.mask.kind], language)
    return f"{column.field}（{said}）" if language == "zh" else f"{column.field} ({said})"


def in_words(predicate: Predicate | None, language: str = "en") -> str:
    """A row filter in words, "en" or "zh"."""
    chinese = language == "zh"
    match predicate:
        case None:
            return _in(_ALL_ROWS, language)
        case And(parts) | Or(parts):
            word = (" 且 " if chinese else " and ") if isinstance(predicate, And) else (" 或 " if chinese else " or ")
            return "(" + word.join(in_words(part, language) for part in parts) + ")"
        case Not(part):
            return ("非 " if chinese else "not ") + in_words(part, language)
        case IsNull(field):
            return f"{field} 缺失" if chinese else f"{field} is missing"
        case Compare(field, operator, value):
            return f"{field} {_SIGNS[operator]} {_value(value)}"
        case In(field, values):
            listed = ", ".join(_value(value) for value in values)
            return f"{field} 属于 {{{listed}}}" if chinese else f"{field} in {{{listed}}}"
        case Between(field, low, high):
            return f"{_value(low)} ≤ {field} ≤ {_value(high)}"


def _value(value: int | Fixed | str) -> str:
    """A number as it is, a text in quotation marks, so that no text reads as another filter."""
    if isinstance(value, str):
        plain = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in plain) + '"'
    return str(value.as_float()) if isinstance(value, Fixed) else str(value)
