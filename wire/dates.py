"""Civil days and instants as integers.

A civil day is the number of days since 1900-01-01 in the consortium's zone, 0..65535 (16 bits, so
that ranges can be proved on it cheaply); 65535 means "no end". An instant is int64 milliseconds
since 1970-01-01T00:00Z.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

import msgspec

from wire.errors import DecodeError

EPOCH = date(1900, 1, 1)
NO_END = 65535

Day = Annotated[int, msgspec.Meta(ge=0, le=NO_END)]
Instant = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


def day_of(value: date) -> int:
    """The civil day of a calendar date. Raises DecodeError outside 1900-01-01 .. 2079-06-05."""
    number = (value - EPOCH).days
    if not 0 <= number < NO_END:
        raise DecodeError("wire.day_out_of_range", day=value.isoformat())
    return number


def date_of(day: int) -> date:
    """The calendar date of a civil day. `NO_END` has none: ValueError."""
    if not 0 <= day < NO_END:
        raise ValueError(f"day {day} is no calendar date")
    return EPOCH + timedelta(days=day)


def day_at(instant: int, zone: str) -> int:
    """The civil day on which `instant` falls in `zone` (an IANA name such as "Asia/Shanghai").

    Raises DecodeError outside the civil days.
    """
    place = ZoneInfo(zone)
    try:
        moment = datetime.fromtimestamp(instant // 1000, tz=UTC).astimezone(place)
    except (ValueError, OverflowError, OSError):
        raise DecodeError("wire.day_out_of_range", day=f"{instant} ms") from None
    return day_of(moment.date())


def birth_days(youngest: int, oldest: int, on: int) -> tuple[int, int]:
    """First and last birth day of those who are `youngest`..`oldest` years old on civil day `on`.

    By calendar: a birthday on 29 February is kept on 1 March in a common year. Both ends inclusive,
    the first clipped to the range of civil days. Raises DecodeError if all of them were born before it.
    """
    if not 0 <= youngest <= oldest <= 150:
        raise ValueError("ages must satisfy 0 <= youngest <= oldest <= 150")
    today = date_of(on)
    last = _years_before(today, youngest)
    first = _years_before(today, oldest + 1) + timedelta(days=1)
    return max((first - EPOCH).days, 0), day_of(last)


def _years_before(day: date, years: int) -> date:
    """The last birth date whose `years`-th birthday is on or before `day`."""
    try:
        return day.replace(year=day.year - years)
    except ValueError:  # 29 February, and no such day in that year
        return date(day.year - years, 2, 28)


def instant_of(moment: datetime) -> int:
    """Milliseconds UTC of an aware datetime; a naive one is a ValueError."""
    if moment.tzinfo is None:
        raise ValueError("an instant needs a time zone")
    delta = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000


def format_instant(instant: int) -> str:
    """RFC 3339 in UTC, to the second: for people."""
    try:
        return datetime.fromtimestamp(instant // 1000, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{instant} ms"
