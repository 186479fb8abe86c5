"""What people and programs send about themselves, and what they get: the shapes of the accounts' routes.

Lengths are bounded here; whether a password is good, a name is free or a key is one is decided by the parts.
"""

from typing import Annotated, Literal

from fastapi import Path
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from medveil.service.accounts.rights import ROLES

NAME = "^[a-z][a-z0-9]*([-_.][a-z0-9]+)*$"

Name = Annotated[str, Field(max_length=64, pattern=NAME, examples=["ada"])]
PersonPath = Annotated[str, Path(max_length=64, pattern=NAME, description="Name of the account.")]
TokenPath = Annotated[str, Path(pattern="^[0-9a-f]{16}$", description="Id of the token: 16 hex digits.")]
SessionPath = Annotated[str, Path(pattern="^[0-9a-f]{16}$", description="Name of the session: 16 hex digits.")]
Secret = Annotated[str, Field(max_length=1024, json_schema_extra={"format": "password"})]
Role = Literal["officer", "researcher", "clerk", "auditor", "admin"]
Roles = Annotated[list[Role], Field(min_length=1, max_length=len(ROLES))]
Carrier = Literal["cookie", "bearer"]


def _number(value: object) -> object:
    """JSON's numbers alone: 15.0 is a whole one, "15" and true are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PydanticCustomError("int_type", "not a number")
    return value


class Sent(BaseModel):
    """What a caller sends. Unknown fields are refused, so that a misspelt one is not passed over."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Credentials(Sent):
    """Name, password, and the one-time or recovery code where codes are set up."""

    name: Annotated[str, Field(max_length=200)]
    password: Secret
    code: Annotated[str, Field(max_length=64)] = ""
    carrier: Annotated[
        Carrier, Field(description="cookie: for a browser; bearer: for a command line, which keeps both secrets.")
    ] = "cookie"
    device: Annotated[str, Field(max_length=200, description="bearer: the device secret of an earlier sign-in.")] = ""


class Session(BaseModel):
    """A session that was begun. session, device: secrets, for a bearer only; a browser has them as cookies."""

    person: str
    expires: int = Field(description="ms since 1970, UTC. It ends earlier when it is not used for 30 minutes.")
    enrolling: bool = Field(description="One-time codes must be set up before anything else is allowed.")
    session: str | None
    device: str | None


class SessionView(BaseModel):
    """One of your sessions. session: names it, and opens nothing. Instants in ms since 1970, UTC; own: this call's."""

    session: str
    created: int
    seen: int
    expires: int
    own: bool


class SessionList(BaseModel):
    """Sessions that stand, the newest first."""

    sessions: list[SessionView]


class Acceptance(Sent):
    """An invitation and the password of one's own that it is exchanged for."""

    invitation: Annotated[str, Field(max_length=200)]
    password: Secret


class Accepted(BaseModel):
    """Whose invitation it was."""

    person: str


class Leading(BaseModel):
    """Where to send the browser."""

    url: str


class Me(BaseModel):
    """The caller, as the gateway sees it just now. owner: of a program, the person whose token it has."""

    kind: Literal["person", "program", "organisation"]
    name: str
    owner: str
    roles: list[str]
    rights: list[str]
    enrolling: bool


class PasswordChange(Sent):
    """The present password and the new one."""

    old: Secret
    new: Secret


class Confirmation(Sent):
    """The password, asked for again."""

    password: Secret


class FirstCode(Sent):
    """What the authenticator app shows."""

    code: Annotated[str, Field(max_length=64)]


class Seed(BaseModel):
    """The address for an authenticator app, as a QR code shows it. Secret."""

    uri: str


class RecoveryCodes(BaseModel):
    """Each works once instead of a one-time code. Secret; shown once."""

    codes: list[str]


class PersonView(BaseModel):
    """An account. created: ms since 1970, UTC. issuer: of the provider it signs in by, or empty."""

    name: str
    roles: list[str]
    created: int
    disabled: bool
    has_password: bool
    has_codes: bool
    issuer: str


class PeopleList(BaseModel):
    """Every account, by name."""

    people: list[PersonView]


class NewPerson(Sent):
    """An account to make."""

    name: Name
    roles: Roles


class NewRoles(Sent):
    """The roles that an account will have, and no others."""

    roles: Roles


class Reset(Sent):
    """codes: end the one-time codes too."""

    codes: Annotated[bool, Field(strict=True)] = False


class Invitation(BaseModel):
    """A one-time secret, for three days, which its person exchanges for a password. Hand it over yourself."""

    person: str
    invitation: str


class NewToken(Sent):
    """A token to make. key: the program's ed25519 public key, 64 hex digits. days: until it ends."""

    label: Annotated[str, Field(min_length=1, max_length=64, pattern="^[A-Za-z0-9_ .:/-]+$")]
    scopes: Annotated[list[Annotated[str, Field(max_length=64)]], Field(min_length=1, max_length=100)]
    key: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    days: Annotated[int, Field(ge=1, le=365), BeforeValidator(_number)]


class TokenView(BaseModel):
    """A token without its secret. Instants in ms since 1970, UTC; used: 0 for never."""

    id: str
    owner: str
    label: str
    scopes: list[str]
    key: str
    created: int
    expires: int
    used: int
    revoked: bool


class IssuedToken(TokenView):
    """A token just made. token: secret, shown this once."""

    token: str


class TokenList(BaseModel):
    """Tokens, the newest first."""

    tokens: list[TokenView]


class EntryView(BaseModel):
    """One entry of the security log. at: ms since 1970, UTC."""

    sequence: int
    at: int
    actor: str
    event: str
    subject: str
    reason: str


class EntryPage(BaseModel):
    """Entries, the newest first. before: give this to get the next page; null on the last one."""

    entries: list[EntryView]
    before: int | None


class Chain(BaseModel):
    """What the check of the whole chain found. head: hash of the last entry; keep it elsewhere, and give it again.

    broken_at: number of the first entry that does not fit, or null.
    """

    holds: bool
    entries: int
    head: str
    broken_at: int | None
