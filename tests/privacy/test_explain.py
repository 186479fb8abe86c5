"""Explanations say what decisions say: nothing is explained as allowed that is denied, or the other way round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from privacy.decide import GrantState, UseRequest, decide
from privacy.explain import MASK_TITLES, USE_TITLES, in_words, judged, uses, who_sees
from privacy.grants.levels import ColumnFacts, DatasetFacts
from privacy.grants.opt_outs import OptOutState
from privacy.grants.purposes import PURPOSES
from privacy.grants.terms import USE_KINDS, CheckedGrant, GrantTerms
from privacy.masking.masks import MASK_KINDS, Mask
from privacy.predicate import And, Between, Compare, Fixed, In, IsNull, Not, Or
from privacy.rules import RULES

Issue = Callable[..., tuple[CheckedGrant, GrantState]]
NOW = 2_000_000
FACTS = DatasetFacts(
    "claims-1",
    (ColumnFacts("visits", 2), ColumnFacts("health", 5), ColumnFacts("name", 4, "name"), ColumnFacts("plan", 1)),
)


@pytest.fixture
def world(terms: GrantTerms, issue: Issue) -> tuple[list[CheckedGrant], GrantState]:
    """Four grants of one dataset: two in force, one revoked, one that rests; opt-outs of some."""
    made, anchors = [], []
    for name, changes, entry in (
        ("study", {"fields": ("visits", "name", "health", "plan"), "uses": ("query", "extract")}, {}),
        ("care", {"recipient": "clinic", "fields": ("name", "visits"), "purposes": ("TREAT",), "uses": ("view",)}, {}),
        ("gone", {"fields": ("visits",)}, {"revoked": True}),
        ("rests", {"fields": ("visits",), "review": NOW - 1}, {}),
    ):
        grant, state = issue(msgspec.structs.replace(terms, grant=name, **changes), **entry)
        made.append(grant)
        anchors += state.anchored
    opted = OptOutState(("recipient:university", "use:view"))
    return made, GrantState(tuple(anchors), datasets=(FACTS,), opt_outs=opted)


World = tuple[list[CheckedGrant], GrantState]


def test_what_somebody_may_do_and_why(world: World) -> None:
    found = {(one.terms.grant, one.kind): one for one in uses("hospital-1", "university", "claims-1", *world, NOW)}
    assert set(found) == {("study", "query"), ("study", "extract"), ("gone", "query"), ("rests", "query")}
    query = found["study", "query"]
    assert query.fields == ("visits", "name", "plan")
    assert query.excluded == ("recipient:university",)
    assert [one.rule for one in query.verdicts.verdicts if not one.met] == ["level"]
    assert (query.until, query.purpose, "DS" in query.narrower) == (3_000_000, "HRESCH", True)
    extract = found["study", "extract"]
    assert [column.mask.kind for column in extract.columns] == ["keep", "surname", "keep"]
    for grant, rule in (("gone", "revocation"), ("rests", "review")):
        one = found[grant, "query"]
        assert (one.allowed, one.fields, one.columns) == (False, (), ())
        assert [verdict.rule for verdict in one.verdicts.verdicts if not verdict.met] == [rule]


def test_in_words_of_both_languages(world: World) -> None:
    said = uses("hospital-1", "university", "claims-1", *world, NOW)
    english = [one.text() for one in said]
    chinese = [one.text("zh") for one in said]
    study = next(text for text in english if "study" in text and "extract" in text)
    for part in (
        "university",
        "claims-1",
        "name (surname only)",
        "visits ≥ 0",
        "healthcare research",
        "1970-01-01T00:50",
    ):
        assert part in study
    assert any("revoked" in text for text in english)
    assert any("name（仅姓氏）" in text and "医疗卫生研究" in text for text in chinese)
    assert not [text for text in english + chinese if "{" in text or "privacy." in text]


def test_every_rule_has_its_verdict_of_every_grant(world: World, request_: UseRequest) -> None:
    grants, state = world
    found = judged(msgspec.structs.replace(request_, fields=("health",), predicate=None), grants, state, NOW)
    assert [one.grant for one in found] == ["gone", "rests", "study"]
    for one in found:
        assert [verdict.rule for verdict in one.verdicts] == [name for name, _ in RULES]
        assert not one.allowed
    by = {one.grant: [verdict.rule for verdict in one.verdicts if not verdict.met] for one in found}
    assert by == {"gone": ["revocation", "fields", "level"], "rests": ["review", "fields", "level"], "study": ["level"]}
    assert len(found[0].text()) == 3
    assert "health" in found[2].text("zh")[0]


def test_a_rule_that_cannot_be_judged_is_not_met(world: World, request_: UseRequest) -> None:
    grants, state = world
    broken = msgspec.structs.replace(state, datasets=(FACTS, FACTS))
    for one in judged(request_, grants, broken, NOW):
        assert not one.allowed
        assert "error" in [verdict.missing for verdict in one.verdicts]


def test_explained_and_decided_are_the_same(world: World, request_: UseRequest) -> None:
    grants, state = world
    for recipient in ("university", "clinic", "nobody"):
        for one in uses("hospital-1", recipient, "claims-1", grants, state, NOW):
            alone = [grant for grant in grants if grant.terms.grant == one.terms.grant]
            for field in one.terms.fields:
                request = UseRequest("hospital-1", recipient, "claims-1", (field,), one.kind, one.purpose)
                assert decide(request, alone, state, NOW).allowed == (field in one.fields)
    for kind in USE_KINDS:
        for purpose in PURPOSES:
            request = msgspec.structs.replace(request_, kind=kind, purpose=purpose)
            allowed = decide(request, grants, state, NOW).allowed
            assert allowed == any(one.allowed for one in judged(request, grants, state, NOW))


def test_who_sees_a_field_of_this_person(world: World) -> None:
    grants, state = world
    seen = who_sees("name", "claims-1", grants, state, NOW)
    assert [(one.recipient, one.kind, one.mask, one.cell) for one in seen] == [
        ("clinic", "view", "keep", True),
        ("university", "query", "keep", False),
        ("university", "extract", "surname", True),
    ]
    assert "as it is" in seen[0].text() and "仅姓氏" in seen[2].text("zh") and "counts in results" in seen[1].text()
    # Stigmatised: beyond the ceiling of every grant.
    assert who_sees("health", "claims-1", grants, state, NOW) == ()
    assert who_sees("name", "claims-2", grants, state, NOW) == ()
    # What the person opted out of.
    scopes = ("use:view", "purpose:HRESCH")
    assert who_sees("name", "claims-1", grants, state, NOW, scopes=scopes) == ()
    # A row filter that leaves this person's rows out: nobody's grant reaches them.
    rows = pa.table({"visits": [-1, None], "name": ["a", "b"]})
    assert who_sees("name", "claims-1", grants, state, NOW, rows=rows) == ()
    reached = pa.table({"visits": [-1, 3], "name": ["a", "b"]})
    assert len(who_sees("name", "claims-1", grants, state, NOW, rows=reached)) == 3
    # Rows without the column: it is not known, so the grant counts.
    assert len(who_sees("name", "claims-1", grants, state, NOW, rows=pa.table({"name": ["a"]}))) == 3
    assert who_sees("name", "claims-1", grants, state, 3_000_000) == ()


def test_a_column_that_a_mask_drops_is_not_seen(terms: GrantTerms, issue: Issue) -> None:
    grant, state = issue(msgspec.structs.replace(terms, uses=("extract",), masks=(Mask("plan", "drop"),)))
    state = msgspec.structs.replace(state, datasets=(FACTS,))
    assert who_sees("plan", "claims-1", [grant], state, NOW) == ()
    assert len(who_sees("visits", "claims-1", [grant], state, NOW)) == 1


def test_titles_are_there_for_all() -> None:
    assert set(USE_TITLES) == set(USE_KINDS)
    assert set(MASK_TITLES) == set(MASK_KINDS)


@pytest.mark.parametrize(
    ("predicate", "english", "chinese"),
    [
        (None, "all", "全部"),
        (Compare("age", "ge", 18), "age ≥ 18", "age ≥ 18"),
        (Between("cost", 0, Fixed(995, 10)), "0 ≤ cost ≤ 99.5", "0 ≤ cost ≤ 99.5"),
        (
            And((In("sex", ("f", "m")), Not(Or((IsNull("age"), Compare("age", "lt", 3)))))),
            '(sex in {"f", "m"} and not (age is missing or age < 3))',
            '(sex 属于 {"f", "m"} 且 非 (age 缺失 或 age < 3))',
        ),
    ],
)
def test_filters_in_words(predicate: Any, english: str, chinese: str) -> None:
    assert in_words(predicate) == english
    assert in_words(predicate, "zh") == chinese


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (In("sex", ("f", "m")), In("sex", ("f, m",))),
        (In("sex", ("f", "m")), In("sex", ('f", "m',))),
        (Compare("sex", "eq", "1"), Compare("sex", "eq", 1)),
        (
            Or((Compare("a", "eq", "x"), Compare("b", "eq", "y"))),
            Or((Compare("a", "eq", "x or b = y"),)),
        ),
        (And((Compare("a", "eq", "x) and (b = 1"),)), And((Compare("a", "eq", "x"), Compare("b", "eq", 1)))),
        (Compare("sex", "eq", "\\"), Compare("sex", "eq", "\\\\")),
    ],
)
def test_no_text_reads_as_another_filter(one: Any, other: Any) -> None:
    for language in ("en", "zh"):
        assert in_words(one, language) != in_words(other, language)


def test_a_text_that_turns_the_line_around_is_shown_as_what_it_is() -> None:
    shown = in_words(Compare("sex", "eq", "f\u202em\u200b\x1b[2J"))
    assert shown == 'sex = "f\\u{202e}m\\u{200b}\\u{1b}[2J"'


def test_what_may_serve_sales_is_said_so(terms: GrantTerms, issue: Issue) -> None:
    for commercial, basis in ((True, "separate-consent"), (True, "consent"), (False, "separate-consent")):
        grant, state = issue(msgspec.structs.replace(terms, commercial=commercial, legal_basis=basis))
        (use,) = uses("hospital-1", "university", "claims-1", [grant], state, NOW)
        request = UseRequest("hospital-1", "university", "claims-1", ("visits",), "query", "HRESCH", commercial=True)
        assert use.commercial == decide(request, [grant], state, NOW).allowed
        assert ("sales" in use.text()) == use.commercial == ("商业" in use.text("zh"))


def test_no_narrower_purpose_is_promised_that_a_condition_denies(terms: GrantTerms, issue: Issue) -> None:
    grant, state = issue(msgspec.structs.replace(terms, conditions=("NPOA",)))
    (use,) = uses("hospital-1", "university", "claims-1", [grant], state, NOW)
    assert "DS" in use.narrower and not {"POA", "POARCH"} & set(use.narrower)


def test_a_column_that_rows_are_chosen_by_is_seen(terms: GrantTerms, issue: Issue) -> None:
    """All rows of the extract are of people with this illness: the column need not leave to be told."""
    chosen = Compare("health", "eq", "hiv")
    changes = {"uses": ("extract", "query"), "predicate": chosen, "level_ceiling": 5}
    grant, state = issue(msgspec.structs.replace(terms, **changes))
    state = msgspec.structs.replace(state, datasets=(FACTS,))
    seen = who_sees("health", "claims-1", [grant], state, NOW)
    assert [(one.kind, one.mask, one.cell) for one in seen] == [("extract", "drop", False), ("query", "keep", False)]
    assert "counts in results" in seen[0].text()
    below, state_below = issue(msgspec.structs.replace(terms, **(changes | {"level_ceiling": 4})))
    state_below = msgspec.structs.replace(state_below, datasets=(FACTS,))
    assert who_sees("health", "claims-1", [below], state_below, NOW) == ()
