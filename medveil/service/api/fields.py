"""Fields that the bodies and addresses of several routes have: names, handles, numbers, instants.

Patterns end with ``$``, which is the end of the text here (and never before a line's end, as in Python). A whole
number is a JSON number without a fraction; what is money, budget or a measure comes as a decimal text or as a whole
number of the smallest unit, never as a binary fraction.
"""

from fractions import Fraction
from typing import Annotated, Any

from fastapi import Path, Query
from pydantic import BaseModel, BeforeValidator, Field, PlainValidator, WithJsonSchema
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError
from starlette.convertors import StringConvertor, register_url_convertor

from privacy.filters import COMPONENT, NoFilter, parse_filter
from privacy.predicate import Predicate

NAME = "^[a-z][a-z0-9]*([-_.][a-z0-9]+)*$"
COLUMN = "^[A-Za-z_][A-Za-z0-9_]{0,63}$"
CODE = "^[A-Z][A-Z0-9]{0,31}$"
DECIMAL = "^-?[0-9]{1,15}(\\.[0-9]{1,9})?$"
_INSTANT_MOST = 253_402_300_799_999
"""The last millisecond of the year 9999."""


def _whole(value: object) -> object:
    """JSON's whole numbers alone: 15.0 is one, "15" and true are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PydanticCustomError("int_type", "not a number")
    return value


Name = Annotated[str, Field(max_length=64, pattern=NAME, examples=["hospital-1"])]
Column = Annotated[str, Field(pattern=COLUMN, examples=["age"])]
Code = Annotated[str, Field(pattern=CODE, examples=["HMB"])]
Currency = Annotated[str, Field(pattern="^[A-Z]{3}$", examples=["CNY"])]
Handle = Annotated[str, Field(pattern="^[0-9a-f]{32}$", examples=["00" * 16])]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Decimal = Annotated[str, Field(pattern=DECIMAL, examples=["0.25"])]
Money = Annotated[str, Field(pattern="^[0-9]{1,14}(\\.[0-9]{1,2})?$", examples=["128.50"])]
Reference = Annotated[str, Field(max_length=200)]
Person = Annotated[str, Field(min_length=1, max_length=200, description="As your own tables name the person. Private.")]
WHOLE = BeforeValidator(_whole)
"""Of an `int` that comes as a JSON number; after the field's bounds, which the description would lose otherwise."""
Nano = Annotated[int, Field(ge=1, le=2**53 - 1, description="10^-9 rho."), WHOLE]
Instant = Annotated[int, Field(ge=0, le=_INSTANT_MOST, description="ms since 1970, UTC."), WHOLE]
Flag = Annotated[bool, Field(strict=True)]
Base64 = Annotated[
    str,
    Field(
        max_length=200_000,
        pattern="^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
        json_schema_extra={"contentEncoding": "base64"},
    ),
]


def _filter(value: object) -> Predicate:
    """The predicate of a JSON value; what is wrong is told with its place inside the filter."""
    try:
        return parse_filter(value)
    except NoFilter as fault:
        told = PydanticCustomError(fault.misfit.rule, "no filter")
        details = InitErrorDetails(type=told, loc=fault.misfit.place, input=None)
        raise ValidationError.from_exception_data(COMPONENT, [details]) from None


Filter = Annotated[Predicate, PlainValidator(_filter), WithJsonSchema({"$ref": f"#/components/schemas/{COMPONENT}"})]
"""Which rows: `privacy.filters`."""
FilterView = Annotated[dict[str, Any], WithJsonSchema({"$ref": f"#/components/schemas/{COMPONENT}"})]


class _HandleConvertor(StringConvertor):
    """A path's parameter that is a handle and nothing else: ``/v1/queries/{query:handle}`` is not
    ``/v1/queries/explain``."""

    regex = "[0-9a-f]{32}"


register_url_convertor("handle", _HandleConvertor())

PopulationPath = Annotated[str, Path(max_length=64, pattern=NAME, description="Name of the population.")]
DatasetPath = Annotated[str, Path(max_length=64, pattern=NAME, description="Name of the dataset.")]
GrantPath = Annotated[str, Path(max_length=64, pattern=NAME, description="Id of the grant.")]
HoldPath = Annotated[str, Path(max_length=64, pattern=NAME, description="Id of the legal hold.")]
HandlePath = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="32 hex digits.")]
NoncePath = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="64 hex digits.")]

PageLimit = Annotated[int, Query(ge=1, le=1000)]
Number = Annotated[int, Query(ge=1, le=2**53)]


class Written(BaseModel):
    """One envelope of this organisation that is final.

    receipt: base64 of the canonical receipt, which anybody checks offline against a trust file.
    """

    envelope: str = Field(description="64 hex digits: the envelope's id.")
    height: int
    receipt: str = Field(json_schema_extra={"contentEncoding": "base64"})


def binary(description: str) -> dict[int | str, dict[str, Any]]:
    """What a route's ``responses=`` says where it answers with evidence bytes."""
    content = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    return {200: {"description": description, "content": content}}


def decimal_text(units: int, scale: int) -> str:
    """units / scale as a decimal text of at most nine places, without trailing zeros."""
    billionths = round(Fraction(units * 10**9, scale))
    sign, digits = "-" if billionths < 0 else "", abs(billionths)
    whole, part = divmod(digits, 10**9)
    return f"{sign}{whole}.{part:09d}".rstrip("0").rstrip(".")
