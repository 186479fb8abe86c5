"""Masking: what of each column may leave in an extract, and nothing of a column that is not named.

    keep        as it is
    drop        nothing (free text, and every column without a mask)
    surname     a name -> the surname alone (`privacy.masking.surnames`)
    identity    an identity number -> NAME_age (band), NAME_sex, NAME_region; the number itself is gone
    phone       a mobile number -> its first 3 and last 4 digits
    region      an address -> its region, no finer than a county (`privacy.masking.regions`)
    band        a number -> the band of declared edges that it lies in
    shift       a date -> moved by a number of days of the person's own, the same for all dates of the person
    pseudonym   an identifier -> a keyed name of it, the same in all of this extract and in no other

    days(person)  = +/- (1 + HMAC(key, DATE_SHIFT, person) mod 182)
    name(value)   = first 16 bytes of HMAC(key, PSEUDONYM, column, value), in hex

The key is one of each grant: two extracts for two recipients cannot be joined by shifted dates or pseudonyms. A value
that cannot be read as what its mask expects becomes null and is counted; its own text never passes through.

What remains: intervals between dates of one person are true, a surname with a region and an age band can still be one
person. `privacy.masking.disclosure_risk` measures that on the masked table; `check_plan` refuses a combination that is
known to name people. Masking is no differential privacy.

Sources: identity numbers GB 11643-1999 (check character ISO 7064 MOD 11-2), regions GB/T 2260; "surname only",
"phone 3+4" and regions as de-identification of GB/T 39725.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable
from datetime import date
from itertools import pairwise
from typing import Annotated, Any, Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from privacy.masking.regions import RegionLevel, region_in, region_of_code
from privacy.masking.surnames import surname
from privacy.predicate import Field
from wire.canonical import Wire
from wire.dates import date_of
from wire.domains import DATE_SHIFT, PSEUDONYM, keyed
from wire.errors import Refused

MaskKind = Literal["keep", "drop", "surname", "identity", "phone", "region", "band", "shift", "pseudonym"]
MASK_KINDS: tuple[MaskKind, ...] = (
    "keep",
    "drop",
    "surname",
    "identity",
    "phone",
    "region",
    "band",
    "shift",
    "pseudonym",
)
"""From the widest to the narrowest only in the case of "keep" and "drop": the others are for different things."""

AGE_EDGES = (0, 1, 7, 14, 18, 30, 40, 50, 60, 70, 80, 90)
"""First years of the age bands; the last is open. 14 and 18 are the ages of guardianship and majority."""
FURTHEST = 182
"""Most days that a date moves."""

_MOBILE = re.compile(r"^(?:\+?86)?(1[3-9]\d{9})$")
_SEXES = ("female", "male")
_Identity = tuple[str | None, str | None, str | None]


class Mask(Wire, frozen=True, tag="privacy.mask"):
    """What becomes of one column.

    edges: of "band" (integers, rising; values below the first are null) and of "identity" (ages; `AGE_EDGES` when
    empty). level: the finest region that "region" and "identity" show.
    """

    field: Field
    kind: MaskKind
    edges: Annotated[tuple[int, ...], msgspec.Meta(max_length=100)] = ()
    level: RegionLevel = "county"


class MaskPlan(Wire, frozen=True, tag="privacy.mask_plan"):
    """Masks by column. on: the civil day on which ages are taken (`wire.dates`)."""

    masks: Annotated[tuple[Mask, ...], msgspec.Meta(max_length=1000)]
    on: Annotated[int, msgspec.Meta(ge=0, lt=65535)]


class MaskedColumn(Wire, frozen=True, tag="privacy.masked_column"):
    """What was done to one column. gives: the columns that stand for it. unread: cells that became null (private)."""

    field: str
    kind: MaskKind
    gives: tuple[str, ...]
    unread: Annotated[int, msgspec.Meta(ge=0)]


class Masked(msgspec.Struct, frozen=True):
    """The masked table (secret until released) and what was done, column by column."""

    table: pa.Table
    columns: tuple[MaskedColumn, ...]

    def __repr__(self) -> str:
        return f"Masked({len(self.columns)} columns)"


def check_plan(plan: MaskPlan, schema: pa.Schema) -> None:
    """Check a plan against the table's columns.

    Raises Refused naming the column: unknown, twice, of a type its mask cannot read, edges that do not rise, or a
    combination that names people: a surname beside a date that is kept as it is.
    """
    seen: set[str] = set()
    for mask in plan.masks:
        if mask.field not in schema.names:
            raise Refused("privacy.mask_column", field=mask.field)
        if mask.field in seen:
            raise Refused("privacy.mask_twice", field=mask.field)
        seen.add(mask.field)
        if mask.kind not in _READS or not _READS[mask.kind](schema.field(mask.field).type):
            raise Refused("privacy.mask_type", field=mask.field, mask=mask.kind)
        edges = mask.edges or (AGE_EDGES if mask.kind == "identity" else ())
        if any(a >= b for a, b in pairwise(edges)) or (mask.kind == "band" and len(edges) < 2):
            raise Refused("privacy.mask_edges", field=mask.field)
    given = [name for mask in plan.masks for name in gives(mask)]
    if len(set(given)) != len(given):
        raise Refused("privacy.mask_twice", field=next(name for name in given if given.count(name) > 1))
    names = [mask.field for mask in plan.masks if mask.kind == "surname"]
    kept = [mask.field for mask in plan.masks if mask.kind == "keep" and _is_date(schema.field(mask.field).type)]
    if names and kept:
        raise Refused("privacy.mask_names_people", field=names[0], date=kept[0])


def gives(mask: Mask) -> tuple[str, ...]:
    """The columns that stand for a masked one in the result."""
    if mask.kind == "drop":
        return ()
    if mask.kind == "identity":
        return (f"{mask.field}_age", f"{mask.field}_sex", f"{mask.field}_region")
    return (mask.field,)


def quasi_identifiers(plan: MaskPlan, schema: pa.Schema) -> tuple[str, ...]:
    """The masked columns that somebody else may know of a person: the least that a risk measure groups by.

    schema: of the table before masking. Dates that are kept are among them. What is kept otherwise, shifted or has a
    keyed name is for whoever measures to say.
    """
    quasi = ("surname", "identity", "phone", "region", "band")
    return tuple(
        name
        for mask in plan.masks
        if mask.kind in quasi or (mask.kind == "keep" and _is_date(schema.field(mask.field).type))
        for name in gives(mask)
    )


def apply_plan(table: pa.Table, plan: MaskPlan, key: bytes, persons: pa.ChunkedArray | None = None) -> Masked:
    """The masked table, rows in their order.

    table: secret. key: 32 secret bytes of the grant. persons: the keyed id (binary) of each row's person, needed where
    dates are shifted; a null person's dates become null. Raises Refused as `check_plan`, and where persons are missing.
    """
    check_plan(plan, table.schema)
    if len(key) < 32:
        raise ValueError("the key of masking has 32 bytes")
    if persons is None and any(mask.kind == "shift" for mask in plan.masks):
        raise Refused("privacy.mask_persons")
    arrays: list[pa.ChunkedArray] = []
    names: list[str] = []
    done = []
    for mask in plan.masks:
        column = table.column(mask.field)
        results = _mask(column, mask, plan.on, key, persons)
        # Of several columns for one, a cell counts as unread where none of them has anything.
        known = column.length() - column.null_count
        read = max((result.length() - result.null_count for result in results), default=known)
        done.append(MaskedColumn(mask.field, mask.kind, gives(mask), max(known - read, 0)))
        arrays += results
        names += gives(mask)
    return Masked(pa.table(arrays, names=names), tuple(done))


def _mask(
    column: pa.ChunkedArray, mask: Mask, on: int, key: bytes, persons: pa.ChunkedArray | None
) -> list[pa.ChunkedArray]:
    match mask.kind:
        case "keep":
            return [column]
        case "drop":
            return []
        case "surname":
            return [_each(column, surname)]
        case "phone":
            return [_each(column, _phone)]
        case "region":
            return [_each(column, lambda address: _at(region_in(address), mask.level))]
        case "pseudonym":
            return [_each(column, lambda value: _pseudonym(key, mask.field, value))]
        case "band":
            return [_banded(column, mask.edges)]
        case "identity":
            edges = mask.edges or AGE_EDGES
            parts = {value: _identity(value, edges, mask.level, on) for value in column.unique().to_pylist() if value}
            return [_each(column, _part(parts, part)) for part in range(3)]
        case "shift":
            assert persons is not None  # looked at by apply_plan
            return [_shifted(column, key, persons)]


def _each(column: pa.ChunkedArray, read: Callable[[Any], str | None]) -> pa.ChunkedArray:
    """Every different value read once; null stays null."""
    encoded = column.combine_chunks().dictionary_encode()
    values = encoded.dictionary.to_pylist()
    read_values = pa.array([None if value is None else read(value) for value in values], pa.string())
    return pa.chunked_array([read_values.take(encoded.indices)])


def _part(read: dict[str, _Identity], part: int) -> Callable[[str], str | None]:
    return lambda value: read[value][part] if value else None


def _at(region: Any, level: RegionLevel) -> str | None:
    return None if region is None else region.at(level)


def _phone(number: str) -> str | None:
    found = _MOBILE.match(re.sub(r"[\s()-]", "", unicodedata.normalize("NFKC", number)))
    return f"{found[1][:3]}****{found[1][7:]}" if found else None


def _pseudonym(key: bytes, field: str, value: Any) -> str:
    data = value if isinstance(value, bytes) else str(value).encode()
    return keyed(key, PSEUDONYM, field.encode(), data)[:16].hex()


def _identity(number: str, edges: tuple[int, ...], level: RegionLevel, on: int) -> _Identity:
    """Age band, sex and region; three times None for what is no identity number, or one of somebody not born yet."""
    from stdnum.cn import ric
    from stdnum.exceptions import ValidationError

    text = re.sub(r"\s", "", unicodedata.normalize("NFKC", number)).upper()
    if len(text) == 15 and text.isascii() and text.isdigit():  # until 1999: without century and check character
        text = f"{text[:6]}19{text[6:]}"
        text += ric.calc_check_digit(text + "0")
    try:
        born = ric.get_birth_date(text) if len(text) == 18 and text[:17].isdigit() else None
        if born is None or text[-1] != ric.calc_check_digit(text):
            return None, None, None
    except (ValidationError, ValueError):
        return None, None, None
    age = _age(born, date_of(on))
    if not 0 <= age <= 150:
        return None, None, None
    return _band(age, edges), _SEXES[int(text[16]) % 2], _at(region_of_code(text[:6], born.year), level)


def _age(born: date, on: date) -> int:
    """By calendar; a birthday on 29 February is kept on 1 March in a common year, as in `wire.dates.birth_days`."""
    return on.year - born.year - ((on.month, on.day) < (born.month, born.day))


def _band(value: float, edges: tuple[int, ...]) -> str | None:
    place = bisect_right(edges, value)
    if place == 0:
        return None
    return f"{edges[-1]}+" if place == len(edges) else f"{edges[place - 1]}-{edges[place] - 1}"


def _banded(column: pa.ChunkedArray, edges: tuple[int, ...]) -> pa.ChunkedArray:
    """Bands of whole numbers: 12.5 with edges 0, 13 is "0-12", the band that it began."""
    return _each(column, lambda value: None if value != value else _band(value, edges))


def _shifted(column: pa.ChunkedArray, key: bytes, persons: pa.ChunkedArray) -> pa.ChunkedArray:
    if len(persons) != len(column):
        raise ValueError("one person for each row")
    encoded = persons.combine_chunks().dictionary_encode()
    days = [None if person is None else _days(key, person) for person in encoded.dictionary.to_pylist()]
    by_row = pa.array(days, pa.int64()).take(encoded.indices)
    flat = column.combine_chunks()
    if pa.types.is_date32(flat.type):
        return pa.chunked_array([pc.add(flat.cast(pa.int32()), by_row.cast(pa.int32())).cast(pa.date32())])
    moved = pc.add(
        flat, pc.multiply(by_row, pa.scalar(_DAY[flat.type.unit], pa.int64())).cast(pa.duration(flat.type.unit))
    )
    return pa.chunked_array([moved])


_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}


def _days(key: bytes, person: bytes) -> int:
    """From 1 to `FURTHEST` days back or ahead. 64 bits against 364 values: no bias that could be seen."""
    number = int.from_bytes(keyed(key, DATE_SHIFT, person)[:8], "big")
    days = 1 + number // 2 % FURTHEST
    return days if number % 2 else -days


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_date(kind: pa.DataType) -> bool:
    return bool(pa.types.is_date32(kind) or pa.types.is_timestamp(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


_READS: dict[str, Callable[[pa.DataType], bool]] = {
    "keep": lambda kind: True,
    "drop": lambda kind: True,
    "surname": _is_text,
    "identity": _is_text,
    "phone": _is_text,
    "region": _is_text,
    "band": _is_number,
    "shift": _is_date,
    "pseudonym": lambda kind: _is_text(kind) or pa.types.is_integer(kind) or pa.types.is_binary(kind),
}
