"""People and programs of the organisation: signing in and out, one's own account, accounts, tokens, security log."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from medveil.client.exchange import Exchange, M, Part, verb
from medveil.client.frames import Instant, Rows
from medveil.client.line import Call, fetch, get, post, tell_nothing, whose


class SignedIn(msgspec.Struct, frozen=True):
    """A session that was begun. session, device: secrets; device is shown at later sign-ins from the same place.

    enrolling: one-time codes must be set up before anything else is allowed.
    """

    person: str
    expires: Instant
    enrolling: bool
    session: str
    device: str

    def __repr__(self) -> str:
        return f"SignedIn({self.person!r})"


class Me(msgspec.Struct, frozen=True):
    """The caller as the gateway sees it. kind: person or program; owner: whose program it is."""

    kind: str
    name: str
    owner: str
    roles: tuple[str, ...]
    rights: tuple[str, ...]
    enrolling: bool


class OpenSession(msgspec.Struct, frozen=True):
    """A session of one's own that stands. session: names it, and opens nothing; own: the one that asks."""

    session: str
    created: Instant
    seen: Instant
    expires: Instant
    own: bool


class SessionList(Rows, frozen=True):
    """Sessions that stand, the newest first."""

    sessions: tuple[OpenSession, ...]

    def rows(self) -> tuple[OpenSession, ...]:
        """The sessions."""
        return self.sessions


class About(msgspec.Struct, frozen=True):
    """The gateway. organisation: whose it is; height: of the latest final block that it has replayed."""

    organisation: str
    version: str
    height: int


class Person(msgspec.Struct, frozen=True):
    """An account. issuer: of the provider that it signs in by, or empty."""

    name: str
    roles: tuple[str, ...]
    created: Instant
    disabled: bool
    has_password: bool
    has_codes: bool
    issuer: str


class PeopleList(Rows, frozen=True):
    """Every account, by name."""

    people: tuple[Person, ...]

    def rows(self) -> tuple[Person, ...]:
        """The accounts."""
        return self.people


class Invitation(msgspec.Struct, frozen=True):
    """invitation: a secret that works once, for three days: its person exchanges it for a password."""

    person: str
    invitation: str

    def __repr__(self) -> str:
        return f"Invitation({self.person!r})"


class Token(msgspec.Struct, frozen=True):
    """A program's token without its secret. key: the ed25519 key that it is bound to, hex."""

    id: str
    owner: str
    label: str
    scopes: tuple[str, ...]
    key: str
    created: Instant
    expires: Instant
    used: Instant
    revoked: bool


class IssuedToken(Token, frozen=True):
    """A token just made. token: secret, shown this once."""

    token: str

    def __repr__(self) -> str:
        return f"IssuedToken({self.id!r})"


class TokenList(Rows, frozen=True):
    """Tokens, the newest first."""

    tokens: tuple[Token, ...]

    def rows(self) -> tuple[Token, ...]:
        """The tokens."""
        return self.tokens


class SecurityEntry(msgspec.Struct, frozen=True):
    """One entry of the security log."""

    sequence: int
    at: Instant
    actor: str
    event: str
    subject: str
    reason: str


class SecurityPage(Rows, frozen=True):
    """Entries, the newest first. before: give it to get the next page; None on the last one."""

    entries: tuple[SecurityEntry, ...]
    before: int | None

    def rows(self) -> tuple[SecurityEntry, ...]:
        """The entries."""
        return self.entries


class SecurityChain(msgspec.Struct, frozen=True):
    """What the check of the whole log found. head: keep it elsewhere and give it the next time."""

    holds: bool
    entries: int
    head: str
    broken_at: int | None


class _Seed(msgspec.Struct, frozen=True):
    uri: str


class _Codes(msgspec.Struct, frozen=True):
    codes: tuple[str, ...]


class _Accepted(msgspec.Struct, frozen=True):
    person: str


class Account(Part[M]):
    """One's own account: ``/v1/me`` and signing in and out."""

    @verb
    def sign_in(self, name: str, password: str, *, code: str = "", device: str = "") -> Exchange[SignedIn]:
        """Begin a session. code: one-time or recovery code, where they are set up; device: of an earlier sign-in.

        Give ``Session(signed_in.session)`` to the next client. Raises Refused (``accounts.code_needed`` if a code is
        missing, else one answer for a wrong name, password or code), Unavailable (wait).
        """
        body = {"name": name, "password": password, "code": code, "carrier": "bearer", "device": device}
        return (yield from fetch(self._line, post("sign-in", body=body), SignedIn))

    @verb
    def accept(self, invitation: str, password: str) -> Exchange[str]:
        """Exchange an invitation for a password of one's own; returns whose it was."""
        body = {"invitation": invitation, "password": password}
        return (yield from fetch(self._line, post("invitations", "accept", body=body), _Accepted)).person

    @verb
    def sign_out(self, *, everywhere: bool = False) -> Exchange[None]:
        """End this session, or all of one's own."""
        yield from tell_nothing(self._line, post("sign-out", *(("everywhere",) if everywhere else ())))

    @verb
    def me(self) -> Exchange[Me]:
        """Who calls."""
        return (yield from fetch(self._line, get("me"), Me))

    @verb
    def organisation(self) -> Exchange[str]:
        """Whose gateway this says it is; asked without saying who asks."""
        return (yield from whose(self._line))

    @verb
    def about(self) -> Exchange[About]:
        """Whose gateway this is."""
        return (yield from fetch(self._line, get("about"), About))

    @verb
    def change_password(self, old: str, new: str) -> Exchange[SignedIn]:
        """Change one's own password: all sessions end, and a new one begins."""
        return (yield from fetch(self._line, post("me", "password", body={"old": old, "new": new}), SignedIn))

    @verb
    def sessions(self) -> Exchange[SessionList]:
        """Wherever one is signed in."""
        return (yield from fetch(self._line, get("me", "sessions"), SessionList))

    @verb
    def end_session(self, session: str) -> Exchange[None]:
        """End one of one's own sessions."""
        yield from tell_nothing(self._line, Call("DELETE", ("me", "sessions", session), body={}))

    @verb
    def begin_codes(self, password: str) -> Exchange[str]:
        """Begin to set up one-time codes; returns the ``otpauth:`` address for an authenticator app, a secret."""
        return (yield from fetch(self._line, post("me", "codes", body={"password": password}), _Seed)).uri

    @verb
    def confirm_codes(self, code: str) -> Exchange[tuple[str, ...]]:
        """Confirm them with the first code; returns recovery codes, secrets that are shown once."""
        return (yield from fetch(self._line, post("me", "codes", "confirm", body={"code": code}), _Codes)).codes

    @verb
    def recovery_codes(self, password: str) -> Exchange[tuple[str, ...]]:
        """Ten new recovery codes; the old ones end."""
        return (yield from fetch(self._line, post("me", "recovery-codes", body={"password": password}), _Codes)).codes


class People(Part[M]):
    """``/v1/people``: the organisation's accounts."""

    @verb
    def list(self) -> Exchange[PeopleList]:
        """Every account."""
        return (yield from fetch(self._line, get("people"), PeopleList))

    @verb
    def add(self, name: str, roles: Sequence[str]) -> Exchange[Invitation]:
        """A new account; its invitation is shown this once."""
        return (yield from fetch(self._line, post("people", body={"name": name, "roles": [*roles]}), Invitation))

    @verb
    def set_roles(self, person: str, roles: Sequence[str]) -> Exchange[None]:
        """These roles and no others. A change ends its sessions; where a role is taken away, its tokens too."""
        yield from tell_nothing(self._line, Call("PUT", ("people", person, "roles"), body={"roles": [*roles]}))

    @verb
    def disable(self, person: str) -> Exchange[None]:
        """Its sessions and tokens end, for good."""
        yield from tell_nothing(self._line, post("people", person, "disable"))

    @verb
    def enable(self, person: str) -> Exchange[None]:
        """Let somebody sign in again."""
        yield from tell_nothing(self._line, post("people", person, "enable"))

    @verb
    def sign_out(self, person: str) -> Exchange[None]:
        """End somebody's sessions; they can sign in again, and their programs' tokens stay."""
        yield from tell_nothing(self._line, post("people", person, "sign-out"))

    @verb
    def reset(self, person: str, *, codes: bool = False) -> Exchange[Invitation]:
        """End the password, with all sessions and tokens; the new invitation is shown this once.

        codes: one-time codes too.
        """
        return (yield from fetch(self._line, post("people", person, "reset", body={"codes": codes}), Invitation))


class Tokens(Part[M]):
    """``/v1/tokens``: tokens of programs."""

    @verb
    def issue(self, label: str, scopes: Sequence[str], key: bytes, *, days: int) -> Exchange[IssuedToken]:
        """A token for a program of one's own. key: its ed25519 public key, 32 bytes; days: 1 to 365."""
        body = {"label": label, "scopes": [*scopes], "key": key.hex(), "days": days}
        return (yield from fetch(self._line, post("tokens", body=body), IssuedToken))

    @verb
    def list(self, *, everybody: bool = False) -> Exchange[TokenList]:
        """One's own tokens, or everybody's, without their secrets."""
        return (yield from fetch(self._line, get("tokens") if everybody else get("me", "tokens"), TokenList))

    @verb
    def revoke(self, token: str) -> Exchange[None]:
        """It fails from the next call on."""
        yield from tell_nothing(self._line, Call("DELETE", ("tokens", token), body={}))


class SecurityLog(Part[M]):
    """``/v1/security-log``."""

    @verb
    def read(self, *, limit: int = 100, before: int | None = None) -> Exchange[SecurityPage]:
        """A page of entries, the newest first. limit: 1 to 1000."""
        return (yield from fetch(self._line, get("security-log", limit=limit, before=before), SecurityPage))

    @verb
    def check(self, *, entries: int = 0, head: str = "") -> Exchange[SecurityChain]:
        """Whether the whole chain holds. entries, head: of a head that was kept elsewhere."""
        return (yield from fetch(self._line, get("security-log", "check", entries=entries, head=head), SecurityChain))
