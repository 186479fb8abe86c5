"""The people of one organisation: accounts, roles, invitations. What an admin does; signing in is `sign_in`.

Nobody sets another's password: an account starts with an invitation, a one-time secret of 256 bits that its
person exchanges for a password of their own. The first admin gets theirs from ``medveil init``. The last admin who
can sign in stays one. An account is disabled, not deleted: the security log names it.

A reset, a disabling and a change of roles end sessions and, unless roles were only added, programs' tokens; what was
ended stays so when the account is enabled or the role given again. Every change is in the security log, in the same
transaction.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from medveil.service.accounts import ways_in
from medveil.service.accounts.passwords import Passwords, check_new
from medveil.service.accounts.rights import Principal, check, check_roles
from medveil.service.accounts.ways_in import invitations, recovery_codes
from medveil.service.database import Database, metadata
from medveil.service.security import security_log
from wire.domains import SERVICE_SECRET, digest
from wire.errors import DecodeError, Refused
from wire.identifiers import check_name

Clock = Callable[[], int]
Rand = Callable[[int], bytes]

INVITATION_MS = 3 * 24 * 3600 * 1000

people = sa.Table(
    "people",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False),
    sa.Column("password", sa.Text),
    sa.Column("totp", sa.LargeBinary),  # encrypted
    sa.Column("totp_pending", sa.LargeBinary),  # encrypted, shown but not yet confirmed
    sa.Column("totp_step", sa.BigInteger, nullable=False),
    sa.Column("issuer", sa.Text),
    sa.Column("subject", sa.Text),
    sa.UniqueConstraint("issuer", "subject"),
)
roles_of = sa.Table(
    "people_roles",
    metadata,
    sa.Column("person", sa.Text, sa.ForeignKey("people.name"), primary_key=True),
    sa.Column("role", sa.Text, primary_key=True),
)


@dataclass(frozen=True)
class Person:
    """One account, as an admin or auditor sees it."""

    name: str
    roles: frozenset[str]
    created: int
    disabled: bool
    has_password: bool
    has_codes: bool
    issuer: str


def new_secret(rand: Rand) -> str:
    """256 random bits as text that fits a header, a cookie and a form."""
    return base64.urlsafe_b64encode(rand(32)).rstrip(b"=").decode()


def kept(what: str, secret: str) -> bytes:
    """What the store keeps of a random secret. It has 256 bits, so one hash is enough (no salt, no stretching)."""
    return digest(SERVICE_SECRET, what.encode(), secret.encode("utf-8", "replace"))


class People:
    """Accounts of one organisation. organisation: its name, which no password may lean on."""

    def __init__(
        self, database: Database, organisation: str, *, clock: Clock, rand: Rand, passwords: Passwords | None = None
    ) -> None:
        self._database = database
        self._organisation = organisation
        self._clock = clock
        self._rand = rand
        self._passwords = passwords or Passwords()

    def invite_first_admin(self, name: str) -> str:
        """The one-time secret of the first admin, for ``medveil init``. Secret; holds for three days.

        May be asked for again while nobody has used it. Raises Refused while an admin can sign in.
        """
        name = _checked(name)
        with self._database.transaction() as connection:
            if _able_admins(connection):
                raise Refused("accounts.has_admin")
            if _row(connection, name) is None:
                self._insert(connection, name, frozenset({"admin"}))
            elif "admin" not in roles(connection, name):
                connection.execute(roles_of.insert().values(person=name, role="admin"))
            security_log.append(connection, self._clock(), "-", "people.first_admin", f"person:{name}", "admin")
            return self._invite(connection, name)

    def add(self, by: Principal, name: str, wanted: Iterable[str]) -> str:
        """Make an account with these roles; returns its invitation (secret). Needs ``people.manage``."""
        check(by, "people.manage")
        name, given = _checked(name), check_roles(wanted)
        with self._database.transaction() as connection:
            ways_in.check_stands(connection, by)
            if _row(connection, name) is not None:
                raise Refused("accounts.exists", person=name)
            self._insert(connection, name, given)
            self._log(connection, by, "people.added", name, " ".join(sorted(given)))
            return self._invite(connection, name)

    def accept(self, invitation: str, password: str) -> str:
        """Exchange an invitation for a password of one's own; returns the account's name.

        Raises Refused (unknown, used or expired invitation; password not accepted: the invitation then stays).
        """
        secret, now = kept("invitation", invitation), self._clock()
        found = sa.select(invitations.c.person).where(invitations.c.secret == secret, invitations.c.expires > now)
        with self._database.reading() as connection:
            name = connection.execute(found).scalar_one_or_none()
        if name is None:
            raise Refused("accounts.no_invitation")
        check_new(password, (name, self._organisation))
        hashed = self._passwords.hash(password)
        with self._database.transaction() as connection:
            if connection.execute(found).scalar_one_or_none() is None:  # used meanwhile
                raise Refused("accounts.no_invitation")
            connection.execute(invitations.delete().where(invitations.c.person == name))
            connection.execute(people.update().where(people.c.name == name).values(password=hashed))
            ways_in.end_sessions(connection, name)
            security_log.append(connection, now, f"person:{name}", "people.invitation_used", f"person:{name}")
        return str(name)

    def reset(self, by: Principal, name: str, *, codes: bool = False) -> str:
        """A new invitation for somebody who lost their password; the old one, all sessions and all tokens end.

        codes: end the one-time codes too. Returns the invitation (secret). Needs ``people.manage``.
        """
        check(by, "people.manage")
        with self._database.transaction() as connection:
            ways_in.check_stands(connection, by)
            row = _known(connection, name)
            if row.issuer is not None:
                raise Refused("accounts.of_provider", person=name)
            change: dict[str, object] = {"password": None}
            if codes:
                change |= {"totp": None, "totp_pending": None}
                connection.execute(recovery_codes.delete().where(recovery_codes.c.person == name))
            connection.execute(people.update().where(people.c.name == name).values(change))
            self._keep_an_admin(connection, name)
            self._log(connection, by, "people.reset", name, "codes" if codes else "")
            self._end(connection, by.actor, name, "people.reset")
            return self._invite(connection, name)

    def set_roles(self, by: Principal, name: str, wanted: Iterable[str]) -> None:
        """Give an account these roles and no others, from the next call on. Needs ``people.manage``.

        A change ends its sessions; where a role is taken away, its tokens too.
        """
        check(by, "people.manage")
        given = check_roles(wanted)
        with self._database.transaction() as connection:
            ways_in.check_stands(connection, by)
            _known(connection, name)
            before = roles(connection, name)
            self._replace_roles(connection, name, given)
            self._keep_an_admin(connection, name)
            self._log(connection, by, "people.roles", name, " ".join(sorted(given)))
            if given != before:
                self._end(connection, by.actor, name, "people.roles", tokens=bool(before - given))

    def set_disabled(self, by: Principal, name: str, disabled: bool) -> None:
        """Disable an account (its sessions, tokens and invitation end), or enable it again: those stay ended."""
        check(by, "people.manage")
        with self._database.transaction() as connection:
            ways_in.check_stands(connection, by)
            _known(connection, name)
            connection.execute(people.update().where(people.c.name == name).values(disabled=disabled))
            if disabled:
                connection.execute(invitations.delete().where(invitations.c.person == name))
                self._keep_an_admin(connection, name)
            self._log(connection, by, "people.disabled" if disabled else "people.enabled", name)
            if disabled:
                self._end(connection, by.actor, name, "people.disabled")

    def end_sessions(self, by: Principal, name: str) -> None:
        """End all of somebody's sessions; their tokens stay. Needs ``people.manage``."""
        check(by, "people.manage")
        with self._database.transaction() as connection:
            ways_in.check_stands(connection, by)
            _known(connection, name)
            ways_in.end_sessions(connection, name)
            self._log(connection, by, "people.sessions_ended", name)

    def of_provider(self, issuer: str, subject: str, name: str, given: frozenset[str]) -> str:
        """The account of somebody whom an OpenID provider vouches for, made at the first sign-in; returns its name.

        Roles follow the provider's claims at each sign-in, the last admin's too: then ``medveil init`` makes another.
        Raises Refused (disabled; the name is another account's).
        """
        with self._database.transaction() as connection:
            row = connection.execute(
                sa.select(people).where(people.c.issuer == issuer, people.c.subject == subject)
            ).one_or_none()
            if row is None:
                name = _checked(name)
                if _row(connection, name) is not None:
                    raise Refused("accounts.exists", person=name)
                self._insert(connection, name, given, issuer, subject)
                security_log.append(connection, self._clock(), "-", "people.added_by_provider", f"person:{name}")
                return name
            if row.disabled:
                raise Refused("accounts.disabled", person=row.name)
            before = roles(connection, row.name)
            if before != given:
                self._replace_roles(connection, row.name, given)
                reason = " ".join(sorted(given))
                security_log.append(
                    connection, self._clock(), "-", "people.roles_by_provider", f"person:{row.name}", reason
                )
                self._end(connection, "-", row.name, "people.roles_by_provider", tokens=bool(before - given))
            return str(row.name)

    def all(self, by: Principal) -> list[Person]:
        """Every account, by name. Needs ``people.read``."""
        check(by, "people.read")
        with self._database.reading() as connection:
            given: dict[str, set[str]] = {}
            for row in connection.execute(sa.select(roles_of)):
                given.setdefault(row.person, set()).add(row.role)
            rows = connection.execute(sa.select(people).order_by(people.c.name)).all()
        return [
            Person(
                row.name,
                frozenset(given.get(row.name, ())),
                row.created,
                row.disabled,
                row.password is not None,
                row.totp is not None,
                row.issuer or "",
            )
            for row in rows
        ]

    def _end(self, connection: sa.Connection, by: str, name: str, why: str, *, tokens: bool = True) -> None:
        """End an account's sessions and tokens. by: the actor, as the log has it."""
        ways_in.end_sessions(connection, name)
        if tokens:
            ways_in.end_tokens(connection, self._clock(), by, name, why)

    def _insert(
        self,
        connection: sa.Connection,
        name: str,
        given: frozenset[str],
        issuer: str | None = None,
        subject: str | None = None,
    ) -> None:
        row = {"name": name, "created": self._clock(), "disabled": False, "totp_step": 0}
        connection.execute(people.insert().values(**row, issuer=issuer, subject=subject))
        connection.execute(roles_of.insert(), [{"person": name, "role": role} for role in sorted(given)])

    def _replace_roles(self, connection: sa.Connection, name: str, given: frozenset[str]) -> None:
        connection.execute(roles_of.delete().where(roles_of.c.person == name))
        connection.execute(roles_of.insert(), [{"person": name, "role": role} for role in sorted(given)])

    def _invite(self, connection: sa.Connection, name: str) -> str:
        secret = new_secret(self._rand)
        connection.execute(invitations.delete().where(invitations.c.person == name))
        row = {"person": name, "secret": kept("invitation", secret), "expires": self._clock() + INVITATION_MS}
        connection.execute(invitations.insert().values(row))
        return secret

    def _keep_an_admin(self, connection: sa.Connection, name: str) -> None:
        """Undo the transaction by raising if it left nobody who can manage people."""
        if not _able_admins(connection):
            raise Refused("accounts.last_admin", person=name)

    def _log(self, connection: sa.Connection, by: Principal, what: str, name: str, reason: str = "") -> None:
        security_log.append(connection, self._clock(), by.actor, what, f"person:{name}", reason)


def roles(connection: sa.Connection, name: str) -> frozenset[str]:
    """The roles of an account; none for an unknown one."""
    return frozenset(connection.execute(sa.select(roles_of.c.role).where(roles_of.c.person == name)).scalars())


def _able_admins(connection: sa.Connection) -> int:
    """How many admins could sign in now."""
    able = sa.or_(people.c.password.is_not(None), people.c.issuer.is_not(None))
    admins = sa.select(roles_of.c.person).where(roles_of.c.role == "admin")
    query = sa.select(sa.func.count()).where(people.c.name.in_(admins), people.c.disabled.is_(False), able)
    return int(connection.execute(query).scalar_one())


def _row(connection: sa.Connection, name: str) -> sa.Row[tuple[object, ...]] | None:
    return connection.execute(sa.select(people).where(people.c.name == name)).one_or_none()


def _known(connection: sa.Connection, name: str) -> sa.Row[tuple[object, ...]]:
    row = _row(connection, name) if is_name(name) else None
    if row is None:
        raise Refused("accounts.unknown")
    return row


def is_name(text: str) -> bool:
    """Whether an account may have this name. Only such text goes into a statement."""
    try:
        check_name(text, "person")
    except DecodeError:
        return False
    return True


def _checked(name: str) -> str:
    if not is_name(name):
        raise Refused("accounts.bad_name")
    return name
