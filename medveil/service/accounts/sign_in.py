"""Signing in, sessions, one's own password and one-time codes.

A session is a random secret of 256 bits, kept hashed. It ends 30 minutes after its last use, 12 hours after it
began, at sign-out, at a change of the password, and when its account is reset, disabled or given other roles. Every
sign-in makes a new one and ends the one it replaces (no fixation). Roles are read at each call.

An attempt is counted before its password is looked at (`throttling`), an unknown or disabled name costs the same
work, and all of "no such account", "wrong password" and "wrong code" are one answer. Hashing runs outside of any
transaction: nobody waits for the store meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import sqlalchemy as sa

from medveil.service.accounts import one_time_codes, throttling
from medveil.service.accounts.passwords import Passwords, check_new
from medveil.service.accounts.people import Clock, Rand, is_name, kept, new_secret, people, roles_of
from medveil.service.accounts.rights import ROLES, Principal, check, rights_of
from medveil.service.accounts.standing import Remembered, stamp_of
from medveil.service.accounts.ways_in import devices, end_sessions, recovery_codes, sessions
from medveil.service.database import Database
from medveil.service.security import security_log
from wire.domains import SERVICE_SECRET, digest
from wire.errors import Refused, Unavailable

IDLE_MS = 30 * 60 * 1000
ABSOLUTE_MS = 12 * 3600 * 1000
DEVICE_MS = 180 * 24 * 3600 * 1000
_SEEN_MS = 60 * 1000  # how exact the last use is kept: not every call writes


@dataclass(frozen=True)
class SignedIn:
    """A new session. session, device: secret; device is shown at later sign-ins from the same place.

    enrolling: the roles need one-time codes that are not set up: until then only ``account.own`` is allowed.
    """

    person: str
    session: str = field(repr=False)
    device: str = field(repr=False)
    expires: int
    enrolling: bool


class Standing(NamedTuple):
    """A session as its person sees it. session: its name, which opens nothing. Instants in ms UTC; own: the call's."""

    session: str
    created: int
    seen: int
    expires: int
    own: bool


class SignIn:
    """Sessions of one organisation's people.

    key: 32 secret bytes of the service, kept outside the database, for the seeds of one-time codes.
    codes_for: roles that need one-time codes.
    """

    def __init__(
        self,
        database: Database,
        organisation: str,
        key: bytes,
        *,
        clock: Clock,
        rand: Rand,
        passwords: Passwords | None = None,
        codes_for: frozenset[str] = frozenset(ROLES),
    ) -> None:
        self._database = database
        self._organisation = organisation
        self._key = key
        self._clock = clock
        self._rand = rand
        self._passwords = passwords or Passwords()
        self._codes_for = codes_for
        self._remembered: Remembered[Principal] = Remembered()

    def sign_in(
        self, name: str, password: str, code: str = "", *, address: str, device: str = "", replaces: str = ""
    ) -> SignedIn:
        """A session for somebody who knows the password and, where they are set up, a one-time code.

        code: TOTP or recovery code. address: of the caller, as the service believes it. device: the secret of an
        earlier sign-in, or empty. replaces: the caller's present session, which ends.
        Raises Unavailable (wait: retry_after), Refused (``accounts.code_needed``; else one answer for all).
        """
        typed = name.strip().lower()
        name = typed if is_name(typed) else ""  # what is no name is nobody's, and goes into no statement
        row, counters = self._count(name, typed, address, device)
        hashed = row.password if row and not row.disabled else None
        right = self._passwords.matches(hashed, password)
        renewed = self._passwords.hash(password) if right and self._passwords.is_outdated(hashed or "") else None
        now = self._clock()
        with self._database.transaction() as connection:
            fresh = connection.execute(sa.select(people).where(people.c.name == name)).one_or_none()
            if not right or fresh is None or row is None or fresh.disabled or fresh.password != row.password:
                self._refused(connection, now, name if row else "")
                outcome = "accounts.not_signed_in"
            elif fresh.totp is not None and not code:
                throttling.refund(connection, now, *counters)
                outcome = "accounts.code_needed"
            elif fresh.totp is not None and not self._use_code(connection, fresh, code, now):
                self._refused(connection, now, name)
                outcome = "accounts.not_signed_in"
            else:
                throttling.refund(connection, now, *counters[:-1])
                throttling.clear(connection, counters[-1])
                return self._signed_in(connection, name, device, replaces, renewed)
        raise Refused("accounts.code_needed" if outcome == "accounts.code_needed" else "accounts.not_signed_in")

    def open_for_provider(self, name: str, *, replaces: str = "") -> SignedIn:
        """A session for somebody whom an OpenID provider vouched for just now."""
        with self._database.transaction() as connection:
            if connection.execute(sa.select(people.c.disabled).where(people.c.name == name)).scalar_one():
                raise Refused("accounts.disabled", person=name)  # since the provider was asked
            return self._signed_in(connection, name, "", replaces, None, by_provider=True)

    def recalled(self, session: str, stamp: int) -> Principal | None:
        """What `principal` would return, where that is remembered under the present stamp (`Standing.now`)."""
        return self._remembered.get(kept("session", session), self._clock(), stamp)

    def principal(self, session: str) -> Principal:
        """Who calls with this session. Raises Refused where it ended or never was."""
        secret, now = kept("session", session), self._clock()
        query = (
            sa.select(sessions, people.c.disabled, people.c.totp, roles_of.c.role)
            .join(people, people.c.name == sessions.c.person)
            .outerjoin(roles_of, roles_of.c.person == sessions.c.person)
            .where(sessions.c.secret == secret)
        )
        with self._database.reading() as connection:
            stamp, rows = stamp_of(connection), connection.execute(query).all()
        if not rows or rows[0].disabled or rows[0].expires <= now or rows[0].seen + IDLE_MS <= now:
            raise Refused("accounts.no_session")
        first, given = rows[0], frozenset(row.role for row in rows if row.role is not None)
        seen = first.seen
        if seen + _SEEN_MS <= now:
            seen = now
            with self._database.transaction() as connection:
                connection.execute(sessions.update().where(sessions.c.secret == secret).values(seen=now))
        enrolling = bool(given & self._codes_for) and first.totp is None and not first.by_provider
        rights = frozenset({"account.own"}) if enrolling else rights_of(given)
        found = Principal("person", first.person, given, rights, first.person, enrolling, secret)
        self._remembered.put(secret, found, stamp=stamp, until=min(first.expires, seen + _SEEN_MS))
        return found

    def sign_out(self, who: Principal, *, everywhere: bool = False) -> None:
        """End this session, or all of the person's."""
        check(who, "account.own")
        with self._database.transaction() as connection:
            if everywhere:
                end_sessions(connection, who.name)
            else:
                connection.execute(sessions.delete().where(sessions.c.secret == who.session))
            self._log(connection, who, "account.signed_out", "everywhere" if everywhere else "")

    def sessions_of(self, who: Principal) -> list[Standing]:
        """One's sessions that stand, the newest first."""
        check(who, "account.own")
        now = self._clock()
        mine = (sessions.c.person == who.name, sessions.c.expires > now, sessions.c.seen > now - IDLE_MS)
        query = sa.select(sessions).where(*mine).order_by(sessions.c.created.desc(), sessions.c.secret)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [
            Standing(_shown(row.secret), row.created, row.seen, row.expires, bytes(row.secret) == who.session)
            for row in rows
        ]

    def end_session(self, who: Principal, shown: str) -> None:
        """End one of one's sessions, by what `sessions_of` calls it. Raises Refused where there is none."""
        check(who, "account.own")
        with self._database.transaction() as connection:
            rows = connection.execute(sa.select(sessions.c.secret).where(sessions.c.person == who.name)).scalars()
            for secret in [bytes(secret) for secret in rows if _shown(secret) == shown]:
                connection.execute(sessions.delete().where(sessions.c.secret == secret))
                self._log(connection, who, "account.session_ended")
                return
        raise Refused("accounts.unknown_session")

    def change_password(self, who: Principal, old: str, new: str, *, address: str) -> SignedIn:
        """Change one's own password. All sessions and known devices end; returns a new session.

        Raises Refused (old one wrong; new one not accepted), Unavailable (wait).
        """
        confirmed = self._confirm(who, old, address)
        check_new(new, (who.name, self._organisation))
        hashed = self._passwords.hash(new)
        with self._database.transaction() as connection:
            self._check_still(connection, who, confirmed)
            connection.execute(people.update().where(people.c.name == who.name).values(password=hashed))
            end_sessions(connection, who.name)
            self._log(connection, who, "account.password_changed")
            return self._signed_in(connection, who.name, "", "", None)

    def begin_codes(self, who: Principal, password: str, *, address: str) -> str:
        """The ``otpauth://`` address for an authenticator app (secret). It counts once `finish_codes` saw a code."""
        confirmed = self._confirm(who, password, address)
        seed = one_time_codes.new_seed(self._rand)
        locked = one_time_codes.lock_seed(self._key, who.name, seed, self._rand)
        with self._database.transaction() as connection:
            self._check_still(connection, who, confirmed)
            connection.execute(people.update().where(people.c.name == who.name).values(totp_pending=locked))
        return one_time_codes.provisioning_uri(seed, who.name, f"medveil {self._organisation}")

    def finish_codes(self, who: Principal, code: str) -> list[str]:
        """Confirm the new seed with its first code; returns ten recovery codes (secret, shown once)."""
        check(who, "account.own")
        now = self._clock()
        with self._database.transaction() as connection:
            row = connection.execute(sa.select(people).where(people.c.name == who.name)).one()
            self._check_still(connection, who, row.password)
            if row.totp_pending is None:
                raise Refused("accounts.no_pending_codes")
            seed = one_time_codes.unlock_seed(self._key, who.name, bytes(row.totp_pending))
            step = one_time_codes.matching_step(seed, code, now, -1)
            if step is None:
                raise Refused("accounts.wrong_code")
            change = {"totp": row.totp_pending, "totp_pending": None, "totp_step": step}
            connection.execute(people.update().where(people.c.name == who.name).values(change))
            connection.execute(sessions.delete().where(sessions.c.person == who.name, sessions.c.secret != who.session))
            self._log(connection, who, "account.codes_set_up")
            return self._new_recovery_codes(connection, who.name)

    def new_recovery_codes(self, who: Principal, password: str, *, address: str) -> list[str]:
        """Ten new recovery codes (secret, shown once); the old ones end."""
        confirmed = self._confirm(who, password, address)
        with self._database.transaction() as connection:
            self._check_still(connection, who, confirmed)
            self._log(connection, who, "account.recovery_codes_renewed")
            return self._new_recovery_codes(connection, who.name)

    def _count(
        self, name: str, typed: str, address: str, device: str
    ) -> tuple[sa.Row[tuple[object, ...]] | None, tuple[throttling.Counter, ...]]:
        """Count the attempt, address first; returns the account's row. Raises Unavailable inside a wait."""
        now, secret = self._clock(), kept("device", device)
        with self._database.transaction() as connection:
            known = (
                device
                and connection.execute(
                    sa.select(devices).where(
                        devices.c.secret == secret, devices.c.person == name, devices.c.expires > now
                    )
                ).one_or_none()
            )
            # A known device counts alone: who shares its address (a ward behind one) must not shut it out.
            here = throttling.of_address(address)
            counters = (throttling.of_device(secret),) if known else (here, throttling.of_account(typed))
            wait = throttling.count(connection, now, *counters)
            row = connection.execute(sa.select(people).where(people.c.name == name)).one_or_none()
        if wait:
            raise Unavailable("accounts.wait", retry_after=wait, seconds=wait)
        return row, counters

    def _confirm(self, who: Principal, password: str, address: str) -> str | None:
        """Ask for the password again before something that lasts; counted like a sign-in from a known device.

        Returns it as it is kept, for `_check_still`.
        """
        check(who, "account.own")
        now = self._clock()
        counter = throttling.of_device(who.session)
        with self._database.transaction() as connection:
            wait = throttling.count(connection, now, counter)
            row = connection.execute(sa.select(people).where(people.c.name == who.name)).one()
        if wait:
            raise Unavailable("accounts.wait", retry_after=wait, seconds=wait)
        right = self._passwords.matches(row.password, password)
        with self._database.transaction() as connection:
            if right:
                throttling.clear(connection, counter)
            else:
                self._log(connection, who, "account.wrong_password")
        if not right:
            raise Refused("accounts.not_confirmed")
        kept_as: str | None = row.password
        return kept_as

    def _check_still(self, connection: sa.Connection, who: Principal, confirmed: str | None) -> None:
        """In the transaction that changes something: what was confirmed outside of it was not withdrawn meanwhile.

        Hashing takes long enough for an administrator's reset to come in between, which must not be undone by it.
        """
        mine = sa.select(people.c.password, people.c.disabled).where(people.c.name == who.name)
        session = sa.select(sessions.c.secret).where(sessions.c.secret == who.session, sessions.c.person == who.name)
        row = connection.execute(mine).one()
        gone = row.disabled or row.password != confirmed or connection.execute(session).one_or_none() is None
        if gone:
            raise Refused("accounts.no_session")

    def _use_code(self, connection: sa.Connection, row: sa.Row[tuple[object, ...]], code: str, now: int) -> bool:
        """Whether the code is right; if so, it is used up."""
        if len(code.strip()) <= 8:
            seed = one_time_codes.unlock_seed(self._key, row.name, bytes(row.totp))
            step = one_time_codes.matching_step(seed, code, now, row.totp_step)
            if step is not None:
                connection.execute(people.update().where(people.c.name == row.name).values(totp_step=step))
            return step is not None
        mine = recovery_codes.c.person == row.name
        used = one_time_codes.recovery_digest(row.name, code)
        done = connection.execute(recovery_codes.delete().where(mine, recovery_codes.c.code == used))
        if done.rowcount:
            security_log.append(
                connection, now, f"person:{row.name}", "account.recovery_code_used", f"person:{row.name}"
            )
        return bool(done.rowcount)

    def _signed_in(
        self,
        connection: sa.Connection,
        name: str,
        device: str,
        replaces: str,
        renewed: str | None,
        *,
        by_provider: bool = False,
    ) -> SignedIn:
        now, secret = self._clock(), new_secret(self._rand)
        gone = (sessions.c.secret == kept("session", replaces), sessions.c.expires <= now)
        connection.execute(sessions.delete().where(sa.or_(*gone, sessions.c.seen <= now - IDLE_MS)))
        connection.execute(devices.delete().where(devices.c.expires <= now))
        row = {"secret": kept("session", secret), "person": name, "created": now, "seen": now}
        connection.execute(sessions.insert().values(**row, expires=now + ABSOLUTE_MS, by_provider=by_provider))
        mine = sa.select(devices).where(devices.c.secret == kept("device", device), devices.c.person == name)
        if not by_provider and connection.execute(mine).one_or_none() is None:
            device = new_secret(self._rand)
            row = {"secret": kept("device", device), "person": name, "expires": now + DEVICE_MS}
            connection.execute(devices.insert().values(row))
        if renewed is not None:
            connection.execute(people.update().where(people.c.name == name).values(password=renewed))
        person = connection.execute(sa.select(people).where(people.c.name == name)).one()
        given = frozenset(connection.execute(sa.select(roles_of.c.role).where(roles_of.c.person == name)).scalars())
        how = "provider" if by_provider else "password" if person.totp is None else "password and code"
        security_log.append(connection, now, f"person:{name}", "account.signed_in", f"person:{name}", how)
        enrolling = bool(given & self._codes_for) and person.totp is None and not by_provider
        return SignedIn(name, secret, device, now + ABSOLUTE_MS, enrolling)

    def _new_recovery_codes(self, connection: sa.Connection, name: str) -> list[str]:
        codes = one_time_codes.new_recovery_codes(self._rand)
        connection.execute(recovery_codes.delete().where(recovery_codes.c.person == name))
        rows = [{"person": name, "code": one_time_codes.recovery_digest(name, code)} for code in codes]
        connection.execute(recovery_codes.insert(), rows)
        return codes

    def _refused(self, connection: sa.Connection, now: int, name: str) -> None:
        security_log.append(connection, now, "-", "account.not_signed_in", f"person:{name}" if name else "unknown")

    def _log(self, connection: sa.Connection, who: Principal, what: str, reason: str = "") -> None:
        security_log.append(connection, self._clock(), who.actor, what, who.actor, reason)


def _shown(secret: bytes) -> str:
    """What a session is called where people see it: 64 bits of a hash of what is kept of its secret."""
    return digest(SERVICE_SECRET, b"shown", bytes(secret)).hex()[:16]
