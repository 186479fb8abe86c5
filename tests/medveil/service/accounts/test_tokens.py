"""Tokens: shown once, some of the owner's rights, an end, a key; what the owner loses the token loses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from medveil.service.accounts.passwords import Hashing, Passwords
from medveil.service.accounts.people import People, roles_of
from medveil.service.accounts.rights import Principal, check, rights_of
from medveil.service.accounts.tokens import DAY_MS, MOST_PER_OWNER, PREFIX, Tokens
from medveil.service.accounts.ways_in import tokens
from medveil.service.database import Database
from medveil.service.security import security_log
from wire.errors import Refused
from wire.signing import Signer, VerifyKey

from ..conftest import Clock

ADMIN = Principal("person", "root", frozenset({"admin"}), rights_of({"admin"}), "root")
ADA = Principal("person", "ada", frozenset({"researcher"}), rights_of({"researcher"}), "ada")
KEY = Signer(bytes(range(32))).key


@pytest.fixture
def people(either: Database, clock: Clock, rand: Callable[[int], bytes]) -> People:
    made = People(either, "hospital-a", clock=clock, rand=rand, passwords=Passwords(Hashing(1, 8, 1)))
    made.accept(made.invite_first_admin("root"), "seven wet lanterns hum")
    made.add(ADMIN, "ada", {"researcher"})
    made.add(ADMIN, "bob", {"researcher"})
    return made


@pytest.fixture
def book(people: People, either: Database, clock: Clock, rand: Callable[[int], bytes]) -> Tokens:
    return Tokens(either, clock=clock, rand=rand)


def _refused(attempt: Callable[[], object]) -> str:
    with pytest.raises(Refused) as raised:
        attempt()
    return raised.value.code


def test_a_token_is_shown_once_kept_hashed_and_gives_its_scopes(book: Tokens, either: Database, clock: Clock) -> None:
    secret, token = book.issue(ADA, "nightly run", {"queries.ask", "queries.read"}, KEY, days=30)
    assert secret.startswith(PREFIX) and secret not in repr(token)
    with either.reading() as connection:
        assert secret.encode() not in bytes(connection.execute(sa.select(tokens.c.secret)).scalar_one())
        assert next(entry.event for entry in security_log.read(connection)) == "tokens.issued"
    who, found = book.principal(secret)
    assert who.kind == "program" and who.name == token.id and who.owner == "ada" and who.actor == f"program:{token.id}"
    assert who.rights == {"queries.ask", "queries.read"} and found.key == KEY
    with pytest.raises(Refused) as raised:
        check(who, "queries.cancel")
    assert raised.value.code == "rights.not_in_scope"
    clock.pass_time(3600)
    book.principal(secret)
    assert book.own(ADA)[0].used == clock()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"scopes": set()}, "tokens.unknown_scope"),
        ({"scopes": {"queries.aks"}}, "tokens.unknown_scope"),
        ({"scopes": {"queries.ask", "grants.issue"}}, "tokens.beyond_rights"),
        ({"scopes": {"account.own"}}, "tokens.beyond_rights"),
        ({"scopes": {"tokens.own"}}, "tokens.beyond_rights"),
        ({"days": 0}, "tokens.bad_period"),
        ({"days": 366}, "tokens.bad_period"),
        ({"days": -1}, "tokens.bad_period"),
        ({"label": ""}, "tokens.bad_label"),
        ({"label": "x" * 65}, "tokens.bad_label"),
        ({"label": "a\nb"}, "tokens.bad_label"),
        ({"key": VerifyKey(1, bytes(31))}, "tokens.bad_key"),
        ({"key": VerifyKey(1, bytes(32))}, "tokens.bad_key"),
        ({"key": VerifyKey(1, b"\x01" + bytes(31))}, "tokens.bad_key"),
        ({"key": VerifyKey(2, KEY.public)}, "tokens.bad_key"),
    ],
)
def test_what_is_not_allowed_is_refused(book: Tokens, change: dict[str, Any], code: str) -> None:
    asked = {"label": "run", "scopes": {"queries.ask"}, "key": KEY, "days": 365, **change}
    assert _refused(lambda: book.issue(ADA, **asked)) == code
    assert book.own(ADA) == []


def test_a_program_makes_no_tokens(book: Tokens) -> None:
    secret, _ = book.issue(ADA, "run", {"queries.ask"}, KEY, days=1)
    who, _ = book.principal(secret)
    assert _refused(lambda: book.issue(who, "more", {"queries.ask"}, KEY, days=1)) == "rights.not_in_scope"
    assert _refused(lambda: book.own(who)) == "rights.not_in_scope"


def test_a_token_ends(book: Tokens, people: People, clock: Clock) -> None:
    secret, token = book.issue(ADA, "run", {"queries.ask"}, KEY, days=1)
    clock.pass_time(DAY_MS / 1000 - 0.001)
    book.principal(secret)
    clock.pass_time(0.001)
    assert _refused(lambda: book.principal(secret)) == "tokens.expired"
    secret, token = book.issue(ADA, "run", {"queries.ask"}, KEY, days=1)
    book.revoke(ADA, token.id)
    book.revoke(ADA, token.id)
    assert _refused(lambda: book.principal(secret)) == "tokens.revoked"
    for unknown in ("", "\0", "\ud800", PREFIX, secret[:-1], secret.upper(), "x" * 9000):
        assert _refused(lambda unknown=unknown: book.principal(unknown)) == "tokens.unknown"


def test_what_the_owner_loses_the_token_loses(book: Tokens, people: People, either: Database) -> None:
    secret, _ = book.issue(ADA, "run", {"queries.ask", "queries.read"}, KEY, days=1)
    with either.transaction() as connection:  # by an operator's hand
        connection.execute(roles_of.update().values(role="auditor").where(roles_of.c.person == "ada"))
    assert book.principal(secret)[0].rights == {"queries.read"}
    people.set_roles(ADMIN, "ada", {"researcher"})
    assert _refused(lambda: book.principal(secret)) == "tokens.revoked"
    people.set_disabled(ADMIN, "ada", True)
    assert _refused(lambda: book.principal(secret)) == "tokens.owner_gone"


def test_only_the_owner_or_an_admin_revokes_and_nobody_learns_which_exist(book: Tokens) -> None:
    _, token = book.issue(ADA, "run", {"queries.ask"}, KEY, days=1)
    bob = Principal("person", "bob", frozenset({"researcher"}), rights_of({"researcher"}), "bob")
    for name in (token.id, "nothing", "\0", "\ud800", token.id + "\n"):
        assert _refused(lambda name=name: book.revoke(bob, name)) == "rights.not_yours"
    assert book.own(bob) == [] and _refused(lambda: book.all(bob)) == "rights.not_yours"
    assert _refused(lambda: book.revoke(ADMIN, "nothing")) == "tokens.no_such"
    book.revoke(ADMIN, token.id)
    assert book.all(ADMIN)[0].revoked


def test_tokens_in_force_are_counted(book: Tokens, clock: Clock) -> None:
    for _ in range(MOST_PER_OWNER):
        _, token = book.issue(ADA, "run", {"queries.ask"}, KEY, days=1)
    assert _refused(lambda: book.issue(ADA, "run", {"queries.ask"}, KEY, days=1)) == "tokens.too_many"
    book.revoke(ADA, token.id)
    book.issue(ADA, "run", {"queries.ask"}, KEY, days=1)
    clock.pass_time(DAY_MS / 1000)
    book.issue(ADA, "run", {"queries.ask"}, KEY, days=1)
