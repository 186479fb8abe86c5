"""Policy rows: the public terms by which one payer pays one kind of claim on one layer.

A row is public and agreed (the ledger keeps it); a claim names one row and proves, without showing them, that
every key of the row equals a signed attribute and that the amount follows the row's rule (`zkp.benefit`,
`zkp.settlement`). So a row holds all that the rule needs, and a claimant must not be able to choose: rows of
one payer and layer that could both fit one claim are refused by `check_table`.

Keys: scheme, insutype, psn_type, region and sex (person credential), med_type and level (encounter credential),
payer, layer and year (account credential), age on the service day, visit number. An empty key means any.
The visit number of a claim is ``min(visits so far + v, last_visit)`` with v = 1 if the row counts visits, else 0.

Everything here is public; nothing is secret. Spec: DESIGN section 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated, Literal

import msgspec

from wire import canonical
from wire.canonical import Wire
from wire.dates import NO_END, Day, birth_days, date_of
from wire.domains import POLICY_ROW, digest
from wire.errors import DecodeError, Refused
from wire.identifiers import Name
from wire.money import LARGEST

CLASSES = 8
"""Classes of charges (drugs, tests, beds, ...) that a bill's total is split into."""

AGES = (0, 150)
"""Youngest and oldest age of a row that is for every age."""

PER_MILLE = 1000

KeyCode = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9.]{0,8}\Z")]
"""A code of the national dictionaries, at most 8 characters; empty: any."""

Currency = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z")]
Minor = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
PerMille = Annotated[int, msgspec.Meta(ge=0, le=PER_MILLE)]
Age = Annotated[int, msgspec.Meta(ge=0, le=150)]
Layer = Annotated[int, msgspec.Meta(ge=1, le=99)]
Year = Annotated[int, msgspec.Meta(ge=1900, le=2079)]
Visit = Annotated[int, msgspec.Meta(ge=0, le=255)]


class Diagnoses(Wire, frozen=True, tag="zkp.diagnoses"):
    """A signed set (`zkp.membership`) by kind and name; its version is the ledger's newest.

    "filed": the holder herself filed the diagnosis; "covered": it is on a public list.
    """

    kind: Literal["filed", "covered"]
    name: Name


class Row(Wire, frozen=True, tag="zkp.policy_row"):
    """One row of a payer's policy table. Public. Amounts in minor units, rates and weights per mille.

    policy, version: the table it stands in. payer: who pays; layer: lower ones pay first; statutory: paid once a
    layer, otherwise once a (layer, payer). first_day..last_day: service days for which it is in force.
    visit, last_visit: the row's visit number and the table's last; counts_visit: whether a claim is a visit.
    diagnoses: the set in which the diagnosis must stand, or None for any diagnosis.
    weights: how much of each class is covered. remainder: only what lower layers have left is the base.
    deductible: taken off first; of each visit, or, for None, what the account has left of its own.
    band_1 <= band_2: rates[0] up to the first, rates[1] up to the second, rates[2] beyond. half_up: rounding.
    """

    policy: Name
    version: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    payer: Name
    layer: Layer
    statutory: bool
    year: Year
    first_day: Day
    last_day: Day
    scheme: KeyCode
    insutype: KeyCode
    psn_type: KeyCode
    region: KeyCode
    sex: KeyCode
    med_type: KeyCode
    level: KeyCode
    youngest: Age
    oldest: Age
    visit: Visit
    last_visit: Visit
    counts_visit: bool
    diagnoses: Diagnoses | None
    currency: Currency
    weights: tuple[PerMille, PerMille, PerMille, PerMille, PerMille, PerMille, PerMille, PerMille]
    remainder: bool
    deductible: Minor | None
    band_1: Minor
    band_2: Minor
    rates: tuple[PerMille, PerMille, PerMille]
    half_up: bool

    @property
    def account_deductible(self) -> bool:
        """Whether it is the account's deductible that goes off first."""
        return self.deductible is None

    @property
    def visits_added(self) -> int:
        """v: what a claim adds to the account's visits, 0 or 1."""
        return int(self.counts_visit)

    @property
    def any_visit_from(self) -> int | None:
        """For the table's last row: the smallest visits + v that it takes; None if it takes exactly `visit`."""
        return self.last_visit if self.visit == self.last_visit else None

    @property
    def person_keys(self) -> dict[str, str]:
        """Attributes of the person credential that the row names, by name: a claim discloses them."""
        return _named(self, ("scheme", "insutype", "psn_type", "region", "sex"))

    @property
    def encounter_keys(self) -> dict[str, str]:
        """Attributes of the encounter credential that the row names, by name: a claim discloses them."""
        return _named(self, ("med_type", "level"))

    def births(self, service_day: int) -> tuple[int, int] | None:
        """First and last birth day that the row's ages allow on `service_day`; None if it is for every age.

        Raises Refused when nobody of that age could have been born within the civil days.
        """
        if (self.youngest, self.oldest) == AGES:
            return None
        try:
            return birth_days(self.youngest, self.oldest, service_day)
        except DecodeError:
            raise Refused("policy.nobody_of_that_age", row=self.policy, youngest=self.youngest) from None


def _named(row: Row, keys: tuple[str, ...]) -> dict[str, str]:
    return {key: getattr(row, key) for key in keys if getattr(row, key)}


def encoded(row: Row) -> bytes:
    """The canonical bytes of `row`. Raises DecodeError for one out of bounds or that contradicts itself."""
    try:
        data = canonical.encode(row)
    except OverflowError:
        raise DecodeError("wire.not_canonical", kind="Row") from None
    canonical.decode(Row, data)
    rules = {
        "last_day": row.first_day <= row.last_day,
        "oldest": row.youngest <= row.oldest,
        "visit": row.visit <= row.last_visit and (row.visit >= row.visits_added or row.visit == row.last_visit),
        "band_2": row.band_1 <= row.band_2,
        "weights": any(row.weights),
        "rates": any(row.rates),
    }
    for field, holds in rules.items():
        if not holds:
            raise DecodeError("policy.bad_row", policy=row.policy, field=field)
    return data


def row_id(row: Row) -> bytes:
    """The 32-byte id by which ledger and proofs name `row`: a hash of all of it. Raises DecodeError."""
    return digest(POLICY_ROW, encoded(row))


def check_in_force(row: Row, service_day: int) -> None:
    """Raise Refused unless `row` is in force on `service_day` and that day lies in the account's year."""
    if not row.first_day <= service_day <= row.last_day:
        raise Refused("policy.not_in_force", row=row.policy, version=row.version, day=_shown(service_day))
    if not 0 <= service_day < NO_END or date_of(service_day).year != row.year:
        raise Refused("policy.other_year", year=row.year, day=_shown(service_day))


def _shown(day: int) -> str:
    return date_of(day).isoformat() if 0 <= day < NO_END else str(day)


_KEYS = ("scheme", "insutype", "psn_type", "region", "sex", "med_type", "level")


def _could_both_fit(one: Row, two: Row) -> bool:
    """Whether some claim has the keys, age and service day of both; visits apart."""
    return (
        (one.payer, one.layer, one.year) == (two.payer, two.layer, two.year)
        and one.first_day <= two.last_day
        and two.first_day <= one.last_day
        and one.youngest <= two.oldest
        and two.youngest <= one.oldest
        and all(
            getattr(one, key) == getattr(two, key) or not getattr(one, key) or not getattr(two, key) for key in _KEYS
        )
    )


def check_table(rows: Sequence[Row]) -> None:
    """Check that no claim could choose between two of `rows`. Raises Refused (which rows, by place from 1).

    Refused: two rows that could fit the same claim; rows that differ by visit only and disagree about the last
    visit or about what counts as one; a layer that is statutory in one row and not in another. DecodeError: a
    row that is none.
    """
    for row in rows:
        encoded(row)
    for (at, one), (other, two) in combinations(enumerate(rows, 1), 2):
        if one.layer == two.layer and one.statutory != two.statutory:
            raise Refused("policy.mixed_layer", layer=one.layer, first=at, second=other)
        if _could_both_fit(one, two) and (
            one.visit == two.visit or one.last_visit != two.last_visit or one.counts_visit != two.counts_visit
        ):
            raise Refused("policy.ambiguous_rows", first=at, second=other)


@dataclass(frozen=True, repr=False)
class Case:
    """What decides which row a claim falls under, as the holder's wallet knows it. Secret but for the service day.

    age by calendar from `birth`; visits: so far, from the account.
    """

    service_day: int
    payer: str
    layer: int
    scheme: str
    insutype: str
    psn_type: str
    region: str
    sex: str
    birth: int
    med_type: str
    level: str
    visits: int


def find(rows: Sequence[Row], case: Case) -> Row:
    """Holder: the row of a checked table that `case` falls under. Raises Refused ("policy.no_row") if none."""
    for row in rows:
        if (
            (row.payer, row.layer) == (case.payer, case.layer)
            and row.year == date_of(case.service_day).year
            and row.first_day <= case.service_day <= row.last_day
            and all(getattr(row, key) in ("", getattr(case, key)) for key in _KEYS)
            and row.visit == min(case.visits + row.visits_added, row.last_visit)
        ):
            births = row.births(case.service_day)
            if births is None or births[0] <= case.birth <= births[1]:
                return row
    raise Refused("policy.no_row", payer=case.payer, layer=case.layer)
