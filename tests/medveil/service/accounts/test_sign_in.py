"""Signing in: codes that work once, waits that end, sessions that end, and one answer to every wrong guess."""

from __future__ import annotations

import base64
import threading
import urllib.parse
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from medveil.service.accounts.passwords import Hashing, Passwords
from medveil.service.accounts.people import People, people
from medveil.service.accounts.rights import Principal, rights_of
from medveil.service.accounts.sign_in import SignedIn, SignIn
from medveil.service.accounts.throttling import ACCOUNT, ADDRESS, DEVICE, counters, of_address
from medveil.service.accounts.ways_in import sessions
from medveil.service.database import Database
from medveil.service.security import security_log
from wire.errors import DecodeError, Refused, Unavailable

from ..conftest import Clock

GOOD = "seven wet lanterns hum"
NEW = "copper moth reads braille"
HOME, AWAY = "192.0.2.1", "198.51.100.7"
ADMIN = Principal("person", "root", frozenset({"admin"}), rights_of({"admin"}), "root")
QUICK = Passwords(Hashing(1, 8, 1))
KEY = bytes(range(32))


class House:
    """A service with one admin, and an officer who has not set up codes."""

    def __init__(self, database: Database, clock: Clock, rand: Callable[[int], bytes]) -> None:
        self.database, self.clock, self.rand = database, clock, rand
        self.people = People(database, "hospital-a", clock=clock, rand=rand, passwords=QUICK)
        self.people.accept(self.people.invite_first_admin("root"), GOOD)
        self.people.accept(self.people.add(ADMIN, "ada", {"officer"}), GOOD)
        self.door = SignIn(database, "hospital-a", KEY, clock=clock, rand=rand, passwords=QUICK)

    def enter(self, password: str = GOOD, code: str = "", name: str = "ada", **more: str) -> SignedIn:
        return self.door.sign_in(name, password, code, **{"address": HOME, **more})

    def enrol(self) -> tuple[bytes, list[str]]:
        who = self.door.principal(self.enter().session)
        uri = self.door.begin_codes(who, GOOD, address=HOME)
        seed = base64.b32decode(urllib.parse.parse_qs(urllib.parse.urlsplit(uri).query)["secret"][0])
        return seed, self.door.finish_codes(who, self.code(seed))

    def code(self, seed: bytes, steps: int = 0) -> str:
        import pyotp

        return pyotp.TOTP(base64.b32encode(seed).decode()).generate_otp(self.clock() // 30_000 + steps)

    def events(self) -> list[str]:
        with self.database.reading() as connection:
            security_log.verify(connection)
            return [entry.event for entry in reversed(security_log.read(connection))]


@pytest.fixture
def house(either: Database, clock: Clock, rand: Callable[[int], bytes]) -> House:
    return House(either, clock, rand)


def _refused(attempt: Callable[[], object]) -> str:
    with pytest.raises(Refused) as raised:
        attempt()
    return raised.value.code


def test_without_codes_a_session_can_only_set_them_up(house: House) -> None:
    entered = house.enter()
    who = house.door.principal(entered.session)
    assert entered.enrolling and who.enrolling and who.rights == {"account.own"}
    house.enrol()
    assert _refused(lambda: house.door.principal(entered.session)) == "accounts.no_session"  # older sessions ended


def test_a_code_is_needed_once_set_up_and_works_once(house: House) -> None:
    seed, _ = house.enrol()
    assert _refused(house.enter) == "accounts.code_needed"
    assert _refused(lambda: house.enter(code=house.code(seed))) == "accounts.not_signed_in"  # used to confirm
    house.clock.pass_time(30)
    code = house.code(seed)
    entered = house.enter(code=code)
    assert house.door.principal(entered.session).rights == rights_of({"officer"})
    assert _refused(lambda: house.enter(code=code)) == "accounts.not_signed_in"
    assert _refused(lambda: house.enter(code=house.code(seed, -1))) == "accounts.not_signed_in"  # before the used one
    house.enter(code=house.code(seed, 1))
    assert _refused(lambda: house.enter(code=house.code(seed, 2))) == "accounts.not_signed_in"  # too early
    assert _refused(lambda: house.enter(NEW, code=house.code(seed, 1))) == "accounts.not_signed_in"


def test_a_code_that_two_use_at_the_same_time_lets_one_in(house: House) -> None:
    seed, _ = house.enrol()
    house.clock.pass_time(60)
    code, entered, refused = house.code(seed), [], []

    def attempt() -> None:
        try:
            entered.append(house.enter(code=code))
        except Refused as error:
            refused.append(error.code)

    threads = [threading.Thread(target=attempt) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(entered) == 1 and refused == ["accounts.not_signed_in"] * 3


def test_a_recovery_code_works_once_however_it_is_typed(house: House) -> None:
    _, codes = house.enrol()
    assert len(set(codes)) == 10
    house.enter(code=codes[3].lower().replace("-", " "))
    assert _refused(lambda: house.enter(code=codes[3])) == "accounts.not_signed_in"
    who = house.door.principal(house.enter(code=codes[4]).session)
    fresh = house.door.new_recovery_codes(who, GOOD, address=HOME)
    assert _refused(lambda: house.enter(code=codes[5])) == "accounts.not_signed_in"
    house.enter(code=fresh[0])
    assert house.events().count("account.recovery_code_used") == 3


def test_the_seed_is_encrypted_and_bound_to_its_person(house: House) -> None:
    seed, _ = house.enrol()
    with house.database.transaction() as connection:
        locked = connection.execute(sa.select(people.c.totp).where(people.c.name == "ada")).scalar_one()
        assert seed not in bytes(locked)
        connection.execute(people.update().where(people.c.name == "root").values(totp=locked))
    with pytest.raises(DecodeError) as raised:
        house.enter(name="root", code="123456")
    assert raised.value.code == "accounts.seed_locked"


def test_every_wrong_guess_has_one_answer_and_an_unknown_name_costs_the_same_work(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    work: list[bool] = []
    real = QUICK._hasher.__class__.verify

    def counted(self: object, hash: str, password: str) -> bool:
        work.append(True)
        return bool(real(self, hash, password))  # type: ignore[arg-type]

    monkeypatch.setattr(QUICK._hasher.__class__, "verify", counted)
    house.people.add(ADMIN, "invited", {"clerk"})
    house.people.accept(house.people.add(ADMIN, "gone", {"clerk"}), GOOD)
    house.people.set_disabled(ADMIN, "gone", True)
    words = set()
    for name, password in [
        ("ada", NEW),
        ("nobody", GOOD),
        ("invited", GOOD),
        ("gone", GOOD),
        ("x" * 500, GOOD),
        ("", ""),
    ]:
        work.clear()
        with pytest.raises(Refused) as raised:
            house.enter(password, name=name)
        words.add(str(raised.value))
        assert len(work) == 1, name
    assert len(words) == 1


def test_waits_double_end_and_are_not_lengthened_by_trying(house: House) -> None:
    waits = []
    for _ in range(ACCOUNT.free + 8):
        assert _refused(lambda: house.enter(NEW, address=AWAY)) == "accounts.not_signed_in"
        with house.database.reading() as connection:
            until = connection.execute(sa.select(sa.func.max(counters.c.wait_until))).scalar_one()
        wait = max(0, until - house.clock()) // 1000
        waits.append(wait)
        for _ in range(5):
            if wait:
                with pytest.raises(Unavailable) as raised:
                    house.enter(GOOD, address=AWAY)  # even the right one is not looked at
                assert raised.value.retry_after == wait
        house.clock.pass_time(wait)
    assert waits == [0] * 5 + [2, 4, 8, 16, 30, 30, 30, 30]
    house.enter(address=AWAY)


def test_an_attacker_cannot_lock_out_somebody_who_was_here_before(house: House) -> None:
    device = house.enter().device
    for n in range(200):  # many addresses, so that only the account's counter grows
        try:
            house.enter(NEW, address=f"10.0.{n // 250}.{n % 250}")
        except (Refused, Unavailable):
            pass
    with pytest.raises(Unavailable) as raised:
        house.enter()
    assert raised.value.retry_after <= ACCOUNT.longest
    house.enter(device=device)
    house.clock.pass_time(ACCOUNT.longest)
    house.enter()


def test_a_stolen_device_secret_is_throttled_too_and_is_of_no_use_for_another_account(house: House) -> None:
    device = house.enter().device
    for _ in range(DEVICE.free):
        _refused(lambda: house.enter(NEW, device=device))
    _refused(lambda: house.enter(NEW, device=device))
    with pytest.raises(Unavailable):
        house.enter(device=device)
    for _ in range(ACCOUNT.free + 1):
        _refused(lambda: house.enter(NEW, name="root", device=device, address=AWAY))
    with pytest.raises(Unavailable):
        house.enter(name="root", device=device, address=AWAY)


def test_an_address_waits_whatever_names_it_tries_and_ones_own_account_does_not_clear_it(house: House) -> None:
    for n in range(ADDRESS.free):
        _refused(lambda n=n: house.enter(GOOD, name=f"guess{n}", address="2001:db8::1"))
        house.enter(address="2001:db8::2")  # the attacker's own account, same /64
    _refused(lambda: house.enter(GOOD, name="one-more", address="2001:db8::3"))
    with pytest.raises(Unavailable):
        house.enter(address="2001:db8::4")
    house.enter(address="2001:db8:0:1::1")


def test_addresses_are_counted_by_who_can_have_them() -> None:
    assert of_address("::ffff:192.0.2.1") == of_address("192.0.2.1") != of_address("::ffff:192.0.2.2")
    assert of_address("2001:db8::1") == of_address("2001:db8::ffff") != of_address("2001:db8:0:1::1")
    assert of_address("") == of_address("no address") != of_address("192.0.2.1")


def test_attempts_at_once_are_all_counted(house: House) -> None:
    answers: list[str] = []

    def attempt() -> None:
        try:
            house.enter(NEW, address=AWAY)
        except (Refused, Unavailable) as error:
            answers.append(error.code)

    threads = [threading.Thread(target=attempt) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers.count("accounts.not_signed_in") == ACCOUNT.free + 1


def test_counters_are_forgotten_after_a_day(house: House) -> None:
    for n in range(30):
        try:
            house.enter(NEW, name=f"n{n}", address=f"10.1.0.{n}")
        except Refused:
            pass
    house.clock.pass_time(24 * 3600 + 1)
    house.enter()
    with house.database.reading() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(counters)).scalar_one() <= 1


def test_a_session_ends_when_unused_at_its_age_and_at_sign_out(house: House) -> None:
    idle = house.enter().session
    house.clock.pass_time(30 * 60)
    assert _refused(lambda: house.door.principal(idle)) == "accounts.no_session"
    used = house.enter().session
    for _ in range(12 * 3 - 1):
        house.clock.pass_time(20 * 60)
        house.door.principal(used)
    house.clock.pass_time(20 * 60)
    assert _refused(lambda: house.door.principal(used)) == "accounts.no_session"
    one, other = house.enter().session, house.enter().session
    house.door.sign_out(house.door.principal(one))
    assert _refused(lambda: house.door.principal(one)) == "accounts.no_session"
    house.door.sign_out(house.door.principal(other), everywhere=True)
    assert _refused(lambda: house.door.principal(other)) == "accounts.no_session"


def test_a_session_is_new_at_each_sign_in_and_replaces_the_one_shown(house: House) -> None:
    first = house.enter()
    second = house.enter(replaces=first.session, device=first.device)
    assert second.session != first.session and second.device == first.device
    assert _refused(lambda: house.door.principal(first.session)) == "accounts.no_session"
    planted = house.enter(replaces="a-session-that-an-attacker-chose")
    assert planted.session != "a-session-that-an-attacker-chose"
    assert first.session not in repr(first) and first.device not in repr(first)


@pytest.mark.parametrize("session", ["", "x", "x" * 10_000, "\ud800", "é"])
def test_a_session_that_never_was_is_refused(house: House, session: str) -> None:
    assert _refused(lambda: house.door.principal(session)) == "accounts.no_session"


def test_a_session_is_kept_hashed(house: House) -> None:
    secret = house.enter().session
    with house.database.reading() as connection:
        stored = [bytes(row.secret) for row in connection.execute(sa.select(sessions))]
    raw = base64.urlsafe_b64decode(secret + "=")
    assert len(raw) == 32 and raw not in stored and secret.encode() not in stored


def test_a_changed_password_ends_every_session_and_device(house: House) -> None:
    entered = house.enter()
    other = house.enter()
    who = house.door.principal(entered.session)
    assert _refused(lambda: house.door.change_password(who, NEW, NEW, address=HOME)) == "accounts.not_confirmed"
    assert _refused(lambda: house.door.change_password(who, GOOD, "short", address=HOME)) == "accounts.password_short"
    fresh = house.door.change_password(who, GOOD, NEW, address=HOME)
    for secret in (entered.session, other.session):
        assert _refused(lambda secret=secret: house.door.principal(secret)) == "accounts.no_session"
    assert house.door.principal(fresh.session).name == "ada"
    assert _refused(house.enter) == "accounts.not_signed_in"
    house.enter(NEW)
    assert "account.password_changed" in house.events() and "account.wrong_password" in house.events()


def test_confirming_a_password_is_throttled(house: House) -> None:
    who = house.door.principal(house.enter().session)
    for _ in range(DEVICE.free + 1):
        _refused(lambda: house.door.change_password(who, "wrong", NEW, address=HOME))
    with pytest.raises(Unavailable):
        house.door.change_password(who, GOOD, NEW, address=HOME)


def test_a_role_or_a_disabled_account_holds_from_the_next_call_on(house: House) -> None:
    door = SignIn(
        house.database, "hospital-a", KEY, clock=house.clock, rand=house.rand, passwords=QUICK, codes_for=frozenset()
    )
    secret = door.sign_in("ada", GOOD, address=HOME).session
    assert "grants.issue" in door.principal(secret).rights
    house.people.set_roles(ADMIN, "ada", {"auditor"})
    assert _refused(lambda: door.principal(secret)) == "accounts.no_session"
    secret = door.sign_in("ada", GOOD, address=HOME).session
    assert "grants.issue" not in door.principal(secret).rights
    house.people.set_disabled(ADMIN, "ada", True)
    assert _refused(lambda: door.principal(secret)) == "accounts.no_session"
    house.people.set_disabled(ADMIN, "ada", False)
    assert _refused(lambda: door.principal(secret)) == "accounts.no_session"


def test_a_hash_of_weaker_parameters_is_renewed_at_sign_in(house: House) -> None:
    raised = Passwords(Hashing(2, 16, 1))
    door = SignIn(house.database, "hospital-a", KEY, clock=house.clock, rand=house.rand, passwords=raised)
    door.sign_in("ada", GOOD, address=HOME)
    with house.database.reading() as connection:
        stored = connection.execute(sa.select(people.c.password).where(people.c.name == "ada")).scalar_one()
    assert "m=16,t=2,p=1" in stored
    door.sign_in("ada", GOOD, address=HOME)


def test_an_account_that_is_reset_while_its_password_is_checked_does_not_get_in(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Passwords.matches

    def slow(self: Passwords, kept: str | None, password: str) -> bool:
        right = real(self, kept, password)
        house.people.set_disabled(ADMIN, "ada", True)
        return right

    monkeypatch.setattr(Passwords, "matches", slow)
    assert _refused(house.enter) == "accounts.not_signed_in"


@pytest.mark.parametrize("withdrawn", ["reset", "disabled", "sessions"])
@pytest.mark.parametrize("change", ["password", "codes", "recovery codes"])
def test_what_is_withdrawn_while_a_password_is_checked_is_not_undone_by_it(
    house: House, monkeypatch: pytest.MonkeyPatch, withdrawn: str, change: str
) -> None:
    """Whoever stole a session and its password cannot outlive an administrator's reset by being busy meanwhile."""
    who = house.door.principal(house.enter().session)
    real = Passwords.matches

    def slow(self: Passwords, kept: str | None, password: str) -> bool:
        right = real(self, kept, password)
        if withdrawn == "reset":
            house.people.reset(ADMIN, "ada")
        elif withdrawn == "disabled":
            house.people.set_disabled(ADMIN, "ada", True)
        else:
            house.people.end_sessions(ADMIN, "ada")
        return right

    monkeypatch.setattr(Passwords, "matches", slow)
    asked = {
        "password": lambda: house.door.change_password(who, GOOD, NEW, address=HOME),
        "codes": lambda: house.door.begin_codes(who, GOOD, address=HOME),
        "recovery codes": lambda: house.door.new_recovery_codes(who, GOOD, address=HOME),
    }[change]
    assert _refused(asked) == "accounts.no_session"
    with house.database.reading() as connection:
        assert connection.execute(sa.select(sessions).where(sessions.c.person == "ada")).all() == []
        row = connection.execute(sa.select(people).where(people.c.name == "ada")).one()
        assert row.totp_pending is None and (row.password is None) is (withdrawn == "reset")


def test_nobody_who_was_disabled_meanwhile_enters_by_a_provider(house: House) -> None:
    house.people.of_provider("issuer", "17", "bob", frozenset({"clerk"}))
    house.people.set_disabled(ADMIN, "bob", True)
    assert _refused(lambda: house.door.open_for_provider("bob")) == "accounts.disabled"


def test_what_is_refused_is_in_the_log_without_what_was_typed(house: House) -> None:
    _refused(lambda: house.enter("hunter2-secret", name="hunter2-name"))
    _refused(lambda: house.enter("hunter2-secret"))
    with house.database.reading() as connection:
        found = [entry for entry in security_log.read(connection) if entry.event == "account.not_signed_in"]
    assert [entry.subject for entry in found] == ["person:ada", "unknown"]


def test_a_session_of_a_provider_needs_no_codes_here(house: House) -> None:
    house.people.of_provider("issuer", "17", "bob", frozenset({"clerk"}))
    who = house.door.principal(house.door.open_for_provider("bob").session)
    assert who.rights == rights_of({"clerk"}) and not who.enrolling
    assert _refused(lambda: house.enter("", name="bob")) == "accounts.not_signed_in"


def test_the_log_says_how_somebody_signed_in(house: House) -> None:
    seed, codes = house.enrol()
    assert all(len(base64.b32decode(code.replace("-", ""))) * 8 >= 112 for code in codes)  # one hash keeps them
    house.clock.pass_time(30)
    house.enter(code=house.code(seed))
    house.people.of_provider("issuer", "17", "bob", frozenset({"clerk"}))
    house.door.open_for_provider("bob")
    with house.database.reading() as connection:
        found = [entry for entry in security_log.read(connection) if entry.event == "account.signed_in"]
    assert [entry.reason for entry in reversed(found)] == ["password", "password and code", "provider"]


@pytest.mark.parametrize("text", ["\0", "ada\0", "\ud800", "'; DROP TABLE people; --", "%", "\u202e", "x" * 100_000])
def test_no_text_of_an_outsider_breaks_a_statement(house: House, text: str) -> None:
    """NUL and half a surrogate pair are what drivers refuse with errors of their own."""
    for attempt in (
        lambda: house.enter(name=text, code=text, device=text, replaces=text),
        lambda: house.enter(NEW + text[:10]),
        lambda: house.people.accept(text, GOOD),
        lambda: house.people.set_roles(ADMIN, text, {"clerk"}),
        lambda: house.people.add(ADMIN, text, {"clerk"}),
        lambda: house.people.add(ADMIN, "new", {text}),
        lambda: house.people.reset(ADMIN, text),
        lambda: house.people.set_disabled(ADMIN, text, True),
        lambda: house.door.principal(text),
    ):
        with pytest.raises(Refused):
            attempt()
    seed, _ = house.enrol()
    house.clock.pass_time(60)
    assert _refused(lambda: house.enter(code=text[:8] or "x")) == "accounts.not_signed_in"
    assert _refused(lambda: house.enter(code=text[:8] + "-long-enough")) == "accounts.not_signed_in"
    house.enter(code=house.code(seed), device=text, replaces=text)


def test_a_colleague_behind_the_same_address_locks_nobody_out_of_a_known_device(house: House) -> None:
    device = house.enter().device
    for n in range(ADDRESS.free + 3):
        with pytest.raises((Refused, Unavailable)):
            house.enter(GOOD, name=f"guess{n}")
    with pytest.raises(Unavailable):
        house.enter()  # a device that nobody knows waits with its address
    house.enter(device=device)
