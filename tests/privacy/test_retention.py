"""How long what is kept, by calendar."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.retention import (
    RECORD_TYPES,
    kept_over,
    months_after,
    over,
    record_type,
    retain_each,
    retain_until,
)
from wire.dates import NO_END, date_of, day_of
from wire.errors import Refused

LOADED = day_of(date(2026, 3, 2))


def until(name: str, day: date | None) -> date | None:
    found = retain_until(name, None if day is None else day_of(day), LOADED)
    return None if found is None else date_of(found)


@pytest.mark.parametrize(
    ("name", "day", "last"),
    [
        ("outpatient", date(2020, 5, 6), date(2035, 5, 6)),
        ("inpatient", date(2020, 5, 6), date(2050, 5, 6)),
        ("prescription", date(2020, 5, 6), date(2021, 5, 6)),
        ("prescription", date(2020, 2, 29), date(2021, 2, 28)),
        ("prescription-toxic", date(2020, 5, 6), date(2022, 5, 6)),
        ("prescription-narcotic", date(2021, 12, 31), date(2024, 12, 31)),
        ("accounting-voucher", date(2020, 1, 1), date(2050, 12, 31)),
        ("accounting-voucher", date(2020, 12, 31), date(2050, 12, 31)),
        ("outpatient", None, date(2041, 3, 2)),
        ("none", date(2020, 5, 6), None),
        ("none", None, None),
    ],
)
def test_periods(name: str, day: date | None, last: date | None) -> None:
    assert until(name, day) == last


def test_the_last_day_itself_is_kept() -> None:
    last = retain_until("prescription", day_of(date(2020, 5, 6)), LOADED)
    assert last is not None
    assert not over(last, last) and over(last, last + 1)
    assert over(None, 0) and not over(NO_END, NO_END - 1)


def test_what_ends_after_the_civil_days_has_no_end() -> None:
    assert retain_until("inpatient", day_of(date(2049, 6, 5)), LOADED) == day_of(date(2079, 6, 5))
    assert retain_until("inpatient", day_of(date(2049, 6, 6)), LOADED) == NO_END
    assert retain_until("inpatient", NO_END, LOADED) == retain_until("inpatient", None, LOADED)
    assert months_after(NO_END, 1) == NO_END


def test_many_at_once_are_as_one_by_one() -> None:
    days = [None, 40_000, 40_000, 45_000, NO_END]
    assert retain_each("outpatient", days, LOADED) == [retain_until("outpatient", day, LOADED) for day in days]


def test_an_unknown_type_is_named_with_the_known_ones() -> None:
    with pytest.raises(Refused) as raised:
        record_type("x-ray")
    assert raised.value.code == "privacy.unknown_record_type"
    assert all(name in str(raised.value) for name in RECORD_TYPES)


@given(st.integers(0, 50_000), st.integers(0, 400))
def test_months_against_the_calendar(day: int, months: int) -> None:
    """The corresponding day; or the month's last, and then the day after it is the first of the next."""
    later, start = months_after(day, months), date_of(day)
    if later == NO_END:
        assert start.year + months / 12 > 2078
        return
    found = date_of(later)
    assert (found.year * 12 + found.month) - (start.year * 12 + start.month) == months
    assert found.day == start.day or (found.day < start.day and date_of(later + 1).day == 1)


def test_instants_end_with_the_day_in_the_zone() -> None:
    midnight = 1_596_211_200_000  # 2020-08-01T00:00 in the zone
    since = 1_580_400_000_000  # 2020-01-31
    assert not kept_over(midnight - 1, since, 6)
    assert kept_over(midnight, since, 6)
