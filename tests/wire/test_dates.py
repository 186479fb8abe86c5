"""Civil days, ages by calendar, instants."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.dates import (
    EPOCH,
    NO_END,
    birth_days,
    date_of,
    day_at,
    day_of,
    format_instant,
    instant_of,
)
from wire.errors import DecodeError

FIRST, LAST = date(1900, 1, 1), date(2079, 6, 5)
calendar_days = st.dates(FIRST, LAST)


@given(calendar_days)
def test_round_trip(day: date) -> None:
    assert date_of(day_of(day)) == day


def test_the_ends() -> None:
    assert day_of(FIRST) == 0
    assert day_of(LAST) == NO_END - 1
    for outside in (FIRST - timedelta(days=1), LAST + timedelta(days=1), date.min, date.max):
        with pytest.raises(DecodeError, match="outside the civil days"):
            day_of(outside)
    for number in (-1, NO_END, NO_END + 1):
        with pytest.raises(ValueError):
            date_of(number)


@given(calendar_days, calendar_days)
def test_order_is_kept(one: date, two: date) -> None:
    assert (day_of(one) < day_of(two)) == (one < two)


def _age(born: date, on: date) -> int:
    """Age by calendar, written the other way round: count birthdays that have come."""
    birthday_has_come = (on.month, on.day) >= (born.month, born.day)
    return on.year - born.year - (not birthday_has_come)


@given(calendar_days, calendar_days, st.integers(0, 100), st.integers(0, 40))
def test_birth_days_are_exactly_the_ages(born: date, on: date, youngest: int, span: int) -> None:
    try:
        first, last = birth_days(youngest, youngest + span, day_of(on))
    except DecodeError:
        assert youngest > on.year - 1901
        return
    if born <= on:
        assert (first <= day_of(born) <= last) == (youngest <= _age(born, on) <= youngest + span)


@pytest.mark.parametrize(
    ("born", "on", "adult"),
    [
        (date(2000, 2, 29), date(2018, 2, 28), False),
        (date(2000, 2, 29), date(2018, 3, 1), True),
        (date(2000, 3, 1), date(2018, 3, 1), True),
        (date(2002, 3, 1), date(2020, 2, 29), False),
        (date(2002, 2, 28), date(2020, 2, 29), True),
        (date(2000, 1, 1), date(2017, 12, 31), False),
        (date(1900, 1, 1), date(2026, 1, 1), True),
    ],
)
def test_eighteen(born: date, on: date, adult: bool) -> None:
    first, last = birth_days(18, 150, day_of(on))
    assert (first <= day_of(born) <= last) is adult


def test_nobody_born_before_the_first_day_is_let_in() -> None:
    """Clipping both ends to day 0 would make someone of 126 pass for 130."""
    with pytest.raises(DecodeError):
        birth_days(130, 140, day_of(date(2026, 1, 1)))


@pytest.mark.parametrize(("youngest", "oldest"), [(-1, 5), (5, 4), (0, 151)])
def test_impossible_ages_are_a_bug(youngest: int, oldest: int) -> None:
    with pytest.raises(ValueError, match="ages"):
        birth_days(youngest, oldest, 40_000)


def test_the_day_follows_the_zone() -> None:
    evening = instant_of(datetime(2026, 11, 22, 17, 30, tzinfo=UTC))
    assert date_of(day_at(evening, "UTC")) == date(2026, 11, 22)
    assert date_of(day_at(evening, "Asia/Shanghai")) == date(2026, 11, 23)
    assert date_of(day_at(evening, "America/Lima")) == date(2026, 11, 22)
    # summer time of 1986-1991: 23:30 by the sun was 00:30 by law
    assert date_of(day_at(instant_of(datetime(1988, 7, 1, 15, 30, tzinfo=UTC)), "Asia/Shanghai")) == date(1988, 7, 2)


@given(st.integers(-(2**63), 2**63 - 1))
def test_any_instant_has_a_day_or_is_refused(instant: int) -> None:
    try:
        assert 0 <= day_at(instant, "Asia/Shanghai") < NO_END
    except DecodeError as error:
        assert error.code == "wire.day_out_of_range"


@given(st.integers(-(2**63), 2**63 - 1))
def test_any_instant_can_be_shown(instant: int) -> None:
    shown = format_instant(instant)
    assert shown.endswith("Z") or shown == f"{instant} ms"


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)), st.integers(-14 * 60, 14 * 60))
def test_instants_are_exact_to_the_millisecond(moment: datetime, minutes: int) -> None:
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    instant = instant_of(aware)
    back = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=instant)
    assert timedelta(0) <= aware - back < timedelta(milliseconds=1)


def test_a_naive_moment_is_a_bug() -> None:
    with pytest.raises(ValueError, match="time zone"):
        instant_of(datetime(2026, 1, 1))


def test_epoch_and_format() -> None:
    assert date(1900, 1, 1) == EPOCH
    assert format_instant(0) == "1970-01-01T00:00:00Z"
    assert format_instant(-1) == "1969-12-31T23:59:59Z"
