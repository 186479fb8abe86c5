"""What ends with a reset, a disabling, a change of roles and a restore: sessions, tokens, and what works once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import sqlalchemy as sa

from medveil.service.accounts import one_time_codes, ways_in
from medveil.service.accounts.passwords import Hashing, Passwords
from medveil.service.accounts.people import People
from medveil.service.accounts.rights import Principal, rights_of
from medveil.service.accounts.sign_in import SignedIn, SignIn
from medveil.service.accounts.tokens import Tokens
from medveil.service.database import Database
from medveil.service.security import security_log
from wire.errors import Refused
from wire.signing import Signer

from ..conftest import Clock

GOOD = "seven wet lanterns hum"
QUICK = Passwords(Hashing(1, 8, 1))
ADMIN = Principal("person", "root", frozenset({"admin"}), rights_of({"admin"}), "root")
KEY = Signer(bytes(range(32))).key
HERE = "192.0.2.1"


class House:
    """An organisation with an admin, root; ada, signed in, with a program of hers; and bo, signed in."""

    def __init__(self, database: Database, clock: Clock, rand: Callable[[int], bytes]) -> None:
        self.database, self.clock = database, clock
        self.people = People(database, "hospital-a", clock=clock, rand=rand, passwords=QUICK)
        self.door = SignIn(database, "hospital-a", bytes(32), clock=clock, rand=rand, passwords=QUICK)
        self.book = Tokens(database, clock=clock, rand=rand)
        self.people.accept(self.people.invite_first_admin("root"), GOOD)
        for name, roles in (("ada", {"researcher", "officer"}), ("bo", {"researcher"})):
            self.people.accept(self.people.add(ADMIN, name, roles), GOOD)
        self.ada = self.door.sign_in("ada", GOOD, address=HERE)
        self.bo = self.door.sign_in("bo", GOOD, address=HERE)
        self.tokens = {name: self.token(name) for name in ("ada", "bo")}

    def token(self, name: str) -> str:
        """A program's secret that reads queries."""
        by = Principal("person", name, frozenset({"researcher"}), rights_of({"researcher"}), name)
        return self.book.issue(by, "run", {"queries.read"}, KEY, days=30)[0]

    def ended(self) -> dict[str, list[str]]:
        """Whose session, and whose token, is refused now; by the code."""
        found: dict[str, list[str]] = {}
        ways = [(f"{name}'s session", self.door.principal, one.session) for name, one in self.sessions.items()]
        for what, ask, secret in [*ways, *((f"{n}'s token", self.book.principal, t) for n, t in self.tokens.items())]:
            try:
                ask(secret)
            except Refused as error:
                found.setdefault(what, []).append(error.code)
        return found

    @property
    def sessions(self) -> dict[str, SignedIn]:
        return {"ada": self.ada, "bo": self.bo}

    def log(self) -> list[tuple[str, str, str]]:
        with self.database.reading() as connection:
            security_log.verify(connection)
            return [(one.actor, one.event, one.reason) for one in security_log.read(connection)]


@pytest.fixture
def house(either: Database, clock: Clock, rand: Callable[[int], bytes]) -> House:
    return House(either, clock, rand)


BOTH = {"ada's session": ["accounts.no_session"], "ada's token": ["tokens.revoked"]}


def test_a_reset_ends_sessions_and_tokens(house: House) -> None:
    invitation = house.people.reset(ADMIN, "ada")
    assert house.ended() == BOTH
    assert ("person:root", "tokens.revoked", "people.reset") in house.log()
    house.people.accept(invitation, GOOD)
    assert house.ended() == BOTH and house.door.sign_in("ada", GOOD, address=HERE).person == "ada"


def test_who_is_enabled_again_has_no_old_session_or_token(house: House) -> None:
    house.people.set_disabled(ADMIN, "ada", True)
    assert house.ended() == {**BOTH, "ada's token": ["tokens.owner_gone"]}
    house.people.set_disabled(ADMIN, "ada", False)
    assert house.ended() == BOTH
    house.tokens["ada"] = house.token("ada")
    assert "ada's token" not in house.ended()


def test_a_role_that_is_taken_away_and_given_back(house: House) -> None:
    house.people.set_roles(ADMIN, "ada", {"officer"})
    assert house.ended() == BOTH
    house.people.set_roles(ADMIN, "ada", {"officer", "researcher"})
    assert house.ended() == BOTH


def test_a_further_role_asks_for_a_new_sign_in_and_leaves_programs(house: House) -> None:
    house.people.set_roles(ADMIN, "bo", {"researcher"})  # the same: nothing happens
    assert house.ended() == {}
    house.people.set_roles(ADMIN, "bo", {"researcher", "auditor"})
    assert house.ended() == {"bo's session": ["accounts.no_session"]}


def test_roles_that_a_provider_takes_away(house: House) -> None:
    name = house.people.of_provider("issuer", "17", "eve", frozenset({"researcher", "auditor"}))
    house.tokens["eve"] = house.token("eve")
    session = house.door.open_for_provider(name).session
    house.people.of_provider("issuer", "17", "eve", frozenset({"researcher", "auditor"}))
    assert house.door.principal(session).name == "eve" and house.ended() == {}
    house.people.of_provider("issuer", "17", "eve", frozenset({"researcher"}))
    assert house.ended() == {"eve's token": ["tokens.revoked"]}
    with pytest.raises(Refused):
        house.door.principal(session)


def test_a_refused_change_ends_nothing(house: House) -> None:
    """The last admin stays, with session and token."""
    house.ada = house.door.sign_in("root", GOOD, address=HERE)
    for change in (
        lambda: house.people.set_disabled(ADMIN, "root", True),
        lambda: house.people.set_roles(ADMIN, "root", {"auditor"}),
        lambda: house.people.reset(ADMIN, "root"),
    ):
        with pytest.raises(Refused):
            change()
    assert house.ended() == {}


def test_what_a_store_of_before_brings_back_is_over(
    house: House, either: Database, rand: Callable[[int], bytes]
) -> None:
    """Invitations and recovery codes that may have been used, tokens that may have been revoked, and sessions."""
    invitation = house.people.add(ADMIN, "carl", {"clerk"})
    with either.transaction() as connection:
        codes = one_time_codes.new_recovery_codes(rand)
        rows = [{"person": "bo", "code": one_time_codes.recovery_digest("bo", code)} for code in codes]
        connection.execute(ways_in.recovery_codes.insert(), rows)
        ways_in.end_all(connection, house.clock(), "restored")
    everybody = {name.replace("ada", "bo"): code for name, code in BOTH.items()}
    assert house.ended() == {**BOTH, **everybody}
    with pytest.raises(Refused) as raised:
        house.people.accept(invitation, GOOD)
    assert raised.value.code == "accounts.no_invitation"
    with either.reading() as connection:
        for table in (ways_in.recovery_codes, ways_in.devices, ways_in.sessions, ways_in.invitations):
            assert connection.execute(sa.select(table)).all() == []
    assert house.log()[:2] == [
        ("-", "tokens.all_revoked", "restored 2"),
        ("-", "people.all_sessions_ended", "restored"),
    ]
    house.people.accept(house.people.reset(ADMIN, "carl"), GOOD)  # invited again
    assert house.door.sign_in("bo", GOOD, address=HERE).person == "bo"
    house.tokens["bo"] = house.token("bo")
    assert "bo's token" not in house.ended()


def test_a_call_that_was_under_way_leaves_nothing_behind(house: House) -> None:
    """Who was let in before the reset makes no token and no account after it."""
    session = house.door.sign_in("root", GOOD, address=HERE).session
    ada, root = (
        replace(found, rights=rights_of(found.roles), enrolling=False)
        for found in map(house.door.principal, (house.ada.session, session))
    )
    house.people.reset(ADMIN, "ada")
    house.people.end_sessions(ADMIN, "root")
    for late in (
        lambda: house.book.issue(ada, "run", {"queries.read"}, KEY, days=30),
        lambda: house.people.add(root, "eve", {"admin"}),
        lambda: house.people.reset(root, "bo"),
        lambda: house.people.set_roles(root, "bo", {"admin"}),
        lambda: house.people.set_disabled(root, "bo", True),
        lambda: house.people.end_sessions(root, "bo"),
    ):
        with pytest.raises(Refused) as raised:
            late()
        assert raised.value.code == "accounts.no_session"
    assert house.ended() == BOTH and "eve" not in [one.name for one in house.people.all(ADMIN)]
