"""The rules that came with version 2 of the terms, one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from privacy.decide import Decision, GrantBook, GrantState, Review, StateBook, UseRequest, decide
from privacy.grants.levels import ColumnFacts, DatasetFacts
from privacy.grants.opt_outs import OptOutState, PersonScopes
from privacy.grants.terms import DAY, CheckedGrant, GrantTerms, records_until
from privacy.masking.masks import Mask, MaskPlan
from privacy.predicate import And, Compare, In, IsNull, Not, Or, Predicate

Issue = Callable[..., tuple[CheckedGrant, GrantState]]
NOW, EXPIRES = 2_000_000, 3_000_000
WANG = b"w" * 16

COLUMNS = (
    ColumnFacts("visits", 2),
    ColumnFacts("plan", 1),
    ColumnFacts("health", 5),
    ColumnFacts("name", 4, "name"),
    ColumnFacts("born", 4, "date"),
    ColumnFacts("phone", 4, "phone"),
)
FIELDS = tuple(column.name for column in COLUMNS)


@pytest.fixture
def ask(terms: GrantTerms, request_: UseRequest, issue: Issue) -> Callable[..., Decision]:
    """Decide with changed terms (terms), request (asked), facts and other state; the book says the same."""

    def asked(
        change: dict[str, Any] | None = None, asked: dict[str, Any] | None = None, at: int = NOW, **state: Any
    ) -> Decision:
        grant, anchored = issue(msgspec.structs.replace(terms, **(change or {})))
        facts = state.pop("facts", None)
        whole = msgspec.structs.replace(anchored, datasets=() if facts is None else (facts,), **state)
        request = msgspec.structs.replace(request_, **(asked or {}))
        decision = decide(request, [grant], whole, at)
        assert decide(request, GrantBook([grant]), StateBook(whole), at) == decision
        return decision

    return asked


def facts(**changes: Any) -> DatasetFacts:
    return msgspec.structs.replace(DatasetFacts("claims-1", COLUMNS), **changes)


Ask = Callable[..., Decision]


def test_levels_up_to_the_ceiling(ask: Ask) -> None:
    decision = ask(facts=facts())
    assert (decision.rule, decision.missing) == ("level", "health")
    assert ask({"level_ceiling": 5}, facts=facts()).allowed
    assert ask(asked={"fields": ("visits",)}, facts=facts()).allowed
    # The request's own filter looks at a column too.
    hidden = ask(asked={"fields": ("visits",), "predicate": Compare("health", "eq", "poor")}, facts=facts())
    assert (hidden.rule, hidden.missing) == ("level", "health")
    # A column that was forgotten counts as 5, a dataset that was forgotten as 4.
    assert ask(facts=facts(columns=COLUMNS[1:])).missing == "health, visits"
    assert ask().allowed
    assert ask({"level_ceiling": 3}).missing == "health, plan, visits"


def test_facts_of_another_dataset_say_nothing(ask: Ask) -> None:
    assert ask(facts=facts(dataset="claims-2")).allowed


def test_two_classifications_are_none(terms: GrantTerms, request_: UseRequest, issue: Issue) -> None:
    grant, state = issue(terms)
    both = msgspec.structs.replace(state, datasets=(facts(), facts(columns=())))
    assert decide(request_, [grant], both, NOW).rule == "error"
    with pytest.raises(ValueError, match="one classification"):
        StateBook(both)


@pytest.mark.parametrize(
    ("held", "ceiling", "asked", "rule"),
    [
        ("general", "general", {}, "granted"),
        ("important", "general", {}, "statutory-class"),
        ("important", "important", {}, "granted"),
        ("core", "important", {}, "statutory-class"),
        ("core", "core", {}, "granted"),
        ("core", "core", {"commercial": True}, "statutory-class"),
        ("core", "core", {"jurisdiction": "US"}, "statutory-class"),
        ("important", "core", {}, "granted"),
    ],
)
def test_the_statutory_class(ask: Ask, held: Any, ceiling: Any, asked: dict[str, Any], rule: str) -> None:
    change = {"class_ceiling": ceiling, "level_ceiling": 5, "legal_basis": "separate-consent", "commercial": True}
    if "jurisdiction" in asked:
        change |= {"jurisdiction": "US", "transfer_ref": "assessment/1"}
    assert ask(change, asked, facts=facts(statutory_class=held)).rule == rule


@pytest.mark.parametrize(
    ("change", "asked", "held", "rule"),
    [
        ({}, {}, {}, "guardian"),
        ({"guardian_ref": "guardians/7"}, {}, {}, "granted"),
        ({"legal_basis": "separate-consent"}, {}, {}, "guardian"),
        ({"legal_basis": "statutory-duty"}, {}, {}, "granted"),
        ({}, {}, {"minors": False}, "granted"),
        ({"predicate": Compare("visits", "ge", 14)}, {}, {"age_column": "visits"}, "granted"),
        ({"predicate": Compare("visits", "ge", 13)}, {}, {"age_column": "visits"}, "guardian"),
        ({}, {"predicate": Compare("visits", "ge", 14)}, {"age_column": "visits"}, "granted"),
        ({"predicate": Compare("visits", "ge", 14)}, {}, {"age_column": ""}, "guardian"),
        ({"predicate": Compare("visits", "ge", 14)}, {}, {"age_column": "plan"}, "guardian"),
    ],
)
def test_guardians_consent_for_children(
    ask: Ask, change: dict[str, Any], asked: dict[str, Any], held: dict[str, Any], rule: str
) -> None:
    change = {"level_ceiling": 5} | change
    assert ask(change, asked, facts=facts(**({"minors": True} | held))).rule == rule


def test_a_grant_rests_until_it_was_reviewed(ask: Ask, terms: GrantTerms, request_: UseRequest, issue: Issue) -> None:
    due = {"review": NOW}
    assert ask(due, at=NOW - 1).allowed
    denied = ask(due)
    assert (denied.rule, denied.missing) == ("review", "1970-01-01T00:33:20Z")
    grant, state = issue(msgspec.structs.replace(terms, **due))
    for review, rule in (
        (Review("grant-1", grant.commitment, NOW - 5, NOW + 1), "granted"),
        (Review("grant-1", grant.commitment, NOW, NOW + 1), "granted"),
        (Review("grant-1", grant.commitment, NOW - 5, NOW), "review"),
        (Review("grant-1", bytes(32), NOW - 5, NOW + 9), "review"),  # of other terms
        (Review("grant-2", grant.commitment, NOW - 5, NOW + 9), "review"),
        (Review("grant-1", grant.commitment, NOW + 1, NOW + 9), "review"),  # not made yet
    ):
        reviewed = msgspec.structs.replace(state, reviews=(review,))
        assert decide(request_, [grant], reviewed, NOW).rule == rule
        assert decide(request_, [grant], StateBook(reviewed), NOW).rule == rule
    # A review lengthens no grant.
    late = msgspec.structs.replace(state, reviews=(Review("grant-1", grant.commitment, NOW, 2**60),))
    assert decide(request_, [grant], late, EXPIRES).rule == "period"


@pytest.mark.parametrize(
    ("condition", "asked", "rule"),
    [
        ("NCU", {}, "granted"),
        ("NCU", {"commercial": True}, "conditions"),
        ("NPUNCU", {"commercial": True}, "conditions"),
        ("PUB", {"commercial": True}, "granted"),
        ("NPOA", {"purpose": "POA"}, "conditions"),
        ("NPOA", {"purpose": "POARCH"}, "conditions"),
        ("NPOA", {"purpose": "DS"}, "granted"),
        ("NCU", {"purpose": "HMARKT"}, "conditions"),
    ],
)
def test_conditions_that_can_be_judged(ask: Ask, condition: str, asked: dict[str, Any], rule: str) -> None:
    change = {
        "conditions": (condition,),
        "commercial": True,
        "legal_basis": "separate-consent",
        "purposes": ("HRESCH", "HMARKT"),
    }
    assert ask(change, asked).rule == rule


def test_records_of_sharing_are_kept_three_years(ask: Ask) -> None:
    assert ask({"records_until": NOW + 1096 * DAY}).allowed
    denied = ask({"records_until": NOW + 1096 * DAY - 1})
    assert (denied.rule, denied.missing) == ("sharing-record", "1973-01-01T00:33:19Z")
    assert records_until(EXPIRES) - EXPIRES == 1096 * DAY
    assert records_until(2**63 - 1) == 2**63 - 1


def whole(**changes: Any) -> dict[str, Any]:
    return {"fields": FIELDS, "uses": ("query", "extract", "view"), "level_ceiling": 5} | changes


def test_masks_of_copies_and_of_nothing_else(ask: Ask) -> None:
    got = ask(whole(), {"fields": FIELDS, "kind": "extract"}, facts=facts())
    assert [(column.field, column.level, column.mask.kind) for column in got.columns] == [
        ("visits", 2, "keep"),
        ("plan", 1, "keep"),
        ("health", 5, "drop"),
        ("name", 4, "surname"),
        ("born", 4, "shift"),
        ("phone", 4, "phone"),
    ]
    assert got.mask_plan(45_000) == MaskPlan(tuple(column.mask for column in got.columns), 45_000)
    assert (got.min_group, got.delete_by) == (5, EXPIRES + 1000)
    sums = ask(whole(), {"fields": FIELDS}, facts=facts())
    assert {column.mask.kind for column in sums.columns} == {"keep"}
    # What the request only filters by does not leave.
    few = ask(whole(), {"fields": ("visits",), "kind": "extract"}, facts=facts())
    assert [column.field for column in few.columns] == ["visits"]


def test_treating_staff_see_what_they_treat(ask: Ask) -> None:
    decision = ask(whole(purposes=("TREAT",)), {"fields": FIELDS, "kind": "view", "purpose": "ETREAT"}, facts=facts())
    assert {column.mask.kind for column in decision.columns} == {"keep"}


@pytest.mark.parametrize(
    ("mask", "basis", "rule"),
    [
        (Mask("health", "keep"), "consent", "granted"),
        (Mask("name", "drop"), "consent", "granted"),
        (Mask("visits", "drop"), "consent", "granted"),
        (Mask("visits", "band", (0, 10)), "consent", "granted"),
        (Mask("name", "pseudonym"), "consent", "granted"),
        (Mask("born", "pseudonym"), "consent", "masks"),
        (Mask("name", "keep"), "consent", "masks"),
        (Mask("name", "keep"), "contract", "masks"),
        (Mask("name", "keep"), "separate-consent", "granted"),
        (Mask("name", "keep"), "statutory-duty", "granted"),
        (Mask("name", "phone"), "separate-consent", "masks"),
        (Mask("visits", "surname"), "separate-consent", "masks"),
    ],
)
def test_masks_that_the_grant_chose(ask: Ask, mask: Mask, basis: Any, rule: str) -> None:
    decision = ask(whole(masks=(mask,), legal_basis=basis), {"fields": FIELDS, "kind": "extract"}, facts=facts())
    assert decision.rule == rule
    if rule == "granted":
        assert mask in [column.mask for column in decision.columns if column.field == mask.field]
    else:
        assert decision.missing == mask.field
        assert ask(whole(masks=(mask,), legal_basis=basis), {"fields": FIELDS}, facts=facts()).allowed  # sums
        assert ask(
            whole(masks=(mask,), legal_basis=basis), {"fields": ("plan",), "kind": "extract"}, facts=facts()
        ).allowed


def test_a_copy_is_kept_so_long(ask: Ask) -> None:
    late = {"delete_by": EXPIRES + 900 * DAY}
    assert ask(late | {"keep_days": 3}).delete_by == NOW + 3 * DAY
    assert ask(late | {"keep_days": 36_600}).delete_by == EXPIRES + 900 * DAY


def test_opt_outs_are_left_out_or_deny(ask: Ask) -> None:
    scopes = OptOutState(
        ("all", "purpose:DS", "recipient:insurer-1", "recipient:university"),
        (PersonScopes(WANG, ("all",)), PersonScopes(b"l" * 16, ("recipient:insurer-1",))),
    )
    of_many = ask(opt_outs=scopes)
    assert of_many.allowed
    assert of_many.excluded == ("all", "recipient:university")
    assert ask({"legal_basis": "statutory-duty"}, opt_outs=scopes).excluded == ()
    of_wang = ask(asked={"person": WANG}, opt_outs=scopes)
    assert (of_wang.rule, of_wang.missing, of_wang.excluded) == ("opt-out", "all", ())
    of_li = ask(asked={"person": b"l" * 16}, opt_outs=scopes)
    assert of_li.allowed
    assert of_li.excluded == ()  # it is about nobody else
    assert ask({"legal_basis": "statutory-duty"}, {"person": WANG}, opt_outs=scopes).allowed
    assert ask(asked={"person": b"short"}, opt_outs=scopes).rule == "opt-out"
    # Somebody whose opt-outs nobody looked up: not known is no.
    assert ask(asked={"person": b"z" * 16}, opt_outs=scopes).missing == "opt-out"
    assert ask(asked={"person": WANG}).rule == "error"
    assert "grant-1" in of_wang.text("zh")


def test_a_denial_tells_nothing_of_what_an_allowed_use_gets(ask: Ask) -> None:
    denied = ask(asked={"purpose": "FRAUD"}, opt_outs=OptOutState(("all",)), facts=facts())
    assert (denied.rows, denied.excluded, denied.columns, denied.min_group, denied.delete_by) == (None, (), (), 0, 0)


@pytest.mark.parametrize(
    ("asked", "rule"),
    [
        ({"kind": ""}, "known-use"),
        ({"purpose": ""}, "known-use"),
        ({"kind": "", "purpose": ""}, "known-use"),
        ({"jurisdiction": ""}, "jurisdiction"),
        ({"fields": ("",)}, "fields"),
        ({"fields": ("", "visits")}, "fields"),
        ({"kind": "Query"}, "known-use"),
        ({"purpose": "hresch"}, "known-use"),
        ({"fields": ("visits ",)}, "fields"),
    ],
)
def test_what_a_request_leaves_empty_or_spells_otherwise_is_no_yes(ask: Ask, asked: dict[str, Any], rule: str) -> None:
    """An empty text would be what a rule says when it is met."""
    denied = ask(asked=asked)
    assert (denied.allowed, denied.rule) == (False, rule)
    assert denied.missing.strip()


@pytest.mark.parametrize("blank", ["", " ", "\u3000", "\u200b", "-", "\u00a0\t"])
@pytest.mark.parametrize(
    ("reference", "change", "asked", "rule"),
    [
        ("consent_ref", {}, {}, "legal-basis"),
        ("pia_ref", {}, {}, "impact-assessment"),
        ("transfer_ref", {"jurisdiction": "US"}, {"jurisdiction": "US"}, "jurisdiction"),
        ("guardian_ref", {"level_ceiling": 5}, {}, "guardian"),
    ],
)
def test_a_blank_refers_to_nothing(
    ask: Ask, reference: str, change: dict[str, Any], asked: dict[str, Any], rule: str, blank: str
) -> None:
    held = {"facts": facts(minors=True)} if reference == "guardian_ref" else {}
    assert ask(change | {reference: "件 7"}, asked, **held).allowed
    assert ask(change | {reference: blank}, asked, **held).rule == rule


def test_nobody_copies_records_of_which_nobody_said_what_they_hold(ask: Ask) -> None:
    """Unclassified cells count as level 4 and plain: a name in one of them would leave as it is."""
    for kind in ("extract", "view", "export"):
        change = whole(uses=("query", "extract", "view", "export"), purposes=("HRESCH", "TREAT"))
        denied = ask(change, {"fields": ("name",), "kind": kind})
        assert (denied.rule, denied.missing) == ("classified", "claims-1")
        assert "datasets classify" in denied.fix
        assert ask(change, {"fields": ("name",), "kind": kind}, facts=facts(columns=())).rule == "classified"
        assert ask(change, {"fields": ("name",), "kind": kind}, facts=facts()).allowed
        assert ask(change, {"fields": ("name",), "kind": kind, "purpose": "TREAT"}).allowed  # nothing is masked
    assert ask(whole(), {"fields": ("name",)}).allowed  # sums show no cell


@pytest.mark.parametrize(
    "predicate",
    [
        Compare("phone", "eq", "13812345678"),
        Not(IsNull("phone")),
        In("name", ("王五",)),
        And((Compare("visits", "ge", 1), Or((Compare("born", "ge", 10_000), Compare("plan", "eq", "a"))))),
        Compare("health", "eq", "hiv"),
    ],
)
def test_a_recipient_does_not_ask_a_masked_cell_what_it_holds(ask: Ask, predicate: Predicate) -> None:
    """Rows that pass a filter on a cell tell the cell, whatever its mask: one extract a bit."""
    for kind in ("extract", "view"):
        denied = ask(whole(), {"fields": ("visits",), "kind": kind, "predicate": predicate}, facts=facts())
        assert denied.rule == "filter"
        assert denied.missing in ("phone", "name", "born", "health")
    # The issuer's own filter is its own choice, and so is a mask that leaves the cells as they are.
    assert ask(whole(predicate=predicate), {"fields": ("visits",), "kind": "extract"}, facts=facts()).allowed
    kept = tuple(Mask(name, "keep") for name in ("phone", "name", "born", "health"))
    open_ = whole(masks=kept, legal_basis="separate-consent")
    assert ask(open_, {"fields": ("visits",), "kind": "extract", "predicate": predicate}, facts=facts()).allowed


def test_a_filter_of_open_cells_is_the_recipients_own(ask: Ask) -> None:
    asked = {"fields": ("name",), "kind": "extract", "predicate": Compare("visits", "ge", 1)}
    assert ask(whole(), asked, facts=facts()).allowed
    banded = ask(whole(masks=(Mask("visits", "band", (0, 10)),)), asked, facts=facts())
    assert (banded.rule, banded.missing) == ("filter", "visits")


def test_the_ceiling_holds_for_the_grants_own_filter(ask: Ask) -> None:
    """Rows chosen by a stigmatised illness tell it of everybody in them."""
    ill = {"predicate": Compare("health", "eq", "hiv"), "fields": FIELDS}
    denied = ask(ill, {"fields": ("visits",), "predicate": None}, facts=facts())
    assert (denied.rule, denied.missing) == ("level", "health")
    assert ask(ill | {"level_ceiling": 5}, {"fields": ("visits",), "predicate": None}, facts=facts()).allowed


@pytest.mark.parametrize("other", [{"holder": "hospital-2"}, {"recipient": "insurer-1"}, {"dataset": "claims-2"}])
def test_a_book_that_finds_the_wrong_grants_allows_nothing(
    terms: GrantTerms, request_: UseRequest, issue: Issue, monkeypatch: pytest.MonkeyPatch, other: dict[str, str]
) -> None:
    """Grants are looked up by their parties, and judged by them again: a wrong index is no permission."""
    grant, state = issue(terms)
    book = GrantBook([grant])
    monkeypatch.setattr(GrantBook, "of", lambda self, *_: self.entries())
    assert decide(request_, book, state, NOW).allowed
    assert decide(msgspec.structs.replace(request_, **other), book, state, NOW).rule == "parties"
