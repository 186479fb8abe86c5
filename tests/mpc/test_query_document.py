"""The query document: what is read comes back the same; what does not fit is told by field, never by value."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc.query_document import (
    LARGEST,
    MEANINGS,
    Grouped,
    Measured,
    QueryDocument,
    check_document,
    parse_document,
    read_document,
    schema,
    show_document,
)
from wire.errors import DecodeError

LEAST: dict[str, Any] = {"population": "stays", "purpose": "HMB", "rho": "0.25"}
WHOLE: dict[str, Any] = {
    "version": 1,
    "population": "stays",
    "measures": [
        {"column": "cost", "low": "0", "high": "99.50", "edges": ["0", "10", "99.50"], "missing": ["0"], "weight": 2},
        {"column": "days"},
    ],
    "groups": [{"column": "ward", "other": False}, {"column": "sex"}],
    "filter": {"all": [{"column": "age", "at_least": 18}, {"column": "ward", "in": ["east", "南"]}]},
    "purpose": "HMB",
    "rho": "0.25",
    "roster": ["site-a", "site-b", "site-c"],
    "datasets": ["stays-a"],
    "person": "patient",
    "delta": "1e-6",
    "minimum_group": 20,
    "commercial": True,
    "jurisdiction": "DE",
}


def refused(value: object) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        parse_document(value)
    return caught.value


def test_a_whole_document_and_a_least_one() -> None:
    found = parse_document(WHOLE)
    assert found.measures[0] == Measured("cost", "0", "99.50", ("0", "10", "99.50"), ("0",), 2)
    assert found.measures[1] == Measured("days") and found.groups == (Grouped("ward", False), Grouped("sex", True))
    assert (found.rho_nano, found.delta_exponent, found.roster) == (250_000_000, 6, ("site-a", "site-b", "site-c"))
    least = parse_document(LEAST)
    assert least == QueryDocument(population="stays", purpose="HMB", rho="0.25")
    for one in (found, least):
        text = json.dumps(show_document(one), ensure_ascii=False)
        assert read_document(text.encode()) == read_document(b"\xef\xbb\xbf" + text.encode()) == one
        assert check_document(one) == one
    assert list(show_document(least)) == list(MEANINGS) == list(schema()["properties"])
    assert set(QueryDocument.__struct_fields__) == set(MEANINGS)


@pytest.mark.parametrize(("text", "exponent"), [("1e-3", 3), ("0.001", 3), ("1e-15", 15), ("0.000000000000001", 15)])
def test_delta_is_a_power_of_ten(text: str, exponent: int) -> None:
    assert parse_document(LEAST | {"delta": text}).delta_exponent == exponent


MEASURE = {"column": "cost"}


@pytest.mark.parametrize(
    ("changes", "rule", "field"),
    [
        ({"measure": "cost"}, "unknown", "measure"),
        ({"rho\x1b[31m": "1"}, "unknown", "?"),
        ({"version": 2}, "version", "version"),
        ({"version": "1"}, "version", "version"),
        ({"version": True}, "version", "version"),
        ({"population": "Stays"}, "name", "population"),
        ({"population": "a" * 65}, "name", "population"),
        ({"population": 7}, "text", "population"),
        ({"population": "stays\n"}, "name", "population"),
        ({"purpose": "hmb"}, "purpose", "purpose"),
        ({"purpose": None}, "text", "purpose"),
        ({"rho": 0.25}, "rho", "rho"),
        ({"rho": "-0.25"}, "rho", "rho"),
        ({"rho": "0"}, "no_budget", "rho"),
        ({"rho": "0.000"}, "no_budget", "rho"),
        ({"rho": "0.0000000001"}, "rho", "rho"),
        ({"rho": "1e400"}, "rho", "rho"),
        ({"rho": "9" * 400}, "rho", "rho"),
        ({"rho": "1000000"}, "rho", "rho"),
        ({"rho": "٣"}, "rho", "rho"),
        ({"delta": "0"}, "delta", "delta"),
        ({"delta": "2e-6"}, "delta", "delta"),
        ({"delta": "1e-2"}, "delta", "delta"),
        ({"delta": "1e-16"}, "delta", "delta"),
        ({"delta": 1e-6}, "text", "delta"),
        ({"minimum_group": 1}, "whole", "minimum_group"),
        ({"minimum_group": True}, "whole", "minimum_group"),
        ({"minimum_group": 10.5}, "whole", "minimum_group"),
        ({"minimum_group": float("inf")}, "whole", "minimum_group"),
        ({"commercial": 1}, "flag", "commercial"),
        ({"jurisdiction": "china"}, "country", "jurisdiction"),
        ({"person": "no column"}, "column", "person"),
        ({"roster": ["site-a", "site-b"]}, "roster_size", "roster"),
        ({"roster": ["site-a", "site-b", "site-a"]}, "repeated", "roster[2]"),
        ({"roster": "site-a"}, "list", "roster"),
        ({"roster": ["s"] * 201}, "too_many", "roster"),
        ({"datasets": ["one", "one"]}, "repeated", "datasets[1]"),
        ({"datasets": [3]}, "text", "datasets[0]"),
        ({"measures": {}}, "list", "measures"),
        ({"measures": ["cost"]}, "object", "measures[0]"),
        ({"measures": [{}]}, "missing", "measures[0].column"),
        ({"measures": [MEASURE | {"lows": "1"}]}, "unknown", "measures[0].lows"),
        ({"measures": [MEASURE | {"low": 1}]}, "decimal", "measures[0].low"),
        ({"measures": [MEASURE | {"low": "NaN"}]}, "decimal", "measures[0].low"),
        ({"measures": [MEASURE | {"low": "-Infinity"}]}, "decimal", "measures[0].low"),
        ({"measures": [MEASURE | {"high": "1e9"}]}, "decimal", "measures[0].high"),
        ({"measures": [MEASURE | {"high": "1" * 16}]}, "decimal", "measures[0].high"),
        ({"measures": [MEASURE | {"low": "2", "high": "2.0"}]}, "low_high", "measures[0].low"),
        ({"measures": [MEASURE | {"edges": ["1"]}]}, "two_edges", "measures[0].edges"),
        ({"measures": [MEASURE | {"edges": ["1", "3", "2"]}]}, "rising", "measures[0].edges[2]"),
        ({"measures": [MEASURE | {"edges": ["1", "1.0"]}]}, "rising", "measures[0].edges[1]"),
        ({"measures": [MEASURE | {"edges": ["0", "5"], "high": "6"}]}, "edges_reach", "measures[0].high"),
        ({"measures": [MEASURE | {"edges": ["0"] * 201}]}, "too_many", "measures[0].edges"),
        ({"measures": [MEASURE | {"missing": ["0", "0.0"]}]}, "repeated", "measures[0].missing[1]"),
        ({"measures": [MEASURE | {"weight": 0}]}, "whole", "measures[0].weight"),
        ({"measures": [MEASURE, {"column": "days"}, MEASURE]}, "repeated", "measures[2].column"),
        ({"measures": [{"column": f"c{at}"} for at in range(17)]}, "too_many", "measures"),
        ({"groups": ["ward"]}, "object", "groups[0]"),
        ({"groups": [{"column": "ward"}, {"column": "ward", "other": False}]}, "repeated", "groups[1].column"),
        ({"groups": [{"column": "ward", "other": "no"}]}, "flag", "groups[0].other"),
        ({"filter": []}, "filter_type", "filter"),
        ({"filter": {"column": "age", "above": 3}}, "filter_operator", "filter"),
        ({"filter": {"all": [{"column": "age", "at_least": float("nan")}]}}, "filter_value", "filter.all[0].at_least"),
        ({"filter": {"any": []}}, "filter_too_short", "filter.any"),
        ({"filter": {"column": "age", "at_least": "1e400"}}, "filter_decimal", "filter.at_least"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], rule: str, field: str) -> None:
    error = refused(LEAST | changes)
    assert (error.code, error.facts["field"]) == (f"query_document.{rule}", field)
    assert field in error.message and error.fix and error.text("zh") != error.text("en")


@pytest.mark.parametrize("name", sorted(LEAST))
def test_what_is_missing_is_named(name: str) -> None:
    error = refused({field: value for field, value in LEAST.items() if field != name})
    assert (error.code, error.facts["field"]) == ("query_document.missing", name)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "query_document.not_json"),
        (b"\xff\xfe{", "query_document.not_utf8"),
        (b'{"population": "stays",\n "rho": 0.25,}', "query_document.not_json"),
        (b'{"population": "stays", "population": "stays"}', "wire.name_twice"),
        (b'{"measures": [{"column": "a", "column": "b"}]}', "wire.name_twice"),
        (b'{"minimum_group": NaN}', "query_document.no_number"),
        (b'{"minimum_group": -Infinity}', "query_document.no_number"),
        (b'{"minimum_group": ' + b"1" * 100_000 + b"}", "query_document.digits"),
        (b'{"filter": ' + b'{"not": ' * 20_000 + b"1" + b"}" * 20_000 + b"}", "query_document.filter_too_deep"),
        (b'{"filter": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "query_document.filter_too_deep"),
        (b" " * (LARGEST + 1), "query_document.too_large"),
        (b"[]", "query_document.object"),
        (b"null", "query_document.object"),
    ],
)
def test_a_file_that_is_none(data: bytes, code: str) -> None:
    with pytest.raises(DecodeError) as caught:
        read_document(data)
    assert caught.value.code == code
    assert "{" not in caught.value.text().replace("{}", "") or code == "query_document.object"


def test_a_name_that_stands_twice_is_found_at_once_among_many() -> None:
    names = [f"{number:x}" for number in range(25_000)]
    data = ("{" + ",".join(f'"{name}":1' for name in [*names, names[-1]]) + "}").encode()
    began = time.process_time()
    with pytest.raises(DecodeError) as caught:
        read_document(data)
    assert caught.value.code == "wire.name_twice"
    assert time.process_time() - began < 1.5  # 5 s by counting each among all


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(sorted(MEANINGS)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*MEANINGS, "column"]), inner),
    max_leaves=12,
)
SECRET = "1101011949123100ZZ"


@given(st.data())
def test_whatever_is_written_is_a_document_or_refused_in_words(data: st.DataObject) -> None:
    """Any value in the place of any other: a document that comes back the same, or a DecodeError without the value."""
    changed: Any = json.loads(json.dumps(WHOLE))
    at: Any = changed
    while True:
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        inner = at[key]
        if isinstance(inner, dict | list) and inner and data.draw(st.booleans()):
            at = inner
            continue
        at[key] = data.draw(JSON | st.just(SECRET) | st.just({SECRET: 1}))
        break
    try:
        found = parse_document(changed)
    except DecodeError as error:
        assert error.code.startswith("query_document.") and SECRET not in error.text() + error.text("zh")
        assert SECRET not in repr(error) and all(SECRET not in str(fact) for fact in error.facts.values())
    else:
        assert check_document(found) == found
        assert parse_document(msgspec.json.decode(msgspec.json.encode(show_document(found)))) == found


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        read_document(data)
    except DecodeError as error:
        assert error.code.startswith("query_document.")
