"""Tokens for programs: some of their owner's rights, for a year at most, bound to a key of the program's own.

A token is shown once and kept hashed. It is of little use alone: a call that changes something must also be signed
with the bound ed25519 key (`signatures`). Scopes are rights of `rights.RIGHTS` that a program may have; what the
owner loses, the token loses at the same moment. A reset or disabled owner's tokens end, and so do those of one who
lost a role.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from medveil.service.accounts.people import Clock, Rand, kept, new_secret, people, roles_of
from medveil.service.accounts.rights import RIGHTS, Principal, check, rights_of
from medveil.service.accounts.standing import Remembered, stamp_of
from medveil.service.accounts.ways_in import check_stands, tokens
from medveil.service.database import Database
from medveil.service.security import security_log
from wire.errors import Refused
from wire.signing import ED25519, PUBLIC_BYTES, VerifyKey

DAY_MS = 24 * 3600 * 1000
LONGEST_DAYS = 365
MOST_PER_OWNER = 50
PREFIX = "medveil_"
"""How a token begins, so that a scanner of leaked secrets finds it."""

_LABEL = re.compile(r"[\w .:/-]{1,64}")
_ID = re.compile(r"[0-9a-f]{16}")
_SEEN_MS = 60 * 1000


@dataclass(frozen=True)
class Token:
    """A token as its owner sees it: everything but its secret. Instants in ms UTC; used: 0 where never."""

    id: str
    owner: str
    label: str
    scopes: frozenset[str]
    key: VerifyKey
    created: int
    expires: int
    used: int
    revoked: bool


class Tokens:
    """The tokens of one organisation's people."""

    def __init__(self, database: Database, *, clock: Clock, rand: Rand) -> None:
        self._database = database
        self._clock = clock
        self._rand = rand
        self._remembered: Remembered[tuple[Principal, Token]] = Remembered()

    def issue(
        self, by: Principal, label: str, scopes: Iterable[str], key: VerifyKey, *, days: int
    ) -> tuple[str, Token]:
        """Make a token for a program of one's own; returns its secret (shown once) and what it is.

        label: 1..64 characters for people. key: the program's ed25519 key. days: 1..365.
        Raises Refused (a scope that is unknown, not one's own or not for programs; period; key; too many).
        """
        check(by, "tokens.own")
        wanted = frozenset(scopes)
        if not _LABEL.fullmatch(label):
            raise Refused("tokens.bad_label")
        if not wanted or not wanted <= RIGHTS.keys():
            raise Refused("tokens.unknown_scope")
        possible = by.rights & rights_of(by.roles, programs=True)
        beyond = sorted(wanted - possible)
        if beyond:
            raise Refused("tokens.beyond_rights", scopes=", ".join(beyond), possible=", ".join(sorted(possible)))
        if not 1 <= days <= LONGEST_DAYS:
            raise Refused("tokens.bad_period", longest=LONGEST_DAYS)
        if key.algorithm != ED25519 or not _is_point(key.public):
            raise Refused("tokens.bad_key")
        now, secret, name = self._clock(), PREFIX + new_secret(self._rand), self._rand(8).hex()
        token = Token(name, by.name, label, wanted, key, now, now + days * DAY_MS, 0, False)
        row = {"id": name, "secret": kept("token", secret), "owner": by.name, "label": label, "key": key.public}
        times = {"created": now, "expires": token.expires, "used": 0, "revoked": False}
        with self._database.transaction() as connection:
            check_stands(connection, by)
            mine = (tokens.c.owner == by.name, tokens.c.revoked.is_(False), tokens.c.expires > now)
            held = connection.execute(sa.select(sa.func.count()).select_from(tokens).where(*mine)).scalar_one()
            if held >= MOST_PER_OWNER:
                raise Refused("tokens.too_many", most=MOST_PER_OWNER)
            connection.execute(tokens.insert().values(**row, **times, scopes=" ".join(sorted(wanted))))
            reason = " ".join(sorted(wanted))
            security_log.append(connection, now, by.actor, "tokens.issued", f"program:{name}", reason)
        return secret, token

    def recalled(self, secret: str, stamp: int) -> tuple[Principal, Token] | None:
        """What `principal` would return, where that is remembered under the present stamp (`Standing.now`)."""
        return self._remembered.get(kept("token", secret), self._clock(), stamp)

    def principal(self, secret: str) -> tuple[Principal, Token]:
        """Who calls with this token, and the token, whose key a signature must be of.

        Raises Refused, each with its code: unknown, expired, revoked, owner gone.
        """
        now = self._clock()
        query = (
            sa.select(tokens, people.c.disabled, roles_of.c.role)
            .join(people, people.c.name == tokens.c.owner)
            .outerjoin(roles_of, roles_of.c.person == tokens.c.owner)
            .where(tokens.c.secret == kept("token", secret))
        )
        with self._database.reading() as connection:
            stamp, rows = stamp_of(connection), connection.execute(query).all()
        if not rows:
            raise Refused("tokens.unknown")
        row, roles = rows[0], frozenset(one.role for one in rows if one.role is not None)
        token = _token(row)
        if row.disabled:
            raise Refused("tokens.owner_gone", token=token.id)
        if token.revoked:
            raise Refused("tokens.revoked", token=token.id)
        if token.expires <= now:
            raise Refused("tokens.expired", token=token.id)
        used = token.used
        if used + _SEEN_MS <= now:
            used = now
            with self._database.transaction() as connection:
                connection.execute(tokens.update().where(tokens.c.id == token.id).values(used=now))
        rights = token.scopes & rights_of(roles, programs=True)
        found = Principal("program", token.id, roles, rights, token.owner), token
        until = min(token.expires, used + _SEEN_MS)
        self._remembered.put(kept("token", secret), found, stamp=stamp, until=until)
        return found

    def own(self, by: Principal) -> list[Token]:
        """One's own tokens, the newest first."""
        check(by, "tokens.own")
        return self._listed(tokens.c.owner == by.name)

    def all(self, by: Principal) -> list[Token]:
        """Everybody's tokens, the newest first. Needs ``tokens.read``."""
        check(by, "tokens.read")
        return self._listed(sa.true())

    def revoke(self, by: Principal, name: str) -> None:
        """End a token at once: one's own, or with ``tokens.revoke`` anybody's. Twice changes nothing more."""
        with self._database.transaction() as connection:
            known = name if _ID.fullmatch(name) else ""  # nothing else goes into a statement
            row = connection.execute(sa.select(tokens).where(tokens.c.id == known)).one_or_none()
            if row is None or row.owner != by.name:
                check(by, "tokens.revoke")
            else:
                check(by, "tokens.own")
            if row is None:
                raise Refused("tokens.no_such", token=name)
            if not row.revoked:
                connection.execute(tokens.update().where(tokens.c.id == name).values(revoked=True))
                security_log.append(connection, self._clock(), by.actor, "tokens.revoked", f"program:{name}")

    def _listed(self, condition: sa.ColumnElement[bool]) -> list[Token]:
        query = sa.select(tokens).where(condition).order_by(tokens.c.created.desc(), tokens.c.id)
        with self._database.reading() as connection:
            return [_token(row) for row in connection.execute(query)]


def _token(row: sa.Row[tuple[object, ...]]) -> Token:
    return Token(
        row.id,
        row.owner,
        row.label,
        frozenset(row.scopes.split()),
        VerifyKey(ED25519, bytes(row.key)),
        row.created,
        row.expires,
        row.used,
        row.revoked,
    )


def _is_point(public: bytes) -> bool:
    """Whether these bytes are a key that signatures can be checked with: on the curve, not of small order."""
    from nacl import bindings

    return len(public) == PUBLIC_BYTES and bindings.crypto_core_ed25519_is_valid_point(public)
