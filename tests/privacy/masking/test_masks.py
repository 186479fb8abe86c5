"""Masks show what they say and nothing more; what cannot be read becomes null and never passes through."""

from __future__ import annotations

import secrets
from datetime import date, datetime, timedelta
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.masking.masks import AGE_EDGES, FURTHEST, Mask, MaskPlan, apply_plan, check_plan, gives, quasi_identifiers
from privacy.masking.regions import REGION_LEVELS, region_in, region_of_code
from privacy.masking.surnames import COMPOUND, surname
from wire.dates import day_of
from wire.errors import Refused

KEY = bytes(range(32))
ON = day_of(date(2026, 11, 22))


def identity(code: str, born: str, sequence: int) -> str:
    """An identity number with its check character, computed by the weights of GB 11643 (not by the library)."""
    digits = f"{code}{born}{sequence:03d}"
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    total = sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=True))
    return digits + "10X98765432"[total % 11]


def masked(values: list[object], kind: str, **more: object) -> list[object]:
    persons = pa.chunked_array([pa.array([b"%d" % i for i in range(len(values))], pa.binary())])
    plan = MaskPlan((Mask("x", kind, **more),), ON)  # type: ignore[arg-type]
    return apply_plan(pa.table({"x": values}), plan, KEY, persons).table.column("x").to_pylist()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("张三", "张"),
        ("欧阳修", "欧阳"),
        ("司马相如", "司马"),
        ("诸葛亮", "诸葛"),
        ("歐陽 修", "歐陽"),
        ("欧阳", "欧"),  # never the whole name
        ("王", None),
        ("", None),
        ("阿卜杜拉·买买提", None),
        ("John Smith", None),
        ("张三abc", None),
        ("张三李四王五赵六", None),
    ],
)
def test_a_surname_is_never_the_whole_name(name: str, shown: str | None) -> None:
    assert surname(name) == shown
    assert masked([name, None], "surname") == [shown, None]


@given(st.text(max_size=12))
def test_no_name_passes_whole(name: str) -> None:
    shown = surname(name)
    assert shown is None or (name.strip() != shown and len(shown) <= 2)


def test_the_table_of_compound_surnames_holds_pairs_in_both_spellings() -> None:
    assert all(len(name) == 2 for name in COMPOUND)
    assert {"欧阳", "歐陽", "司马", "司馬", "诸葛", "諸葛", "上官", "尉迟", "尉遲"} <= COMPOUND


def test_an_identity_number_gives_age_band_sex_and_county_and_is_gone() -> None:
    numbers = [
        identity("330106", "19910523", 17),
        identity("110101", "20150101", 24),
        identity("330106", "20261123", 17),  # not born yet
        identity("330106", "19910523", 17)[:-1] + "?",
        "330106910523017",  # fifteen digits, until 1999
        "42",
        None,
    ]
    wrong = list(numbers[0])
    wrong[16] = str((int(wrong[16]) + 1) % 10)
    numbers.append("".join(wrong))
    plan = MaskPlan((Mask("id", "identity"),), ON)
    result = apply_plan(pa.table({"id": numbers}), plan, KEY)
    assert result.table.column_names == ["id_age", "id_sex", "id_region"]
    assert result.table.to_pylist()[0] == {"id_age": "30-39", "id_sex": "male", "id_region": "浙江省杭州市西湖区"}
    assert result.table.to_pylist()[1] == {"id_age": "7-13", "id_sex": "female", "id_region": "北京市东城区"}
    assert result.table.to_pylist()[4] == {"id_age": "30-39", "id_sex": "male", "id_region": "浙江省杭州市西湖区"}
    for place in (2, 3, 5, 6, 7):
        assert set(result.table.to_pylist()[place].values()) == {None}
    assert result.columns[0].unread == 4  # the missing one was not there to be read
    assert not any(str(number) in str(result.table.to_pydict()) for number in numbers if number)


@pytest.mark.parametrize(
    ("on", "shown"),
    [
        (date(2026, 2, 28), "0-13"),
        (date(2026, 3, 1), "14+"),
        (date(2028, 2, 28), "14+"),
        (date(2025, 12, 31), "0-13"),
    ],
)
def test_a_leap_day_birthday_is_kept_on_the_first_of_march(on: date, shown: str) -> None:
    plan = MaskPlan((Mask("id", "identity", edges=(0, 14)),), day_of(on))
    table = pa.table({"id": [identity("330106", "20120229", 1)]})
    assert apply_plan(table, plan, KEY).table.column("id_age").to_pylist() == [shown]


@pytest.mark.parametrize(
    ("born", "shown"),
    [
        ("20240228", "4+"),  # four today
        ("20240229", "3-3"),  # tomorrow
        ("20240301", "3-3"),
        ("20280228", "0-2"),  # born today
        ("20280229", None),  # tomorrow
        ("18780228", "4+"),  # 150
        ("18780229", None),  # no such day
        ("18770228", None),  # nobody is so old
    ],
)
def test_ages_are_whole_years_from_birth_to_150(born: str, shown: str | None) -> None:
    plan = MaskPlan((Mask("id", "identity", edges=(0, 3, 4)),), day_of(date(2028, 2, 28)))
    table = pa.table({"id": [identity("330106", born, 1)]})
    assert apply_plan(table, plan, KEY).table.column("id_age").to_pylist() == [shown]


@pytest.mark.parametrize(
    ("code", "year", "shown"),
    [
        ("330106", 1990, "浙江省杭州市西湖区"),
        ("500101", 2000, "重庆市万州区"),
        ("510202", 1990, "四川省重庆市市中区"),  # before Chongqing was a municipality
        ("429004", 2000, "湖北省仙桃市"),  # headed by the province itself
        ("330100", 1990, "浙江省杭州市"),
        ("330106", 1955, "浙江省杭州市西湖区"),  # numbers came when the district had this code
        ("440103", 1983, "广东省广州市荔湾区"),
    ],
)
def test_a_code_means_what_it_meant_in_the_year_of_birth(code: str, year: int, shown: str) -> None:
    region = region_of_code(code, year)
    assert region is not None and region.at("county") == shown


@pytest.mark.parametrize(("code", "year"), [("110103", 2015), ("999999", 2000), ("33010", 2000), ("３３0106", 2000)])
def test_a_code_that_nobody_had_then_is_unknown(code: str, year: int) -> None:
    assert region_of_code(code, year) is None


@pytest.mark.parametrize(
    ("address", "county", "prefecture"),
    [
        ("浙江省杭州市西湖区文三路 1 号 2 单元", "浙江省杭州市西湖区", "浙江省杭州市"),
        ("杭州西湖区文三路1号", "浙江省杭州市西湖区", "浙江省杭州市"),
        ("中国北京市北京市朝阳区建国路", "北京市朝阳区", "北京市"),
        ("吉林市船营区", "吉林省吉林市船营区", "吉林省吉林市"),
        ("内蒙古呼和浩特市赛罕区", "内蒙古自治区呼和浩特市赛罕区", "内蒙古自治区呼和浩特市"),
        ("海南藏族自治州共和县", "青海省海南藏族自治州共和县", "青海省海南藏族自治州"),
        ("慈溪市某路", "浙江省宁波市慈溪市", "浙江省宁波市"),
        ("浙江省杭州市某某新城", "浙江省杭州市", "浙江省杭州市"),
        ("朝阳区建国路", None, None),  # of Beijing or of Changchun
        ("西湖区文三路", None, None),
        ("张三家里", None, None),
    ],
)
def test_an_address_gives_a_region_of_the_gazetteer(address: str, county: str | None, prefecture: str | None) -> None:
    assert masked([address], "region") == [county]
    assert masked([address], "region", level="prefecture") == [prefecture]


_PLACES = "浙江 浙江省 杭州市 西湖区 北京市 朝阳 朝阳区 吉林 吉林市 海南 重庆 县 省 文三路 1号"
PLACES = tuple(_PLACES.split())


@given(st.lists(st.sampled_from(PLACES), max_size=6).map("".join))
def test_what_leaves_of_an_address_is_in_the_gazetteer(address: str) -> None:
    region = region_in(address)
    if region is not None:
        finest = [region.at(level) for level in REGION_LEVELS]
        assert finest[0] and all(longer.startswith(shorter) for shorter, longer in pairwise(finest))
        assert not any(mark in region.at("county") for mark in "路号1 ")


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        ("13812345678", "138****5678"),
        ("+86 138-1234-5678", "138****5678"),
        ("１３８１２３４５６７８", "138****5678"),
        ("0571-88888888", None),
        ("1381234567", None),
        ("12812345678", None),
        ("call 13812345678", None),
    ],
)
def test_a_phone_number_shows_three_and_four_digits(number: str, shown: str | None) -> None:
    assert masked([number], "phone") == [shown]


def test_dates_move_together_per_person_and_differently_per_grant() -> None:
    days = [date(2024, 2, 29), date(2024, 3, 10), date(2023, 1, 1), None, date(2023, 5, 5)]
    persons = pa.chunked_array([[b"a", b"a", b"b", b"b", None]])
    table = pa.table(
        {"seen": days, "at": [None if d is None else datetime(d.year, d.month, d.day, 8, 30) for d in days]}
    )
    plan = MaskPlan((Mask("seen", "shift"), Mask("at", "shift")), ON)
    first = apply_plan(table, plan, KEY, persons)
    seen, at = first.table.column("seen").to_pylist(), first.table.column("at").to_pylist()
    assert seen[1] - seen[0] == timedelta(days=10)
    assert seen[3] is None and seen[4] is None  # no person, no date
    assert first.columns[0].unread == 1
    moves = [after - before for before, after in zip(days[:3], seen[:3], strict=True)]
    assert all(1 <= abs(move.days) <= FURTHEST for move in moves)
    assert at[0] == datetime(2024, 2, 29, 8, 30) + moves[0] and at[2] == datetime(2023, 1, 1, 8, 30) + moves[2]
    other = apply_plan(table, plan, secrets.token_bytes(32), persons).table.column("seen").to_pylist()
    again = apply_plan(table, plan, KEY, persons).table.column("seen").to_pylist()
    assert again == seen
    assert [other[0], other[2]] != [seen[0], seen[2]]  # by chance once in 364^2


def test_a_grants_next_extract_moves_a_person_as_its_first_did() -> None:
    """Also one of another version of this program: two copies that move differently, laid together, tell the days."""
    table = pa.table({"seen": pa.array([0] * 4, pa.int32()).cast(pa.date32())})
    persons = pa.chunked_array([[b"%016d" % number for number in range(4)]])
    moved = apply_plan(table, MaskPlan((Mask("seen", "shift"),), ON), KEY, persons).table.column("seen")
    assert moved.cast(pa.int32()).to_pylist() == [-60, -142, 32, -18]


def test_shifts_spread_over_all_days() -> None:
    persons = [b"%d" % number for number in range(20_000)]
    table = pa.table({"seen": pa.array([0] * len(persons), pa.int32()).cast(pa.date32())})
    moved = apply_plan(table, MaskPlan((Mask("seen", "shift"),), ON), KEY, pa.chunked_array([persons]))
    moves = moved.table.column("seen").cast(pa.int32()).to_pylist()
    assert set(moves) == {*range(-FURTHEST, 0), *range(1, FURTHEST + 1)}
    assert abs(sum(moves) / len(moves)) < 4 * 105 / len(moves) ** 0.5 * 1.1  # mean 0, standard deviation 105


def test_pseudonyms_join_within_a_column_of_one_grant_only() -> None:
    names = masked(["p1", "p2", "p1", None], "pseudonym")
    assert names[0] == names[2] != names[1] and names[3] is None and len(str(names[0])) == 32
    plan = MaskPlan((Mask("x", "pseudonym"), Mask("y", "pseudonym")), ON)
    table = apply_plan(pa.table({"x": ["p1"], "y": ["p1"]}), plan, KEY).table
    assert table.column("x") != table.column("y")


def test_bands() -> None:
    assert masked([-1, 0, 12.5, 13, 200, None, float("nan")], "band", edges=(0, 13, 65)) == [
        None,
        "0-12",
        "0-12",
        "13-64",
        "65+",
        None,
        None,
    ]


def test_a_column_without_a_mask_leaves_nothing() -> None:
    table = pa.table({"x": [1, 2], "note": ["free text", "more of it"], "dropped": ["a", "b"]})
    result = apply_plan(table, MaskPlan((Mask("x", "keep"), Mask("dropped", "drop")), ON), KEY)
    assert result.table.column_names == ["x"]
    assert [column.gives for column in result.columns] == [("x",), ()]
    assert "free" not in repr(result)


def test_plans_that_cannot_be_or_name_people_are_refused() -> None:
    schema = pa.schema([("name", pa.string()), ("born", pa.date32()), ("age", pa.int64()), ("name_age", pa.string())])

    def refused(*masks: Mask) -> str:
        with pytest.raises(Refused) as caught:
            check_plan(MaskPlan(masks, ON), schema)
        return caught.value.code

    assert refused(Mask("nobody", "keep")) == "privacy.mask_column"
    assert refused(Mask("age", "keep"), Mask("age", "drop")) == "privacy.mask_twice"
    assert refused(Mask("name", "identity"), Mask("name_age", "keep")) == "privacy.mask_twice"
    assert refused(Mask("age", "shift")) == "privacy.mask_type"
    assert refused(Mask("born", "surname")) == "privacy.mask_type"
    assert refused(Mask("age", "band", edges=(5, 5))) == "privacy.mask_edges"
    assert refused(Mask("age", "band")) == "privacy.mask_edges"
    assert refused(Mask("name", "surname"), Mask("born", "keep")) == "privacy.mask_names_people"
    check_plan(MaskPlan((Mask("name", "surname"), Mask("born", "shift")), ON), schema)
    with pytest.raises(Refused) as caught:
        apply_plan(pa.table({"born": [date(2000, 1, 1)]}), MaskPlan((Mask("born", "shift"),), ON), KEY)
    assert caught.value.code == "privacy.mask_persons"


def test_quasi_identifiers_are_what_the_masks_leave_of_people() -> None:
    schema = pa.schema([("name", pa.string()), ("id", pa.string()), ("seen", pa.date32()), ("cost", pa.int64())])
    plan = MaskPlan((Mask("name", "surname"), Mask("id", "identity"), Mask("cost", "keep"), Mask("seen", "keep")), ON)
    assert quasi_identifiers(plan, schema) == ("name", "id_age", "id_sex", "id_region", "seen")
    assert quasi_identifiers(MaskPlan((Mask("cost", "band", (0, 9)),), ON), schema) == ("cost",)
    assert gives(Mask("x", "drop")) == ()
    assert tuple(sorted(AGE_EDGES)) == AGE_EDGES


def test_empty_tables_and_all_null_columns_pass() -> None:
    schema = pa.schema([("name", pa.string()), ("id", pa.string()), ("born", pa.date32())])
    plan = MaskPlan((Mask("name", "surname"), Mask("id", "identity"), Mask("born", "shift")), ON)
    nobody = pa.chunked_array([pa.array([], pa.binary())])
    assert apply_plan(schema.empty_table(), plan, KEY, nobody).table.num_rows == 0
    nulls = pa.table({name: pa.nulls(2, schema.field(name).type) for name in schema.names})
    found = apply_plan(nulls, plan, KEY, pa.chunked_array([[b"a", b"b"]]))
    assert all(value is None for row in found.table.to_pylist() for value in row.values())
