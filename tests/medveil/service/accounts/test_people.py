"""Accounts: invitations, roles, the last admin, and that every change is in the security log."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from medveil.service.accounts.one_time_codes import matching_step
from medveil.service.accounts.passwords import Hashing, Passwords, check_new
from medveil.service.accounts.people import INVITATION_MS, People, people
from medveil.service.accounts.rights import Principal, rights_of
from medveil.service.accounts.sign_in import SignIn
from medveil.service.accounts.ways_in import invitations
from medveil.service.database import Database
from medveil.service.security import security_log
from wire.errors import Refused

from ..conftest import Clock

GOOD = "seven wet lanterns hum"
ADMIN = Principal("person", "root", frozenset({"admin"}), rights_of({"admin"}), "root")
QUICK = Passwords(Hashing(1, 8, 1))
Rand = Callable[[int], bytes]


@pytest.fixture
def house(either: Database, clock: Clock, rand: Rand) -> People:
    made = People(either, "hospital-a", clock=clock, rand=rand, passwords=QUICK)
    made.accept(made.invite_first_admin("root"), GOOD)
    return made


def _events(database: Database) -> list[str]:
    with database.reading() as connection:
        security_log.verify(connection)
        return [entry.event for entry in reversed(security_log.read(connection))]


def test_the_first_admin_is_made_once(either: Database, clock: Clock, rand: Rand) -> None:
    house = People(either, "hospital-a", clock=clock, rand=rand, passwords=QUICK)
    lost = house.invite_first_admin("root")
    secret = house.invite_first_admin("root")
    with pytest.raises(Refused):
        house.accept(lost, GOOD)
    assert house.accept(secret, GOOD) == "root"
    with pytest.raises(Refused) as again:
        house.accept(secret, GOOD)
    assert again.value.code == "accounts.no_invitation"
    with pytest.raises(Refused) as second:
        house.invite_first_admin("eve")
    assert second.value.code == "accounts.has_admin"


def test_an_invitation_expires_and_is_kept_hashed(house: People, either: Database, clock: Clock) -> None:
    secret = house.add(ADMIN, "ada", {"officer"})
    with either.reading() as connection:
        stored = bytes(connection.execute(sa.select(invitations.c.secret)).scalar_one())
    assert secret.encode() not in stored and base64.urlsafe_b64decode(secret + "=") != stored
    clock.pass_time(INVITATION_MS / 1000)
    with pytest.raises(Refused):
        house.accept(secret, GOOD)


def test_a_bad_password_leaves_the_invitation(house: People) -> None:
    secret = house.add(ADMIN, "ada", {"officer"})
    with pytest.raises(Refused) as raised:
        house.accept(secret, "short")
    assert raised.value.code == "accounts.password_short"
    assert house.accept(secret, GOOD) == "ada"


@pytest.mark.parametrize("name", ["", "Ada", "ada lovelace", "a" * 65, "ada\n", "1ada", "../ada", "ada--b", "雅达"])
def test_names_are_plain(house: People, name: str) -> None:
    with pytest.raises(Refused) as raised:
        house.add(ADMIN, name, {"officer"})
    assert raised.value.code == "accounts.bad_name"


def test_a_name_is_taken_once_and_roles_are_known(house: People) -> None:
    house.add(ADMIN, "ada", {"officer"})
    with pytest.raises(Refused):
        house.add(ADMIN, "ada", {"clerk"})
    with pytest.raises(Refused):
        house.add(ADMIN, "bob", {"root"})
    with pytest.raises(Refused) as unknown:
        house.set_roles(ADMIN, "bob", {"clerk"})
    assert unknown.value.code == "accounts.unknown"


@pytest.mark.parametrize("how", ["roles", "disabled", "reset"])
def test_the_last_admin_who_can_sign_in_stays(house: People, how: str) -> None:
    def remove() -> None:
        if how == "roles":
            house.set_roles(ADMIN, "root", {"auditor"})
        elif how == "disabled":
            house.set_disabled(ADMIN, "root", True)
        else:
            house.reset(ADMIN, "root")

    invitation = house.add(ADMIN, "ada", {"admin", "officer"})
    with pytest.raises(Refused) as raised:  # ada has not accepted yet, so she does not count
        remove()
    assert raised.value.code == "accounts.last_admin"
    root = next(person for person in house.all(ADMIN) if person.name == "root")
    assert root.roles == {"admin"} and not root.disabled and root.has_password  # the refusal changed nothing
    house.accept(invitation, GOOD)
    remove()


def test_who_has_no_right_changes_nothing(house: People) -> None:
    officer = Principal("person", "ada", frozenset({"officer"}), rights_of({"officer"}))
    for attempt in (
        lambda: house.add(officer, "eve", {"admin"}),
        lambda: house.set_roles(officer, "root", {"clerk"}),
        lambda: house.set_disabled(officer, "root", True),
        lambda: house.reset(officer, "root"),
        lambda: house.all(officer),
    ):
        with pytest.raises(Refused) as raised:
            attempt()
        assert raised.value.code == "rights.not_yours"
    assert [person.name for person in house.all(ADMIN)] == ["root"]


def test_an_admin_ends_somebodys_sessions(house: People, either: Database, clock: Clock, rand: Rand) -> None:
    house.accept(house.add(ADMIN, "bo", {"clerk"}), GOOD)
    door = SignIn(either, "hospital-a", bytes(32), clock=clock, rand=rand, passwords=QUICK)
    his, hers = door.sign_in("bo", GOOD, address="192.0.2.1"), door.sign_in("root", GOOD, address="192.0.2.1")
    with pytest.raises(Refused):
        house.end_sessions(Principal("person", "bo"), "root")
    house.end_sessions(ADMIN, "bo")
    with pytest.raises(Refused):
        door.principal(his.session)
    assert door.principal(hers.session).name == "root"
    with pytest.raises(Refused):
        house.end_sessions(ADMIN, "nobody")


def test_every_change_is_in_the_log_and_a_refused_one_is_not(house: People, either: Database) -> None:
    house.accept(house.add(ADMIN, "ada", {"admin"}), GOOD)
    house.set_roles(ADMIN, "ada", {"admin", "auditor"})
    house.set_disabled(ADMIN, "ada", True)
    with pytest.raises(Refused):
        house.set_disabled(ADMIN, "root", True)
    house.set_disabled(ADMIN, "ada", False)
    house.reset(ADMIN, "ada", codes=True)
    assert _events(either) == [
        "people.first_admin",
        "people.invitation_used",
        "people.added",
        "people.invitation_used",
        "people.roles",
        "people.disabled",
        "people.enabled",
        "people.reset",
    ]


def test_a_providers_person_is_made_once_and_roles_follow_the_claims(house: People) -> None:
    assert house.of_provider("issuer", "17", "ada", frozenset({"officer"})) == "ada"
    assert house.of_provider("issuer", "17", "renamed", frozenset({"clerk"})) == "ada"
    assert {person.name: person.roles for person in house.all(ADMIN)}["ada"] == {"clerk"}
    with pytest.raises(Refused) as raised:  # another subject cannot take the name, local or not
        house.of_provider("issuer", "18", "root", frozenset({"admin"}))
    assert raised.value.code == "accounts.exists"
    house.set_disabled(ADMIN, "ada", True)
    with pytest.raises(Refused):
        house.of_provider("issuer", "17", "ada", frozenset({"officer"}))
    with pytest.raises(Refused) as reset:
        house.reset(ADMIN, "ada")
    assert reset.value.code == "accounts.of_provider"


@pytest.mark.parametrize(
    "password",
    [
        "password1234",
        "P@ssw0rd1234!",
        "qwertyuiop123",
        "aaaaaaaaaaaaaaaaaaaaaaaa",
        "abcdabcdabcdabcd",
        "hospital-a-2026",
        "ada.lovelace1815",
        "medveilmedveil1",
        "123456789012345",
        "12.03.1985abc",
        "\uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44" + "1234",  # full-width "password"
    ],
)
def test_what_is_easily_guessed_is_refused(password: str) -> None:
    with pytest.raises(Refused) as raised:
        check_new(password, ("ada.lovelace", "hospital-a"))
    assert raised.value.code == "accounts.password_common"
    assert password not in str(raised.value)


@pytest.mark.parametrize(
    "password", [GOOD, "天地玄黄宇宙洪荒日月盈昃辰宿列张", "x7#Qm2!vR9$k", "z" + "pq 8R" * 20 + "!"]
)
def test_what_is_long_and_odd_is_accepted(password: str) -> None:
    if len(set(password)) > 8:
        check_new(password, ("ada", "hospital-a"))
    with pytest.raises(Refused):
        check_new(password[:11])
    with pytest.raises(Refused):
        check_new(password * 20)


def test_a_hash_is_salted_argon2id_with_the_stated_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Passwords()
    one, other = real.hash(GOOD), real.hash(GOOD)
    assert one != other and one.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert real.matches(one, GOOD) and not real.matches(one, GOOD + "x") and not real.matches(None, GOOD)
    assert not real.is_outdated(one) and real.is_outdated(QUICK.hash(GOOD))
    assert not real.matches("no hash at all", GOOD)


def test_rfc_6238_codes() -> None:
    """RFC 6238, appendix B (SHA-1), shortened to six digits."""
    seed = b"12345678901234567890"
    for seconds, code in [(59, "287082"), (1111111109, "081804"), (1234567890, "005924"), (20000000000, "353130")]:
        step = seconds // 30
        assert matching_step(seed, code, seconds * 1000, -1) == step
        assert matching_step(seed, code, (seconds + 30) * 1000, -1) == step
        assert matching_step(seed, code, (seconds + 61) * 1000, -1) is None
        assert matching_step(seed, code, seconds * 1000, step) is None  # used


def test_no_clear_secret_is_in_the_store(house: People, either: Database) -> None:
    with either.reading() as connection:
        row = connection.execute(sa.select(people)).one()
    assert GOOD not in row.password and row.password.startswith("$argon2id$")
