"""A query explained: what each site computes, what leaves it, noise and cost, in data and in words."""

from __future__ import annotations

import re
import string
from typing import Any

import msgspec
import pytest

from ledger.contracts import queries
from medveil.gateway import explained_words
from medveil.gateway.explained_words import words
from medveil.gateway.explaining import Beside, Explanation, explain_query, near_sums
from medveil.gateway.question import make_query
from mpc.cells import gate_layout, most_cells, sums_layout
from mpc.history import Earlier, Forgotten, NearSums, near_rosters
from mpc.query_document import Measured
from wire.errors import Refused

from .test_question import COST, SITES, WARD, asked, ledger, table

FILTER = {"all": [{"column": "age", "at_least": 18}, {"column": "ward", "not_equals": "east"}]}


def explained(document: Any, state: Any) -> Explanation:
    return explain_query(make_query(document, state, "c"), state)


def said(document: Any, state: Any = None, language: str = "en") -> str:
    sections = words(explained(document, state or ledger()), language)
    return "\n".join(line for section in sections for line in (section.title, *section.lines))


def test_noise_and_cost() -> None:
    few, many = (explained(asked(by=("ward",), rho=rho), ledger()) for rho in ("0.01", "1"))
    assert (few.before, few.after, many.after) == (10**9, 990_000_000, 0)
    assert [one.kind for one in few.noise] == ["gate", "counts", "sums", "squares"]
    assert all(float(a.pooled) > float(b.pooled) for a, b in zip(few.noise, many.noise, strict=True))
    assert {one.assumption for one in few.epsilons} == {"all-honest", "colluders", "one-honest"}
    poor = explained(asked(rho="2"), ledger())
    assert poor.after == -(10**9) and "not enough" in said(asked(rho="2"))
    assert "0.25 of the budget of stays (rho), which has 1 available: 0.75 would be left." in said(asked())


@pytest.mark.parametrize("edges", [(), ("0", "10", "100")])
def test_what_leaves_is_what_the_layouts_have(edges: tuple[str, ...]) -> None:
    found = explained(asked(Measured("cost", edges=edges), by=("ward",)), ledger())
    layouts = gate_layout(found.query), sums_layout(found.query, (tuple(range(3)),))
    cells = {(layout.phase, block.scale.kind): block.cells for layout in layouts for block in layout.blocks}
    assert {(one.phase, one.kind): one.cells for one in found.leaving} == cells
    assert found.cells == most_cells(found.query) and found.groups == ("ward=east", "ward=west", "ward=other")


def test_each_site_by_its_table_and_columns() -> None:
    state = ledger(unit="person", rows_per_person=3)
    found = explained(asked(by=("ward",), filter=FILTER, person="patient"), state)
    assert [(one.site, one.dataset) for one in found.sites] == [(f"site-{at}", f"stays-site-{at}") for at in "abc"]
    assert {one.reads for one in found.sites} == {("age", "cost", "patient", "ward")}
    text = said(
        asked(Measured("cost", "0", "50", missing=("7",)), by=("ward",), filter=FILTER, person="patient"), state
    )
    for phrase in (
        "site-a over its table stays-site-a",
        "reads the columns age, cost, patient, ward;",
        '(age \u2265 18 and ward \u2260 "east")',
        "cost: leaves out rows without it or with 7, which stand for not known, rounds to 1/100",
        "below 0 as 0 and above 50 as 50;",
        "at most 3 rows of one person (patient says whose a row is, and never leaves)",
        "one of 3 groups, by ward (east, west, other)",
        "First 3 numbers:",
        "at most 9 numbers:",
        "totals over at least 3 of the 3 sites are opened",
        "neighbouring data differ by up to 9 rows over all sites",
        "below 10 shows that number and nothing else",
        "any of 3 can be: ward=east, ward=west, ward=other.",
    ):
        assert phrase in text, phrase


def test_one_row_and_whole_numbers_read_as_such() -> None:
    whole = msgspec.structs.replace(COST, scale=1, low=0, high=50)
    text = said(asked(), ledger(*(table(site, site, (whole, WARD)) for site in SITES)))
    assert "by up to 1 row over all sites" in text and "rounds to whole numbers, counts" in text
    persons = said(asked(person="patient"), ledger(unit="person", rows_per_person=1))
    assert "counts at most 1 row of one person (patient" in persons
    assert "a site whose table says whose a row is refuses that" in said(asked(), ledger(unit="person"))


def test_both_languages_say_all_of_it() -> None:
    document = asked(Measured("cost", edges=("0", "10", "100")), by=("ward",), filter=FILTER)
    english, chinese = (said(document, language=language) for language in ("en", "zh"))
    assert english.count("\n") == chinese.count("\n")
    numbers = [re.findall(r"[0-9.]*[0-9]", text) for text in (english, chinese)]
    assert sorted(numbers[0]) == sorted(numbers[1])
    for line in chinese.split("\n"):
        assert any("\u4e00" <= character <= "\u9fff" for character in line)
    for text in (english, chinese):
        assert "{" not in text and "}" not in text


def test_the_words_name_the_same_facts_in_both_languages() -> None:
    tables = [value for value in vars(explained_words).values() if isinstance(value, dict)]
    pairs = [pair for table in tables for pair in table.values() if isinstance(pair, tuple) and len(pair) == 2]
    assert len(pairs) > 30
    for english, chinese in pairs:
        names = [{name for _, name, _, _ in string.Formatter().parse(text) if name} for text in (english, chinese)]
        assert names[0] == names[1], english


def test_of_many_groups_the_first_are_named() -> None:
    values = tuple(f"ward-{at:02}" for at in range(30))
    tables = [table(site, site, (COST, msgspec.structs.replace(WARD, values=values))) for site in SITES]
    text = said(asked(by=("ward",)), ledger(*tables))
    assert "any of 31 can be: ward=ward-00" in text and "ward=ward-19, and 11 more." in text
    assert "ward=ward-20" not in text


def test_earlier_queries_that_matter_are_named() -> None:
    """One next to which sites refuse it, sums next to which its release will be labelled, one that answers it."""
    state, handle = ledger(), bytes(range(16))
    query = make_query(asked(), state, "c")
    more = msgspec.structs.replace(query, roster=(*SITES, "site-d"), datasets=(*query.datasets, "d"))
    assert near_sums(query, state) == ()
    for number, sites in enumerate((SITES, more.roster, ("site-a", "site-e", "site-f", "site-g")), 1):
        state.put(queries.set_key("stays", number), queries.SummedSet(sites, handle, 2, 5))
    state.put(queries.sets_key("stays"), queries.SummedSets(3))
    near = near_sums(query, state)
    assert near == (NearSums(handle, 2, 5, ("site-d",)),) and near_sums(query, state, handle) == ()
    refused = near_rosters(query, [Earlier(handle, more)])
    for beside, phrases in (
        (Beside(), ("No earlier query known here",)),
        (Beside(answered=handle), (f"answered already, in release {handle.hex()}", "No earlier query known here")),
        (Beside(refused=refused), ("disclose what site-d add", "site-a, site-b, site-c, site-d", "at least 3 sites")),
        (Beside(forgotten=(Forgotten(handle, SITES),)), ("does not know what it asked", handle.hex(), "refuses this")),
        (Beside(near=near), ("by site-d (phase 2; 5 in all)", "will say that both together")),
    ):
        found = explain_query(query, state, beside)
        english = "\n".join(words(found)[-1].lines)
        assert ("No earlier query known here" in english) == (beside in (Beside(), Beside(answered=handle)))
        assert all(phrase in english for phrase in phrases) and "refuse one that is too near" in english
        assert len(words(found, "zh")[-1].lines) == len(words(found)[-1].lines)


def test_rows_alone_and_several_measures() -> None:
    rows = msgspec.structs.replace(asked(by=("ward",)), measures=())
    found = explained(rows, ledger())
    assert [(one.phase, one.kind, one.measure, one.cells) for one in found.leaving] == [
        (1, "gate", "", 3),
        (2, "counts", "", 3),
    ]
    assert "First 3 numbers: rows, by which groups pass." in said(rows)
    several = asked(Measured("cost", weight=4), Measured("age", edges=("0", "18", "120"), weight=2), by=("ward",))
    found = explained(several, ledger())
    assert [(one.column, one.weight) for one in found.query.measures] == [("age", 1), ("cost", 2)]
    assert {one.measure for one in found.noise} == {"age", "cost"} and found.cells == 3 * (4 + 2 + 4)
    text = said(several)
    assert "rows in each bin of age" in text and "sums of squares of cost" in text and "bins end at 0, 18, 120" in text


EXACTLY = {"by": ("ward",), "exact": True, "rho": "0.5"}


def test_an_exact_question_is_for_a_public_population() -> None:
    with pytest.raises(Refused) as caught:
        make_query(asked(**EXACTLY), ledger(), "c")
    assert caught.value.code == "mpc.not_public"
    query = make_query(asked(**EXACTLY), ledger(public=True), "c")
    assert query.exact and query.split.gate == query.rho_nano == 500_000_000
    assert not make_query(asked(by=("ward",)), ledger(public=True), "c").exact


@pytest.mark.parametrize("language", ["en", "zh"])
def test_what_an_exact_question_is_in_words(language: str) -> None:
    exact, noisy = (said(asked(**(EXACTLY | {"exact": one})), ledger(public=True), language) for one in (True, False))
    for text in {
        "en": ("exact, without noise", "not differentially private", "declared it public", "surely has 10 rows"),
        "zh": ("精确值，无噪声", "不满足差分隐私", "声明为公开", "确有至少 10 行"),
    }[language]:
        assert text in exact and text not in noisy


def test_an_exact_question_beside_an_earlier_one() -> None:
    state = ledger(public=True)
    query = make_query(asked(**EXACTLY), state, "c")
    beside = Beside(exact=(Earlier(bytes(range(16)), query),))
    for language, text in (("en", "will refuse it"), ("zh", "会拒绝本查询")):
        sections = words(explain_query(query, state, beside), language)
        assert any(text in line and bytes(range(16)).hex() in line for one in sections for line in one.lines)
