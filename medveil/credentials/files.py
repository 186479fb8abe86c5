"""The files that issuers, holders and verifiers hand to one another: evidence, each with kind, version and suite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from wire import canonical, evidence
from wire.canonical import Wire
from wire.dates import NO_END, date_of, day_of
from wire.errors import DecodeError, Refused, Unavailable
from wire.evidence import Header, register
from wire.identifiers import Handle, Name
from zkp.attributes import Schema, Value
from zkp.blind_issuance import BlindSignature, Scalar32
from zkp.credentials import ACCOUNT, ENCOUNTER, HIDDEN, PERSON
from zkp.eligibility import EligibilityRequest
from zkp.issuance import AccountScope, Occasion, Request
from zkp.membership import PublishedSet

Kind = Literal["person", "account", "encounter"]

SCHEMAS: dict[str, Schema] = {"person": PERSON, "account": ACCOUNT, "encounter": ENCOUNTER}

EncodedKey = Annotated[bytes, msgspec.Meta(min_length=96, max_length=96)]


class CredentialKey(Wire, frozen=True, tag="medveil.credential_key"):
    """An issuer's public key for one kind of credential. Who believes in it has it from the issuer, or the ledger."""

    header: Header
    kind: Kind
    issuer: Name
    key: EncodedKey


class Offer(Wire, frozen=True, tag="medveil.credential_offer"):
    """I -> H: what a holder may ask for, once. Public between the two.

    person_key: whose person credentials are taken: of a first person credential empty, of a renewal the old one's key;
    disclose: which of its attributes the holder shows, of a renewal its handle; scope: of an account; bill: of an
    encounter, its handle.
    """

    header: Header
    kind: Kind
    key: EncodedKey
    occasion: Occasion
    person_key: Annotated[bytes, msgspec.Meta(max_length=96)]
    disclose: tuple[Name, ...]
    scope: AccountScope | None
    bill: Handle | None

    @property
    def renewal(self) -> bool:
        """Whether it is of a person credential in the place of an older one."""
        return self.kind == "person" and bool(self.person_key)


class Application(Wire, frozen=True, tag="medveil.credential_application"):
    """H -> I. disclosed: values of the person credential, in the offer's order."""

    header: Header
    offer: Offer
    disclosed: tuple[int | bytes, ...]
    request: Request


class Answer(Wire, frozen=True, tag="medveil.credential_answer"):
    """I -> H. Between the two alone: it holds what was signed. values: of `known_names`, in order; total_blinding: of
    an encounter's C_total, which the hospital registers on the ledger."""

    header: Header
    offer: Offer
    values: tuple[int | bytes, ...]
    signature: BlindSignature
    total_blinding: Scalar32 | None

    def __repr__(self) -> str:
        return "Answer(...)"


class Values(Wire, frozen=True, tag="medveil.credential_values"):
    """What an issuer signed, as it is hashed into its register."""

    values: tuple[int | bytes, ...]


class SetFile(Wire, frozen=True, tag="medveil.set_file"):
    """A bureau's published set, whole. Public."""

    header: Header
    published: PublishedSet


class Question(Wire, frozen=True, tag="medveil.eligibility_question"):
    """V -> H: what a verifier asks about one bill."""

    header: Header
    request: EligibilityRequest


KEY = register("credential-key", 1, CredentialKey)
OFFER = register("credential-offer", 1, Offer)
APPLICATION = register("credential-application", 1, Application)
ANSWER = register("credential-answer", 1, Answer)
SET = register("published-set", 1, SetFile)
QUESTION = register("eligibility-question", 1, Question)

T = TypeVar("T", bound=Wire)


def read_any(path: Path) -> Wire:
    """The evidence file at `path`, of whatever kind. Raises Unavailable, DecodeError, Refused."""
    from medveil.verification.kinds import register_all

    register_all()
    try:
        data = evidence.read_file(path)
    except OSError:
        raise Unavailable("wire.unreadable", file=str(path)) from None
    found: Wire = evidence.read(data)
    return found


def read(path: Path, kind: type[T]) -> T:
    """The file at `path`, which must be of that kind. Raises Unavailable, DecodeError, Refused."""
    found = read_any(path)
    if not isinstance(found, kind):
        raise Refused("credential_files.other_kind", file=str(path), expected=kind.__name__)
    return found


def write(path: Path, struct: Wire) -> None:
    """Write a file that is not there yet, durably, or that holds these very bytes: a verb that was cut short can be run
    again. Raises Refused, Unavailable."""
    data = canonical.encode(struct)
    try:
        if path.exists() and not (path.is_file() and path.read_bytes() == data):
            raise Refused("client.file_exists", file=str(path))
        evidence.write_file(path, data)
    except OSError:
        raise Unavailable("client.unwritable", file=str(path)) from None


# ------------------------------------------------------------------------------------------- values


def known_names(kind: str) -> tuple[str, ...]:
    """The attributes of a credential that its issuer knows, in order."""
    schema = SCHEMAS[kind]
    return tuple(name for name in schema.names if name not in HIDDEN[schema.name])


def to_wire(values: Mapping[str, Value], names: tuple[str, ...]) -> tuple[int | bytes, ...]:
    """Values in order, text as bytes."""
    found = (values[name] for name in names)
    return tuple(value.encode() if isinstance(value, str) else value for value in found)


def from_wire(schema: Schema, values: tuple[int | bytes, ...], names: tuple[str, ...]) -> dict[str, Value]:
    """Values by name, text as text. Raises DecodeError."""
    if len(values) != len(names):
        raise DecodeError("credential_files.values", expected=len(names), count=len(values))
    found: dict[str, Value] = {}
    for name, value in zip(names, values, strict=True):
        kind = schema.attributes[schema.index(name)].kind
        found[name] = (
            value.decode("ascii", "replace") if isinstance(value, bytes) and kind in ("text", "name") else value
        )
        schema.scalar(name, found[name])
    return found


def parse_values(schema: Schema, said: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Value]:
    """Values as a person writes them in JSON: days as dates or null (no end), handles as hex, the rest as they are.

    Raises DecodeError for a name that is missing or not known, or a value outside its type.
    """
    for name in {*said, *names}:
        if name not in names or name not in said:
            raise DecodeError("credential_files.attribute", attribute=str(name)[:64], schema=schema.name)
    found: dict[str, Value] = {}
    for name in names:
        value, kind = said[name], schema.attributes[schema.index(name)].kind
        try:
            if kind == "day" and value is None:
                value = NO_END
            elif kind == "day" and isinstance(value, str):
                value = parse_day(value)
            elif kind == "handle" and isinstance(value, str):
                value = bytes.fromhex(value)
        except ValueError:
            raise DecodeError("credentials.bad_value", attribute=name, kind=kind) from None
        schema.scalar(name, value)
        found[name] = value
    return found


def parse_day(text: str) -> int:
    """The civil day of a date such as 2025-12-11. ValueError for other text, DecodeError outside the civil days."""
    from datetime import date

    return day_of(date.fromisoformat(text))


def readable(schema: Schema, values: Mapping[str, Value]) -> dict[str, str | int | None]:
    """Values as `parse_values` takes them."""
    found: dict[str, str | int | None] = {}
    for name, value in values.items():
        if schema.attributes[schema.index(name)].kind == "day" and isinstance(value, int):
            found[name] = None if value == NO_END else date_of(value).isoformat()
        else:
            found[name] = value.hex() if isinstance(value, bytes) else value
    return found
