"""How long what must be kept: by type of record, counted by calendar.

A period begins on the day after the record's own day and ends with the corresponding day of the last year or month, or
with that month's last day where there is none (Civil Code, articles 201 and 202). `retain_until` is that last day: from
the next day on the record may be erased. Accounting vouchers count from the end of their year.

A record without a usable day counts from the day on which it was loaded: a missing date never shortens the duty. What
would end after the last civil day (2079-06-05) has no end.

Sources: Medical Institution Administration Rules, article 53 (outpatient records 15 years, inpatient 30); Prescription
Administration Measures, article 50 (1, 2 and 3 years); Accounting Archives Administration Measures (vouchers 30 years);
Cybersecurity Law, article 21 (logs 6 months); PIPL, article 56 (impact assessments and records of handling 3 years).
An organisation may keep longer; `medveil` never lets it keep shorter.
"""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from datetime import date

import msgspec

from wire.dates import NO_END, date_of, day_at, day_of
from wire.errors import DecodeError, Refused

ZONE = "Asia/Shanghai"
"""Where the days of a retention period begin and end."""

LOG_MONTHS = 6
SHARING_MONTHS = 36
"""Records of what was shared with others, and impact assessments."""


class RecordType(msgspec.Struct, frozen=True):
    """A type of record. months: the period, 0 for no duty; from_year_end: it begins when its year has ended."""

    name: str
    months: int
    english: str
    chinese: str
    from_year_end: bool = False

    def title(self, language: str = "en") -> str:
        """The type in words, "en" or "zh"."""
        return self.chinese if language == "zh" else self.english


RECORD_TYPES: dict[str, RecordType] = {
    kind.name: kind
    for kind in (
        RecordType("outpatient", 15 * 12, "outpatient record", "门（急）诊病历"),
        RecordType("inpatient", 30 * 12, "inpatient record", "住院病历"),
        RecordType("prescription", 12, "prescription, ordinary", "普通处方"),
        RecordType("prescription-toxic", 24, "prescription, toxic or class 2", "毒性、第二类精神药品处方"),
        RecordType("prescription-narcotic", 36, "prescription, narcotic or class 1", "麻醉、第一类精神药品处方"),
        RecordType("accounting-voucher", 30 * 12, "accounting voucher", "会计凭证", from_year_end=True),
        RecordType("none", 0, "nothing that must be kept", "无保存义务"),
    )
}
"""By the name that a `dataset.toml` gives as `record_type`."""


def record_type(name: str) -> RecordType:
    """The type of that name. Raises Refused for an unknown one."""
    found = RECORD_TYPES.get(name)
    if found is None:
        raise Refused("privacy.unknown_record_type", record_type=name[:64], known=", ".join(RECORD_TYPES))
    return found


def months_after(day: int, months: int) -> int:
    """The corresponding civil day `months` later, or that month's last; `NO_END` beyond the last civil day."""
    if day == NO_END:
        return NO_END
    start = date_of(day)
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    month += 1
    last = calendar.monthrange(year, month)[1]
    try:
        return day_of(date(year, month, min(start.day, last)))
    except DecodeError:
        return NO_END


def retain_until(name: str, day: int | None, loaded: int) -> int | None:
    """The last civil day on which a record of type `name` must be kept; None where there is no duty.

    day: the record's own, such as discharge, visit or issue; None or `NO_END` where it has none: then `loaded`, the day
    on which it came here, counts. A day after `loaded` counts as it stands. Raises Refused for an unknown type.
    """
    kind = record_type(name)
    if not kind.months:
        return None
    start = loaded if day is None or day == NO_END else day
    if kind.from_year_end:
        start = day_of(date(date_of(start).year, 12, 31))
    return months_after(start, kind.months)


def retain_each(name: str, days: Sequence[int | None], loaded: int) -> list[int | None]:
    """`retain_until` of each of many records; equal days are counted once."""
    known = {day: retain_until(name, day, loaded) for day in set(days)}
    return [known[day] for day in days]


def over(until: int | None, today: int) -> bool:
    """Whether a duty that ends with civil day `until` (None: there is none) is over on civil day `today`."""
    return until is None or (until != NO_END and today > until)


def kept_over(at: int, since: int, months: int, zone: str = ZONE) -> bool:
    """Whether, at instant `at`, what came into being at instant `since` has been kept for `months` by calendar."""
    return over(months_after(day_at(since, zone), months), day_at(at, zone))
