"""A payer's policy table in a file: read from what a person writes, checked whole, public.

In JSON: `{"rows": [{...}, ...]}`, each row with the fields of `zkp.policy.Row`. Days are dates; `deductible` is null
where the account's own is taken. Left out they mean: keys, ages and `diagnoses` any; `remainder` and `half_up` false.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from medveil.credentials import files
from wire.canonical import Wire
from wire.errors import DecodeError
from wire.evidence import Header, register
from zkp import policy
from zkp.policy import AGES, Diagnoses, Row


class PolicyTable(Wire, frozen=True, tag="medveil.policy_table"):
    """Rows between which no claim can choose. Public."""

    header: Header
    rows: tuple[Row, ...]


TABLE = register("policy-table", 1, PolicyTable)

_KEYS: Final = ("scheme", "insutype", "psn_type", "region", "sex", "med_type", "level")

_LEFT_OUT: Final[Mapping[str, Any]] = {
    **dict.fromkeys(_KEYS, ""),
    "youngest": AGES[0],
    "oldest": AGES[1],
    "diagnoses": None,
    "remainder": False,
    "half_up": False,
}

_FIELDS: Final = {field.name: field.type for field in msgspec.structs.fields(Row)}


def parse(said: Mapping[str, Any]) -> PolicyTable:
    """The table that `said` writes down. Raises DecodeError, naming row and field; Refused for rows that no table may
    have together (`zkp.policy.check_table`)."""
    rows = said.get("rows")
    if not isinstance(rows, list) or not rows or set(said) != {"rows"}:
        raise DecodeError("credential_files.row", row=0, field="rows")
    table = tuple(_row(number, one) for number, one in enumerate(rows, 1))
    policy.check_table(table)
    return PolicyTable(TABLE, table)


def _row(number: int, said: object) -> Row:
    given = {**_LEFT_OUT, **said} if isinstance(said, dict) else {}
    for name in (*given, *_FIELDS):
        if name not in _FIELDS or name not in given:
            raise DecodeError("credential_files.row", row=number, field=str(name)[:64])
    return Row(**{name: _field(number, name, value) for name, value in given.items()})


def _field(number: int, name: str, value: object) -> Any:
    try:
        if name in ("first_day", "last_day"):
            value = files.parse_day(value)  # type: ignore[arg-type]
        elif name == "diagnoses" and isinstance(value, dict):
            value = Diagnoses(**msgspec.convert(value, dict[str, Any]))
            return msgspec.convert(msgspec.to_builtins(value), Diagnoses)
        return msgspec.convert(value, _FIELDS[name])
    except (TypeError, ValueError, DecodeError, msgspec.ValidationError):
        raise DecodeError("credential_files.row", row=number, field=name) from None
